"""The recipes of a study: the same start, the same batches, and numbers that add up."""

import doctest
import importlib

import keras
import numpy as np
import pandas as pd
import pytest

import poise
from poise.studies import DataError, Recipe, read, split, study
from poise.studies.run import row_losses

FAST = {"epochs": 2, "hidden": (8,)}


@pytest.fixture(scope="module")
def small():
    """Wine with every kind of penalty, a few epochs."""
    return study("wine", recipes=["l2", "l1=0.05", "elasticnet", "group=0.05"], **FAST)


def initial_weights(data, recipes):
    """What each recipe's network holds before its first batch."""
    seen = []

    class Watch(poise.LossSplit):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)
            seen.append(self.model.get_weights())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poise.studies.run.LossSplit", Watch)
        study(data, recipes=recipes, **FAST)
    return seen


def test_every_recipe_starts_at_the_same_weights():
    first, *others = initial_weights("wine", ["l2", "l1"])

    assert len(others) == 2
    for weights in others:
        for left, right in zip(first, weights, strict=True):
            np.testing.assert_array_equal(left, right)


def test_every_recipe_sees_the_same_batches_in_the_same_order():
    found = study("wine", recipes=["l2=0", "l1=0"], **FAST)

    base, *others = (outcome.history[["loss", "val_loss"]] for outcome in found.outcomes)
    for history in others:
        pd.testing.assert_frame_equal(history, base, rtol=1e-6)
    assert found.best.recipe.name == "none"  # of equals, the first


def test_the_same_seed_gives_the_same_numbers():
    first, again, other = (study("diabetes", recipes=["l1"], seed=seed, **FAST) for seed in (5, 5, 6))

    pd.testing.assert_frame_equal(first.table, again.table, check_exact=True)
    pd.testing.assert_frame_equal(first.outcomes[1].forces, again.outcomes[1].forces, check_exact=True)
    assert not np.allclose(first.table["val_loss"], other.table["val_loss"])


def test_the_table_has_one_row_a_recipe(small):
    assert list(small.table.index) == ["No penalty", "L2 0.001", "L1 0.05", "Elastic net 0.0005", "Group lasso 0.05"]
    np.testing.assert_allclose(small.table["total"], small.table["loss"] + small.table["penalty"])
    np.testing.assert_allclose(small.table["gap"], small.table["val_loss"] - small.table["loss"])
    assert small.table["penalty"].iloc[0] == 0.0
    assert (small.table["penalty"].iloc[1:] > 0.0).all()


def test_losses_and_penalty_are_those_of_the_final_weights(small):
    rows, outcome = small.rows, small.outcomes[1]

    trained = outcome.model.evaluate(rows.x_train, rows.y_train, verbose=0)
    kernels = [weights for weights in outcome.model.get_weights() if weights.ndim == 2]
    np.testing.assert_allclose(outcome.row.loss, trained, rtol=1e-5)
    np.testing.assert_allclose(outcome.row.penalty, 0.001 * sum((w**2).sum() for w in kernels), rtol=1e-5)
    np.testing.assert_allclose(outcome.history["val_loss"].iloc[-1], outcome.row.val_loss, rtol=1e-5)


def test_histories_hold_the_losses_apart_for_every_epoch(small):
    for outcome in small.outcomes:
        assert list(outcome.history.index) == [1, 2]
        history = outcome.history
        np.testing.assert_allclose(history["total_loss"], history["loss"] + history["penalty"], rtol=1e-5)


def test_forces_are_kept_per_epoch_and_layer(small):
    for outcome in small.outcomes:
        assert len(outcome.forces) == 2 * 2
        assert (outcome.forces["prediction"] > 0.0).all()
        assert len(outcome.balance) == 2
    assert (small.baseline.forces["penalty"] == 0.0).all()
    assert (small.outcomes[1].forces["penalty"] > 0.0).all()


def test_zeros_are_counted_and_dropped_columns_named():
    found = study("wine", recipes=["group=0.3"], hidden=(4,), epochs=12, learning_rate=0.02)

    group = found.outcomes[1]
    kernel = group.model.get_layer("hidden_1").get_weights()[0]
    dead = [name for name, row in zip(found.rows.table.features.columns, kernel, strict=True) if not row.any()]
    assert group.dropped == tuple(dead)
    assert dead
    assert group.row.zeros == sum(int((weights == 0.0).sum()) for weights in group.weights.values())
    assert found.baseline.row.zeros == 0


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "wine"])
def test_row_losses_are_those_of_keras(name):
    rows = split(read(name))
    losses = {
        "regression": keras.losses.MeanSquaredError(),
        "binary": keras.losses.BinaryCrossentropy(from_logits=True),
        "multiclass": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    units = max(1, len(rows.table.classes) - (rows.table.task == "binary"))
    outputs = np.random.default_rng(0).normal(size=(len(rows.x_train), units)).astype("float32")

    ours = row_losses(rows.table.task, rows.y_train, outputs)

    assert ours.shape == (len(rows.x_train),)
    np.testing.assert_allclose(ours.mean(), losses[rows.table.task](rows.y_train, outputs), rtol=1e-5)


def test_the_gain_is_paired_over_rows(small):
    outcome = small.outcomes[1]

    gain, error = small.gain(outcome)

    np.testing.assert_allclose(gain, small.baseline.row.val_loss - outcome.row.val_loss, rtol=1e-9)
    assert error > 0.0
    assert small.gain(small.baseline) == (0.0, 0.0)


def test_the_best_recipe_has_the_lowest_validation_loss(small):
    assert small.best.recipe.title == small.table["val_loss"].idxmin()


def test_a_linear_model_of_a_frame():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(50, 3)), columns=["a", "b", "c"])

    found = study(frame, target="c", recipes=[], hidden=(), epochs=1)

    assert found.rows.table.task == "regression"
    assert {name: kernel.shape for name, kernel in found.baseline.weights.items()} == {"output": (2, 1)}


def test_a_deeper_network():
    found = study("diabetes", recipes=[], hidden=(6, 5), epochs=1)

    assert [kernel.shape for kernel in found.baseline.weights.values()] == [(10, 6), (6, 5), (5, 1)]


def test_each_recipe_is_trained_once_and_reports_after_every_epoch():
    calls = []

    study("wine", recipes=["l1", "none", "l1=0.0005"], progress=lambda *call: calls.append(call), **FAST)

    assert calls == [(title, epoch, 2) for title in ("No penalty", "L1 0.0005") for epoch in (1, 2)]


def test_it_prints_as_a_table(small):
    text = str(small)

    assert text.splitlines()[0].strip() == "wine: multiclass"
    assert "prediction loss, validation" in text
    assert "exact zeros" in text
    assert "<table" in small._repr_html_()


def test_strengths_follow_the_task_unless_given():
    assert Recipe.parse("l2", "regression").strength > Recipe.parse("l2", "multiclass").strength
    assert Recipe.parse("l2=0.5", "regression") == Recipe.parse("l2=.5", "binary")


def test_no_penalty_has_no_strength():
    with pytest.raises(DataError, match="asks for no penalty with a strength"):
        study("wine", recipes=["none=0.1"])


def test_a_training_that_diverges_is_refused():
    with pytest.raises(DataError, match=r"The training of 'No penalty' diverged.* Lower learning_rate"):
        study("diabetes", learning_rate=1e30, **FAST)


@pytest.mark.parametrize("module", ["data", "run"])
def test_examples_in_docstrings_print_what_they_say(module):
    found = doctest.testmod(importlib.import_module(f"poise.studies.{module}"))

    assert found.attempted
    assert found.failed == 0
