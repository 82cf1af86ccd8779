"""A table on disk becomes columns of a known kind, and a target with a task.

`load` reads the bytes of any source into a frame, `read` finds what each column holds and what the target asks, and
`features_of` brings new rows to the same form. What can be repaired is repaired and noted (missing values, numbers
written as text, infinite values); what no network could learn from is set aside and noted (identifiers, free text,
constants); whatever is left is refused here, in a sentence that says what to do.
"""

import codecs
import collections
import csv
import difflib
import functools
import io
import itertools
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from sklearn import datasets

Source = str | os.PathLike[str] | pd.DataFrame

BUILT_IN = {
    "diabetes": datasets.load_diabetes,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
    "california": functools.partial(datasets.fetch_california_housing, download_if_missing=False),
}
TASKS = ("regression", "binary", "multiclass", "counts")
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
FEWEST_ROWS = 20
FEWEST_ROWS_A_CLASS = 5
MOST_CLASSES_GUESSED = 20
ROWS_A_CLASS_GUESSED = 10
FEW_CATEGORIES = 50
MOST_CATEGORIES = 5000
FEWEST_NUMBERS = 0.95
MOST_ODD_TEXTS = 20
LEAK = 0.9999

SPACES = " '’\u00a0\u2009\u202f"
IDENTIFIERS = {"id", "ids", "index", "idx", "key", "nr", "no", "row", "rowid", "rownum", "uid", "uuid", "number"}
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}( .*)?"
    r"|.*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d{4}.*",
    re.IGNORECASE | re.ASCII,
)
FIRST_YEAR, LAST_YEAR = 1678, 2261  # whole years within datetime64[ns]


class DataError(ValueError):
    """The data, or what is asked of them, cannot be studied. The text says what, why and what to do instead."""


