"""The target of a table, and the task that it poses."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from poise.study.columns.base import RawColumn, Texts, text_of
from poise.study.columns.reading import detect_kind
from poise.study.columns.text_rules import TextRules
from poise.study.errors import DataError, list_first, quote_names
from poise.study.tasks.base import Task

FEWEST_ROWS_PER_CLASS = 5
SHARE_OF_CLASS = 0.5
"""How frequent a text such as "NA" must be, relative to the median class, to be a class."""


@dataclass(frozen=True, eq=False)
class Target:
    """The target of the rows that have one.

    Args:
        name: The column.
        rows: Positions in the source of the rows that have a value.
        values: (rows,) numbers or labels.
        is_number: Whether they are numbers.
        raw: The column.
        notes: Sentences that a reader must know.
    """

    name: str
    rows: np.ndarray
    values: np.ndarray
    is_number: bool
    raw: RawColumn
    notes: tuple[str, ...]

    def labels_of(self, distinct: np.ndarray) -> list[str]:
        """Return the labels of distinct values: numbers in text are spelled as they most often are in the source."""
        texts = self.raw.texts if self.is_number else None
        spelling: dict[object, str] = {}
        if texts is not None and any(texts.is_text):
            codes = texts.codes[self.rows]
            number_of = np.full(len(texts.labels), np.nan)
            number_of[codes] = self.values
            spelling = {number_of[place]: texts.labels[place] for place in np.argsort(texts.counts, kind="stable")}
        return [spelling.get(value, text_of(value)) for value in distinct]


def read_target(column: pd.Series, rules: TextRules) -> Target:
    """Read the target.

    Raises:
        DataError: If the column holds something that a study does not predict.
    """
    raw, name = RawColumn(column, rules), str(column.name)
    detected = detect_kind(raw)
    kind = detected.kind
    if kind is None or not kind.is_target:
        content = detected.notes[0] if kind is None else kind.plural
        raise DataError(
            f"Target {name!r} holds {content}; a study predicts numbers or classes. Choose another target.", "target"
        )
    is_number = detected.values.dtype == "float64" and not detected.ignored_texts and not detected.is_truth
    values, notes = detected.values, []
    if not is_number:
        assert raw.texts is not None
        values, notes = _read_labels(raw.texts, rules, name)
    rows = np.flatnonzero(~pd.isna(values))
    if len(rows) < len(column):
        notes = [
            f"{len(column) - len(rows)} of {len(column)} rows have no value for {name!r} and are left out.",
            *notes,
        ]
    return Target(name, rows, values[rows], is_number, raw, tuple(notes))


def _read_labels(texts: Texts, rules: TextRules, name: str) -> tuple[np.ndarray, list[str]]:
    """Return the labels, and notes.

    A text such as "NA" is a class if no other text and no empty one stands for a missing value, and it is about as
    frequent as a class. Otherwise it is a missing value.
    """
    counts = dict(zip(texts.labels, texts.counts, strict=True))
    likely = [label for label in texts.labels if rules.is_missing_value(label)]
    classes = [count for label, count in counts.items() if label not in likely]
    labels = texts.spread(texts.labels, None, object)
    if not likely or not classes:
        return labels, []
    is_frequent = len(classes) == 1 or counts[likely[0]] >= SHARE_OF_CLASS * np.median(classes)
    if len(likely) == 1 and is_frequent and (texts.codes >= 0).all():
        return labels, [
            f"{likely[0]!r} is a class of target {name!r}, because it is about as frequent as other classes. If it "
            "stands for a missing value, list it as one."
        ]
    labels[np.isin(labels.astype(str), likely)] = None
    return labels, [f"Texts of target {name!r} that count as missing values: {quote_names(likely)}."]


def pose_task(target: Target, task: Task) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the target as the task needs it, and its classes.

    Args:
        target: The target; it has values.
        task: The task.

    Raises:
        DataError: If the target does not fit the task.
    """
    distinct = pd.unique(target.values)
    if len(distinct) < 2:
        raise DataError(
            f"Target {target.name!r} is constant: every row has {target.labels_of(distinct)[0]!r}. Choose another "
            "target.",
            "target",
        )
    return task.check_target(target)


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
