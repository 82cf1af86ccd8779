"""How the lanes of a path are trained, and the trained lanes."""

import numbers
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from poise.optimizer.inner import UPDATES
from poise.validation import is_integer

FULL_BATCH_STEPS = 800
"""Full-batch steps of a study, of the estimators, and of a path with adaptive stages."""


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
        settle: Largest number of full-batch steps after the epochs. They make zeros exact, which noisy mini-batch
            gradients prevent. Where possible, they are quasi-Newton steps, which need at least one epoch, at most 8192
            rows in memory, a network without random numbers or state (no `Dropout` or `BatchNormalization`), and
            penalties that are smooth or sums over weights, such as L1; the user guide lists all conditions. A lane also
            stops after 50 of these steps without progress, as happens at a kink of ReLU: its lowest objective has not
            fallen by a relative 1e-6, nor its lowest residual by 1%. Otherwise, they are steps of the optimizer with a
            learning rate that falls to zero along a cosine; with more than 8192 training rows, each of them uses the
            next 4096 rows. Default: None, which is 0 if no penalty can set weights to exactly zero, else 400 for
            quasi-Newton steps and 2000 for steps of the optimizer.
        tolerance: Relative tolerance of settling: a lane has settled when its residual is at most `tolerance` times the
            norm of its prediction gradient. Quasi-Newton steps also require that the unpenalized weights have
            converged. Default: 1e-3.
        early_stopping: Whether to choose the training length of each strength by its mean held-out loss over the folds.
            The loss is measured at about 16 lengths (epochs or settling steps). For a smooth penalty, the strength
            takes the weights at the length with the lowest loss. For a penalty that sets weights to exactly zero, it
            takes the weights at the end of training, which ends when the number of zeros has settled and the loss no
            longer falls, or when the lanes overfit. The network on all rows is trained as long as the networks of the
            folds. Default: False, which trains to the end, so that the strength is the only regularizer.

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
    early_stopping: bool = False

    @classmethod
    def full_batch(cls, steps: int = FULL_BATCH_STEPS, **options: Any) -> Self:
        """Return settings that train only by full-batch steps of the optimizer.

        The learning rate falls to zero along a cosine. With more than 8,192 rows, each step uses the next 4,096. The
        zeros of groups of weights are then exact, and the choice of a strength is not disturbed by the noise of
        mini-batches. Studies, the estimators, and paths with adaptive stages train in this way.

        Args:
            steps: Largest number of steps. Default: 800.
            options: Further arguments of `poise.Training`, such as `early_stopping=True`.

        Returns:
            `poise.Training(epochs=0, settle=steps, **options)`.

        Raises:
            TypeError, ValueError: As for `poise.Training`.

        Examples:
            >>> import poise
            >>> poise.Training.full_batch(300) == poise.Training(epochs=0, settle=300)
            True
        """
        return cls(epochs=0, settle=steps, **options)

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
            if not is_integer(value):
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
        if not isinstance(self.early_stopping, bool):
            raise TypeError(f"Training(early_stopping) must be True or False, got {self.early_stopping!r}.")


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

    def predicted_rows(self, count: int) -> np.ndarray:
        """Return (rows,) the held-out rows that are predicted: all of them, or `count` drawn at random."""
        if len(self.held) <= count:
            return self.held
        return np.sort(np.random.default_rng(self.fold + 1).choice(self.held, count, replace=False))


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
            `held_loss` and `penalty`, (replicas, strengths, checkpoints); `squares`, which has the further axes
            (targets, 4); and, on request, `predictions` of held-out rows (`Replica.predicted_rows`), with the further
            axes (rows, outputs). NaN where nothing was measured; not saved.
    """

    table: pd.DataFrame
    sizes: dict[str, np.ndarray] = field(default_factory=dict)
    features: np.ndarray | None = None
    weights: list[np.ndarray] = field(default_factory=list)
    squares: np.ndarray | None = None
    history: dict[str, np.ndarray] = field(default_factory=dict)
