"""Magnitude pruning and N:M sparsity in training: what is kept, schedules of the sparsity, and saved models."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from oracles.lines import linear_model, train, weights
from oracles.regression import X, solve_on

import poise

SGD, ADAM = keras.optimizers.SGD, keras.optimizers.Adam


@pytest.mark.parametrize("kind", [SGD, ADAM])
def test_topk_trains_what_it_keeps_to_the_least_squares_of_its_columns(kind: Any) -> None:
    model = linear_model(poise.TopK(0.5), kind(0.05))

    train(model, 1000)

    w = weights(model)
    kept = np.flatnonzero(w)
    assert len(kept) == 4
    np.testing.assert_allclose(w, solve_on(kept), atol=1e-3)


def test_sparsity_follows_its_schedule_and_continues_after_loading(tmp_path: Path) -> None:
    schedule = poise.PolynomialSparsity(0.75, end_step=300, begin_step=100, initial_sparsity=0.25, frequency=50)
    model = linear_model(poise.TopK(schedule), ADAM(0.01))
    zeros = []
    for _ in range(2):
        train(model, 100)
        zeros.append(np.sum(weights(model) == 0))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.optimizer.rules[0].penalty.strength.get_config() == schedule.get_config()
    assert restored.optimizer.strength["kernels"] == pytest.approx(0.25 * 0.5**3 * -1 + 0.75 - 0.25 * 0.5**3)
    for _ in range(2):
        train(restored, 100)
        zeros.append(np.sum(weights(restored) == 0))

    # Step 99 is before the schedule; steps 199 and 299 have the sparsity of steps 150 and 250.
    expected = [0.0, *(0.75 - 0.5 * (1 - share) ** 3 for share in (0.25, 0.75)), 0.75]
    assert zeros == [round(8 * sparsity) for sparsity in expected]


def test_polynomial_sparsity_is_the_formula_of_zhu_and_gupta() -> None:
    schedule = poise.PolynomialSparsity(0.9, end_step=110, begin_step=10, initial_sparsity=0.5, frequency=20)
    for step in range(130):
        share = min(max((step - 10) // 20 * 20 / 100, 0.0), 1.0)
        formula = 0.9 + (0.5 - 0.9) * (1.0 - share) ** 3
        expected = 0.0 if step < 10 else 0.9 if step >= 110 else formula
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)


def test_a_sparsity_set_by_hand_is_saved(tmp_path: Path) -> None:
    model = linear_model(poise.TopK(0.25), ADAM(0.01))
    model.optimizer.strength["kernels"] = 0.5
    train(model, 100)
    assert np.sum(weights(model) == 0) == 4
    model.save(tmp_path / "model.keras")

    restored = keras.models.load_model(tmp_path / "model.keras")

    assert restored.optimizer.strength["kernels"] == 0.5
    assert restored.optimizer.get_config()["rules"][0]["config"]["penalty"]["config"]["sparsity"] == 0.5


def test_blocks_of_four_inputs_keep_two_weights() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 8)), keras.layers.Conv1D(4, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    rules = [poise.Rule(["conv1d*/kernel", "dense*/kernel"], poise.NofM())]
    model.compile(poise.PenalizedOptimizer("adam", rules), loss="mse")
    x = np.random.default_rng(0).normal(size=(16, 4, 8))

    model.fit(x, x[:, 0, 0], epochs=2, verbose=0)

    conv, _, dense, _ = model.get_weights()
    assert (np.count_nonzero(np.moveaxis(conv, 1, -1).reshape(-1, 4), axis=-1) == 2).all()
    assert (np.count_nonzero(dense.reshape(-1, 4), axis=-1) == 2).all()


def test_whole_units_are_pruned_and_compacted() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation="relu", name="hidden"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    rules = [
        poise.Rule("hidden/kernel", poise.TopK(0.75, groups="outputs")),
        poise.Rule("hidden/bias", poise.Box(upper=0.0)),
    ]
    model.compile(poise.PenalizedOptimizer("adam", rules), loss="mse")
    train(model, 100)

    small = poise.compact(model)

    assert small.get_layer("hidden").units == 2
    np.testing.assert_allclose(small.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5)
