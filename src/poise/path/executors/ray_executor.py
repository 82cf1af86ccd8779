"""Train lanes on a Ray cluster: every chunk is a task of Ray.

The problem goes into Ray's object store once. A worker builds it with its first task and keeps it, with the programs
that it compiled, for the following ones. Tasks end in any order and on any machine: a chunk gives the same numbers
wherever it runs, and it is put together by its place in the plan.

A task whose worker or machine is lost is submitted again, one that runs out of memory in two halves, and one that fails
every time leaves lanes that are marked as failed.
"""

import collections
import math
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from poise._keras_internals import without_tensorflow
from poise.path.executors.base import Arrays, Problem, Report
from poise.path.executors.ray_cluster import (
    RayCluster,
    connect,
    count_gpus,
    count_slots,
    first_line,
    is_out_of_memory,
    nodes_with_slots,
)
from poise.path.executors.serialization import dump_problem, load_problem
from poise.path.lanes.problem import Task
from poise.path.training import Replica, Training

ATTEMPTS = 3
"""How often a chunk is tried."""
ROUNDS = 2
"""Chunks per slot, at least, so that none waits long for the others at the end."""
SHARE_OF_MEMORY = 0.5
PROCESS = 2**30
"""Bytes that a worker takes without any lanes: Python, JAX and Keras."""
FAILED_AS_TRUE = ("measure/diverged", "measure/failed", "features")


class RayExecutor:
    """Train chunks on the machines of a Ray cluster.

    Args:
        problem: problem of the path.
        cluster: the cluster, and what a task may take of it.

    Raises:
        ValueError: If the data are a stream, the problem cannot be sent, or no machine can take a task.
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at the address.
    """

    def __init__(self, problem: Problem, cluster: RayCluster):
        if problem.is_stream:
            raise ValueError(
                "x is a stream of batches, which cannot be read on several machines. Pass arrays, or use "
                "executor='auto'."
            )
        self._ray = ray = connect(cluster)
        slots = count_slots(ray, cluster)
        self._slots = sum(slots.values())
        self.parallel_chunks = ROUNDS * self._slots
        share = cluster.memory or min(node["memory"] / count for node, count in nodes_with_slots(ray, slots))
        self._task_memory = int(share)
        self._data_size = sum(array.nbytes for array in keras.tree.flatten(problem.data) if array is not None)
        self.memory = SHARE_OF_MEMORY * max(self._task_memory - PROCESS - self._data_size, self._task_memory / 4)
        variables = [*problem.model.weights, *problem.model.trainable_variables, *problem.model.trainable_variables]
        self._lane_size = 12 * sum(int(np.prod(v.shape)) for v in variables)
        self._problem: list[Any] = [uuid.uuid4().hex, ray.put((dump_problem(problem), problem.data)), version("poise")]
        self._placed: dict[int, tuple[Any, Replica]] = {}
        self._results = _FailedResults()
        gpus = count_gpus(ray, cluster)
        environment = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3", "NPROC": str(math.ceil(cluster.num_cpus))}
        if not gpus:
            environment["JAX_PLATFORMS"] = "cpu"
        self._options = {
            "num_cpus": cluster.num_cpus,
            "num_gpus": gpus,
            "max_retries": 0,  # this class decides what becomes of a lost task
            "runtime_env": {"env_vars": environment},
        }

    def close(self) -> None:
        self._placed.clear()
        self._problem.clear()

    def fastest_size(self, replica: Replica, training: Training, sizes: list[int]) -> int:
        remote = self._ray.remote(_fastest_size).options(**self._options, memory=self._task_memory)
        size = remote.remote(self._problem, replica, training, sizes)
        for _ in range(self._slots - 1):  # the other workers start meanwhile
            self._ray.remote(_prepare).options(**self._options).remote(self._problem)
        return self._ray.get(size)

    def run(self, tasks: Iterator[tuple[int, Task]], report: Report) -> Iterator[tuple[int, Arrays]]:
        waiting: collections.deque[_Piece] = collections.deque()
        running: dict[Any, _Piece] = {}
        try:
            while True:
                while len(running) + len(waiting) < 2 * self._slots and (following := next(tasks, None)) is not None:
                    waiting.append(_Piece(following[1], following[0]))
                while waiting:
                    piece = waiting.popleft()
                    running[self._submit(piece.task)] = piece
                if not running:
                    return
                (ready, *_), _ = self._ray.wait([*running], num_returns=1)
                piece = running.pop(ready)
                try:
                    arrays = piece.arrays = self._ray.get(ready)
                    self._results.record_shapes(arrays)
                except self._ray.exceptions.RayError as error:
                    waiting.extend(self._retry(piece, error))
                whole = piece.merge()
                if whole is not None:
                    assert whole.arrays is not None
                    yield whole.number, whole.arrays
        finally:
            for ready in running:
                self._ray.cancel(ready, force=True)

    def _submit(self, task: Task) -> Any:
        """Submit a task; rows that several tasks share lie in the object store."""
        replicas: Any = [self._place(replica) for replica in task.replicas]
        memory = PROCESS + self._data_size + int(self._lane_size * task.lane_numbers.size / SHARE_OF_MEMORY)
        remote = self._ray.remote(_train).options(**self._options, memory=min(memory, self._task_memory))
        return remote.remote(self._problem, replace(task, replicas=replicas))

    def _place(self, replica: Replica) -> Any:
        if id(replica) not in self._placed:
            self._placed[id(replica)] = (self._ray.put(replica), replica)  # which keeps it, and its id with it
        return self._placed[id(replica)][0]

    def _retry(self, piece: "_Piece", error: Exception) -> list["_Piece"]:
        """Return what to train after a failure: the piece again, its halves, or nothing, if its lanes failed.

        Raises:
            Exception: The error, if no task has succeeded yet: then probably none ever will.
        """
        if is_out_of_memory(self._ray, error):
            if piece.halve():
                return piece.halves
        else:
            piece.attempts += 1
            if piece.attempts < ATTEMPTS:
                return [piece]
        if not self._results.is_known:
            raise error
        count = piece.task.lane_numbers.size
        warnings.warn(
            f"{count} trainings (fold × strength) failed on the cluster and count as diverged: {first_line(error)} The "
            "column 'failed' of path.table shows them at each strength.",
            stacklevel=2,
        )
        piece.arrays = self._results.failed(piece.task)
        return []


