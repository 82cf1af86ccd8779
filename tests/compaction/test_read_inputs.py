"""The inputs that a model reads: by the zeros of its weights, and by perturbing one input at a time."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, seed, settings
from keras import layers

from poise.compaction.inputs import input_kernels, read_inputs

from .random_graphs import HEALTH_CHECKS, IMAGE, SEQUENCE, VECTOR, Recipe, built, kill_at_random, recipes
from .zeroing import array, inputs_of, outputs, randomized, unread

pytestmark = pytest.mark.backends("jax")  # which inputs are read follows from the graph and the zeros

TABLE = (4,)


def sequential(*stack: layers.Layer, shape: tuple[int, ...] = TABLE) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *stack])


def read_now(model: keras.Model) -> list[bool]:
    """The answer for the current weights."""
    read = read_inputs(model, [array(weight) for weight in model.weights])
    assert read is not None
    return read.tolist()


def perturbed(model: keras.Model) -> list[bool]:
    """Per input whether an output changes with it."""
    x = inputs_of(model, rows=16)
    before = outputs(model, x)
    changes = []
    for number, values in enumerate(x):
        for index in range(values.shape[-1]):
            moved = [array.copy() for array in x]
            moved[number][..., index] += np.random.default_rng(index).normal(size=values.shape[:-1])
            after = outputs(model, moved)
            changes.append(any((ours != theirs).any() for ours, theirs in zip(after, before, strict=True)))
    return changes


# ---------------------------------------------------------------- both answers agree


@pytest.mark.parametrize(
    ("shape", "examples"), [(VECTOR, 40), (SEQUENCE, 12), (IMAGE, 12)], ids=["vectors", "sequences", "images"]
)
def test_random_graphs_read_the_inputs_that_change_their_outputs(shape: tuple[int, ...], examples: int) -> None:
    answers = []

    @seed(0)
    @given(recipe=recipes(shape))
    @settings(
        derandomize=False, deadline=None, max_examples=examples, database=None, suppress_health_check=HEALTH_CHECKS
    )
    def check(recipe: Recipe) -> None:
        keras.utils.clear_session(free_memory=False)
        model = randomized(built(shape, recipe), recipe.seed)
        kill_at_random(model, recipe.seed)
        random = np.random.default_rng(recipe.seed)
        first = model.layers[1]
        unread(first, np.flatnonzero(random.random(shape[-1]) < 0.4).tolist())
        kernel = array(first.kernel)
        first.kernel.assign(np.where(random.random(kernel.shape) < 0.4, 0.0, kernel))

        read, changes = read_now(model), perturbed(model)

        assert [r for r, c in zip(read, changes, strict=True) if c] == [True] * sum(changes)
        answers.append((read, changes))

    check()

    assert sum(read == changes for read, changes in answers) >= 0.9 * len(answers)
    assert sum(not all(read) for read, _ in answers) > len(answers) / 3


def gated() -> keras.Model:
    x = keras.Input(TABLE)
    halves = keras.ops.glu(layers.Dense(6, name="first")(x))
    return keras.Model(x, layers.Dense(1, name="last")(halves))


def siamese() -> keras.Model:
    first, second = keras.Input(TABLE), keras.Input(TABLE)
    dense = layers.Dense(2, name="first")
    return keras.Model([first, second], layers.Subtract()([dense(first), dense(second)]))


def nested() -> keras.Model:
    inner = sequential(layers.Dense(3, "tanh", name="first"))
    return sequential(inner, layers.Dense(1))


def stacked_inputs() -> keras.Model:
    first, second = keras.Input((3,)), keras.Input((2,))
    return keras.Model([first, second], layers.Dense(2, name="first")(layers.Concatenate()([second, first])))


AGREEING: dict[str, Callable[[], keras.Model]] = {
    "dense": lambda: sequential(layers.Dense(3, name="first")),
    "behind a normalization": lambda: sequential(
        layers.Normalization(mean=0.0, variance=1.0), layers.Dropout(0.1), layers.Dense(3, name="first")
    ),
    "behind an activation": lambda: sequential(layers.Activation("tanh"), layers.Dense(3, name="first")),
    "convolution": lambda: sequential(layers.Conv1D(3, 2, name="first"), shape=(5, 4)),
    "convolution in 2D": lambda: sequential(layers.Conv2D(3, 2, name="first"), shape=(5, 5, 4)),
    "separable convolution": lambda: sequential(layers.SeparableConv2D(3, 2, name="first"), shape=(5, 5, 4)),
    "recurrent": lambda: sequential(layers.LSTM(3, name="first"), shape=(5, 4)),
    "dense on steps": lambda: sequential(layers.Dense(3, name="first"), shape=(5, 4)),
    "gated": gated,
    "gated output": lambda: sequential(layers.Dense(6, "glu", name="first")),
    "nested": nested,
    "shared layer": siamese,
    "two inputs in another order": stacked_inputs,
}


@pytest.mark.parametrize("name", AGREEING)
def test_both_answers_agree_where_an_input_is_not_read(name: str) -> None:
    model = randomized(AGREEING[name]())
    layer = next(layer for layer in model._flatten_layers() if layer.name == "first")
    unread(layer, (2,))

    read = read_now(model)

    assert read == perturbed(model)
    assert not all(read)


def test_a_gated_unit_that_nobody_reads_reads_no_input() -> None:
    model = randomized(gated())
    kernel = np.zeros((4, 6))
    kernel[0, [0, 3]] = kernel[1, [1, 4]] = kernel[2, 2] = kernel[3, 5] = 1.0  # halves of the units 0, 1, 2 and 2
    model.get_layer("first").kernel.assign(kernel)
    unread(model.get_layer("last"), (1,))

    assert read_now(model) == [True, False, True, True] == perturbed(model)


def test_a_skip_reads_all_inputs_whatever_the_kernel_does() -> None:
    x = keras.Input(TABLE)
    model = randomized(keras.Model(x, layers.Add()([layers.Dense(4, name="first")(x), x])))
    unread(model.get_layer("first"), (1, 2))

    assert read_now(model) == [True] * 4 == perturbed(model)
    assert input_kernels(model) is None


def test_an_input_that_only_dead_units_read_is_not_read() -> None:
    model = randomized(sequential(layers.Dense(3, "tanh", name="first"), layers.Dense(1, name="last")))
    kernel = array(model.get_layer("first").kernel)
    kernel[2, 1:] = 0.0
    model.get_layer("first").kernel.assign(kernel)
    unread(model.get_layer("last"), (0,))

    assert read_now(model) == [True, True, False, True] == perturbed(model)


# ---------------------------------------------------------------- many lanes


def test_every_lane_is_answered_by_its_own_zeros() -> None:
    x = keras.Input(TABLE)
    model = keras.Model(x, layers.Add()([layers.Dense(2)(x), layers.Dense(2)(x)]))
    weights = [np.ones((2, 3, *w.shape)) for w in model.weights]
    weights[0][1, 2, :2] = 0.0
    weights[2][1, 2, 1:] = 0.0
    weights[0][0, 0, 3] = weights[2][0, 0, 3] = 0.0

    read = read_inputs(model, weights)

    assert read is not None
    assert read.shape == (2, 3, 4)
    assert read[1, 2].tolist() == [True, False, True, True]
    assert read[0, 0].tolist() == [True, True, True, False]
    assert read[0, 1:].all()
    assert read[1, :2].all()


def test_the_weights_of_the_model_do_not_count() -> None:
    model = sequential(layers.Dense(2))
    model.set_weights([np.zeros((4, 2)), np.zeros(2)])

    read = read_inputs(model, [np.ones((4, 2)), np.zeros(2)])

    assert read is not None
    assert read.all()


# ---------------------------------------------------------------- kernels


def test_kernels_are_named_by_the_inputs_that_they_read() -> None:
    first, second = keras.Input((3,)), keras.Input((2,))
    merged = layers.Add()([layers.Dense(2)(first), layers.Dense(2)(second)])
    model = keras.Model([first, second], layers.Dense(1)(merged))

    kernels = input_kernels(model)

    assert kernels is not None
    assert [(kernel.position, kernel.axis, kernel.inputs.tolist()) for kernel in kernels] == [
        (0, 0, [0, 1, 2]),
        (2, 0, [3, 4]),
    ]


@pytest.mark.parametrize(
    ("name", "axis"),
    [("dense", 0), ("convolution", 1), ("convolution in 2D", 2), ("recurrent", 0), ("gated", 0), ("nested", 0)],
)
def test_the_axis_of_a_kernel_is_that_of_its_inputs(name: str, axis: int) -> None:
    kernels = input_kernels(AGREEING[name]())

    assert kernels is not None
    assert [(kernel.position, kernel.axis, kernel.inputs.tolist()) for kernel in kernels] == [(0, axis, [0, 1, 2, 3])]


# ---------------------------------------------------------------- not known


class Reversed(layers.Layer):
    def call(self, x) -> Any:
        return x[:, ::-1]


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x) -> Any:
        return self.dense(x)


def subclassed() -> keras.Model:
    model = Subclassed()
    model(np.ones((1, 4)))
    return model


UNKNOWN: dict[str, Callable[[], keras.Model]] = {
    "embedding": lambda: sequential(layers.Embedding(5, 2), layers.Flatten(), layers.Dense(1)),
    "reshape": lambda: sequential(layers.Reshape((2, 2)), layers.Flatten(), layers.Dense(1)),
    "softmax": lambda: sequential(layers.Activation("softmax"), layers.Dense(1)),
    "custom layer": lambda: sequential(Reversed(), layers.Dense(1)),
    "no graph": subclassed,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_no_answer_where_the_inputs_are_unknown(name: str) -> None:
    model = UNKNOWN[name]()

    assert read_inputs(model, [array(weight) for weight in model.weights]) is None
    assert input_kernels(model) is None


@pytest.mark.parametrize("name", ["shared layer", "grouped convolution", "an input that is an output"])
def test_there_are_no_kernels_where_inputs_are_read_in_another_way(name: str) -> None:
    x = keras.Input(TABLE)
    models = {
        "shared layer": siamese,
        "grouped convolution": lambda: sequential(layers.Conv1D(4, 2, groups=2), shape=(5, 4)),
        "an input that is an output": lambda: keras.Model(x, [layers.Dense(1)(x), x]),
    }
    model = models[name]()

    assert input_kernels(model) is None
    assert all(read_now(randomized(model)))
