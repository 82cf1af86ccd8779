"""Read Parquet, Excel and NPZ files."""

import functools
import importlib
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from poise.path.declared_sizes import check_archive, check_arrays, check_cells, check_expansion
from poise.study.errors import DataError, quote_names
from poise.study.file_options import NO_OPTIONS, FileOptions
from poise.study.first_line import Line, check_first_line
from poise.study.frames import arrow_to_frame

SAMPLE_ROWS = 200


class Reader(NamedTuple):
    """How a file format is read.

    Args:
        format: The format's name in messages.
        read: A function of the path and the options that returns the table.
        requirement: What to install if a package is missing.
        options: The options that the format has. Default: none.
    """

    format: str
    read: Callable[[Path, FileOptions], pd.DataFrame]
    requirement: str
    options: tuple[str, ...] = ()


def read_binary(path: Path, options: FileOptions = NO_OPTIONS) -> pd.DataFrame:
    """Read a file whose suffix is in `READERS`.

    Raises:
        DataError: If the file is damaged or of another format, or a package is missing.
    """
    reader = READERS[path.suffix.lower()]
    try:
        return reader.read(path, options)
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


def _read_parquet(path: Path, options: FileOptions) -> pd.DataFrame:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as content:
        about = content.metadata
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        size = max(8 * about.num_rows * about.num_columns, sum(group.total_byte_size for group in groups))
        check_expansion(size, path.stat().st_size, floor=1 << 30, expansion=1000)  # repeated values take no room
        return arrow_to_frame(content.read())


def _read_excel(path: Path, options: FileOptions) -> pd.DataFrame:
    importlib.import_module("openpyxl")  # report a missing package before a damaged file
    check_archive(path)
    check_cells(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and the like, which hold no values
        with pd.ExcelFile(path, engine="openpyxl") as book:
            sheet, skipped = _find_sheet(options.sheet, book.sheet_names, path.name), options.skip_rows or 0
            # Cells as they are: pandas would make numbers of text, and missing values of "NA" and "None".
            read = functools.partial(
                pd.read_excel, book, sheet_name=sheet, skiprows=skipped, dtype=object, keep_default_na=False,
                na_values=[""],
            )  # fmt: skip
            cells = read(header=None, nrows=SAMPLE_ROWS)
            if cells.empty:
                raise DataError(f"{path.name!r} is empty. A table needs a header line and rows.")
            frame = read().infer_objects()
    lines = [
        Line(skipped + number, ["" if pd.isna(cell) else str(cell) for cell in row])
        for number, row in enumerate(cells.itertuples(index=False, name=None), start=1)
    ]
    check_first_line(lines, path.name)
    # The names as written: pandas would rename a second "a" to "a.1" and an empty one to "Unnamed: 0".
    names = [*lines[0].fields, *[""] * (frame.shape[1] - len(lines[0].fields))]
    return frame.set_axis(names, axis="columns")


def _find_sheet(sheet: str | int | None, names: Sequence[object], file: str) -> str | int:
    """Return the name or position of a sheet, given its name or its number from 1."""
    if sheet is None or str(sheet) in names:
        return 0 if sheet is None else str(sheet)
    if str(sheet).isdecimal() and 1 <= int(sheet) <= len(names):
        return int(sheet) - 1
    raise DataError(
        f"{file!r} has no sheet {sheet!r}. Its sheets are {quote_names(names)}; a number counts from 1.", "sheet"
    )


def _read_npz(path: Path, options: FileOptions) -> pd.DataFrame:
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
    ".xlsx": Reader("Excel", _read_excel, "poise[excel]", ("sheet", "skip_rows")),
    ".xlsm": Reader("Excel", _read_excel, "poise[excel]", ("sheet", "skip_rows")),
    ".npz": Reader("NPZ", _read_npz, "numpy"),
}
"""By suffix the reader; every other suffix is read as CSV."""
