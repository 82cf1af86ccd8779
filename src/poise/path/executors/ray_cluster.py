"""Which machines a path runs on, if not this one alone."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RayCluster:
    """The Ray cluster on which a path runs: `poise.fit_path(..., executor=poise.RayCluster(...))`.

    Args:
        address: of the cluster, such as `"ray://head:10001"` or `"auto"`; None for the one of RAY_ADDRESS, or else for
            one on this machine alone. Where this process is connected already, that connection is used.
        num_cpus: cores of a task, which trains one chunk of lanes. One core each does the most work, as long as the
            memory suffices.
        num_gpus: GPUs of a task, which may be a fraction; None for one where the cluster has any, and else none.
        memory: bytes that a task may take, by which the size of its chunk is chosen; None for a core's share of the
            smallest machine.

    Raises:
        TypeError, ValueError: for a number that is not allowed.

    Example:
        >>> import poise
        >>> poise.RayCluster("ray://head:10001", num_gpus=0.5).num_cpus
        1
    """

    address: str | None = None
    num_cpus: float = 1
    num_gpus: float | None = None
    memory: float | None = None

    def __post_init__(self):
        for name, optional in (("num_cpus", False), ("num_gpus", True), ("memory", True)):
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"RayCluster({name}={value!r}): give a number{' or None' if optional else ''}.")
            if not 0 <= value < np.inf or (value == 0 and name != "num_gpus"):
                raise ValueError(f"RayCluster({name}={value!r}): give a number {'≥' if name == 'num_gpus' else '>'} 0.")
