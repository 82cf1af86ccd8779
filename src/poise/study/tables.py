"""Read a table: columns of known kinds, a target, and the task that the target poses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
import pandas as pd

from poise.study.columns.base import Column, text_of
from poise.study.columns.number_text import parse_number
from poise.study.columns.reading import list_set_aside, read_columns
from poise.study.columns.text_rules import TextRules, make_rules
from poise.study.duplicates import find_duplicates, join_units
from poise.study.errors import DataError, count_noun, quote_names
from poise.study.file_options import FileOptions
from poise.study.leaks import find_leaks
from poise.study.offsets import add_offsets, read_role
from poise.study.roles import (
    check_offset_task,
    check_roles,
    check_types,
    read_groups,
    read_time,
    read_weight,
    take_weights,
)
from poise.study.sources import BUILT_IN, Source, load
from poise.study.targets import join_event, note_rare_classes, pose_task, read_target, take_rows
from poise.study.task_inference import infer_task
from poise.study.tasks.base import Task
from poise.study.tasks.choice import check_event, resolve_task
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
            if the row is censored. For several targets, (rows, targets) float64.
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
    target: pd.Series | pd.DataFrame
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

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the target columns."""
        return tuple(map(str, pd.DataFrame(self.target).columns))

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
    def network_target(self) -> pd.Series | pd.DataFrame:
        """The target of the network, which has no offset: see `Task.remove_offset`."""
        if self.linear_offset is None:
            return self.target
        values = self.target.to_numpy("float64")
        values = self.task.remove_offset(values, self.linear_offset - self.offset_center)
        return pd.Series(values, name=self.targets[0])

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
        return pd.Categorical(self.target.to_numpy(), categories=list(self.classes)).codes.astype("int32")

    @cached_property
    def units(self) -> np.ndarray | None:
        """(rows,) the numbers of the units that stay together, by groups and copies; `None` if every row is one."""
        return join_units(self.groups, self.copies)


def read(
    source: Source,
    target: str | Sequence[str] | None = None,
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
        target: The column to predict, or several columns of numbers. Default: `None`, for built-in tables and NPZ files
            (`"y"`), which have a default.
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
    targets = _list_targets(target, text, frame, name)
    check_event(task, event)
    task = resolve_task(targets, task)
    others = {"event": event, "groups": groups, "time": time, "weight": weight, "offset": offset, "exposure": exposure}
    roles = [("target", column) for column in targets]
    roles += [(role, column) for role, column in others.items() if column is not None]
    check_roles(roles, drop, keep, frame, name)
    frame, count = frame.reset_index(drop=True), len(frame)  # the index: positions of the rows in the source
    check_types(types, roles, frame, name)
    numbers = [column for column in frame if column not in drop and types.get(str(column), "numeric") == "numeric"]
    rules, doubtful = make_rules(frame[numbers], decimal, missing)
    notes = []
    weights = None if weight is None else read_weight(frame[weight], rules)
    if weights is not None and (weights == 0).any():
        notes.append(f"{(weights == 0).sum()} of {len(frame)} rows have weight 0 in {weight!r} and are left out.")
        frame = frame[(weights != 0).to_numpy()]
        rules, doubtful = make_rules(frame[numbers], decimal, missing)
    notes += _note_decimal(doubtful, rules)
    labels = [read_target(frame[column], rules) for column in targets]
    if event is not None:
        labels = [join_event(labels[0], frame[event], rules)]
    notes = [*(note for each in labels for note in each.notes), *notes]
    rows = reduce(np.intersect1d, [each.rows for each in labels])
    labels = [take_rows(each, rows) for each in labels]
    frame, target_names = frame.iloc[rows], quote_names(targets)
    target_words = f"{'the target' if len(targets) == 1 else 'one of the targets'} {target_names}"
    has_gaps = len(frame) < count
    if len(frame) < FEWEST_ROWS:
        usable = f" with a value for {target_names}{' and a positive weight' if weight else ''}" if has_gaps else ""
        raise DataError(
            f"{name} has {count_noun(len(frame), 'row')}{usable}; a study needs at least {FEWEST_ROWS}. Add rows."
        )
    task_name, task_reason = infer_task(labels[0].values, labels[0].is_number) if task is None else (task, "")
    posed = make_task(task_name, {"targets": targets, "tweedie_power": tweedie_power, "quantiles": quantiles})
    check_offset_task(posed, offset, exposure, task_reason)
    parts = [pose_task(each, posed) for each in labels]
    values, classes = parts[0] if len(parts) == 1 else (np.column_stack([part for part, _ in parts]), ())
    notes += note_rare_classes(values, classes)
    taken = {column for _, column in roles}
    names = [column for column in frame.columns if column not in taken]
    columns, features, doubts = read_columns(frame, names, set(drop), rules, types, set(keep))
    if not columns:
        raise DataError(f"{name} has no column besides its target {target_names}. Add at least one to predict it from.")
    if not features:
        raise DataError(
            f"No column is left to predict {target_names} from. Set aside: {'; '.join(list_set_aside(columns))}. Add a "
            "column of numbers, dates or categories that repeat, or keep one of these."
        )
    notes += doubts
    notes += [f"Set aside: {columns_and_reason}." for columns_and_reason in list_set_aside(columns)]
    group_labels = None if groups is None else read_groups(frame[groups], rules)
    times, doubts = (None, []) if time is None else read_time(frame[time], rules)
    notes += doubts
    duplicates = find_duplicates(pd.DataFrame(features), values, group_labels, by_time=time is not None)
    notes += duplicates.notes
    distinct = duplicates.distinct
    notes += [
        f"Column {column!r} determines {target_words} almost exactly. This looks like a leak; consider "
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
        target=(
            pd.Series(values, name=targets[0], dtype=object if classes else "float64")
            if len(targets) == 1
            else pd.DataFrame(values, columns=list(targets))
        ),
        task=posed,
        classes=classes,
        groups=group_labels,
        time=times,
        weight=None if weights is None else take_weights(weights, frame.index),
        notes=tuple(notes),
        task_reason=task_reason,
        copies=duplicates.copies,
        event=event,
        offset=None if offset is None else read_role(frame[offset], "offset", posed, rules),
        exposure=None if exposure is None else read_role(frame[exposure], "exposure", posed, rules),
        decimal=rules.decimal,
    )


def _list_targets(
    target: str | Sequence[str] | None, text: str, frame: pd.DataFrame, name: str
) -> tuple[str, ...]:  # fmt: skip
    """Return the names of the target columns: those requested, or the default of the source.

    Raises:
        DataError: If there are none.
    """
    targets = (target,) if isinstance(target, str) else tuple(target or ())
    if not any(targets) and text in BUILT_IN:
        return (str(frame.columns[-1]),)
    if not any(targets) and text.lower().endswith(".npz") and "y" in frame.columns:
        return ("y",)
    if not any(targets):
        raise DataError(
            f"{name} needs a target. Name the column to predict, one of: {quote_names(frame.columns)}.", "target"
        )
    return targets


def _note_decimal(doubtful: str, rules: TextRules) -> list[str]:
    if not doubtful:
        return []
    number = text_of(parse_number(doubtful, rules.decimal))
    return [
        f"No number shows whether the decimal mark is a point or a comma. The point was assumed: {doubtful!r} is "
        f"{number}."
    ]
