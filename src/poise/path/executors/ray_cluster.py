"""The Ray cluster on which a path runs, and what it offers."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RayCluster:
    """Select the Ray cluster on which a path runs: `poise.fit_path(..., executor=poise.RayCluster(...))`.

    Args:
        address: Address of the cluster, such as `"ray://head:10001"` or `"auto"`. Default: None, which uses the address
            in the environment variable RAY_ADDRESS, else a cluster that runs on this machine, else starts Ray on this
            machine. If this process is already connected to a cluster, that connection is used.
        num_cpus: Cores per task; a task trains one chunk of the trainings. One core per task is the most efficient, as
            long as there is enough memory. Default: 1.
        num_gpus: GPUs of a task, which may be a fraction. Default: None, which is one if the cluster has any.
        memory: Bytes that a task may use; they limit how many trainings it runs at once. Default: None, which divides
            the memory of each machine by the number of tasks that it can run at once, and takes the smallest result.

    Raises:
        TypeError: If a number is of another type.
        ValueError: If a number is not positive.

    Examples:
        >>> import poise
        >>> poise.RayCluster("ray://head:10001", num_gpus=0.5).num_cpus
        1
    """

    address: str | None = None
    num_cpus: float = 1
    num_gpus: float | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        for name, optional in (("num_cpus", False), ("num_gpus", True), ("memory", True)):
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"RayCluster({name}) must be a number{' or None' if optional else ''}, got {value!r}.")
            if not 0 <= value < np.inf or (value == 0 and name != "num_gpus"):
                raise ValueError(f"RayCluster({name}) must be {'>=' if name == 'num_gpus' else '>'} 0, got {value!r}.")


def connect(cluster: RayCluster) -> Any:
    """Return the module `ray`, connected to the cluster.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "executor='ray' needs Ray, which is not installed. Install it with `pip install \"poise[ray]\"`."
        ) from error
    if ray.is_initialized():
        return ray
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # Ray's processes become others at once
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ConnectionError(
            f"There is no Ray cluster at {cluster.address!r}: {first_line(error)} Start one with `ray start --head`, "
            "or leave address out to use this machine."
        ) from error
    return ray


def count_gpus(ray: Any, cluster: RayCluster) -> float:
    """Return the GPUs of a task."""
    return (1 if ray.cluster_resources().get("GPU") else 0) if cluster.num_gpus is None else cluster.num_gpus


def count_slots(ray: Any, cluster: RayCluster) -> dict[str, int]:
    """Return by the name of every machine how many tasks it can run at once.

    Raises:
        ValueError: If none can run any.
    """
    needed = {"CPU": cluster.num_cpus, "GPU": count_gpus(ray, cluster), "memory": cluster.memory or 0}
    slots = {
        node["NodeID"]: int(min(node["Resources"].get(name, 0) / each for name, each in needed.items() if each))
        for node in ray.nodes()
        if node["Alive"]
    }
    if not any(slots.values()):
        raise ValueError(
            f"No machine of the Ray cluster can run a task of {needed['CPU']:g} cores, {needed['GPU']:g} GPUs and "
            f"{needed['memory']:g} bytes. Lower num_cpus, num_gpus or memory of poise.RayCluster."
        )
    return slots


def nodes_with_slots(ray: Any, slots: dict[str, int]) -> list[tuple[dict, int]]:
    """Return (resources, slots) of every machine that can run tasks."""
    return [(node["Resources"], slots[node["NodeID"]]) for node in ray.nodes() if slots.get(node["NodeID"])]


def is_out_of_memory(ray: Any, error: Exception) -> bool:
    """Return whether a task failed because the memory was too small."""
    if isinstance(error, (ray.exceptions.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, ray.exceptions.RayTaskError) and "RESOURCE_EXHAUSTED" in str(error)


def first_line(error: Exception) -> str:
    """Return the first line of what an error, or its cause on a machine of the cluster, says."""
    cause = getattr(error, "cause", None)
    lines = str(cause if cause is not None else error).strip().splitlines() or [type(error).__name__]
    return lines[0] if lines[0].endswith(".") else f"{lines[0]}."
