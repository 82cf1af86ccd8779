"""A table on disk becomes columns of a known kind, and a target with a task.

`read` finds what each column holds and what the target asks; whatever cannot be studied is refused here, in a sentence
that says what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from poise.study.columns.columns import Column, examined, found_in, label_of, texts_of
from poise.study.sources import BUILT_IN, DataError, Source, check_column, counted, few_of, load, number_of

TASKS = ("regression", "binary", "multiclass", "counts")
FEWEST_ROWS = 20
FEWEST_ROWS_A_CLASS = 5
MOST_CLASSES_GUESSED = 20
ROWS_A_CLASS_GUESSED = 10
LEAK = 0.9999


@dataclass(frozen=True)
class Table:
    """Features and target as they were read, and the task they pose.

    Args:
        name: a short name, that of the built-in table or of the file without its ending.
        source: what `read` was given, as text; "" for a DataFrame.
        features: the columns in use: numbers float64 (NaN: missing), categories object of str (None: missing), dates
            datetime64[ns] (NaT: missing).
        columns: every column of the source but the target and the three roles, in order.
        target: one value a row; float64 in regression and counts, else str.
        task: "regression", "binary", "multiclass" or "counts".
        classes: the classes in the order of the network's outputs; empty in regression and counts.
        groups: rows of one value stay together; None for none.
        time: numbers or datetimes by which the rows can be sorted; None for none.
        weight: float64, finite, none below 0, some above; None for none.
        notes: sentences that a reader must know.
    """

    name: str
    source: str
    features: pd.DataFrame
    columns: tuple[Column, ...]
    target: pd.Series
    task: str
    classes: tuple[str, ...]
    groups: pd.Series | None
    time: pd.Series | None
    weight: pd.Series | None
    notes: tuple[str, ...]


def read(
    source: Source,
    target: str | None = None,
    *,
    task: str | None = None,
    drop: Sequence[str] = (),
    groups: str | None = None,
    time: str | None = None,
    weight: str | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Table:
    """Reads a table, finds what its columns hold and which task its target poses.

    Args:
        source, delimiter, decimal, encoding: as in `load`.
        target: the column to predict; built-in tables and NPZ files ("y") have their own.
        task: "regression", "binary", "multiclass" or "counts"; None infers it: text, truth values, two different
            values or few whole numbers (at most 20, each in 10 rows on average) are classes, all else is regression.
        drop: columns to leave out.
        groups: the column whose equal values keep rows together.
        time: the column by which the rows are sorted.
        weight: the column of the rows' weights.

    Raises:
        DataError: the table cannot be studied; the text says why and what to do.

    Example:
        >>> from poise.study.tables import read
        >>> table = read("wine")
        >>> table.task, table.classes, table.features.shape
        ('multiclass', ('class_0', 'class_1', 'class_2'), (178, 13))
    """
    if task is not None and task not in TASKS:
        raise DataError(f"Task {task!r} is unknown. Use one of {', '.join(TASKS)}, or leave it out to infer it.")
    name, text, frame = load(source, delimiter=delimiter, decimal=decimal, encoding=encoding)
    target = target or _own_target(text, frame)
    if target is None:
        raise DataError(f"{name} needs a target. Name the column to predict, one of: {few_of(frame.columns)}.")
    roles = {"target": target, "groups": groups, "time": time, "weight": weight}
    _check_roles({role: column for role, column in roles.items() if column is not None}, drop, frame, name)
    values, is_number = _target_values(frame[target])
    present = np.flatnonzero(~pd.isna(values))
    notes = []
    if len(present) < len(frame):
        notes.append(
            f"{len(frame) - len(present)} of {len(frame)} rows are left out: they have no value of {target!r}."
        )
        frame, values = frame.iloc[present], values[present]
    if len(frame) < FEWEST_ROWS:
        with_target = f" with a value of {target!r}" if notes else ""
        raise DataError(
            f"{name} has {counted(len(frame), 'row')}{with_target}, and a study needs at least {FEWEST_ROWS} to "
            "train on some and validate on others. Bring more rows."
        )
    values, task, classes = _pose(values, is_number, target, task)
    notes += _rare(values, classes)
    taken = {column for column in roles.values() if column is not None}
    columns, features = examined(frame, [column for column in frame.columns if column not in taken], set(drop))
    if not columns:
        raise DataError(f"{name} has no column beside its target {target!r}. Bring at least one to predict it from.")
    if not features:
        raise DataError(
            f"Nothing is left to predict {target!r} from: {_reasons(columns)}. Bring a column of numbers, dates or "
            "categories that repeat."
        )
    notes += [f"Set aside: {_reasons(columns)}."] if any(column.kind == "set aside" for column in columns) else []
    leaks = _leaks(features, values, task, classes)
    notes += [
        f"Column {column!r} tells the target {target!r}: looks like a leak; leave it out with --drop."
        for column in leaks
    ]
    return Table(
        name=Path(name).stem,
        source=text,
        features=pd.DataFrame(features),
        columns=tuple(columns),
        target=pd.Series(values, name=target, dtype=object if classes else "float64"),
        task=task,
        classes=classes,
        groups=None if groups is None else _groups(frame[groups]),
        time=None if time is None else _time(frame[time]),
        weight=None if weight is None else _weight(frame[weight]),
        notes=tuple(notes),
    )


def _own_target(text: str, frame: pd.DataFrame) -> str | None:
    if text in BUILT_IN:
        return str(frame.columns[-1])
    return "y" if text.lower().endswith(".npz") and "y" in frame.columns else None


def _check_roles(roles: dict[str, str], drop: Sequence[str], frame: pd.DataFrame, name: str) -> None:
    for column in (*roles.values(), *drop):
        check_column(column, frame, name)
    seen: dict[str, str] = {}
    for role, column in roles.items():
        if column in seen:
            raise DataError(
                f"Column {column!r} is asked to be both the {seen[column]} and the {role}. Give each a "
                "column of its own."
            )
        if column in drop:
            raise DataError(
                f"Column {column!r} is the {role} and cannot be dropped. Drop others, or choose another {role}."
            )
        seen[column] = role


def _groups(values: pd.Series) -> pd.Series:
    _check_whole(values, "groups")
    if values.nunique() < 2:
        raise DataError(f"Column {values.name!r} of the groups has one value alone. Groups need two or more.")
    return pd.Series([label_of(value) for value in values], name=values.name, dtype=object)


def _time(values: pd.Series) -> pd.Series:
    found = found_in(values)
    if found.kind not in ("number", "date") or found.odd:
        raise DataError(
            f"Column {values.name!r} of the time holds neither numbers nor dates, so the rows cannot be sorted by it. "
            "Choose another, or write dates as 2024-12-31."
        )
    times = pd.Series(found.values, name=values.name)
    _check_whole(times, "time")
    return times


def _weight(values: pd.Series) -> pd.Series:
    found = found_in(values)
    if found.kind != "number" or found.odd:
        raise DataError(f"Column {values.name!r} of the weights is not numbers. Choose a column of numbers ≥ 0.")
    weight = pd.Series(found.values, name=values.name)
    _check_whole(weight, "weight")
    if (weight < 0).any():
        raise DataError(
            f"Column {values.name!r} of the weights holds {label_of(weight.min())}. Weights are numbers ≥ 0."
        )
    if not (weight > 0).any():
        raise DataError(f"Column {values.name!r} of the weights is 0 in every row. Some weights must be above 0.")
    return weight


def _check_whole(values: pd.Series, role: str) -> None:
    missing = int(values.isna().sum())
    if missing:
        raise DataError(
            f"Column {values.name!r} of the {role} has no usable value in {missing} of {len(values)} rows. "
            "Fill them in, or remove these rows."
        )


def _target_values(values: pd.Series) -> tuple[np.ndarray, bool]:
    """Numbers (NaN: missing) or labels (None: missing), and whether they are numbers."""
    found = found_in(values)
    if found.kind in ("date", "set aside"):
        held = "dates" if found.kind == "date" else found.notes[0]
        raise DataError(
            f"Target {values.name!r} holds {held}, and a study predicts numbers or classes. Choose another target."
        )
    if found.kind == "number" and not found.odd and not found.is_truth:
        return found.values, True
    codes, texts, _ = texts_of(values)
    return np.array([*texts, None], dtype=object)[codes], False


def _pose(values: np.ndarray, is_number: bool, name: str, task: str | None) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """The target as the task needs it, the task, and its classes."""
    codes, different = pd.factorize(values, sort=True)
    if len(different) < 2:
        raise DataError(
            f"Target {name!r} is constant: every row has {label_of(values[0])!r}, so there is nothing to predict. "
            "Choose another target."
        )
    task = task or _infer_task(different, len(values), is_number)
    if task in ("regression", "counts"):
        if not is_number:
            raise DataError(
                f"Target {name!r} is text, such as {few_of(different[:3])}, and {task} needs numbers. "
                f"{_why_text(different)}Choose another target, or the task binary or multiclass."
            )
        wrong = different[(different < 0) | (different % 1 != 0)]
        if task == "counts" and len(wrong):
            raise DataError(
                f"Target {name!r} holds {label_of(wrong[0])}, and counts are whole numbers ≥ 0. Choose the task "
                "regression."
            )
        return values, task, ()
    if task == "binary" and len(different) != 2:
        raise DataError(
            f"Target {name!r} has {len(different)} different values and a binary task two. "
            "Choose the task multiclass or regression."
        )
    labels = [label_of(value) for value in different]
    single = [label for label, count in zip(labels, np.bincount(codes), strict=True) if count < 2]
    if single:
        raise DataError(
            f"Target {name!r} has classes with one member: {few_of(single)}. A class needs a row to train "
            f"on and one to validate on; merge or remove these. {'' if is_number else _why_text(different)}".rstrip()
        )
    return np.array(labels, dtype=object)[codes], task, tuple(labels)


def _infer_task(different: np.ndarray, rows: int, is_number: bool) -> str:
    if len(different) == 2:
        return "binary"
    if not is_number:
        return "multiclass"
    few = len(different) <= min(MOST_CLASSES_GUESSED, rows / ROWS_A_CLASS_GUESSED)
    return "multiclass" if few and bool((different % 1 == 0).all()) else "regression"


def _why_text(different: np.ndarray) -> str:
    """A column of numbers with a few odd values reads as text: name one of those."""
    odd = [text for text in different if number_of(text, "point") is None and number_of(text, "comma") is None]
    return f"It would be numbers but for values such as {odd[0]!r}. " if 0 < len(odd) < len(different) / 2 else ""


def _rare(values: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    if not classes:
        return []
    counts = pd.Series(values).value_counts()
    rare = [f"{label!r} ({counts[label]})" for label in classes if counts[label] < FEWEST_ROWS_A_CLASS]
    if not rare:
        return []
    listed = ", ".join(rare[:8]) + (f", … ({len(rare)} in all)" if len(rare) > 8 else "")
    return [f"Classes with fewer than {FEWEST_ROWS_A_CLASS} rows: {listed}. What is found for them rests on little."]


def _leaks(features: dict[str, pd.Series], target: np.ndarray, task: str, classes: tuple[str, ...]) -> list[str]:
    """The features that tell the target: in step with it, or another name for each of its values."""
    codes, different = pd.factorize(target)
    repeats = bool(classes) or len(different) <= len(target) / 2
    numbers = pd.Series(target).map({label: code for code, label in enumerate(classes)}) if classes else target
    line = None if task == "multiclass" else np.asarray(numbers, dtype="float64")
    return [
        name
        for name, feature in features.items()
        if (line is not None and _is_in_step(feature, line)) or (repeats and _renames(feature, codes))
    ]


def _is_in_step(feature: pd.Series, target: np.ndarray) -> bool:
    if feature.dtype == object:
        return False
    present = feature.notna().to_numpy()
    if present.sum() < max(10, len(target) / 2):
        return False
    x, y = (part[present].astype("float64") for part in (feature.to_numpy(), target))
    x, y = (part / (np.abs(part).max() or 1.0) for part in (x, y))
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return bool(size > 0 and abs(x @ y) > LEAK * size)


def _renames(feature: pd.Series, target: np.ndarray) -> bool:
    codes, values = pd.factorize(feature)
    present = codes >= 0
    if present.sum() < max(10, len(target) / 2):
        return False
    there = target[present]
    number = len(np.unique(there))
    return len(values) == number > 1 and len(np.unique(codes[present] * (target.max() + 1) + there)) == number


def _reasons(columns: Sequence[Column]) -> str:
    aside = [f"{column.name!r} ({column.note})" for column in columns if column.kind == "set aside"]
    return ", ".join(aside[:8]) + (f", … ({len(aside)} in all)" if len(aside) > 8 else "")
