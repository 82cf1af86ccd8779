"""Messages between two processes: pickles with their length before them."""

import struct
from typing import IO

LENGTH = struct.Struct("<Q")


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Write a message.

    Raises:
        BrokenPipeError: If nobody reads the stream any more.
    """
    stream.write(LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """Read a message; None at the end of the stream."""
    length = stream.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    message = stream.read(*LENGTH.unpack(length))
    return message if len(message) == LENGTH.unpack(length)[0] else None
