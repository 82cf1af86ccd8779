"""The strengths of small lanes divided among threads, because XLA uses one core for a program of them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import joblib
import numpy as np

SMALL = 20_000_000
"""Numbers in the state of all lanes, up to which XLA is taken to use one core for them."""
MIN_STRENGTHS = 2
"""Strengths of a thread: fewer do not fill its core."""


class Threads:
    """Run what was compiled for a part of the strengths on all parts at once."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(thread_name_prefix="lanes")

    def map(self, function: Callable, *parts: Sequence) -> list:
        """Return `function` of every part; `parts` are lists of equal length, one per argument."""
        if len(parts[0]) == 1:
            return [function(*(part[0] for part in parts))]
        return [*self._pool.map(function, *parts)]

    def close(self) -> None:
        self._pool.shutdown(wait=False)


def count_parts(shape: tuple[int, int], values: int) -> int:
    """Return the number of parts into which to split the strengths of lanes; 1 not to split them.

    Args:
        shape: (replicas, strengths).
        values: numbers in the state of one lane.

    The cores are those that this process may use, or NPROC, which limits XLA as well.
    """
    replicas, strengths = shape
    devices = jax.local_devices()
    if len(devices) > 1 or devices[0].platform != "cpu" or values * replicas * strengths > SMALL:
        return 1
    cores = int(os.environ.get("NPROC") or joblib.cpu_count())
    size = -(-strengths // max(min(cores, strengths // MIN_STRENGTHS), 1))
    return -(-strengths // size)


def split_strengths(tree: Any, count: int) -> list:
    """Split arrays with the leading axes (replicas, strengths) into parts of equally many strengths.

    The last part is filled up with the last strength.
    """
    if count == 1:
        return [tree]

    def take(a: Any, number: int) -> np.ndarray:
        size = -(-a.shape[1] // count)
        return np.take(np.asarray(a), np.arange(number * size, (number + 1) * size), axis=1, mode="clip")

    return [jax.device_put(jax.tree.map(lambda a, n=n: take(a, n), tree)) for n in range(count)]


def first_part(tree: Any, count: int) -> Any:
    """Return a part of the shapes that `split_strengths` makes."""
    return jax.tree.map(lambda a: a[:, : -(-a.shape[1] // count)], tree)


def merge_strengths(parts: list, strengths: int) -> Any:
    """Undo `split_strengths`: return arrays with the given number of strengths."""
    if len(parts) == 1:
        return parts[0]
    return jax.device_put(jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1)[:, :strengths], *parts))
