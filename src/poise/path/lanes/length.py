"""How long the lanes of a strength train: until their held-out loss no longer falls.

The loss of a strength at a checkpoint is the mean over the folds, so that no fold chooses its own length by its own
held-out rows.

References:
    Prechelt 1998, "Early stopping - but when?".
"""

import numpy as np

COUNT = 16
"""Checkpoints of a training, about."""
SMALLEST_STEP = 10
"""The first checkpoint of full-batch steps."""
GAIN = 0.01
"""Smallest decrease of the loss that justifies longer training, in standard errors."""
HOPELESS = 2.0
"""Overfitting lanes stop when the loss exceeds its lowest value by this, in standard errors of the difference."""
SLACK = 0.1
"""And by this, in standard errors of the loss itself."""
SETTLED_ZEROS = 0.01
"""Zeros have settled if the number of other weights has changed by at most this share for half of the training."""
BEATEN_FROM = 0.25
"""Share of the full length from which a strength may stop because another one is better."""
PATIENCE = 3
"""A training ends at this multiple of its best length, or of a sixteenth of the full length if that is longer."""


def checkpoints(last: int, first: int = 1) -> list[int]:
    """Return about `COUNT` lengths from `first` to `last`, geometrically spaced."""
    return sorted({*np.round(np.geomspace(min(first, last), last, COUNT)).astype(int).tolist()}) if last else []


class LengthChoice:
    """Find the best length of each strength, and notice when longer training is of no use.

    Without exact zeros, a strength takes the length with the lowest loss, and the shorter one if two are about equal.
    With exact zeros, it takes the last length, because the zeros early in training are not yet those of the solution.
    Training then ends when the zeros have settled and the loss no longer falls, or when the lanes overfit, that is, the
    held-out loss has risen while the training loss has fallen. If both have risen, the penalty has not yet had its full
    effect.

    Without exact zeros, a strength also stops if it cannot become one of the best: if its loss would remain above the
    lowest one of all strengths, by more than one standard error and significantly, even if it fell as fast as now, per
    logarithm of the length, until the end.

    Args:
        shape: (replicas, strengths).
        settles: (strengths,) whether lanes are to settle on exact zeros.
        last: The full length.
        lengths: (strengths,) the lengths, if other lanes have chosen them. None: the held-out losses choose.

    Attributes:
        best: (strengths,) the best lengths.
        is_training: (strengths,) whether longer training may be of use.
    """

    def __init__(self, shape: tuple[int, int], settles: np.ndarray, last: int, lengths: np.ndarray | None) -> None:
        self._settles, self._last, self._least, self._lengths = settles, last, last / COUNT, lengths
        self._lowest = np.full(shape[1], np.inf)
        self._lowest_at = np.zeros(shape[1], int)
        self._lowest_losses = np.full(shape, np.inf)
        self._lowest_fit = np.full(shape[1], np.inf)
        self._best_loss = np.full(shape[1], np.inf)
        self._gained_at = np.zeros(shape[1], int)
        self._before: tuple[int, np.ndarray] | None = None
        self._live = np.zeros(shape)
        self._changed_at = np.zeros(shape[1], int)
        self.best = np.zeros(shape[1], int)
        self.is_training = np.ones(shape[1], bool)

    @property
    def needs_losses(self) -> bool:
        """Whether `update` needs held-out losses."""
        return self._lengths is None

    def update(
        self,
        length: int,
        losses: np.ndarray | None,
        fits: np.ndarray | None = None,
        live: np.ndarray | None = None,
    ) -> np.ndarray:
        """Record the losses at a length, and return (strengths,) whether to keep the weights of this length.

        Args:
            length: Epochs or steps.
            losses: (replicas, strengths) held-out losses; None if the lengths are chosen.
            fits: (replicas, strengths) prediction losses on the training rows; NaN where they are not known. Default:
                None, if none is known.
            live: (replicas, strengths) number of weights that are not zero, of those that can be. Default: None, if
                there are none.
        """
        if self._lengths is not None:
            is_better, goes_on = length <= self._lengths, length < self._lengths
        else:
            assert losses is not None
            if live is not None:
                has_changed = (np.abs(live - self._live) > SETTLED_ZEROS * self._live).any(axis=0)
                self._live = np.where(has_changed, live, self._live)
                self._changed_at = np.where(has_changed, length, self._changed_at)
            with np.errstate(invalid="ignore"):  # of lanes that diverged
                is_better, goes_on = self._judge(length, losses, fits)
        is_best = (is_better | (self.best == 0)) & self.is_training
        self.best = np.where(is_best, length, self.best)
        self.is_training &= goes_on
        return is_best

    def _judge(self, length: int, losses: np.ndarray, fits: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return which strengths have a better length than before, and which need more training."""
        mean, error = losses.mean(axis=0), _standard_error(losses)
        is_finite = np.isfinite(mean)
        mean = np.where(is_finite, mean, np.inf)
        is_lowest = mean < self._lowest
        self._lowest = np.where(is_lowest, mean, self._lowest)
        self._lowest_at = np.where(is_lowest, length, self._lowest_at)
        self._lowest_losses = np.where(is_lowest, losses, self._lowest_losses)
        fit = np.full(len(mean), np.nan) if fits is None else fits.mean(axis=0)
        self._lowest_fit = np.where(is_lowest, fit, self._lowest_fit)
        overfits = ~(fit >= self._lowest_fit)  # also where the fit is not known
        gains = mean < self._best_loss - GAIN * error
        self._best_loss = np.where(gains, mean, self._best_loss)
        self._gained_at = np.where(gains, length, self._gained_at)
        is_better = self._settles | gains
        rises = mean - self._lowest
        has_risen = (rises > HOPELESS * _standard_error(losses - self._lowest_losses)) & (rises > SLACK * error)
        is_hopeless = overfits & has_risen & self._has_waited(length, self._lowest_at)
        settles_still = self._settles & (length < np.maximum(2 * self._changed_at, self._last / 4)) & ~is_hopeless
        goes_on = settles_still | ~self._has_waited(length, self._gained_at)
        goes_on &= self._settles | ~self._is_beaten(length, mean, losses)
        self._before = length, mean
        # A training that diverges is kept as it is, so that it is reported.
        return is_better | ~is_finite, goes_on & is_finite

    def _is_beaten(self, length: int, mean: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Return which strengths cannot come near the lowest loss any more."""
        if self._before is None or length < BEATEN_FROM * self._last or not np.isfinite(self._lowest).any():
            return np.zeros(len(mean), bool)
        before, mean_before = self._before
        intervals = np.log(self._last / length) / np.log(length / before)
        best = int(self._lowest.argmin())
        with np.errstate(invalid="ignore"):
            last = mean - intervals * np.maximum(mean_before - mean, 0.0)
            best_losses = self._lowest_losses[:, [best]]
            margin = np.maximum(HOPELESS * _standard_error(losses - best_losses), _standard_error(best_losses))
            return last > self._lowest[best] + margin

    def _has_waited(self, length: int, since: np.ndarray) -> np.ndarray:
        return length >= PATIENCE * np.maximum(since, self._least)


def _standard_error(losses: np.ndarray) -> np.ndarray:
    """Return (strengths,) the standard error of the mean over the replicas; with a single one, 1% of its value."""
    if len(losses) == 1:
        return 0.01 * np.abs(losses[0])
    return losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
