"""How the text of a table is read: which mark is the decimal mark, and which texts stand for missing values."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from pandas.api import types as dtypes

from poise.study.columns.number_text import parse_number
from poise.study.errors import DataError

MISSING = frozenset({
    *("?", "nan", "-nan", "null", "(null)", "<na>", "nat", "\\n", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
    *("#n/a", "#n/a n/a", "#na", "#null!", "#value!", "#ref!", "#div/0!", "#name?", "#num!"),
})  # fmt: skip
"""Texts in lower case that programs write for a missing value, whatever the column holds."""
MISSING_AMONG_VALUES = frozenset({
    *("na", "n/a", "n.a.", "n.a", "none", "nil", "not available", "not applicable"),
    *("-", "--", "---", "\u2013", "\u2014", ".", "..", "..."),
})  # fmt: skip
"""Texts in lower case that stand for a missing value among numbers or dates, and may be categories elsewhere."""
MOST_COUNTED = 1000
"""Distinct texts of a column that are enough to see its decimal mark."""


@dataclass(frozen=True)
class TextRules:
    """How text is read, in all columns of a table alike.

    Args:
        decimal: The decimal mark, `"."` or `","`; the other one may separate thousands. Default: `""`, which is the
            mark that a column had when it was studied, or else a point.
        missing: Texts that stand for a missing value, besides the empty text and the usual ones; `()` for the empty
            text only. Default: `None`, which adds none.
    """

    decimal: str = ""
    missing: tuple[str, ...] | None = None

    def is_missing(self, text: str) -> bool:
        """Return whether a text without spaces around it stands for a missing value in every column."""
        return not text or text in self._more or (self._has_usual and text.lower() in MISSING)

    def is_missing_value(self, text: str) -> bool:
        """Return whether it stands for a missing value in a column of numbers or dates."""
        return self.is_missing(text) or (self._has_usual and text.lower() in MISSING_AMONG_VALUES)

    @cached_property
    def _more(self) -> frozenset[str]:
        return frozenset(text.strip() for text in self.missing or ())

    @property
    def _has_usual(self) -> bool:
        return self.missing != ()


def make_rules(
    frame: pd.DataFrame, decimal: str | None, missing: Sequence[str] | None
) -> tuple[TextRules, str]:  # fmt: skip
    """Return how the text of a table is read, with one decimal mark for all of its columns.

    Args:
        frame: The table. Only numbers in text that can be read in exactly one way are counted.
        decimal: The decimal mark; `None` finds it.
        missing: See `TextRules`.

    Returns:
        The rules; and a number such as `"1.000"` if no number shows the mark, so that the point was taken, or `""`.

    Raises:
        DataError: For another decimal mark, or if `missing` is not a list of texts.
    """
    if decimal not in (None, ".", ","):
        raise DataError(f"The decimal mark must be '.' or ',', got {decimal!r}. Omit it to detect it.", "decimal")
    detected, doubtful = (decimal, "") if decimal else find_decimal(frame[name] for name in frame.columns)
    return TextRules(detected, check_missing(missing)), doubtful


def check_missing(missing: object) -> tuple[str, ...] | None:
    """Return the argument `missing` as a tuple; raise DataError if it is not a list of texts."""
    if missing is None:
        return None
    if not isinstance(missing, list | tuple | set) or not all(isinstance(text, str) for text in missing):
        raise DataError(f"missing must be a list of texts such as ['-999'], got {missing!r}.", "missing")
    return tuple(missing)


def find_decimal(columns: Iterable[pd.Series]) -> tuple[str, str]:
    """Return the decimal mark of most numbers in text; and an example if there are only such as `"1.000"`, or `""`."""
    counts = {".": 0, ",": 0}
    doubtful = ""
    for values in columns:
        counted = 0
        for text in _marked_texts(values):
            readings = {mark: number for mark in counts if (number := parse_number(text, mark)) is not None}
            if len(readings) == 1:
                counts[next(iter(readings))] += 1
                counted += 1
            elif len(set(readings.values())) > 1:
                doubtful = doubtful or text
            if counted == MOST_COUNTED:
                break
    decimal = "," if counts[","] > counts["."] else "."
    return decimal, "" if any(counts.values()) else doubtful


def _marked_texts(values: pd.Series) -> Iterator[str]:
    """The distinct texts of a column that hold a point or a comma."""
    if not dtypes.is_string_dtype(values.dtype):
        return
    try:
        distinct = pd.Series(values.unique())
    except TypeError:  # values that cannot be compared, such as lists
        return
    texts = distinct[[isinstance(value, str) for value in distinct]] if distinct.dtype == object else distinct.dropna()
    yield from (text.strip() for text in texts[texts.astype("str").str.contains("[.,]")])
