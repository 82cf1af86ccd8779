"""What the figures were measured on."""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from .harness import QUICK_STUDY, Options, run_command, run_contender

DISTRIBUTIONS = {
    "keras": ("keras",),
    "jax": ("jax",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "torch": ("torch",),
    "scikit-learn": ("scikit-learn",),
    "lassonet": ("lassonet",),
}
HEAVY = ("jax", "keras", "tensorflow", "torch", "sklearn.model_selection", "sklearn.neural_network", "lassonet")


def describe(options: Options) -> dict[str, Any]:
    """Return versions, machine and device."""
    device = run_contender(describe_device, options)
    wanted = (options.device or "").partition(":")[0]
    if wanted in ("gpu", "cuda") and device["platform"] == "cpu":
        raise SystemExit(f"--device must name a device that JAX can use, got {options.device!r}: JAX uses the CPU.")
    versions = {"python": platform.python_version(), "poise": device.pop("poise")}
    versions |= {name: _version(distributions) for name, distributions in DISTRIBUTIONS.items()}
    machine = {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gb": round(_memory() / 1e9, 1)}
    return {"versions": versions, "machine": machine, "device": device}


def describe_device() -> dict[str, Any]:
    """Return the first device of JAX, their number, and the version of poise that is imported."""
    import jax

    import poise

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "poise": poise.__version__,
    }


def warm_disk(options: Options) -> None:
    """Read all programs once, so that no contender waits for the disk."""
    run_contender(import_packages, options)
    with tempfile.TemporaryDirectory() as folder:
        run_command(["study", "diabetes", *QUICK_STUDY], options, folder)


def import_packages() -> dict[str, Any]:
    """Import what the contenders import."""
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return {}


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
