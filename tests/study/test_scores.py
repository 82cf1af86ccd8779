"""Scores of test rows against scikit-learn, and their intervals against the exact ones."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from poise.study.scores import Estimate, Scorer
from poise.study.tasks.table import make_task

random = np.random.default_rng(0)
ROWS = 200


def scorer(task, y, weight=None, groups=None) -> Any:
    return Scorer(make_task(task), y, weight, groups, seed=0)


def test_regression_is_scored_as_scikit_learn_does() -> None:
    y = random.normal(size=(ROWS, 1))
    said = y + 0.5 * random.normal(size=(ROWS, 1))
    weight = random.uniform(0.5, 2.0, ROWS)

    for arguments in (None, weight):
        rows, each = scorer("regression", y, arguments), make_task("regression").score_rows(y, said)
        assert rows.loss(each).value == pytest.approx(metrics.mean_squared_error(y, said, sample_weight=arguments))
        assert rows.score(each).value == pytest.approx(metrics.r2_score(y, said, sample_weight=arguments))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_classes_are_scored_as_scikit_learn_does(task) -> None:
    classes = 2 if task == "binary" else 4
    y = random.integers(0, classes, ROWS)
    logits = random.normal(size=(ROWS, 1 if task == "binary" else classes))
    odds = np.hstack([-logits, logits]) / 2 if task == "binary" else logits
    odds = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    target = y[:, None].astype("float32") if task == "binary" else y

    rows, each = scorer(task, target), make_task(task).score_rows(target, logits)

    assert rows.loss(each).value == pytest.approx(metrics.log_loss(y, odds, labels=range(classes)))
    assert rows.score(each).value == pytest.approx(metrics.accuracy_score(y, odds.argmax(axis=1)))


def test_counts_are_scored_as_scikit_learn_does() -> None:
    mean = random.uniform(0.2, 5.0, (ROWS, 1))
    y = random.poisson(mean).astype("float64")

    rows, each = scorer("counts", y), make_task("counts").score_rows(y, mean)

    assert rows.score(each).value == pytest.approx(metrics.d2_tweedie_score(y[:, 0], mean[:, 0], power=1), rel=1e-5)
    np.testing.assert_allclose(each.score_terms.mean(), metrics.mean_poisson_deviance(y, mean), rtol=1e-5)


def test_the_deviance_of_large_counts_keeps_its_digits() -> None:
    mean = 1e7 + np.arange(ROWS, dtype="float32")[:, None]
    y = mean + 10.0

    each = make_task("counts").score_rows(y.astype("float32"), mean)

    # (y - mean)² / mean to first order; scikit-learn's deviance loses five digits here.
    assert each.score_terms.mean() == pytest.approx((100.0 / mean).mean(), rel=1e-6)


def test_large_logits_do_not_overflow() -> None:
    losses = make_task("binary").row_losses(np.array([[1.0], [0.0]]), np.array([[1e4], [1e4]]))

    np.testing.assert_allclose(losses, [0.0, 1e4])


def test_the_interval_of_a_mean_is_that_of_students_t() -> None:
    y = random.normal(size=(1000, 1))
    each = make_task("regression").score_rows(y, np.zeros((1000, 1)))

    result = scorer("regression", y).loss(each)

    error = each.losses.std(ddof=1) / np.sqrt(1000)
    low, high = stats.t.interval(0.95, 999, loc=each.losses.mean(), scale=error)
    assert result.low == pytest.approx(low, abs=0.1 * error * 2)
    assert result.high == pytest.approx(high, abs=0.1 * error * 2)


def test_a_gain_is_paired() -> None:
    y = 10.0 * random.normal(size=(ROWS, 1))
    base = y + 5.0 + random.normal(size=(ROWS, 1))
    better = base - 0.1
    rows = scorer("regression", y)
    each, other = make_task("regression").score_rows(y, better), make_task("regression").score_rows(y, base)

    gain = rows.gain(each, other)

    assert gain.value == pytest.approx(rows.loss(other).value - rows.loss(each).value)
    assert gain.is_certain
    assert gain.low > 0
    assert gain.high - gain.low < 0.2 * (rows.loss(each).high - rows.loss(each).low)


def test_rows_of_a_group_are_drawn_together() -> None:
    groups = np.repeat(np.arange(20), 50)
    y = np.zeros((1000, 1))
    each = make_task("regression").score_rows(y, random.normal(size=20)[groups][:, None])

    together, apart = scorer("regression", y, groups=groups).loss(each), scorer("regression", y).loss(each)

    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low > 4 * (apart.high - apart.low)


def test_the_same_seed_draws_the_same() -> None:
    y = random.normal(size=(30, 1))
    each = make_task("regression").score_rows(y, 0.5 * y)

    assert scorer("regression", y).score(each) == scorer("regression", y).score(each)


def test_an_interval_that_holds_zero_is_not_certain() -> None:
    assert not Estimate(0.1, -0.1, 0.3).is_certain
    assert Estimate(-0.1, -0.2, -0.05).is_certain
