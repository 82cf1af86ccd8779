"""Columns of dates and times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from sklearn.pipeline import Pipeline

from poise.study.columns.base import Column, ColumnKind, Detected, Key, RawColumn, UnexpectedValueError
from poise.study.columns.date_text import FIRST_YEAR, LAST_YEAR, find_order, parse_dates
from poise.study.columns.number_column import make_scaler, set_constants_to_zero
from poise.study.columns.tolerance import find_unreadable, note_missing
from poise.study.columns.weighting import weigh_scaler
from poise.study.errors import count_noun

PARTS = ("year", "month", "day", "weekday", "hour", "days", "missing")
NOT_A_DATE = np.datetime64("NaT", "us")


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
            dates, notes = _within_range(_as_datetimes(raw.values))
            return Detected(self, dates, notes)
        texts = raw.texts
        if raw.is_categorical or texts is None:
            return None
        order = find_order(_present(raw))
        if order is None:
            return None
        parsed = parse_dates(texts.labels, order.name)
        unreadable = find_unreadable(texts, raw.missing, ~np.isnat(parsed))
        if unreadable is None:
            return None
        dates, outside = _within_range(pd.Series(texts.spread(parsed, NOT_A_DATE, "datetime64[us]")))
        notes = [*order.notes, *unreadable.note("date"), *note_missing(texts, raw.missing), *outside]
        return Detected(self, dates, notes, order.doubt, order.name, unreadable.texts)

    def convert(self, raw: RawColumn, column: Column) -> np.ndarray:
        if dtypes.is_datetime64_any_dtype(raw.dtype):
            return _within_range(_as_datetimes(raw.values))[0]
        if raw.texts is None:
            raise UnexpectedValueError("values of another kind")
        labels = raw.texts.labels
        order = find_order(_present(raw)) if not column.text_format else None
        parsed = parse_dates(labels, order.name if order else column.text_format)
        for label, moment, is_missing in zip(labels, parsed, raw.missing, strict=True):
            if np.isnat(moment) and not is_missing and label not in column.ignored_texts:
                raise UnexpectedValueError(repr(label))
        return _within_range(pd.Series(raw.texts.spread(parsed, NOT_A_DATE, "datetime64[us]")))[0]

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


def _present(raw: RawColumn) -> list[str]:
    """The labels of a column that do not stand for a missing value."""
    labels = raw.texts.labels if raw.texts else []
    return [label for label, is_missing in zip(labels, raw.missing, strict=True) if not is_missing]


def _as_datetimes(values: pd.Series) -> pd.Series:
    """Return datetimes in UTC without a time zone, from any type of dates of pandas."""
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return values if isinstance(values.dtype, np.dtype) else values.astype("datetime64[us]")


def _within_range(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    inside = values.dt.year.between(FIRST_YEAR, LAST_YEAR)
    outside = int((values.notna() & ~inside).sum())
    return values.where(inside).astype("datetime64[ns]").to_numpy(), _note_outside(outside)
