"""Columns of dates and times."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from sklearn.pipeline import Pipeline

from poise.study.columns.base import Column, ColumnKind, Detected, Key, RawColumn, UnexpectedValueError
from poise.study.columns.number_column import make_scaler, set_constants_to_zero
from poise.study.columns.weighting import weigh_scaler
from poise.study.errors import count_noun, quote_names

DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}( .*)?"
    r"|.*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d{4}.*",
    re.IGNORECASE | re.ASCII,
)
FIRST_YEAR, LAST_YEAR = 1678, 2261  # whole years within datetime64[ns]
PARTS = ("year", "month", "day", "weekday", "hour", "days", "missing")
NOT_A_DATE = np.datetime64("NaT", "ns")


class DateColumn(ColumnKind):
    """Dates and times, as datetime64[ns] in UTC with NaT for a missing value.

    They become year, month, day, weekday, hour (if any time is not midnight), days since 1970, and whether the date is
    missing (if any is); all standardized as numbers are.
    """

    name = "date"
    plural = "dates"
    is_ordered = True

    def detect(self, raw: RawColumn) -> Detected | None:
        if dtypes.is_datetime64_any_dtype(raw.dtype):
            dates, notes = _within_range(raw.values)
            return Detected(self, dates, notes)
        texts = raw.texts
        if raw.is_categorical or texts is None or not texts.labels:
            return None
        parsed = _parse_all(texts.labels, "")
        if parsed is None:
            return None
        dates, text_format = parsed
        values = texts.spread(dates, NOT_A_DATE)
        outside = int(np.isnat(values).sum() - (texts.codes < 0).sum())
        is_ambiguous = text_format != "year first" and re.match(r"\d{1,2}\D\d", texts.labels[0])
        notes = [f"dates read with the {text_format}"] if is_ambiguous else []
        return Detected(self, values, notes + _note_outside(outside), text_format)

    def convert(self, raw: RawColumn, column: Column) -> np.ndarray:
        if dtypes.is_datetime64_any_dtype(raw.dtype):
            return _within_range(raw.values)[0]
        if raw.texts is None:
            raise UnexpectedValueError("values of another kind")
        text_format = column.text_format or "year first"
        parsed = _parse_all(raw.texts.labels, text_format)
        if parsed is None:
            wrong = [label for label in raw.texts.labels if _parse_all([label], text_format) is None]
            raise UnexpectedValueError(quote_names(wrong, 1) if wrong else "dates written in several formats")
        return raw.texts.spread(parsed[0], NOT_A_DATE)

    def missing_values(self, rows: int) -> pd.Series:
        return pd.Series([pd.NaT] * rows)

    def lay_out(self, features: pd.DataFrame) -> tuple[pd.DataFrame, list[Key]]:
        blocks = [_split_into_parts(features[name]) for name in features.columns]
        return pd.concat(blocks, axis="columns"), [Key(name, part) for name in features.columns for part in PARTS]

    def used_parts(self, values: pd.Series) -> tuple[str, ...]:
        present = values.dropna()
        unused = {
            "hour": bool((present == present.dt.normalize()).all()),
            "missing": not values.isna().any(),
        }
        return tuple(part for part in PARTS if not unused.get(part))

    def make_transformer(self) -> Pipeline:
        return make_scaler(marks_missing=False)

    def weigh(self, transformer: Any, values: pd.DataFrame, weight: np.ndarray) -> None:
        weigh_scaler(transformer, values, weight)

    def input_keys(self, transformer: Any, keys: Sequence[Key]) -> list[Key]:
        set_constants_to_zero(transformer.named_steps["scale"])
        return list(keys)


def _split_into_parts(dates: pd.Series) -> pd.DataFrame:
    part = dates.dt
    days = (dates - pd.Timestamp(0)) / pd.Timedelta(days=1)
    values = (part.year, part.month, part.day, part.day_of_week, part.hour, days, dates.isna())
    return pd.DataFrame({name: value.astype("float64") for name, value in zip(PARTS, values, strict=True)})


def _note_outside(count: int) -> list[str]:
    return [f"{count_noun(count, 'date')} outside {FIRST_YEAR} to {LAST_YEAR} treated as missing"] if count else []


def _within_range(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    if not isinstance(values.dtype, np.dtype):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz is not None else values
        values = values.astype("datetime64[us]")
    inside = values.dt.year.between(FIRST_YEAR, LAST_YEAR)
    outside = int((values.notna() & ~inside).sum())
    return values.where(inside).astype("datetime64[ns]").to_numpy(), _note_outside(outside)


def _parse_all(labels: list[str], text_format: str) -> tuple[np.ndarray, str] | None:
    """Return all texts as dates (NaT: out of range) and which part comes first; None if one of them is not a date."""
    if not all(DATE.fullmatch(label) for label in labels):
        return None
    years = np.array([int(re.findall(r"\d{4}", label)[0]) for label in labels])
    inside = (years >= FIRST_YEAR) & (years <= LAST_YEAR)
    dates = np.full(len(labels), NOT_A_DATE)
    if not inside.any():
        return (dates, text_format) if text_format else None
    written = pd.Series(np.array(labels, dtype=object)[inside])
    local = ("day first", "month first") if re.match(r"\d{1,2}\.", str(written[0])) else ("month first", "day first")
    is_open = text_format in ("", "year first")
    for candidate in ("year first", *(local if is_open else (text_format,))):
        parsed = _parse_dates(written, candidate)
        if parsed is not None:
            dates[inside] = parsed
            return dates, candidate
    return None


def _parse_dates(texts: pd.Series, text_format: str) -> np.ndarray | None:
    pandas_format = "ISO8601" if text_format == "year first" else None
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        try:
            parsed = pd.to_datetime(texts, utc=True, format=pandas_format, dayfirst=text_format == "day first")
        except (ValueError, OverflowError):
            return None
    # A warning means that pandas used another order than it was asked for, or parsed each row on its own.
    return None if doubts else parsed.dt.tz_localize(None).astype("datetime64[ns]").to_numpy()
