"""Scores of a network on test rows, with confidence intervals."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from poise.study.tasks.base import Task

RESAMPLES = 2000
MOST_UNITS = 5000
"""Rows that the bootstrap draws one by one; more rows are put into as many random bins, whose sums vary alike."""
LEVEL = 0.95
StatisticOfSums = Callable[..., np.ndarray]
"""Takes the sum of the weights, and the weighted sum of each column; all have the same shape."""


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
        score_terms: (rows,) what the score averages, such as squared errors, or whether the class is correct.
    """

    losses: np.ndarray
    score_terms: np.ndarray


def merge_units(count: int, seed: int) -> np.ndarray:
    """Return (count,) for each unit the number of one of `MOST_UNITS` random groups of equal sizes."""
    return np.random.default_rng(seed).permutation(count) % MOST_UNITS


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores networks on the test rows.

    Args:
        task: The task.
        y: The targets, as the network takes them.
        weight: (rows,) sample weights, or `None`.
        groups: (rows,) rows of the same group, or copies, are drawn together; `None` if rows are independent.
        seed: The seed of the bootstrap.
    """

    task: "Task"
    y: np.ndarray
    weight: np.ndarray | None
    groups: np.ndarray | None
    seed: int

    def score_rows(self, outputs: np.ndarray) -> RowScores:
        """Return the losses of (rows, outputs) of a network or a reference model."""
        return self.task.score_rows(self.y, outputs, self.weight)

    def loss(self, scores: RowScores) -> Estimate:
        """Return the mean loss."""
        return self._estimate([scores.losses], lambda w, loss: loss / w)

    def gain(self, scores: RowScores, baseline: RowScores) -> Estimate:
        """Return how much lower the loss is than the baseline's, on the same rows."""
        return self._estimate([baseline.losses - scores.losses], lambda w, gain: gain / w)

    def score(self, scores: RowScores) -> Estimate:
        """Return the score of the task."""
        return self._estimate(*self.task.score_of_sums(self.y, scores.score_terms, self.weight))

    def _estimate(self, columns: list[np.ndarray], of_sums: StatisticOfSums) -> Estimate:
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
