"""The task that the arguments of a study choose: by the number of targets, and by a column of events."""

from typing import Any

from poise.study.errors import DataError
from poise.study.tasks.multioutput import MultiOutput
from poise.study.tasks.regression import Regression
from poise.study.tasks.survival import Survival


def resolve_task(targets: tuple[str, ...], task: str | None) -> str | None:
    """Return the task unchanged for one target, and the task multioutput for several.

    Raises:
        DataError: If the task does not fit the number of targets.
    """
    if len(targets) == 1:
        if task == MultiOutput.name:
            raise DataError(
                f"The task {task} needs several targets, got one. List more columns, or choose the task regression.",
                "task",
            )
        return task
    if task not in (None, Regression.name, MultiOutput.name):
        raise DataError(
            f"Several targets need the task multioutput, got the task {task}. Choose one target, or omit the task.",
            "task",
        )
    return MultiOutput.name


def choose_target(target: Any, task: str | None, time_to_event: Any, event: Any) -> tuple[Any, str | None]:
    """Return the column that is read as the target, and the task, of the arguments of a study.

    Raises:
        DataError: If the arguments of the task survival are incomplete, or passed with another task or a target.
    """
    columns = {"time_to_event": time_to_event, "event": event}
    if task != Survival.name and all(column is None for column in columns.values()):
        return target, task
    if task not in (None, Survival.name):
        name = next(name for name, column in columns.items() if column is not None)
        raise DataError(
            f"{name} works only with the task survival, got the task {task}. Choose the task survival, or omit {name}.",
            name,
        )
    for name, column in columns.items():
        if column is None:
            raise DataError(_explain_missing(name), name)
    if target is not None:
        raise DataError(
            f"time_to_event replaces the target in the task survival, got the target {target!r} as well. Omit one of "
            "them.",
            "time_to_event",
        )
    return time_to_event, Survival.name


def check_event(task: str | None, event: str | None) -> None:
    """Raise DataError if the task survival has no column of events, or another task has one."""
    if task == Survival.name and event is None:
        raise DataError(_explain_missing("event"), "event")
    if task != Survival.name and event is not None:
        got = "" if task is None else f", got the task {task}"
        raise DataError(
            f"event works only with the task survival{got}. Choose the task survival, or omit event.", "event"
        )


def _explain_missing(name: str) -> str:
    column = "the column that says whether each row has an event" if name == "event" else "the column of times"
    return f"{name} is missing, and the task survival needs it. Pass the name of {column}."
