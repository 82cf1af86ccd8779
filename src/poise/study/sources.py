"""Load a source of rows as a DataFrame, unchanged."""

import difflib
import functools
import os
import sys
from pathlib import Path

import pandas as pd
from narwhals.typing import IntoFrame
from sklearn import datasets

from poise.study import csv_files
from poise.study.binary_files import READERS, read_binary
from poise.study.csv_files import read_csv
from poise.study.errors import DataError
from poise.study.file_options import NO_OPTIONS, FileOptions
from poise.study.frames import to_frame
from poise.study.headers import check_header, name_columns

Source = str | os.PathLike[str] | IntoFrame
"""A path, the name of a built-in table, or a table in memory: of pandas, polars, Arrow or another
library that Narwhals knows."""
BUILT_IN = {
    "diabetes": datasets.load_diabetes,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
    "california": functools.partial(datasets.fetch_california_housing, download_if_missing=False),
}
UNSUPPORTED = {
    ".xls", ".ods", ".npy", ".json", ".jsonl", ".feather", ".pkl", ".h5", ".zip", ".gz", ".dta", ".sav", ".arff",
}  # fmt: skip
FORMATS = "a CSV, Parquet, Excel or NPZ file"


def load(
    source: Source, options: FileOptions = NO_OPTIONS, recorded: FileOptions = NO_OPTIONS
) -> tuple[str, str, pd.DataFrame]:
    """Load a source as it stands: rows to study, or new rows to predict.

    Args:
        source: `"diabetes"`, `"breast_cancer"`, `"digits"`, `"wine"`, `"california"` (if scikit-learn has it on disk),
            the path of a CSV, TSV, text, Parquet, Excel (.xlsx) or NPZ file, `"-"` for CSV on standard input, a
            DataFrame of pandas or polars, or an Arrow table.
        options: How to read a file. Default: no options.
        recorded: Options with which another file was read. They fill in what `options` leaves open, as far as the
            format of this file has them. Default: no options.

    Returns:
        What error messages call the source, the source as text, and the DataFrame. Its column names are unique text.
        The values of CSV are text.

    Raises:
        DataError: If the source cannot be read, or does not have an option.

    Examples:
        >>> from poise.study.sources import load
        >>> name, source, frame = load("wine")
        >>> name, source, frame.shape
        ('wine', 'wine', (178, 14))
    """
    if isinstance(source, str | os.PathLike):
        text = str(os.fspath(source))
        name = text if text in BUILT_IN else "standard input" if text == "-" else Path(text).name
        frame = _load(text, name, options, recorded)
    else:
        name, text, frame = "The table", "", take_frame(source, options)
    names = name_columns(frame.columns)
    check_header(names, name)
    if not len(frame):
        raise DataError(f"{name} is empty: it has a header but no rows.", "data")
    return name, text, frame.set_axis(names, axis="columns")


def take_frame(source: IntoFrame, options: FileOptions = NO_OPTIONS) -> pd.DataFrame:
    """Return a table in memory as a DataFrame.

    Raises:
        DataError: If the source is not a table, or an option is set.
    """
    frame = to_frame(source)
    if frame is None:
        raise DataError(
            "The data must be the path of a file, the name of a built-in table, a DataFrame or an Arrow table, got an "
            f"object of type {type(source).__name__}.",
            "data",
        )
    options.select((), "a table in memory")
    return frame


def _load(text: str, name: str, options: FileOptions, recorded: FileOptions) -> pd.DataFrame:
    if text in BUILT_IN:
        options.select((), "a built-in table")
        return _load_built_in(text)
    reader = READERS.get(Path(text).suffix.lower())
    used, file_format = (csv_files.OPTIONS, "CSV") if reader is None else (reader.options, reader.format)
    options = options.select(used, f"{name!r}, which is read as {file_format}", recorded)
    if text == "-":
        return read_csv(_read_standard_input(), name, options)
    path = Path(text)
    try:
        _check_path(path)
        if reader is None:
            return read_csv(path.read_bytes(), name, options)
        return read_binary(path, options)
    except PermissionError:
        raise DataError(f"{text!r} cannot be read: permission denied. Change its permissions, or copy it.") from None


def _read_standard_input() -> bytes:
    try:
        return sys.stdin.buffer.read()
    except (AttributeError, OSError, ValueError):  # there is none, or it is closed
        raise DataError("Standard input is closed and cannot be read. Give the path of a file.", "data") from None


def _load_built_in(name: str) -> pd.DataFrame:
    try:
        bunch = BUILT_IN[name](as_frame=True)
    except OSError:
        raise DataError(
            f"The built-in table {name!r} is not on this disk. Download it once, with a network connection: "
            "python -c 'from sklearn.datasets import fetch_california_housing as f; f()'.",
            "data",
        ) from None
    frame = bunch.frame
    if "target_names" in bunch and name != "california":
        frame = frame.assign(target=[str(bunch.target_names[code]) for code in frame["target"]])
    return frame


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder. Give the path of {FORMATS}.", "data")
    if not path.exists():
        siblings = [str(path.parent / other.name) for other in path.parent.iterdir()] if path.parent.is_dir() else []
        nearest = difflib.get_close_matches(str(path), [*BUILT_IN, *siblings], n=1, cutoff=0.8)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise DataError(
            f"The file {str(path)!r} does not exist.{hint} Give the path of {FORMATS}, or the name of a built-in "
            f"table: {', '.join(BUILT_IN)}.",
            "data",
        )
    if path.suffix.lower() in UNSUPPORTED:
        raise DataError(
            f"The format of {path.name!r} is not supported. Save it as CSV, Parquet, Excel (.xlsx) or NPZ, or pass a "
            "DataFrame.",
            "data",
        )
