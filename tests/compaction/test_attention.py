"""Heads of an attention go where nobody reads them, or where all they hand on is a constant."""

import keras
import pytest
from keras import layers

import poise

from .zeroing import assert_same, inputs_of, randomized, widths, zero_slice

UNITS = 6


def attention(heads=4, cross=False, **settings) -> keras.Model:
    sequence, other = keras.Input((5, 3)), keras.Input((4, 3))
    query = layers.Dense(UNITS, name="query")(sequence)
    value = layers.Dense(UNITS, name="value")(other) if cross else query
    x = layers.MultiHeadAttention(heads, 3, name="attention", **settings)(query, value)
    x = layers.Dense(3, name="last")(layers.Add()([x, query]))
    return randomized(keras.Model([sequence, other] if cross else sequence, x))


def heads_of(model: keras.Model) -> int:
    return model.get_layer("attention").get_config()["num_heads"]


@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
@pytest.mark.parametrize("way", ["unheard", "constant", "zero", "without bias"])
def test_a_head_goes(cross, way) -> None:
    model = attention(cross=cross, use_bias=way != "without bias")
    layer = model.get_layer("attention")
    if way == "unheard":
        zero_slice(layer.output_dense.kernel, 0, (0, 2))
    else:
        zero_slice(layer.value_dense.kernel, 1, (0, 2))
    if way == "zero":
        zero_slice(layer.value_dense.bias, 0, (0, 2))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert heads_of(smaller) == 2


def test_a_head_goes_whose_values_are_narrower_than_its_keys() -> None:
    """Keras computes such an attention in steps; dropout keeps it from trying its fused kernel."""
    model = attention(value_dim=2, dropout=0.1)
    zero_slice(model.get_layer("attention").output_dense.kernel, 0, (0, 2))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert heads_of(smaller) == 2


def test_units_that_no_head_reads_go() -> None:
    model = attention(cross=True)
    layer = model.get_layer("attention")
    for dense in (layer.key_dense, layer.value_dense):
        zero_slice(dense.kernel, 0, (1, 4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["query", "value"]) == [6, 4]


def test_causal_attention_with_a_mask_loses_a_head() -> None:
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, UNITS, mask_zero=True)(inputs)
    x = layers.MultiHeadAttention(4, 3, name="attention")(x, x, use_causal_mask=True)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(layers.GlobalAveragePooling1D()(x))))
    zero_slice(model.get_layer("attention").output_dense.kernel, 0, (0,))

    smaller = poise.compact(model)

    assert_same(model, smaller, [1 + inputs_of(model)[0] % 8])
    assert heads_of(smaller) == 3


def test_all_heads_but_one_may_go() -> None:
    model = attention()
    zero_slice(model.get_layer("attention").output_dense.kernel, 0, range(4))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert heads_of(smaller) == 1


def test_a_head_of_zeros_is_removed_only_where_it_is_exact() -> None:
    """Zero values with a bias are a constant that attention hands on, as its weights sum to one."""
    inputs = keras.Input((4, UNITS))
    attended = layers.MultiHeadAttention(3, 2, name="attention")(inputs, inputs)
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(attended)))
    zero_slice(model.get_layer("attention").query_dense.kernel, 1, (0,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert smaller.get_layer("attention").get_config()["num_heads"] == 3
