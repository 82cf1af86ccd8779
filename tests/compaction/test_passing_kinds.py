"""Layers that hand units on, each alone between a layer that makes six units and one that reads them.

Two units are killed in three ways: nobody listens, they are constants, they are zero. Each row of the table says what
stays of the six in each case.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import pytest
from keras import layers

import poise

from .zeroing import assert_same, constant, randomized, reached, silent, unread, width

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike

UNITS = 6
VECTOR, SEQUENCE, IMAGE, VOLUME = (5,), (6, 2), (6, 6, 2), (5, 5, 5, 2)
EITHER = range(4, 7)


class Kept(NamedTuple):
    """How many of the six units stay."""

    unheard: Any = 4
    constant: Any = 4
    zero: Any = 4


GO, STAY = Kept(), Kept(6, 6, 6)
ZEROS_ONLY = Kept(constant=6)


class Row(NamedTuple):
    name: str
    shape: tuple[int, ...]
    middle: Callable[[Any], Any]
    kept: Kept = GO
    killed: tuple[int, ...] = (1, 4)


def row(shape: tuple[int, ...], make: Any, kept: Kept = GO, *, name: str = "", killed=(1, 4), **of_layer: Any) -> Row:
    title = " ".join([make.__name__, *(f"{key}={value}" for key, value in of_layer.items())])
    return Row(name or title, shape, lambda x: make(**of_layer)(x), kept, killed)


def chained(*makes: Callable[[], layers.Layer]) -> Callable[[Any], Any]:
    def middle(x: Any) -> Any:
        for make in makes:
            x = make()(x)
        return x

    return middle


ACTIVATIONS = [
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid mish relu",
    "relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink",
]
WALLS = ["softmax", "log_softmax", "sparsemax"]

NORMALIZATIONS = [
    row(VECTOR, layers.BatchNormalization),
    row(VECTOR, layers.BatchNormalization, scale=False),
    row(VECTOR, layers.BatchNormalization, center=False),
    row(VECTOR, layers.BatchNormalization, scale=False, center=False),
    row(IMAGE, layers.BatchNormalization),
    row(VECTOR, layers.LayerNormalization, STAY),
    row(SEQUENCE, layers.LayerNormalization, STAY, rms_scaling=False),
    row(VECTOR, layers.RMSNormalization, STAY),
    row(VECTOR, layers.UnitNormalization, STAY),
    row(IMAGE, layers.GroupNormalization, Kept(2, 6, 6), groups=3, name="GroupNormalization, in two groups"),
    row(IMAGE, layers.GroupNormalization, Kept(4, EITHER, EITHER), groups=3, killed=(2, 3), name="a whole group"),
    row(IMAGE, layers.GroupNormalization, Kept(4, EITHER, EITHER), groups=6, name="GroupNormalization, one by one"),
]
ELEMENTWISE = [
    row(VECTOR, layers.ReLU),
    row(VECTOR, layers.ReLU, max_value=1.0, negative_slope=0.1, threshold=0.2),
    row(VECTOR, layers.LeakyReLU),
    row(VECTOR, layers.ELU),
    row(VECTOR, layers.PReLU),
    row(IMAGE, layers.PReLU, Kept(constant=EITHER)),
    row(IMAGE, layers.PReLU, shared_axes=[1, 2]),
    row(IMAGE, layers.PReLU, shared_axes=[1, 2, 3]),
    row(VECTOR, layers.Softmax, STAY),
    row(VECTOR, layers.Dropout, rate=0.5),
    row(VECTOR, layers.AlphaDropout, rate=0.5),
    row(SEQUENCE, layers.SpatialDropout1D, rate=0.5),
    row(IMAGE, layers.SpatialDropout2D, rate=0.5),
    row(VOLUME, layers.SpatialDropout3D, rate=0.5),
    row(VECTOR, layers.GaussianNoise, stddev=0.5),
    row(VECTOR, layers.GaussianDropout, rate=0.5),
    row(VECTOR, layers.ActivityRegularization, Kept(unheard=6, constant=6, zero=4), l2=0.1),
    row(VECTOR, layers.Rescaling, scale=0.5, offset=-0.3),
    row(VECTOR, layers.Identity),
]
POOLINGS = [
    row(SEQUENCE, layers.MaxPooling1D),
    row(IMAGE, layers.MaxPooling2D),
    row(IMAGE, layers.MaxPooling2D, pool_size=3, strides=2, padding="same"),
    row(VOLUME, layers.MaxPooling3D),
    row(SEQUENCE, layers.AveragePooling1D, pool_size=2),
    row(IMAGE, layers.AveragePooling2D, pool_size=2),
    row(IMAGE, layers.AveragePooling2D, pool_size=3, strides=2, padding="same"),
    row(VOLUME, layers.AveragePooling3D, pool_size=2),
    row(SEQUENCE, layers.GlobalAveragePooling1D),
    row(IMAGE, layers.GlobalAveragePooling2D),
    row(IMAGE, layers.GlobalAveragePooling2D, keepdims=True),
    row(VOLUME, layers.GlobalAveragePooling3D),
    row(SEQUENCE, layers.GlobalMaxPooling1D, keepdims=True),
    row(IMAGE, layers.GlobalMaxPooling2D),
    row(VOLUME, layers.GlobalMaxPooling3D, keepdims=True),
]
SHAPES = [
    row(VECTOR, layers.Flatten),
    row(SEQUENCE, layers.Flatten),
    row(IMAGE, layers.Flatten),
    row(VECTOR, layers.Reshape, target_shape=(1, 1, UNITS)),
    row(SEQUENCE, layers.Reshape, target_shape=(5 * UNITS,)),
    row(IMAGE, layers.Reshape, target_shape=(25, UNITS)),
    row(IMAGE, layers.Reshape, target_shape=(-1, UNITS)),
    row(VECTOR, layers.Reshape, Kept(range(1, 7), EITHER, EITHER), target_shape=(3, 2)),
    row(IMAGE, layers.Permute, dims=(2, 1, 3)),
    Row("Permute then Flatten", SEQUENCE, chained(lambda: layers.Permute((2, 1)), layers.Flatten)),
    Row("Flatten then Dropout", IMAGE, chained(layers.Flatten, lambda: layers.Dropout(0.5))),
    Row("Flatten then BatchNormalization", IMAGE, chained(layers.Flatten, layers.BatchNormalization)),
    row(VECTOR, layers.RepeatVector, n=3),
    row(SEQUENCE, layers.ZeroPadding1D, ZEROS_ONLY),
    row(IMAGE, layers.ZeroPadding2D, ZEROS_ONLY),
    row(VOLUME, layers.ZeroPadding3D, ZEROS_ONLY),
    row(SEQUENCE, layers.Cropping1D),
    row(IMAGE, layers.Cropping2D),
    row(VOLUME, layers.Cropping3D),
    row(SEQUENCE, layers.UpSampling1D),
    row(IMAGE, layers.UpSampling2D),
    row(IMAGE, layers.UpSampling2D, interpolation="bilinear"),
    row(VOLUME, layers.UpSampling3D),
]
DEPTHWISE = [
    row(SEQUENCE, layers.DepthwiseConv1D, kernel_size=2),
    row(SEQUENCE, layers.DepthwiseConv1D, kernel_size=2, depth_multiplier=2),
    row(SEQUENCE, layers.DepthwiseConv1D, ZEROS_ONLY, kernel_size=3, padding="same"),
    row(IMAGE, layers.DepthwiseConv2D, kernel_size=2),
    row(IMAGE, layers.DepthwiseConv2D, kernel_size=2, use_bias=False),
    row(IMAGE, layers.DepthwiseConv2D, kernel_size=3, strides=2, depth_multiplier=2),
    row(IMAGE, layers.DepthwiseConv2D, ZEROS_ONLY, kernel_size=3, padding="same", activation="relu"),
    row(IMAGE, layers.DepthwiseConv2D, ZEROS_ONLY, kernel_size=3, padding="same", depth_multiplier=2),
]
TABLE = [*NORMALIZATIONS, *ELEMENTWISE, *POOLINGS, *SHAPES, *DEPTHWISE]
MAKERS = {1: layers.Dense, 2: layers.Conv1D, 3: layers.Conv2D, 4: layers.Conv3D}


def layer_of(rank: int, units: int, kernel_size: int, **settings: Any) -> layers.Layer:
    """Dense for vectors, a convolution for what has steps, rows or planes."""
    return MAKERS[rank](units, **({} if rank == 1 else {"kernel_size": kernel_size}), **settings)


def between(shape: tuple[int, ...], middle: Callable[[Any], Any], activation: str = "tanh") -> tuple:
    """A model of `first`, what is tested, and `last`; and the tensors before and after what is tested."""
    inputs = keras.Input(shape)
    made = layer_of(len(shape), UNITS, 2, activation=activation, name="first")(inputs)
    handed_on = middle(made)
    last = layer_of(len(handed_on.shape) - 1, 3, 1, name="last")
    return randomized(keras.Model(inputs, last(handed_on))), made, handed_on


def kill(model: keras.Model, way: str, units: tuple[int, ...], made: Any, handed_on: Any) -> None:
    if way == "unheard":
        positions = reached(made, handed_on, units)
        are_mixed = len(positions) == handed_on.shape[-1] == UNITS
        unread(model.get_layer("last"), units if are_mixed else positions)
    else:
        {"constant": constant, "zero": silent}[way](model.get_layer("first"), units)


def check(shape, middle, way, killed, kept, activation="tanh") -> None:
    model, made, handed_on = between(shape, middle, activation)
    kill(model, way, killed, made, handed_on)

    smaller = poise.compact(model)

    assert_same(model, smaller)
    stays = width(smaller.get_layer("first"))
    assert stays in kept if isinstance(kept, range) else stays == kept


@pytest.mark.parametrize("way", Kept._fields)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_layer_hands_on_only_what_lives(row, way) -> None:
    check(row.shape, row.middle, way, row.killed, getattr(row.kept, way))


@pytest.mark.parametrize("name", " ".join(ACTIVATIONS).split())
def test_an_activation_layer_passes_on_what_it_makes_of_zero(name) -> None:
    check(VECTOR, layers.Activation(name), "zero", (1, 4), 4)


@pytest.mark.parametrize("way", Kept._fields)
@pytest.mark.parametrize("name", WALLS)
def test_units_that_are_normalized_together_stay_whole(name, way) -> None:
    check(VECTOR, layers.Activation(name), way, (1, 4), 6)


@pytest.mark.parametrize("name", " ".join(ACTIVATIONS).split())
def test_constant_units_of_a_layer_with_this_activation_go(name) -> None:
    check(VECTOR, layers.Identity(), "constant", (1, 4), 4, activation=name)


@pytest.mark.parametrize("way", Kept._fields)
@pytest.mark.parametrize("name", WALLS)
def test_units_that_compete_in_their_activation_stay(name, way) -> None:
    check(VECTOR, layers.Identity(), way, (1, 4), 6, activation=name)


@pytest.mark.parametrize("shape", [VECTOR, SEQUENCE, IMAGE], ids=["vector", "sequence", "image"])
@pytest.mark.parametrize("with_beta", [False, True])
def test_a_normalization_with_gamma_zero_kills_its_unit(shape, with_beta) -> None:
    model, *_ = between(shape, layers.BatchNormalization(name="norm"))
    (constant if with_beta else silent)(model.get_layer("norm"), (0, 3, 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("first")) == width(smaller.get_layer("norm")) == 3


def test_half_a_group_of_a_normalization_stays() -> None:
    model, *_ = between(IMAGE, layers.GroupNormalization(groups=3, name="norm"))
    unread(model.get_layer("last"), (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("first")) == UNITS


def test_one_of_two_filters_of_a_depthwise_convolution_stays() -> None:
    model, *_ = between(IMAGE, layers.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise"))
    unread(model.get_layer("last"), (2, 9))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("first")) == UNITS
