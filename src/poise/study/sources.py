"""Any source of rows as a frame, read as it stands.

Encoding, delimiter and decimal mark of a text are found or given. What cannot be read is refused in a sentence that
says what to do.
"""

import codecs
import collections
import csv
import difflib
import functools
import importlib
import io
import itertools
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets

from poise.path.declared_sizes import check_archive, check_arrays, check_cells, check_expansion

Source = str | os.PathLike[str] | pd.DataFrame
BUILT_IN = {
    "diabetes": datasets.load_diabetes,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
    "california": functools.partial(datasets.fetch_california_housing, download_if_missing=False),
}
DELIMITERS = (",", ";", "\t", "|")
NOT_READ = {
    ".xls",
    ".ods",
    ".npy",
    ".json",
    ".jsonl",
    ".feather",
    ".pkl",
    ".h5",
    ".zip",
    ".gz",
    ".dta",
    ".sav",
    ".arff",
}
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16 does, hence before it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SAMPLE = 1 << 20
SPACES = " '’\u00a0\u2009\u202f"


class DataError(ValueError):
    """The data, or what is asked of them, cannot be studied. The text says what, why and what to do instead."""


def load(
    source: Source, *, delimiter: str | None = None, decimal: str | None = None, encoding: str | None = None
) -> tuple[str, str, pd.DataFrame]:
    """Reads a source as it stands: rows to study, or new ones to predict.

    Args:
        source: "diabetes", "breast_cancer", "digits", "wine", "california" (where scikit-learn has it on disk), the
            path of a CSV, TSV, text, Parquet, Excel (.xlsx) or NPZ file, "-" for CSV on standard input, or a DataFrame.
        delimiter: of CSV; one character or "tab". None finds it among , ; tab and |.
        decimal: of CSV; "." or ",". None finds it.
        encoding: of CSV. None finds it: a byte order mark, else UTF-8, else cp1252.

    Returns:
        the name by which errors call it, the source as text, and the frame; its names are text, none twice.

    Raises:
        DataError: it cannot be read; the text says why and what to do.

    Example:
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
                f"An object of type {type(source).__name__} is no table. Give the path of a file, a built-in "
                "table or a DataFrame."
            ) from None
        name = text if text in BUILT_IN else "standard input" if text == "-" else Path(text).name
        frame = _load(text, name, delimiter, decimal, encoding)
    names = [str(column) for column in frame.columns]
    check_header(names, name)
    if not len(frame):
        raise DataError(f"{name!r} is empty: it has a header and no rows.")
    return name, text, frame.set_axis(names, axis="columns")


def _load(text: str, name: str, delimiter: str | None, decimal: str | None, encoding: str | None) -> pd.DataFrame:
    if text in BUILT_IN:
        return _built_in(text)
    if text == "-":
        return _read_csv(_standard_input(), name, delimiter, decimal, encoding)
    path = Path(text)
    ending = path.suffix.lower()
    try:
        _check_path(path)
        if ending in READERS:
            return _read_binary(path, ending)
        return _read_csv(path.read_bytes(), name, delimiter, decimal, encoding)
    except PermissionError:
        raise DataError(f"{text!r} may not be read. Change its permissions, or copy it.") from None


def _standard_input() -> bytes:
    try:
        return sys.stdin.buffer.read()
    except (AttributeError, OSError, ValueError):  # there is none, or it is closed
        raise DataError("The standard input is closed and cannot be read. Give the path of a file.") from None


def _built_in(name: str) -> pd.DataFrame:
    try:
        bunch = BUILT_IN[name](as_frame=True)
    except OSError:
        raise DataError(
            f"The built-in table {name!r} is not on this disk. Fetch it once, where there is a network: "
            "python -c 'from sklearn.datasets import fetch_california_housing as f; f()'."
        ) from None
    frame = bunch.frame
    if "target_names" in bunch and name != "california":
        frame = frame.assign(target=[str(bunch.target_names[code]) for code in frame["target"]])
    return frame


def _check_path(path: Path) -> None:
    kinds = "a CSV, Parquet, Excel or NPZ file"
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder. Give the path of {kinds}.")
    if not path.exists():
        beside = [str(path.parent / other.name) for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), [*BUILT_IN, *beside], n=1, cutoff=0.8)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"There is no file {str(path)!r}.{meant} Give the path of {kinds}, or a built-in table: "
            f"{', '.join(BUILT_IN)}."
        )
    if path.suffix.lower() in NOT_READ:
        raise DataError(
            f"{path.name!r} is of a kind that is not read. Save it as CSV, Parquet, Excel (.xlsx) or NPZ, or pass a "
            "pandas DataFrame."
        )


def _read_csv(
    content: bytes, name: str, delimiter: str | None, decimal: str | None, encoding: str | None
) -> pd.DataFrame:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise DataError(f"Delimiter {delimiter!r} is not one character. Give one, such as ';', or leave it out.")
    if decimal not in (None, ".", ","):
        raise DataError(f"Decimal mark {decimal!r} is unknown. Give '.' or ',', or leave it out to find it.")
    encoding = _find_encoding(content, name, encoding)
    sample = _sample(content, encoding)
    if "\0" in sample:
        raise DataError(f"{name!r} is not text: it holds zero bytes. Save it as CSV in UTF-8, or give its encoding.")
    if not sample.strip():
        raise DataError(f"{name!r} is empty. A table needs a header line and rows.")
    found = _find_delimiter(sample)
    rows = _rows(sample, delimiter or found)
    if delimiter and rows and len(rows[0]) == 1 and len((_rows(sample, found) or [[]])[0]) > 1:
        raise DataError(
            f"{name!r} is not separated by {delimiter!r}: its header would be one name, {few_of(rows[0])}. "
            f"Give {found!r} as the delimiter, or leave it out to find it."
        )
    check_header(rows[0] if rows else [], name)
    delimiter = delimiter or found
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would otherwise lose their last fields, or shift by one, in silence.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(content),
                sep=delimiter,
                decimal=decimal or _find_decimal(rows, delimiter),
                encoding=encoding,
                skipinitialspace=True,
                low_memory=False,
                index_col=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise DataError(
            f"{name!r} cannot be read as CSV: {_reason(error)}. Each row needs as many fields as the header, "
            f"separated by {delimiter!r}."
        ) from None


def _find_encoding(content: bytes, name: str, given: str | None) -> str:
    marked = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)
    tried = (marked,) if marked else ("utf-8", "cp1252")
    if given is not None:
        tried = (marked,) if marked == "utf-8-sig" and given.lower() in ("utf-8", "utf8") else (given,)
    for encoding in tried:
        try:
            content.decode(encoding)
        except UnicodeError:
            continue
        except LookupError:
            raise DataError(f"Encoding {given!r} is unknown. Give one such as 'utf-8', 'cp1252' or 'utf-16'.") from None
        return encoding
    raise DataError(
        f"{name!r} is not text in {' or '.join(tried)}. Save it as CSV in UTF-8, or give its encoding, "
        "such as 'utf-16'."
    )


def _sample(content: bytes, encoding: str) -> str:
    """Whole lines from the start, enough to hold a header of 10,000 names."""
    text = content[:SAMPLE].decode(encoding, errors="ignore")
    return text[: text.rfind("\n") + 1] or text if len(content) > SAMPLE else text


def _rows(sample: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [row for row in itertools.islice(reader, 200) if row]
    except csv.Error:  # a field without an end, as a wrong delimiter makes one
        return []


def _find_delimiter(sample: str) -> str:
    """The one by which most rows have as many fields as the header; among equals that of most fields."""
    best, score = ",", (0.0, 1)
    for delimiter in DELIMITERS:
        header, *rows = _rows(sample, delimiter) or [[]]
        share = np.mean([len(row) == len(header) for row in rows]) if rows else 1.0
        if len(header) > 1 and share > 0 and (share, len(header)) > score:
            best, score = delimiter, (float(share), len(header))
    return best


def _find_decimal(rows: list[list[str]], delimiter: str) -> str:
    """By numbers that can be read in one way alone; 1,234 is none of them, and a decimal only between semicolons."""
    if delimiter == ",":
        return "."
    fields = [field.strip() for row in rows[1:] for field in row]
    comma, point = _sure(fields, ",", r"\."), _sure(fields, r"\.", ",")
    if comma == point == 0 and delimiter == ";":
        return "," if any(re.fullmatch(r"[+-]?\d{1,3},\d{3}", field) for field in fields) else "."
    return "," if comma > point else "."


def _sure(fields: list[str], decimal: str, group: str) -> int:
    grouped = rf"[1-9]\d{{0,2}}({group}\d{{3}})"
    sure = re.compile(rf"[+-]?((\d*|{grouped}+){decimal}\d+|{grouped}{{2,}})", re.ASCII)
    either = re.compile(rf"[+-]?[1-9]\d{{0,2}}{decimal}\d{{3}}", re.ASCII)
    return sum(bool(sure.fullmatch(field)) and not either.fullmatch(field) for field in fields)


def _read_binary(path: Path, ending: str) -> pd.DataFrame:
    kind, reader, requirement = READERS[ending]
    try:
        return reader(path)
    except MemoryError:
        raise DataError(f"{path.name!r} needs more memory than there is. Give fewer rows or columns.") from None
    except ImportError:
        raise DataError(
            f"{path.name!r} is {kind}, and the package that reads it is not installed. "
            f'Use `pip install "{requirement}"`.'
        ) from None
    except (PermissionError, DataError):
        raise
    except Exception as error:  # libraries raise whatever a damaged file makes them stumble over
        raise DataError(
            f"{path.name!r} cannot be read as {kind}: {_reason(error)}. It may be damaged or of another kind; write "
            "it anew, or save it as CSV."
        ) from None


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as content:
        about = content.metadata
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        size = max(8 * about.num_rows * about.num_columns, sum(group.total_byte_size for group in groups))
    check_expansion(size, path.stat().st_size, floor=1 << 30, expansion=1000)  # a column that repeats takes no room
    return pd.read_parquet(path)


def _read_excel(path: Path) -> pd.DataFrame:
    importlib.import_module("openpyxl")  # that it is missing is said before what is wrong with the file
    check_archive(path)
    check_cells(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and the like, which hold no values
        with pd.ExcelFile(path, engine="openpyxl") as book:
            header, frame = pd.read_excel(book, header=None, nrows=1), pd.read_excel(book)
    if header.empty:
        raise DataError(f"{path.name!r} is empty. A table needs a header line and rows.")
    # The names as written: pandas would rename a second "a" to "a.1" and an empty one to "Unnamed: 0".
    names = ["" if pd.isna(column) else str(column) for column in header.iloc[0]]
    return frame.set_axis(names, axis="columns")


def _read_npz(path: Path) -> pd.DataFrame:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays")
    check_arrays(path)
    with np.load(path, allow_pickle=False) as archive:
        parts = [_columns_of(name, archive, path.name) for name in archive.files]
    if not parts:
        raise DataError(f"{path.name!r} holds no arrays. Save x of (rows, columns) and y of (rows,).")
    rows = {name: len(part) for part in parts for name in part.columns[:1]}
    if len(set(rows.values())) != 1:
        raise DataError(
            f"The arrays of {path.name!r} have different numbers of rows: {rows}. Give each row an entry in "
            "every array."
        )
    return pd.concat(parts, axis="columns")


def _columns_of(name: str, archive: np.lib.npyio.NpzFile, file: str) -> pd.DataFrame:
    try:
        array = archive[name]
    except ValueError:
        raise DataError(
            f"Array {name!r} of {file!r} holds pickled objects, which could run code and are not read. Save numbers "
            "or text."
        ) from None
    label = name.lower() if name in ("X", "Y") else name
    if label == "y" and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufUMm":
        raise DataError(
            f"Array {name!r} of {file!r} has shape {array.shape} and type {array.dtype}. Save x of (rows, columns) and "
            "y of (rows,), as numbers or text."
        )
    names = [label] if array.ndim == 1 else [f"{label}{number}" for number in range(array.shape[1])]
    return pd.DataFrame(array.reshape(len(array), len(names)), columns=names, copy=False)


READERS = {
    ".parquet": ("Parquet", _read_parquet, "pyarrow"),
    ".pq": ("Parquet", _read_parquet, "pyarrow"),
    ".xlsx": ("Excel", _read_excel, "poise[excel]"),
    ".xlsm": ("Excel", _read_excel, "poise[excel]"),
    ".npz": ("NPZ", _read_npz, "numpy"),
}


def check_header(names: list[str], table: str) -> None:
    for position, column in enumerate(names, start=1):
        if not column.strip():
            raise DataError(
                f"{table} has no name for column {position}. Name it, or leave it out: pandas writes a "
                "table without its index by to_csv(index=False)."
            )
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
        raise DataError(f"{table} has more than one column named {few_of(twice)}. Give each column its own name.")


def check_column(column: str, frame: pd.DataFrame, table: str) -> None:
    if column in frame.columns:
        return
    near = difflib.get_close_matches(column, list(frame.columns), n=3)
    meant = f" Nearest: {few_of(near)}." if near else ""
    only = " The header has one name: give the delimiter if the fields are separated by an unusual one."
    raise DataError(
        f"{table} has no column {column!r}.{meant} Its columns are: {few_of(frame.columns)}."
        f"{only if frame.shape[1] == 1 else ''}"
    )


@functools.cache
def _number_pattern(mark: str) -> re.Pattern[str]:
    decimal, group = (r"\.", ",") if mark == "point" else (",", r"\.")
    whole = rf"\d+|[1-9]\d{{0,2}}(?:[{SPACES}{group}]\d{{3}})+"
    return re.compile(
        rf"[+-]?(?:(?:{whole})(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][+-]?\d+)?|[+-]?(?i:inf(?:inity)?)", re.ASCII
    )


def number_of(text: str, mark: str) -> float | None:
    """1234.5 of "1,234.5" (point), of "1.234,5" or "1 234,5" (comma); None of what is no number."""
    if not _number_pattern(mark).fullmatch(text):
        return None
    group, decimal = (",", ".") if mark == "point" else (".", ",")
    return float(re.sub(f"[{SPACES}{group}]", "", text).replace(decimal, "."))


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def few_of(names: Iterable[object], most: int = 8) -> str:
    listed = [repr(str(name)) for name in names]
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")
