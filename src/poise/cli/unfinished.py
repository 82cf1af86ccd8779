"""Where a study keeps finished work, so that the same command continues from it."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from poise.cli.errors import BadInputError, explain_os_error
from poise.files import CheckpointDamagedError, CheckpointError, CheckpointInUseError, Lock, take_lock

LOCK = ".lock"
CHUNKS = "chunk-*.npz"


class UnfinishedStudy:
    """The hidden folder of a study, next to its output. Other data or other arguments have another folder.

    Args:
        output: The folder of the finished study.
        data: The data, as the command received them.
        target: The targets, as the command received them.
        arguments: The other arguments that decide what is computed.

    Attributes:
        folder: Where the study keeps finished work.
    """

    def __init__(self, output: Path, data: str, target: Sequence[str] | None, arguments: Mapping[str, object]) -> None:
        named = output.resolve() if output.name in ("", "..") else output
        self.folder = named.with_name(f".{named.name}.unfinished") / _digest(data, target, arguments)

    def __bool__(self) -> bool:
        """Return whether any work is finished."""
        chunks = (chunk.relative_to(self.folder) for chunk in self.folder.rglob(CHUNKS))
        # A writer that was killed leaves a folder whose name starts with a dot.
        return any(not any(part.startswith(".") for part in chunk.parts) for chunk in chunks)

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Keep other processes out of the folder, and delete it at the end if no work is finished.

        Raises:
            BadInputError: If another process uses the folder, or it belongs to another study, or it is damaged.
            OSError: If it cannot be written.
        """
        created = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        lock = self._take_lock()
        try:
            yield
        except CheckpointInUseError as error:
            raise BadInputError(str(error)) from error
        except CheckpointError as error:
            is_damaged = isinstance(error, CheckpointDamagedError)
            why = "is damaged" if is_damaged else "belongs to other data, or to another network"
            raise BadInputError(
                f"Unfinished work in {str(self.folder)!r} {why}. Delete that folder to start from scratch."
            ) from error
        finally:
            if not self:
                self.discard(created)
            lock.release()
            if os.name == "nt" and not self:  # Windows does not delete open files
                self.discard(created)

    @contextlib.contextmanager
    def explain_how_to_continue(self) -> Iterator[None]:
        """Add how to continue to errors of the system."""
        try:
            yield
        except OSError as error:
            if not self:
                raise
            raise OSError(f"{explain_os_error(error)} {self._how_to_continue}") from error

    def discard(self, created: list[Path] | None = None) -> None:
        """Delete the folder.

        Args:
            created: Folders to delete too if they are empty. Default: `None`, the folder around it.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            for path in created or [self.folder.parent]:
                if path != self.folder:
                    path.rmdir()

    def farewell(self) -> str:
        """Return what to print when the command is interrupted."""
        return f"Stopped. {self._how_to_continue}" if self else "Stopped. Nothing was finished, and nothing is kept."

    @property
    def _how_to_continue(self) -> str:
        return f"Finished work is kept in {str(self.folder)!r}; the same command continues from it."

    def _take_lock(self) -> Lock:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = take_lock(self.folder / LOCK)
            except FileNotFoundError:  # the process that held it has just deleted the folder
                continue
            if lock is None:
                raise BadInputError(
                    f"The same study is already running, with unfinished work in {str(self.folder)!r}. Wait until it "
                    "ends, or stop it."
                )
            return lock


def _digest(data: str, target: Sequence[str] | None, arguments: Mapping[str, object]) -> str:
    state = os.stat(data) if os.path.isfile(data) else None
    version = None if state is None else (state.st_size, state.st_mtime_ns)
    content = json.dumps([os.path.abspath(data), version, target, arguments], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()[:16]
