"""Constraints, the fused lasso and SLOPE in `poise.optax.penalized`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax_cases import apply_updates, penalized
from oracles.regression import HOLDS, PENALTIES, SOLVERS, X, Y, solution

import poise
import poise.optax

OPTIMIZERS: dict[str, tuple[Any, float]] = {"sgd": (optax.sgd, 0.1), "adam": (optax.adam, 0.1)}
EVERY = [(name, kind) for name in PENALTIES for kind in OPTIMIZERS if (name, kind) != ("slope", "adam")]
START = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(8, 1)), "float32")}


def loss(params: Any) -> Any:
    return jnp.mean((X @ params["kernel"][:, 0] - Y) ** 2)


def step_of(tx: Any) -> Any:
    """A training step, for JAX's scan; it returns the weights after it."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = apply_updates(params, updates)
        return (params, state), params["kernel"][:, 0]

    return step


def train(tx: Any, steps: int, state: Any = None, params: Any = START) -> tuple[Any, np.ndarray]:
    """Return the last parameters and state, and the weights after every step."""
    run = jax.jit(lambda params, state: jax.lax.scan(step_of(tx), (params, state), None, length=steps))
    carry, history = run(params, tx.init(params) if state is None else state)
    return carry, np.asarray(history)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_every_step_ends_in_the_set_and_training_at_the_solution(name: str, kind: str) -> None:
    make, rate = OPTIMIZERS[kind]
    tx = penalized(make, PENALTIES[name], learning_rate=optax.cosine_decay_schedule(rate, 300))

    _, history = train(tx, 300)

    w = history[-1]
    assert all(HOLDS[name](w) for w in history if name in HOLDS)
    np.testing.assert_allclose(w, solution(name, w), atol=1e-4)
    if name in ("fused-lasso", "slope"):  # exactly as many sizes that differ
        assert len(np.unique(np.abs(w))) == len(np.unique(np.abs(SOLVERS[name]()).round(6))) < 8


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_sparsity_follows_its_schedule_and_continues_with_the_state(kind: str) -> None:
    schedule = poise.PolynomialSparsity(0.75, end_step=8, begin_step=2, initial_sparsity=0.25, frequency=2)
    make, rate = OPTIMIZERS[kind]
    tx = penalized(make, poise.TopK(schedule), learning_rate=rate)
    _, whole = train(tx, 10)

    (params, state), first = train(tx, 4)
    saved = jax.tree.map(np.asarray, state)
    _, second = train(tx, 6, saved, params)

    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=1e-6)
    steps = np.arange(10)
    sparsity = np.where(steps < 8, 0.75 - 0.5 * (1 - (steps - 2) // 2 / 3) ** 3, 0.75) * (steps >= 2)
    assert [int(np.sum(w == 0)) for w in whole] == np.round(8 * sparsity).tolist()


def test_slope_needs_one_step_for_all_weights() -> None:
    with pytest.raises(ValueError, match="Slope"):
        penalized(optax.adam, PENALTIES["slope"], learning_rate=0.1).init(START)
