"""Layers with a kernel, each alone between `first` and `last`: what it does not read goes, what it makes goes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import pytest
from keras import layers

import poise

from .test_passing_kinds import IMAGE, SEQUENCE, UNITS, VECTOR, VOLUME, layer_of
from .zeroing import (
    assert_same,
    constant,
    randomized,
    silent,
    unread,
    width,
    widths,
    zero_slice,
)

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike


class Kind(NamedTuple):
    name: str
    shape: tuple[int, ...]
    make: Callable[[], layers.Layer]
    pads: bool = False


def kind(shape: tuple[int, ...], make: Any, *, pads: bool = False, **of_layer: Any) -> Kind:
    title = " ".join([make.__name__, *(f"{key}={value}" for key, value in of_layer.items())])
    return Kind(f"{title} on rank {len(shape) + 1}", shape, lambda: make(UNITS, name="middle", **of_layer), pads)


TABLE = [
    kind(VECTOR, layers.Dense, activation="relu"),
    kind(SEQUENCE, layers.Dense, activation="softplus"),
    kind(IMAGE, layers.Dense),
    kind(SEQUENCE, layers.Conv1D, kernel_size=2, activation="relu"),
    kind(SEQUENCE, layers.Conv1D, kernel_size=3, padding="same", pads=True),
    kind(SEQUENCE, layers.Conv1D, kernel_size=3, padding="causal", pads=True),
    kind(SEQUENCE, layers.Conv1D, kernel_size=2, dilation_rate=2),
    kind(IMAGE, layers.Conv2D, kernel_size=2, strides=2),
    kind(IMAGE, layers.Conv2D, kernel_size=1, padding="same", activation="relu"),
    kind(IMAGE, layers.Conv2D, kernel_size=3, padding="same", activation="relu", pads=True),
    kind(IMAGE, layers.Conv2D, kernel_size=2, dilation_rate=2),
    kind(VOLUME, layers.Conv3D, kernel_size=2),
    kind(VOLUME, layers.Conv3D, kernel_size=3, padding="same", pads=True),
    kind(SEQUENCE, layers.Conv1DTranspose, kernel_size=2, pads=True),
    kind(IMAGE, layers.Conv2DTranspose, kernel_size=3, strides=2, padding="same", pads=True),
    kind(VOLUME, layers.Conv3DTranspose, kernel_size=2, pads=True),
    kind(SEQUENCE, layers.SeparableConv1D, kernel_size=2),
    kind(SEQUENCE, layers.SeparableConv1D, kernel_size=3, padding="same", pads=True),
    kind(IMAGE, layers.SeparableConv2D, kernel_size=2, depth_multiplier=2, activation="relu"),
    kind(SEQUENCE, layers.LSTM),
    kind(SEQUENCE, layers.LSTM, return_sequences=True),
    kind(SEQUENCE, layers.GRU),
    kind(SEQUENCE, layers.GRU, return_sequences=True, reset_after=False),
    kind(SEQUENCE, layers.SimpleRNN),
    kind(SEQUENCE, layers.SimpleRNN, return_sequences=True),
]
RECURRENT = (layers.LSTM, layers.GRU, layers.SimpleRNN)
CONSTANT = [(kind, silent) for kind in TABLE]
CONSTANT += [(kind, constant) for kind in TABLE if not isinstance(kind.make(), RECURRENT)]
every_kind = pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.name)


def stack(shape: tuple[int, ...], middle: layers.Layer, **of_last: Any) -> keras.Model:
    inputs = keras.Input(shape)
    made = middle(layer_of(len(shape), UNITS, 2, activation="tanh", name="first")(inputs))
    last = layer_of(len(made.shape) - 1, 3, 1, name="last", **of_last)
    return randomized(keras.Model(inputs, last(made)))


@every_kind
def test_units_that_the_layer_does_not_read_go(kind) -> None:
    model = stack(kind.shape, kind.make())
    unread(model.get_layer("middle"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "middle"]) == [4, 6]


@every_kind
@pytest.mark.parametrize("kill", [constant, silent])
def test_constants_that_the_layer_reads_are_folded_into_its_bias(kind, kill) -> None:
    """Where the layer pads, a constant is not one at the border, unless it is zero."""
    model = stack(kind.shape, kind.make())
    kill(model.get_layer("first"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("first")) == (6 if kind.pads and kill is constant else 4)


@every_kind
def test_units_of_the_layer_that_nobody_reads_go(kind) -> None:
    """A recurrent unit is read by its own layer too."""
    model = stack(kind.shape, kind.make())
    middle = model.get_layer("middle")
    unread(model.get_layer("last"), (0, 2, 5))
    if isinstance(middle, RECURRENT):
        zero_slice(middle.cell.recurrent_kernel, 0, (0, 2, 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "middle"]) == [6, 3]


@pytest.mark.parametrize(("kind", "kill"), CONSTANT, ids=lambda value: getattr(value, "name", "") or value.__name__)
def test_units_of_the_layer_that_are_constant_go(kind, kill) -> None:
    """A recurrent unit with a bias is none: it moves from step to step."""
    model = stack(kind.shape, kind.make())
    kill(model.get_layer("middle"), (0, 2, 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "middle"]) == [6, 3]


@pytest.mark.parametrize("layer", [layers.Dense, layers.Conv1D])
def test_a_reader_without_a_bias_gets_one_for_what_is_folded(layer) -> None:
    settings = {} if layer is layers.Dense else {"kernel_size": 2}
    model = stack(SEQUENCE, layer(UNITS, use_bias=False, name="middle", **settings))
    constant(model.get_layer("first"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("first")) == 4
    assert smaller.get_layer("middle").use_bias


@pytest.mark.parametrize("layer", [layers.Dense, layers.Conv1D])
def test_a_reader_without_a_bias_gets_none_for_zeros(layer) -> None:
    settings = {} if layer is layers.Dense else {"kernel_size": 2}
    model = stack(SEQUENCE, layer(UNITS, use_bias=False, name="middle", **settings))
    silent(model.get_layer("first"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("first")) == 4
    assert not smaller.get_layer("middle").use_bias


@pytest.mark.parametrize("way", [constant, unread])
def test_grouped_convolution_loses_what_leaves_its_groups_equal(way) -> None:
    """Two of three groups keep two filters of four, the third dies: its filters and what only it reads."""
    model = stack(IMAGE, layers.Conv2D(12, 2, groups=3, name="middle"))
    dead = [*range(4), 4, 5, 8, 9]
    way(model.get_layer("middle" if way is constant else "last"), dead)

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert smaller.count_params() < model.count_params()


@pytest.mark.parametrize("way", [constant, unread])
def test_a_whole_group_of_a_convolution_goes_with_its_inputs(way) -> None:
    model = stack(IMAGE, layers.Conv2D(9, 2, groups=3, name="middle"))
    way(model.get_layer("middle" if way is constant else "last"), [3, 4, 5])

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "middle"]) == [4, 6]
    assert smaller.get_layer("middle").groups == 2


def test_one_filter_of_a_grouped_convolution_stays() -> None:
    model = stack(IMAGE, layers.Conv2D(9, 2, groups=3, name="middle"))
    unread(model.get_layer("last"), [3])

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "middle"]) == [6, 9]


def embedded(**settings: Any) -> keras.Model:
    inputs = keras.Input((4,), dtype="int32")
    vectors = layers.Embedding(9, UNITS, name="embedding", **settings)(inputs)
    return randomized(keras.Model(inputs, layers.Conv1D(3, 2, name="last")(vectors)))


@pytest.mark.parametrize("way", ["unheard", "constant", "zero"])
def test_columns_of_an_embedding_go(way) -> None:
    model = embedded()
    if way == "unheard":
        unread(model.get_layer("last"), (0, 3))
    else:
        {"constant": constant, "zero": silent}[way](model.get_layer("embedding"), (0, 3))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("embedding")) == 4


@pytest.mark.backends("jax", "torch")
@pytest.mark.parametrize("kill", [unread, constant, silent])
def test_channels_may_come_first(kill) -> None:
    first = {"data_format": "channels_first"}
    inputs = keras.Input((2, 6, 6))
    x = layers.Conv2D(UNITS, 2, activation="tanh", name="first", **first)(inputs)
    x = layers.MaxPooling2D(**first)(layers.BatchNormalization(axis=1)(x))
    x = layers.Conv2D(4, 1, name="last", **first)(x)
    model = randomized(keras.Model(inputs, layers.Dense(2)(layers.Flatten(**first)(x))))
    kill(model.get_layer("last" if kill is unread else "first"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("first")) == 4


@pytest.mark.parametrize("way", ["unheard", "constant"])
@pytest.mark.parametrize("equation", ["abc,cd->abd", "abc,cde->abde"])
def test_the_last_axis_of_an_einsum_goes(equation, way) -> None:
    inputs = keras.Input((4, 3))
    shape = (None, UNITS) if equation.endswith("abd") else (None, 2, UNITS)
    bias_axes = "d" if equation.endswith("abd") else "de"
    x = layers.EinsumDense(equation, shape, bias_axes=bias_axes, activation="relu", name="first")(inputs)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    if way == "unheard":
        unread(model.get_layer("last"), (1, 4))
    else:
        constant(model.get_layer("first"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert smaller.count_params() <= model.count_params()


def test_inputs_that_an_einsum_does_not_read_go() -> None:
    model = stack(SEQUENCE, layers.EinsumDense("abc,cd->abd", (None, UNITS), bias_axes="d", name="middle"))
    unread(model.get_layer("middle"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "middle"]) == [4, 6]


@pytest.mark.parametrize("wrapper", [layers.Bidirectional, layers.TimeDistributed])
def test_wrapped_layers_give_the_same_outputs(wrapper) -> None:
    inner = layers.GRU(UNITS, return_sequences=True) if wrapper is layers.Bidirectional else layers.Dense(2 * UNITS)
    inputs = keras.Input((5, 3))
    x = wrapper(inner, name="wrapped")(layers.Conv1D(UNITS, 2, name="first")(inputs))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    unread(model.get_layer("last"), (1, 4, 7, 8))
    constant(model.get_layer("first"), (2, 5))

    assert_same(model, poise.compact(model))
