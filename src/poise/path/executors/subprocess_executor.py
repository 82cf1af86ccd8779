"""A path in a JAX process of its own, for who runs Keras on TensorFlow or PyTorch.

The parent hands over a folder (`poise.path.executors.serialization`) and listens: the child tells its progress, its warnings and its
error through its standard output, one JSON object a line, and asks there for the next batch of data that pass by, which
the parent then tells to its standard input. What it prints goes to the parent's standard error. Neither outlives the
other: the child stops when its standard input is closed, and the parent stops it on the way out.
"""

import builtins
import collections
import contextlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path as Folder
from typing import Any

import keras

from poise.path.data.arrays import Data
from poise.path.executors.array_store import pack_batch, unpack_batch
from poise.path.executors.serialization import WORK, imported, pack, unpack
from poise.path.fit import solved
from poise.path.model_config import without_tensorflow
from poise.path.result import RegularizationPath
from poise.path.training import Replica
from poise.rules.rule import Rule

SOLUTION = "path"
GRACE = 3.0
"""Seconds that the child has to end by itself."""
PAUSE = 0.1
"""Seconds between two reports of progress."""
LAST_LINES = 20


def solved_in_child(
    model: keras.Model,
    rules: list[Rule],
    data: Data,
    replicas: list[Replica],
    *,
    report: Callable[[float], None],
    **settings: Any,
) -> RegularizationPath:
    """What `poise.path.fit.solved` does, with the same arguments, in a JAX process.

    Raises:
        ValueError: before the process is started, for what cannot be handed to it.
        RuntimeError: if it dies, or for an error of a class that is not built into Python.
        Exception: of a built-in class, what was raised there, with its traceback there as the cause.
    """
    before = random.getstate()  # Keras draws from it for the weights of every model that it rebuilds
    try:
        with tempfile.TemporaryDirectory(prefix="poise-path-") as folder:
            pack(folder, model, rules, data, replicas, **settings)
            with _Child(folder) as child:
                child.listen(report, data.x)
            return RegularizationPath.load(Folder(folder, SOLUTION), safe_mode=False)
    finally:
        random.setstate(before)


# ---------------------------------------------------------------- in the parent


class _Child:
    """The process, within a `with` that it does not outlive."""

    def __init__(self, folder: str):
        self._folder = folder
        self._tail: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._is_stopping = False

    def __enter__(self):
        command = [sys.executable, "-P", "-m", "poise.path.executors.subprocess_executor", self._folder]
        pipe = subprocess.PIPE
        # In a session of its own the terminal's Ctrl-C reaches the parent alone, which passes it on.
        self._process: Any = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment(), start_new_session=True,
            text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        self._forwarder = threading.Thread(target=self._forward, daemon=True)
        self._forwarder.start()
        return self

    def __exit__(self, kind, error, trace):
        process = self._process
        if error is not None and process.poll() is None:
            self._is_stopping = True
            process.send_signal(signal.SIGINT)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            process.kill()
            process.wait()
            self._forwarder.join(GRACE)
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    stream.close()

    def listen(self, report, x):
        """Passes on what the child tells until it is done, and gives it the batches of x, if that is a stream.

        Raises:
            RuntimeError: if it dies before that.
            Exception: what it raised.
        """
        seen: dict = {}
        batches: Any = None
        for line in self._process.stdout:
            match _message(line):
                case ["share", share]:
                    report(share)
                case ["batch", number]:
                    batches = x.passes() if number == 0 else batches
                    structure = pack_batch(self._folder, next(batches)[1])
                    if number + 1 == x.batches:
                        next(batches, None)  # it refuses a pass that goes on
                    with contextlib.suppress(BrokenPipeError):  # it died, and that is told below
                        self._process.stdin.write(json.dumps(structure) + "\n")
                        self._process.stdin.flush()
                case ["warning", text, category, file, number]:
                    warnings.warn_explicit(text, _category(category), file, number, registry=seen)
                case ["error", name, arguments, text, trace]:
                    raise _rebuilt(name, arguments, text) from RuntimeError(f"In the process that ran JAX:\n{trace}")
                case ["done"]:
                    return
                case _:
                    sys.stderr.write(line)
        self._raise_death()

    def _raise_death(self):
        code = self._process.wait()
        self._forwarder.join(GRACE)
        how = f"with the exit code {code}"
        if code < 0:
            how = f"by the signal {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", as the system does where memory is short"
        said = "".join(self._tail).strip()
        raise RuntimeError(
            f"The process that ran JAX was ended {how}. "
            + (f"The last that it wrote:\n{said}" if said else "It wrote nothing.")
        )

    def _forward(self):
        for line in self._process.stderr:
            self._tail.append(line)
            if not self._is_stopping:
                sys.stderr.write(line)


def _environment():
    """That of this process, on JAX, and on the CPU unless it says otherwise: the parent holds what else there is."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment.pop("PYTHONWARNINGS", None)  # the parent's filters judge all warnings
    if not {"CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"} & environment.keys():
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return environment


def _message(line):
    """What a line tells, as a list; None for what a library printed before the child could prevent it."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _category(name):
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else UserWarning


def _rebuilt(name, arguments, text) -> Exception:
    """The child's error as one of the same class, if that is Python's own."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        for given in (arguments, [text]):
            with contextlib.suppress(TypeError):
                error = kind(*given)
                if str(error) == text:
                    return error
    return RuntimeError(f"{name}: {text}")


# ---------------------------------------------------------------- in the child


def main(folder: str) -> None:
    """Solves what is in the folder, and puts the path there."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background leaves it ignored
    replies: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_follow_parent, args=(folder, replies), daemon=True).start()
    lock = threading.Lock()

    def send(*message):
        with lock:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

    def ask(number):
        send("batch", number)
        return unpack_batch(replies.get(), folder)

    def send_warning(message, category, filename, lineno, file=None, line=None):
        send("warning", str(message), f"{category.__module__}.{category.__qualname__}", filename, lineno)

    try:
        work = json.loads(Folder(folder, WORK).read_text(encoding="utf-8"))
        sys.path[:] = work["path"]
        with without_tensorflow(), warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = send_warning
            with keras.saving.custom_object_scope(imported(work["places"])):
                path = solved(**unpack(work, folder, ask), report=_paused(lambda share: send("share", share)))
            path.save(Folder(folder, SOLUTION))
        last: tuple = ("done",)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        last = ("error", type(error).__name__, [*filter(_is_plain, error.args)], str(error), trace)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send(*last)


def _follow_parent(folder, replies):
    """Takes in what the parent replies; ends this process when that is gone, and its end of the standard input."""
    with os.fdopen(0, encoding="utf-8", closefd=False) as lines:
        for line in lines:
            replies.put(json.loads(line))
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _paused(report):
    """`report`, at most every `PAUSE` seconds, save for the end."""
    last = -PAUSE

    def seldom(share):
        nonlocal last
        now = time.monotonic()
        if now - last >= PAUSE or share >= 1:
            last = now
            report(share)

    return seldom


def _is_plain(value):
    return value is None or isinstance(value, (str, int, float))


if __name__ == "__main__":
    main(sys.argv[1])