@dataclass(frozen=True)
class Column:
    """What a column of the source holds, and what was done with it.

    Args:
        name: as it stands in the source.
        kind: "number", "category", "date" or "set aside".
        missing: rows without a value.
        note: why it is set aside, or what was done with it; "" for nothing.
        reading: how text becomes its values, so that new rows are read alike: "point" or "comma" (the decimal mark),
            "year first", "month first" or "day first"; "" where the values were no text.
        odd: the few texts of a number column that are no number and were taken as missing.
    """

    name: str
    kind: str
    missing: int
    note: str
    reading: str = ""
    odd: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Features and target as they were read, and the task they pose.

    Args:
        name: a short name, that of the built-in table or of the file without its ending.
        source: what `read` was given, as text; "" for a DataFrame.
        features: the columns in use: numbers float64 (NaN: missing), categories object of str (None: missing), dates
            datetime64[ns] (NaT: missing).
        columns: every column of the source but the target and the three roles, in order.
        target: one value a row; float64 in regression and counts, else str.
        task: "regression", "binary", "multiclass" or "counts".
        classes: the classes in the order of the network's outputs; empty in regression and counts.
        groups: rows of one value stay together; None for none.
        time: numbers or datetimes by which the rows can be sorted; None for none.
        weight: float64, finite, none below 0, some above; None for none.
        notes: sentences that a reader must know.
    """

    name: str
    source: str
    features: pd.DataFrame
    columns: tuple[Column, ...]
    target: pd.Series
    task: str
    classes: tuple[str, ...]
    groups: pd.Series | None
    time: pd.Series | None
    weight: pd.Series | None
    notes: tuple[str, ...]


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
        >>> from poise.studies.tables import load
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
    _check_header(names, name)
    if not len(frame):
        raise DataError(f"{name!r} is empty: it has a header and no rows.")
    return name, text, frame.set_axis(names, axis="columns")


def read(
    source: Source,
    target: str | None = None,
    *,
    task: str | None = None,
    drop: Sequence[str] = (),
    groups: str | None = None,
    time: str | None = None,
    weight: str | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Table:
    """Reads a table, finds what its columns hold and which task its target poses.

    Args:
        source, delimiter, decimal, encoding: as in `load`.
        target: the column to predict; built-in tables and NPZ files ("y") have their own.
        task: "regression", "binary", "multiclass" or "counts"; None infers it: text, truth values, two different
            values or few whole numbers (at most 20, each in 10 rows on average) are classes, all else is regression.
        drop: columns to leave out.
        groups: the column whose equal values keep rows together.
        time: the column by which the rows are sorted.
        weight: the column of the rows' weights.

    Raises:
        DataError: the table cannot be studied; the text says why and what to do.

    Example:
        >>> from poise.studies.tables import read
        >>> table = read("wine")
        >>> table.task, table.classes, table.features.shape
        ('multiclass', ('class_0', 'class_1', 'class_2'), (178, 13))
    """
    if task is not None and task not in TASKS:
        raise DataError(f"Task {task!r} is unknown. Use one of {', '.join(TASKS)}, or leave it out to infer it.")
    name, text, frame = load(source, delimiter=delimiter, decimal=decimal, encoding=encoding)
    target = target or _own_target(text, frame)
    if target is None:
        raise DataError(f"{name} needs a target. Name the column to predict, one of: {_few(frame.columns)}.")
    roles = {"target": target, "groups": groups, "time": time, "weight": weight}
    _check_roles({role: column for role, column in roles.items() if column is not None}, drop, frame, name)
    values, is_number = _target_values(frame[target])
    present = np.flatnonzero(~pd.isna(values))
    notes = []
    if len(present) < len(frame):
        notes.append(
            f"{len(frame) - len(present)} of {len(frame)} rows are left out: they have no value of {target!r}."
        )
        frame, values = frame.iloc[present], values[present]
    if len(frame) < FEWEST_ROWS:
        with_target = f" with a value of {target!r}" if notes else ""
        raise DataError(
            f"{name} has {_count(len(frame), 'row')}{with_target}, and a study needs at least {FEWEST_ROWS} to "
            "train on some and validate on others. Bring more rows."
        )
    values, task, classes = _pose(values, is_number, target, task)
    notes += _rare(values, classes)
    taken = {column for column in roles.values() if column is not None}
    columns, features = _examine(frame, [column for column in frame.columns if column not in taken], set(drop))
    if not columns:
        raise DataError(f"{name} has no column beside its target {target!r}. Bring at least one to predict it from.")
    if not features:
        raise DataError(
            f"Nothing is left to predict {target!r} from: {_reasons(columns)}. Bring a column of numbers, dates or "
            "categories that repeat."
        )
    notes += [f"Set aside: {_reasons(columns)}."] if any(column.kind == "set aside" for column in columns) else []
    leaks = _leaks(features, values, task, classes)
    notes += [
        f"Column {column!r} tells the target {target!r}: looks like a leak; leave it out with --drop."
        for column in leaks
    ]
    return Table(
        name=Path(name).stem,
        source=text,
        features=pd.DataFrame(features),
        columns=tuple(columns),
        target=pd.Series(values, name=target, dtype=object if classes else "float64"),
        task=task,
        classes=classes,
        groups=None if groups is None else _groups(frame[groups]),
        time=None if time is None else _time(frame[time]),
        weight=None if weight is None else _weight(frame[weight]),
        notes=tuple(notes),
    )


def features_of(frame: pd.DataFrame, columns: tuple[Column, ...], name: str) -> pd.DataFrame:
    """Brings new rows to the form of `Table.features`.

    Args:
        frame: of `load`; columns that are not in use are ignored, new categories pass.
        columns: of the table that the network was trained on.
        name: by which errors call the rows.

    Raises:
        DataError: a column in use is missing, or no longer holds what it held.

    Example:
        >>> from poise.studies.tables import features_of, load, read
        >>> table = read("wine")
        >>> name, _, rows = load("wine")
        >>> features_of(rows, table.columns, name).equals(table.features)
        True
    """
    frame = frame.set_axis([str(column) for column in frame.columns], axis="columns")
    used = [column for column in columns if column.kind != "set aside"]
    _check_header(list(frame.columns), name)
    for column in used:
        _check_column(column.name, frame, name)
    return pd.DataFrame({column.name: _bring(frame[column.name], column, name) for column in used})


# ---------------------------------------------------------------- sources


def _load(text: str, name: str, delimiter: str | None, decimal: str | None, encoding: str | None) -> pd.DataFrame:
    if text in BUILT_IN:
        return _built_in(text)
    if text == "-":
        return _read_csv(sys.stdin.buffer.read(), name, delimiter, decimal, encoding)
    path = Path(text)
    ending = path.suffix.lower()
    try:
        _check_path(path)
        if ending in READERS:
            return _read_binary(path, ending)
        return _read_csv(path.read_bytes(), name, delimiter, decimal, encoding)
    except PermissionError:
        raise DataError(f"{text!r} may not be read. Change its permissions, or copy it.") from None


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
            f"{name!r} is not separated by {delimiter!r}: its header would be one name, {_few(rows[0])}. "
            f"Give {found!r} as the delimiter, or leave it out to find it."
        )
    _check_header(rows[0] if rows else [], name)
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
    kind, reader, needs = READERS[ending]
    try:
        return reader(path)
    except ImportError:
        raise DataError(f"{path.name!r} is {kind}, which needs {needs}. Install it: pip install {needs}.") from None
    except (PermissionError, DataError):
        raise
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path.name!r} cannot be read as {kind}: {_reason(error)}. It may be damaged or of another kind; write "
            "it anew, or save it as CSV."
        ) from None


def _read_excel(path: Path) -> pd.DataFrame:
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
    ".parquet": ("Parquet", pd.read_parquet, "pyarrow"),
    ".pq": ("Parquet", pd.read_parquet, "pyarrow"),
    ".xlsx": ("Excel", _read_excel, "openpyxl"),
    ".xlsm": ("Excel", _read_excel, "openpyxl"),
    ".npz": ("NPZ", _read_npz, "numpy"),
}


# ---------------------------------------------------------------- names and roles


def _own_target(text: str, frame: pd.DataFrame) -> str | None:
    if text in BUILT_IN:
        return str(frame.columns[-1])
    return "y" if text.lower().endswith(".npz") and "y" in frame.columns else None


def _check_header(names: list[str], table: str) -> None:
    for position, column in enumerate(names, start=1):
        if not column.strip():
            raise DataError(
                f"{table} has no name for column {position}. Name it, or leave it out: pandas writes a "
                "table without its index by to_csv(index=False)."
            )
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
        raise DataError(f"{table} has more than one column named {_few(twice)}. Give each column its own name.")


def _check_roles(roles: dict[str, str], drop: Sequence[str], frame: pd.DataFrame, name: str) -> None:
    for column in (*roles.values(), *drop):
        _check_column(column, frame, name)
    seen: dict[str, str] = {}
    for role, column in roles.items():
        if column in seen:
            raise DataError(
                f"Column {column!r} is asked to be both the {seen[column]} and the {role}. Give each a "
                "column of its own."
            )
        if column in drop:
            raise DataError(
                f"Column {column!r} is the {role} and cannot be dropped. Drop others, or choose another {role}."
            )
        seen[column] = role


def _check_column(column: str, frame: pd.DataFrame, table: str) -> None:
    if column in frame.columns:
        return
    near = difflib.get_close_matches(column, list(frame.columns), n=3)
    meant = f" Nearest: {_few(near)}." if near else ""
    only = " The header has one name: give the delimiter if the fields are separated by an unusual one."
    raise DataError(
        f"{table} has no column {column!r}.{meant} Its columns are: {_few(frame.columns)}."
        f"{only if frame.shape[1] == 1 else ''}"
    )


def _groups(values: pd.Series) -> pd.Series:
    _check_whole(values, "groups")
    if values.nunique() < 2:
        raise DataError(f"Column {values.name!r} of the groups has one value alone. Groups need two or more.")
    return pd.Series([_label(value) for value in values], name=values.name, dtype=object)


def _time(values: pd.Series) -> pd.Series:
    found = _find(values)
    if found.kind not in ("number", "date") or found.odd:
        raise DataError(
            f"Column {values.name!r} of the time holds neither numbers nor dates, so the rows cannot be sorted by it. "
            "Choose another, or write dates as 2024-12-31."
        )
    times = pd.Series(found.values, name=values.name)
    _check_whole(times, "time")
    return times


def _weight(values: pd.Series) -> pd.Series:
    found = _find(values)
    if found.kind != "number" or found.odd:
        raise DataError(f"Column {values.name!r} of the weights is not numbers. Choose a column of numbers ≥ 0.")
    weight = pd.Series(found.values, name=values.name)
    _check_whole(weight, "weight")
    if (weight < 0).any():
        raise DataError(f"Column {values.name!r} of the weights holds {_label(weight.min())}. Weights are numbers ≥ 0.")
    if not (weight > 0).any():
        raise DataError(f"Column {values.name!r} of the weights is 0 in every row. Some weights must be above 0.")
    return weight


def _check_whole(values: pd.Series, role: str) -> None:
    missing = int(values.isna().sum())
    if missing:
        raise DataError(
            f"Column {values.name!r} of the {role} has no usable value in {missing} of {len(values)} rows. "
            "Fill them in, or remove these rows."
        )


# ---------------------------------------------------------------- the target


def _target_values(values: pd.Series) -> tuple[np.ndarray, bool]:
    """Numbers (NaN: missing) or labels (None: missing), and whether they are numbers."""
    found = _find(values)
    if found.kind in ("date", "set aside"):
        held = "dates" if found.kind == "date" else found.notes[0]
        raise DataError(
            f"Target {values.name!r} holds {held}, and a study predicts numbers or classes. Choose another target."
        )
    if found.kind == "number" and not found.odd and not found.is_truth:
        return found.values, True
    codes, texts, _ = _texts(values)
    return np.array([*texts, None], dtype=object)[codes], False


def _pose(values: np.ndarray, is_number: bool, name: str, task: str | None) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """The target as the task needs it, the task, and its classes."""
    codes, different = pd.factorize(values, sort=True)
    if len(different) < 2:
        raise DataError(
            f"Target {name!r} is constant: every row has {_label(values[0])!r}, so there is nothing to predict. "
            "Choose another target."
        )
    task = task or _infer_task(different, len(values), is_number)
    if task in ("regression", "counts"):
        if not is_number:
            raise DataError(
                f"Target {name!r} is text, such as {_few(different[:3])}, and {task} needs numbers. "
                f"{_why_text(different)}Choose another target, or the task binary or multiclass."
            )
        wrong = different[(different < 0) | (different % 1 != 0)]
        if task == "counts" and len(wrong):
            raise DataError(
                f"Target {name!r} holds {_label(wrong[0])}, and counts are whole numbers ≥ 0. Choose the task "
                "regression."
            )
        return values, task, ()
    if task == "binary" and len(different) != 2:
        raise DataError(
            f"Target {name!r} has {len(different)} different values and a binary task two. "
            "Choose the task multiclass or regression."
        )
    labels = [_label(value) for value in different]
    single = [label for label, count in zip(labels, np.bincount(codes), strict=True) if count < 2]
    if single:
        raise DataError(
            f"Target {name!r} has classes with one member: {_few(single)}. A class needs a row to train "
            f"on and one to validate on; merge or remove these. {'' if is_number else _why_text(different)}".rstrip()
        )
    return np.array(labels, dtype=object)[codes], task, tuple(labels)


def _infer_task(different: np.ndarray, rows: int, is_number: bool) -> str:
    if len(different) == 2:
        return "binary"
    if not is_number:
        return "multiclass"
    few = len(different) <= min(MOST_CLASSES_GUESSED, rows / ROWS_A_CLASS_GUESSED)
    return "multiclass" if few and bool((different % 1 == 0).all()) else "regression"


def _why_text(different: np.ndarray) -> str:
    """A column of numbers with a few odd values reads as text: name one of those."""
    odd = [text for text in different if _number(text, "point") is None and _number(text, "comma") is None]
    return f"It would be numbers but for values such as {odd[0]!r}. " if 0 < len(odd) < len(different) / 2 else ""


def _rare(values: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    if not classes:
        return []
    counts = pd.Series(values).value_counts()
    rare = [f"{label!r} ({counts[label]})" for label in classes if counts[label] < FEWEST_ROWS_A_CLASS]
    if not rare:
        return []
    listed = ", ".join(rare[:8]) + (f", … ({len(rare)} in all)" if len(rare) > 8 else "")
    return [f"Classes with fewer than {FEWEST_ROWS_A_CLASS} rows: {listed}. What is found for them rests on little."]


def _leaks(features: dict[str, pd.Series], target: np.ndarray, task: str, classes: tuple[str, ...]) -> list[str]:
    """The features that tell the target: in step with it, or another name for each of its values."""
    codes, different = pd.factorize(target)
    repeats = bool(classes) or len(different) <= len(target) / 2
    numbers = pd.Series(target).map({label: code for code, label in enumerate(classes)}) if classes else target
    line = None if task == "multiclass" else np.asarray(numbers, dtype="float64")
    return [
        name
        for name, feature in features.items()
        if (line is not None and _is_in_step(feature, line)) or (repeats and _renames(feature, codes))
    ]


def _is_in_step(feature: pd.Series, target: np.ndarray) -> bool:
    if feature.dtype == object:
        return False
    present = feature.notna().to_numpy()
    if present.sum() < max(10, len(target) / 2):
        return False
    x, y = (part[present].astype("float64") for part in (feature.to_numpy(), target))
    x, y = (part / (np.abs(part).max() or 1.0) for part in (x, y))
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return bool(size > 0 and abs(x @ y) > LEAK * size)


def _renames(feature: pd.Series, target: np.ndarray) -> bool:
    codes, values = pd.factorize(feature)
    present = codes >= 0
    if present.sum() < max(10, len(target) / 2):
        return False
    there = target[present]
    number = len(np.unique(there))
    return len(values) == number > 1 and len(np.unique(codes[present] * (target.max() + 1) + there)) == number


# ---------------------------------------------------------------- what a column holds


@dataclass
class _Found:
    """The values of a column as numbers, objects or datetimes, and how they came about."""

    values: np.ndarray
    kind: str
    notes: list[str]
    reading: str = ""
    odd: tuple[str, ...] = ()
    different: int = 0
    is_truth: bool = False


def _examine(frame: pd.DataFrame, names: list[str], dropped: set[str]) -> tuple[list[Column], dict[str, pd.Series]]:
    columns, features = [], {}
    for name in names:
        if name in dropped:
            columns.append(Column(name, "set aside", int(frame[name].isna().sum()), "left out on request"))
            continue
        found = _find(frame[name])
        missing = int(pd.isna(found.values).sum())
        reason = _why_aside(name, found, missing)
        if reason:
            columns.append(Column(name, "set aside", missing, reason))
            continue
        columns.append(Column(name, found.kind, missing, "; ".join(found.notes), found.reading, found.odd))
        features[name] = pd.Series(found.values, name=name, dtype=found.values.dtype)
    return columns, features


def _why_aside(name: str, found: _Found, missing: int) -> str:
    present = len(found.values) - missing
    if found.kind == "set aside":
        return found.notes[0]
    if not present:
        return "no value in any row"
    if found.kind == "category":
        if found.different == 1 and not missing:
            return "the same value in every row"
        if found.different > 0.9 * present:
            return "free text or an identifier: nearly every row differs"
        if found.different > max(FEW_CATEGORIES, min(MOST_CATEGORIES, present / 2)):
            return f"text with {found.different} different values in {present} rows, too many to learn from"
        return ""
    if missing:
        return ""
    if found.values.min() == found.values.max():
        return "the same value in every row"
    if found.kind == "number" and _is_named_identifier(name) and _counts_up(found.values):
        return "an identifier: whole numbers that count the rows"
    return ""


def _is_named_identifier(name: str) -> bool:
    return any(word.lower() in IDENTIFIERS for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))


def _counts_up(values: np.ndarray) -> bool:
    return bool((np.diff(values) > 0).all() and (values % 1 == 0).all())


def _find(values: pd.Series) -> _Found:
    kind = values.dtype
    if dtypes.is_complex_dtype(kind):
        return _Found(values.to_numpy(), "set aside", ["complex numbers"])
    if dtypes.is_numeric_dtype(kind) or dtypes.is_bool_dtype(kind):
        numbers, notes = _finite(values)
        return _Found(numbers, "number", notes, is_truth=dtypes.is_bool_dtype(kind))
    if dtypes.is_datetime64_any_dtype(kind):
        dates, notes = _within_range(values)
        return _Found(dates, "date", notes)
    if dtypes.is_timedelta64_dtype(kind):
        return _Found(_seconds(values), "number", ["durations in seconds"])
    try:
        codes, texts, is_written = _texts(values)
    except TypeError:
        return _Found(values.to_numpy(), "set aside", ["values that are neither numbers, text nor dates"])
    found = None
    if texts and not isinstance(kind, pd.CategoricalDtype):
        found = _find_numbers(codes, texts, is_written) or _find_dates(codes, texts)
    return found or _Found(np.array([*texts, None], dtype=object)[codes], "category", [], different=len(texts))


def _finite(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    if isinstance(values.dtype, np.dtype):
        numbers = values.to_numpy("float64")
    else:
        numbers = values.to_numpy("float64", na_value=np.nan)
    infinite = np.isinf(numbers)
    if not infinite.any():
        return numbers, []
    return np.where(infinite, np.nan, numbers), [f"{_count(int(infinite.sum()), 'infinite value')} taken as missing"]


def _seconds(values: pd.Series) -> np.ndarray:
    return values.dt.total_seconds().to_numpy("float64", na_value=np.nan)


def _within_range(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    if not isinstance(values.dtype, np.dtype):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz is not None else values
        values = values.astype("datetime64[us]")
    inside = values.dt.year.between(FIRST_YEAR, LAST_YEAR)
    outside = int((values.notna() & ~inside).sum())
    notes = [f"{_count(outside, 'date')} outside {FIRST_YEAR} to {LAST_YEAR} taken as missing"] if outside else []
    return values.where(inside).astype("datetime64[ns]").to_numpy(), notes


def _texts(values: pd.Series) -> tuple[np.ndarray, list[str], bool]:
    """The code of each row (−1: missing, empty or "?"), the text of each code, and whether any was written as text."""
    codes, found = pd.factorize(values)
    labels = [_label(value).strip() for value in found]
    place: dict[str, int] = {"": -1, "?": -1}
    for label in labels:
        place.setdefault(label, len(place) - 2)
    merged = np.array([*(place[label] for label in labels), -1])
    return merged[codes], list(place)[2:], any(isinstance(value, str) for value in found)


def _find_numbers(codes: np.ndarray, texts: list[str], is_written: bool) -> _Found | None:
    if not is_written and set(texts) <= {"True", "False"}:
        numbers = np.array([*(float(text == "True") for text in texts), np.nan])
        return _Found(numbers[codes], "number", [], is_truth=True)
    parsed = {mark: _numbers(texts, mark) for mark in ("point", "comma")}
    reading, best = min(parsed.items(), key=lambda item: item[1].count(None))  # the first of equals
    odd = tuple(text for text, number in zip(texts, best, strict=False) if number is None)
    rows = np.bincount(codes[codes >= 0], minlength=len(texts))
    if len(odd) > MOST_ODD_TEXTS:
        return None
    lost = int(rows[[number is None for number in best]].sum())
    if lost > (1 - FEWEST_NUMBERS) * rows.sum():
        return None
    numbers, notes = _finite(pd.Series(np.array([*best, None], dtype="float64")[codes]))
    if odd:
        notes.insert(0, f"{_count(lost, 'value')} not a number, such as {odd[0]!r}, taken as missing")
    if is_written:
        notes.insert(0, "numbers written as text" + (" with a decimal comma" if reading == "comma" else ""))
    return _Found(numbers, "number", notes, reading if is_written else "", odd)


def _numbers(texts: list[str], mark: str) -> list[float | None]:
    """The number of each text; it ends early when too many are none."""
    numbers: list[float | None] = []
    odd = 0
    for text in texts:
        numbers.append(_number(text, mark))
        odd += numbers[-1] is None
        if odd > MOST_ODD_TEXTS:
            break
    return numbers


def _find_dates(codes: np.ndarray, texts: list[str]) -> _Found | None:
    parsed = _dates(texts, "")
    if parsed is None:
        return None
    dates, reading = parsed
    values = np.append(dates, np.datetime64("NaT", "ns"))[codes]
    outside = int(np.isnat(values).sum() - (codes < 0).sum())
    notes = [f"dates read with the {reading}"] if reading != "year first" and re.match(r"\d{1,2}\D\d", texts[0]) else []
    notes += [f"{_count(outside, 'date')} outside {FIRST_YEAR} to {LAST_YEAR} taken as missing"] if outside else []
    return _Found(values, "date", notes, reading)


def _dates(texts: list[str], known: str) -> tuple[np.ndarray, str] | None:
    """All texts as dates (NaT: out of range) and which part comes first; None if one of them is no date."""
    if not all(DATE.fullmatch(text) for text in texts):
        return None
    years = np.array([int(re.findall(r"\d{4}", text)[0]) for text in texts])
    inside = (years >= FIRST_YEAR) & (years <= LAST_YEAR)
    dates = np.full(len(texts), np.datetime64("NaT", "ns"))
    if not inside.any():
        return (dates, known) if known else None
    written = pd.Series(np.array(texts, dtype=object)[inside])
    local = ("day first", "month first") if re.match(r"\d{1,2}\.", str(written[0])) else ("month first", "day first")
    for reading in ("year first", *(local if known in ("", "year first") else (known,))):
        parsed = _parse_dates(written, reading)
        if parsed is not None:
            dates[inside] = parsed
            return dates, reading
    return None


def _parse_dates(texts: pd.Series, reading: str) -> np.ndarray | None:
    form = "ISO8601" if reading == "year first" else None
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        try:
            parsed = pd.to_datetime(texts, utc=True, format=form, dayfirst=reading == "day first")
        except (ValueError, OverflowError):
            return None
    # A warning tells that pandas took another order than it was asked for, or one for every row.
    return None if doubts else parsed.dt.tz_localize(None).astype("datetime64[ns]").to_numpy()


@functools.cache
def _number_pattern(mark: str) -> re.Pattern[str]:
    decimal, group = (r"\.", ",") if mark == "point" else (",", r"\.")
    whole = rf"\d+|[1-9]\d{{0,2}}(?:[{SPACES}{group}]\d{{3}})+"
    return re.compile(
        rf"[+-]?(?:(?:{whole})(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][+-]?\d+)?|[+-]?(?i:inf(?:inity)?)", re.ASCII
    )


def _number(text: str, mark: str) -> float | None:
    """1234.5 of "1,234.5" (point), of "1.234,5" or "1 234,5" (comma); None of what is no number."""
    if not _number_pattern(mark).fullmatch(text):
        return None
    group, decimal = (",", ".") if mark == "point" else (".", ",")
    return float(re.sub(f"[{SPACES}{group}]", "", text).replace(decimal, "."))


def _label(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        short = f"{value:.12g}"
        return short if float(short) == value else repr(float(value))
    return str(value)


# ---------------------------------------------------------------- new rows


def _bring(values: pd.Series, column: Column, table: str) -> pd.Series:
    found = {"number": _bring_number, "date": _bring_date, "category": _bring_category}[column.kind](values, column)
    if isinstance(found, str):
        held = {"number": "numbers", "date": "dates", "category": "categories"}[column.kind]
        raise DataError(
            f"{table}: column {column.name!r} held {held} in the rows that were studied, and here it holds {found}. "
            "Correct it, or study the new table."
        )
    return pd.Series(found, name=column.name, dtype=found.dtype)


def _bring_number(values: pd.Series, column: Column) -> np.ndarray | str:
    kind = values.dtype
    if (dtypes.is_numeric_dtype(kind) or dtypes.is_bool_dtype(kind)) and not dtypes.is_complex_dtype(kind):
        return _finite(values)[0]
    if dtypes.is_timedelta64_dtype(kind):
        return _seconds(values)
    try:
        codes, texts, _ = _texts(values)
    except TypeError:
        return "values of another kind"
    known = {**dict.fromkeys(column.odd, np.nan), "True": 1.0, "False": 0.0}
    marks = ("comma", "point") if column.reading == "comma" else ("point", "comma")
    numbers = []
    for text in texts:
        read = (known.get(text), *(_number(text, mark) for mark in marks))
        number = next((number for number in read if number is not None), None)
        if number is None:
            return repr(text)
        numbers.append(number)
    return _finite(pd.Series(np.array([*numbers, np.nan])[codes]))[0]


def _bring_date(values: pd.Series, column: Column) -> np.ndarray | str:
    if dtypes.is_datetime64_any_dtype(values.dtype):
        return _within_range(values)[0]
    try:
        codes, texts, _ = _texts(values)
    except TypeError:
        return "values of another kind"
    parsed = _dates(texts, column.reading or "year first")
    if parsed is None:
        wrong = [text for text in texts if _dates([text], column.reading or "year first") is None]
        return _few(wrong, 1) if wrong else "dates written in several ways"
    return np.append(parsed[0], np.datetime64("NaT", "ns"))[codes]


def _bring_category(values: pd.Series, column: Column) -> np.ndarray | str:
    try:
        codes, texts, _ = _texts(values)
    except TypeError:
        return "values of another kind"
    return np.array([*texts, None], dtype=object)[codes]


# ---------------------------------------------------------------- words


def _reasons(columns: Sequence[Column]) -> str:
    aside = [f"{column.name!r} ({column.note})" for column in columns if column.kind == "set aside"]
    return ", ".join(aside[:8]) + (f", … ({len(aside)} in all)" if len(aside) > 8 else "")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _few(names: Iterable[object], most: int = 8) -> str:
    listed = [repr(str(name)) for name in names]
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")
