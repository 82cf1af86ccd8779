"""How the lanes of a path are trained, and the trained lanes."""

import numbers
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from poise.optimizer.inner import UPDATES


@dataclass(frozen=True)
class Training:
    """Set how every lane of a path is trained.

    Args:
        epochs: Passes over the training rows of the lane's fold. Default: 100.
        batch_size: Rows in a batch. None: all training rows at once. Default: 32.
        update: How the penalty acts, as in `poise.PenalizedOptimizer`. Default: None, which takes the update of the
            `PenalizedOptimizer` that the model was compiled with, or `"auto"` if there is none.
        start: `"fresh"` (every lane starts from the same initial weights) or `"dense"` (one training without the
            penalty first, and every lane starts from its solution: the dense-to-sparse path of LassoNet, Lemhadri et
            al. 2021). Default: `"fresh"`.
        settle: Largest number of steps after the epochs, each on all training rows. On mini-batches the gradients are
            noisy, so the set of weights that are exactly zero never settles; these steps let it settle. They are
            quasi-Newton steps where possible: after at least one epoch, on at most 8192 rows in memory, for a network
            without random numbers or state (no `Dropout`, no `BatchNormalization`), and for penalties that are smooth
            or sums over weights, such as L1. A lane also stops after 50 of them in which neither its objective nor its
            residual falls by more than rounding, as at a kink of ReLU. Otherwise they are steps of the optimizer,
            restarted with its initial learning rate, which falls to zero along a cosine (with more than 8192 rows,
            each step is on the next 4096 rows). Default: None, which is 0 if no penalty can set weights to exactly
            zero, else 400 for quasi-Newton steps and 2000 for steps of the optimizer.
        tolerance: A lane has settled when its residual is at most this share of its prediction gradient. Default: 1e-3.
        early_stopping: Whether each strength is trained only as long as it helps: of about 16 numbers of epochs (or of
            settling steps), it takes the one with the lowest mean held-out loss, and training stops soon after it. With
            a penalty that sets weights to exactly zero, settling ends once the zeros have settled as well. The
            network on all rows is trained as long as the networks of the folds. False trains to the end, so that the
            strength is the only regularizer. Default: None, which is False if a penalty can set weights to exactly
            zero or the data are a stream of batches, else True.

    Raises:
        TypeError: If a value has another type.
        ValueError: If a value is not allowed.

    Examples:
        >>> import poise
        >>> poise.Training(epochs=20, batch_size=None).epochs
        20
    """

    epochs: int = 100
    batch_size: int | None = 32
    update: Literal["auto", "coupled", "decoupled", "proximal"] | None = None
    start: Literal["fresh", "dense"] = "fresh"
    settle: int | None = None
    tolerance: float = 1e-3
    early_stopping: bool | None = None

    def __post_init__(self) -> None:
        for name, least, optional in (
            ("epochs", 0, False),
            ("batch_size", 1, True),
            ("settle", 0, True),
        ):
            value = getattr(self, name)
            if value is None and optional:
                continue
            kind = f"an int >= {least}{' or None' if optional else ''}"
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                raise TypeError(f"Training({name}) must be {kind}, got {value!r}.")
            if value < least:
                raise ValueError(f"Training({name}) must be {kind}, got {value!r}.")
        if self.update is not None and self.update not in UPDATES:
            raise ValueError(f"Training(update) must be one of {', '.join(map(repr, UPDATES))}, got {self.update!r}.")
        if self.start not in ("fresh", "dense"):
            raise ValueError(f"Training(start) must be one of 'fresh', 'dense', got {self.start!r}.")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, numbers.Real):
            raise TypeError(f"Training(tolerance) must be a number > 0, got {self.tolerance!r}.")
        if not 0 < self.tolerance < np.inf:
            raise ValueError(f"Training(tolerance) must be a number > 0, got {self.tolerance!r}.")
        if not isinstance(self.early_stopping, bool | None):
            raise TypeError(f"Training(early_stopping) must be True, False or None, got {self.early_stopping!r}.")


@dataclass(frozen=True, eq=False)
class Replica:
    """The training rows and held-out rows of a family of lanes, one lane per strength.

    Attributes:
        fold: number of the held-out fold; -1 if there is none (all rows are training rows).
        seed: number of the draw of initial weights; 0: the model's own.
        train: (rows,) positions of the training rows.
        held: (rows,) positions of the held-out rows; empty if there are none.
    """

    fold: int
    seed: int
    train: np.ndarray
    held: np.ndarray


@dataclass(eq=False)
class Lanes:
    """The trained lanes of a path, by replica and strength.

    Attributes:
        table: one row per lane, sorted by replica, then by strength: `fold` (-1: all rows), `seed`, `strength`, `loss`
            and `held_loss` (prediction losses on the training and the held-out rows, with dropout off), `penalty`,
            `residual`, `gradient` (norms over all penalized variables), `zeros` (exact zeros among the penalized
            weights), `units` (live columns of the penalized kernels, and live groups of a joint penalty), `settled`
            (full-batch steps taken), `epochs` (passes over the training rows), `diverged`, `failed` (on a
            cluster: its chunk could not be trained, and the lane counts as diverged), `is_empty` (all weights under
            non-smooth penalties are zero; False if there are none), `seconds` (an equal share of the time of its
            chunk).
        sizes: by penalized variable (its path) the size of every group of its non-smooth penalty, or of every entry if
            it has no groups: (replicas, strengths, groups or *shape). The variables of a joint penalty are one, by the
            name of its rule.
        features: (replicas, strengths, inputs) whether the input is read; None if unknown.
        weights: one array per weight of the model, in the order of `model.weights`, (full replicas, strengths, *shape);
            a full replica trains on all rows, and there is one per seed.
        squares: sums of `poise.optimizer.targets.measure`, (replicas, strengths, targets, 4); not saved.
        history: what was measured at the checkpoints of early stopping: `length` (epochs or settling steps), `loss`,
            `held_loss` and `penalty`, (replicas, strengths, checkpoints), and `squares`, which has the further axes
            (targets, 4); NaN where nothing was measured; not saved.
    """

    table: pd.DataFrame
    sizes: dict[str, np.ndarray] = field(default_factory=dict)
    features: np.ndarray | None = None
    weights: list[np.ndarray] = field(default_factory=list)
    squares: np.ndarray | None = None
    history: dict[str, np.ndarray] = field(default_factory=dict)
