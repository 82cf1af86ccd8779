"""Finished chunks of a path on disk, so that a call that was killed goes on where it was."""

import contextlib
import errno
import hashlib
import io
import json
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path as Folder

import keras
import numpy as np

from poise.files import CheckpointDamagedError, CheckpointError, CheckpointInUseError, Lock, take_lock
from poise.path.declared_sizes import check_arrays

VERSION = 2
RECORD, LOCK = "path.json", ".lock"
UNFINISHED = ".writing-"
"""How the names of files begin that are being written, or were when a call was killed."""
CHECKSUM = "checksum"
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_held: weakref.WeakValueDictionary[str, Lock] = weakref.WeakValueDictionary()
_holding = threading.Lock()


class Checkpoint:
    """A folder that holds the finished chunks of one path.

    A chunk is written to a temporary file and then moved to its name, so that no half-written one is ever found. Its
    name is a digest of what was trained: rows, first weights, strengths, factors and training. It carries a checksum,
    and one that does not fit is trained again. One process at a time uses a folder.

    Args:
        folder: made if it is missing.
        job: what the whole path depends on: nested dicts, lists, numbers, texts and arrays.

    Raises:
        ValueError: if the folder holds the chunks of another path, with what changed, is damaged, or is in use.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder, **job):
        self._folder = Folder(folder)
        mine = {"version": str(VERSION), **{name: _digest(part) for name, part in job.items()}}
        with self._in_one_sentence():
            self._folder.mkdir(parents=True, exist_ok=True)
            inside = {file.name for file in self._folder.iterdir()}
            if RECORD not in inside and any(name != LOCK and not name.startswith(UNFINISHED) for name in inside):
                raise ValueError(f"The folder {str(self._folder)!r} is not empty and no checkpoint. Use another.")
            self._lock = self._locked()
            for left in self._folder.glob(f"{UNFINISHED}*"):
                left.unlink(missing_ok=True)
            if RECORD not in inside:
                self._put(RECORD, lambda file: file.write(json.dumps(_signed(mine)).encode()))
                return
            theirs = self._kept(RECORD)
        if not isinstance(theirs, dict):
            raise CheckpointDamagedError(
                f"The checkpoint {str(self._folder)!r} is damaged: its {RECORD} is not what was written. Delete the "
                "folder to train from scratch, or use another."
            )
        changed = [name for name in mine if theirs.get(name) != mine[name]]
        if changed:
            raise CheckpointError(
                f"The checkpoint {str(self._folder)!r} was written for another path: {', '.join(changed)} changed "
                "since. Use the same call to resume it, or another folder."
            )

    def remembered(self, name: str, make):
        """A number that is found once, by `make`, and is the same in every later call."""
        with self._in_one_sentence():
            found = self._kept(f"{name}.json")
        if found is not None:
            return found
        made = make()
        with self._in_one_sentence():
            self._put(f"{name}.json", lambda out: out.write(json.dumps(_signed(made)).encode()))
        return made

    def read(self, task, training) -> dict | None:
        """What was written for this task; None if nothing was, or it is damaged."""
        file = self._folder / f"chunk-{_digest([task, training])}.npz"
        with self._in_one_sentence():
            if not file.exists():
                return None
            content = io.BytesIO(file.read_bytes())
        try:
            check_arrays(content)
            with np.load(content, allow_pickle=False) as stored:
                found = {name.replace("|", "/"): stored[name] for name in stored.files}
        except Exception:  # damaged archives raise what zipfile, zlib and NumPy happen to raise
            return None
        checksum = found.pop(CHECKSUM, None)
        return found if checksum is not None and checksum.tolist() == _checksum(found) else None

    def write(self, task, training, found):
        """Keeps the arrays of a task that is done."""
        arrays = {name.replace("/", "|"): value for name, value in found.items()}
        with self._in_one_sentence():
            arrays[CHECKSUM] = np.array(_checksum(found))
            self._put(f"chunk-{_digest([task, training])}.npz", lambda file: np.savez(file, **arrays))

    def _put(self, name, write):
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._folder / name)
        except BaseException:
            os.unlink(temporary)
            raise

    def _kept(self, name: str):
        """What a JSON file holds; None if it is missing, or is not what was written."""
        try:
            written = json.loads((self._folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            return None
        is_whole = isinstance(written, dict) and written == _signed(written.get("content"))
        return written["content"] if is_whole else None

    def _locked(self) -> Lock:
        """Shared by all of this process that use the folder, and held as long as any of them."""
        place = os.path.realpath(self._folder)
        with _holding:
            lock = _held.get(place)
            if lock is None:
                lock = take_lock(self._folder / LOCK)
                if lock is None:
                    raise CheckpointInUseError(
                        f"The checkpoint {str(self._folder)!r} is in use by another process. Wait until that has "
                        "ended, or use another folder."
                    )
                _held[place] = lock
            return lock

    @contextlib.contextmanager
    def _in_one_sentence(self) -> Iterator[None]:
        """What the system refuses, and how to continue."""
        try:
            yield
        except OSError as error:
            mend = "Free some space" if error.errno in FULL else "Correct that"
            raise OSError(
                f"The checkpoint {str(self._folder)!r} cannot be used: {error.strerror or error}. {mend}, and start "
                "the same again: it continues with what is finished."
            ) from error


def _checksum(arrays: dict) -> str:
    """Of names, shapes and bytes; the names of types are not those that were written where NumPy has none of them."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype.itemsize}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _signed(content) -> dict:
    return {"content": content, CHECKSUM: _digest(json.dumps(content, sort_keys=True))}


def _digest(part) -> str:
    found = hashlib.sha256()
    for leaf in _leaves(part):
        found.update(leaf)
    return found.hexdigest()[:24]


def _leaves(part):
    """The bytes of everything in nested structures, with its kind, so that nothing else gives the same."""
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
