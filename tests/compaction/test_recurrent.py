"""Recurrent layers read themselves, keep states, and follow masks."""

import keras
import numpy as np
import pytest
from keras import layers

import poise

from .test_passing_kinds import SEQUENCE, UNITS
from .test_weight_kinds import stack
from .zeroing import (
    assert_same,
    constant,
    cut,
    inputs_of,
    outputs,
    randomized,
    silent,
    unread,
    width,
    widths,
    zero_slice,
)

RECURRENT = [layers.LSTM, layers.GRU, layers.SimpleRNN]
SETTINGS = {
    "backwards": {"go_backwards": True},
    "unrolled": {"unroll": True},
    "with dropout": {"dropout": 0.2, "recurrent_dropout": 0.1},
    "without bias": {"use_bias": False},
}
TOKENS = [np.array([[3, 5, 0, 0], [1, 2, 3, 4], [7, 0, 2, 0]])]
every_layer = pytest.mark.parametrize("layer", RECURRENT, ids=lambda layer: layer.__name__)


@every_layer
def test_a_recurrent_unit_that_only_its_own_layer_reads_stays(layer) -> None:
    model = stack(SEQUENCE, layer(UNITS, name="middle"))
    unread(model.get_layer("last"), (0, 2, 5))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("middle")) == UNITS


@every_layer
def test_recurrent_units_that_read_only_each_other_go_together(layer) -> None:
    model = stack(SEQUENCE, layer(UNITS, name="middle", return_sequences=True))
    middle = model.get_layer("middle")
    unread(model.get_layer("last"), (0, 2, 5))
    recurrent = middle.cell.recurrent_kernel
    cut(recurrent, [0, 2, 5], [column for column in range(recurrent.shape[1]) if column % UNITS not in (0, 2, 5)])

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert width(smaller.get_layer("middle")) == 3


def test_columns_of_a_masking_embedding_go() -> None:
    inputs = keras.Input((4,), dtype="int32")
    vectors = layers.Embedding(9, UNITS, mask_zero=True, name="embedding")(inputs)
    model = randomized(keras.Model(inputs, layers.LSTM(3, name="last")(vectors)))
    unread(model.get_layer("last"), (0, 3))

    smaller = poise.compact(model)

    assert_same(model, smaller, TOKENS)
    assert width(smaller.get_layer("embedding")) == 4


def test_stateful_recurrent_layers_continue_as_before() -> None:
    inputs = keras.Input(batch_shape=(2, 4, 3))
    x = layers.GRU(UNITS, stateful=True, name="first")(inputs)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    silent(model.get_layer("first"), (1, 4))
    (steps,) = inputs_of(model, rows=2)

    smaller = poise.compact(model)

    first, second = ([outputs(m, [steps]) for _ in range(2)] for m in (model, smaller))
    for ours, theirs in zip(second, first, strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)


@every_layer
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_recurrent_reader_of_a_constant_keeps_its_settings(layer, settings) -> None:
    model = stack(SEQUENCE, layer(UNITS, name="middle", **SETTINGS[settings]))
    constant(model.get_layer("first"), (1,))
    unread(model.get_layer("middle"), (0,))
    zero_slice(model.get_layer("middle").cell.recurrent_kernel, 0, (2,))
    unread(model.get_layer("last"), (2,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "middle"]) == [4, 5]
    kept = smaller.get_layer("middle").get_config()
    assert {name: kept[name] for name in SETTINGS[settings] if name != "use_bias"} == {
        name: value for name, value in SETTINGS[settings].items() if name != "use_bias"
    }


@pytest.mark.parametrize("zeros_where_masked", [False, True])
def test_dead_units_under_a_mask_go(zeros_where_masked) -> None:
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, UNITS, mask_zero=True, name="embedding")(inputs)
    x = layers.GRU(UNITS, return_sequences=True, zero_output_for_mask=zeros_where_masked, name="gru")(x)
    model = randomized(keras.Model(inputs, layers.LSTM(3, name="last")(x)))
    constant(model.get_layer("embedding"), (1, 3))
    silent(model.get_layer("gru"), (1, 2))

    smaller = poise.compact(model)

    assert_same(model, smaller, TOKENS)
    assert widths(smaller, ["embedding", "gru"]) == [4, 4]


def test_units_that_make_a_mask_stay_as_they_decide_over_it() -> None:
    """Masking looks at all units: one that is never the masked value keeps a step, even if nobody reads it."""
    inputs = keras.Input((4, 3))
    x = layers.Masking(0.0)(layers.Dense(UNITS, activation="relu", name="first")(inputs))
    model = randomized(keras.Model(inputs, layers.LSTM(3, name="last")(x)))
    silent(model.get_layer("first"), (1,))
    constant(model.get_layer("first"), (0,))
    unread(model.get_layer("last"), (3, 4))

    assert_same(model, poise.compact(model))


def test_states_that_are_handed_on_stay_correct() -> None:
    inputs, others = keras.Input((5, 3)), keras.Input((4, 3))
    _, *states = layers.LSTM(UNITS, return_state=True, name="encoder")(inputs)
    x = layers.Dense(UNITS, name="between")(others)
    x = layers.LSTM(UNITS, return_sequences=True, name="decoder")(x, initial_state=states)
    model = randomized(keras.Model([inputs, others], layers.Dense(2, name="last")(x)))
    silent(model.get_layer("encoder"), (1, 2))
    silent(model.get_layer("decoder"), (1, 3))
    constant(model.get_layer("between"), (0,))
    unread(model.get_layer("last"), (5,))

    assert_same(model, poise.compact(model))
