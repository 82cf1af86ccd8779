"""Quasi-Newton steps after the epochs: the objective of a lane, as a function of its flat weights, and the loop."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poise.optimizer.targets import Target, measure, penalty_gradient
from poise.path.lanes.losses import times
from poise.path.lanes.problem import Factors, LaneProblem, LaneState
from poise.path.lanes.quasi_newton import Objective, Search, start_search, take_step
from poise.path.lanes.step import loss_and_gradient, row_weights

Shapes = Sequence[tuple[int, ...]]


def start_lanes(trained: list[Any]) -> Search:
    """Return the state of lanes before their first step, in NumPy arrays.

    Args:
        trained: weights of the lanes, (replicas, strengths, *shape) each.
    """
    w = np.concatenate([np.asarray(a).reshape(*a.shape[:2], -1) for a in trained], axis=2)
    lane = start_search(jnp.zeros(w.shape[2], w.dtype))
    search = jax.tree.map(lambda a: np.broadcast_to(np.asarray(a), (*w.shape[:2], *a.shape)), lane)
    return Search(w, *search[1:])


def settle_quasi_newton(
    problem: LaneProblem,
    state: LaneState,
    data: Any,
    rows: jax.Array,
    counted: jax.Array,
    strengths: jax.Array,
    factors: Factors,
    span: jax.Array,
    tolerance: jax.Array,
) -> LaneState:
    """Take quasi-Newton steps until all lanes have settled; lanes that have settled keep their weights.

    Args:
        problem: problem of the lanes.
        state: state of the lanes, whose memory is reused; `inner` is a list with the result of `start_lanes`.
        data: (x, y, sample_weight).
        rows, counted: (replicas, rows) positions of the training rows, and whether they count.
        strengths: (strengths, rules).
        factors: factors of the penalties.
        span: (2,) number of the first step and of the one after the last step.
        tolerance: residual, relative to the prediction gradient, at which a lane has settled.
    """
    x, y, sample_weight = jax.tree.map(lambda a: a[rows], data)
    weights = times(row_weights(problem.network, counted), sample_weight)
    shapes = [a.shape[2:] for a in state.trained]

    def steps(carry: tuple[Search, Any]) -> tuple[Search, Any]:
        search, number = carry

        def step(search: Search, fixed: Any, strengths: Any, factors: Factors, *batch: Any) -> Search:
            objective = lane_objective(problem, fixed, shapes, strengths, factors, batch)
            return take_step(objective, search, number, tolerance)

        over_strengths = jax.vmap(step, in_axes=(0, 0, 0, 0, None, None, None))
        over_replicas = jax.vmap(over_strengths, in_axes=(0, 0, None, 0, 0, 0, 0))
        return over_replicas(search, state.fixed, strengths, factors, x, y, weights), number + 1

    def is_active(carry: tuple[Search, Any]) -> Any:
        search, number = carry
        return (number < span[1]) & ~search.is_done.all()

    search, _ = jax.lax.while_loop(is_active, steps, (state.inner[0], span[0]))
    trained = jax.vmap(jax.vmap(lambda w: unflatten(w, shapes)))(search.w)
    return LaneState(trained, state.fixed, [search])


def lane_objective(
    problem: LaneProblem, fixed: list[Any], shapes: Shapes, strengths: Any, factors: Factors, batch: Sequence[Any]
) -> Objective:
    """Return the objective of a lane: its prediction loss on all training rows plus its penalties.

    Penalties that the optimizer applies by their gradient belong to the smooth part.

    Args:
        problem: problem of the lanes.
        fixed: values of the other variables of the model.
        shapes: shapes of the trained variables.
        strengths: (rules,).
        factors: factors of the penalties of the lane.
        batch: (x, y, weights) of all training rows.
    """
    x, y, weights = batch
    targets = [target.with_factors(factors) for target in problem.optimizer.targets]
    is_free = np.concatenate(
        [np.full(math.prod(shape), not any(n in t.members for t in targets)) for n, shape in enumerate(shapes)]
    )

    def total(w: Any, value_of: Callable[[Target, Any], list[Any]]) -> Any:
        arrays = unflatten(w, shapes)
        values = [value for target in targets for value in value_of(target, target.gather(arrays.__getitem__))]
        return sum(values, jnp.zeros((), w.dtype))

    def change(w: Any, change_target: Callable[[Target, Any], Any], others: float) -> Any:
        """Return w with every target changed, and the weights in no target times `others`."""
        arrays = unflatten(w, shapes)
        changed = [others * array for array in arrays]
        for target in targets:
            for number, array in target.split(change_target(target, target.gather(arrays.__getitem__))):
                changed[number] = array
        return flatten(changed)

    def coupled_value(w: Any) -> Any:
        return total(w, lambda t, v: [penalty.value(v, strengths[n]) for n, penalty in t.coupled])

    def coupled_gradient(w: Any) -> Any:
        return change(w, lambda t, v: penalty_gradient(t.coupled, v, strengths) if t.coupled else 0.0 * v, 0.0)

    def smooth(w: Any) -> tuple[Any, Any]:
        (loss, _), gradients = loss_and_gradient(problem.network, unflatten(w, shapes), fixed, x, y, weights, True)
        return loss + coupled_value(w), flatten(gradients) + coupled_gradient(w)

    def penalty(w: Any) -> Any:
        return total(w, lambda t, v: [penalty.value(v, strengths[n]) for n, penalty in t.proximal])

    def force(w: Any) -> Any:
        return change(w, lambda t, v: penalty_gradient(t.proximal, v, strengths) if t.proximal else 0.0 * v, 0.0)

    def prox(w: Any, step: Any) -> Any:
        def shrink(target: Target, v: Any) -> Any:
            for number, penalty in target.proximal:
                v = penalty.prox(v, step, strengths[number])
            return v

        return change(w, shrink, 1.0)

    def residual(w: Any, gradient: Any) -> Any:
        arrays, gradients = unflatten(w, shapes), unflatten(gradient - coupled_gradient(w), shapes)
        squares = [
            measure(target, target.gather(arrays.__getitem__), target.gather(gradients.__getitem__), strengths)
            for target in targets
        ]
        sums = sum(squares, jnp.zeros(4))
        return jnp.sqrt(sums[3] / jnp.maximum(sums[0], jnp.finfo(sums.dtype).tiny))

    return Objective(smooth, penalty, force, prox, residual, jnp.asarray(is_free))


def flatten(arrays: Sequence[Any]) -> Any:
    """Return the entries of all arrays of a lane as one vector."""
    return jnp.concatenate([array.reshape(-1) for array in arrays])


def unflatten(w: Any, shapes: Shapes) -> list[Any]:
    """Return the arrays of which `flatten` made a vector."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(jnp.split(w, ends[:-1]), shapes, strict=True)]
