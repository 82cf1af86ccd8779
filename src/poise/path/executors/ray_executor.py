"""The lanes of a path on a Ray cluster: every chunk is a task.

What is trained goes into Ray's object store once. A worker builds the engine of `poise.path.executors.in_process` from it with its
first task and keeps it, with the programs that it compiled, for those that follow. Tasks may end in any order and on
any machine: a chunk is the same numbers wherever it runs, and it is put together by its place in the plan.

A task whose worker or machine is lost is given out again, one that runs out of memory in two halves, and one that fails
every time leaves lanes that are told as failed.
"""

import collections
import logging
import math
import sys
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from poise.path.data.arrays import Data
from poise.path.executors.array_store import Parcel
from poise.path.executors.in_process import MEASURES, Job, Local, Report, Task
from poise.path.executors.ray_cluster import RayCluster
from poise.path.executors.serialization import imported, packed_problem, unpacked_problem
from poise.path.lanes.program import Chunk
from poise.path.model_config import without_tensorflow

ATTEMPTS = 3
"""How often a chunk is tried."""
ROUNDS = 2
"""Chunks that a slot gets at least, so that none waits long for the others at the end."""
SHARE_OF_MEMORY = 0.5
PROCESS = 2**30
"""Bytes that a worker takes without any lanes: Python, JAX and Keras."""


class Remote(Local):
    """The engine on a Ray cluster.

    Args:
        job: as for `Local`, its data in arrays.
        data: the same, as they were given.
        cluster: the cluster, and what a task may take of it.

    Raises:
        ValueError: if the model cannot be trained in lanes or cannot travel, or no machine can take a task.
        ImportError: if Ray is not installed.
        ConnectionError: if there is no cluster at the address.
    """

    def __init__(self, job: Job, data: Data, cluster: RayCluster):
        super().__init__(job)
        self._ray = connected(cluster)
        slots = _slots(self._ray, cluster)
        # A resumed call must make the same chunks, to find them, whatever machines there are now.
        known = sum(slots.values())
        self._slots = job.checkpoint.remembered("slots", lambda: known) if job.checkpoint else known
        share = cluster.memory or min(node["memory"] / count for node, count in _with_resources(self._ray, slots))
        self._share = int(share)
        parcel = Parcel()
        problem = packed_problem(job.model, job.rules, self.optimizer.resolved, data, parcel)
        self._size_of_data = sum(array.nbytes for array in parcel.arrays)
        self._problem = [uuid.uuid4().hex, self._ray.put((problem, parcel.arrays)), job.training, version("poise")]
        self._placed: dict[int, tuple] = {}
        gpus = _gpus(self._ray, cluster)
        environment = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3", "NPROC": str(math.ceil(cluster.num_cpus))}
        if not gpus:
            environment["JAX_PLATFORMS"] = "cpu"
        self._options = {
            "num_cpus": cluster.num_cpus,
            "num_gpus": gpus,
            "max_retries": 0,  # what becomes of a lost task is decided here
            "runtime_env": {"env_vars": environment},
        }

    def close(self):
        super().close()
        self._placed.clear()
        self._problem.clear()

    def fastest(self, replica, training, sizes):
        task = self._ray.remote(_fastest).options(**self._options, memory=self._share)
        found = task.remote(self._problem, replica, training, sizes)
        for _ in range(self._slots - 1):  # the other workers start meanwhile
            self._ray.remote(_ready).options(**self._options).remote(self._problem)
        return self._ray.get(found)

    def _memory(self):
        return SHARE_OF_MEMORY * max(self._share - PROCESS - self._size_of_data, self._share / 4)

    def _size(self, replica, members, count, training):
        most = super()._size(replica, members, count, training)
        return max(min(most, math.ceil(members * count / (ROUNDS * self._slots))), 1)

    def _finished(self, tasks: Iterator[tuple[int, Task]], told: Report, done: int) -> Iterator[tuple[int, dict]]:
        checkpoint = self.job.checkpoint
        waiting: collections.deque[_Piece] = collections.deque()
        running: dict[Any, _Piece] = {}
        has_succeeded = False
        try:
            while True:
                while len(running) + len(waiting) < 2 * self._slots and (following := next(tasks, None)) is not None:
                    number, task = following
                    found = checkpoint.read(task.lanes, task.training) if checkpoint else None
                    if found is None:
                        waiting.append(_Piece(task, number))
                    else:
                        yield number, found
                while waiting:
                    piece = waiting.popleft()
                    running[self._begun(piece.task)] = piece
                if not running:
                    return
                (ready, *_), _ = self._ray.wait([*running], num_returns=1)
                piece = running.pop(ready)
                try:
                    piece.found = self._ray.get(ready)
                    has_succeeded = True
                except self._ray.exceptions.RayError as error:
                    waiting.extend(self._further(piece, error, has_succeeded))
                whole = piece.joined()
                if whole is not None:
                    assert whole.found is not None
                    if checkpoint and not whole.found["measure/failed"].any():
                        checkpoint.write(whole.task.lanes, whole.task.training, whole.found)
                    yield whole.number, whole.found
        finally:
            for ready in running:
                self._ray.cancel(ready, force=True)

    def _begun(self, task):
        """The task, given to the cluster; what several tasks share lies in the object store."""
        lanes = {name: [self._shared(one) for one in task.lanes[name]] for name in ("replicas", "starts")}
        values = sum(int(np.prod(v.shape)) for v in [*self.job.model.weights, *self.optimizer.variables])
        wanted = PROCESS + self._size_of_data + int(12 * values * task.lanes["lanes"].size / SHARE_OF_MEMORY)
        begun = self._ray.remote(_solved).options(**self._options, memory=min(wanted, self._share))
        return begun.remote(self._problem, replace(task, lanes={**task.lanes, **lanes}))

    def _shared(self, thing):
        if id(thing) not in self._placed:
            self._placed[id(thing)] = (self._ray.put(thing), thing)  # which keeps it, and its id with it
        return self._placed[id(thing)][0]

    def _further(self, piece: "_Piece", error: Exception, has_succeeded: bool) -> list["_Piece"]:
        """What is to be done after a failure: the piece again, its halves, or nothing, when it is told as failed.

        Raises:
            Exception: the error, if nothing has succeeded yet: it is then likely that nothing ever will.
        """
        if _is_short_of_memory(self._ray, error):
            if piece.halved():
                return piece.halves
        else:
            piece.attempts += 1
            if piece.attempts < ATTEMPTS:
                return [piece]
        if not has_succeeded:
            raise error
        shape = piece.task.lanes["lanes"].shape
        warnings.warn(
            f"{shape[0] * shape[1]} lanes could not be trained and are told as failed: {_first_line(error)}",
            stacklevel=2,
        )
        piece.found = self._nothing(piece.task)
        return []

    def _nothing(self, task):
        """What is kept of a chunk that could not be trained."""
        shape = task.lanes["lanes"].shape
        weights = [np.full((*shape, *weight.shape), np.nan, "float32") for weight in self.job.model.weights]
        measures = {name: np.full(shape, np.nan) for name in MEASURES if name not in ("zeros", "units", "is_empty")}
        if not task.training.patience:
            del measures["epochs"]
        kinds = {"settled": int, "diverged": bool, "failed": bool}
        measures |= {name: np.full(shape, kind is bool, kind) for name, kind in kinds.items()}
        found = self._summed(Chunk(weights, measures), task.is_kept)
        found["measure/is_empty"] = np.zeros(shape, bool)
        return found