class _FailedResults:
    """The arrays of lanes that could not be trained, with the same shapes and types as for trained lanes."""

    def __init__(self) -> None:
        self._forms: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    @property
    def is_known(self) -> bool:
        return bool(self._forms)

    def record_shapes(self, arrays: Arrays) -> None:
        # The lanes of the coarse scan have fewer arrays than those of the grid.
        self._forms |= {name: (a.shape[2:], a.dtype) for name, a in arrays.items()}

    def failed(self, task: Task) -> Arrays:
        arrays = {}
        for name, (shape, dtype) in self._forms.items():
            replicas, strengths = task.shape
            lead = (sum(task.keeps_weights) if name.startswith("weight/") else replicas, strengths)
            value: Any = name in FAILED_AS_TRUE if dtype.kind in "biu" else np.nan
            arrays[name] = np.full((*lead, *shape), value, dtype)
        return arrays


@dataclass(eq=False)
class _Piece:
    """A chunk, or a part of one that was too large.

    Attributes:
        task: what it trains.
        number: number of the whole chunk.
        whole: the piece that it is a half of; None if it is the chunk itself.
        halves: its two halves, if it was too large.
        axis: the axis along which the halves are joined again.
        arrays: its results, once it is done.
        attempts: how often it failed.
    """

    task: Task
    number: int
    whole: "_Piece | None" = None
    halves: list["_Piece"] = field(default_factory=list)
    axis: int = 1
    arrays: Arrays | None = None
    attempts: int = 0

    def halve(self) -> bool:
        """Make its halves, along the strengths if there are several; return False for a single lane."""
        rows, columns = self.task.shape
        if rows * columns == 1:
            return False
        self.axis = 1 if columns > 1 else 0
        middle = (columns if self.axis else rows) // 2
        for part in (slice(None, middle), slice(middle, None)):
            self.halves.append(_Piece(self.task.part(part, self.axis), self.number, self))
        return True

    def merge(self) -> "_Piece | None":
        """Return the whole chunk, if this was the last missing part of it."""
        piece: _Piece | None = self
        while piece is not None and piece.arrays is not None:
            whole = piece.whole
            if whole is None:
                return piece
            parts = [half.arrays for half in whole.halves if half.arrays is not None]
            if len(parts) < len(whole.halves):
                return None
            whole.arrays = {name: np.concatenate([part[name] for part in parts], axis=whole.axis) for name in parts[0]}
            piece = whole
        return None


# These functions run in the workers, which import JAX.

_workers: dict[str, Any] = {}
"""The `LaneWorker` that this process built last, by the name of its problem."""


def _train(problem: list, task: Task) -> Arrays:
    import ray

    with without_tensorflow():
        references: list[Any] = list(task.replicas)  # see RayExecutor._submit
        replicas = [ray.get(reference) for reference in references]
        return _worker(*problem).train(replace(task, replicas=replicas))


def _fastest_size(problem: list, replica: Replica, training: Training, sizes: list[int]) -> int:
    with without_tensorflow():
        return _worker(*problem).fastest_size(replica, training, sizes)


def _prepare(problem: list) -> None:
    with without_tensorflow():
        _worker(*problem)


def _worker(name: str, reference: Any, needed: str) -> Any:
    if name not in _workers:
        import ray

        from poise.path.executors.worker import LaneWorker

        if version("poise") != needed:
            raise RuntimeError(
                f"A machine of the cluster has poise {version('poise')}, and this one has poise {needed}. Install the "
                "same version on all machines."
            )
        for previous in _workers.values():
            previous.close()
        _workers.clear()
        _workers[name] = LaneWorker(load_problem(*ray.get(reference)))
    return _workers[name]
