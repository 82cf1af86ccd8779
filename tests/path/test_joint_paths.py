"""Paths under a penalty of several variables together: every lane, what is read from them, and the stages."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import optimizers
from oracles.joint import group_lasso, paired_table, pairs_of, two_inputs, unit_labels, units_of
from oracles.models import assert_same_weights, net, table

import poise
from poise.path.training import Training

STRENGTHS = [0.4, 0.6]
SHORT = Training(epochs=6, batch_size=8, settle=0)
NAME = "joint groups"


def lengths(arrays) -> Any:
    """‖w_g‖ of the units of `net()`, the leading axes kept."""
    lead = arrays[0].shape[:-2]
    whole = np.concatenate([a.reshape(*lead, -1) for a in arrays[:3]], axis=-1).astype("float64")
    return np.sqrt(np.stack([(whole[..., unit_labels(6) == unit] ** 2).sum(-1) for unit in range(5)], axis=-1))


def solved(folder) -> Any:
    """Two folds, one adaptive stage, a refit; the lanes of `path.stages[0]` are those of the plain penalty."""
    model = net()
    model.compile(optimizers.Adam(0.05), "mse")
    arguments = {"strengths": STRENGTHS, "cv": 2, "adaptive": 1, "relax": True, "training": SHORT, "checkpoint": folder}
    return poise.fit_path(model, *table(48), units_of(model), progress=False, **arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Any:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="module")
def path(folder) -> Any:
    return solved(folder)


@pytest.mark.backends("jax")
def test_a_lane_is_a_training_with_its_strength(path) -> None:
    from poise.path.data.batches import batches_of
    from poise.path.training import Replica

    x, y = table(48)
    everything = Replica(-1, 0, np.arange(48), np.arange(0))
    for strength in STRENGTHS:
        model = net()
        optimizer = poise.PenalizedOptimizer(optimizers.Adam(0.05), units_of(model, strength), "proximal")
        model.compile(optimizer, "mse")
        for epoch in range(SHORT.epochs):
            rows, _ = batches_of([everything], SHORT.batch_size, epoch)
            for batch in rows[0]:
                model.train_on_batch(x[batch], y[batch])
        assert_same_weights(path.stages[0].weights(strength), model, relative=1e-5)
        assert_same_weights(path.stages[0].model(strength), model, relative=1e-5)


@pytest.mark.backends("jax")
def test_sizes_are_those_of_groups_across_variables(path) -> None:
    lanes = path.stages[0].lanes
    assert list(lanes.sizes) == [NAME]
    own = lanes.sizes[NAME][-1]
    np.testing.assert_allclose(own, lengths([w[0] for w in lanes.weights]), rtol=1e-6)
    result = path.stages[0].table
    assert result["units"].tolist() == (own > 0).sum(-1).tolist()
    zeros = [sum(int((w == 0).sum()) for w in path.stages[0].weights(strength)[:3]) for strength in STRENGTHS]
    assert result["zeros"].tolist() == zeros
    np.testing.assert_allclose(result["zero_share"], np.array(zeros) / 40)
    assert 0 < result["units"].min() < 5
    np.testing.assert_allclose(result["penalty"], np.array(STRENGTHS) * np.sqrt(8) * own.sum(-1), rtol=1e-5)
    assert path.stability.shape == (6, 2)


@pytest.mark.backends("jax")
def test_the_next_stage_weighs_the_groups_by_their_sizes(path) -> None:
    first = path.stages[0]
    chosen = STRENGTHS.index(first.best_strength)
    size = first.lanes.sizes[NAME][-1, chosen]
    assert (size == 0).any()
    (rule,) = path.rules_at(0.25)
    assert (rule.name, rule.penalty.strength) == (NAME, 0.25)
    expected = np.where(size > 0, np.sqrt(8) * 1.03 / (size / size.max() + 0.03), np.inf)
    np.testing.assert_allclose(rule.penalty.factors, expected, rtol=1e-5)
    for fold, before in enumerate(first.lanes.sizes[NAME][:, chosen]):
        assert (path.lanes.sizes[NAME][fold][:, before == 0] == 0).all()
    again = poise.PenalizedOptimizer("adam", path.rules_at(0.25), "proximal")
    again.build(path.model(path.best_strength).trainable_variables)
    assert len(again.targets) == 1


@pytest.mark.backends("jax")
def test_the_refit_keeps_what_was_dropped_out(path) -> None:
    for strength in path.strengths:
        was, refit = lengths(path.weights(strength)), lengths(path.relaxed.weights(strength))
        np.testing.assert_array_equal(refit == 0, was == 0)


@pytest.mark.backends("jax")
def test_a_path_is_saved_and_drawn_and_resumed(path, folder, tmp_path) -> None:
    path.save(tmp_path / "path")
    loaded = poise.RegularizationPath.load(tmp_path / "path")
    assert_same_weights(loaded.weights(0.4), path.weights(0.4), relative=1e-9)
    assert [repr(rule) for rule in loaded.rules_at(0.1)] == [repr(rule) for rule in path.rules_at(0.1)]
    names = [trace.name for trace in path.plot().data]
    assert any(str(name).startswith(NAME) for name in names)

    again = solved(folder)
    np.testing.assert_array_equal(again.lanes.sizes[NAME], path.lanes.sizes[NAME])
    assert again.table["seconds"].tolist() == path.table["seconds"].tolist()


@pytest.mark.backends("jax", "tensorflow")
def test_every_strength_ends_at_the_group_lasso_of_both_designs() -> None:
    """In this process on JAX, in one of its own elsewhere, whose model has other paths."""
    a, b, y = paired_table()
    model = two_inputs(6)
    model.compile(optimizers.Adam(0.1), "mse")
    training = Training(epochs=0, batch_size=None, settle=1500, tolerance=1e-5)
    arguments = {"strengths": [0.1, 0.25], "cv": 2, "training": training, "progress": False}

    path = poise.fit_path(model, {"a": a, "b": b}, y, pairs_of(model), **arguments)

    for strength in (0.1, 0.25):
        expected, constant = group_lasso(a, b, y, strength)
        result = path.model(strength)
        kernels = [keras.ops.convert_to_numpy(result.get_layer(f"head_{name}").kernel)[:, 0] for name in "ab"]
        np.testing.assert_allclose(kernels, expected, atol=1e-3)
        np.testing.assert_array_equal(np.array(kernels) == 0, expected == 0)
        bias = keras.ops.convert_to_numpy(result.get_layer("head_a").bias)
        np.testing.assert_allclose(bias, constant, atol=1e-3)
    assert path.table["relative_residual"].max() < 1e-4
    assert path.table["units"].tolist() == [(group_lasso(a, b, y, s)[0][0] != 0).sum() for s in (0.1, 0.25)]


def tower(name) -> keras.Model:
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, "tanh", name="fc")(inputs)
    return keras.Model(inputs, hidden, name=name)


def test_towers_whose_layers_share_names_have_their_own_sizes() -> None:
    inputs = keras.Input((4,))
    joined = keras.layers.Concatenate()([tower("left")(inputs), tower("right")(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(joined))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    rule = poise.Rule("fc/kernel", poise.GroupLasso(groups="inputs"))
    training = poise.Training(epochs=2, settle=0)
    path = poise.fit_path(
        model, x, x[:, :1], rule, strengths=[0.01, 0.1], cv=2, adaptive=1, training=training, progress=False
    )

    for number, name in enumerate(("fc/kernel (1 of 2)", "fc/kernel (2 of 2)")):
        kernel = path.weights(0.1)[2 * number]
        np.testing.assert_allclose(path.lanes.sizes[name][-1, 1], np.linalg.norm(kernel, axis=1), rtol=1e-5)
    assert path.plot().data
    with pytest.raises(ValueError, match="'fc/kernel' is the path of 2 variables.* Give their layers different names"):
        path.rules_at(0.1)
