"""The loss against its definition and statsmodels, and what any weights must satisfy, on every backend."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from oracles.autodiff import gradient
from oracles.survival import draw_survival, negative_partial_log_likelihood
from statsmodels.duration.hazard_regression import PHReg

import poise

both = pytest.mark.parametrize("ties", ["breslow", "efron"])


def evaluate(y: np.ndarray, eta: np.ndarray, weights: Any = None, ties: Any = "breslow") -> float:
    return float(poise.CoxPartialLikelihood(ties)(y.astype("float32"), eta[:, None].astype("float32"), weights))


@both
@pytest.mark.parametrize("rows", [1, 2, 7, 60])
@pytest.mark.parametrize("has_ties", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["unweighted", "weighted"])
def test_loss_is_its_definition(ties: str, rows: int, has_ties: bool, is_weighted: bool) -> None:
    x, y, weights = draw_survival(rows, ties=has_ties, seed=rows)
    weights = weights if is_weighted else np.ones(rows)
    eta = x[:, 0]
    expected = negative_partial_log_likelihood(y, eta, weights, ties) / rows
    np.testing.assert_allclose(evaluate(y, eta, weights, ties), expected, rtol=2e-6, atol=1e-6)


@both
def test_gradient_is_that_of_the_definition(ties: Any) -> None:
    x, y, weights = draw_survival(40)
    eta, step = x[:, 0], 1e-5
    moves = step * np.eye(len(y))
    expected = [
        (negative_partial_log_likelihood(y, eta + move, weights, ties)
         - negative_partial_log_likelihood(y, eta - move, weights, ties)) / (2 * step * len(y))
        for move in moves
    ]  # fmt: skip
    loss = poise.CoxPartialLikelihood(ties)
    actual = gradient(lambda eta: loss(y.astype("float32"), eta[:, None], weights), eta)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)
    assert not actual[weights == 0].any()


@both
def test_likelihood_is_that_of_statsmodels(ties: Any) -> None:
    x, y, _ = draw_survival(80)
    coefficients = np.array([0.4, -0.2, 0.9])
    model: Any = PHReg(y[:, 0], x, status=y[:, 1], ties=ties)
    assert evaluate(y, x @ coefficients, ties=ties) == pytest.approx(-model.loglike(coefficients) / 80, rel=1e-6)


@both
def test_row_of_weight_zero_has_no_effect(ties: Any) -> None:
    x, y, weights = draw_survival(50)
    kept = weights > 0
    scale = len(y) / kept.sum()
    few = evaluate(y[kept], x[kept, 0], weights[kept], ties)
    assert evaluate(y, x[:, 0], scale * weights, ties) == pytest.approx(few, rel=1e-6)


@both
def test_loss_is_proportional_to_the_weights(ties: Any) -> None:
    x, y, weights = draw_survival(50)
    once, twice = (evaluate(y, x[:, 0], factor * weights, ties) for factor in (1.0, 2.0))
    assert twice == pytest.approx(2 * once, rel=1e-6)


def test_integer_weights_repeat_rows_under_breslow() -> None:
    x, y, _ = draw_survival(30)
    counts = np.arange(30) % 3 + 1
    # Repetition changes the mean weight of a risk set: a constant.
    shift = (counts * y[:, 1]).sum() * np.log(counts.mean())
    repeated = evaluate(np.repeat(y, counts, axis=0), np.repeat(x[:, 0], counts)) * counts.sum()
    assert evaluate(y, x[:, 0], counts) * 30 == pytest.approx(repeated - shift, rel=1e-5)


@both
def test_extreme_predictions_neither_overflow_nor_vanish(ties: Any) -> None:
    """The last rows at risk have hazards of exp(-300) times the first."""
    y = np.stack([np.arange(1.0, 7.0), np.ones(6)], axis=1)
    eta = np.array([300.0, 300.0, 0.0, 0.0, -300.0, -300.0])
    # Of each pair, the first has the likelihood 1/2 and the second 1. In float32, 300 is rounded to 3e-5.
    assert evaluate(y, eta, ties=ties) == pytest.approx(3 * np.log(2) / 6, abs=1e-5)
    slope = gradient(lambda eta: poise.CoxPartialLikelihood(ties)(y, eta[:, None]), eta)
    np.testing.assert_allclose(slope * 6, [-0.5, 0.5] * 3, atol=1e-6)


@both
def test_batch_without_events_or_without_weights_has_loss_zero(ties: Any) -> None:
    x, y, _ = draw_survival(10)
    assert evaluate(y * [1.0, 0.0], x[:, 0], ties=ties) == 0.0
    slope = gradient(lambda eta: poise.CoxPartialLikelihood(ties)(y, eta[:, None], np.zeros(10)), x[:, 0])
    assert not slope.any()


def test_a_model_trains_on_it_and_is_saved(tmp_path: Path) -> None:
    x, y, weights = draw_survival(60)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), poise.CoxPartialLikelihood("efron"))
    history = model.fit(x, y, batch_size=60, epochs=20, sample_weight=weights, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.ties == "efron"
    assert loaded.evaluate(x, y, batch_size=60, verbose=0) == pytest.approx(
        model.evaluate(x, y, batch_size=60, verbose=0)
    )


def test_type_is_saved_if_it_is_set() -> None:
    assert "dtype" not in poise.CoxPartialLikelihood().get_config()
    config = poise.CoxPartialLikelihood(dtype="float64").get_config()
    assert poise.CoxPartialLikelihood.from_config(config).dtype == "float64"


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="ties must be one of 'breslow', 'efron', got 'exact'"):
        poise.CoxPartialLikelihood("exact")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"time and event, and predictions of shape \(rows, 1\), got \(4, 1\) and"):
        poise.CoxPartialLikelihood()(ops.ones((4, 1)), ops.ones((4, 1)))
