"""Read Parquet, Excel and NPZ files."""

import importlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from poise.path.declared_sizes import check_archive, check_arrays, check_cells, check_expansion
from poise.study.errors import DataError


class Reader(NamedTuple):
    """How a file format is read.

    Args:
        format: The format's name in messages.
        read: A function of the path that returns the table.
        requirement: What to install if a package is missing.
    """

    format: str
    read: Callable[[Path], pd.DataFrame]
    requirement: str


def read_binary(path: Path) -> pd.DataFrame:
    """Read a file whose suffix is in `READERS`.

    Raises:
        DataError: If the file is damaged or of another format, or a package is missing.
    """
    reader = READERS[path.suffix.lower()]
    try:
        return reader.read(path)
    except MemoryError:
        raise DataError(f"{path.name!r} does not fit in memory. Use fewer rows or columns.") from None
    except ImportError:
        raise DataError(
            f"{path.name!r} is a file in {reader.format} format, and the package that reads it is not installed. Run "
            f'`pip install "{reader.requirement}"`.'
        ) from None
    except (PermissionError, DataError):
        raise
    except Exception as error:  # libraries raise anything when a file is damaged
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{path.name!r} cannot be read as {reader.format}: {reason}. It may be damaged or in another format; write "
            "it again, or save it as CSV."
        ) from None


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as content:
        about = content.metadata
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        size = max(8 * about.num_rows * about.num_columns, sum(group.total_byte_size for group in groups))
    check_expansion(size, path.stat().st_size, floor=1 << 30, expansion=1000)  # repeated values take no room
    return pd.read_parquet(path)


def _read_excel(path: Path) -> pd.DataFrame:
    importlib.import_module("openpyxl")  # report a missing package before a damaged file
    check_archive(path)
    check_cells(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and the like, which hold no values
        with pd.ExcelFile(path, engine="openpyxl") as book:
            header, frame = pd.read_excel(book, header=None, nrows=1), pd.read_excel(book)
    if header.empty:
        raise DataError(f"{path.name!r} is empty. A table needs a header line and rows.")
    # The names as written: pandas would rename a second "a" to "a.1" and an empty one to "Unnamed: 0".
    names = ["" if pd.isna(column) else str(column) for column in header.iloc[0]]
    return frame.set_axis(names, axis="columns")


def _read_npz(path: Path) -> pd.DataFrame:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an archive of arrays")
    check_arrays(path)
    with np.load(path, allow_pickle=False) as archive:
        parts = [_read_array(name, archive, path.name) for name in archive.files]
    if not parts:
        raise DataError(f"{path.name!r} holds no arrays. Save x with shape (rows, columns) and y with shape (rows,).")
    rows = {name: len(part) for part in parts for name in part.columns[:1]}
    if len(set(rows.values())) != 1:
        raise DataError(
            f"The arrays of {path.name!r} must have the same number of rows, got {rows}. Give every row an entry in "
            "each array."
        )
    return pd.concat(parts, axis="columns")


def _read_array(name: str, archive: np.lib.npyio.NpzFile, file: str) -> pd.DataFrame:
    try:
        array = archive[name]
    except ValueError:
        raise DataError(
            f"Array {name!r} of {file!r} holds pickled objects, which can run code and are not read. Save numbers or "
            "text."
        ) from None
    label = name.lower() if name in ("X", "Y") else name
    if label == "y" and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufUMm":
        raise DataError(
            f"Array {name!r} of {file!r} has shape {array.shape} and type {array.dtype}. Save x with shape (rows, "
            "columns) and y with shape (rows,), as numbers or text."
        )
    names = [label] if array.ndim == 1 else [f"{label}{number}" for number in range(array.shape[1])]
    return pd.DataFrame(array.reshape(len(array), len(names)), columns=names, copy=False)


READERS = {
    ".parquet": Reader("Parquet", _read_parquet, "pyarrow"),
    ".pq": Reader("Parquet", _read_parquet, "pyarrow"),
    ".xlsx": Reader("Excel", _read_excel, "poise[excel]"),
    ".xlsm": Reader("Excel", _read_excel, "poise[excel]"),
    ".npz": Reader("NPZ", _read_npz, "numpy"),
}
"""By suffix the reader; every other suffix is read as CSV."""
