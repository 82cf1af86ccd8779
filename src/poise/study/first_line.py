"""Notice that the first line of a file does not hold the names of its columns."""

import math
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import NamedTuple

from poise.study.columns.number_text import parse_number
from poise.study.errors import DataError, quote_names

FIRST_YEAR, LAST_YEAR = 1900, 2100
FEWEST_INCREASING = 5
"""Minimum count of increasing numbers to read as names, such as wavelengths. Rows of data rarely increase."""
FEWEST_TEXTS = 3


class Line(NamedTuple):
    """A line of a file.

    Args:
        number: Its number in the file, from 1.
        fields: Its fields.
    """

    number: int
    fields: Sequence[str]

    @property
    def filled(self) -> list[str]:
        """The fields that are not blank."""
        return [field for field in self.fields if field.strip()]


def check_first_line(lines: Sequence[Line], table: str) -> None:
    """Check the line from which the names of columns are taken.

    Args:
        lines: The first lines of a file that are not blank or skipped.
        table: What error messages call the file.

    Raises:
        DataError: If the first line is a title, or a row of data.
    """
    first, rest = lines[0], lines[1:]
    names = _find_names_below_title(first, rest)
    if names is not None:
        content = f"contains only {quote_names(first.filled)}" if first.filled else "has no column names"
        raise DataError(
            f"Line {first.number} of {table!r} {content}, but the table has {len(names.fields)} columns. If the names "
            f"are in line {names.number} ({quote_names(names.fields)}), use skip_rows={names.number - 1}.",
            "skip_rows",
        )
    if _is_data(first, rest):
        raise DataError(
            f"Line {first.number} of {table!r} looks like data, not like column names: {quote_names(first.fields)}. "
            "Add a line with the column names above it."
        )


def _find_names_below_title(first: Line, rest: Sequence[Line]) -> Line | None:
    """Return the line with a name for every column, if the first line is a title, which fills few of its fields."""
    width = max((len(line.filled) for line in rest), default=0)
    if len(first.filled) > width / 2 or (first.filled and not first.fields[0].strip()):
        return None
    names = next((line for line in rest if len(line.filled) == width), first)
    return None if any(_is_number(name) for name in names.filled) else names


def _is_data(first: Line, rest: Sequence[Line]) -> bool:
    """Return whether the first line has numbers over numeric columns, and texts that recur in their own columns."""
    numbers, texts = [], []
    for name, *values in zip_longest(first.fields, *(line.fields for line in rest), fillvalue=""):
        present = {value.strip() for value in values} - {""}
        if present:
            is_numeric = all(map(_is_number, present))
            numbers += [name] if is_numeric else []
            texts += [] if is_numeric else [name.strip() in present]
    if not all(map(_is_number, numbers)):
        return False
    if not numbers:
        return len(texts) >= FEWEST_TEXTS and all(texts)
    return not _can_be_names([_to_float(name) for name in numbers]) or (bool(texts) and all(texts))


def _can_be_names(numbers: Sequence[float]) -> bool:
    """Whether numbers may be column names: 0, 1, 2, ..., years, or many that increase."""
    steps = [after - before for before, after in pairwise(numbers)]
    if len(numbers) >= FEWEST_INCREASING and all(step > 0 for step in steps):
        return True
    is_whole = all(number.is_integer() for number in numbers)
    are_years = all(FIRST_YEAR <= number <= LAST_YEAR for number in numbers)
    return is_whole and (are_years or all(step == 1 for step in steps))


def _is_number(text: str) -> bool:
    return math.isfinite(_to_float(text))


def _to_float(text: str) -> float:
    """The number that a text shows with a decimal point or comma; NaN for other text."""
    readings = (parse_number(text.strip(), decimal) for decimal in ".,")
    return next((number for number in readings if number is not None), math.nan)
