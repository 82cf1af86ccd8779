"""Columns that are added to the linear predictor: an offset, and an exposure, whose logarithm is an offset."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from poise.study.columns.base import RawColumn, text_of
from poise.study.columns.reading import detect_kind
from poise.study.columns.text_rules import TextRules, make_rules
from poise.study.errors import DataError
from poise.study.headers import check_column, name_columns
from poise.study.roles import check_complete
from poise.study.tasks.base import Task

ROLES = ("offset", "exposure")
"""The arguments that name these columns."""


def read_role(values: pd.Series, role: str, task: Task, rules: TextRules) -> pd.Series:
    """Return the numbers of a column.

    Args:
        values: The column.
        role: `"offset"` or `"exposure"`.
        task: The task, which limits the size of an offset.
        rules: How to read text.

    Raises:
        DataError: If a value is missing or cannot be used.
    """
    detected, demand = detect_kind(RawColumn(values, rules)), "positive numbers" if role == "exposure" else "numbers"
    numbers = detected.values
    subject = f"The {role} column {values.name!r} must contain {demand}"
    if numbers.dtype != "float64" or detected.ignored_texts:
        raise DataError(f"{subject}. Choose a different column.", role)
    check_complete(pd.Series(numbers, name=values.name), role)
    if role == "exposure" and (numbers <= 0).any():
        raise DataError(f"{subject}, got {text_of(numbers.min())}. Correct or remove these rows.", role)
    size = np.abs(numbers if role == "offset" else np.log(numbers))
    if (size > task.largest_offset).any():
        wrong = text_of(numbers[size.argmax()])
        advice = "Use another unit" if role == "exposure" else "Pass its logarithm, or pass the column as the exposure"
        what = "the logarithm of an exposure" if role == "exposure" else "an offset"
        raise DataError(
            f"The {role} column {values.name!r} holds {wrong}, and {what} must lie between "
            f"-{task.largest_offset:g} and {task.largest_offset:g}. {advice}.",
            role,
        )
    return pd.Series(numbers, name=values.name)


def add_offsets(offset: pd.Series | None, exposure: pd.Series | None) -> np.ndarray | None:
    """Return (rows,) what is added to the linear predictor; `None` if there is no such column."""
    parts = [] if offset is None else [offset.to_numpy("float64")]
    parts += [] if exposure is None else [np.log(exposure.to_numpy("float64"))]
    return np.sum(parts, axis=0) if parts else None


def read_new_offsets(
    data: Mapping, frame: pd.DataFrame, name: str, task: Task, decimal: str | None, missing: Sequence[str] | None
) -> np.ndarray | None:
    """Return what is added to the linear predictor of new rows.

    Args:
        data: The `data` of study.json.
        frame: The rows.
        name: What error messages call the rows.
        task: The task.
        decimal: The decimal mark of numbers in text, or `None`, that of the study.
        missing: Texts that stand for a missing value, or `None`.

    Raises:
        DataError: If a column is missing or cannot be used.
    """
    columns = {role: data[role] for role in ROLES if data.get(role) is not None}
    if not columns:
        return None
    frame = frame.set_axis(name_columns(frame.columns), axis="columns")
    for column in columns.values():
        check_column(column, frame, name)
    rules, _ = make_rules(frame[[*columns.values()]], decimal or data.get("decimal"), missing)
    read = {role: read_role(frame[column], role, task, rules) for role, column in columns.items()}
    return add_offsets(read.get("offset"), read.get("exposure"))
