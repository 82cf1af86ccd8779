"""What a column holds: numbers, categories or dates, and what no network could learn from.

What can be repaired is repaired and noted (missing values, numbers written as text, infinite values); what no network
could learn from is set aside and noted (identifiers, free text, constants). How a text was read is kept, so that new
rows are read alike.
"""

import re
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from poise.study.sources import DataError, check_column, check_header, counted, few_of, number_of

FEW_CATEGORIES = 50
MOST_CATEGORIES = 5000
FEWEST_NUMBERS = 0.95
MOST_ODD_TEXTS = 20
IDENTIFIERS = {"id", "ids", "index", "idx", "key", "nr", "no", "row", "rowid", "rownum", "uid", "uuid", "number"}
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}( .*)?"
    r"|.*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d{4}.*",
    re.IGNORECASE | re.ASCII,
)
FIRST_YEAR, LAST_YEAR = 1678, 2261  # whole years within datetime64[ns]


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


def features_of(frame: pd.DataFrame, columns: tuple[Column, ...], name: str) -> pd.DataFrame:
    """Brings new rows to the form of `Table.features`.

    Args:
        frame: of `load`; columns that are not in use are ignored, new categories pass.
        columns: of the table that the network was trained on.
        name: by which errors call the rows.

    Raises:
        DataError: a column in use is missing, or no longer holds what it held.

    Example:
        >>> from poise.study.columns.columns import features_of
        >>> from poise.study.sources import load
        >>> from poise.study.tables import read
        >>> table = read("wine")
        >>> name, _, rows = load("wine")
        >>> features_of(rows, table.columns, name).equals(table.features)
        True
    """
    frame = frame.set_axis([str(column) for column in frame.columns], axis="columns")
    used = [column for column in columns if column.kind != "set aside"]
    check_header(list(frame.columns), name)
    for column in used:
        check_column(column.name, frame, name)
    return pd.DataFrame({column.name: _bring(frame[column.name], column, name) for column in used})


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


def examined(frame: pd.DataFrame, names: list[str], dropped: set[str]) -> tuple[list[Column], dict[str, pd.Series]]:
    columns, features = [], {}
    for name in names:
        if name in dropped:
            columns.append(Column(name, "set aside", int(frame[name].isna().sum()), "left out on request"))
            continue
        found = found_in(frame[name])
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


def found_in(values: pd.Series) -> _Found:
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
        codes, texts, is_written = texts_of(values)
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
    return np.where(infinite, np.nan, numbers), [f"{counted(int(infinite.sum()), 'infinite value')} taken as missing"]


def _seconds(values: pd.Series) -> np.ndarray:
    return values.dt.total_seconds().to_numpy("float64", na_value=np.nan)


def _within_range(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    if not isinstance(values.dtype, np.dtype):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz is not None else values
        values = values.astype("datetime64[us]")
    inside = values.dt.year.between(FIRST_YEAR, LAST_YEAR)
    outside = int((values.notna() & ~inside).sum())
    notes = [f"{counted(outside, 'date')} outside {FIRST_YEAR} to {LAST_YEAR} taken as missing"] if outside else []
    return values.where(inside).astype("datetime64[ns]").to_numpy(), notes


def texts_of(values: pd.Series) -> tuple[np.ndarray, list[str], bool]:
    """The code of each row (−1: missing, empty or "?"), the text of each code, and whether any was written as text."""
    codes, found = pd.factorize(values)
    labels = [label_of(value).strip() for value in found]
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
        notes.insert(0, f"{counted(lost, 'value')} not a number, such as {odd[0]!r}, taken as missing")
    if is_written:
        notes.insert(0, "numbers written as text" + (" with a decimal comma" if reading == "comma" else ""))
    return _Found(numbers, "number", notes, reading if is_written else "", odd)


def _numbers(texts: list[str], mark: str) -> list[float | None]:
    """The number of each text; it ends early when too many are none."""
    numbers: list[float | None] = []
    odd = 0
    for text in texts:
        numbers.append(number_of(text, mark))
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
    notes += [f"{counted(outside, 'date')} outside {FIRST_YEAR} to {LAST_YEAR} taken as missing"] if outside else []
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


def label_of(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        short = f"{value:.12g}"
        return short if float(short) == value else repr(float(value))
    return str(value)


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
        codes, texts, _ = texts_of(values)
    except TypeError:
        return "values of another kind"
    known = {**dict.fromkeys(column.odd, np.nan), "True": 1.0, "False": 0.0}
    marks = ("comma", "point") if column.reading == "comma" else ("point", "comma")
    numbers = []
    for text in texts:
        read = (known.get(text), *(number_of(text, mark) for mark in marks))
        number = next((number for number in read if number is not None), None)
        if number is None:
            return repr(text)
        numbers.append(number)
    return _finite(pd.Series(np.array([*numbers, np.nan])[codes]))[0]


def _bring_date(values: pd.Series, column: Column) -> np.ndarray | str:
    if dtypes.is_datetime64_any_dtype(values.dtype):
        return _within_range(values)[0]
    try:
        codes, texts, _ = texts_of(values)
    except TypeError:
        return "values of another kind"
    parsed = _dates(texts, column.reading or "year first")
    if parsed is None:
        wrong = [text for text in texts if _dates([text], column.reading or "year first") is None]
        return few_of(wrong, 1) if wrong else "dates written in several ways"
    return np.append(parsed[0], np.datetime64("NaT", "ns"))[codes]


def _bring_category(values: pd.Series, column: Column) -> np.ndarray | str:
    try:
        codes, texts, _ = texts_of(values)
    except TypeError:
        return "values of another kind"
    return np.array([*texts, None], dtype=object)[codes]
