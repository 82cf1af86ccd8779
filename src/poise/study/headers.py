"""Names of columns, as text: name those without one, and check the others."""

import collections
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

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


def as_name(column: object | None) -> str | None:
    """Return the name of a column as text, because tables in memory may have numbers as names."""
    return None if column is None else str(column)


def as_targets(target: object | None) -> tuple[str, ...] | None:
    """Return the names of one target or of a list of them as text."""
    if target is None:
        return None
    return tuple(map(str, target)) if isinstance(target, list) else (str(target),)


def as_names(columns: Iterable[object], argument: str) -> tuple[str, ...]:
    """Return a list of names as text.

    Raises:
        DataError: For text, each letter of which would otherwise be a name.
    """
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        raise DataError(f"{argument} must be a list of columns, got {columns!r}. Use [{columns!r}].", argument)
    return tuple(map(str, columns))


def as_types(types: Mapping[Any, str] | None) -> dict[str, str]:
    """Return the types of columns, by their names as text."""
    types = {} if types is None else types
    if not isinstance(types, Mapping):
        raise DataError(f"types must be a dict from columns to types, got a {type(types).__name__}.", "types")
    return {str(column): name for column, name in types.items()}


def check_column(column: str, frame: pd.DataFrame, table: str, argument: str = "") -> None:
    """Raise DataError, with the nearest names, if a frame lacks a column."""
    if column in frame.columns:
        return
    nearest = difflib.get_close_matches(column, list(frame.columns), n=3)
    hint = f" Did you mean {quote_names(nearest)}?" if nearest else ""
    single = " It has only one column. If it is a CSV file with an unusual delimiter, set the delimiter."
    raise DataError(
        f"{table} has no column {column!r}.{hint} Its columns are {quote_names(frame.columns)}."
        f"{single if frame.shape[1] == 1 else ''}",
        argument,
    )
