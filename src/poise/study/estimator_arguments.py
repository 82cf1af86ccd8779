"""Check the arguments of the estimators that decide what is predicted: losses, targets, offsets and class weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from poise.study.class_weights import BALANCED
from poise.study.tasks.base import Task
from poise.study.tasks.counts import Counts
from poise.study.tasks.log_link import LogLink
from poise.study.tasks.multioutput import MultiOutput
from poise.study.tasks.positive import Gamma, Tweedie
from poise.study.tasks.quantiles import Quantiles, are_quantiles
from poise.study.tasks.regression import Regression

LOSSES = ("squared_error", "poisson", "gamma", "tweedie", "quantile")
"""The losses of `PathRegressor`."""


def make_regression_task(loss: str, power: float, quantile: float | Sequence[float], targets: int) -> Task:
    """Return the task of a `PathRegressor`.

    Args:
        loss, power, quantile: Its parameters.
        targets: The number of columns of y.

    Raises:
        ValueError: For a value that is not allowed.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}.")
    if not 1.0 < power < 2.0:
        raise ValueError(f"power must lie between 1 and 2, such as 1.5, got {power!r}.")
    quantiles = tuple(np.ravel(quantile).tolist())
    if not are_quantiles(quantiles):
        raise ValueError(f"quantile must be between 0 and 1, or ascending numbers, got {quantile!r}.")
    squared = Regression() if targets == 1 else MultiOutput(tuple(f"output {number}" for number in range(targets)))
    tasks = (squared, Counts(), Gamma(), Tweedie(power), Quantiles(quantiles))
    return dict(zip(LOSSES, tasks, strict=True))[loss]


def check_values(y: np.ndarray, task: Task, loss: str) -> None:
    """Raise ValueError if a target does not fit a loss with a log link."""
    if not isinstance(task, LogLink):
        return
    is_valid = (y >= 0).all() if task.allows_zero else (y > 0).all()
    if not is_valid or not y.any():
        demand = ">= 0, and not all 0" if task.allows_zero else "> 0"
        raise ValueError(f"loss={loss!r} needs y {demand}, got values from {y.min():g} to {y.max():g}.")


def check_offset(offset: Any, X: np.ndarray, task: Task) -> np.ndarray:
    """Return (rows,) an offset of the rows of X.

    Raises:
        TypeError, ValueError: If the task cannot use it.
    """
    if not task.takes_offset:
        raise ValueError(f"offset cannot be combined with the loss of the task {task.name}. Omit offset.")
    offset = column_or_1d(check_array(offset, ensure_2d=False, dtype="float64", input_name="offset"))
    check_consistent_length(X, offset)
    if (np.abs(offset) > task.largest_offset).any():
        wrong = offset[np.abs(offset).argmax()]
        raise ValueError(
            f"offset must lie between ±{task.largest_offset:g}, because its exponential multiplies the mean, got "
            f"{wrong:g}. Pass the logarithm of an exposure."
        )
    return offset


def check_class_weight(class_weight: str | Mapping[Any, float], classes: np.ndarray) -> None:
    """Raise ValueError unless class weights are `"balanced"`, or positive and of known classes."""
    if not isinstance(class_weight, Mapping):
        if class_weight != BALANCED:
            raise ValueError(f"class_weight must be {BALANCED!r} or a dict, got {class_weight!r}.")
        return
    unknown = [label for label in class_weight if label not in classes.tolist()]
    if unknown:
        raise ValueError(
            f"class_weight names {unknown[0]!r}, which is not a class. The classes are {classes.tolist()}."
        )
    for label, weight in class_weight.items():
        if not 0.0 < weight < float("inf"):
            raise ValueError(f"class_weight must have positive and finite weights, got {weight!r} for {label!r}.")
