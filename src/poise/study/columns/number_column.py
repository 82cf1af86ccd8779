"""Columns of numbers: truth values, durations and numbers written as text included."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types as dtypes
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from poise.study.columns.base import PIECE, Column, ColumnKind, Detected, Key, RawColumn, Texts, UnexpectedValueError
from poise.study.columns.number_text import has_unit, parse_number, parse_plain_numbers
from poise.study.columns.piecewise_encoder import PiecewiseLinearEncoder
from poise.study.columns.text_rules import TextRules
from poise.study.columns.tolerance import MOST_IGNORED_TEXTS, find_unreadable, note_missing
from poise.study.columns.weighting import weigh_scaler
from poise.study.errors import count_noun

TRUTHS = {"true": 1.0, "false": 0.0}
SQUARABLE = 1e100
"""Larger numbers are clipped: the variance of a column might overflow."""


class NumberColumn(ColumnKind):
    """Numbers, as float64 with NaN for a missing value.

    Missing values become the median, with an input that marks them; the result is standardized. A column that is
    constant in the rows fitted on is 0 in every row. A piecewise-linear encoding adds the pieces of the column,
    standardized as well, if it has more than two distinct values.
    """

    name = "number"
    plural = "numbers"
    is_ordered = True
    is_target = True
    is_joint = True

    def detect(self, raw: RawColumn) -> Detected | None:
        if raw.is_numeric:
            numbers, notes = _finite(raw.values)
            is_truth = dtypes.is_bool_dtype(raw.dtype)
            return Detected(self, _without_missing(numbers, raw.rules, "."), notes, is_truth=is_truth)
        if dtypes.is_timedelta64_dtype(raw.dtype):
            return Detected(self, _seconds(raw.values), ["durations in seconds"])
        decimal = raw.rules.decimal or "."
        plain = parse_plain_numbers(raw.values, decimal)
        if plain is not None:
            numbers, infinite = _finite(pd.Series(plain))
            notes = [*_note_decimal(decimal, bool(raw.values.str.contains(decimal, regex=False).any())), *infinite]
            return Detected(self, _without_missing(numbers, raw.rules, decimal), notes, text_format=decimal)
        if raw.is_categorical or raw.texts is None:
            return None
        other = "," if decimal == "." else "."
        return _detect_truth(self, raw) or _detect_numbers(self, raw, decimal) or _detect_numbers(self, raw, other)

    def convert(self, raw: RawColumn, column: Column) -> np.ndarray:
        if raw.is_numeric:
            return _without_missing(_finite(raw.values)[0], raw.rules, ".")
        if dtypes.is_timedelta64_dtype(raw.dtype):
            return _seconds(raw.values)
        decimal = raw.rules.decimal or column.text_format or "."
        plain = parse_plain_numbers(raw.values, decimal)
        if plain is not None:
            return _without_missing(_finite(pd.Series(plain))[0], raw.rules, decimal)
        if raw.texts is None:
            raise UnexpectedValueError("values of another kind")
        numbers = []
        for label, is_text in zip(raw.texts.labels, raw.texts.is_text, strict=True):
            number = np.nan
            if not raw.rules.is_missing_value(label) and label not in column.ignored_texts:
                number = TRUTHS.get(label.lower(), parse_number(label, decimal if is_text else "."))
            if number is None:
                raise UnexpectedValueError(repr(label))
            numbers.append(number)
        converted = _finite(pd.Series(raw.texts.spread(numbers, np.nan)))[0]
        return _without_missing(converted, raw.rules, decimal)

    def lay_out(self, features: pd.DataFrame) -> tuple[pd.DataFrame, list[Key]]:
        return features.clip(-SQUARABLE, SQUARABLE), [Key(name, "value") for name in features.columns]

    def make_transformer(self) -> Pipeline:
        return make_scaler(marks_missing=True)

    def takes_pieces(self, values: pd.Series) -> bool:
        return values.nunique() > 2

    def make_piecewise_transformer(self) -> Pipeline:
        fill, scale = make_scaler(marks_missing=False).steps
        return Pipeline([fill, ("pieces", PiecewiseLinearEncoder()), scale])

    def weigh(self, transformer: Any, values: pd.DataFrame, weight: np.ndarray) -> None:
        weigh_scaler(transformer, values, weight)

    def input_keys(self, transformer: Any, keys: Sequence[Key]) -> list[Key]:
        set_constants_to_zero(transformer.named_steps["scale"])
        pieces = transformer.named_steps.get("pieces")
        if pieces is not None:
            groups = zip(keys, pieces.groups_, strict=True)
            return [Key(key.column, f"{PIECE}{number}") for key, group in groups for number in range(1, len(group) + 1)]
        indicator = transformer.named_steps["fill"].indicator_
        missing = [] if indicator is None else [Key(keys[place].column, "missing") for place in indicator.features_]
        return [*keys, *missing]


def _detect_truth(kind: NumberColumn, raw: RawColumn) -> Detected | None:
    texts = raw.texts
    assert texts is not None
    if all(raw.missing) or not all(
        is_missing or label.lower() in TRUTHS for label, is_missing in zip(texts.labels, raw.missing, strict=True)
    ):
        return None
    truth = texts.spread([TRUTHS.get(label.lower(), np.nan) for label in texts.labels], np.nan)
    return Detected(kind, truth, note_missing(texts, raw.missing), is_truth=True)


def _detect_numbers(kind: NumberColumn, raw: RawColumn, decimal: str) -> Detected | None:
    texts = raw.texts
    assert texts is not None
    parsed = _parse_all(texts, raw.missing, decimal)
    if parsed is None:
        return None
    unreadable = find_unreadable(texts, raw.missing, [number is not None for number in parsed])
    if unreadable is None:
        return None
    numbers, infinite = _finite(pd.Series(texts.spread(parsed, None, "float64")))
    notes = [
        *_note_format(texts, decimal, raw.rules.decimal or "."), *unreadable.note("number"),
        *note_missing(texts, raw.missing), *infinite,
    ]  # fmt: skip
    text_format = decimal if any(texts.is_text) else ""
    return Detected(
        kind, _without_missing(numbers, raw.rules, decimal), notes, "", text_format, unreadable.texts
    )  # fmt: skip


def _note_format(texts: Texts, decimal: str, usual: str) -> list[str]:
    if decimal == usual:
        notes = _note_decimal(decimal, any("," in label or "." in label for label in texts.labels))
    else:
        notes = [f"numbers with a decimal {'comma' if decimal == ',' else 'point'}, unlike other columns"]
    return [*notes, *(["currency and percent signs ignored"] if has_unit("\n".join(texts.labels)) else [])]


def _note_decimal(decimal: str, is_marked: bool) -> list[str]:
    return ["numbers with a decimal comma"] if decimal == "," and is_marked else []


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


def _without_missing(numbers: np.ndarray, rules: TextRules, decimal: str) -> np.ndarray:
    """Return the numbers with NaN for those that the user lists as missing, such as −999."""
    listed = [number for text in rules.missing or () if (number := parse_number(text.strip(), decimal)) is not None]
    return np.where(np.isin(numbers, listed), np.nan, numbers) if listed else numbers


def _parse_all(texts: Texts, missing: Sequence[bool], decimal: str) -> list[float | None] | None:
    """Return the number of each text, None for a missing value or what is not a number; None if too many are not."""
    numbers: list[float | None] = []
    failed = 0
    for label, is_text, is_missing in zip(texts.labels, texts.is_text, missing, strict=True):
        numbers.append(None if is_missing else parse_number(label, decimal if is_text else "."))
        failed += numbers[-1] is None and not is_missing
        if failed > MOST_IGNORED_TEXTS:
            return None
    return numbers
