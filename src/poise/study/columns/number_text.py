"""Numbers written as text, with a decimal point or comma and with thousands separators."""

import functools
import re

SPACES = " '’\u00a0\u2009\u202f"
"""Characters that may separate thousands, besides a point or comma."""


def parse_number(text: str, mark: str) -> float | None:
    """Return the number that a text shows.

    Args:
        text: Such as `"1,234.5"` (mark `"point"`), or `"1.234,5"` and `"1 234,5"` (mark `"comma"`).
        mark: The decimal mark, `"point"` or `"comma"`.

    Returns:
        The number, or `None` if the text is not a number.
    """
    if not _number_pattern(mark).fullmatch(text):
        return None
    group, decimal = (",", ".") if mark == "point" else (".", ",")
    return float(re.sub(f"[{SPACES}{group}]", "", text).replace(decimal, "."))


@functools.cache
def _number_pattern(mark: str) -> re.Pattern[str]:
    decimal, group = (r"\.", ",") if mark == "point" else (",", r"\.")
    whole = rf"\d+|[1-9]\d{{0,2}}(?:[{SPACES}{group}]\d{{3}})+"
    return re.compile(
        rf"[+-]?(?:(?:{whole})(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][+-]?\d+)?|[+-]?(?i:inf(?:inity)?)", re.ASCII
    )
