"""How one lane of a path is trained, and what it leaves behind."""

import numbers
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from poise.optimizer.inner import UPDATES


@dataclass(frozen=True)
class Training:
    """How every lane of a path is trained.

    Args:
        epochs: passes over the rows of the lane's fold.
        batch_size: rows in a batch; None for all rows of the fold at once.
        update: How the penalty acts, as in `poise.PenalizedOptimizer`. Default: None, which takes the update of the
            `PenalizedOptimizer` that the model was compiled with, or `"auto"` if there is none.
        start: `"fresh"` (every lane from the same initial weights) or `"dense"` (one training without the penalty
            first, every lane from its solution: the dense-to-sparse path of LassoNet, Lemhadri et al. 2021).
        settle: full-batch steps after the epochs, at most (on 4096 rows in turn where there are more than 8192). A
            proximal step on noisy gradients never settles on its zeros. None for 2000 where a penalty has exact zeros
            and 0 elsewhere. They start the optimizer anew, with its first learning rate falling to zero by a cosine.
        tolerance: a lane has settled when its residual is at most this share of its prediction gradient.
        patience: stop a lane after so many epochs without a lower held-out loss, and go back to its best weights;
            None trains to the end (the strength is then the only regularizer).

    Raises:
        TypeError, ValueError: for a value that is not allowed.

    Example:
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
    patience: int | None = None

    def __post_init__(self):
        for name, least, optional in (
            ("epochs", 0, False),
            ("batch_size", 1, True),
            ("settle", 0, True),
            ("patience", 1, True),
        ):
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                raise TypeError(f"Training({name}={value!r}): give a whole number{' or None' if optional else ''}.")
            if value < least:
                raise ValueError(f"Training({name}={value!r}): give a whole number ≥ {least}.")
        if self.update is not None and self.update not in UPDATES:
            raise ValueError(f"Training(update={self.update!r}) is not one of {', '.join(map(repr, UPDATES))}.")
        if self.start not in ("fresh", "dense"):
            raise ValueError(f"Training(start={self.start!r}) is not one of 'fresh', 'dense'.")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, numbers.Real):
            raise TypeError(f"Training(tolerance={self.tolerance!r}): give a number > 0.")
        if not 0 < self.tolerance < np.inf:
            raise ValueError(f"Training(tolerance={self.tolerance!r}): give a number > 0.")
        if self.patience is not None and self.epochs == 0:
            raise ValueError("Training(patience=...) stops epochs, and epochs=0 trains none.")


@dataclass(frozen=True, eq=False)
class Replica:
    """The rows that a family of lanes, one a strength, trains on and is judged by.

    Attributes:
        fold: the number of the fold that is held out; −1 for none (all rows train).
        seed: the number of the draw of initial weights; 0: the model's own.
        train: (rows,) positions of the rows that train.
        held: (rows,) positions of the rows that are held out; empty for none.
    """

    fold: int
    seed: int
    train: np.ndarray
    held: np.ndarray


@dataclass(eq=False)
class Lanes:
    """What the lanes of a path leave behind, replica by replica and strength by strength.

    Attributes:
        table: one row a lane, sorted by replica, then by strength: `fold` (−1: all rows), `seed`, `strength`, `loss`
            and `held_loss` (the prediction losses on the rows that train and on those held out, with dropout off),
            `penalty`, `residual`, `gradient` (norms over all penalized variables), `zeros` (exact zeros among the
            penalized weights), `units` (live columns of the penalized kernels, and live groups of a joint penalty),
            `settled` (full-batch steps taken), `epochs` (of the best weights, with patience), `diverged`, `failed` (on
            a cluster: its chunk could not be trained, and the lane counts as diverged), `is_empty` (nothing is left
            under a non-smooth penalty; False where there is none), `seconds` (an equal share of those that its chunk
            took).
        sizes: per penalized variable (its path) the size of every group of its non-smooth penalty, or of every entry
            where that has no groups: (replicas, strengths, groups or *shape). The variables of a joint penalty are one,
            by the name of its rule.
        features: (replicas, strengths, inputs): is the input still read?; None where that cannot be told.
        weights: per weight of the model, in the order of `model.weights`, (kept, strengths, *shape): those of the
            replicas that hold nothing out, one a seed.
    """

    table: pd.DataFrame
    sizes: dict[str, np.ndarray] = field(default_factory=dict)
    features: np.ndarray | None = None
    weights: list[np.ndarray] = field(default_factory=list)
