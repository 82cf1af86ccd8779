"""The first state of lanes, and where it lies."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.dropout import find_lane_dropouts
from poise.path.lanes.problem import LaneProblem, LaneState, Task


def initial_state(
    problem: LaneProblem,
    optimizer: PenalizedOptimizer,
    starts: Sequence[np.ndarray],
    anchors: Sequence[np.ndarray],
    task: Task,
) -> LaneState:
    """Return the state before the first step, in NumPy arrays.

    Args:
        problem: problem of the lanes.
        optimizer: `problem.optimizer` or `problem.settler`.
        starts: first values of the trained variables, (replicas, *shape) each.
        anchors: values at which `Anchored` penalties start, likewise.
        task: the lanes.
    """
    shape = task.shape
    trained = [np.broadcast_to(np.asarray(w)[:, None], (*shape, *w.shape[1:])) for w in starts]
    fixed, rates = [], {id(layer.rate) for layer in find_lane_dropouts(problem.network.model)}
    for variable in problem.network.model.non_trainable_variables:
        value = np.broadcast_to(np.asarray(variable.value), (*shape, *variable.shape))
        if variable.name.endswith("seed_generator_state"):
            numbers = task.lane_numbers
            value = value + np.stack([numbers, np.zeros_like(numbers)], axis=-1).astype(value.dtype)
        if id(variable) in rates and task.rates is not None:
            value = np.broadcast_to(task.rates.astype(value.dtype), shape)
        fixed.append(value)
    per_lane: dict[int, Any] = {}
    for number, variable in optimizer.strength.variables.items():
        per_lane[id(variable)] = np.asarray(task.strengths[:, number], variable.dtype)
    for target in optimizer.targets:
        for _, variable in target.anchors:
            per_lane[id(variable)] = np.asarray(anchors[target.index])[:, None]
    first = [per_lane.get(id(variable), np.asarray(variable.value)) for variable in optimizer.variables]
    inner = [np.broadcast_to(w, (*shape, *v.shape)) for v, w in zip(optimizer.variables, first, strict=True)]
    return LaneState(trained, fixed, inner)


def place_state(state: Any) -> Any:
    """Put values of lanes on the local devices, their strengths divided among these if their number divides evenly.

    Args:
        state: arrays (replicas, strengths, ...).
    """
    devices = jax.local_devices()
    leaves = jax.tree.leaves(state)
    if len(devices) == 1 or not leaves or leaves[0].shape[1] % len(devices):
        return jax.device_put(jax.tree.map(np.array, state))
    mesh = jax.sharding.Mesh(np.array(devices), ("lanes",))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "lanes")))


def stack_starts(starts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Stack the initial values of all replicas: one array (replicas, *shape) per variable."""
    return [np.stack(values) for values in zip(*starts, strict=True)]


def model_weights(problem: LaneProblem, state: LaneState) -> list[np.ndarray]:
    """Return the values of `model.weights`, (replicas, strengths, *shape) each."""
    values = {id(v): value for v, value in zip(problem.network.variables, [*state.trained, *state.fixed], strict=True)}
    return [np.asarray(values[id(weight)]) for weight in problem.network.model.weights]
