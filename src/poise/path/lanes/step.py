"""Training steps of many lanes at once, as functions that `poise.path.lanes.programs` compiles.

Rows are found by index, so that folds copy no data. Where a replica has too few rows for its last batch, some of its
rows are repeated with weight zero. A mean loss is then multiplied by (rows in the batch / rows that count), which makes
it the mean over those that count.
"""

from typing import Any

import jax
import jax.numpy as jnp

from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.lanes.losses import loss_of, times
from poise.path.lanes.problem import Factors, LaneNetwork, LaneProblem, LaneState


def train_epoch(
    problem: LaneProblem, state: LaneState, data: Any, rows: jax.Array, counted: jax.Array, factors: Factors
) -> LaneState:
    """Train on all batches of an epoch.

    Args:
        problem: problem of the lanes.
        state: state before the epoch, whose memory is reused.
        data: (x, y, sample_weight), an argument because a constant would be copied into every compiled program.
        rows: (replicas, steps, batch) positions of the rows of every batch.
        counted: the same shape, whether a row counts.
        factors: factors of the penalties.
    """

    def step(state: LaneState, batch: tuple[jax.Array, jax.Array]) -> tuple[LaneState, None]:
        rows, counted = batch
        x, y, sample_weight = jax.tree.map(lambda a: a[rows], data)
        weights = times(row_weights(problem.network, counted), sample_weight)
        return step_lanes(problem, problem.optimizer, state, x, y, weights, factors), None

    return jax.lax.scan(step, state, (rows.swapaxes(0, 1), counted.swapaxes(0, 1)))[0]


def train_batch(
    problem: LaneProblem, state: LaneState, batch: Any, rows: jax.Array, counted: jax.Array, factors: Factors
) -> LaneState:
    """Train on one batch of a stream; replicas without rows in it keep their state.

    Args:
        problem, state, factors: as for `train_epoch`.
        batch: (x, y, sample_weight) of the batch.
        rows, counted: (replicas, rows) positions in the batch, and whether they count.
    """
    x, y, sample_weight = jax.tree.map(lambda a: a[rows], batch)
    weights = times(row_weights(problem.network, counted), sample_weight)
    after = step_lanes(problem, problem.optimizer, state, x, y, weights, factors)
    return choose_lanes(counted.any(axis=1)[:, None], after, state)


def step_lanes(
    problem: LaneProblem,
    optimizer: PenalizedOptimizer,
    state: LaneState,
    x: Any,
    y: Any,
    weights: Any,
    factors: Factors,
) -> LaneState:
    """Take one optimizer step in every lane.

    Args:
        problem: problem of the lanes.
        optimizer: the optimizer that takes the step.
        state: state of the lanes.
        x, y, weights: batch of every replica, (replicas, rows, ...).
        factors: factors of the penalties.
    """

    def step(state: LaneState, x: Any, y: Any, weights: Any, factors: Factors) -> LaneState:
        trained, fixed, inner = state
        (_, (_, fixed)), gradients = loss_and_gradient(problem.network, trained, fixed, x, y, weights, True)
        with optimizer.use_factors(factors):
            trained, inner = optimizer.stateless_apply(inner, gradients, trained)
        return LaneState(list(trained), fixed, list(inner))

    over_strengths = jax.vmap(step, in_axes=(0, None, None, None, 0))
    return jax.vmap(over_strengths)(state, x, y, weights, factors)


def hold_zeros(problem: LaneProblem, tensors: list[Any], factors: Factors) -> list[Any]:
    """Return tensors of lanes that belong to the trained variables, zero where a factor is infinite.

    Args:
        problem: problem of the lanes.
        tensors: weights or gradients, (replicas, strengths, *shape).
        factors: factors of the penalties.
    """
    return jax.vmap(jax.vmap(lambda tensors, factors: hold_zeros_of_lane(problem, tensors, factors)))(tensors, factors)


def hold_zeros_of_lane(problem: LaneProblem, tensors: list[Any], factors: Factors) -> list[Any]:
    """Do the same as `hold_zeros` for one lane."""
    held, zero = [*tensors], jnp.zeros(())
    for target in problem.optimizer.targets:
        for number, penalty in target.with_factors(factors).penalties:
            if (target.index, number) in factors:
                joined = target.gather(held.__getitem__)
                is_free = penalty.prox(jnp.ones_like(joined), zero, zero) != 0
                for member, tensor in target.split(jnp.where(is_free, joined, 0.0)):
                    held[member] = tensor
    return held


def loss_and_gradient(
    network: LaneNetwork, trained: list[Any], fixed: list[Any], x: Any, y: Any, weights: Any, is_training: bool
) -> Any:
    """Return ((prediction loss, (predictions, new values of the other variables)), gradient) of one lane."""

    def loss_at(trained: list[Any]) -> Any:
        with network.scope(trained, fixed) as scope:
            predictions = network.model(x, training=is_training)
            loss = loss_of(network.model, x, y, predictions, weights, is_training)
        after = [scope.get_current_value(variable) for variable in network.model.non_trainable_variables]
        after = [old if new is None else new for old, new in zip(fixed, after, strict=True)]
        return loss, (predictions, after)

    return jax.value_and_grad(loss_at, has_aux=True)(trained)


def row_weights(network: LaneNetwork, counted: Any) -> Any:
    """Return the weights of the rows of batches, (..., rows): 0 for rows that do not count."""
    return counted * loss_scale(network, counted.shape[-1], counted.sum(-1, keepdims=True))


def loss_scale(network: LaneNetwork, rows: int, counted: Any) -> Any:
    """Return the factor that turns a loss over `rows` into the loss over those `counted` that have weight 1."""
    return rows / jnp.maximum(counted, 1.0) if network.is_mean else jnp.ones(counted.shape, "float32")


def choose_lanes(condition: Any, if_true: Any, if_false: Any) -> Any:
    """Return `if_true` for the lanes where the condition holds, (replicas, strengths), `if_false` for the others."""

    def choose(a: Any, b: Any) -> Any:
        return jnp.where(jnp.reshape(condition, condition.shape + (1,) * (a.ndim - 2)), a, b)

    return jax.tree.map(choose, if_true, if_false)
