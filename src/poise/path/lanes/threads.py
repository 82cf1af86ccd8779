"""The strengths of small lanes, shared out over threads: XLA uses one core for a program of them."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import joblib
import numpy as np

SMALL = 20_000_000
"""Numbers in the state of all lanes together, up to which XLA is taken to use one core for them."""
FEWEST = 2
"""Strengths of a thread: fewer do not fill its core."""


class Threads:
    """Runs what was compiled for a part of the strengths on all parts, side by side."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(thread_name_prefix="lanes")

    def each(self, change, *parts) -> list:
        """`change` of every part; `parts` are lists of equal length, one for every argument."""
        if len(parts[0]) == 1:
            return [change(*(part[0] for part in parts))]
        return [*self._pool.map(change, *parts)]

    def close(self) -> None:
        self._pool.shutdown(wait=False)


def shares(shape: tuple[int, int], values: int) -> int:
    """Into how many parts the strengths of lanes go, (replicas, strengths) with so many numbers each: 1 for none.

    A processor's cores are those that this process may use, or NPROC, which limits XLA as well.
    """
    replicas, strengths = shape
    devices = jax.local_devices()
    if len(devices) > 1 or devices[0].platform != "cpu" or values * replicas * strengths > SMALL:
        return 1
    cores = int(os.environ.get("NPROC") or joblib.cpu_count())
    size = -(-strengths // max(min(cores, strengths // FEWEST), 1))
    return -(-strengths // size)


def parted(tree, count: int) -> list:
    """Parts of equally many strengths of what has the leading axes (replicas, strengths).

    What does not divide is filled up with the last strength.
    """
    if count == 1:
        return [tree]

    def part(a, number):
        size = -(-a.shape[1] // count)
        return np.take(np.asarray(a), np.arange(number * size, (number + 1) * size), axis=1, mode="clip")

    return [jax.device_put(jax.tree.map(lambda a, n=n: part(a, n), tree)) for n in range(count)]


def first_part(tree, count: int):
    return jax.tree.map(lambda a: a[:, : -(-a.shape[1] // count)], tree)


def joined(parts: list, strengths: int):
    """What was parted, of so many strengths."""
    if len(parts) == 1:
        return parts[0]
    return jax.device_put(jax.tree.map(lambda *own: np.concatenate(own, axis=1)[:, :strengths], *parts))
