"""Numbers written as text: with a decimal point or comma, thousands marks, a currency or percent sign."""

import functools
import re
import unicodedata

import numpy as np
import pandas as pd
from pandas.api import types as dtypes

SPACES = " \u00a0\u2009\u202f"
THOUSANDS = f"{SPACES}'’"
"""Characters that may separate thousands, besides a point or comma."""
SIGNS = "+\\-\u2212"


def parse_number(text: str, decimal: str) -> float | None:
    """Return the number that a text shows.

    A currency sign or a percent sign is ignored: `"12.5%"` is 12.5. Parentheses make a number negative, as in
    bookkeeping.

    Args:
        text: Such as `"1,234.5"` or `"($1'234)"` (decimal mark `"."`), or `"1.234,5"` and `"1 234,5 €"` (`","`).
        decimal: The decimal mark, `"."` or `","`; the other one may separate thousands.

    Returns:
        The number, or `None` if the text is not a number.
    """
    match = _number_pattern(decimal).fullmatch(text)
    if match is None:
        return None
    digits, sign = match["digits"], match["sign"] or match["inner_sign"]
    if match["mark"]:
        digits = digits.replace(match["mark"], "")
    number = float(digits.replace(decimal, "."))
    return -number if match["open"] or sign in ("-", "\u2212") else number


def parse_plain_numbers(values: pd.Series, decimal: str) -> np.ndarray | None:
    """Return the numbers of a column whose texts are digits with a decimal mark, or empty: NaN for those.

    It is many times faster than `parse_number`, and returns `None` for every other column.
    """
    plain = _plain_pattern(decimal)
    for rows in sorted({min(len(values), 100), len(values)}):  # most other columns show it at their start
        part = values.head(rows).dropna()
        if dtypes.infer_dtype(part) != "string" or not (part.str.fullmatch(plain) | (part == "")).all():
            return None
    is_number = (values.notna() & (values != "")).to_numpy(bool)
    if not is_number.any():
        return None
    numbers = np.full(len(values), np.nan)
    numbers[is_number] = values[is_number].str.replace(decimal, ".", regex=False).astype("float64")
    return numbers


def has_unit(text: str) -> bool:
    """Return whether a text holds a currency sign or a percent sign."""
    return re.search(f"[{_currency_signs()}%]", text) is not None


def _plain_pattern(decimal: str) -> str:
    point = re.escape(decimal)
    return rf"[+-]?(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"


@functools.cache
def _number_pattern(decimal: str) -> re.Pattern[str]:
    point, thousands = re.escape(decimal), "," if decimal == "." else "."
    currency = f"[{_currency_signs()}]"
    whole = rf"[1-9]\d{{0,2}}(?P<mark>[{THOUSANDS}{thousands}])\d{{3}}(?:(?P=mark)\d{{3}})*|\d+"
    digits = rf"(?:(?:{whole})(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?|(?i:inf(?:inity)?)"
    return re.compile(
        rf"(?P<open>\()?(?P<sign>(?(open)|[{SIGNS}]?))(?:{currency}[{SPACES}]*(?P<inner_sign>(?(open)|[{SIGNS}]?)))?"
        rf"(?P<digits>{digits})(?:[{SPACES}]*(?:{currency}|%))?(?(open)\))",
        re.ASCII,
    )


@functools.cache
def _currency_signs() -> str:
    return "".join(sign for sign in map(chr, range(0x10000)) if unicodedata.category(sign) == "Sc")
