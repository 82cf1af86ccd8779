"""Finished chunks of a path on disk, so that a call that was killed goes on where it was."""

import hashlib
import json
import os
import tempfile
from pathlib import Path as Folder

import keras
import numpy as np

VERSION = 1
UNFINISHED = ".writing-"
"""How the names of files begin that are being written, or were when a call was killed."""


class Checkpoint:
    """A folder that holds the finished chunks of one path.

    A chunk is written to a temporary file and then moved to its name, so that no half-written one is ever found. Its
    name is a digest of what was trained: rows, first weights, strengths, factors and training.

    Args:
        folder: made if it is missing.
        job: what the whole path depends on: nested dicts, lists, numbers, texts and arrays.

    Raises:
        ValueError: if the folder holds the chunks of another path, with what changed.
    """

    def __init__(self, folder, **job):
        self._folder = Folder(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        mine = {"version": str(VERSION), **{name: _digest(part) for name, part in job.items()}}
        about = self._folder / "path.json"
        if about.exists():
            theirs = json.loads(about.read_text(encoding="utf-8"))
            changed = [name for name in mine if theirs.get(name) != mine[name]]
            if changed:
                raise ValueError(
                    f"The checkpoint {str(self._folder)!r} was written for another path: {', '.join(changed)} changed "
                    "since. Use the same call to resume it, or another folder."
                )
        elif any(not file.name.startswith(UNFINISHED) for file in self._folder.iterdir()):
            raise ValueError(f"The folder {str(self._folder)!r} is not empty and no checkpoint. Use another.")
        else:
            self._put("path.json", lambda file: file.write(json.dumps(mine).encode()))

    def remembered(self, name: str, make):
        """A number that is found once, by `make`, and is the same in every later call."""
        file = self._folder / f"{name}.json"
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))
        made = make()
        self._put(file.name, lambda out: out.write(json.dumps(made).encode()))
        return made

    def read(self, task, training) -> dict | None:
        """What was written for this task, or None."""
        file = self._folder / f"chunk-{_digest([task, training])}.npz"
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as stored:
            return {name.replace("|", "/"): stored[name] for name in stored.files}

    def write(self, task, training, found):
        """Keeps the arrays of a task that is done."""
        arrays = {name.replace("/", "|"): value for name, value in found.items()}
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
