"""Measure contenders and commands, each in a process of its own.

A contender is a function of this package with arguments that JSON can hold. It returns numbers, such as the seconds
that it took without its imports. A command is timed from its start to its end.

Every process gets an empty folder as its cache of compiled programs unless a folder is passed.
"""

import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "speed.py"
RESULT = "RESULT "
CACHE = "POISE_CACHE_DIR"
"""Names the folder in which poise keeps compiled programs."""
CACHE_OFF = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
QUICK_STUDY = ("--strengths", "3", "--cv", "2", "--max-iter", "20")
"""Flags of a study that takes seconds."""
Numbers = dict[str, float]


@dataclass(frozen=True)
class Options:
    """What the command line sets.

    Args:
        repeats: The number of runs; a figure is their median.
        device: `"cpu"`, `"gpu"`, `"cuda"` or `"cuda:0"`. Default: `None`, for JAX's own choice.
        quick: Whether to use tiny settings, whose figures mean nothing. Default: `False`.
    """

    repeats: int
    device: str | None = None
    quick: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        what: What is measured.
        ours: The figure of poise, `None` if it cannot be measured here.
        theirs: The figure that it is compared with. Default: `None`.
        most: The target: the largest acceptable `ours`. Default: `None`.
        most_ratio: The target: the largest acceptable `ours / theirs`. Default: `None`.
        unit: The unit of both figures. Default: `"s"`.
        note: A short remark. Default: `""`.
    """

    what: str
    ours: float | None
    theirs: float | None = None
    most: float | None = None
    most_ratio: float | None = None
    unit: str = "s"
    note: str = field(default="", kw_only=True)

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def target(self) -> str:
        if self.most is not None:
            return f"≤ {self.most:g} {self.unit}"
        return "" if self.most_ratio is None else f"≤ {self.most_ratio:.2g}"

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met, `None` without a target or a figure."""
        figure, limit = (self.ours, self.most) if self.most is not None else (self.ratio, self.most_ratio)
        return None if figure is None or limit is None else figure <= limit


def measure(
    contender: Callable[..., Numbers],
    options: Options,
    *,
    backend: str = "jax",
    needs: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Numbers:
    """Return the median of each number of a contender over the repeats; no numbers if a package is missing.

    Args:
        contender: The function.
        options: See `Options`.
        backend: The backend of Keras. Default: `"jax"`.
        needs: Packages without which the contender cannot run.
        environment: More environment variables. Default: `None`.
        arguments: The arguments of the contender.
    """
    if list_missing(needs):
        return {}
    runs = [
        run_contender(contender, options, backend, {"REPEAT": str(number), **(environment or {})}, **arguments)
        for number in range(options.repeats)
    ]
    return median(runs)


def run_contender(
    contender: Callable[..., Any],
    options: Options,
    backend: str = "jax",
    environment: Mapping[str, str] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Run a contender once and return its numbers."""
    name = f"{contender.__module__}:{contender.__name__}"
    command = [sys.executable, str(SCRIPT), "--contender", name, "--arguments", json.dumps(arguments)]
    with tempfile.TemporaryDirectory() as cache:
        variables = {**make_environment(options, cache), "KERAS_BACKEND": backend, **(environment or {})}
        process = subprocess.run(command, env=variables, capture_output=True, text=True)
    if process.returncode:
        print(process.stderr, file=sys.stderr)  # otherwise it has only what TensorFlow logs
        process.check_returncode()
    return json.loads(process.stdout.rpartition(RESULT)[2])


def call_contender(name: str, arguments: str) -> None:
    """Call a contender in this process and print its numbers for `run_contender`."""
    module, _, function = name.partition(":")
    if not list_missing(["tensorflow"]):
        importlib.import_module("tensorflow")  # Keras imports it with the first model that it serializes
    numbers = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(RESULT + json.dumps(numbers))


def measure_command(arguments: Sequence[str], options: Options) -> Numbers:
    """Return the median seconds and peak GB of `poise` with these arguments, each time with an empty cache."""
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run_command(arguments, options, folder))
    return median(runs)


def run_command(arguments: Sequence[str], options: Options, folder: str) -> Numbers:
    """Run `poise` once in a folder, with the cache in its subfolder `cache`.

    Returns:
        `"seconds"`, and the peak memory of the process in `"GB"`.
    """
    cache = Path(folder, "cache")
    cache.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "poise_command", *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=make_environment(options, str(cache)), stdout=subprocess.DEVNULL, stderr=errors
        )
        # This process stays small: on Linux the peak of a child starts with the memory of its parent.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            print(errors.read(), file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "GB": usage.ru_maxrss * kilobyte / 1e9}


def make_environment(options: Options, cache: str) -> dict[str, str]:
    """Return the environment of a contender or command."""
    variables = {**os.environ, CACHE: cache, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "jax"}
    variables.pop("JAX_COMPILATION_CACHE_DIR", None)
    if "PYTHONPATH" in os.environ:  # commands run in another folder
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        variables["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries if entry)
    if options.device:
        platform, _, number = options.device.partition(":")
        variables["JAX_PLATFORMS"] = "cpu" if platform == "cpu" else "cuda,cpu"  # "gpu" means ROCm too, and fails
        if platform == "cpu":
            variables["CUDA_VISIBLE_DEVICES"] = ""  # for TensorFlow and PyTorch
        elif number:
            variables["CUDA_VISIBLE_DEVICES"] = number
    return variables


def median(runs: Sequence[Numbers]) -> Numbers:
    """Return the median of each number."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def list_missing(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def note_missing(*packages: str) -> str:
    """Return a note that names the packages that are not installed, or nothing."""
    names = list_missing(packages)
    return f"{' and '.join(names)} missing" if names else ""
