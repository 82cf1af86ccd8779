"""Which rows are in which batch of an epoch."""

import numpy as np

from poise.path.training import Replica

WHOLE = 8192
"""Rows that go through a lane at once where all are wanted, at most."""
PART = 4096
"""Rows of a step of settling where there are more: the noise of so many is small, and time goes by rows."""


def at_once(rows: int) -> int:
    """How many of so many rows a step of settling takes: all of them if they are few."""
    return rows if rows <= WHOLE else PART


def batches_of(replicas: list[Replica], batch_size: int | None, epoch: int):
    """The rows of every batch of an epoch and whether each counts, (replicas, steps, rows in a batch) both.

    Each replica shuffles its own rows, by its fold, its seed and the epoch.

    Raises:
        ValueError: if the replicas have different numbers of batches.
    """
    size = batch_size or max(len(replica.train) for replica in replicas)
    size = min(size, max(len(replica.train) for replica in replicas))
    counts = {steps_of(replica, size) for replica in replicas}
    if len(counts) > 1:
        raise ValueError(f"These replicas have {sorted(counts)} batches an epoch, and one program runs one number.")
    steps = counts.pop()
    rows = np.zeros((len(replicas), steps * size), "int32")
    counted = np.zeros((len(replicas), steps * size), bool)
    for number, replica in enumerate(replicas):
        generator = np.random.default_rng([replica.fold + 1, replica.seed, epoch])
        rows[number] = np.resize(generator.permutation(replica.train), steps * size)
        counted[number, : len(replica.train)] = True
    return rows.reshape(len(replicas), steps, size), counted.reshape(len(replicas), steps, size)


def steps_of(replica: Replica, batch_size: int | None) -> int:
    """The number of batches in an epoch."""
    return 1 if batch_size is None else -(-len(replica.train) // batch_size)