@dataclass(eq=False)
class _Piece:
    """A chunk, or a part of one that was too large.

    Attributes:
        task: what it trains.
        number: that of the whole chunk.
        whole: what it is a half of; None if it is the chunk itself.
        halves: its own, if it was too large.
        axis: along which these are put together.
        found: what is kept of it, once it is done.
        attempts: how often it was tried in vain.
    """

    task: Task
    number: int
    whole: "_Piece | None" = None
    halves: list["_Piece"] = field(default_factory=list)
    axis: int = 1
    found: dict[str, np.ndarray] | None = None
    attempts: int = 0

    def halved(self) -> bool:
        """Makes its halves, along the strengths if there are several; False for a single lane."""
        rows, columns = self.task.lanes["lanes"].shape
        if rows * columns == 1:
            return False
        self.axis = 1 if columns > 1 else 0
        middle = (columns if self.axis else rows) // 2
        for part in (slice(None, middle), slice(middle, None)):
            self.halves.append(_Piece(_part(self.task, part, self.axis), self.number, self))
        return True

    def joined(self) -> "_Piece | None":
        """The whole chunk, if this was the last of it that was missing."""
        piece: _Piece | None = self
        while piece is not None and piece.found is not None:
            whole = piece.whole
            if whole is None:
                return piece
            ends = [half.found for half in whole.halves if half.found is not None]
            if len(ends) < len(whole.halves):
                return None
            whole.found = {name: np.concatenate([end[name] for end in ends], axis=whole.axis) for name in ends[0]}
            piece = whole
        return None


