"""Full-batch steps after the epochs, until the residual of every lane is small.

A proximal step on noisy gradients never settles on its zeros. On all rows at once it does. The learning rate falls from
its initial value to zero along a cosine.
"""

from typing import Any

import jax
import jax.numpy as jnp

from poise.path.lanes.losses import times
from poise.path.lanes.problem import Factors, LaneProblem, LaneState
from poise.path.lanes.step import choose_lanes, row_weights, step_lanes


def settle_segment(
    problem: LaneProblem,
    state: LaneState,
    data: Any,
    rows: jax.Array,
    counted: jax.Array,
    factors: Factors,
    done: jax.Array,
    span: jax.Array,
    rate: jax.Array,
) -> LaneState:
    """Take settling steps; lanes that are done keep their state.

    Args:
        problem, state, data, factors: as for `train_epoch`.
        rows, counted: (replicas, batches, rows) positions of the rows of every batch, and whether they count.
        done: (replicas, strengths) whether a lane has settled.
        span: (3,) number of the first step, of the one after the last step, and of all steps of settling.
        rate: initial learning rate.
    """
    batches = rows.shape[1]
    batch: Any = jax.tree.map(lambda a: a[rows[:, 0]], data) if batches == 1 else None

    def step(number: Any, state: LaneState) -> LaneState:
        at = number % batches
        x, y, sample_weight = batch if batches == 1 else jax.tree.map(lambda a: a[rows[:, at]], data)
        weights = times(row_weights(problem.network, counted[:, at]), sample_weight)
        state = set_rate(problem, state, number / span[2], rate)
        return step_lanes(problem, problem.settler, state, x, y, weights, factors)

    return choose_lanes(done, state, jax.lax.fori_loop(span[0], span[1], step, state))


def settle_batch(
    problem: LaneProblem,
    state: LaneState,
    batch: Any,
    rows: jax.Array,
    counted: jax.Array,
    factors: Factors,
    done: jax.Array,
    share: jax.Array,
    rate: jax.Array,
) -> LaneState:
    """Take a settling step on one batch of a stream, in the replicas that have rows in it.

    Args:
        problem, state, batch, rows, counted, factors: as for `train_batch`.
        done, rate: as for `settle_segment`.
        share: share of the settling steps that are behind.
    """
    x, y, sample_weight = jax.tree.map(lambda a: a[rows], batch)
    weights = times(row_weights(problem.network, counted), sample_weight)
    after = step_lanes(
        problem, problem.settler, set_rate(problem, state, share, rate), x, y, weights, factors
    )  # fmt: skip
    return choose_lanes(done | ~counted.any(axis=1)[:, None], state, after)


def set_rate(problem: LaneProblem, state: LaneState, share: Any, rate: Any) -> LaneState:
    """Return the state with the learning rate after a share of the settling steps, rate · ½(1 + cos(π · share))."""
    inner = [*state.inner]
    old = inner[problem.rate_position]
    inner[problem.rate_position] = jnp.full_like(old, 0.5 * rate * (1.0 + jnp.cos(jnp.pi * share)))
    return LaneState(state.trained, state.fixed, inner)
