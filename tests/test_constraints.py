"""Constraints, the fused lasso and SLOPE in training: they end at the solutions of independent solvers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from oracles.lines import linear_model, train, weights
from oracles.regression import PENALTIES, SOLVERS, X, Y, solve_nonnegative
from sklearn.linear_model import LinearRegression

import poise

on_jax = pytest.mark.backends("jax")


SGD, ADAM = keras.optimizers.SGD, keras.optimizers.Adam


@pytest.mark.parametrize("name", ["non-negative", "box", "max-norm", "simplex"])
def test_training_ends_at_the_solution_of_an_independent_solver(name: str) -> None:
    assert_solution(name, ADAM)


@pytest.mark.backends("jax", "tensorflow")  # tests/torch_training has them on PyTorch, in fewer steps
@pytest.mark.parametrize(("name", "kind"), [("fused-lasso", ADAM), ("slope", SGD)])
def test_equal_weights_are_those_of_an_independent_solver(name: str, kind: Any) -> None:
    assert_solution(name, kind)


def assert_solution(name: str, kind: Any) -> None:
    rate = 0.1 if kind is SGD else keras.optimizers.schedules.CosineDecay(0.05, 800)
    model = linear_model(PENALTIES[name], kind(rate))

    train(model, 800)

    np.testing.assert_allclose(weights(model), SOLVERS[name](), atol=2e-4)
    report = poise.forces(model, X, Y)
    assert report["residual"].max() < 2e-3


def test_a_constraint_is_saved(tmp_path: Path) -> None:
    model = linear_model(poise.Box(-0.25, 1.0), ADAM(0.01))
    train(model, 100)
    model.save(tmp_path / "model.keras")

    (rule,) = keras.models.load_model(tmp_path / "model.keras").optimizer.rules

    assert repr(rule.penalty) == "Box(lower=-0.25, upper=1.0)"


def test_the_text_of_an_optimizer_shows_constraints_without_a_strength() -> None:
    rules = [poise.Rule("*/kernel", poise.NonNegative(), name="sign"), poise.Rule("*/bias", poise.L1(0.5), name="bias")]
    optimizer = poise.PenalizedOptimizer("sgd", rules)
    expected = "<PenalizedOptimizer SGD, update='auto', rules={'sign': NonNegative(), 'bias': L1(0.5)}>"
    assert repr(optimizer) == expected


def test_the_first_step_projects_and_the_logs_are_finite() -> None:
    model = linear_model(poise.NonNegative(), SGD(0.0))
    assert (weights(model) < 0).any()
    history = train(model, 100, callbacks=[poise.PenaltyLogger()])
    assert (weights(model) >= 0).all()
    assert history["penalty"] == [0.0]
    assert history["total_loss"] == history["loss"]


def test_accumulated_gradients_and_a_smooth_penalty_on_the_same_variable() -> None:
    rules = [poise.Rule("line/kernel", poise.NonNegative()), poise.Rule("*/kernel", poise.L2(0.1))]
    model = linear_model(rules, SGD(0.1, gradient_accumulation_steps=2))
    train(model, 400)

    wide = np.concatenate([X, np.sqrt(0.1 * len(X)) * np.eye(8)])
    ridge = LinearRegression(positive=True, fit_intercept=False).fit(wide, np.concatenate([Y, np.zeros(8)]))
    np.testing.assert_allclose(weights(model), ridge.coef_, atol=1e-4)


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
@on_jax
def test_other_updates_project_too(update: str) -> None:
    model = linear_model(poise.NonNegative(), ADAM(0.05), update=update)
    train(model, 800)
    np.testing.assert_allclose(weights(model), solve_nonnegative(), atol=2e-3)


@on_jax
def test_anchored_constraints_bound_the_change() -> None:
    for penalty in (poise.Box(-0.25, 0.25), poise.TopK(0.75)):
        model = linear_model(poise.Anchored(penalty), ADAM(0.05))
        start = weights(model)
        train(model, 200)
        change = weights(model) - start
        if isinstance(penalty, poise.Box):
            assert np.abs(change).max() == pytest.approx(0.25, abs=1e-6)
        else:
            assert np.count_nonzero(change) == 2
            assert model.optimizer.strength["kernels"] == 0.75


@on_jax
def test_summary_shows_a_sparsity_and_no_strength_of_a_constraint() -> None:
    sparse, bounded = (linear_model(penalty) for penalty in (poise.TopK(0.75), poise.NonNegative()))
    assert poise.summary(sparse).table["strength"].tolist() == [0.75]
    assert poise.summary(bounded).table["strength"].tolist() == [None]
    assert "NonNegative" in str(poise.summary(bounded))


@on_jax
def test_what_a_constraint_cannot_do_is_refused() -> None:
    model = linear_model(poise.NonNegative(), update="coupled")
    with pytest.raises(
        ValueError, match="NonNegative has no effect with update='coupled', because its gradient is zero"
    ):
        model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"NonNegative\(\) is a constraint, which cannot act as a regularizer"):
        poise.NonNegative()(ops.ones((2, 2)))
    with pytest.raises(ValueError, match=r"NonNegative\(\) is a constraint, which has no strength"):
        linear_model(poise.NonNegative()).optimizer.strength["kernels"] = 2.0
    with pytest.raises(ValueError, match=r"sparsity must be a number from 0 to 1, got 80"):
        linear_model(poise.TopK(0.5)).optimizer.strength["kernels"] = 80
    with pytest.raises(ValueError, match=r"TopK\(sparsity=0.5\) is a constraint, which has no strength to adapt"):
        train(linear_model(poise.TopK(0.5)), 100, callbacks=[poise.TargetSparsity("kernels", 0.5)])


@on_jax
def test_a_path_varies_the_strength_of_a_penalty_next_to_a_constraint() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="relu", name="hidden"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(loss="mse", optimizer=ADAM(0.02))
    training = poise.Training(epochs=10, settle=5)
    rules = [poise.Rule("hidden/kernel", poise.L1(0.1)), poise.Rule("head/kernel", poise.NonNegative())]

    path = poise.fit_path(model, X, Y, rules, strengths=[0.01, 0.1, 10.0], cv=2, training=training, progress=False)

    zeros = path.table["zeros"].tolist()
    assert zeros == sorted(zeros)
    assert zeros[-1] >= 32
    for strength in (0.01, 0.1):
        assert (path.model(strength).get_layer("head").get_weights()[0] >= 0).all()
    constraint_first = [rules[1], rules[0]]
    sparsity_last = [rules[0], poise.Rule("head/kernel", poise.TopK(0.5))]
    for wrong, kind in ((constraint_first, "NonNegative"), (sparsity_last, "TopK")):
        with pytest.raises(ValueError, match=f"has the constraint {kind}.*A path varies the strength"):
            poise.fit_path(model, X, Y, wrong, training=training)
