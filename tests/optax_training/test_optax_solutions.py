"""The proximal update of every optax optimizer ends at the solutions of scikit-learn and celer."""

from typing import Any

import celer
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax_cases import (
    CASES,
    apply_updates,
    assert_solution,
    half_mean_square,
    linear_start,
    mean_log_loss,
    penalized,
    train,
)
from oracles import models
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, lasso_path

import poise
import poise.optax
from poise.optax.metrics import STEPS

ALPHA = 0.04
"""Of the 10 columns of the diabetes table the Lasso keeps 7."""

every_optimizer = pytest.mark.parametrize("name", CASES)
some_optimizers = pytest.mark.parametrize("name", ["sgd-nesterov", "nadam"])


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    x, y = models.diabetes()
    return x.astype("float64"), y.astype("float64")


def settle(name: str, rules: Any, loss: Any, columns: int = 10) -> Any:
    case = CASES[name]
    return jax.jit(lambda params: train(case.penalized(rules), loss, params, case.steps))(linear_start(columns))


def test_every_optimizer_with_a_step_is_in_the_table() -> None:
    functions = {getattr(case.function, "func", case.function) for case in CASES.values()}
    assert functions == set(STEPS)


@every_optimizer
def test_proximal_l1_is_the_lasso(name: str) -> None:
    """A column of zeros never has a gradient, and its coefficient is 0 in every solution."""
    x, y = diabetes()
    wide = np.insert(x, 5, 0.0, axis=1)
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(wide, y)
    assert 0 < np.sum(lasso.coef_ == 0) < 10

    assert_solution(settle(name, poise.L1(ALPHA), half_mean_square(wide, y), 11), lasso.coef_)


@some_optimizers
def test_proximal_elastic_net_is_the_elastic_net(name: str) -> None:
    x, y = diabetes()
    peer = ElasticNet(0.1, l1_ratio=0.7, tol=1e-12, max_iter=100_000).fit(x, y)
    assert 0 < np.sum(peer.coef_ == 0) < 10
    rules = [poise.L1(0.07), poise.L2(0.015)]  # two rules on one array: L2 joins the gradient

    assert_solution(settle(name, poise.ElasticNet(0.07, 0.015), half_mean_square(x, y)), peer.coef_)
    assert_solution(settle(name, rules, half_mean_square(x, y)), peer.coef_)


@some_optimizers
def test_proximal_group_lasso_is_that_of_celer(name: str) -> None:
    x, y = diabetes()
    groups: Any = [[0, 1], [2, 3, 8], [4, 5, 6, 7], [9]]
    peer = celer.GroupLasso(groups, 0.1, weights=np.sqrt([2.0, 3.0, 4.0, 1.0]), tol=1e-12).fit(np.asfortranarray(x), y)
    dropped = [not peer.coef_[group].any() for group in groups]
    assert any(dropped)
    assert not all(dropped)

    penalty = poise.GroupLasso(0.1, groups=groups, axis=0)
    assert_solution(settle(name, penalty, half_mean_square(x, y)), peer.coef_)


def test_proximal_l1_is_sparse_logistic_regression() -> None:
    x, y = models.breast_cancer()
    strength = 0.05
    peer = LogisticRegression(C=1.0 / (strength * len(x)), l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=100_000)
    peer.fit(x.astype("float64"), y)
    assert 0 < np.sum(peer.coef_ == 0) < 30
    rate = optax.exponential_decay(1.0, 1000, 0.01)
    tx = penalized(optax.adam, poise.L1(strength), learning_rate=rate)

    params = jax.jit(lambda start: train(tx, mean_log_loss(x, y), start, 1000))(linear_start(30))

    assert_solution(params, peer.coef_[0], 1e-4)
    np.testing.assert_allclose(params["bias"], peer.intercept_, atol=1e-3)


def test_lanes_of_strengths_are_the_lasso_path() -> None:
    x, y = diabetes()
    grid: Any = np.geomspace(1.0, 0.01, 12) * np.abs(x.T @ y).max() / len(x)
    alphas, expected, _ = lasso_path(x, y, alphas=grid, tol=1e-12, max_iter=100_000)
    case, start, loss = CASES["adam"], linear_start(10), half_mean_square(x, y)
    tx = case.penalized(poise.L1())

    def fit(strength: Any) -> Any:
        state = tx.init(start)._replace(strengths={"kernels": strength})
        return train(tx, loss, start, case.steps, state)

    lanes = jax.jit(jax.vmap(fit))(jnp.asarray(alphas, "float32"))

    assert np.count_nonzero(expected, axis=0).max() > 6
    for lane in range(1, len(alphas)):  # at the first one, λ_max, the largest coefficient may be rounded either way
        assert_solution({"kernel": lanes["kernel"][lane]}, expected[:, lane])


def test_accumulated_gradients_settle_on_the_lasso() -> None:
    x, y = diabetes()
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(x, y)
    case = CASES["sgd-momentum"]
    tx = optax.MultiSteps(case.penalized(poise.L1(ALPHA)), every_k_schedule=2)
    halves = [half_mean_square(x[half], y[half]) for half in (slice(0, 221), slice(221, 442))]

    def step(carry: Any, number: Any) -> tuple[Any, None]:
        params, state = carry
        gradients = jax.lax.cond(number % 2 == 0, *(jax.grad(half) for half in halves), params)
        updates, state = tx.update(gradients, state, params)
        return (apply_updates(params, updates), state), None

    @jax.jit
    def fit(start: Any) -> Any:
        return jax.lax.scan(step, (start, tx.init(start)), jnp.arange(2 * case.steps))[0][0]

    assert_solution(fit(linear_start(10)), lasso.coef_)


def test_coupled_l1_gives_no_zeros() -> None:
    x, y = diabetes()
    case = CASES["adam"]
    params = jax.jit(lambda p: train(case.penalized(poise.L1(ALPHA), "coupled"), half_mean_square(x, y), p, 200))(
        linear_start(10)
    )
    assert np.all(np.asarray(params["kernel"]) != 0)
