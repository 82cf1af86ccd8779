"""The targets of survival analysis: the time of every row, and whether the event happened then."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from poise.survival.loss import CoxPartialLikelihood


def check_targets(y: Any, name: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """Return the times as float64, and whether each row has an event, (rows,) both.

    Args:
        y: (rows, 2) time and event (1 or True: event, 0 or False: censored).
        name: Name of y in messages. Default: `"y"`.

    Raises:
        ValueError: If y has another shape or values.
    """
    array = np.asarray(y)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} must have shape (rows, 2), time and event, got {array.shape}.")
    times, events = array.astype("float64").T
    if not np.isfinite(times).all():
        raise ValueError(f"The times in {name} must be finite, got {times[~np.isfinite(times)][0]}.")
    wrong = events[(events != 0) & (events != 1)]
    if len(wrong):
        raise ValueError(
            f"The second column of {name} must be 1 for an event and 0 for a censored row, got {wrong[0]:g}. The first "
            "column is the time."
        )
    return times, events == 1


def check_survival_folds(model: keras.Model, y: Any, folds: Sequence[tuple[int, np.ndarray]], weights: Any) -> None:
    """Check the targets of a model whose loss is the Cox partial likelihood; for another loss, do nothing.

    Args:
        model: Compiled model.
        y: Targets.
        folds: Number and training rows of every fold.
        weights: Sample weights; None if there are none.

    Raises:
        ValueError: If the targets are not times and events, or the training rows of a fold have no event.
    """
    if not isinstance(model.loss, CoxPartialLikelihood):
        return
    _, events = check_targets(y)
    if weights is not None:
        events = events & (np.asarray(weights).reshape(-1) > 0)
    for fold, rows in folds:
        if not events[rows].any():
            where = "All training rows" if fold < 0 else f"The training rows of fold {fold}"
            raise ValueError(f"{where} are censored. Pass rows with events, or other folds.")
