"""Columns of numbers: truth values, durations and numbers written as text included."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from poise.study.columns.base import Column, ColumnKind, Detected, Key, RawColumn, Texts, UnexpectedValueError
from poise.study.columns.number_text import parse_number
from poise.study.columns.weighting import weigh_scaler
from poise.study.errors import count_noun

FEWEST_NUMBERS = 0.95
"""The share of rows whose text must be a number."""
MOST_IGNORED_TEXTS = 20
SQUARABLE = 1e100
"""Larger numbers are clipped: the variance of a column might overflow."""


class NumberColumn(ColumnKind):
    """Numbers, as float64 with NaN for a missing value.

    Missing values become the median, with an input that marks them; the result is standardized. A column that is
    constant in the rows fitted on is 0 in every row.
    """

    name = "number"
    plural = "numbers"
    is_ordered = True
    is_target = True
    is_joint = True

    def detect(self, raw: RawColumn) -> Detected | None:
        if raw.is_numeric:
            numbers, notes = _finite(raw.values)
            return Detected(self, numbers, notes, is_truth=dtypes.is_bool_dtype(raw.dtype))
        if dtypes.is_timedelta64_dtype(raw.dtype):
            return Detected(self, _seconds(raw.values), ["durations in seconds"])
        if raw.is_categorical or raw.texts is None or not raw.texts.labels:
            return None
        return self._detect_in_text(raw.texts)

    def _detect_in_text(self, texts: Texts) -> Detected | None:
        if not texts.is_text and set(texts.labels) <= {"True", "False"}:
            truth = [float(label == "True") for label in texts.labels]
            return Detected(self, texts.spread(truth, np.nan), is_truth=True)
        parsed = {mark: _parse_all(texts.labels, mark) for mark in ("point", "comma")}
        mark, best = min(parsed.items(), key=lambda item: item[1].count(None))  # the first of equals
        ignored = tuple(label for label, number in zip(texts.labels, best, strict=False) if number is None)
        if len(ignored) > MOST_IGNORED_TEXTS:
            return None
        rows = np.bincount(texts.codes[texts.codes >= 0], minlength=len(texts.labels))
        lost = int(rows[[number is None for number in best]].sum())
        if lost > (1 - FEWEST_NUMBERS) * rows.sum():
            return None
        numbers, notes = _finite(pd.Series(texts.spread(best, None, "float64")))
        if ignored:
            notes.insert(0, f"{count_noun(lost, 'value')} not a number, such as {ignored[0]!r}, treated as missing")
        if texts.is_text:
            notes.insert(0, "numbers written as text" + (" with a decimal comma" if mark == "comma" else ""))
        return Detected(self, numbers, notes, mark if texts.is_text else "", ignored)

    def convert(self, raw: RawColumn, column: Column) -> np.ndarray:
        if raw.is_numeric:
            return _finite(raw.values)[0]
        if dtypes.is_timedelta64_dtype(raw.dtype):
            return _seconds(raw.values)
        if raw.texts is None:
            raise UnexpectedValueError("values of another kind")
        known = {**dict.fromkeys(column.ignored_texts, np.nan), "True": 1.0, "False": 0.0}
        marks = ("comma", "point") if column.text_format == "comma" else ("point", "comma")
        numbers = []
        for label in raw.texts.labels:
            candidates = (known.get(label), *(parse_number(label, mark) for mark in marks))
            number = next((number for number in candidates if number is not None), None)
            if number is None:
                raise UnexpectedValueError(repr(label))
            numbers.append(number)
        return _finite(pd.Series(raw.texts.spread(numbers, np.nan)))[0]

    def lay_out(self, features: pd.DataFrame) -> tuple[pd.DataFrame, list[Key]]:
        return features.clip(-SQUARABLE, SQUARABLE), [Key(name, "value") for name in features.columns]

    def make_transformer(self) -> Pipeline:
        return make_scaler(marks_missing=True)

    def weigh(self, transformer: Any, values: pd.DataFrame, weight: np.ndarray) -> None:
        weigh_scaler(transformer, values, weight)

    def input_keys(self, transformer: Any, keys: Sequence[Key]) -> list[Key]:
        set_constants_to_zero(transformer.named_steps["scale"])
        indicator = transformer.named_steps["fill"].indicator_
        missing = [] if indicator is None else [Key(keys[place].column, "missing") for place in indicator.features_]
        return [*keys, *missing]


def make_scaler(*, marks_missing: bool) -> Pipeline:
    """Return a pipeline that fills in the median and standardizes; `marks_missing` adds inputs for missing values."""
    fill = SimpleImputer(strategy="median", add_indicator=marks_missing, keep_empty_features=True)
    return Pipeline([("fill", fill), ("scale", StandardScaler())])


def set_constants_to_zero(scaler: StandardScaler) -> None:
    """Make a fitted scaler return 0 for what was constant, in all rows; scikit-learn would divide by 1."""
    scale, variance = np.asarray(scaler.scale_), np.asarray(scaler.var_)
    scaler.scale_ = np.where((scale == 1.0) & ~np.isclose(variance, 1.0), np.inf, scale)


def _finite(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    if isinstance(values.dtype, np.dtype):
        numbers = values.to_numpy("float64")
    else:
        numbers = values.to_numpy("float64", na_value=np.nan)
    infinite = np.isinf(numbers)
    if not infinite.any():
        return numbers, []
    note = f"{count_noun(int(infinite.sum()), 'infinite value')} treated as missing"
    return np.where(infinite, np.nan, numbers), [note]


def _seconds(values: pd.Series) -> np.ndarray:
    return values.dt.total_seconds().to_numpy("float64", na_value=np.nan)


def _parse_all(labels: list[str], mark: str) -> list[float | None]:
    """Return the number of each text; the list ends early if too many are not numbers."""
    numbers: list[float | None] = []
    failed = 0
    for label in labels:
        numbers.append(parse_number(label, mark))
        failed += numbers[-1] is None
        if failed > MOST_IGNORED_TEXTS:
            break
    return numbers
