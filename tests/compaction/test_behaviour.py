"""What `poise.compact` promises beside the outputs: a plain model that goes on, and an original that stays."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import poise

from .zeroing import (
    array,
    assert_same,
    constant,
    cut,
    inputs_of,
    outputs,
    randomised,
    silent,
    unread,
    widths,
    zero_slice,
)

UNITS = 6


def dense_net(*names: str, inputs: int = 5, activation: str = "tanh") -> keras.Model:
    """Dense layers of UNITS units with these names, and `last` with 3."""
    hidden = [layers.Dense(UNITS, activation=activation, name=name) for name in names]
    return randomised(keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(3, name="last")], name="net"))


def conv_net() -> keras.Model:
    """Two convolutions, each with six filters of which two are dead."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(UNITS, 3, padding="same", name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(UNITS, 3, activation="relu", name="second")(layers.MaxPooling2D()(x))
    model = randomised(keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(x)), name="net"))
    silent(model.get_layer("norm"), (1, 4))
    constant(model.get_layer("second"), (0, 2))
    return model


# ---------------------------------------------------------------- a plain model


def test_training_goes_on_from_the_smaller_model():
    smaller = poise.compact(conv_net())
    before = [np.array(w) for w in smaller.get_weights()]
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 6, 6, 2)).astype("float32"), random.normal(size=(8, 3)).astype("float32")

    smaller.compile(poise.Penalized("adam", poise.L2(0.01)), loss="mse", jit_compile=False)
    history = smaller.fit(x, y, batch_size=4, epochs=1, verbose=0)

    assert np.isfinite(history.history["loss"]).all()
    assert all((w != old).any() for w, old in zip(smaller.get_weights(), before, strict=True))


def test_the_smaller_model_loads_where_poise_is_not_installed(tmp_path):
    smaller = poise.compact(conv_net())
    inputs = inputs_of(smaller)
    smaller.save(tmp_path / "smaller.keras")
    np.save(tmp_path / "x.npy", inputs[0])
    program = """
import sys
sys.modules["poise"] = None
import keras
import numpy as np
model = keras.saving.load_model("smaller.keras")
np.save("y.npy", keras.ops.convert_to_numpy(model(np.load("x.npy"))))
"""

    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, cwd=tmp_path, env=os.environ)

    (expected,) = outputs(smaller, inputs)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


def test_the_original_stays_as_it_was_and_shares_nothing():
    model = conv_net()
    model.compile("adam", loss="mse", metrics=["mae"])
    config, optimizer = model.get_config(), model.optimizer
    before = [np.array(w) for w in model.get_weights()]

    smaller = poise.compact(model)
    smaller.set_weights([w + 1.0 for w in smaller.get_weights()])

    assert model.get_config() == config
    assert model.compiled
    assert model.optimizer is optimizer
    assert not smaller.compiled
    assert not {*map(id, smaller._flatten_layers())} & {*map(id, model._flatten_layers())}
    for w, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(w, old)


def test_frozen_layers_stay_frozen():
    model = conv_net()
    model.get_layer("first").trainable = False
    model.get_layer("norm").trainable = False

    smaller = poise.compact(model)

    assert [layer.trainable for layer in smaller.layers] == [layer.trainable for layer in model.layers]
    assert_same(model, smaller)


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_a_model_without_dead_units_comes_back_equal(kind):
    model = dense_net("first", "second") if kind == "sequential" else conv_net()
    randomised(model)

    smaller = poise.compact(model)

    assert type(smaller) is type(model)
    assert smaller.get_config() == model.get_config()
    for ours, theirs in zip(smaller.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_compacting_twice_changes_nothing_more():
    once = poise.compact(conv_net())

    twice = poise.compact(once)

    assert twice.count_params() == once.count_params()
    assert_same(once, twice)


# ---------------------------------------------------------------- how far dying spreads


@pytest.mark.parametrize("way", ["unheard", "constant", "zero"])
def test_a_layer_whose_units_are_all_dead_keeps_one(way):
    model = dense_net("first", "second", "third")
    if way == "unheard":
        unread(model.get_layer("third"), range(UNITS))
    else:
        {"constant": constant, "zero": silent}[way](model.get_layer("second"), range(UNITS))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "last"]) == [1, 1, 3]


