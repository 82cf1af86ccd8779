"""Train lanes in a JAX process of their own, for Keras on TensorFlow or PyTorch.

The parent sends the problem and then tasks to the standard input of the child. The child writes its progress, warnings,
arrays and errors to its standard output, and requests the next batch of a stream in the same way. Anything else that
the child prints goes to the standard error of the parent. Neither process outlives the other: the child exits when its
standard input is closed, and the parent stops the child when the work is done.
"""

import collections
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from poise.path.executors.base import Arrays, Problem, Report, local_memory
from poise.path.executors.messages import read_message, write_message
from poise.path.executors.serialization import dump, dump_problem
from poise.path.lanes.problem import Task
from poise.path.training import Replica, Training

GRACE = 3.0
"""Seconds that the child has to end."""
LAST_LINES = 20
BOOTSTRAP = (
    "import os; channel = os.dup(1); os.dup2(2, 1); "
    "from poise.path.executors.subprocess_worker import main; main(channel)"
)
"""What the child runs: libraries that print while they are imported must not reach the channel."""


class SubprocessExecutor:
    """Train one chunk after the other in a new process on JAX.

    Args:
        problem: problem of the path.

    Raises:
        ValueError: If the problem cannot be sent to the process, or the model cannot be trained in lanes.
        RuntimeError: If the process dies.
        Exception: Any error raised in the process, with its traceback there as the cause.
    """

    parallel_chunks = 1

    def __init__(self, problem: Problem):
        self.memory = local_memory()
        self._data = problem.data
        self._batches: Any = None
        self._seen_warnings: dict = {}
        self._tail: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        data = ("stream", problem.data.description) if problem.is_stream else ("arrays", problem.data)
        pickles = dump_problem(problem), dump(data)
        # In a session of its own: Ctrl-C in the terminal reaches the parent only, which then ends the child.
        self._process: Any = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=_environment(), start_new_session=True,
        )  # fmt: skip
        self._forwarder = threading.Thread(target=self._forward_errors, daemon=True)
        self._forwarder.start()
        try:
            self._ask(lambda share: None, *pickles)
        except BaseException:
            self.close()
            raise

    def run(self, tasks: Iterator[tuple[int, Task]], report: Report) -> Iterator[tuple[int, Arrays]]:
        for number, task in tasks:
            yield number, self._ask(report, dump(("train", task)))

    def fastest_size(self, replica: Replica, training: Training, sizes: list[int]) -> int:
        return self._ask(lambda share: None, dump(("fastest_size", replica, training, sizes)))

    def close(self) -> None:
        process = self._process
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            process.kill()
            process.wait()
            self._forwarder.join(GRACE)
            for stream in (process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    stream.close()

    def _ask(self, report: Report, *messages: bytes) -> Any:
        """Send messages, and return the result that the child sends; handle what it sends before."""
        for message in messages:
            self._send(message)
        while True:
            match self._receive():
                case ("result", result):
                    return result
                case ("share", share):
                    report(share)
                case ("batch", number):
                    self._send(dump(self._next_batch(number)))
                case ("warning", text, category, file, line):
                    category = _load_or(category, UserWarning)
                    warnings.warn_explicit(text, category, file, line, registry=self._seen_warnings)
                case ("error", error, description, trace):
                    error = _load_or(error, RuntimeError(description))
                    raise error from RuntimeError(f"In the JAX subprocess:\n{trace}")

    def _next_batch(self, number: int) -> tuple:
        if number == 0:
            self._batches = self._data.passes()
        _, batch = next(self._batches)
        if number + 1 == self._data.batches:
            next(self._batches, None)  # which refuses a pass that continues
        return batch

    def _send(self, message: bytes) -> None:
        try:
            write_message(self._process.stdin, message)
        except BrokenPipeError:
            self._raise_death()

    def _receive(self) -> tuple:
        message = read_message(self._process.stdout)
        if message is None:
            self._raise_death()
        assert message is not None
        return pickle.loads(message)

    def _raise_death(self) -> None:
        code = self._process.wait()
        self._forwarder.join(GRACE)
        if code == -signal.SIGKILL:
            how = (
                "was killed (SIGKILL), most likely because memory ran out. Use fewer strengths or folds, or smaller "
                "batches."
            )
        elif code < 0:
            how = f"was ended by the signal {signal.Signals(-code).name}."
        else:
            how = f"ended with the exit code {code}."
        output = "".join(self._tail).strip()
        raise RuntimeError(f"The JAX subprocess {how}" + (f" Its last output:\n{output}" if output else ""))

    def _forward_errors(self) -> None:
        for line in self._process.stderr:
            text = line.decode("utf-8", errors="replace")
            self._tail.append(text)
            sys.stderr.write(text)


def _environment() -> dict[str, str]:
    """Return this process's environment with JAX on the CPU, unless it says otherwise: the parent uses the GPUs."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment.pop("PYTHONWARNINGS", None)  # the parent's filters judge all warnings
    if not {"CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"} & environment.keys():
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return environment


def _load_or(content: bytes, default: Any) -> Any:
    try:
        return pickle.loads(content)
    except Exception:  # a class that this process does not have
        return default
