"""How well a network predicts rows that it has not seen, and how sure that is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 2000
MOST = 5000
"""Rows that are drawn one by one; where there are more, so many random bins of rows are drawn, which vary alike."""
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval, percentiles of the bootstrap (Efron and Tibshirani 1993, chapter 13)."""

    value: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class Outcome:
    """The test rows and what a network says of them.

    Args:
        losses: (rows,) the prediction loss of each row, in units of the network's target.
        correct: (rows,) what the score counts: the squared error, or whether the class is right, or the deviance.
    """

    losses: np.ndarray
    correct: np.ndarray


def row_losses(task: str, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """(rows,) the prediction loss of each row: squared error, cross-entropy of the logits, or that of Poisson.

    Args:
        task: "regression", "binary", "multiclass" or "counts".
        y: (rows, 1), or (rows,) class numbers.
        outputs: (rows, outputs) of the network: a number, a logit, a logit a class, or a mean count.
    """
    y, outputs = np.asarray(y, "float64"), np.asarray(outputs, "float64")
    if task == "regression":
        return np.square(y - outputs)[:, 0]
    if task == "binary":
        return np.logaddexp(0.0, outputs * (1.0 - 2.0 * y))[:, 0]
    if task == "counts":
        return (outputs - y * np.log(outputs + 1e-7))[:, 0]
    return np.logaddexp.reduce(outputs, axis=1) - outputs[np.arange(len(y)), y.astype(int)]


def outcome(task: str, y: np.ndarray, outputs: np.ndarray) -> Outcome:
    losses = row_losses(task, y, outputs)
    if task == "regression":
        return Outcome(losses, losses)
    if task == "counts":
        perfect = y[:, 0] - np.where(y[:, 0] > 0, y[:, 0] * np.log(np.maximum(y[:, 0], 1e-12)), 0.0)
        return Outcome(losses, 2.0 * (losses - perfect))
    chosen = outputs[:, 0] > 0 if task == "binary" else outputs.argmax(axis=1)
    return Outcome(losses, (chosen == np.asarray(y).reshape(-1)).astype("float64"))


def score_name(task: str) -> str:
    return {"regression": "R²", "counts": "explained deviance"}.get(task, "accuracy")


@dataclass(frozen=True, eq=False)
class Judge:
    """The test rows, and how networks are judged by them.

    Args:
        task: as for `row_losses`.
        y: (rows, 1), or (rows,) class numbers.
        weight: (rows,) sample weights; None for equal ones.
        groups: (rows,) rows that belong together are drawn together; None where each stands alone.
        seed: of the bootstrap.
    """

    task: str
    y: np.ndarray
    weight: np.ndarray | None
    groups: np.ndarray | None
    seed: int

    def loss(self, one: Outcome) -> Estimate:
        return self._estimate([one.losses], lambda w, loss: loss / w)

    def gain(self, one: Outcome, baseline: Outcome) -> Estimate:
        """By how much the loss is below that of the baseline, on the same rows."""
        return self._estimate([baseline.losses - one.losses], lambda w, gain: gain / w)

    def score(self, one: Outcome) -> Estimate:
        """R², accuracy, or the share of the deviance that is explained."""
        if self.task == "regression":
            y = self.y[:, 0] - self.y.mean()
            return self._estimate([one.correct, y, y * y], lambda w, error, y, yy: 1.0 - error / (yy - y * y / w))
        if self.task == "counts":
            y = self.y[:, 0].astype("float64")
            log = np.where(y > 0, y * np.log(np.maximum(y, 1e-12)), 0.0)

            def explained(w, deviance, y, log):
                return 1.0 - deviance / (2.0 * (log - y * np.log(np.maximum(y / w, 1e-12))))

            return self._estimate([one.correct, y, log], explained)
        return self._estimate([one.correct], lambda w, correct: correct / w)

    def _estimate(self, columns: list[np.ndarray], of_sums: Callable) -> Estimate:
        """`of_sums(Σw, Σw·column, ...)` over the rows, and over rows (or groups of rows) drawn with replacement."""
        weight = np.ones(len(self.y)) if self.weight is None else np.asarray(self.weight, "float64")
        sums = [weight, *(weight * column for column in columns)]
        if self.groups is not None:
            numbers = np.unique(self.groups, return_inverse=True)[1]
            sums = [np.bincount(numbers, one) for one in sums]
        if len(sums[0]) > MOST:
            numbers = np.random.default_rng(self.seed).permutation(len(sums[0])) % MOST
            sums = [np.bincount(numbers, one) for one in sums]

        def statistic(*parts, axis=-1):
            with np.errstate(divide="ignore", invalid="ignore"):
                found = of_sums(*(part.sum(axis=axis) for part in parts))
            return np.where(np.isfinite(found), found, np.nan)  # R² of rows that all have one value, say

        value = float(statistic(*sums))
        if len(sums[0]) < 2 or np.isnan(value):
            return Estimate(value, float("nan"), float("nan"))
        # In parts, since SciPy holds all resamples of a batch at once.
        batch = max(int(2e6 / len(sums[0])), 1)
        found = bootstrap(
            sums, statistic, paired=True, vectorized=True, method="percentile", confidence_level=LEVEL,
            n_resamples=RESAMPLES, batch=batch, rng=np.random.default_rng(self.seed),
        )  # fmt: skip
        low, high = np.nanpercentile(found.bootstrap_distribution, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        return Estimate(value, float(low), float(high))
