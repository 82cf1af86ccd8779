"""The state of a penalized optimizer: strengths, anchors, and the values of the penalties."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from optax_cases import penalized

import poise
import poise.optax

PARAMS = {"a": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0, 0.0])}, "b": {"kernel": jnp.ones((2, 1))}}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


def test_the_state_is_a_tree_of_arrays() -> None:
    tx = penalized(optax.sgd, [poise.L1(0.1), poise.Rule("*/bias", poise.L2(0.2))], learning_rate=0.1)
    state = tx.init(PARAMS)
    assert {name: (float(s), s.dtype, s.shape) for name, s in state.strengths.items()} == {
        "kernels": (pytest.approx(0.1), "float32", ()),
        "*/bias": (pytest.approx(0.2), "float32", ()),
    }
    assert (state.traces, state.starts) == ({}, {})
    shapes = jax.eval_shape(tx.init, PARAMS)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    _, after = jax.jit(tx.update)(ZERO, state, PARAMS)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


@pytest.mark.parametrize(("settings", "shapes"), [({"momentum": 0.9}, [(), ()]), ({}, [])])
def test_traces_are_kept_only_with_momentum(settings: Any, shapes: Any) -> None:
    tx = penalized(optax.sgd, poise.L1(0.1), learning_rate=0.1, **settings)
    assert [trace.shape for trace in tx.init(PARAMS).traces.values()] == shapes
    tx = penalized(optax.rmsprop, poise.L1(0.1), learning_rate=0.1, **settings)
    assert [trace.shape for trace in tx.init(PARAMS).traces.values()] == ([(1, 2), (2, 1)] if shapes else [])


def test_a_strength_can_be_replaced_between_steps() -> None:
    tx = penalized(optax.sgd, poise.L1(1.0), learning_rate=0.1)
    state = tx.init(PARAMS)
    update = jax.jit(tx.update)
    updates, _ = update(ZERO, state, PARAMS)
    np.testing.assert_allclose(updates["b"]["kernel"], -0.1, rtol=1e-6)
    updates, after = update(ZERO, state._replace(strengths={"kernels": 0.5}), PARAMS)
    np.testing.assert_allclose(updates["b"]["kernel"], -0.05, rtol=1e-6)
    assert after.strengths["kernels"].dtype == "float32"


def test_an_anchor_is_the_start_of_the_training() -> None:
    """L2-SP: the anchor stays at the first weights, wherever the weights are."""
    tx = penalized(optax.sgd, poise.Anchored(poise.L2(1.0)), learning_rate=0.25)
    state = tx.init(PARAMS)
    moved = jax.tree.map(lambda w: w + 1.0, PARAMS)
    updates, state = jax.jit(tx.update)(ZERO, state, moved)
    for name in ("a", "b"):
        np.testing.assert_allclose(updates[name]["kernel"], -0.5)
        np.testing.assert_array_equal(state.starts[f"{name}/kernel"], PARAMS[name]["kernel"])
    rules = poise.Anchored(poise.L2(1.0))
    assert float(poise.optax.penalty_values(rules, moved, state)["kernels"]) == pytest.approx(4.0)


def test_penalty_values_are_those_of_the_rules() -> None:
    rules = [poise.L1(0.5), poise.Rule("a/bias", poise.L2(2.0), name="bias")]
    values = jax.jit(lambda params: poise.optax.penalty_values(rules, params))(PARAMS)
    assert {name: float(value) for name, value in values.items()} == {"kernels": 2.5, "bias": 18.0}
    tx = penalized(optax.adam, rules, learning_rate=0.1)
    state = tx.init(PARAMS)
    state = state._replace(strengths={**state.strengths, "bias": jnp.float32(1.0)})
    assert float(poise.optax.penalty_values(rules, PARAMS, state)["bias"]) == 9.0


def test_a_scheduled_strength_is_evaluated_at_the_count() -> None:
    rule = poise.L1(keras.optimizers.schedules.PolynomialDecay(0.0, 2, end_learning_rate=1.0))
    assert float(poise.optax.penalty_values(rule, PARAMS)["kernels"]) == 0.0
    tx = penalized(optax.sgd, rule, learning_rate=0.1)
    _, state = tx.update(ZERO, tx.init(PARAMS), PARAMS)
    assert float(poise.optax.penalty_values(rule, PARAMS, state)["kernels"]) == 2.5


def test_the_learning_rate_may_be_traced() -> None:
    def change(rate: Any) -> Any:
        tx = penalized(optax.sgd, poise.L1(1.0), learning_rate=rate)
        return tx.update(ZERO, tx.init(PARAMS), PARAMS)[0]["b"]["kernel"]

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.jit(jax.vmap(change))(rates)[:, 0, 0], -rates, rtol=1e-6)


def test_extra_arguments_reach_the_inner_optimizer() -> None:
    tx = penalized(optax.polyak_sgd, poise.L2(0.5), max_learning_rate=10.0)
    updates, _ = tx.update(ZERO, tx.init(PARAMS), PARAMS, value=7.0)
    np.testing.assert_allclose(updates["a"]["kernel"], [[-1.0, 2.0]])  # value/‖g‖² = 1, g = w on the kernels
