"""The concordance index and survival curves against scikit-survival, and against all pairs for weights."""

from typing import Any

import numpy as np
import pytest
from oracles.survival import draw_survival
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

import poise
from poise.survival import concordance
from poise.survival.curves import KaplanMeier

x, y, weights = draw_survival(150)
times, events = y[:, 0], y[:, 1] == 1
rounded = np.round(x[:, 0], 1)
"""Predictions, some of which are equal."""


@pytest.mark.parametrize("has_ties", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("digits", [1, 8])
def test_concordance_is_that_of_scikit_survival(has_ties: bool, digits: int) -> None:
    x, y, _ = draw_survival(150, ties=has_ties, seed=3)
    predicted = np.round(x[:, 0], digits)
    expected = concordance_index_censored(y[:, 1] == 1, y[:, 0], predicted)[0]
    assert poise.concordance_index(y, predicted) == pytest.approx(expected, rel=1e-12)


def test_weighted_concordance_counts_every_pair() -> None:
    right = total = 0.0
    for i in np.flatnonzero(events):
        for j in range(len(y)):
            if times[i] < times[j] or (times[i] == times[j] and not events[j]):
                pair = weights[i] * weights[j]
                total += pair
                right += pair * ((rounded[i] > rounded[j]) + 0.5 * (rounded[i] == rounded[j]))
    assert poise.concordance_index(y, rounded, weights) == pytest.approx(right / total, rel=1e-12)


def test_blocks_give_the_same_index(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = poise.concordance_index(y, rounded)
    monkeypatch.setattr(concordance, "BLOCK", 7 * len(y))
    assert poise.concordance_index(y, rounded) == pytest.approx(expected, rel=1e-12)


def test_index_without_comparable_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="None of the pairs of 2 rows is comparable"):
        poise.concordance_index([[1.0, 0], [2.0, 0]], [0.0, 1.0])


def test_survival_curves_are_those_of_scikit_survival() -> None:
    model = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12).fit(x, Surv.from_arrays(events, times))
    eta = model.predict(x)
    baseline = poise.BaselineHazard.fit(y, eta)
    inside = np.linspace(times.min(), times.max(), 50)
    curves: Any = zip(
        model.predict_survival_function(x[:5]), model.predict_cumulative_hazard_function(x[:5]), strict=True
    )
    for row, (survival, hazard) in enumerate(curves):
        np.testing.assert_allclose(baseline.survival(inside, eta[[row]])[0], survival(inside), rtol=1e-8)
        np.testing.assert_allclose(baseline.cumulative_hazard(inside, eta[[row]])[0], hazard(inside), rtol=1e-8)
    assert (baseline.survival([times.min() / 2], eta) == 1.0).all()


def test_integer_weights_repeat_rows() -> None:
    counts = np.arange(len(y)) % 3
    several = np.repeat(y, counts, axis=0), np.repeat(rounded, counts)
    at = np.unique(times)
    for weighted, repeated in (
        (
            poise.BaselineHazard.fit(y, rounded, counts).survival(at, [0.3]),
            poise.BaselineHazard.fit(*several).survival(at, [0.3]),
        ),
        (KaplanMeier.fit(y, counts).survival(at), KaplanMeier.fit(several[0]).survival(at)),
    ):
        np.testing.assert_allclose(weighted, repeated, rtol=1e-12)


def test_kaplan_meier_is_that_of_scikit_survival() -> None:
    curve: Any = kaplan_meier_estimator(events, times)
    np.testing.assert_allclose(KaplanMeier.fit(y).survival(curve[0]), curve[1], rtol=1e-12)
    assert KaplanMeier.fit(y).survival([0.0]) == [1.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([[1.0, 2.0]], "must be 1 for an event and 0 for a censored row, got 2. The first column is the time."),
        ([1.0, 2.0], r"y must have shape \(rows, 2\), time and event, got \(2,\)"),
        ([[np.nan, 1.0]], "The times in y must be finite, got nan"),
        ([[1.0, 0.0]], "All 1 rows are censored"),
    ],
    ids=["event", "shape", "time", "censored"],
)
def test_wrong_targets_are_named(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        poise.BaselineHazard.fit(wrong, np.zeros(len(wrong)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.0, np.nan], None), ValueError, "log_hazard must be finite, got nan among 2 numbers"),
        (([0.0], None), ValueError, r"log_hazard must have shape \(2,\) or \(2, 1\), got \(1,\)"),
        (([[0.0, 1.0]], None), ValueError, r"log_hazard must have shape \(2,\) or \(2, 1\), got \(1, 2\)"),
        ((["a", "b"], None), TypeError, "log_hazard must contain only numbers, got dtype"),
        (([0.0, 1.0], [1.0, -1.0]), ValueError, "sample_weight must be finite and >= 0, got -1 among"),
        (([0.0, 1.0], [1.0]), ValueError, r"sample_weight must have shape \(2,\) or \(2, 1\), got \(1,\)"),
    ],
    ids=["NaN", "short", "wide", "text", "negative weight", "short weights"],
)
def test_wrong_predictions_and_weights_are_named(arguments: tuple, error: type[Exception], message: str) -> None:
    y = [[1.0, 1], [2.0, 1]]
    for measure in (poise.concordance_index, poise.BaselineHazard.fit):
        with pytest.raises(error, match=message):
            measure(y, *arguments)
    if arguments[1] is not None:
        with pytest.raises(error, match=message):
            KaplanMeier.fit(y, arguments[1])


def test_wrong_times_and_text_are_named() -> None:
    baseline = poise.BaselineHazard.fit(y, rounded)
    with pytest.raises(ValueError, match="times must be finite, got nan"):
        baseline.survival([1.0, np.nan], [0.0])
    with pytest.raises(ValueError, match="log_hazard must be finite, got nan"):
        baseline.cumulative_hazard([1.0], [np.nan])
    with pytest.raises(TypeError, match="y must contain only numbers, got dtype"):
        poise.concordance_index([["a", "b"]], [0.0])
