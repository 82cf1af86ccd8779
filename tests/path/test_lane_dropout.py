"""Dropout whose rate is a variable of the lane."""

from typing import Any

import keras
import numpy as np
import pytest

import poise
from poise.path.dropout import LaneDropout, find_lane_dropouts, replace_lane_dropout
from poise.path.result import RegularizationPath

RATE = 0.3
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = X[:, :1] - 0.5 * X[:, 1:2] ** 2
TRAINING = poise.Training(epochs=0, settle=30, update="proximal", early_stopping=True)


def ones(layer: Any, shape: tuple[int, int] = (400, 50)) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(keras.ops.ones(shape), training=True))


def dropout(rate: float, seed: int = 7) -> LaneDropout:
    layer = LaneDropout(seed=seed)
    layer.build((None, 50))
    layer.rate.assign(rate)
    return layer


@pytest.mark.parametrize("rate", [0.05, RATE, 0.8])
def test_it_drops_a_share_and_preserves_the_mean(rate) -> None:
    values = ones(dropout(rate))

    error = np.sqrt(rate * (1 - rate) / values.size)
    assert np.mean(values == 0.0) == pytest.approx(rate, abs=4 * error)
    np.testing.assert_allclose(np.unique(values), [0.0, 1.0 / (1.0 - rate)], rtol=1e-6)
    assert values.mean() == pytest.approx(1.0, abs=4 * error / (1 - rate))


def test_it_is_the_identity_in_inference_and_at_rate_zero() -> None:
    np.testing.assert_array_equal(dropout(RATE)(X), X)
    np.testing.assert_array_equal(dropout(0.0)(X, training=True), X)


@pytest.mark.backends("jax")
def test_it_draws_the_numbers_of_keras() -> None:
    layer, other = dropout(RATE), keras.layers.Dropout(RATE, seed=7)
    for _ in range(3):  # each call draws other numbers
        np.testing.assert_allclose(ones(layer), ones(other), rtol=1e-6)


def network(*hidden: keras.layers.Layer) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.02), loss="mse")
    return model


def fit(model: keras.Model, rates: Any, factors: float = 1.0, **settings: Any) -> RegularizationPath:
    arguments = {"cv": 2, "training": TRAINING, "progress": False, **settings}
    return poise.fit_path(model, X, Y, poise.L2(1.0, factors=factors), strengths=rates, **arguments)


def test_a_plain_model_has_the_rate_and_the_weights() -> None:
    model = network(LaneDropout(seed=7))
    find_lane_dropouts(model)[0].rate.assign(RATE)

    plain = replace_lane_dropout(model)

    assert [type(layer).__name__ for layer in plain.layers] == ["Dense", "Dropout", "Dense"]
    assert plain.layers[1].rate == pytest.approx(RATE)
    np.testing.assert_allclose(plain.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)
    without = network()
    assert replace_lane_dropout(without) is without


@pytest.mark.backends("jax")
def test_rate_zero_is_the_network_without_a_penalty() -> None:
    with_rates, without = fit(network(LaneDropout(seed=7)), [0.0, RATE]), fit(network(), [0.0])

    for ours, theirs in zip(with_rates.model(0.0).get_weights(), without.model(0.0).get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    for column in ("loss", "val_loss", "settled"):
        assert with_rates.table[column][0] == pytest.approx(without.table[column][0], rel=1e-6)


@pytest.mark.backends("jax")
def test_lanes_have_their_own_rates_and_no_penalty() -> None:
    path = fit(network(LaneDropout(seed=7)), [0.1, 0.2, 0.6])

    assert path.table["penalty"].tolist() == [0.0] * 3
    assert path.rules_at(0.2) == []
    assert repr(path).startswith("RegularizationPath of dropout: 3 strengths")
    assert "rate of dropout" in str(path.plot().to_json())
    assert len({*path.table["val_loss"]}) == 3
    for rate in (0.1, 0.2, 0.6):
        assert path.model(rate).layers[1].rate == pytest.approx(rate)
        np.testing.assert_allclose(
            path.model(rate).predict(X, verbose=0), path.predict(rate, X), rtol=1e-5, atol=1e-6
        )  # fmt: skip


@pytest.mark.backends("jax")
def test_a_lane_is_the_lane_of_keras_dropout_at_that_rate() -> None:
    """Random numbers depend on the strength of the lane, so both have the same; a factor of 0 turns the penalty off."""
    ours = fit(network(LaneDropout(seed=7)), [0.1, 0.2])
    theirs = fit(network(keras.layers.Dropout(0.2, seed=7)), [0.2], factors=0.0)
    for weights, others in zip(ours.model(0.2).get_weights(), theirs.model(0.2).get_weights(), strict=True):
        np.testing.assert_allclose(weights, others, rtol=1e-4, atol=1e-6)


@pytest.mark.backends("jax")
def test_other_executors_and_checkpoints_give_the_same_bits(tmp_path) -> None:
    model, rates = network(LaneDropout(seed=7)), [0.1, 0.5]
    here = fit(model, rates, n_init=2)
    others = [
        fit(model, rates, n_init=2, executor="subprocess"),
        fit(model, rates, n_init=2, checkpoint=tmp_path / "work"),
        fit(model, rates, n_init=2, checkpoint=tmp_path / "work"),
    ]
    for other in others:
        for ours, theirs in zip(here.lanes.weights, other.lanes.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.backends("jax")
def test_new_initial_weights_are_those_without_dropout() -> None:
    """At rate 0, so that only the initial weights matter."""
    with_rates, without = (fit(model, [0.0], n_init=2) for model in (network(LaneDropout(seed=7)), network()))
    for ours, theirs in zip(
        with_rates.model(0.0, seed=1).get_weights(), without.model(0.0, seed=1).get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.backends("jax")
def test_a_saved_path_has_its_rates(tmp_path) -> None:
    path = fit(network(LaneDropout(seed=7)), [0.1, 0.5])
    path.save(tmp_path / "path")

    loaded = RegularizationPath.load(tmp_path / "path")

    assert loaded.model(0.5).layers[1].rate == pytest.approx(0.5)
    np.testing.assert_array_equal(loaded.predict(0.5, X), path.predict(0.5, X))
