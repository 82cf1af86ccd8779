"""What an executor is: something that trains chunks of lanes, somewhere."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np

from poise.path.data.streams import Stream
from poise.path.dropout import find_lane_dropouts
from poise.path.lanes.problem import Task
from poise.path.training import Replica, Training
from poise.rules.rule import Rule

Arrays = dict[str, np.ndarray]
"""What a path keeps of a chunk, by name (see `summarize_chunk`)."""
Report = Callable[[float], None]
"""Called with the share of the work that is done."""

SHARE_OF_MEMORY = 0.3
"""Share of this machine's memory that a chunk may take."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What all lanes of a path share: everything that a worker needs to train tasks.

    Attributes:
        model: compiled model.
        rules: rules with numbers as strengths, of which the first is the unit of the grid.
        resolved: what the rules resolve to on the model (`Plan.config`).
        update: how the penalties act, as in `poise.PenalizedOptimizer`.
        data: (x, y, sample_weight or None) in arrays; or a `Stream`.
        predicted_rows: how many of its held-out rows a lane predicts at every checkpoint of early stopping, at most
            (see `Replica.predicted_rows`); the model then has a single output, (rows, outputs). 0: none.
        group_rules: rules of a group lasso on the same model, with whose paths to share programs (see
            `poise.path.lanes.common_penalty`); None: share them only with paths of the same penalties.
    """

    model: keras.Model
    rules: list[Rule]
    resolved: dict
    update: str
    data: Any
    predicted_rows: int = 0
    group_rules: list[Rule] | None = None

    @property
    def is_stream(self) -> bool:
        return isinstance(self.data, Stream)

    @property
    def rows(self) -> int | None:
        """The number of rows in memory; None for a stream."""
        return None if self.is_stream else len(keras.tree.flatten(self.data)[0])

    @property
    def has_dropout_rates(self) -> bool:
        """Whether the values of the grid are dropout rates, and no penalty acts."""
        return bool(find_lane_dropouts(self.model))

    @property
    def strength_ratios(self) -> np.ndarray:
        """(rules,) the strengths of the rules in units of the first."""
        strengths = np.array([rule.penalty.strength for rule in self.rules], "float64")
        return strengths / strengths[0]


class Executor(Protocol):
    """Train chunks of the lanes of one problem. To add one: a class here, and a line in the registry.

    Attributes:
        memory: bytes that a chunk may take.
        parallel_chunks: least number of chunks among which to divide lanes, so that all workers are busy.
    """

    memory: float
    parallel_chunks: int

    def run(self, tasks: Iterator[tuple[int, Task]], report: Report) -> Iterator[tuple[int, Arrays]]:
        """Train tasks.

        Args:
            tasks: numbered tasks, taken as they are needed.
            report: called with the share of the current chunk that is done, where chunks run one by one.

        Yields:
            The number and the arrays of each task, in the order in which they are done.
        """
        ...

    def fastest_size(self, replica: Replica, training: Training, sizes: list[int]) -> int:
        """Return the number of lanes at once, of `sizes`, that takes the least time per lane."""
        ...

    def close(self) -> None:
        """Stop all workers and release the data."""
        ...


def local_memory() -> float:
    """Return the bytes of this machine's memory that a chunk may take."""
    return SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
