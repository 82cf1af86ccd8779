"""How the lanes of a path are divided into chunks.

A lane is one training of the model, and a replica is a fold with one set of initial weights. A chunk holds several
replicas at several strengths; it is what an executor trains, and what a checkpoint keeps. A worker divides it into
parts of one replica and `width` strengths, all of which run the same program. The order of a program's sums depends on
its shape, so the width depends only on the problem, and chunks end where parts end: every executor then computes the
same numbers, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from poise.path.data.batches import settling_batch_size, steps_of
from poise.path.settling import LARGEST
from poise.path.training import Replica, Training

LARGE = 20_000_000
"""If the weights and optimizer variables of one replica's lanes have more numbers than this, the width of a part is
measured."""
SIZES = (1, 4, 16, 64)
"""Widths that are measured."""
PARTS = 32
"""Parts of `NARROW` strengths in a chunk at most: a checkpoint is written after each chunk."""
CACHED = 600_000
"""Numbers in the layers' outputs, or in the state, of all lanes of a part. More of them leave a processor's cache."""
WIDEST = 20
"""Largest number of strengths per part. Wider parts are hardly faster, and leave fewer parts for the threads."""
FEW, NARROW = 14, 7
"""Up to `FEW` strengths, parts have `NARROW`, so that grids, their extensions and the coarse scan share programs."""


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
        settling: numbers that quasi-Newton settling keeps of one lane; 0 without it.
        outputs: numbers that the layers compute for one row.
        memory: bytes that a chunk may take.
        parallel_chunks: least number of chunks.
        is_stream: whether the rows are a stream, where all lanes see the same batches.
        is_whole_batch: whether every batch has all training rows.
        measure: returns the fastest of several widths for a replica; the result is cached under a name.
    """

    values: int
    settling: int
    outputs: int
    memory: float
    parallel_chunks: int
    is_stream: bool
    is_whole_batch: bool
    measure: Callable[[str, Replica, list[int]], int]


def plan_chunks(
    replicas: Sequence[Replica], strengths: int, training: Training, width: int, limits: ChunkLimits
) -> list[Chunk]:
    """Return all chunks.

    With early stopping, chunks with held-out rows come first, and a chunk has all folds of
    its strengths if memory allows, because the folds choose the training length together.

    Args:
        replicas: all replicas.
        strengths: number of strengths.
        training: how the lanes are trained.
        width: strengths of a part.
        limits: what the size of a chunk depends on.
    """
    families: dict[tuple, list[int]] = {}
    for number, replica in enumerate(replicas):
        comes_last = training.early_stopping and not len(replica.held)
        sizes = (training.batch_size, settling_batch_size(len(replica.train), limits.is_whole_batch))
        steps = () if limits.is_stream else tuple(steps_of(replica, size) for size in sizes)
        families.setdefault((comes_last, *steps), []).append(number)
    chunks = []
    for key in sorted(families):
        members = families[key]
        rows, columns = _chunk_shape(len(members), strengths, training, width, limits)
        groups = [members[first : first + rows] for first in range(0, len(members), rows)]
        for first in range(0, strengths, columns):
            chunks += [Chunk(group, [*range(first, min(first + columns, strengths))]) for group in groups]
    return chunks


def part_width(replica: Replica, strengths: int, training: Training, limits: ChunkLimits) -> int:
    """Return the number of strengths of a part.

    Args:
        replica: a replica with the most training rows.
        strengths: number of strengths of a grid.
        training: how the lanes are trained.
        limits: what the size of a chunk depends on.
    """
    all_at_once = settling_batch_size(len(replica.train), limits.is_whole_batch)
    uses_all_rows = training.settle or training.batch_size is None
    rows = all_at_once if uses_all_rows else min(training.batch_size or 0, all_at_once)
    fitting = min(max(CACHED // max(rows * limits.outputs, 1), 1), _fitting_lanes(limits))
    if limits.settling:
        fitting = min(fitting, max(LARGEST // limits.settling, 1))
    if limits.values * strengths > LARGE and not limits.is_stream:
        # A resumed call must make the same chunks, to find them.
        name = f"lanes-{strengths}-{training.batch_size}"
        return limits.measure(name, replica, sorted({min(size, strengths, fitting) for size in SIZES}))
    fitting = min(fitting, max(CACHED // limits.values, 1))
    return min(NARROW if strengths <= FEW else even_size(strengths, WIDEST), fitting)


def even_size(count: int, largest: int) -> int:
    """Return the part size, at least half of `largest`, that leaves the fewest empty places in the last part."""
    largest = min(largest, count)
    return min(range(largest, (largest - 1) // 2, -1), key=lambda size: -(-count // size) * size)


def lane_number(replica: Replica, strength: float) -> int:
    """Return a number that depends on nothing but the fold, the seed and the strength of a lane.

    It is below 2**30, so that its sum with another such number is a seed on every backend.
    """
    words = np.array([strength], "float64").view("uint32")
    return int(np.random.SeedSequence([replica.fold + 1, replica.seed, *words.tolist()]).generate_state(1)[0] >> 2)


def _chunk_shape(members: int, strengths: int, training: Training, width: int, limits: ChunkLimits) -> tuple[int, int]:
    """Return how many replicas and how many strengths a chunk has, at most."""
    fitting = max(_fitting_lanes(limits) // min(width, strengths), 1)
    if limits.is_stream:  # every chunk reads all batches
        rows = min(members, fitting)
        return rows, max(_fitting_lanes(limits) // rows, 1)
    parts = members * -(-strengths // width)
    most = max(PARTS * NARROW // width, PARTS)
    wanted = min(fitting, most, max(parts // limits.parallel_chunks, 1))
    rows = min(members, fitting if training.early_stopping else wanted)
    return rows, max(wanted // rows, 1) * width


def _fitting_lanes(limits: ChunkLimits) -> int:
    return max(int(limits.memory / (12 * limits.values + 8 * limits.settling)), 1)
