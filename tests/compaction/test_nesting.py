"""Models inside models, layers that are called twice, several inputs and outputs, and layers nobody knows."""

from typing import Any

import keras
import pytest
from keras import layers

import poise

from .zeroing import assert_same, constant, randomized, silent, unread, width, widths

UNITS = 6


@keras.saving.register_keras_serializable("compaction")
class Mixing(layers.Layer):
    """Adds the mean over the units: a layer that poise has never seen."""

    def call(self, inputs) -> Any:
        return inputs + keras.ops.mean(inputs, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("compaction")
class ReadsByItself(layers.Dense):
    """A Dense of its own kind: what it does beyond Dense is not known."""

    def call(self, inputs) -> Any:
        return super().call(inputs) + keras.ops.sum(inputs, axis=-1, keepdims=True)


def named(model: keras.Model, name: str) -> layers.Layer:
    """The layer of this name, however deep."""
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def block(kind: str) -> keras.Model:
    """first, second: five inputs, UNITS outputs."""
    stack = [
        layers.Dense(UNITS, activation="tanh", name="first"),
        layers.BatchNormalization(name="norm"),
        layers.Dense(UNITS, activation="relu", name="second"),
    ]
    if kind == "sequential":
        return keras.Sequential([keras.Input((5,)), *stack], name="block")
    inputs = x = keras.Input((5,))
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x, name="block")


every_block = pytest.mark.parametrize("kind", ["functional", "sequential"])


@every_block
@pytest.mark.parametrize("outer", ["functional", "sequential"])
def test_units_of_a_nested_model_go(kind, outer) -> None:
    inner, last = block(kind), layers.Dense(3, name="last")
    if outer == "sequential":
        model = keras.Sequential([keras.Input((5,)), inner, layers.Dropout(0.5), last])
    else:
        inputs = keras.Input((5,))
        model = keras.Model(inputs, last(layers.Dropout(0.5)(inner(inputs))))
    randomized(model)
    unread(named(model, "second"), (1, 4))
    unread(named(model, "last"), (0, 2, 3))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert [width(named(smaller, name)) for name in ("first", "second")] == [4, 3]


