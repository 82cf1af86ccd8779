"""How long the lanes of a strength train: until their held-out loss no longer falls.

The loss of a strength at a checkpoint is the mean over the folds, so that no fold chooses its own length by its own
held-out rows.

References:
    Prechelt 1998, "Early stopping - but when?".
"""

from typing import Any

import jax
import numpy as np

COUNT = 16
"""Checkpoints of a training, about."""
SMALLEST_STEP = 10
"""The first checkpoint of full-batch steps."""
GAIN = 0.01
"""Smallest fall of the loss that counts, in standard errors, where a shorter training is as good as a longer one."""
SLACK = 0.1
"""Largest rise above the lowest loss, in standard errors, for which exact zeros may settle further."""
HOPELESS = 1.0
"""Rise above the lowest loss, in standard errors, after which lanes that settle stop."""
PATIENCE = 3
"""A training ends at this multiple of its best length, or of a sixteenth of the full length if that is longer."""


def checkpoints(last: int, first: int = 1) -> list[int]:
    """Return about `COUNT` lengths from `first` to `last`, geometrically spaced."""
    return sorted({*np.round(np.geomspace(min(first, last), last, COUNT)).astype(int).tolist()}) if last else []


class LengthChoice:
    """Keep the state of the best length of each strength, and notice when longer training is of no use.

    Without exact zeros the shortest training counts as best among equals, with them the longest, because zeros settle
    slowly.

    Args:
        shape: (replicas, strengths).
        settles: (strengths,) whether lanes are to settle on exact zeros.
        last: The full length.
        lengths: (strengths,) the lengths, if other lanes have chosen them. None: the held-out losses choose.

    Attributes:
        state: Arrays (replicas, strengths, ...) at the best length of each strength.
        best: (strengths,) the best lengths.
        is_training: (strengths,) whether longer training may be of use.
    """

    def __init__(self, shape: tuple[int, int], settles: np.ndarray, last: int, lengths: np.ndarray | None) -> None:
        self._settles, self._least, self._lengths = settles, last / COUNT, lengths
        self._lowest = np.full(shape[1], np.inf)
        self._lowest_at = np.zeros(shape[1], int)
        self._best_loss = np.full(shape[1], np.inf)
        self.best = np.zeros(shape[1], int)
        self.is_training = np.ones(shape[1], bool)
        self.state: Any = None

    @property
    def needs_losses(self) -> bool:
        """Whether `update` needs held-out losses."""
        return self._lengths is None

    def update(self, length: int, state: Any, losses: np.ndarray | None) -> None:
        """Note the state after training of a length.

        Args:
            length: Epochs or steps.
            state: Arrays (replicas, strengths, ...) of NumPy.
            losses: (replicas, strengths) held-out losses; None if the lengths are chosen.
        """
        if self._lengths is not None:
            is_better, goes_on = length <= self._lengths, length < self._lengths
        else:
            assert losses is not None
            is_better, goes_on = self._judge(length, losses)
        is_better = is_better & self.is_training
        self.best = np.where(is_better, length, self.best)
        self.is_training &= goes_on
        self.state = _choose_strengths(is_better, state, state if self.state is None else self.state)

    def _judge(self, length: int, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which strengths have a better length than before, and which need more training."""
        with np.errstate(invalid="ignore"):
            mean = losses.mean(axis=0)
            error = losses.std(axis=0, ddof=1) / np.sqrt(len(losses)) if len(losses) > 1 else 0.01 * np.abs(mean)
        is_finite = np.isfinite(mean)
        mean = np.where(is_finite, mean, np.inf)
        is_lowest = mean < self._lowest
        self._lowest = np.where(is_lowest, mean, self._lowest)
        self._lowest_at = np.where(is_lowest, length, self._lowest_at)
        gains = mean < self._best_loss - GAIN * error
        self._best_loss = np.where(gains, mean, self._best_loss)
        is_better = np.where(self._settles, mean <= self._lowest + SLACK * error, gains)
        best = np.where(self._settles, self._lowest_at, np.where(gains, length, self.best))
        may_settle = self._settles & ~(mean > self._lowest + HOPELESS * error)
        goes_on = may_settle | (length < PATIENCE * np.maximum(best, self._least))
        # A training that diverges is kept as it is, so that it is reported.
        return is_better | ~is_finite, goes_on & is_finite


def _choose_strengths(condition: np.ndarray, if_true: Any, if_false: Any) -> Any:
    """Return `if_true` for the strengths where the condition holds, `if_false` for the others."""
    if condition.all() or not condition.any():  # copies nothing
        return if_true if condition.any() else if_false

    def choose(a: Any, b: Any) -> np.ndarray:
        return np.where(condition.reshape(1, -1, *[1] * (np.ndim(a) - 2)), a, b)

    return jax.tree.map(choose, if_true, if_false)
