"""Branches that meet: a sum keeps a unit that lives in one of them, a concatenation keeps each branch's own."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import poise

from .zeroing import assert_same, constant, randomized, silent, unread, width, widths

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike

UNITS = 6
MERGES = [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]
every_merge = pytest.mark.parametrize("merge", MERGES, ids=lambda merge: merge.__name__)


def two_branches(merge, units=UNITS) -> keras.Model:
    inputs = keras.Input((5,))
    left = layers.Dense(units, activation="tanh", name="left")(inputs)
    right = layers.Dense(units, activation="softplus", name="right")(inputs)
    return randomized(keras.Model(inputs, layers.Dense(3, name="last")(merge([left, right]))))


@every_merge
def test_a_unit_that_nobody_reads_after_the_merge_goes_in_both_branches(merge) -> None:
    model = two_branches(merge())
    unread(model.get_layer("last"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["left", "right"]) == [4, 4]


@every_merge
@pytest.mark.parametrize("kill", [constant, silent])
def test_a_unit_that_is_constant_in_both_branches_goes(merge, kill) -> None:
    model = two_branches(merge())
    for name in ("left", "right"):
        kill(model.get_layer(name), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["left", "right"]) == [4, 4]


@every_merge
@pytest.mark.parametrize("kill", [constant, silent])
def test_a_unit_that_is_constant_in_one_branch_stays(merge, kill) -> None:
    """Zero times anything is a constant: such a unit goes, in both branches."""
    model = two_branches(merge())
    kill(model.get_layer("left"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    expected = [4, 4] if merge is layers.Multiply and kill is silent else [6, 6]
    assert widths(smaller, ["left", "right"]) in ([6, 6], expected)


def test_three_branches_lose_a_unit_together() -> None:
    inputs = keras.Input((5,))
    branches = [layers.Dense(UNITS, activation="tanh", name=name)(inputs) for name in "abc"]
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(layers.Add()(branches))))
    for name in "abc":
        silent(model.get_layer(name), (0,))
        constant(model.get_layer(name), (5,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, "abc") == [4, 4, 4]


def test_a_constant_unit_of_a_residual_block_stays_as_long_as_the_sum_needs_it() -> None:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(UNITS, 1, name="trunk")(inputs)
    inner = layers.Conv2D(UNITS, 3, padding="same", activation="relu", name="inner")(x)
    outer = layers.Conv2D(UNITS, 3, padding="same", name="outer")(inner)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, outer]))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    silent(model.get_layer("inner"), (1, 4))
    silent(model.get_layer("outer"), (2,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["trunk", "inner", "outer"]) == [6, 4, 6]


def test_a_branch_of_one_channel_scales_all_channels_of_the_other() -> None:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(UNITS, 1, activation="tanh", name="trunk")(inputs)
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="gate")(inputs)
    x = layers.Flatten()(layers.Multiply()([x, gate]))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    unread(model.get_layer("last"), [p for p in range(36 * UNITS) if p % UNITS in (1, 4)])

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["trunk", "gate"]) == [4, 1]


def test_squeeze_and_excitation_loses_a_channel_everywhere() -> None:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(UNITS, 2, activation="relu", name="trunk")(inputs)
    squeezed = layers.Reshape((1, 1, UNITS))(layers.GlobalAveragePooling2D()(x))
    squeezed = layers.Conv2D(2, 1, activation="relu", name="squeeze")(squeezed)
    excited = layers.Conv2D(UNITS, 1, activation="sigmoid", name="excite")(squeezed)
    x = layers.Conv2D(3, 1, name="last")(layers.Multiply()([x, excited]))
    model = randomized(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    silent(model.get_layer("trunk"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["trunk", "squeeze", "excite"]) == [4, 2, 4]


@pytest.mark.parametrize("kill", ["unheard", constant, silent])
def test_concatenated_units_go_on_their_own(kill) -> None:
    model = two_branches(layers.Concatenate())
    if kill == "unheard":
        unread(model.get_layer("last"), (0, 3, UNITS + 1))
    else:
        kill(model.get_layer("left"), (0, 3))
        kill(model.get_layer("right"), (1,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["left", "right"]) == [4, 5]


def test_a_branch_of_a_concatenation_may_die_whole() -> None:
    model = two_branches(layers.Concatenate())
    unread(model.get_layer("last"), range(UNITS))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert smaller.count_params() <= 5 + 1 + UNITS * (5 + 1) + (UNITS + 1) * 3 + 3


@pytest.mark.parametrize("both", [False, True])
def test_branches_stacked_in_rows_lose_a_unit_together(both) -> None:
    inputs = keras.Input((6, 2))
    branches = [layers.Conv1D(UNITS, 2, activation="tanh", name=name)(inputs) for name in ("left", "right")]
    x = layers.Concatenate(axis=1)(branches)
    model = randomized(keras.Model(inputs, layers.Conv1D(3, 1, name="last")(x)))
    for name in ("left", "right")[: 1 + both]:
        silent(model.get_layer(name), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["left", "right"]) == ([4, 4] if both else [6, 6])


@pytest.mark.parametrize("axes", [-1, (2, 2)])
def test_a_dot_product_over_the_units_gives_the_same(axes) -> None:
    inputs = keras.Input((4, 5))
    branches = [layers.Dense(UNITS, activation="tanh", name=name)(inputs) for name in ("left", "right")]
    x = layers.Dot(axes=axes)(branches)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    for name in ("left", "right"):
        silent(model.get_layer(name), (1, 4))
    unread(model.get_layer("last"), (0,))

    assert_same(model, poise.compact(model))


ARITHMETIC = {
    "x + y": (lambda x, y: x + y, 4),
    "x - y": (lambda x, y: x - y, 4),
    "x * y": (lambda x, y: x * y, 4),
    "x / y": (lambda x, y: x / y, range(4, 7)),
    "ops.maximum": (ops.maximum, 4),
    "ops.relu, scaled and moved": (lambda x, y: ops.relu(2.0 * x - 0.3) + 0.5 * y, 4),
    "ops.concatenate": (lambda x, y: ops.concatenate([x, y], axis=-1), range(4, 7)),
    "ops.tanh": (lambda x, y: ops.tanh(-x) + ops.square(y), 4),
    "ops.softmax": (lambda x, y: ops.softmax(x + y), 6),
    "ops.sort": (lambda x, y: ops.sort(x) + ops.cumsum(y, axis=-1), 6),
    "ops.flip": (lambda x, y: ops.flip(x, axis=-1) + y, 6),
    "ops.sum": (lambda x, y: x * ops.sum(y, axis=-1, keepdims=True), range(4, 7)),
    "a slice": (lambda x, y: x[:, 1:] + y[:, :-1], range(4, 7)),
    "ops.matmul": (lambda x, y: ops.matmul(ops.expand_dims(x, -1), ops.expand_dims(y, 1))[:, 0], range(4, 7)),
}


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("kill", ["unheard", silent])
def test_arithmetic_on_tensors_is_followed_or_left_whole(name, kill) -> None:
    compute, stays = ARITHMETIC[name]
    model = two_branches(lambda pair: compute(*pair))
    if kill == "unheard":
        length = model.get_layer("last").kernel.shape[0]
        unread(model.get_layer("last"), [p for p in range(length) if p % UNITS in (1, 4)])
    else:
        kill(model.get_layer("left"), (1, 4))
        if name != "x / y":
            kill(model.get_layer("right"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    if kill == "unheard":
        stays = stays if isinstance(stays, range) else range(stays, stays + 1)
        assert width(smaller.get_layer("left")) in stays


def test_a_constant_of_the_graph_takes_part_in_arithmetic() -> None:
    inputs = keras.Input((5,))
    x = layers.Dense(UNITS, activation="tanh", name="first")(inputs)
    x = x * np.arange(1.0, 1.0 + UNITS, dtype="float32")
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    unread(model.get_layer("last"), (1, 4))
    constant(model.get_layer("first"), (2,))

    assert_same(model, poise.compact(model))