@every_block
def test_constants_leave_a_nested_model_for_the_reader_outside(kind) -> None:
    inputs = keras.Input((4,))
    x = layers.Dense(5, name="before")(inputs)
    x = block(kind)(x)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    constant(named(model, "before"), (3,))
    constant(named(model, "second"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert [width(named(smaller, name)) for name in ("before", "second")] == [4, 4]


@every_block
def test_a_nested_model_called_twice_loses_units_that_are_dead_in_both_calls(kind) -> None:
    left, right = keras.Input((5,)), keras.Input((5,))
    inner = block(kind)
    x = layers.Concatenate()([inner(left), inner(right)])
    model = randomized(keras.Model([left, right], layers.Dense(3, name="last")(x)))
    unread(named(model, "second"), (1, 4))
    unread(named(model, "last"), (0, 2, UNITS + 2, UNITS + 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert [width(named(smaller, name)) for name in ("first", "second")] == [4, 5]


@every_block
def test_a_nested_model_may_read_its_own_output(kind) -> None:
    inner = block(kind)
    inputs = keras.Input((5,))
    x = inner(layers.Dense(5, activation="tanh", name="between")(inner(inputs)))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    unread(named(model, "second"), (1,))
    unread(named(model, "between"), (0, 2))
    unread(named(model, "last"), (0, 3))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert [width(named(smaller, name)) for name in ("first", "second")] == [5, 5]


def test_a_model_in_a_model_in_a_model() -> None:
    inner = block("functional")
    inputs = keras.Input((5,))
    middle = keras.Model(inputs, layers.Dense(4, name="between")(inner(inputs)), name="middle")
    model = randomized(keras.Sequential([keras.Input((5,)), middle, layers.Dense(3, name="last")]))
    unread(named(model, "second"), (1, 4))
    unread(named(model, "last"), (0,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert [width(named(smaller, name)) for name in ("first", "between")] == [4, 3]


def shared_dense() -> keras.Model:
    left, right = keras.Input((5,)), keras.Input((5,))
    shared = layers.Dense(UNITS, activation="tanh", name="shared")
    a, b = layers.Dense(3, name="a")(shared(left)), layers.Dense(3, name="b")(shared(right))
    return randomized(keras.Model([left, right], layers.Dense(2)(layers.Concatenate()([a, b]))))


def test_a_shared_layer_loses_units_that_nobody_reads_after_either_call() -> None:
    model = shared_dense()
    unread(model.get_layer("a"), (1, 2, 4))
    unread(model.get_layer("b"), (1, 4, 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("shared")) == 4


def test_a_shared_layer_loses_its_constants_in_both_calls() -> None:
    model = shared_dense()
    constant(model.get_layer("shared"), (0, 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("shared")) == 4


def test_constants_that_differ_between_two_calls_of_a_shared_reader_stay_correct() -> None:
    left, right = keras.Input((5,)), keras.Input((5,))
    a = layers.Dense(UNITS, activation="tanh", name="a")(left)
    b = layers.Dense(UNITS, activation="tanh", name="b")(right)
    shared = layers.Dense(3, name="shared")
    model = randomized(keras.Model([left, right], layers.Add()([shared(a), shared(b)])))
    constant(model.get_layer("a"), (1, 4))
    constant(model.get_layer("b"), (1, 5))

    assert_same(model, poise.compact(model))


def test_a_layer_that_reads_its_own_output_keeps_both_calls_alike() -> None:
    inputs = keras.Input((UNITS,))
    shared = layers.Dense(UNITS, activation="tanh", name="shared")
    x = layers.Dense(UNITS, activation="tanh", name="first")(inputs)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(shared(shared(x)))))
    unread(model.get_layer("shared"), (1, 4))
    unread(model.get_layer("last"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "shared"]) == [4, 4]


def test_several_inputs_and_outputs_keep_their_names_and_order() -> None:
    image, table = keras.Input((6, 6, 2), name="image"), keras.Input((5,), name="table")
    x = layers.Flatten()(layers.Conv2D(UNITS, 3, activation="relu", name="conv")(image))
    y = layers.Dense(UNITS, activation="relu", name="dense")(table)
    joined = layers.Concatenate()([x, y])
    a, b = layers.Dense(2, name="a")(joined), layers.Dense(3, name="b")(y)
    model = randomized(keras.Model({"image": image, "table": table}, {"a": a, "b": b}))
    silent(model.get_layer("conv"), (1, 4))
    constant(model.get_layer("dense"), (0,))

    smaller = poise.compact(model)

    images, tables = (keras.random.normal((3, *x.shape[1:])) for x in (image, table))
    before, after = (m({"image": images, "table": tables}) for m in (model, smaller))
    assert list(after) == ["a", "b"]
    for name in before:
        expected = keras.ops.convert_to_numpy(before[name])
        away = keras.ops.convert_to_numpy(after[name]) - expected
        assert abs(away).max() <= 1e-5 * abs(expected).max()
    assert widths(smaller, ["conv", "dense"]) == [4, 5]


def test_outputs_stay_whole_even_where_they_are_constant() -> None:
    inputs = keras.Input((5,))
    hidden = layers.Dense(UNITS, activation="relu", name="hidden")(inputs)
    model = randomized(keras.Model(inputs, [hidden, layers.Dense(3, name="last")(hidden)]))
    constant(model.get_layer("last"), (0, 1))
    silent(model.get_layer("hidden"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["hidden", "last"]) == [6, 3]


def test_an_input_may_be_an_output() -> None:
    inputs = keras.Input((5,))
    hidden = layers.Dense(UNITS, activation="relu", name="hidden")(inputs)
    model = randomized(keras.Model(inputs, [inputs, layers.Dense(3, name="last")(hidden)]))
    unread(model.get_layer("last"), (1,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("hidden")) == 5


@pytest.mark.parametrize(
    "wall",
    [
        Mixing(),
        ReadsByItself(UNITS),
        layers.Lambda(lambda x: x - keras.ops.mean(x, axis=-1, keepdims=True), output_shape=(UNITS,)),
    ],
    ids=["custom", "derived", "lambda"],
)
def test_what_feeds_an_unknown_layer_stays_whole(wall) -> None:
    inputs = keras.Input((5,))
    x = layers.Dense(UNITS, activation="relu", name="before")(inputs)
    x = wall(layers.Dense(UNITS, activation="relu", name="first")(x))
    x = layers.Dense(UNITS, activation="relu", name="after")(x)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    unread(model.get_layer("first"), (1, 4))
    silent(model.get_layer("first"), (0,))
    unread(model.get_layer("after"), (2,))
    unread(model.get_layer("last"), (2, 3, 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["before", "first", "after"]) == [4, 6, 3]
