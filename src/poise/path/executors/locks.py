"""Locks on files that the system releases when a process ends, however it ends."""

import errno
import os
import sys
import weakref

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # a byte far behind the content, which stays readable
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class Lock:
    """A file that is locked until `release`, the end of a `with`, or the end of the process."""

    def __init__(self, handle: int):
        self.release = weakref.finalize(self, os.close, handle)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_) -> None:
        self.release()


def take_lock(file: str | os.PathLike[str], *, create: bool = True) -> Lock | None:
    """Locks a file, without waiting.

    Args:
        file: where.
        create: whether the file is made if it is missing. A file system that has no locks then counts as free.

    Returns:
        None if another process or another `Lock` holds it, or if there is no such file and it is not to be made.

    Raises:
        OSError: the file cannot be opened.
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
            if error.errno in TAKEN or not create:
                os.close(handle)
                return None
        if _is_still_there(handle, file):
            return Lock(handle)
        os.close(handle)  # who held it before has deleted it


def _is_still_there(handle: int, file: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False
