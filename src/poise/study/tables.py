"""Read a table: columns of known kinds, a target, and the task that the target poses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from poise.study.columns.base import Column, RawColumn, text_of
from poise.study.columns.kinds import TYPES
from poise.study.columns.number_text import parse_number
from poise.study.columns.reading import detect_kind, list_set_aside, note_doubt, read_columns
from poise.study.columns.text_rules import TextRules, make_rules
from poise.study.duplicates import find_duplicates, join_units
from poise.study.errors import DataError, count_noun, quote_names
from poise.study.file_options import FileOptions
from poise.study.headers import check_column
from poise.study.leaks import find_leaks
from poise.study.offsets import add_offsets, read_role
from poise.study.sources import BUILT_IN, Source, load
from poise.study.targets import join_event, note_rare_classes, pose_task, read_target
from poise.study.task_inference import infer_task
from poise.study.tasks.base import Task
from poise.study.tasks.quantiles import QUANTILES
from poise.study.tasks.table import TASKS, make_task

FEWEST_ROWS = 20


@dataclass(frozen=True)
class Table:
    """Features, target and task of a table.

    Args:
        name: A short name: the name of the built-in table, or of the file without its suffix.
        source: The source as text; `""` for a DataFrame.
        features: The columns in use, in the form of their kinds (see `poise.study.columns.kinds.KINDS`).
        columns: Every column of the source except the target and the columns of groups, time and weights, in order.
        target: (rows,) float64, or text if the target has classes. For the task survival, the time, with a minus sign
            if the row is censored.
        task: The task.
        classes: The classes in the order of the network's outputs; empty if the target has numbers.
        groups: (rows,) rows with the same value stay together; or `None`.
        time: (rows,) numbers or datetimes that order the rows; or `None`.
        weight: (rows,) float64, finite and positive; or `None`.
        notes: Sentences that a reader must know.
        task_reason: What the target holds, from which the task was inferred; `""` if the task was requested.
        copies: (rows,) rows with the same number have equal features and stay together; `None` if none do.
        event: The column of events, which are part of the target; `None` except for the task survival.
        offset: (rows,) float64, added to the linear predictor; or `None`.
        exposure: (rows,) float64, positive; its logarithm is added to the linear predictor; or `None`.
        class_weight: (classes,) the weights of the classes in the loss; or `None`.
        decimal: The decimal mark of numbers in text.
    """

    name: str
    source: str
    features: pd.DataFrame
    columns: tuple[Column, ...]
    target: pd.Series
    task: Task
    classes: tuple[str, ...]
    groups: pd.Series | None
    time: pd.Series | None
    weight: pd.Series | None
    notes: tuple[str, ...]
    task_reason: str = ""
    copies: np.ndarray | None = None
    event: str | None = None
    offset: pd.Series | None = None
    exposure: pd.Series | None = None
    class_weight: np.ndarray | None = None
    decimal: str = "."

    @cached_property
    def linear_offset(self) -> np.ndarray | None:
        """(rows,) what is added to the linear predictor of the network; or `None`."""
        return add_offsets(self.offset, self.exposure)

    @cached_property
    def offset_center(self) -> float:
        """The part of the offset that is not in `network_target`; 0 without an offset (see `Task.center_offset`)."""
        weight = None if self.weight is None else self.weight.to_numpy("float64")
        return 0.0 if self.linear_offset is None else self.task.center_offset(self.linear_offset, weight)

    @cached_property
    def network_target(self) -> pd.Series:
        """The target of the network, which has no offset: see `Task.remove_offset`."""
        if self.linear_offset is None:
            return self.target
        values = self.target.to_numpy("float64")
        values = self.task.remove_offset(values, self.linear_offset - self.offset_center)
        return pd.Series(values, name=self.target.name)

    @cached_property
    def loss_weight(self) -> pd.Series | None:
        """(rows,) the weights of the rows in the loss and the score: of the row, its class and its exposure."""
        factors = [] if self.weight is None else [self.weight.to_numpy("float64")]
        if self.linear_offset is not None:
            factors.append(self.task.offset_weight(self.linear_offset - self.offset_center))
        if self.class_weight is not None:
            factors.append(self.class_weight[self.class_numbers])
        return pd.Series(np.prod(factors, axis=0)) if factors else None

    @property
    def class_numbers(self) -> np.ndarray:
        """(rows,) the number of the class of each row."""
        return self.target.map({label: number for number, label in enumerate(self.classes)}).to_numpy("int32")

    @cached_property
    def units(self) -> np.ndarray | None:
        """(rows,) the numbers of the units that stay together, by groups and copies; `None` if every row is one."""
        return join_units(self.groups, self.copies)


def read(
    source: Source,
    target: str | None = None,
    *,
    task: str | None = None,
    event: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    groups: str | None = None,
    time: str | None = None,
    weight: str | None = None,
    offset: str | None = None,
    exposure: str | None = None,
    tweedie_power: float = 1.5,
    quantiles: Sequence[float] = QUANTILES,
    types: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    text_encoding: str | None = None,
    sheet: str | int | None = None,
    skip_rows: int | None = None,
    comment: str | None = None,
    missing: Sequence[str] | None = None,
) -> Table:
    """Read a table, detect what its columns hold, and infer the task.

    Args:
        source: See `poise.study.sources.load`.
        target: The column to predict. Default: `None`, for built-in tables and NPZ files (`"y"`), which have their own.
        task: A key of `TASKS`. Default: `None`, which infers it: text, truth
            values and two distinct values are classes; small whole numbers from 0 whose distribution has a long tail
            are counts; other whole numbers are classes if they are few (at most 20, each in 10 rows on average);
            everything else is regression.
        event: The column that is 1 or true for rows with an event, for the task survival; `target` is then the time.
            Default: `None`.
        drop: Columns to leave out. Default: `()`.
        keep: Columns to use although they look like free text, an identifier or a row number. Default: `()`.
        groups: A column of group labels; rows with the same label stay together. Default: `None`.
        time: A column that orders the rows. Default: `None`.
        weight: A column of sample weights; rows of weight 0 are left out. Default: `None`.
        offset: A column that is added to the linear predictor. Default: `None`.
        exposure: A column of positive numbers, whose logarithm is added to the linear predictor. Default: `None`.
        tweedie_power, quantiles: As for `poise.run_study`.
        types: For some columns, what they are read as: `"categorical"`, `"numeric"`, `"date"`, `"text"` (categories if
            the texts repeat; 007 is not a number) or `"drop"`. Default: `None`, which detects it.
        delimiter, text_encoding, sheet, skip_rows, comment: See `poise.study.file_options.FileOptions`.
        decimal: The decimal mark of numbers in text, `"."` or `","`. Default: `None`, which finds the one of the table.
        missing: Texts that stand for a missing value, besides the usual ones; `[]` for the empty text only. Default:
            `None`.

    Returns:
        The table.

    Raises:
        DataError: If the table cannot be studied.

    Examples:
        >>> from poise.study.tables import read
        >>> table = read("wine")
        >>> table.task.name, table.classes, table.features.shape
        ('multiclass', ('class_0', 'class_1', 'class_2'), (178, 13))
    """
    if task is not None and task not in TASKS:
        raise DataError(f"task must be one of {', '.join(TASKS)}, got {task!r}. Omit it to infer it.", "task")
    options = FileOptions(delimiter, text_encoding, sheet, skip_rows, comment)
    types = types or {}
    name, text, frame = load(source, options)
    target = target or _default_target(text, frame)
    if target is None:
        raise DataError(
            f"{name} needs a target. Name the column to predict, one of: {quote_names(frame.columns)}.", "target"
        )
    roles = {"target": target, "event": event, "groups": groups, "time": time, "weight": weight}
    roles |= {"offset": offset, "exposure": exposure}
    roles = {role: column for role, column in roles.items() if column is not None}
    _check_roles(roles, drop, keep, frame, name)
    frame, count = frame.reset_index(drop=True), len(frame)  # the index: positions of the rows in the source
    _check_types(types, roles, frame, name)
    numbers = [column for column in frame if column not in drop and types.get(str(column), "numeric") == "numeric"]
    rules, doubtful = make_rules(frame[numbers], decimal, missing)
    notes = []
    weights = None if weight is None else _read_weight(frame[weight], rules)
    if weights is not None and (weights == 0).any():
        notes.append(f"{(weights == 0).sum()} of {len(frame)} rows have weight 0 in {weight!r} and are left out.")
        frame = frame[(weights != 0).to_numpy()]
        rules, doubtful = make_rules(frame[numbers], decimal, missing)
    notes += _note_decimal(doubtful, rules)
    labels = read_target(frame[target], rules)
    if event is not None:
        labels = join_event(labels, frame[event], rules)
    notes = [*labels.notes, *notes]
    frame = frame.iloc[labels.rows]
    has_gaps = len(frame) < count
    if len(frame) < FEWEST_ROWS:
        usable = f" with a value for {target!r}{' and a positive weight' if weight else ''}" if has_gaps else ""
        raise DataError(
            f"{name} has {count_noun(len(frame), 'row')}{usable}; a study needs at least {FEWEST_ROWS}. Add rows."
        )
    task_name, task_reason = infer_task(labels.values, labels.is_number) if task is None else (task, "")
    posed = make_task(task_name, {"tweedie_power": tweedie_power, "quantiles": quantiles})
    _check_offset_task(posed, offset, exposure, task_reason)
    values, classes = pose_task(labels, posed)
    notes += note_rare_classes(values, classes)
    taken = set(roles.values())
    names = [column for column in frame.columns if column not in taken]
    columns, features, doubts = read_columns(frame, names, set(drop), rules, types, set(keep))
    if not columns:
        raise DataError(f"{name} has no column besides its target {target!r}. Add at least one to predict it from.")
    if not features:
        raise DataError(
            f"No column is left to predict {target!r} from. Set aside: {'; '.join(list_set_aside(columns))}. Add a "
            "column of numbers, dates or categories that repeat, or keep one of these."
        )
    notes += doubts
    notes += [f"Set aside: {columns_and_reason}." for columns_and_reason in list_set_aside(columns)]
    group_labels = None if groups is None else _read_groups(frame[groups], rules)
    times, doubts = (None, []) if time is None else _read_time(frame[time], rules)
    notes += doubts
    duplicates = find_duplicates(pd.DataFrame(features), values, group_labels, by_time=time is not None)
    notes += duplicates.notes
    distinct = duplicates.distinct
    notes += [
        f"Column {column!r} determines the target {target!r} almost exactly. This looks like a leak; consider "
        "dropping the column."
        for column in dict.fromkeys(
            column
            for numbers in posed.list_targets(values[distinct])
            for column in find_leaks(
                {column: feature.iloc[distinct] for column, feature in features.items()}, numbers, posed, classes
            )
        )
    ]
    return Table(
        name=Path(name).stem,
        source=text,
        features=pd.DataFrame(features),
        columns=tuple(columns),
        target=pd.Series(values, name=target, dtype=object if classes else "float64"),
        task=posed,
        classes=classes,
        groups=group_labels,
        time=times,
        weight=None if weights is None else _take_weights(weights, frame.index),
        notes=tuple(notes),
        task_reason=task_reason,
        copies=duplicates.copies,
        event=event,
        offset=None if offset is None else read_role(frame[offset], "offset", posed, rules),
        exposure=None if exposure is None else read_role(frame[exposure], "exposure", posed, rules),
        decimal=rules.decimal,
    )


def _default_target(text: str, frame: pd.DataFrame) -> str | None:
    if text in BUILT_IN:
        return str(frame.columns[-1])
    return "y" if text.lower().endswith(".npz") and "y" in frame.columns else None


def _check_roles(
    roles: dict[str, str], drop: Sequence[str], keep: Sequence[str], frame: pd.DataFrame, name: str
) -> None:
    lists = {"drop": drop, "keep": keep}
    for argument, column in (
        *roles.items(),
        *((name, column) for name, columns in lists.items() for column in columns),
    ):
        check_column(column, frame, name, argument)
    seen: dict[str, str] = {}
    for role, column in roles.items():
        if column in seen:
            raise DataError(
                f"Column {column!r} cannot be both the {seen[column]} and the {role}. Give each its own column.", role
            )
        if column in drop:
            raise DataError(
                f"Column {column!r} is the {role} and cannot be dropped. Drop others, or choose another {role}.", "drop"
            )
        if column in keep:
            raise DataError(
                f"Column {column!r} is the {role} and cannot be kept as a feature. Keep others, or choose another "
                f"{role}.",
                "keep",
            )
        seen[column] = role
    both = [column for column in keep if column in drop]
    if both:
        raise DataError(f"Column {both[0]!r} cannot be both dropped and kept. Choose one of the two.", "keep")


def _check_offset_task(task: Task, offset: str | None, exposure: str | None, reason: str) -> None:
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


def _check_types(types: Mapping[str, str], roles: Mapping[str, str], frame: pd.DataFrame, name: str) -> None:
    for column, requested in types.items():
        check_column(column, frame, name, "types")
        if requested not in TYPES:
            raise DataError(
                f"The type of column {column!r} must be one of {', '.join(TYPES)}, got {requested!r}.", "types"
            )  # fmt: skip
        role = next((role for role, other in roles.items() if other == column), None)
        if role is not None:
            remedy = "Choose the task instead" if role == "target" else "Leave it out"
            raise DataError(f"Column {column!r} is the {role} and has no other type. {remedy}.", "types")


def _note_decimal(doubtful: str, rules: TextRules) -> list[str]:
    if not doubtful:
        return []
    number = text_of(parse_number(doubtful, rules.decimal))
    return [
        f"No number shows whether the decimal mark is a point or a comma. The point was assumed: {doubtful!r} is "
        f"{number}."
    ]


def _read_groups(values: pd.Series, rules: TextRules) -> pd.Series:
    texts = RawColumn(values, rules).texts
    if texts is None:
        raise DataError(
            f"The group column {values.name!r} must contain numbers, text or dates. Choose a different column.",
            "groups",
        )
    labels = pd.Series(texts.spread(texts.labels, None, object), name=values.name, dtype=object)
    _check_complete(labels, "groups")
    if labels.nunique() < 2:
        raise DataError(
            f"The group column {values.name!r} has only one value; at least two are needed. Choose a different column.",
            "groups",
        )
    return labels


def _read_time(values: pd.Series, rules: TextRules) -> tuple[pd.Series, list[str]]:
    detected = detect_kind(RawColumn(values, rules))
    if detected.kind is None or not detected.kind.is_ordered or detected.ignored_texts:
        raise DataError(
            f"The time column {values.name!r} contains neither numbers nor dates, so the rows cannot be sorted by it. "
            "Choose a different column, or write dates as 2024-12-31.",
            "time",
        )
    times = pd.Series(detected.values, name=values.name)
    _check_complete(times, "time")
    return times, note_doubt(str(values.name), detected)


def _read_weight(values: pd.Series, rules: TextRules) -> pd.Series:
    detected = detect_kind(RawColumn(values, rules))
    if detected.values.dtype != "float64" or detected.ignored_texts:
        raise DataError(
            f"The weight column {values.name!r} must contain numbers >= 0. Choose a different column.", "weight"
        )
    weight = pd.Series(detected.values, name=values.name)
    if (weight < 0).any():
        raise DataError(
            f"The weight column {values.name!r} must contain numbers >= 0, got {text_of(weight.min())}.", "weight"
        )
    if not (weight > 0).any():
        raise DataError(
            f"The weight column {values.name!r} is 0 in every row. At least one weight must be positive.", "weight"
        )
    return weight


def _take_weights(weights: pd.Series, rows: pd.Index) -> pd.Series:
    taken = weights.loc[rows].reset_index(drop=True)
    _check_complete(taken, "weight")
    return taken


def _check_complete(values: pd.Series, role: str) -> None:
    missing = int(values.isna().sum())
    if missing:
        kind = "group" if role == "groups" else role
        raise DataError(
            f"The {kind} column {values.name!r} has no value in {missing} of {len(values)} rows. Fill them in, or "
            "remove these rows.",
            role,
        )
