"""The target of a table, and the task that it poses."""

import numpy as np
import pandas as pd

from poise.study.columns.base import RawColumn, text_of
from poise.study.columns.number_text import parse_number
from poise.study.columns.reading import detect_kind
from poise.study.errors import DataError, list_first, quote_names

TASKS = ("regression", "binary", "multiclass", "counts")
FEWEST_ROWS_PER_CLASS = 5


def read_target(values: pd.Series) -> tuple[np.ndarray, bool]:
    """Return the target as numbers (NaN: missing) or labels (None: missing), and whether it is numbers.

    Raises:
        DataError: If the column holds something that a study does not predict.
    """
    detected = detect_kind(values)
    kind = detected.kind
    if kind is None or not kind.is_target:
        content = detected.notes[0] if kind is None else kind.plural
        raise DataError(
            f"Target {values.name!r} holds {content}; a study predicts numbers or classes. Choose another target.",
            "target",
        )
    if detected.values.dtype == "float64" and not detected.ignored_texts and not detected.is_truth:
        return detected.values, True
    texts = RawColumn(values).texts
    assert texts is not None
    return texts.spread(texts.labels, None, object), False


def pose_task(values: np.ndarray, is_number: bool, name: str, task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the target as the task needs it, and its classes.

    Args:
        values, is_number: What `read_target` returns, without missing values.
        name: The target's name.
        task: The task.

    Raises:
        DataError: If the target does not fit the task.
    """
    codes, distinct = pd.factorize(values, sort=True)
    if len(distinct) < 2:
        raise DataError(
            f"Target {name!r} is constant: every row has {text_of(values[0])!r}. Choose another target.", "target"
        )
    if task in ("regression", "counts"):
        return _check_numbers(values, distinct, is_number, name, task), ()
    if task == "binary" and len(distinct) != 2:
        raise DataError(
            f"A binary task needs two distinct values of {name!r}, got {len(distinct)}. Choose the task multiclass or "
            "regression.",
            "task",
        )
    labels = [text_of(value) for value in distinct]
    single = [label for label, count in zip(labels, np.bincount(codes), strict=True) if count < 2]
    if single:
        raise DataError(
            f"Target {name!r} has classes with a single row: {quote_names(single)}. Each class needs at least two. "
            f"{_suggest(distinct, is_number)}",
            "task",
        )
    return np.array(labels, dtype=object)[codes], tuple(labels)


def note_rare_classes(values: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Return a sentence about classes with few rows, if there are any."""
    if not classes:
        return []
    counts = pd.Series(values).value_counts()
    rare = [f"{label!r} ({counts[label]})" for label in classes if counts[label] < FEWEST_ROWS_PER_CLASS]
    if not rare:
        return []
    return [
        f"Classes with fewer than {FEWEST_ROWS_PER_CLASS} rows: {list_first(rare)}. Results for them are unreliable."
    ]


def _check_numbers(
    values: np.ndarray, distinct: np.ndarray, is_number: bool, name: str, task: str
) -> np.ndarray:  # fmt: skip
    if not is_number:
        raise DataError(
            f"The task {task} needs numbers, and target {name!r} is text, such as {quote_names(distinct[:3])}. "
            f"{_name_odd_value(distinct)}Choose another target, or the task binary or multiclass.",
            "task",
        )
    wrong = _not_counts(distinct)
    if task == "counts" and len(wrong):
        raise DataError(
            f"Counts must be whole numbers >= 0, and target {name!r} holds {text_of(wrong[0])}. Choose the task "
            "regression.",
            "task",
        )
    return values


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
    odd = [text for text in distinct if parse_number(text, "point") is None and parse_number(text, "comma") is None]
    return f"It holds numbers except for values such as {odd[0]!r}. " if 0 < len(odd) < len(distinct) / 2 else ""
