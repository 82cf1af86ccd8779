"""Finished chunks of a path on disk, so that a call that was killed resumes."""

import contextlib
import hashlib
import io
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from poise.files import (
    CannotWriteError,
    CheckpointDamagedError,
    CheckpointError,
    CheckpointInUseError,
    Lock,
    replace_file,
    take_lock,
)
from poise.path.declared_sizes import check_arrays
from poise.path.lanes.problem import Task

VERSION = 4
RECORD, LOCK = "path.json", ".lock"
CHECKSUM = "checksum"
_locks: weakref.WeakValueDictionary[str, Lock] = weakref.WeakValueDictionary()
_locks_guard = threading.Lock()


class Checkpoint:
    """A folder that holds the finished chunks of one path.

    Files are replaced atomically, so that none is half written. The name of a chunk is a digest of its task. It carries
    a checksum, and a damaged one is trained again. One process at a time uses a folder.

    Args:
        folder: created if it is missing.
        parts: everything that the path depends on: nested dicts, lists, numbers, texts and arrays.

    Raises:
        CheckpointError: If the folder holds the chunks of another path, is damaged, or is in use.
        OSError: If it cannot be read or written.
    """

    def __init__(self, folder: str | os.PathLike[str], **parts: Any):
        self._folder = Path(folder)
        digests = {"version": str(VERSION), **{name: _digest(part) for name, part in parts.items()}}
        with self._explaining_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            names = {file.name for file in self._folder.iterdir()}
            if RECORD not in names and any(not name.startswith(".") for name in names):
                raise ValueError(
                    f"The folder {str(self._folder)!r} is not empty and not a checkpoint. Use another folder."
                )
            self._lock = self._take_lock()
            if RECORD not in names:
                self._write_json(RECORD, digests)
                return
            saved = self._read_json(RECORD)
        if not isinstance(saved, dict):
            raise CheckpointDamagedError(
                f"The checkpoint {str(self._folder)!r} is damaged ({RECORD} cannot be read). Delete the folder to "
                "start from scratch, or pass a different folder."
            )
        changed = [name for name in digests if saved.get(name) != digests[name]]
        if changed:
            raise CheckpointError(
                f"The checkpoint {str(self._folder)!r} was written by a different call ({', '.join(changed)} changed). "
                "Repeat the original call to resume it, or pass a different folder."
            )

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a number that `compute` gives once and that is the same in every later call."""
        with self._explaining_errors():
            value = self._read_json(f"{name}.json")
        if value is None:
            value = compute()
            with self._explaining_errors():
                self._write_json(f"{name}.json", value)
        return value

    def read(self, task: Task) -> dict[str, np.ndarray] | None:
        """Return the arrays of a finished task; None if it is not finished, or its file is damaged."""
        file = self._chunk(task)
        with self._explaining_errors():
            if not file.exists():
                return None
            content = io.BytesIO(file.read_bytes())
        try:
            check_arrays(content)
            with np.load(content, allow_pickle=False) as stored:
                arrays = {name.replace("|", "/"): stored[name] for name in stored.files}
        except Exception:  # damaged archives raise whatever zipfile, zlib and NumPy happen to raise
            return None
        checksum = arrays.pop(CHECKSUM, None)
        return arrays if checksum is not None and checksum.tolist() == _checksum(arrays) else None

    def write(self, task: Task, arrays: Mapping[str, np.ndarray]) -> None:
        """Save the arrays of a finished task."""
        stored: dict[str, Any] = {name.replace("/", "|"): value for name, value in arrays.items()}
        with self._explaining_errors():
            stored[CHECKSUM] = np.array(_checksum(arrays))
            with replace_file(self._chunk(task)) as file:
                np.savez(file, **stored)

    def _chunk(self, task: Task) -> Path:
        return self._folder / f"chunk-{_digest(task)}.npz"

    def _write_json(self, name: str, content: Any) -> None:
        with replace_file(self._folder / name) as file:
            file.write_text(json.dumps(_sign(content)), encoding="utf-8")

    def _read_json(self, name: str) -> Any:
        """Return the content of a JSON file; None if it is missing or damaged."""
        try:
            written = json.loads((self._folder / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        is_whole = isinstance(written, dict) and written == _sign(written.get("content"))
        return written["content"] if is_whole else None

    def _take_lock(self) -> Lock:
        """Return the lock of the folder, shared by all of this process that use it."""
        folder = os.path.realpath(self._folder)
        with _locks_guard:
            lock = _locks.get(folder) or take_lock(self._folder / LOCK)
            if lock is None:
                raise CheckpointInUseError(
                    f"The checkpoint {str(self._folder)!r} is in use by another process. Wait until it has ended, or "
                    "use another folder."
                )
            _locks[folder] = lock
            return lock

    @contextlib.contextmanager
    def _explaining_errors(self) -> Iterator[None]:
        """Raise errors of the system with what to do."""
        try:
            yield
        except OSError as error:
            failure = error if isinstance(error, CannotWriteError) else CannotWriteError(self._folder, error)
            is_forbidden = isinstance(error.__cause__ or error, PermissionError)
            fix = "Fix the permissions" if is_forbidden else "Fix the problem"
            remedy = "Free some disk space" if failure.is_full else fix
            raise OSError(
                f"The checkpoint {str(self._folder)!r} cannot be read or written: {failure.reason}. {remedy} and run "
                "the same call again; it resumes from the finished work."
            ) from error


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a digest of names, shapes and bytes, without types: NumPy stores JAX types under other names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype.itemsize}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _sign(content: Any) -> dict:
    return {"content": content, CHECKSUM: _digest(json.dumps(content, sort_keys=True))}


def _digest(part: Any) -> str:
    digest = hashlib.sha256()
    for leaf in _leaves(part):
        digest.update(leaf)
    return digest.hexdigest()[:24]


def _leaves(part: Any) -> Iterator[bytes]:
    """Yield the bytes of everything in nested structures, with its type, so that nothing else gives the same."""
    if isinstance(part, dict):
        for key in sorted(part, key=repr):
            yield repr(key).encode()
            yield from _leaves(part[key])
    elif isinstance(part, (list, tuple)):
        yield f"[{len(part)}".encode()
        for inner in part:
            yield from _leaves(inner)
    elif isinstance(part, np.ndarray):
        yield f"{part.dtype}{part.shape}".encode()
        yield np.ascontiguousarray(part).tobytes()
    elif hasattr(part, "__dataclass_fields__"):
        yield from _leaves({name: getattr(part, name) for name in part.__dataclass_fields__})
    elif isinstance(part, keras.Variable):
        yield from _leaves(keras.ops.convert_to_numpy(part))
    else:
        yield repr(part).encode()
