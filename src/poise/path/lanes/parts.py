"""Divide lanes into parts, and train several parts at once in threads. On a CPU, a part of a small network fits into
the processor's cache."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import joblib
import numpy as np

from poise.path.lanes.problem import Factors, LaneState, Task
from poise.path.lanes.state import place_state

SMALL = 20_000_000
"""Numbers in the state of a part, up to which XLA is taken to use one core for it."""


@dataclass(eq=False)
class Part:
    """Some lanes of a task, in the arrays of a device.

    Attributes:
        task: The replicas and strengths of these lanes.
        rows: Positions of the replicas among those of the whole task.
        columns: Positions of the strengths; those that were repeated to fill up the part come last.
        state: The state of the lanes.
        factors: Factors of the penalties.
    """

    task: Task
    rows: slice
    columns: np.ndarray
    state: LaneState
    factors: Factors

    @property
    def lanes(self) -> tuple:
        """Index of these lanes in an array (replicas, strengths, ...)."""
        return self.rows, self.columns


def split_lanes(task: Task, state: LaneState, is_whole: bool) -> list[Part]:
    """Divide the lanes of a task into parts of one replica and `task.width` strengths.

    Args:
        task: The whole task.
        state: Arrays (replicas, strengths, ...) of NumPy.
        is_whole: Whether to make a single part, whose lanes a device's own cores divide among them.
    """
    replicas, strengths = task.shape
    if is_whole:
        rows, groups = [slice(0, replicas)], [[*range(strengths)]]
    else:
        rows = [slice(number, number + 1) for number in range(replicas)]
        groups = [[*range(first, first + task.width)] for first in range(0, strengths, task.width)]
        groups = [[min(column, strengths - 1) for column in group] for group in groups]
    parts = []
    for columns in map(np.array, groups):
        for part_rows in rows:
            part_task = task.part(part_rows, 0).part(columns, 1)
            part_state = jax.tree.map(lambda a, at=(part_rows, columns): np.asarray(a)[at], state)
            factors = {key: np.asarray(value, "float32") for key, value in part_task.factors.items()}
            parts.append(Part(part_task, part_rows, columns, place_state(part_state), place_state(factors)))
    return parts


def merge_lanes(parts: Sequence[Part], values: Sequence[Any], shape: tuple[int, int]) -> Any:
    """Return arrays (replicas, strengths, ...) of NumPy with the values of all parts in their places."""

    def merge(*arrays: Any) -> np.ndarray:
        first = np.asarray(arrays[0])
        merged = np.empty((*shape, *first.shape[2:]), first.dtype)
        for part, array in zip(parts, arrays, strict=True):
            merged[part.lanes] = array
        return merged

    return jax.tree.map(merge, *values)


class KeptWeights:
    """A copy of the best weights so far of every lane.

    The memory is allocated once: for a large network, allocating it at every checkpoint would take as long as several
    training steps.

    Args:
        shape: (replicas, strengths) of the task.
        part: Any part of the task; only its shapes and types are used.

    Attributes:
        state: The weights of all lanes, arrays (replicas, strengths, ...) of NumPy.
    """

    def __init__(self, shape: tuple[int, int], part: Part) -> None:
        weights = LaneState(part.state.trained, part.state.fixed, [])
        self.state: LaneState = jax.tree.map(lambda a: np.empty((*shape, *a.shape[2:]), a.dtype), weights)

    def keep(self, part: Part, is_kept: np.ndarray) -> None:
        """Copy the weights of a part at some strengths.

        Args:
            part: The lanes.
            is_kept: (strengths of the task,) whether to copy the weights at a strength.
        """
        places = np.flatnonzero(is_kept[part.columns])

        def copy(kept: np.ndarray, array: Any) -> None:
            values = np.asarray(array)
            for place in places:
                kept[part.rows, part.columns[place]] = values[:, place]

        if len(places):
            jax.tree.map(copy, self.state, LaneState(part.state.trained, part.state.fixed, []))


def fills_device() -> bool:
    """Return whether all lanes are to run at once: on an accelerator, or on several devices."""
    devices = jax.local_devices()
    return len(devices) > 1 or devices[0].platform != "cpu"


class Threads:
    """Run a function on several parts at once, in threads, on the cores that this process may use.

    The environment variable NPROC, which limits XLA as well, takes precedence.
    """

    def __init__(self) -> None:
        cores = int(os.environ.get("NPROC") or joblib.cpu_count())
        self._pool = ThreadPoolExecutor(cores, "lanes")

    def map(self, function: Callable, parts: Sequence[Part]) -> list[Any]:
        """Return `function` of every part; large parts come one by one, because XLA uses all cores for each."""
        is_small = sum(leaf.size for leaf in jax.tree.leaves(parts[0].state)) <= SMALL if parts else False
        return [*(self._pool.map if is_small and len(parts) > 1 else map)(function, parts)]

    def start(self, function: Callable) -> None:
        """Run a function in the background; an error in it appears when its result is needed."""
        self._pool.submit(function)

    def close(self) -> None:
        self._pool.shutdown(wait=False)
