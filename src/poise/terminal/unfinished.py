"""Where a study keeps what is finished, so that the same command goes on from it."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poise.terminal.screen import BadInputError


def unfinished_of(folder: Path) -> Path:
    """The hidden folder beside a run's in which what is finished is kept."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    return named.with_name(f".{named.name}.unfinished")


def digest(data: str, target: str | None, asked: dict) -> str:
    """A name for the same study of the same data: another begins anew beside it."""
    state = os.stat(data) if os.path.isfile(data) else None
    version = None if state is None else (state.st_size, state.st_mtime_ns)
    told = json.dumps([os.path.abspath(data), version, target, asked], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()[:16]


@contextmanager
def checkpoint_errors(unfinished: Path) -> Iterator[None]:
    """What is finished may belong to other rows or another network, where no option tells so."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("The checkpoint "):
            raise
        raise BadInputError(
            f"What an earlier call finished in {str(unfinished)!r} belongs to other data, or to another network. "
            "Delete that folder to begin anew."
        ) from error
