"""Checks of the sizes that a file declares, before anything in it is unpacked or built.

A small file can declare arrays, archives and layers that fill the memory of a machine.
"""

import math
import os
import re
import zipfile
from typing import IO

import numpy as np

FLOOR = 256 << 20
"""Bytes that any file may unpack to."""
EXPANSION = 100
"""A file that unpacks to more may unpack to this many times its own size. NumPy, Keras and Excel files stay below."""
LARGEST_JSON = 64 << 20
"""Bytes of a JSON file within an archive."""
MOST_CELLS = 10_000_000
"""Cells that any sheet may span."""
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def check_archive(file: str | os.PathLike[str] | IO[bytes]) -> int:
    """Return the bytes that a zip archive unpacks to.

    Raises:
        ValueError: If they are far more than it holds.
        zipfile.BadZipFile: If it is not a zip archive.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    for member in members:
        if member.filename.endswith(".json") and member.file_size > LARGEST_JSON:
            raise ValueError(f"{member.filename!r} in it unpacks to {format_bytes(member.file_size)}")
    unpacked = sum(member.file_size for member in members)
    check_expansion(unpacked, _size(file))
    return unpacked


def check_expansion(unpacked: int, held: int, *, floor: int | None = None, expansion: int = EXPANSION) -> None:
    """Check that a file unpacks to about what it holds, and to less than the memory of this machine.

    Raises:
        ValueError: If not.
    """
    if unpacked > max(FLOOR if floor is None else floor, expansion * held):
        raise ValueError(
            f"it holds {format_bytes(held)} and unpacks to {format_bytes(unpacked)}, which is not safe to read"
        )
    if unpacked > memory():
        raise ValueError(
            f"it unpacks to {format_bytes(unpacked)}, and this machine has {format_bytes(memory())} of memory"
        )


def check_arrays(file: str | os.PathLike[str] | IO[bytes]) -> None:
    """Check the arrays of an .npy or .npz file.

    Raises:
        ValueError: If one declares more than the file holds.
        zipfile.BadZipFile: If it is not an archive.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as content:
            check_arrays(content)
        return
    if not zipfile.is_zipfile(file):
        _check_array(file, _size(file), "it")
        file.seek(0)
        return
    check_archive(file)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as content:
                    _check_array(content, member.file_size, repr(member.filename))
    file.seek(0)


def check_cells(workbook: str | os.PathLike[str]) -> None:
    """Check that the sheets of an .xlsx file span about as many cells as they hold: each takes memory.

    Raises:
        ValueError: If one spans far more.
    """
    with zipfile.ZipFile(workbook) as archive:
        for name in archive.namelist():
            if not re.fullmatch(r"xl/worksheets/[^/]*\.xml", name):
                continue
            cells = re.findall(rb'<c [^>]*?r="([A-Z]{1,3})(\d{1,7})"', archive.read(name))
            columns = max((_number_of(letters) for letters in {letters for letters, _ in cells}), default=0)
            rows = max((int(row) for _, row in cells), default=0)
            if rows * columns > max(MOST_CELLS, EXPANSION * len(cells)):
                raise ValueError(f"a sheet spans {rows:,} rows of {columns:,} columns, and holds {len(cells):,} cells")


def memory() -> int:
    """Return the bytes of memory of this machine; 16 GB if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 16 << 30


def format_bytes(size: float) -> str:
    """Return 3.2 GB for 3200000000."""
    power = min(int(math.log(max(size, 1), 1000)), len(UNITS) - 1)
    return f"{size / 1000**power:.3g} {UNITS[power]}" if power else f"{size:.0f} bytes"


def _number_of(letters: bytes) -> int:
    """Return 28 for AB, the number of a column of a sheet."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number


def _size(file: str | os.PathLike[str] | IO[bytes]) -> int:
    return os.path.getsize(file) if isinstance(file, str | os.PathLike) else file.seek(0, os.SEEK_END)


def _check_array(content: IO[bytes], size: int, name: str) -> None:
    content.seek(0)
    if content.read(6) != b"\x93NUMPY":
        return
    content.seek(0)
    version = np.lib.format.read_magic(content)
    # The third version differs from the second in the encoding of field names only.
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(content)
    held = size - content.tell()
    declared = max(1, dtype.itemsize) * math.prod(max(1, length) for length in shape)
    spare = 1 << 20 if 0 in shape or dtype.hasobject else 0
    if min(shape, default=0) < 0 or declared > held + spare:
        raise ValueError(
            f"{name} declares an array of shape {shape}, {format_bytes(declared)}, and holds {format_bytes(held)}"
        )
