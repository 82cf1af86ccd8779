"""The child process of `SubprocessExecutor`: it trains tasks until its parent closes the standard input."""

import contextlib
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from poise._keras_internals import without_tensorflow
from poise.path.data.streams import RelayedStream
from poise.path.executors.base import Report
from poise.path.executors.messages import read_message, write_message
from poise.path.executors.serialization import dump, load_problem
from poise.path.executors.worker import LaneWorker

PAUSE = 0.1
"""Seconds between two reports of progress."""


def main(channel: int) -> None:
    """Load the problem and train tasks.

    Args:
        channel: file descriptor of the messages to the parent.
    """
    output = os.fdopen(channel, "wb")
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_messages, args=(messages,), daemon=True).start()
    lock = threading.Lock()

    def send(*message: Any) -> None:
        content = dump(message)
        with lock:
            write_message(output, content)

    def ask_batch(number: int) -> tuple:
        send("batch", number)
        return pickle.loads(messages.get())

    def send_warning(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        send("warning", str(message), _dump_or(category, UserWarning), filename, lineno)

    with without_tensorflow(), warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = send_warning
        with _sending_errors(send):
            problem = messages.get()
            kind, data = pickle.loads(messages.get())
            worker = LaneWorker(load_problem(problem, RelayedStream(ask_batch, *data) if kind == "stream" else data))
            send("result", None)
        report = _limit_rate(lambda share: send("share", share))
        while True:
            with _sending_errors(send):
                match pickle.loads(messages.get()):
                    case ("train", task):
                        send("result", worker.train(task, report))
                    case ("fastest_size", replica, training, sizes):
                        send("result", worker.fastest_size(replica, training, sizes))


def _read_messages(messages: queue.SimpleQueue) -> None:
    """Queue the parent's messages. End this process when the parent is gone, and with it the standard input."""
    with os.fdopen(0, "rb", closefd=False) as stream:
        while (message := read_message(stream)) is not None:
            messages.put(message)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(0)


@contextlib.contextmanager
def _sending_errors(send: Callable[..., None]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        description = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        vars(error).pop("__notes__", None)  # JAX adds some about its traceback, which stays here
        send("error", _dump_or(error.with_traceback(None), RuntimeError(description)), description, trace)


def _dump_or(thing: Any, default: Any) -> bytes:
    try:
        content = dump(thing)
        pickle.loads(content)
    except Exception:  # an error whose class takes other arguments than it has, or that holds what cannot be pickled
        return dump(default)
    return content


def _limit_rate(report: Report) -> Report:
    """Return `report`, which passes on one call per `PAUSE` seconds, and the last one."""
    last = -PAUSE

    def report_seldom(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PAUSE or share >= 1:
            last = now
            report(share)

    return report_seldom
