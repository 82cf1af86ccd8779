"""Check the arguments of the estimators that decide what is predicted: losses, targets, offsets and class weights."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from poise.study.tasks.base import Task
from poise.study.tasks.counts import Counts
from poise.study.tasks.log_link import LogLink
from poise.study.tasks.multioutput import MultiOutput
from poise.study.tasks.positive import Gamma, Tweedie
from poise.study.tasks.quantiles import Quantiles, are_quantiles
from poise.study.tasks.regression import Regression

LOG_LINKS: dict[str, Callable[[float], LogLink]] = {
    "poisson": lambda power: Counts(),
    "gamma": lambda power: Gamma(),
    "tweedie": Tweedie,
}
"""Each loss of `PathRegressor` with a log link, and a function that takes the power and returns the task."""


def make_regression_task(loss: str, power: float, quantile: float | Sequence[float], targets: int) -> Task:
    """Return the task of a `PathRegressor`.

    Args:
        loss, power, quantile: Its parameters.
        targets: The number of columns of y.

    Raises:
        ValueError: For a value that is not allowed.
    """
    quantiles = tuple(np.ravel(quantile).tolist())
    makers: dict[str, Callable[[], Task]] = {
        "squared_error": lambda: Regression() if targets == 1 else MultiOutput(tuple(map(str, range(targets)))),
        **{name: partial(make, power) for name, make in LOG_LINKS.items()},
        "quantile": lambda: Quantiles(quantiles),
    }
    if loss not in makers:
        raise ValueError(f"loss must be one of {', '.join(makers)}, got {loss!r}.")
    if not isinstance(power, Real) or not 1.0 < power < 2.0:
        raise ValueError(f"power must be a number between 1 and 2 (exclusive), such as 1.5, got {power!r}.")
    if not are_quantiles(quantiles):
        raise ValueError(
            "quantile must be a number between 0 and 1 (exclusive), or an ascending sequence of them, got "
            f"{quantile!r}."
        )
    return makers[loss]()


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
        TypeError, ValueError: If it is not (rows,) finite numbers, or one is larger in size than the task allows.
    """
    offset = column_or_1d(check_array(offset, ensure_2d=False, dtype="float64", input_name="offset"))
    check_consistent_length(X, offset)
    if (np.abs(offset) > task.largest_offset).any():
        wrong = offset[np.abs(offset).argmax()]
        raise ValueError(
            f"offset must lie between ±{task.largest_offset:g}, because its exponential multiplies the mean, got "
            f"{wrong:g}. Pass the logarithm of an exposure."
        )
    return offset
