"""Columns of categories: whatever repeats and is neither a number nor a date."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import OneHotEncoder

from poise.study.columns.base import (
    CONSTANT,
    Column,
    ColumnKind,
    Detected,
    Key,
    RawColumn,
    UnexpectedValueError,
    is_constant,
)

FEW_CATEGORIES = 50
MOST_CATEGORIES = 5000
MOST_INPUTS = 50
NEARLY_ALL = 0.9
"""The share of rows that may differ; more are free text."""


class CategoryColumn(ColumnKind):
    """Categories, as str with None for a missing value.

    Each category becomes one input, 0 or 1 and not scaled; a missing value is a category of its own. With more than 50
    categories the rarest share the input "(other)", which new categories join. Without that input, a new category is 0
    in all of them.
    """

    name = "category"
    plural = "categories"
    is_target = True

    def detect(self, raw: RawColumn) -> Detected | None:
        if raw.texts is None:
            return None
        return Detected(self, raw.texts.spread(raw.texts.labels, None, object))

    def convert(self, raw: RawColumn, column: Column) -> np.ndarray:
        if raw.texts is None:
            raise UnexpectedValueError("values of another kind")
        return raw.texts.spread(raw.texts.labels, None, object)

    def reason_to_set_aside(self, name: str, values: np.ndarray) -> str:
        present = int((~pd.isna(values)).sum())
        distinct = len(set(values) - {None})
        if is_constant(values):
            return CONSTANT
        if distinct > NEARLY_ALL * present:
            return "free text or an identifier: nearly every row differs"
        if distinct > max(FEW_CATEGORIES, min(MOST_CATEGORIES, present / 2)):
            return "text with too many different values to learn from"
        return ""

    def missing_values(self, rows: int) -> pd.Series:
        return pd.Series([None] * rows, dtype=object)

    def make_transformer(self) -> OneHotEncoder:
        return OneHotEncoder(max_categories=MOST_INPUTS, handle_unknown="infrequent_if_exist", sparse_output=False)

    def input_keys(self, transformer: Any, keys: Sequence[Key]) -> list[Key]:
        column = keys[0].column
        rare = transformer.infrequent_categories_[0]
        shared = set() if rare is None else set(rare)
        frequent = [category for category in transformer.categories_[0] if category not in shared]
        inputs = [Key(column, "category", category) for category in frequent]
        return [*inputs, Key(column, "other")] if shared else inputs

    def name_input(self, key: Key) -> str:
        if key.part == "other":
            return f"{key.column}=(other)"
        return f"{key.column}={'(missing)' if key.category is None else key.category}"

    def fallback(self, key: Key) -> Key:
        return Key(key.column, "other")
