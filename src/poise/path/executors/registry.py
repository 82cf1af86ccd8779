"""The executors by name."""

import importlib

import keras

from poise.path.executors.base import Executor, Problem
from poise.path.executors.ray_cluster import RayCluster

EXECUTORS = {
    "in_process": "poise.path.executors.in_process:InProcessExecutor",
    "subprocess": "poise.path.executors.subprocess_executor:SubprocessExecutor",
    "ray": "poise.path.executors.ray_executor:RayExecutor",
}
"""By name the module and the class. A module is imported when its executor is used: two of them need JAX or Ray."""


def check_executor(executor: str | RayCluster) -> str | RayCluster:
    """Return the executor to use: "in_process", "subprocess" or a `poise.RayCluster`.

    Args:
        executor: one of those, "ray" for the default cluster, or "auto" for this process if it runs JAX and else a
            subprocess.

    Raises:
        ValueError: If it is anything else, or this process cannot run it.
    """
    backend = keras.backend.backend()
    if isinstance(executor, RayCluster):
        return executor
    if executor == "ray":
        return RayCluster()
    if executor == "auto":
        return "in_process" if backend == "jax" else "subprocess"
    if not isinstance(executor, str) or executor not in EXECUTORS:
        names = ", ".join(map(repr, ("auto", *EXECUTORS)))
        raise ValueError(f"executor must be one of {names} or a poise.RayCluster, got {executor!r}.")
    if executor == "in_process" and backend != "jax":
        raise ValueError(
            f"executor='in_process' needs Keras on JAX, and Keras runs on {backend}. Use executor='subprocess'."
        )
    return executor


def create_executor(executor: str | RayCluster, problem: Problem) -> Executor:
    """Start an executor that `check_executor` returned.

    Raises:
        ValueError: If the model cannot be trained in lanes.
    """
    name = "ray" if isinstance(executor, RayCluster) else executor
    module, class_name = EXECUTORS[name].split(":")
    executor_class = getattr(importlib.import_module(module), class_name)
    return executor_class(problem, executor) if isinstance(executor, RayCluster) else executor_class(problem)
