"""What `poise.compact` promises beside the outputs: a plain model that goes on, and an original that stays."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import poise

from .networks import UNITS, conv_net, dense_net
from .zeroing import (
    array,
    assert_same,
    constant,
    cut,
    inputs_of,
    outputs,
    randomized,
    silent,
    unread,
    widths,
)

# ---------------------------------------------------------------- a plain model


def test_training_continues_from_the_smaller_model() -> None:
    smaller = poise.compact(conv_net())
    before = [np.array(w) for w in smaller.get_weights()]
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 6, 6, 2)).astype("float32"), random.normal(size=(8, 3)).astype("float32")

    smaller.compile(poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse", jit_compile=False)
    history = smaller.fit(x, y, batch_size=4, epochs=1, verbose=0)

    assert np.isfinite(history.history["loss"]).all()
    assert all((w != old).any() for w, old in zip(smaller.get_weights(), before, strict=True))


def test_the_smaller_model_loads_where_poise_is_not_installed(tmp_path) -> None:
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


def test_the_original_stays_as_it_was_and_shares_nothing() -> None:
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


def test_frozen_layers_stay_frozen() -> None:
    model = conv_net()
    model.get_layer("first").trainable = False
    model.get_layer("norm").trainable = False

    smaller = poise.compact(model)

    assert [layer.trainable for layer in smaller.layers] == [layer.trainable for layer in model.layers]
    assert_same(model, smaller)


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_a_model_without_dead_units_comes_back_equal(kind) -> None:
    model = dense_net("first", "second") if kind == "sequential" else conv_net()
    randomized(model)

    smaller = poise.compact(model)

    assert type(smaller) is type(model)
    assert smaller.get_config() == model.get_config()
    for ours, theirs in zip(smaller.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_compacting_twice_changes_nothing_more() -> None:
    once = poise.compact(conv_net())

    twice = poise.compact(once)

    assert twice.count_params() == once.count_params()
    assert_same(once, twice)


# ---------------------------------------------------------------- how far dying spreads


@pytest.mark.parametrize("way", ["unheard", "constant", "zero"])
def test_a_layer_whose_units_are_all_dead_keeps_one(way) -> None:
    model = dense_net("first", "second", "third")
    if way == "unheard":
        unread(model.get_layer("third"), range(UNITS))
    else:
        {"constant": constant, "zero": silent}[way](model.get_layer("second"), range(UNITS))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "last"]) == [1, 1, 3]


def test_a_constant_network_stays_a_network() -> None:
    model = dense_net("first", "second")
    silent(model.get_layer("last"), range(3))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "last"]) == [1, 1, 3]


def test_what_only_the_dead_read_dies_layer_by_layer() -> None:
    model = dense_net("first", "second", "third")
    for name in ("second", "third"):
        cut(model.get_layer(name).kernel, [0, 1], [2, 3, 4, 5])
    unread(model.get_layer("last"), (0, 1))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "third"]) == [4, 4, 4]


def test_what_reads_only_constants_becomes_one_layer_by_layer() -> None:
    model = dense_net("first", "second", "third", activation="sigmoid")
    for name in ("second", "third"):
        cut(model.get_layer(name).kernel, [2, 3, 4, 5], [0, 1])
    constant(model.get_layer("first"), (0, 1))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["first", "second", "third"]) == [4, 4, 4]


def test_weights_within_the_tolerance_count_as_zeros() -> None:
    model = dense_net("first")
    kernel = model.get_layer("last").kernel
    value = array(kernel)
    value[[1, 4]] = [[1e-4, -1e-4, 5e-5]] * 2
    kernel.assign(value)

    exact, rough = poise.compact(model), poise.compact(model, tolerance=1e-4)

    assert widths(exact, ["first"]) == [6]
    assert widths(rough, ["first"]) == [4]
    assert_same(model, rough, relative=1e-3)


# ---------------------------------------------------------------- precision


def test_mixed_precision_stays_and_gives_nearly_the_same() -> None:
    hidden = [layers.Dense(UNITS, activation="relu", name=name, dtype="mixed_float16") for name in ("first", "second")]
    model = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(3, name="last")])
    randomized(model)
    constant(model.get_layer("first"), (1, 4))
    unread(model.get_layer("last"), (0,))

    smaller = poise.compact(model)

    assert_same(model, smaller, relative=5e-3)
    assert [layer.dtype_policy.name for layer in smaller.layers] == ["mixed_float16", "mixed_float16", "float32"]
    assert widths(smaller, ["first", "second"]) == [4, 5]


# ---------------------------------------------------------------- a multiple of units


def residual_net(dead) -> keras.Model:
    """A stem of 10 channels, 10 within the branch, of both the same number dead."""
    inputs = layers.Input((6, 6, 2))
    stem = layers.Conv2D(10, 3, padding="same", activation="relu", name="stem")(inputs)
    inner = layers.Conv2D(10, 3, padding="same", activation="relu", name="inner")(stem)
    outer = layers.Conv2D(10, 3, padding="same", activation="relu", name="outer")(inner)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Add()([stem, outer]))))
    randomized(model)
    for name in ("stem", "inner", "outer"):
        silent(model.get_layer(name), range(dead))
    return model


@pytest.mark.parametrize(("dead", "multiple", "kept"), [(5, 4, 8), (6, 4, 4), (7, 4, 4), (1, 4, 10), (5, 1, 5)])
def test_so_many_dead_units_stay_that_every_layer_makes_a_multiple(dead, multiple, kept) -> None:
    model = residual_net(dead)

    smaller = poise.compact(model, multiple=multiple)

    assert widths(smaller, ["stem", "inner", "outer"]) == [kept] * 3
    assert poise.dead_units(model, multiple=multiple)["dead"].tolist() == [10 - kept] * 3 + [0]
    assert_same(model, smaller)


@pytest.mark.parametrize(
    ("multiple", "error"), [(0, ValueError), (-8, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_a_multiple_is_a_whole_number(multiple, error) -> None:
    with pytest.raises(error, match=f"multiple must be an int >= 1, got {multiple!r}"):
        poise.compact(dense_net(), multiple=multiple)
