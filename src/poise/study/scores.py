"""Scores of a network on test rows, with confidence intervals."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SMALLEST_COUNT = 1e-7
"""What Keras' Poisson loss adds to a predicted mean, so that its logarithm is finite."""
RESAMPLES = 2000
MOST_UNITS = 5000
"""Rows that the bootstrap draws one by one; more rows are put into as many random bins, whose sums vary alike."""
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval: percentiles of the bootstrap (Efron and Tibshirani 1993, chapter 13)."""

    value: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class RowScores:
    """The losses of a network on the test rows.

    Args:
        losses: (rows,) the prediction loss of each row, in the units of the network's target.
        score_terms: (rows,) what the score averages: squared errors, whether the class is correct, or deviances.
    """

    losses: np.ndarray
    score_terms: np.ndarray


def row_losses(task: str, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Compute the prediction loss of each row: squared error, cross-entropy of the logits, or Poisson loss.

    Args:
        task: `"regression"`, `"binary"`, `"multiclass"` or `"counts"`.
        y: (rows, 1), or (rows,) class numbers.
        outputs: (..., rows, outputs) of the network: a number, a logit, one logit per class, or a mean count.

    Returns:
        (..., rows) the losses.
    """
    y, outputs = np.asarray(y, "float64"), np.asarray(outputs, "float64")
    if task == "regression":
        return np.square(y - outputs)[..., 0]
    if task == "binary":
        return np.logaddexp(0.0, outputs * (1.0 - 2.0 * y))[..., 0]
    if task == "counts":
        return (outputs - y * np.log(outputs + SMALLEST_COUNT))[..., 0]
    return np.logaddexp.reduce(outputs, axis=-1) - outputs[..., np.arange(len(y)), y.astype(int)]


def score_rows(task: str, y: np.ndarray, outputs: np.ndarray) -> RowScores:
    """Compute the loss of each test row and its term of the score; arguments as for `row_losses`."""
    y, losses = np.asarray(y, "float64"), row_losses(task, y, outputs)
    if task == "regression":
        return RowScores(losses, losses)
    if task == "counts":
        mean = np.asarray(outputs, "float64")[..., 0] + SMALLEST_COUNT
        excess = y[:, 0] - mean
        # y log(y / mean) - (y - mean), without the cancellation of large counts
        ratio = np.where(y[:, 0] > 0, excess / mean, 0.0)
        return RowScores(losses, 2.0 * (y[:, 0] * np.log1p(ratio) - excess))
    chosen = outputs[..., 0] > 0 if task == "binary" else outputs.argmax(axis=-1)
    return RowScores(losses, (chosen == np.asarray(y).reshape(-1)).astype("float64"))


def score_name(task: str) -> str:
    """Return the name of the score of a task."""
    return {"regression": "R²", "counts": "explained deviance"}.get(task, "accuracy")


def merge_units(count: int, seed: int) -> np.ndarray:
    """Return (count,) for each unit the number of one of `MOST_UNITS` random groups of equal sizes."""
    return np.random.default_rng(seed).permutation(count) % MOST_UNITS


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores networks on the test rows.

    Args:
        task: See `row_losses`.
        y: (rows, 1), or (rows,) class numbers.
        weight: (rows,) sample weights, or `None`.
        groups: (rows,) rows of the same group, or copies, are drawn together; `None` if rows are independent.
        seed: The seed of the bootstrap.
    """

    task: str
    y: np.ndarray
    weight: np.ndarray | None
    groups: np.ndarray | None
    seed: int

    def loss(self, scores: RowScores) -> Estimate:
        """Return the mean loss."""
        return self._estimate([scores.losses], lambda w, loss: loss / w)

    def gain(self, scores: RowScores, baseline: RowScores) -> Estimate:
        """Return how much lower the loss is than the baseline's, on the same rows."""
        return self._estimate([baseline.losses - scores.losses], lambda w, gain: gain / w)

    def score(self, scores: RowScores) -> Estimate:
        """Return R², accuracy, or the share of the deviance that is explained."""
        if self.task == "regression":
            y = self.y[:, 0] - self.y.mean()
            return self._estimate(
                [scores.score_terms, y, y * y], lambda w, error, y, yy: 1.0 - error / (yy - y * y / w)
            )
        if self.task == "counts":
            y = self.y[:, 0].astype("float64")
            log = np.where(y > 0, y * np.log(np.maximum(y, 1e-12)), 0.0)

            def explained(w: np.ndarray, deviance: np.ndarray, y: np.ndarray, log: np.ndarray) -> np.ndarray:
                return 1.0 - deviance / (2.0 * (log - y * np.log(np.maximum(y / w, 1e-12))))

            return self._estimate([scores.score_terms, y, log], explained)
        return self._estimate([scores.score_terms], lambda w, correct: correct / w)

    def _estimate(self, columns: list[np.ndarray], of_sums: Callable) -> Estimate:
        """Compute `of_sums(Σw, Σw·column, ...)` over the rows, and over rows (or groups) drawn with replacement."""
        weight = np.ones(len(self.y)) if self.weight is None else np.asarray(self.weight, "float64")
        sums = [weight, *(weight * column for column in columns)]
        if self.groups is not None:
            numbers = np.unique(self.groups, return_inverse=True)[1]
            sums = [np.bincount(numbers, column) for column in sums]
        if len(sums[0]) > MOST_UNITS:
            numbers = merge_units(len(sums[0]), self.seed)
            sums = [np.bincount(numbers, column) for column in sums]

        def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = of_sums(*(part.sum(axis=axis) for part in parts))
            return np.where(np.isfinite(values), values, np.nan)  # such as R² of rows with a single value

        value = float(statistic(*sums))
        if len(sums[0]) < 2 or np.isnan(value):
            return Estimate(value, float("nan"), float("nan"))
        from scipy.stats import DegenerateDataWarning, bootstrap  # it takes longer to import than poise show to run

        # In batches, since SciPy holds all resamples of a batch at once.
        batch = max(int(2e6 / len(sums[0])), 1)
        with warnings.catch_warnings(action="ignore", category=DegenerateDataWarning):  # of resamples without a score
            resampled = bootstrap(
                sums, statistic, paired=True, vectorized=True, method="percentile", confidence_level=LEVEL,
                n_resamples=RESAMPLES, batch=batch, rng=np.random.default_rng(self.seed),
            )  # fmt: skip
        low, high = np.nanpercentile(resampled.bootstrap_distribution, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        return Estimate(value, float(low), float(high))