def test_a_constant_network_stays_a_network():
    model = dense_net("first", "second")
    silent(model.get_layer("last"), range(3))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "last"]) == [1, 1, 3]


def test_what_only_the_dead_read_dies_layer_by_layer():
    model = dense_net("first", "second", "third")
    for name in ("second", "third"):
        cut(model.get_layer(name).kernel, [0, 1], [2, 3, 4, 5])
    unread(model.get_layer("last"), (0, 1))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "third"]) == [4, 4, 4]


def test_what_reads_only_constants_becomes_one_layer_by_layer():
    model = dense_net("first", "second", "third", activation="sigmoid")
    for name in ("second", "third"):
        cut(model.get_layer(name).kernel, [2, 3, 4, 5], [0, 1])
    constant(model.get_layer("first"), (0, 1))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "third"]) == [4, 4, 4]


def test_weights_within_the_tolerance_count_as_zeros():
    model = dense_net("first")
    kernel = model.get_layer("last").kernel
    value = array(kernel)
    value[[1, 4]] = [[1e-4, -1e-4, 5e-5]] * 2
    kernel.assign(value)

    exact, rough = poise.compact(model), poise.compact(model, tolerance=1e-4)

    assert widths(exact, ["first"]) == [6]
    assert widths(rough, ["first"]) == [4]
    assert_same(model, rough, relative=1e-3)


# ---------------------------------------------------------------- inputs


def test_input_features_stay_unless_asked():
    model = dense_net("first")
    unread(model.get_layer("first"), (0, 3))

    smaller = poise.compact(model)

    assert smaller.input_shape == (None, 5)
    assert_same(model, smaller)


def test_features_that_nobody_reads_are_dropped_when_asked():
    model = dense_net("first")
    unread(model.get_layer("first"), (0, 3))

    smaller, needed = poise.compact(model, drop_inputs=True)

    (x,) = inputs_of(model)
    assert needed.tolist() == [1, 2, 4]
    np.testing.assert_allclose(outputs(smaller, [x[:, needed]])[0], outputs(model, [x])[0], rtol=1e-5, atol=1e-6)


def test_features_that_only_dead_units_read_are_dropped():
    model = dense_net("first")
    cut(model.get_layer("first").kernel, [2], [0, 1, 2, 3])
    unread(model.get_layer("last"), (4, 5))

    smaller, needed = poise.compact(model, drop_inputs=True)

    (x,) = inputs_of(model)
    assert needed.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(outputs(smaller, [x[:, needed]])[0], outputs(model, [x])[0], rtol=1e-5, atol=1e-6)


def test_all_features_are_needed_where_all_are_read():
    smaller, needed = poise.compact(dense_net("first"), drop_inputs=True)

    assert needed.tolist() == [0, 1, 2, 3, 4]
    assert smaller.input_shape == (None, 5)


def test_several_inputs_lose_their_features_apart():
    image, table = keras.Input((4, 4, 3)), keras.Input((5,))
    x = layers.Flatten()(layers.Conv2D(UNITS, 3, name="conv")(image))
    y = layers.BatchNormalization()(table)
    joined = layers.Concatenate()([x, layers.Dense(UNITS, name="table")(y)])
    model = randomised(keras.Model([image, table], layers.Dense(3)(joined)))
    unread(model.get_layer("conv"), (1,))
    unread(model.get_layer("table"), (0, 4))

    smaller, needed = poise.compact(model, drop_inputs=True)

    given = inputs_of(model)
    assert [positions.tolist() for positions in needed] == [[0, 2], [1, 2, 3]]
    chosen = [x[..., positions] for x, positions in zip(given, needed, strict=True)]
    np.testing.assert_allclose(outputs(smaller, chosen)[0], outputs(model, given)[0], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- precision


def test_mixed_precision_stays_and_gives_nearly_the_same():
    hidden = [layers.Dense(UNITS, activation="relu", name=name, dtype="mixed_float16") for name in ("first", "second")]
    model = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(3, name="last")])
    randomised(model)
    constant(model.get_layer("first"), (1, 4))
    unread(model.get_layer("last"), (0,))

    smaller = poise.compact(model)

    assert_same(model, smaller, relative=5e-3)
    assert [layer.dtype_policy.name for layer in smaller.layers] == ["mixed_float16", "mixed_float16", "float32"]
    assert widths(smaller, ["first", "second"]) == [4, 5]


