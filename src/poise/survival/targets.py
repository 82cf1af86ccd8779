"""The targets of survival analysis: the time of every row, and whether the event happened then."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

BLOCK = 20_000_000
"""Largest number of pairs of rows that are compared at once."""


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
    times, events = _to_float64(array, name).T
    if not np.isfinite(times).all():
        raise ValueError(f"The times in {name} must be finite, got {times[~np.isfinite(times)][0]}.")
    wrong = events[(events != 0) & (events != 1)]
    if len(wrong):
        raise ValueError(
            f"The second column of {name} must be 1 for an event and 0 for a censored row, got {wrong[0]:g}. The first "
            "column is the time."
        )
    return times, events == 1


def check_numbers(values: Any, name: str, rows: int | None = None, least: float = -math.inf) -> np.ndarray:
    """Return numbers as a row of float64.

    Args:
        values: (rows,) or (rows, 1) numbers.
        name: Their name in messages.
        rows: The number of rows that they must have. Default: None, for any.
        least: The smallest number that is allowed. Default: -inf.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If they have another shape, or one is not finite or too small.
    """
    array = _to_float64(np.asarray(values), name)
    expected = "rows" if rows is None else rows
    if array.ndim == 0 or array.ndim > 2 or array.shape[1:] not in ((), (1,)) or rows not in (None, len(array)):
        raise ValueError(f"{name} must have shape ({expected},) or ({expected}, 1), got {array.shape}.")
    array = array.reshape(-1)
    wrong = array[~np.isfinite(array) | (array < least)]
    if len(wrong):
        kind = "finite" if least == -math.inf else f"finite and >= {least:g}"
        raise ValueError(f"{name} must be {kind}, got {wrong[0]:g} among {len(array)} numbers.")
    return array


def check_weights(sample_weight: Any, rows: int) -> np.ndarray:
    """Return the sample weights as a row of float64, ones if they are None, or raise TypeError or ValueError."""
    return np.ones(rows) if sample_weight is None else check_numbers(sample_weight, "sample_weight", rows, 0.0)


def rank_times(*targets: Any) -> list[np.ndarray]:
    """Return targets with the rank of each time among all times, in place of the time.

    The partial likelihood compares times only. Ranks are exact in float32, in which close times would be equal.

    Args:
        targets: (rows, 2) time and event, the training rows first and then, if there are any, the validation rows.

    Raises:
        ValueError: If the targets are not times and events.
    """
    pairs = [check_targets(y, name) for y, name in zip(targets, ("y", "validation_data[1]"), strict=False)]
    ranks = np.unique(np.concatenate([times for times, _ in pairs]), return_inverse=True)[1]
    parts = np.split(ranks, np.cumsum([len(times) for times, _ in pairs])[:-1])
    return [np.stack([part, events], axis=1).astype("float32") for part, (_, events) in zip(parts, pairs, strict=True)]


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
    times, events = _weighted_events(y, weights)
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
    _, events = _weighted_events(y, weights)
    for fold, rows in folds:
        if not events[rows].any():
            raise ValueError(
                f"All training rows of fold {fold} are censored or have weight 0. Pass other folds, or rows "
                "with events."
            )


def _weighted_events(y: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the times, and whether each row has an event and a weight above 0."""
    times, events = check_targets(y)
    return times, events if weights is None else events & (np.asarray(weights).reshape(-1) > 0)


def _to_float64(array: np.ndarray, name: str) -> np.ndarray:
    try:
        return array.astype("float64")
    except (TypeError, ValueError):
        raise TypeError(f"{name} must contain only numbers, got dtype {array.dtype}.") from None
