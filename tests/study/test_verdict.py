"""The verdict: which penalty is chosen, and how its gain is corrected for the choice."""

import numpy as np
import pytest

from poise.study.held_out import HeldOutLosses
from poise.study.scores import Estimate
from poise.study.verdict import Comparison, Verdict, choose_candidate, compare


def losses_of(*columns: np.ndarray) -> HeldOutLosses:
    losses = np.stack(columns, axis=1)
    return HeldOutLosses(losses, losses)


def test_the_first_candidate_that_is_not_plainly_worse_is_chosen() -> None:
    random = np.random.default_rng(0)
    best, noise = random.normal(1.0, 0.1, 100), random.normal(size=100)
    noise = (noise - noise.mean()) / noise.std() / 10  # the error of its mean is 0.1 / √100
    for difference, expected in [(0.0164, 0), (0.0165, 1), (-0.1, 0)]:  # the one-sided 5% quantile is 1.645
        first = losses_of(best + noise + difference)
        assert choose_candidate([first, losses_of(best)]) == expected


def test_every_candidate_takes_its_best_configuration() -> None:
    ones = np.ones(50)

    assert choose_candidate([losses_of(3 * ones, 2 * ones), losses_of(4 * ones, ones)]) == 1
    assert choose_candidate([losses_of(3 * ones, ones), losses_of(4 * ones, 2 * ones)]) == 0


def compare_with(candidates: HeldOutLosses, baseline: HeldOutLosses, seed: int = 0) -> Comparison:
    units = len(baseline.losses)
    mean = losses_of(2 * np.ones(units))
    return compare([candidates], [baseline], mean, np.ones(units), is_share=True, seed=seed, resamples=400)[0]


def test_a_gain_is_found_with_its_interval() -> None:
    """The gain of a single configuration is the mean difference; nothing is chosen, and nothing is corrected."""
    random = np.random.default_rng(1)
    baseline = random.normal(1.0, 0.3, 2000)
    difference = random.normal(0.1, 0.5, 2000)

    comparison = compare_with(losses_of(baseline - difference), losses_of(baseline))

    assert comparison.outcome == "helps"
    assert comparison.loss_gain.value == pytest.approx(difference.mean(), abs=0.005)
    assert comparison.score_gain.value == pytest.approx(difference.mean() / 2, abs=0.003)
    # As many new rows as a resample leaves out, 1/e of all, would show the gain with an error of 0.5 / √(2000/e).
    width = comparison.loss_gain.high - comparison.loss_gain.low
    assert width == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(2000 / np.e), rel=0.1)
    worse = compare_with(losses_of(baseline + difference), losses_of(baseline))
    assert worse.outcome == "hurts"


def test_the_price_of_choosing_is_paid() -> None:
    """The best of 50 equally good configurations looks better than the baseline, and is not."""
    random = np.random.default_rng(2)
    corrected, apparent, outcomes = [], [], []
    for seed in range(40):
        baseline = random.normal(1.0, 0.3, 100)
        options = [baseline + random.normal(0.0, 0.3, 100) for _ in range(50)]
        comparison = compare_with(losses_of(*options), losses_of(baseline), seed)
        corrected.append(comparison.loss_gain.value)
        apparent.append(max(baseline.mean() - option.mean() for option in options))
        outcomes.append(comparison.outcome)

    assert np.mean(apparent) > 0.05
    assert abs(np.mean(corrected)) < 0.015
    assert outcomes.count("helps") <= 2


def test_units_stay_together() -> None:
    """Rows of one group with the same difference are one observation: the interval is as wide as that of the groups."""
    random = np.random.default_rng(3)
    groups = random.normal(0.1, 0.5, 30)
    per_row = np.repeat(groups, 50)
    rows = compare_with(losses_of(1.0 - per_row), losses_of(np.ones(1500)))
    weight = np.full(30, 50.0)
    summed = compare(
        [losses_of(50 * (1.0 - groups))], [losses_of(50 * np.ones(30))], losses_of(100 * np.ones(30)), weight,
        is_share=True, seed=0,
    )[0]  # fmt: skip

    assert rows.outcome == "helps"
    assert summed.outcome == "unclear"


@pytest.mark.parametrize(
    ("test_gain", "expected"),
    [((0.2, 0.1, 0.3), True), ((0.35, 0.25, 0.45), False), ((0.2, np.nan, np.nan), None), ((-0.1, -0.4, 0.2), True)],
)
def test_agreement_with_the_test_rows(test_gain, expected) -> None:
    verdict = Verdict("l2", Comparison(Estimate(0.1, 0.0, 0.2), Estimate(0.1, 0.0, 0.2)), {})

    assert verdict.agrees_with(Estimate(*test_gain)) is expected
