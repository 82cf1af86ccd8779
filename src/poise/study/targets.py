"""The target of a table, and the task that it poses."""

from dataclasses import dataclass, replace

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


def take_rows(target: Target, rows: np.ndarray) -> Target:
    """Return the target of some of its rows.

    Args:
        target: The target.
        rows: Positions in the source, all among `target.rows`.
    """
    return replace(target, rows=rows, values=target.values[np.isin(target.rows, rows)])


def join_event(target: Target, column: pd.Series, rules: TextRules) -> Target:
    """Return the target of the task survival: the time, with a minus sign if the row is censored (also -0.0).

    Args:
        target: The times.
        column: The column that is 1 or true for rows with an event, 0 or false for censored rows.
        rules: How text is read.

    Raises:
        DataError: If a time is negative or not a number, or the column of events has other values, or no event.
    """
    if not target.is_number or (target.values < 0).any():
        wrong = f"holds {text_of(target.values.min())}" if target.is_number else "is not a column of numbers"
        raise DataError(
            f"The times until an event must be numbers >= 0, and {target.name!r} {wrong}. Choose another column.",
            "time_to_event",
        )
    detected = detect_kind(RawColumn(column, rules))
    events = detected.values[target.rows] if detected.values.dtype == "float64" else None
    if events is None or detected.ignored_texts or not np.isin(events[~np.isnan(events)], (0.0, 1.0)).all():
        raise DataError(
            f"The column of events {str(column.name)!r} must be 1 or true for an event, and 0 or false for a censored "
            "row. Recode it, or choose another column.",
            "event",
        )
    is_known = ~np.isnan(events)
    notes = [*target.notes]
    if not is_known.all():
        notes.append(f"{(~is_known).sum()} rows have no value for {str(column.name)!r} and are left out.")
    if not (events == 1).any():
        raise DataError(f"No row has an event in {str(column.name)!r}. Add rows with events.", "event")
    times, has_event = target.values[is_known], events[is_known] == 1
    notes.append(
        f"{has_event.sum():,} of {len(times):,} rows have an event. scikit-learn has no boosted trees for censored "
        "times, so there is no such reference."
    )
    values = np.copysign(times, np.where(has_event, 1.0, -1.0))
    return replace(target, rows=target.rows[is_known], values=values, notes=tuple(notes))


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