# ---------------------------------------------------------------- tables


def test_dead_units_counts_what_compact_removes():
    model = conv_net()

    table = poise.dead_units(model).set_index("layer")
    smaller = poise.compact(model)

    assert list(poise.dead_units(model).columns) == ["layer", "units", "dead", "why"]
    names = ["first", "second", "last"]
    assert table.loc[names, "units"].tolist() == widths(model, names) == [6, 6, 3]
    assert (table.loc[names, "units"] - table.loc[names, "dead"]).tolist() == widths(smaller, names) == [4, 4, 3]


def test_dead_units_leaves_the_model_as_it_is_and_gives_a_reason_for_every_dead_unit():
    model = conv_net()
    before = [np.array(w) for w in model.get_weights()]

    table = poise.dead_units(model)

    assert all(why for why in table["why"][table["dead"] > 0])
    for w, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(w, old)


def test_dead_units_respects_the_tolerance():
    model = dense_net("first")
    kernel = model.get_layer("last").kernel
    value = array(kernel)
    value[[1, 4]] = 1e-4
    kernel.assign(value)

    found = [int(poise.dead_units(model, tolerance=tolerance)["dead"].sum()) for tolerance in (0.0, 1e-3)]

    assert found == [0, 2]


def test_savings_compares_the_two_models():
    model = conv_net()
    smaller = poise.compact(model)

    table = poise.savings(model, smaller)

    assert {"before", "after"} <= {*table.columns}
    assert (table["after"] <= table["before"]).all()
    row = table[table["before"] == model.count_params()]
    assert row["after"].tolist() == [smaller.count_params()]


# ---------------------------------------------------------------- errors


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="-0.1"):
        poise.compact(dense_net("first"), tolerance=-0.1)


@pytest.mark.parametrize("function", [poise.compact, poise.dead_units])
def test_an_unbuilt_model_is_refused(function):
    with pytest.raises(ValueError, match="built"):
        function(keras.Sequential([layers.Dense(3)], name="unbuilt"))


@pytest.mark.parametrize("function", [poise.compact, poise.dead_units])
def test_a_model_without_a_graph_is_refused(function):
    model = Subclassed()
    model(np.zeros((2, 5), "float32"))

    with pytest.raises((TypeError, ValueError), match="Subclassed"):
        function(model)


@pytest.mark.parametrize("given", [None, "model", layers.Dense(3)])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(TypeError, match="model"):
        poise.compact(given)


def test_quantised_layers_are_refused():
    model = dense_net("first")
    model.get_layer("first").quantize("int8")

    with pytest.raises((TypeError, ValueError), match="(?i)quanti[sz]"):
        poise.compact(model)


def test_layers_with_a_low_rank_update_are_refused():
    model = dense_net("first")
    model.get_layer("first").enable_lora(2)

    with pytest.raises((TypeError, ValueError), match="(?i)lora"):
        poise.compact(model)


def test_a_head_of_zeros_is_removed_only_where_it_is_exact():
    """Zero values with a bias are a constant that attention hands on, as its weights sum to one."""
    inputs = keras.Input((4, UNITS))
    attended = layers.MultiHeadAttention(3, 2, name="attention")(inputs, inputs)
    model = randomised(keras.Model(inputs, layers.Dense(3, name="last")(attended)))
    zero_slice(model.get_layer("attention").query_dense.kernel, 1, (0,))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert smaller.get_layer("attention").get_config()["num_heads"] == 3
