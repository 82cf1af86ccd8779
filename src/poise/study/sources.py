"""Load a source of rows as a DataFrame, unchanged."""

import difflib
import functools
import os
import sys
from pathlib import Path

import pandas as pd
from sklearn import datasets

from poise.study.binary_files import READERS, read_binary
from poise.study.csv_files import read_csv
from poise.study.errors import DataError
from poise.study.headers import check_column, check_header

__all__ = ["BUILT_IN", "DataError", "Source", "check_column", "check_header", "load"]

Source = str | os.PathLike[str] | pd.DataFrame
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
    source: Source, *, delimiter: str | None = None, encoding: str | None = None
) -> tuple[str, str, pd.DataFrame]:  # fmt: skip
    """Load a source as it stands: rows to study, or new rows to predict.

    Args:
        source: `"diabetes"`, `"breast_cancer"`, `"digits"`, `"wine"`, `"california"` (if scikit-learn has it on disk),
            the path of a CSV, TSV, text, Parquet, Excel (.xlsx) or NPZ file, `"-"` for CSV on standard input, or a
            DataFrame.
        delimiter: Of CSV: one character or `"tab"`. Default: `None`, which finds it among , ; tab and |.
        encoding: Of CSV. Default: `None`, which takes the byte order mark, else UTF-8, else cp1252.

    Returns:
        What error messages call the source, the source as text, and the DataFrame. Its column names are unique text.
        The values of CSV are text.

    Raises:
        DataError: If the source cannot be read.

    Examples:
        >>> from poise.study.sources import load
        >>> name, source, frame = load("wine")
        >>> name, source, frame.shape
        ('wine', 'wine', (178, 14))
    """
    if isinstance(source, pd.DataFrame):
        name, text, frame = "The table", "", source
    else:
        try:
            text = str(os.fspath(source))
        except TypeError:
            raise DataError(
                f"The data must be the path of a file, the name of a built-in table or a DataFrame, got an object of "
                f"type {type(source).__name__}.",
                "data",
            ) from None
        name = text if text in BUILT_IN else "standard input" if text == "-" else Path(text).name
        frame = _load(text, name, delimiter, encoding)
    names = [str(column) for column in frame.columns]
    check_header(names, name)
    if not len(frame):
        raise DataError(f"{name!r} is empty: it has a header and no rows.", "data")
    return name, text, frame.set_axis(names, axis="columns")


def _load(text: str, name: str, delimiter: str | None, encoding: str | None) -> pd.DataFrame:
    if text in BUILT_IN:
        return _load_built_in(text)
    if text == "-":
        return read_csv(_read_standard_input(), name, delimiter, encoding)
    path = Path(text)
    try:
        _check_path(path)
        if path.suffix.lower() in READERS:
            return read_binary(path)
        return read_csv(path.read_bytes(), name, delimiter, encoding)
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
            "pandas DataFrame.",
            "data",
        )
