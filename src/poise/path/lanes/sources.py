"""Where the rows of lanes come from: arrays in memory, or batches of a stream.

Both know which rows a replica trains on and which it holds out, and run the compiled functions on them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from poise.path.data.batches import WHOLE, batches_of, settling_batch_size
from poise.path.data.streams import Stream
from poise.path.lanes.parts import Part
from poise.path.lanes.problem import LaneProblem, LaneState, Task
from poise.path.lanes.programs import PROGRAMS
from poise.path.lanes.settle import settle_batch, settle_segment
from poise.path.lanes.step import train_batch, train_epoch
from poise.path.training import Replica

Masks = dict[str, np.ndarray]
"""Maps the name of a loss to how often each row counts, (replicas, rows)."""
Span = tuple[int, int, int]


class DataSource(Protocol):
    """What the lanes need of their rows."""

    can_split: bool
    """Whether lanes may be divided into parts, each of which reads the rows."""
    inputs: Any
    """The inputs of all rows; None if rows come only in parts."""

    @property
    def rows(self) -> int | None:
        """Number of rows in memory; None if they come only in parts."""
        ...

    def steps_per_epoch(self, replicas: Sequence[Replica], batch_size: int | None) -> int:
        """Return the number of batches in an epoch."""
        ...

    def steps_per_pass(self, replicas: Sequence[Replica]) -> int:
        """Return the number of settling steps in which every row comes once."""
        ...

    def train(self, problem: LaneProblem, part: Part, batch_size: int | None, epoch: int) -> LaneState:
        """Return the state of a part after an epoch. The memory of its state before is reused."""
        ...

    def settle(self, problem: LaneProblem, part: Part, done: np.ndarray, span: Span, rate: float) -> LaneState:
        """Return the state of a part after settling steps.

        Args:
            problem: Problem of the lanes.
            part: The lanes.
            done: (replicas, strengths) whether a lane has settled.
            span: Number of the first step, of the one after the last step, and of all settling steps.
            rate: Initial learning rate.
        """
        ...

    def blocks(self, replicas: Sequence[Replica]) -> Iterator[tuple[Any, np.ndarray, Masks]]:
        """Yield all rows in parts: data, positions, and how often each row trains and is held out."""
        ...

    def train_rows(self, task: Task) -> tuple[Any, np.ndarray, np.ndarray] | None:
        """Return (data, positions of the training rows, whether they count); None if rows come only in parts."""
        ...

    def held_rows(self, task: Task) -> tuple[Any, np.ndarray, np.ndarray] | None:
        """Return (data, positions of the held-out rows, whether they count); None if rows come only in parts."""
        ...


class ArraySource:
    """Rows in memory.

    Args:
        data: (x, y, sample_weight or None), structures of arrays that share their first axis.
        is_whole_batch: whether the loss compares the rows of a batch, so that each batch has all rows of a replica.
    """

    can_split = True

    def __init__(self, data: Any, is_whole_batch: bool):
        self.data: Any = jax.device_put(jax.tree.map(np.asarray, data))
        self.inputs = self.data[0]
        self.rows = len(jax.tree.leaves(self.data)[0])
        self._is_whole_batch = is_whole_batch

    def steps_per_epoch(self, replicas: Sequence[Replica], batch_size: int | None) -> int:
        return batches_of(replicas, batch_size, 0)[0].shape[1]

    def steps_per_pass(self, replicas: Sequence[Replica]) -> int:
        rows = max(len(replica.train) for replica in replicas)
        return -(-rows // settling_batch_size(rows, self._is_whole_batch))

    def train(self, problem: LaneProblem, part: Part, batch_size: int | None, epoch: int) -> LaneState:
        batches = batches_of(part.task.replicas, batch_size, epoch, part.task.batch_rows)
        return PROGRAMS.call(train_epoch, problem, part.state, self.data, *batches, part.factors, donate=(0,))

    def settle(self, problem: LaneProblem, part: Part, done: np.ndarray, span: Span, rate: float) -> LaneState:
        size = settling_batch_size(part.task.batch_rows, self._is_whole_batch)
        batches = batches_of(part.task.replicas, size, 0, part.task.batch_rows)
        limits = np.array(span, "int32"), np.float32(rate)
        return PROGRAMS.call(settle_segment, problem, part.state, self.data, *batches, part.factors, done, *limits)

    def blocks(self, replicas: Sequence[Replica]) -> Iterator[tuple[Any, np.ndarray, Masks]]:
        """Yield all rows in parts that a replica uses.

        If every replica has separate rows, as in a study, a part is no larger than the rows of one replica. If the loss
        compares rows, all rows of a replica are in one part.
        """
        count = self.rows
        masks = {name: np.zeros((len(replicas), count), "float32") for name in ("loss", "held_loss")}
        for number, replica in enumerate(replicas):
            np.add.at(masks["loss"][number], replica.train, 1.0)
            np.add.at(masks["held_loss"][number], replica.held, 1.0)
        used = [np.concatenate([replica.train, replica.held]) for replica in replicas]
        span = max(int(np.ptp(rows)) + 1 for rows in used)
        size = span if 2 * span <= count else count
        if self._is_whole_batch:
            starts = np.array([min(rows.min(), count - size) for rows in used])
            for first in np.unique(starts):
                rows = np.arange(first, first + size, dtype="int32")
                is_here = (starts == first)[:, None]
                yield self.data, rows, {name: mask[:, rows] * is_here for name, mask in masks.items()}
            return
        size = min(size, WHOLE)
        for first in range(0, count, size):
            rows = np.arange(first, min(first + size, count), dtype="int32")
            block = {name: mask[:, rows] for name, mask in masks.items()}
            if any(mask.any() for mask in block.values()):
                yield self.data, rows, block

    def train_rows(self, task: Task) -> tuple[Any, np.ndarray, np.ndarray] | None:
        rows, counted = batches_of(task.replicas, None, 0, task.batch_rows)
        return self.data, rows[:, 0], counted[:, 0]

    def held_rows(self, task: Task) -> tuple[Any, np.ndarray, np.ndarray] | None:
        held, size = [replica.held for replica in task.replicas], task.held_rows
        rows = np.stack([np.resize(h, size) for h in held]).astype("int32")
        counted = np.stack([np.arange(size) < len(h) for h in held])
        return self.data, rows, counted


class StreamSource:
    """Batches of a stream, on each of which all lanes train as it comes.

    A batch is as large as it comes. A replica trains on its rows of the batch; they are repeated with weight zero in
    place of its held-out rows. A batch without training rows of a replica is not a step for it. Settling takes its
    steps on the batches, too.
    """

    can_split = False
    inputs = None
    rows = None

    def __init__(self, stream: Stream):
        self.stream = stream

    def steps_per_epoch(self, replicas: Sequence[Replica], batch_size: int | None) -> int:
        return self.stream.batches

    def steps_per_pass(self, replicas: Sequence[Replica]) -> int:
        return self.stream.batches

    def train(self, problem: LaneProblem, part: Part, batch_size: int | None, epoch: int) -> LaneState:
        state = part.state
        for batch in self._batches(part.task.replicas):
            state = PROGRAMS.call(train_batch, problem, state, *batch, part.factors)
        return state

    def settle(self, problem: LaneProblem, part: Part, done: np.ndarray, span: Span, rate: float) -> LaneState:
        state, (number, last, count) = part.state, span
        while number < last:
            for batch in self._batches(part.task.replicas):
                share = np.float32(number / count)
                arguments = (*batch, part.factors, done, share, np.float32(rate))
                state = PROGRAMS.call(settle_batch, problem, state, *arguments)
                number += 1
                if number == last:
                    break
        return state

    def blocks(self, replicas: Sequence[Replica]) -> Iterator[tuple[Any, np.ndarray, Masks]]:
        is_training = _training_masks(replicas, self.stream.rows)
        holds_rows = np.array([len(replica.held) > 0 for replica in replicas])[:, None]
        for first, batch in self.stream.passes():
            count = len(jax.tree.leaves(batch)[0])
            masks = {name: np.zeros((len(replicas), self.stream.largest), "float32") for name in ("loss", "held_loss")}
            masks["loss"][:, :count] = is_training[:, first : first + count]
            masks["held_loss"][:, :count] = ~is_training[:, first : first + count] & holds_rows
            yield self._fill(batch), np.arange(self.stream.largest, dtype="int32"), masks

    def train_rows(self, task: Task) -> tuple[Any, np.ndarray, np.ndarray] | None:
        return None

    def held_rows(self, task: Task) -> tuple[Any, np.ndarray, np.ndarray] | None:
        return None

    def _batches(self, replicas: Sequence[Replica]) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Yield every batch with the positions of each replica's rows and whether they count, (replicas, rows)."""
        is_training = _training_masks(replicas, self.stream.rows)
        size = self.stream.largest
        for first, batch in self.stream.passes():
            count = len(jax.tree.leaves(batch)[0])
            rows = np.zeros((len(replicas), size), "int32")
            counted = np.zeros((len(replicas), size), bool)
            for number, mask in enumerate(is_training[:, first : first + count]):
                positions = np.flatnonzero(mask)
                if len(positions):
                    rows[number] = np.resize(positions, size)
                    counted[number, : len(positions)] = True
            yield self._fill(batch), rows, counted

    def _fill(self, batch: Any) -> Any:
        """Return the batch with rows repeated, up to the size of the largest."""
        count = len(jax.tree.leaves(batch)[0])
        rows = np.resize(np.arange(count), self.stream.largest)
        return batch if count == len(rows) else jax.tree.map(lambda a: a[rows], batch)


def _training_masks(replicas: Sequence[Replica], rows: int) -> np.ndarray:
    """Return (replicas, rows): whether the replica trains on the row."""
    masks = np.zeros((len(replicas), rows), bool)
    for number, replica in enumerate(replicas):
        masks[number, replica.train] = True
    return masks
