"""Full-batch steps after the epochs, until the residual of every lane is small.

A proximal step on noisy gradients never settles on its zeros. On all rows at once it does.
"""

import functools
from typing import Any

import jax

from poise.path.lanes.losses import times
from poise.path.lanes.patience import choose_lanes
from poise.path.lanes.problem import Factors, LaneProblem, LaneState
from poise.path.lanes.step import row_weights, step_lanes


@functools.partial(jax.jit, static_argnums=0)
def settle_segment(
    problem: LaneProblem,
    state: LaneState,
    data: Any,
    rows: jax.Array,
    counted: jax.Array,
    numbers: jax.Array,
    factors: Factors,
    done: jax.Array,
) -> LaneState:
    """Take settling steps; lanes that are done keep their state.

    Args:
        problem, state, data, factors: as for `train_epoch`.
        rows, counted: (replicas, batches, rows) positions of the rows of every batch, and whether they count.
        numbers: (steps,) number of the batch of every step.
        done: (replicas, strengths) whether a lane has settled.
    """
    is_one_batch = rows.shape[1] == 1
    batch: Any = jax.tree.map(lambda a: a[rows[:, 0]], data) if is_one_batch else None

    def step(state: LaneState, number: Any) -> tuple[LaneState, None]:
        positions = rows[:, number]
        x, y, sample_weight = batch if is_one_batch else jax.tree.map(lambda a: a[positions], data)
        weights = times(row_weights(problem, counted[:, number]), sample_weight)
        return step_lanes(problem, problem.settler, state, x, y, weights, factors), None

    after = jax.lax.scan(step, state, numbers)[0]
    return choose_lanes(done, state, after)
