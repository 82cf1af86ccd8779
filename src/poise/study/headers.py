"""Names of columns: name those without one, and check the others."""

import collections
import difflib
from collections.abc import Iterable

import pandas as pd

from poise.study.errors import DataError, quote_names


def name_columns(names: Iterable[object]) -> list[str]:
    """Return names as text. A column without one gets the name that pandas gives it, such as `"Unnamed: 0"`."""
    texts = ["" if name is None else str(name) for name in names]
    return [text if text.strip() else f"Unnamed: {place}" for place, text in enumerate(texts)]


def check_header(names: list[str], table: str) -> None:
    """Raise DataError if two columns have the same name."""
    if len(set(names)) < len(names):
        repeated = sorted(name for name, count in collections.Counter(names).items() if count > 1)
        raise DataError(
            f"{table} has more than one column named {quote_names(repeated)}. Give each column a unique name."
        )


def check_column(column: str, frame: pd.DataFrame, table: str, argument: str = "") -> None:
    """Raise DataError, with the nearest names, if a frame lacks a column."""
    if column in frame.columns:
        return
    nearest = difflib.get_close_matches(column, list(frame.columns), n=3)
    hint = f" Did you mean {quote_names(nearest)}?" if nearest else ""
    single = " The header has a single name: set the delimiter if the file uses an unusual one."
    raise DataError(
        f"{table} has no column {column!r}.{hint} Its columns are {quote_names(frame.columns)}."
        f"{single if frame.shape[1] == 1 else ''}",
        argument,
    )
