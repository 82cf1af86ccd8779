"""Decide whether a penalty helps: bootstrap bias-corrected cross-validation over all training rows.

The candidate with the lowest held-out loss looks better than it is, because it was chosen by that loss. The bootstrap
shows by how much: on every resample of the rows, the strength, the training length and the candidate are chosen again,
for the penalties and for the baseline, and both choices are compared on the rows that the resample left out. The
networks are not trained again.

The rows outside a resample are about 1/e of the table, drawn without replacement. Their mean varies less than the mean
of as many new rows, by the factor √(1 − 1/e). Widening the intervals compensates for this, and covers part of what
resampling cannot show: how much the networks depend on their training rows, which the folds share.

References:
    Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation".
    Bates, Hastie and Tibshirani 2024, "Cross-validation: what does it estimate and how well does it do it?", on why
    naive intervals are too narrow.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from poise.study.held_out import HeldOutLosses
from poise.study.scores import LEVEL, Estimate

RESAMPLES = 1000
BATCH = 50
"""Resamples that are evaluated in one matrix product."""
WORSE = 1.645
"""Standard errors of the paired difference by which a candidate predicts worse than the best one (one-sided, 5%)."""
WIDENING = (1.0 - np.exp(-1.0)) ** -0.5
"""Factor that scales the spread of the mean of n/e rows, drawn without replacement, to that of n/e new rows."""
QUANTILE = 1.96
"""Standard errors on each side of an estimate that make a 95% interval of a normal distribution."""

Outcome = Literal["helps", "hurts", "unclear"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """How much better the chosen candidate predicts new rows than the baseline.

    Args:
        loss_gain: By how much the loss is lower.
        score_gain: By how much the score is higher.
    """

    loss_gain: Estimate
    score_gain: Estimate

    @property
    def outcome(self) -> Outcome:
        """Whether the interval of `loss_gain` lies above zero, below it, or contains it."""
        return find_outcome(self.loss_gain)

    @property
    def shows_score(self) -> bool:
        """Whether the interval of `score_gain` leads to the same outcome, so that the answer can report it instead."""
        return bool(np.isfinite(self.score_gain.value)) and find_outcome(self.score_gain) == self.outcome


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether a penalty predicts new rows better, judged by all training rows.

    Args:
        judged: The name of the penalty that is judged: the one that the held-out losses choose, or the one requested.
        over_baseline: Its comparison with the network without a penalty, with early stopping.
        over_references: By name the comparison of the network that is chosen with each reference model.
    """

    judged: str
    over_baseline: Comparison
    over_references: Mapping[str, Comparison]

    def agrees_with(self, test_gain: Estimate) -> bool | None:
        """Return whether the gain on the test rows agrees with the gain over the baseline; `None` if unknown."""
        gain = self.over_baseline.loss_gain
        difference = test_gain.value - gain.value
        error = float(np.hypot(_standard_error(test_gain), _standard_error(gain)))
        return abs(difference) <= QUANTILE * error if np.isfinite(difference) and np.isfinite(error) else None


def find_outcome(gain: Estimate) -> Outcome:
    """Return whether the interval of a gain lies above zero, below it, or contains it."""
    return "helps" if gain.low > 0 else "hurts" if gain.high < 0 else "unclear"


def choose_candidate(candidates: Sequence[HeldOutLosses]) -> int:
    """Return the first candidate that does not predict significantly worse than the one with the lowest loss.

    Each candidate has the configuration with its lowest held-out loss. The lowest of several noisy losses is often
    lowest by chance.

    Args:
        candidates: The candidates, in the order of preference.
    """
    counts = np.ones(len(candidates[0].losses))
    columns = [candidate.losses[:, (counts @ candidate.losses).argmin()] for candidate in candidates]
    return _first_not_worse(np.stack(columns, axis=1), counts)


def compare(
    candidates: Sequence[HeldOutLosses],
    baselines: Sequence[HeldOutLosses],
    mean: HeldOutLosses,
    weight: np.ndarray,
    is_share: bool,
    seed: int,
    resamples: int = RESAMPLES,
    constant_score: float = 0.0,
) -> list[Comparison]:
    """Compare the choice among candidates with each baseline, corrected for the optimism of choosing.

    Args:
        candidates: The held-out losses of the candidates to choose from, in the order of preference.
        baselines: The held-out losses of the baselines. Each baseline chooses its own configuration.
        mean: The held-out losses of the mean or of the class frequencies.
        weight: (units,) the total weight of the rows in each unit.
        is_share: Whether the score is a ratio to `mean` (R², explained deviance). Otherwise it is a mean over rows.
        seed: The seed of the bootstrap.
        resamples: The number of resamples. Default: 1000.
        constant_score: The score of `mean`, if the score is a ratio. Default: 0.

    Returns:
        One comparison per baseline.
    """
    random, units = np.random.default_rng(seed), len(weight)
    parts = [*candidates, *baselines]
    losses = np.concatenate([part.losses for part in parts], axis=1)
    terms = np.concatenate([part.score_terms for part in parts], axis=1)
    ends = np.cumsum([0, *(part.losses.shape[1] for part in parts)])
    gains: list[np.ndarray] = []
    for first in range(0, resamples, BATCH):
        count = min(BATCH, resamples - first)
        inside = random.multinomial(units, np.full(units, 1.0 / units), size=count).astype("float64")
        outside = (inside == 0.0).astype("float64")
        sums = inside @ losses
        bests = np.stack([sums[:, a:b].argmin(axis=1) + a for a, b in itertools.pairwise(ends)], axis=1)
        chosen = _choose(losses, bests[:, : len(candidates)], inside)
        at = np.arange(count)
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = outside @ losses / (outside @ weight)[:, None]
            score = outside @ terms
            if is_share:
                score = (constant_score - 1.0) * score / (outside @ mean.score_terms[:, :1])
            else:
                score = score / (outside @ weight)[:, None]
        references = bests[:, len(candidates) :].T
        gains.append(
            np.array([[loss[at, r] - loss[at, chosen], score[at, chosen] - score[at, r]] for r in references])
        )  # fmt: skip
    return [Comparison(_estimate(loss), _estimate(score)) for loss, score in np.concatenate(gains, axis=2)]


def _choose(losses: np.ndarray, bests: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return (resamples,) the configuration of the chosen candidate.

    Args:
        losses: (units, configurations).
        bests: (resamples, candidates) the configuration of every candidate.
        inside: (resamples, units) how often a resample has a unit.
    """
    return np.array([row[_first_not_worse(losses[:, row], counts)] for row, counts in zip(bests, inside, strict=True)])


def _first_not_worse(columns: np.ndarray, counts: np.ndarray) -> int:
    """Return the first of the columns (units, candidates) that is not significantly worse than the lowest."""
    lowest = int((counts @ columns).argmin())
    differences = columns - columns[:, lowest : lowest + 1]
    total = counts.sum()
    means = counts @ differences / total
    errors = np.sqrt(np.maximum(counts @ np.square(differences) / total - means**2, 0.0) / total)
    return int(np.flatnonzero(means <= WORSE * errors)[0])


def _standard_error(estimate: Estimate) -> float:
    """Return the standard error of an estimate with the interval of a normal distribution."""
    return (estimate.high - estimate.low) / (2.0 * QUANTILE)


def _estimate(values: np.ndarray) -> Estimate:
    values = values[np.isfinite(values)]
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"))
    value = values.mean()
    low, high = value + WIDENING * (np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]) - value)
    return Estimate(float(value), float(low), float(high))
