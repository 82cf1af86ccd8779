"""The columns of a table that have a role: targets, events, groups, time, weights, offset and exposure."""

from collections.abc import Mapping, Sequence

import pandas as pd

from poise.study.columns.base import RawColumn, text_of
from poise.study.columns.kinds import TYPES
from poise.study.columns.reading import detect_kind, note_doubt
from poise.study.columns.text_rules import TextRules
from poise.study.errors import DataError
from poise.study.headers import check_column
from poise.study.tasks.base import Task
from poise.study.tasks.table import TASKS

Roles = Sequence[tuple[str, str]]
"""Pairs of a role, such as `"target"` or `"weight"`, and a column."""
NOUNS = {"groups": "group", **{name: name for name in ("target", "event", "time", "weight", "offset", "exposure")}}
"""What messages call a column with a role, before the word column."""


def check_roles(roles: Roles, drop: Sequence[str], keep: Sequence[str], frame: pd.DataFrame, name: str) -> None:
    """Raise DataError unless the columns exist, and each has one role.

    Args:
        roles: The roles.
        drop, keep: Columns to leave out, and to use in any case.
        frame: The table.
        name: What error messages call the table.
    """
    lists = [("drop", column) for column in drop] + [("keep", column) for column in keep]
    for argument, column in (*roles, *lists):
        check_column(column, frame, name, argument)
    seen: dict[str, str] = {}
    for role, column in roles:
        if seen.get(column) == role:
            raise DataError(f"Column {column!r} is listed twice as a {role}. List it once.", role)
        if column in seen:
            both = f"the {NOUNS[seen[column]]} column and the {NOUNS[role]} column"
            raise DataError(f"Column {column!r} cannot be both {both}. Give each its own column.", role)
        if column in drop:
            raise DataError(
                f"Column {column!r} is the {NOUNS[role]} column and cannot be dropped. Do not drop it, or choose "
                f"another {NOUNS[role]} column.",
                "drop",
            )
        if column in keep:
            raise DataError(
                f"Column {column!r} is the {NOUNS[role]} column and cannot be kept as a feature. Do not keep it, "
                f"or choose another {NOUNS[role]} column.",
                "keep",
            )
        seen[column] = role
    in_both = [column for column in keep if column in drop]
    if in_both:
        raise DataError(f"Column {in_both[0]!r} cannot be both dropped and kept. Choose one of the two.", "keep")


def check_types(types: Mapping[str, str], roles: Roles, frame: pd.DataFrame, name: str) -> None:
    """Raise DataError unless every requested type exists and its column has no role."""
    for column, requested in types.items():
        check_column(column, frame, name, "types")
        if requested not in TYPES:
            raise DataError(
                f"The type of column {column!r} must be one of {', '.join(TYPES)}, got {requested!r}.", "types"
            )  # fmt: skip
        role = next((role for role, other in roles if other == column), None)
        if role is not None:
            remedy = "Choose the task instead" if role == "target" else "Request no type for it"
            raise DataError(
                f"Column {column!r} is the {NOUNS[role]} column, so its type cannot be set. {remedy}.", "types"
            )


def check_offset_task(task: Task, offset: str | None, exposure: str | None, reason: str) -> None:
    """Raise DataError if a task takes no offset or exposure, and there is one.

    Args:
        task: The task.
        offset, exposure: The columns, or `None`.
        reason: What the target holds, from which the task was inferred; `""` if the task was requested.
    """
    inferred = f", which was inferred from the target ({reason})" if reason else ""
    for role, column, is_allowed in (
        ("offset", offset, task.takes_offset),
        ("exposure", exposure, task.takes_exposure),
    ):
        if column is not None and not is_allowed:
            allowed = [name for name, each in TASKS.items() if getattr(each, f"takes_{role}")]
            raise DataError(
                f"{role} needs one of the tasks {', '.join(allowed)}, got {task.name}{inferred}. Choose one of these "
                f"tasks, or omit {role}.",
                role,
            )


def read_groups(values: pd.Series, rules: TextRules) -> pd.Series:
    """Return the label of the group of each row.

    Raises:
        DataError: If the column is not one of labels, has missing values or a single group.
    """
    texts = RawColumn(values, rules).texts
    if texts is None:
        raise DataError(
            f"The group column {values.name!r} must contain numbers, text or dates. Choose a different column.",
            "groups",
        )
    labels = pd.Series(texts.spread(texts.labels, None, object), name=values.name, dtype=object)
    check_complete(labels, "groups")
    if labels.nunique() < 2:
        raise DataError(
            f"The group column {values.name!r} has only one value; at least two are needed. Choose a different column.",
            "groups",
        )
    return labels


def read_time(values: pd.Series, rules: TextRules) -> tuple[pd.Series, list[str]]:
    """Return the numbers or datetimes that order the rows, and what is doubtful about them.

    Raises:
        DataError: If the column has no order, or missing values.
    """
    detected = detect_kind(RawColumn(values, rules))
    if detected.kind is None or not detected.kind.is_ordered or detected.ignored_texts:
        raise DataError(
            f"The time column {values.name!r} contains neither numbers nor dates, so the rows cannot be sorted by it. "
            "Choose a different column, or write dates as 2024-12-31.",
            "time",
        )
    times = pd.Series(detected.values, name=values.name)
    check_complete(times, "time")
    return times, note_doubt(str(values.name), detected)


def read_weight(values: pd.Series, rules: TextRules) -> pd.Series:
    """Return the weights of the rows. Missing values are kept: their rows may have no target either.

    Raises:
        DataError: If they are not numbers >= 0, or none is positive.
    """
    detected = detect_kind(RawColumn(values, rules))
    if detected.values.dtype != "float64" or detected.ignored_texts:
        raise DataError(
            f"The weight column {values.name!r} must contain numbers >= 0. Choose a different column.", "weight"
        )
    weight = pd.Series(detected.values, name=values.name)
    if (weight < 0).any():
        raise DataError(
            f"The weight column {values.name!r} must contain numbers >= 0, got {text_of(weight.min())}. Correct "
            "or remove these rows.",
            "weight",
        )
    if not (weight > 0).any():
        raise DataError(
            f"The weight column {values.name!r} is 0 in every row, and at least one weight must be positive. Choose a "
            "different column.",
            "weight",
        )
    return weight


def take_weights(weights: pd.Series, rows: pd.Index) -> pd.Series:
    """Return the weights of some rows.

    Raises:
        DataError: If one of them is missing.
    """
    taken = weights.loc[rows].reset_index(drop=True)
    check_complete(taken, "weight")
    return taken


def check_complete(values: pd.Series, role: str) -> None:
    """Raise DataError if a column with a role has missing values."""
    missing = int(values.isna().sum())
    if missing:
        raise DataError(
            f"The {NOUNS[role]} column {values.name!r} has no value in {missing} of {len(values)} rows. Fill in "
            "the values, or remove these rows.",
            role,
        )
