"""Flax NNX and Equinox modules, trained until the inputs that do not matter are removed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from optax_cases import penalized

import poise

X = jnp.asarray(np.random.default_rng(0).normal(size=(256, 10)), "float32")
Y = X[:, :1] - X[:, 1:2]
PENALTY = poise.GroupLasso(0.02, groups="inputs")
ONLY_THE_FIRST_TWO = [False, False] + [True] * 8


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(10, 16, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(nnx.relu(self.hidden(x)))


def test_nnx_module_loses_the_inputs_that_do_not_matter() -> None:
    model = Network(nnx.Rngs(0))
    tx = penalized(optax.adam, poise.Rule("hidden/kernel", PENALTY), learning_rate=0.01)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Network, optimizer: nnx.Optimizer) -> None:
        optimizer.update(model, nnx.grad(lambda model: jnp.mean((model(X) - Y) ** 2))(model))

    for _ in range(500):
        step(model, optimizer)

    kernel = model.hidden.kernel[...]
    np.testing.assert_array_equal(np.all(np.asarray(kernel) == 0, axis=1), ONLY_THE_FIRST_TWO)
    assert float(jnp.mean((model(X) - Y) ** 2)) < 0.05

    state: Any = optimizer.opt_state
    state.strengths["hidden/kernel"][...] = 100.0
    for _ in range(100):
        step(model, optimizer)
    assert not np.asarray(model.hidden.kernel[...]).any()
    assert float(state.strengths["hidden/kernel"][...]) == 100.0
    assert int(state.count[...]) == 600


def test_equinox_module_loses_the_inputs_that_do_not_matter() -> None:
    model = eqx.nn.MLP(10, 1, 16, 1, key=jax.random.key(0))
    tx = penalized(optax.adam, poise.Rule("layers/0/weight", PENALTY), learning_rate=0.01)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> tuple[Any, Any]:
        gradients = eqx.filter_grad(lambda model: jnp.mean((jax.vmap(model)(X) - Y) ** 2))(model)
        updates, state = tx.update(gradients, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    for _ in range(500):
        model, state = step(model, state)

    weight = np.asarray(model.layers[0].weight)
    np.testing.assert_array_equal(np.all(weight == 0, axis=0), ONLY_THE_FIRST_TWO)
    assert float(jnp.mean((jax.vmap(model)(X) - Y) ** 2)) < 0.05


def test_frozen_half_of_an_equinox_module_stays_as_it_is() -> None:
    model = eqx.nn.MLP(10, 1, 16, 1, key=jax.random.key(0))
    is_trained = jax.tree.map(lambda _: False, model)
    is_trained = eqx.tree_at(lambda model: model.layers[1].weight, is_trained, True)
    trained, frozen = eqx.partition(model, is_trained)
    tx = penalized(optax.adam, poise.L1(100.0), learning_rate=0.1)

    gradients = eqx.filter_grad(lambda part: jnp.mean(jax.vmap(eqx.combine(part, frozen))(X) ** 2))(trained)
    updates, _ = tx.update(gradients, tx.init(trained), trained)
    after = eqx.combine(eqx.apply_updates(trained, updates), frozen)

    assert not np.asarray(after.layers[1].weight).any()
    np.testing.assert_array_equal(after.layers[0].weight, model.layers[0].weight)
