"""The tables of what is dead and what it saves, and what is refused with a reason."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import poise

from .networks import conv_net, dense_net
from .zeroing import array, widths

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike


def test_dead_units_counts_what_compact_removes() -> None:
    model = conv_net()

    table = poise.dead_units(model).set_index("layer")
    smaller = poise.compact(model)

    assert list(poise.dead_units(model).columns) == ["layer", "units", "dead", "why"]
    names = ["first", "second", "last"]
    assert table.loc[names, "units"].tolist() == widths(model, names) == [6, 6, 3]
    assert (table.loc[names, "units"] - table.loc[names, "dead"]).tolist() == widths(smaller, names) == [4, 4, 3]


def test_dead_units_leaves_the_model_as_it_is_and_gives_a_reason_for_every_dead_unit() -> None:
    model = conv_net()
    before = [np.array(w) for w in model.get_weights()]

    table = poise.dead_units(model)

    assert all(why for why in table["why"][table["dead"] > 0])
    for w, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(w, old)


def test_dead_units_respects_the_tolerance() -> None:
    model = dense_net("first")
    kernel = model.get_layer("last").kernel
    value = array(kernel)
    value[[1, 4]] = 1e-4
    kernel.assign(value)

    result = [int(poise.dead_units(model, tolerance=tolerance)["dead"].sum()) for tolerance in (0.0, 1e-3)]

    assert result == [0, 2]


def test_savings_compares_the_two_models() -> None:
    model = conv_net()
    smaller = poise.compact(model)

    table = poise.compare_models(model, smaller)

    assert {"before", "after"} <= {*table.columns}
    assert (table["after"] <= table["before"]).all()
    row = table[table["before"] == model.count_params()]
    assert row["after"].tolist() == [smaller.count_params()]


# ---------------------------------------------------------------- errors


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs) -> Any:
        return self.dense(inputs)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="-0.1"):
        poise.compact(dense_net("first"), tolerance=-0.1)


@pytest.mark.parametrize("function", [poise.compact, poise.dead_units])
def test_an_unbuilt_model_is_refused(function) -> None:
    with pytest.raises(ValueError, match="built"):
        function(keras.Sequential([layers.Dense(3)], name="unbuilt"))


@pytest.mark.parametrize("function", [poise.compact, poise.dead_units])
def test_a_model_without_a_graph_is_refused(function) -> None:
    model = Subclassed()
    model(np.zeros((2, 5), "float32"))

    with pytest.raises((TypeError, ValueError), match="Subclassed"):
        function(model)


@pytest.mark.parametrize("arguments", [None, "model", layers.Dense(3)])
def test_other_objects_than_models_are_refused(arguments) -> None:
    with pytest.raises(TypeError, match="model"):
        poise.compact(arguments)


def test_quantized_layers_are_refused() -> None:
    model = dense_net("first")
    model.get_layer("first").quantize("int8")

    message = r"The layer 'first' is quantized \(int8\), and quantized weights cannot be cut\. Compact the model before you quantize it\."
    with pytest.raises(ValueError, match=f"^{message}$"):
        poise.compact(model)


def test_layers_with_a_low_rank_update_are_refused() -> None:
    model = dense_net("first")
    model.get_layer("first").enable_lora(2)

    with pytest.raises((TypeError, ValueError), match="(?i)lora"):
        poise.compact(model)
