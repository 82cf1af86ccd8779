"""Which inputs a model still reads is told from its first kernels, or not at all."""

import keras
import numpy as np
import pytest
from keras import layers

import poise
from poise.compaction.inputs import first_kernels, live_inputs

TABLE = (4,)


def sequential(*own, shape=TABLE):
    return keras.Sequential([keras.Input(shape), *own])


def with_skip():
    x = keras.Input(TABLE)
    return keras.Model(x, layers.Add()([layers.Dense(4)(x), x]))


def input_given_out():
    x = keras.Input(TABLE)
    return keras.Model(x, [layers.Dense(1)(x), x])


def siamese():
    first, second = keras.Input(TABLE), keras.Input(TABLE)
    dense = layers.Dense(2)
    return keras.Model([first, second], layers.Subtract()([dense(first), dense(second)]))


class Own(layers.Layer):
    def call(self, x):
        return x[:, ::-1]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)


def subclassed():
    model = Subclassed()
    model(np.ones((1, 4)))
    return model


READ = {
    "dense": (sequential(layers.Dense(3)), 0, 2),
    "after passing layers": (sequential(layers.Normalization(mean=0.0, variance=1.0), layers.Dropout(0.1), layers.Dense(3)), 0, 2),
    "after an activation": (sequential(layers.Activation("tanh"), layers.Dense(3)), 0, 2),
    "convolution": (sequential(layers.Conv1D(3, 2), shape=(5, 4)), 1, 3),
    "convolution in 2D": (sequential(layers.Conv2D(3, 2), shape=(5, 5, 4)), 2, 4),
    "recurrent": (sequential(layers.LSTM(3), shape=(5, 4)), 0, 2),
    "dense on steps": (sequential(layers.Dense(3), shape=(5, 4)), 0, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_inputs_are_read_by_the_first_kernel(name):
    model, axis, rank = READ[name]
    kernels = first_kernels(model)
    assert [(first, at) for first, _, at in kernels] == [(0, axis)]
    weights = [np.ones((2, *w.shape)) for w in model.get_weights()]
    kernel = weights[kernels[0][1]]
    assert kernel.ndim == rank + 1
    dead = [slice(None)] * kernel.ndim
    dead[0], dead[axis + 1] = 1, 2
    kernel[tuple(dead)] = 0.0
    assert live_inputs(model, kernels, weights).tolist() == [[True] * 4, [True, True, False, True]]


UNKNOWN = {
    "embedding": lambda: sequential(layers.Embedding(5, 2), layers.Flatten(), layers.Dense(1)),
    "reshape": lambda: sequential(layers.Reshape((2, 2)), layers.Flatten(), layers.Dense(1)),
    "softmax": lambda: sequential(layers.Activation("softmax"), layers.Dense(1)),
    "grouped convolution": lambda: sequential(layers.Conv1D(4, 2, groups=2), shape=(5, 4)),
    "a layer of the user's": lambda: sequential(Own(), layers.Dense(1)),
    "a skip": with_skip,
    "an input that is an output": input_given_out,
    "a shared layer": siamese,
    "no graph": subclassed,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_it_is_not_told_where_it_cannot_be(name):
    assert first_kernels(UNKNOWN[name]()) is None


def test_inputs_of_several_tensors_are_counted_through():
    first, second = keras.Input((3,)), keras.Input((2,))
    merged = layers.Add()([layers.Dense(2)(first), layers.Dense(2)(second)])
    model = keras.Model([first, second], layers.Dense(1)(merged))
    weights = [np.ones((1, *w.shape)) for w in model.get_weights()]
    kernels = first_kernels(model)
    weights[kernels[1][1]][0, 1] = 0.0
    assert live_inputs(model, kernels, weights).tolist() == [[True, True, True, True, False]]


def test_an_input_with_two_readers_is_read_while_one_reads_it():
    x = keras.Input(TABLE)
    model = keras.Model(x, layers.Add()([layers.Dense(2)(x), layers.Dense(2)(x)]))
    weights = [np.ones((1, *w.shape)) for w in model.get_weights()]
    kernels = first_kernels(model)
    weights[kernels[0][1]][0, :2] = 0.0
    weights[kernels[1][1]][0, 1:] = 0.0
    assert live_inputs(model, kernels, weights).tolist() == [[True, False, True, True]]


# ---------------------------------------------------------------- units that are not the last axis


def test_a_path_counts_units_of_a_recurrent_layer_and_not_its_gates():
    """Three inputs and three units with four columns each: the groups are units, and no input lends them its name."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((2, 3)), layers.LSTM(3, name="lstm"), layers.Dense(1, name="head")], name="net"
    )
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.1), poise.L2(0.1)), loss="mse")
    rules = [poise.Rule("lstm_cell/kernel", poise.GroupLasso(1.0, groups="outputs"))]
    x, y = np.random.default_rng(0).normal(size=(20, 2, 3)), np.ones((20, 1))
    training = poise.Training(epochs=3, batch_size=None, settle=0)

    path = poise.fit_path(model, x, y, rules, strengths=[1e-3, 3.0], cv=2, training=training, progress=False)

    (name,) = path.lanes.sizes
    kernel = path.lanes.weights[0][0]
    norms = np.sqrt((kernel.reshape(2, 3, 4, 3) ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(path.lanes.sizes[name][-1], norms, rtol=1e-5)
    live = (kernel.reshape(2, 3, 4, 3) != 0).any(axis=(1, 2)).sum(axis=-1)
    assert path.lanes.table["units"].tolist()[-2:] == live.tolist()
    assert live[1] < live[0] == 3
    assert path._blueprint.totals["units"] == 3
    assert path._blueprint.label(name, (0,)).endswith("kernel 0")