def _part(task: Task, part: slice, axis: int) -> Task:
    """A task for some of the strengths (axis 1) or of the replicas (axis 0) of another."""
    given = task.lanes
    both = (slice(None), part) if axis else (part, slice(None))
    lanes = {
        **given,
        "lanes": given["lanes"][both],
        "factors": {key: value[both] for key, value in given["factors"].items()},
    }
    if axis:
        limits = given["limits"]
        lanes |= {"strengths": given["strengths"][part], "limits": None if limits is None else limits[part]}
        return replace(task, lanes=lanes)
    lanes |= {name: given[name][part] for name in ("replicas", "starts")}
    return replace(task, lanes=lanes, is_kept=task.is_kept[part])


# ---------------------------------------------------------------- the cluster


def connected(cluster: RayCluster) -> Any:
    """The module `ray`, connected to the cluster.

    Raises:
        ImportError: if Ray is not installed.
        ConnectionError: if there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "The engine 'ray' needs Ray, which is not installed. Use `pip install \"poise[ray]\"`."
        ) from error
    if ray.is_initialized():
        return ray
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # Ray's processes become others at once
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ConnectionError(
            f"No Ray cluster can be reached at {cluster.address!r}: {_first_line(error)} Start one with `ray start "
            "--head`, or give no address to use this machine alone."
        ) from error
    return ray


def _with_resources(ray, slots):
    return [(node["Resources"], slots[node["NodeID"]]) for node in ray.nodes() if slots.get(node["NodeID"])]


def _gpus(ray, cluster) -> float:
    return (1 if ray.cluster_resources().get("GPU") else 0) if cluster.num_gpus is None else cluster.num_gpus


def _slots(ray, cluster) -> dict[str, int]:
    """By its name how many tasks every machine can run at once.

    Raises:
        ValueError: if none can run any.
    """
    wanted = {"CPU": cluster.num_cpus, "GPU": _gpus(ray, cluster), "memory": cluster.memory or 0}
    slots = {
        node["NodeID"]: int(min(node["Resources"].get(name, 0) / each for name, each in wanted.items() if each))
        for node in ray.nodes()
        if node["Alive"]
    }
    if not any(slots.values()):
        raise ValueError(
            f"No machine of the Ray cluster can take a task of {wanted['CPU']:g} cores, {wanted['GPU']:g} GPUs and "
            f"{wanted['memory']:g} bytes. Ask for less with poise.RayCluster(num_cpus=..., num_gpus=..., memory=...)."
        )
    return slots


def _is_short_of_memory(ray, error) -> bool:
    if isinstance(error, (ray.exceptions.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, ray.exceptions.RayTaskError) and "RESOURCE_EXHAUSTED" in str(error)


def _first_line(error) -> str:
    cause = getattr(error, "cause", None)
    lines = str(cause if cause is not None else error).strip().splitlines() or [type(error).__name__]
    return lines[0] if lines[0].endswith(".") else f"{lines[0]}."


# ---------------------------------------------------------------- in a worker

_kept: dict[str, Local] = {}
"""The engine that this worker built last, by the name of its problem."""


def _solved(problem: list, task: Task) -> dict[str, np.ndarray]:
    import ray

    with without_tensorflow():
        lanes = {name: ray.get(task.lanes[name]) for name in ("replicas", "starts")}
        return _engine(*problem).solved(replace(task, lanes={**task.lanes, **lanes}))


def _fastest(problem: list, replica, training, sizes) -> int:
    with without_tensorflow():
        return _engine(*problem).fastest(replica, training, sizes)


def _ready(problem: list) -> None:
    with without_tensorflow():
        _engine(*problem)


def _engine(name, place, training, needed) -> Local:
    if name not in _kept:
        import ray

        if version("poise") != needed:
            raise RuntimeError(
                f"This machine of the cluster has poise {version('poise')}, and the path is one of poise {needed}. "
                "Install the same version on all machines."
            )
        for before in _kept.values():
            before.close()
        _kept.clear()
        work, arrays = ray.get(place)
        sys.path.extend(entry for entry in work["path"] if entry not in sys.path)
        keras.saving.get_custom_objects().update(imported(work["places"]))
        model, rules, resolved, data = unpacked_problem(
            work, lambda leaf: arrays[leaf["array"]].astype(leaf["dtype"], copy=False)
        )
        _kept[name] = Local(Job(model, rules, (data.x, data.y, data.sample_weight), [], training, None, resolved))
    return _kept[name]
