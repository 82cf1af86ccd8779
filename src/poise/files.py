"""Files that are written whole or not at all: atomic replacement, locks, checksums, and "may I write here?"."""

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # a byte far after the content, which stays readable
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCKED = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
LOCK = "lock"


class OutputExistsError(FileExistsError):
    """The output exists and may be replaced only on request.

    Attributes:
        path: Path of the output.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        super().__init__(f"{str(path)!r} already exists. Pass overwrite=True to replace it.")


class CannotWriteError(OSError):
    """The system refuses to write the output.

    Attributes:
        path: Path of the output.
        reason: Reason as the system states it.
        is_full: Whether the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str], error: OSError):
        self.path = Path(path)
        self.reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        self.is_full = error.errno in DISK_FULL
        hint = "Free some disk space or choose another path." if self.is_full else "Choose another path."
        super().__init__(f"{str(path)!r} cannot be written: {self.reason}. {hint}")


class CheckpointError(ValueError):
    """A folder of finished work cannot be continued: it belongs to other work, is in use, or is damaged."""


class CheckpointInUseError(CheckpointError):
    """Another process uses the folder."""


class CheckpointDamagedError(CheckpointError):
    """The folder does not hold what was written."""


@contextlib.contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `target` at the end. After an error `target` is unchanged."""
    with _folder_beside(target) as beside:
        new, old = beside / "new", beside / "old"
        new.mkdir()
        yield new
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise


@contextlib.contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Yield the path of a new file that takes the place of `target` at the end.

    Raises:
        CannotWriteError: If it cannot be written; `target` is then unchanged.
    """
    try:
        with _folder_beside(target) as beside:
            new = beside / target.name
            yield new
            new.replace(target)
    except CannotWriteError:
        raise
    except OSError as error:
        raise CannotWriteError(target, error) from error


def clear_leftovers(target: Path) -> None:
    """Delete temporary folders of killed writers next to `target`, and restore what they had moved away.

    Folders of writers that still run are kept.
    """
    with contextlib.suppress(OSError):
        for beside in target.parent.glob(f"{glob.escape(_prefix(target))}*"):
            lock = take_lock(beside / LOCK, create=False)
            if lock is None:
                continue
            with lock:
                if (beside / LOCK).read_text(encoding="utf-8", errors="surrogateescape") != target.name:
                    continue
                if (beside / "old").exists() and not target.exists():
                    (beside / "old").rename(target)
            shutil.rmtree(beside, ignore_errors=True)


def write_bytes(file: str | os.PathLike[str], content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def checksum(file: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file as hexadecimal text."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_writable(target: str | os.PathLike[str]) -> None:
    """Check that something can be written at `target`, without leaving a trace.

    Raises:
        CannotWriteError: If not, with the reason.
    """
    try:
        whole = Path(target).resolve()
        check_name(whole)
        nearest = next(parent for parent in whole.parents if parent.exists())
        tempfile.TemporaryDirectory(dir=nearest).cleanup()
    except OSError as error:
        raise CannotWriteError(target, error) from error


def check_name(path: Path) -> None:
    """Check that the path is valid UTF-8, which some libraries need to write a file.

    Raises:
        OSError: If it is not.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise OSError(errno.EILSEQ, "its name, or the name of a folder around it, is not UTF-8") from None


class Lock:
    """A lock on a file, which ends with `release`, with the `with` block, or with the process."""

    def __init__(self, handle: int):
        self.release = weakref.finalize(self, os.close, handle)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def take_lock(file: str | os.PathLike[str], *, create: bool = True) -> Lock | None:
    """Lock a file without waiting.

    Args:
        file: Path of the file.
        create: Whether to create the file if it is missing. A file system without locks then counts as free.

    Returns:
        The lock; None if another process or another `Lock` holds it, or the file is missing and `create` is False.

    Raises:
        OSError: If the file cannot be opened.
    """
    while True:
        try:
            handle = os.open(file, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            _lock(handle)
        except OSError as error:
            if error.errno in LOCKED or not create:
                os.close(handle)
                return None
        if _is_open_file(handle, file):
            return Lock(handle)
        os.close(handle)  # the previous holder has deleted it


def _is_open_file(handle: int, file: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `target`, with a lock that shows other processes that this one runs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target)
    with tempfile.TemporaryDirectory(prefix=_prefix(target), dir=target.parent) as beside:
        file = Path(beside) / LOCK
        while (lock := take_lock(file)) is None:  # another process is checking it for leftovers
            time.sleep(0.01)
        with lock:
            file.write_text(target.name, encoding="utf-8", errors="surrogateescape")
            yield Path(beside)


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}.saving-"
