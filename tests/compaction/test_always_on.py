"""Layers that draw or take batch statistics outside of training too, and activity regularizers, keep what they do."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import poise

from .zeroing import array, constant, randomized, silent, unread, widths

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike


def with_middle(middle, shape=(6,)) -> keras.Model:
    inputs = keras.Input(shape)
    hidden, head = layers.Dense(6, name="hidden"), layers.Dense(1, name="head")
    return randomized(keras.Model(inputs, head(middle(hidden(inputs)))))


def inside(make) -> Any:
    """The layer in a model that is called as in training."""
    symbol = keras.Input((6,))
    model = keras.Model(symbol, layers.Dense(6, name="within")(make()(symbol)))
    return lambda x: model(x, training=True)


def in_a_sequential(make) -> Any:
    model = keras.Sequential([keras.Input((6,)), make()])
    return lambda x: model(x, training=True)


def against_the_layer(make) -> Any:
    """Keras lets the argument of the model around win."""
    symbol = keras.Input((6,))
    model = keras.Model(symbol, make()(symbol, training=False))
    return lambda x: model(x, training=True)


RANDOM = {
    "dropout": lambda: layers.Dropout(0.5, seed=1),
    "noise": lambda: layers.GaussianNoise(0.5, seed=1),
    "Gaussian dropout": lambda: layers.GaussianDropout(0.5, seed=1),
    "alpha dropout": lambda: layers.AlphaDropout(0.5, seed=1),
    "batch normalization": lambda: layers.BatchNormalization(),
}
CALLS = {
    "by itself": lambda make: lambda x: make()(x, training=True),
    "in a model": inside,
    "in a sequential model": in_a_sequential,
    "in a model, against its own": against_the_layer,
}


def drawn(model, x) -> Any:
    return array(model(ops.convert_to_tensor(x)))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", RANDOM)
def test_a_layer_called_as_in_training_gives_the_same_draws(kind, call) -> None:
    model = with_middle(CALLS[call](RANDOM[kind]))
    constant(model.get_layer("hidden"), [0, 3])
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")

    smaller = poise.compact(model)

    expected, actual = drawn(model, x), drawn(smaller, x)
    assert expected.std() > 0
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_monte_carlo_dropout_keeps_its_spread() -> None:
    model = with_middle(lambda x: layers.Dropout(0.5, seed=0)(x, training=True), (2,))
    hidden, head = model.get_layer("hidden"), model.get_layer("head")
    hidden.set_weights([np.zeros((2, 6)), np.full(6, 3.0)])
    head.set_weights([np.ones((6, 1)), np.zeros(1)])

    spread = drawn(poise.compact(model), np.zeros((20000, 2), "float32")).std()

    assert spread == pytest.approx(3.0 * np.sqrt(6), rel=0.02)  # each unit is 0 or 6


@pytest.mark.parametrize("training", [False, None])
def test_a_layer_that_is_called_as_outside_of_training_is_cut(training) -> None:
    model = with_middle(
        lambda x: layers.BatchNormalization()(layers.Dropout(0.5)(x, training=training), training=False)
    )
    silent(model.get_layer("hidden"), [0, 3])
    assert widths(poise.compact(model), ["hidden"]) == [4]


@pytest.mark.parametrize(("dropout", "left"), [(0.5, 6), (0.0, 4)])
def test_attention_and_recurrent_layers_with_dropout_that_is_on_stay(dropout, left) -> None:
    inputs = keras.Input((5, 6))
    hidden = layers.Dense(6, name="hidden")(inputs)
    attended = layers.MultiHeadAttention(2, 2, dropout=dropout, seed=1)(hidden, hidden, training=True)
    recurred = layers.GRU(6, dropout=dropout, seed=2, name="recurred")(attended, training=True)
    model = randomized(keras.Model(inputs, layers.Dense(1, name="head")(recurred)))
    silent(model.get_layer("recurred"), [0, 3])
    unread(model.get_layer("head"), [0, 3])
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")

    smaller = poise.compact(model)

    np.testing.assert_allclose(drawn(smaller, x), drawn(model, x), rtol=1e-4, atol=1e-5)
    assert widths(smaller, ["recurred"]) == [left]


class Spread(keras.regularizers.Regularizer):
    """Not a sum over entries."""

    def __call__(self, x) -> Any:
        return 0.1 * ops.sum(ops.var(x, axis=-1))

    def get_config(self) -> dict[str, Any]:
        return {}


def evaluated(model, x) -> Any:
    model.compile("sgd", loss="mse")
    return model.evaluate(x, np.zeros((len(x), 1), "float32"), batch_size=7, verbose=0)


REGULARIZERS = {"L1": lambda: keras.regularizers.L1(0.1), "L2": lambda: keras.regularizers.L2(0.1), "other": Spread}
KILLED = {
    "silent": (silent, {"L1": 4, "L2": 4, "other": 6}),
    "constant": (constant, {"L1": 6, "L2": 6, "other": 6}),
    "unread": (lambda layer, units: None, {"L1": 6, "L2": 6, "other": 6}),
}


@pytest.mark.parametrize("way", KILLED)
@pytest.mark.parametrize("kind", REGULARIZERS)
def test_an_activity_regularizer_keeps_the_loss(kind, way) -> None:
    def middle(x) -> Any:
        return layers.Dense(6, "tanh", activity_regularizer=REGULARIZERS[kind](), name="regularized")(x)

    model = with_middle(middle)
    kill, left = KILLED[way]
    kill(model.get_layer("regularized"), [0, 3])
    unread(model.get_layer("head"), [0, 3])
    x = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")

    smaller = poise.compact(model)

    assert evaluated(smaller, x) == pytest.approx(evaluated(model, x), rel=1e-5)
    assert widths(smaller, ["regularized"]) == [left[kind]]


def test_an_activity_regularizer_inside_an_attention_keeps_the_loss() -> None:
    inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(3, 2, activity_regularizer=keras.regularizers.L2(0.1), name="attention")
    model = randomized(keras.Model(inputs, layers.Dense(1)(layers.Flatten()(attention(inputs, inputs)))))
    kernel = array(attention._output_dense.kernel)
    kernel[1] = 0.0
    attention._output_dense.kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(20, 5, 6)).astype("float32")

    assert evaluated(poise.compact(model), x) == pytest.approx(evaluated(model, x), rel=1e-5)
