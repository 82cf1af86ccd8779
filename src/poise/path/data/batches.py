"""Which rows are in which batch of an epoch."""

from collections.abc import Sequence

import numpy as np

from poise.path.training import Replica

WHOLE = 8192
"""Largest number of rows that go through a lane at once when all rows are used."""
PART = 4096
"""Rows of a settling step if there are more than `WHOLE`: their noise is small, and time is proportional to rows."""


def settling_batch_size(rows: int, is_whole_batch: bool = False) -> int:
    """Return how many of `rows` a settling step uses: all of them if they are few, or if the loss needs all of them."""
    return rows if rows <= WHOLE or is_whole_batch else PART


def batches_of(
    replicas: Sequence[Replica], batch_size: int | None, epoch: int, largest: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of every batch of an epoch and whether each counts, both (replicas, steps, batch).

    Each replica shuffles its rows by its fold, its seed and the epoch. The last batch is padded with rows of weight 0.

    Args:
        replicas: The replicas.
        batch_size: Rows of a batch; None: all of them.
        epoch: Number of the epoch.
        largest: Rows of the largest batch. Default: None, for the largest number of rows of these replicas.

    Raises:
        ValueError: If the replicas have different numbers of batches.
    """
    largest = largest or max(len(replica.train) for replica in replicas)
    size = min(batch_size or largest, largest)
    counts = {steps_of(replica, size) for replica in replicas}
    if len(counts) > 1:
        raise ValueError(f"All replicas must have the same number of batches per epoch, got {sorted(counts)}.")
    steps = counts.pop()
    rows = np.zeros((len(replicas), steps * size), "int32")
    counted = np.zeros((len(replicas), steps * size), bool)
    for number, replica in enumerate(replicas):
        generator = np.random.default_rng([replica.fold + 1, replica.seed, epoch])
        rows[number] = np.resize(generator.permutation(replica.train), steps * size)
        counted[number, : len(replica.train)] = True
    return rows.reshape(len(replicas), steps, size), counted.reshape(len(replicas), steps, size)


def steps_of(replica: Replica, batch_size: int | None) -> int:
    """Return the number of batches in an epoch."""
    return 1 if batch_size is None else -(-len(replica.train) // batch_size)
