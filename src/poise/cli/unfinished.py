"""Where a study keeps what is finished, so that the same command continues from it."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from poise.cli.screen import BadInputError, refusal
from poise.files import Lock, take_lock

LOCK = ".lock"


class Unfinished:
    """The hidden folder of one study beside its run: other options or other data have one of their own.

    Args:
        run: the folder of the run.
        data, target, asked: what the command was given, which says what it computes.

    Attributes:
        folder: where the study keeps what is finished.
    """

    def __init__(self, run: Path, data: str, target: str | None, asked: dict):
        named = run.resolve() if run.name in ("", "..") else run
        self.folder = named.with_name(f".{named.name}.unfinished") / _digest(data, target, asked)

    def __bool__(self) -> bool:
        """Whether anything is finished."""
        return any(self.folder.rglob("chunk-*.npz"))

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Within it no other process uses the folder; where nothing is finished in the end, nothing is left of it.

        Raises:
            BadInputError: another process uses it, or it belongs to another study or is damaged.
            OSError: it cannot be written.
        """
        made = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        lock = self._locked()
        try:
            yield
        except ValueError as error:
            text = str(error)
            if not text.startswith("The checkpoint "):
                raise
            if " is in use " in text:
                raise BadInputError(text) from error
            why = "is damaged" if " is damaged: " in text else "belongs to other data, or to another network"
            raise BadInputError(
                f"What an earlier call finished in {str(self.folder)!r} {why}. Delete that folder to start from "
                "scratch."
            ) from error
        finally:
            if not self:
                self.discard(made)
            lock.release()
            if os.name == "nt" and not self:  # which deletes no open file
                self.discard(made)

    @contextlib.contextmanager
    def continued(self) -> Iterator[None]:
        """Says how to continue where the run cannot be saved."""
        try:
            yield
        except OSError as error:
            if not self or str(error).startswith("The checkpoint "):  # which says so itself
                raise
            raise OSError(
                f"{refusal(error)} What is finished is kept in {str(self.folder)!r}: the same command continues from "
                "there."
            ) from error

    def discard(self, made: list[Path] | None = None) -> None:
        """Deletes the folder, that around it if no other study uses it, and the empty folders that were made for it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            for place in made or [self.folder.parent]:
                if place != self.folder:
                    place.rmdir()

    def farewell(self) -> str:
        """What is said when the command is stopped."""
        if self:
            return f"Stopped. What is finished is kept in {str(self.folder)!r}; the same command continues from there."
        return "Stopped before anything was finished; nothing is kept."

    def _locked(self) -> Lock:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = take_lock(self.folder / LOCK)
            except FileNotFoundError:  # who held it before has just deleted the folder
                continue
            if lock is None:
                raise BadInputError(
                    f"The same study is running already, and keeps what is finished in {str(self.folder)!r}. Wait "
                    "until it has ended, or stop it."
                )
            return lock


def _digest(data: str, target: str | None, asked: dict) -> str:
    state = os.stat(data) if os.path.isfile(data) else None
    version = None if state is None else (state.st_size, state.st_mtime_ns)
    told = json.dumps([os.path.abspath(data), version, target, asked], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()[:16]
