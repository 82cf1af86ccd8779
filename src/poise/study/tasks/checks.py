"""Check whether a target fits a task."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from poise.study.columns.base import text_of
from poise.study.columns.number_text import parse_number
from poise.study.errors import DataError, quote_names

if TYPE_CHECKING:
    from poise.study.targets import Target


def check_numbers(target: "Target", task: str) -> np.ndarray:
    """Return the values of a target of numbers.

    Raises:
        DataError: If it has other values.
    """
    if not target.is_number:
        distinct = pd.factorize(target.values, sort=True)[1]
        raise DataError(
            f"The task {task} needs numbers, and target {target.name!r} is text, such as {quote_names(distinct[:3])}. "
            f"{_name_odd_value(distinct)}Choose another target, or the task binary or multiclass.",
            "task",
        )
    return target.values


def check_nonnegative(target: "Target", task: str) -> np.ndarray:
    """Return the values of a target of numbers >= 0.

    Raises:
        DataError: If it has other values.
    """
    values = check_numbers(target, task)
    if (values < 0).any():
        raise DataError(
            f"The task {task} needs numbers >= 0, and target {target.name!r} holds {text_of(values.min())}. Choose the "
            "task regression.",
            "task",
        )
    return values


def check_positive(target: "Target", task: str) -> np.ndarray:
    """Return the values of a target of positive numbers.

    Raises:
        DataError: If it has other values.
    """
    values = check_numbers(target, task)
    if (values <= 0).any():
        other = "tweedie" if values.min() == 0 else "regression"
        raise DataError(
            f"The task {task} needs positive numbers, and target {target.name!r} holds {text_of(values.min())}. Choose "
            f"the task {other}.",
            "task",
        )
    return values


def check_counts(target: "Target") -> np.ndarray:
    """Return the values of a target of counts.

    Raises:
        DataError: If it has other values.
    """
    values = check_numbers(target, "counts")
    wrong = _not_counts(np.unique(values))
    if len(wrong):
        raise DataError(
            f"Counts must be whole numbers >= 0, and target {target.name!r} holds {text_of(wrong[0])}. Choose the task "
            "regression.",
            "task",
        )
    return values


def check_classes(target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels of the rows, and the classes.

    Raises:
        DataError: If a class has a single row.
    """
    codes, distinct = pd.factorize(target.values, sort=True)
    labels = target.labels_of(distinct)
    single = [label for label, count in zip(labels, np.bincount(codes), strict=True) if count < 2]
    if single:
        raise DataError(
            f"Target {target.name!r} has classes with a single row: {quote_names(single)}. Each class needs at least "
            f"two. {_suggest(distinct, target.is_number)}",
            "task",
        )
    return np.array(labels, dtype=object)[codes], tuple(labels)


def _not_counts(distinct: np.ndarray) -> np.ndarray:
    return distinct[(distinct < 0) | (distinct % 1 != 0)]


def _suggest(distinct: np.ndarray, is_number: bool) -> str:
    """What to do about classes with a single row."""
    if not is_number:
        return f"Merge or remove these classes. {_name_odd_value(distinct)}".rstrip()
    tasks = "regression" if len(_not_counts(distinct)) else "counts or regression"
    return f"Choose the task {tasks}, or merge or remove these classes."


def _name_odd_value(distinct: np.ndarray) -> str:
    """A column of numbers with a few odd values reads as text: name one of those."""
    odd = [text for text in distinct if all(parse_number(text, mark) is None for mark in (".", ","))]
    return f"It holds numbers except for values such as {odd[0]!r}. " if 0 < len(odd) < len(distinct) / 2 else ""
