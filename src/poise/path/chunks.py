"""How the lanes of a path are divided into chunks.

A lane is one training of the model, and a replica is a fold with one set of initial weights. Lanes are independent, so
any of them can be trained at any time. A chunk holds several replicas at several strengths; all chunks of the same
shape share one compiled program, and the last chunk is padded with repeated lanes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from poise.path.data.batches import settling_batch_size, steps_of
from poise.path.training import Replica, Training

LARGE = 20_000_000
"""Numbers in the weights of all lanes, above which the size of a chunk is measured."""
CACHED = 4_000_000
"""Numbers in the layers' outputs of all lanes of a chunk at one step: more do not stay in a processor's cache."""
SIZES = (1, 4, 16, 64)
"""Sizes of a chunk that are measured."""


@dataclass(frozen=True)
class Chunk:
    """Positions of the replicas and of the strengths of a chunk."""

    rows: list[int]
    columns: list[int]


@dataclass(frozen=True, eq=False)
class ChunkLimits:
    """What the size of a chunk depends on.

    Attributes:
        values: numbers in the weights and the optimizer's variables of one lane.
        outputs: numbers that the layers compute for one row.
        memory: bytes that a chunk may take.
        parallel_chunks: least number of chunks.
        is_stream: whether the rows are a stream, where all lanes see the same batches.
        measure: returns the fastest size for a replica, of the given ones; its result is remembered by a name.
    """

    values: int
    outputs: int
    memory: float
    parallel_chunks: int
    is_stream: bool
    measure: Callable[[str, Replica, list[int]], int]


def plan_chunks(replicas: Sequence[Replica], strengths: int, training: Training, limits: ChunkLimits) -> list[Chunk]:
    """Return all chunks; with patience those that hold rows out come first.

    Args:
        replicas: all replicas.
        strengths: number of strengths.
        training: how the lanes are trained.
        limits: what the size of a chunk depends on.
    """
    families: dict[tuple, list[int]] = {}
    for number, replica in enumerate(replicas):
        comes_last = training.patience is not None and not len(replica.held)
        sizes = (training.batch_size, settling_batch_size(len(replica.train)))
        steps = () if limits.is_stream else tuple(steps_of(replica, size) for size in sizes)
        families.setdefault((comes_last, *steps), []).append(number)
    chunks = []
    for key in sorted(families):
        members = families[key]
        lanes = _chunk_size(replicas[members[0]], len(members), strengths, training, limits)
        width, height = min(lanes, strengths), max(lanes // strengths, 1)
        columns = split_evenly(list(range(strengths)), width)
        chunks += [Chunk(rows, part) for rows in split_evenly(members, height) for part in columns]
    return chunks


def split_evenly(numbers: list[int], largest: int) -> list[list[int]]:
    """Return parts of at most `largest` numbers, all of one size; the last is filled up with its last number."""
    largest = min(largest, len(numbers))
    size = min(range(largest, (largest - 1) // 2, -1), key=lambda size: -(-len(numbers) // size) * size)
    count = -(-len(numbers) // size)
    filled = [*numbers, *numbers[-1:] * (count * size - len(numbers))]
    return [filled[first : first + size] for first in range(0, len(filled), size)]


def lane_number(replica: Replica, strength: float) -> int:
    """Return a number that depends on nothing but the fold, the seed and the strength of a lane."""
    words = np.array([strength], "float64").view("uint32")
    return int(np.random.SeedSequence([replica.fold + 1, replica.seed, *words.tolist()]).generate_state(1)[0])


def _chunk_size(replica: Replica, members: int, strengths: int, training: Training, limits: ChunkLimits) -> int:
    """Return how many lanes to run at once: all that the memory holds if they are small, else the fastest number."""
    all_at_once = settling_batch_size(len(replica.train))
    uses_all_rows = training.settle or training.batch_size is None
    rows = all_at_once if uses_all_rows else min(training.batch_size or 0, all_at_once)
    largest = max(int(min(limits.memory / (12 * limits.values), CACHED / max(rows * limits.outputs, 1))), 1)
    if limits.values * members * strengths <= LARGE or limits.is_stream:
        size = min(members * strengths, largest)
    else:
        # A resumed call must make the same chunks, to find them.
        name = f"lanes-{strengths}-{training.batch_size}"
        size = limits.measure(name, replica, sorted({min(size, strengths, largest) for size in SIZES}))
    return max(min(size, -(-members * strengths // limits.parallel_chunks)), 1)
