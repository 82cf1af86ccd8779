"""Find columns of numbers that count or name the rows: a network could only learn the rows by heart.

A table that is sorted by its target shows why: the row number predicts it perfectly, and says nothing about new rows.
"""

import re

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

NEARLY_ALL = 0.9
"""The share of rows that must differ in an identifier."""
UNNAMED = re.compile(r"Unnamed: \d+.*")
"""What pandas calls a column without a name, such as the index that it wrote to a file."""
ROW_NAMES = {"index", "idx", "row", "rowid", "rowindex", "rowname", "rownames", "rowno", "rownr", "rownum", "rownumber"}
KEY_WORDS = {"guid", "id", "ids", "rowid", "rownum", "uid", "uuid"}
"""Words that only identifiers have in their names."""
COUNTING_WORDS = {*KEY_WORDS, "idx", "index", "key", "no", "nr", "number", "row"}
"""Words that measurements may have as well: a body mass index, a number of rooms."""


def find_identifier(source: pd.Series, values: np.ndarray) -> str:
    """Return why a column is an identifier, or `""`.

    Args:
        source: The column in the source; its index holds the positions of the rows in the source.
        values: (rows,) its values as `poise.study.columns.reading.detect_kind` reads them.
    """
    present = ~pd.isna(values)
    if values.dtype != "float64" or dtypes.is_timedelta64_dtype(source.dtype) or present.sum() < 2:
        return ""
    numbers, name = values[present], str(source.name)
    if (numbers % 1 != 0).any():
        return ""
    is_complete = bool(present.all())
    if is_complete and _words(name) & COUNTING_WORDS and (np.diff(numbers) > 0).all():
        return "an identifier: whole numbers that increase from row to row"
    if _names_rows(name) and len(np.unique(numbers)) > NEARLY_ALL * len(numbers):
        return "an identifier: whole numbers that differ in nearly every row"
    if is_complete and _counts_rows(numbers, np.asarray(source.index)) and _is_written_whole(source):
        return "a row number: whole numbers in equal steps from row to row"
    return ""


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def _names_rows(name: str) -> bool:
    squeezed = re.sub(r"[\W_]", "", name).lower()
    return bool(UNNAMED.fullmatch(name)) or squeezed in ROW_NAMES or bool(_words(name) & KEY_WORDS)


def _counts_rows(numbers: np.ndarray, rows: np.ndarray) -> bool:
    """Whether the numbers are a linear function of the positions of their rows; rows may have been left out."""
    step = (numbers[1] - numbers[0]) / (rows[1] - rows[0])
    return bool(step != 0.0 and step % 1 == 0 and (numbers - numbers[0] == step * (rows - rows[0])).all())


def _is_written_whole(source: pd.Series) -> bool:
    """Whether numbers have no decimals in the source: 1 and not 1.0, which is a measurement."""
    if dtypes.is_float_dtype(source.dtype):
        return False
    return dtypes.is_integer_dtype(source.dtype) or not source.astype(str).str.contains(r"[.,]0*\s*$").any()
