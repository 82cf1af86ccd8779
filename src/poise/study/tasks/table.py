"""All tasks."""

from collections.abc import Mapping
from typing import Any

from poise.study.tasks.base import Task
from poise.study.tasks.classes import Binary, Multiclass
from poise.study.tasks.counts import Counts
from poise.study.tasks.multioutput import MultiOutput
from poise.study.tasks.positive import Gamma, Tweedie
from poise.study.tasks.quantiles import Quantiles
from poise.study.tasks.regression import Regression
from poise.study.tasks.survival import Survival

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (Regression, Binary, Multiclass, Counts, Gamma, Tweedie, Quantiles, MultiOutput, Survival)
}
"""A new task is one entry here."""


def task_of(description: Mapping[str, Any]) -> Task:
    """Return the task of a saved study.

    Args:
        description: The content of study.json.
    """
    data = description["data"]
    return make_task(data["task"], {**description["settings"], "targets": data["targets"]})


def make_task(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """Return a task by its name.

    Args:
        name: The name.
        settings: The settings of a study, in which some tasks have options, and its `targets`. Default: `None`, for the
            default options.
    """
    return TASKS[name].from_settings(settings or {})
