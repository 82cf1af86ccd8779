"""The targets of survival analysis: the time of every row, and whether the event happened then."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np


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


def stratification_target(y: Any, weights: Any, cv: Any) -> np.ndarray:
    """Return the labels to stratify folds by, (rows,): whether each row has an event with weight > 0.

    If folds are not stratified, or all rows have such an event, return the times.

    Args:
        y: Times and events.
        weights: Sample weights; None if there are none.
        cv: How to make the folds, as in `poise.fit_path`; folds that are pairs of positions are not stratified.

    Raises:
        ValueError: If the targets are not times and events, or no row has an event.
    """
    times, events = _count_events(y, weights)
    if not events.any():
        raise ValueError(f"All {len(times)} rows are censored or have weight 0. Pass rows with events.")
    is_split = isinstance(cv, Integral) or hasattr(cv, "split")
    return events.astype(int) if is_split and not events.all() else times


def check_folds(y: Any, weights: Any, folds: Sequence[tuple[int, np.ndarray]]) -> None:
    """Check that every fold trains on events.

    Args:
        y, weights: As for `stratification_target`.
        folds: Number and training rows of every fold.

    Raises:
        ValueError: If the training rows of a fold have no event.
    """
    _, events = _count_events(y, weights)
    for fold, rows in folds:
        if not events[rows].any():
            raise ValueError(
                f"All training rows of fold {fold} are censored or have weight 0. Pass other folds, or rows "
                "with events."
            )


def _count_events(y: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the times, and whether each row has an event and a weight above 0."""
    times, events = check_targets(y)
    return times, events if weights is None else events & (np.asarray(weights).reshape(-1) > 0)
