"""Split rows by time: no training row is later than a held-out row, or has the same time."""

import itertools
from collections.abc import Sequence

import numpy as np

from poise.study.errors import DataError

Pairs = list[tuple[np.ndarray, np.ndarray]]
FEWEST_LEFT = 0.25
"""The share of earlier rows that must be left for training, without the groups that also have later rows."""


def split_latest(times: np.ndarray, units: np.ndarray | None, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Split off the latest rows.

    Args:
        times: (rows,) the times.
        units: (rows,) the units that stay together, or `None`. Earlier rows of a unit that also has later rows are in
            neither part.
        share: The share of the latest rows; the cut is the nearest one that does not divide rows of the same time.

    Returns:
        The positions of the earlier rows and of the latest rows.

    Raises:
        DataError: If there is no cut, or too few earlier rows are left.
    """
    order = np.argsort(times, kind="stable")
    [cut] = _choose_cuts(times[order], [len(order) - max(round(share * len(order)), 1)])
    return _leave_out(order[:cut], order[cut:], units), order[cut:]


def split_forward(times: np.ndarray, units: np.ndarray | None, count: int) -> Pairs:
    """Split rows into folds that train on all rows before their held-out rows, as scikit-learn's TimeSeriesSplit does.

    Args:
        times: (rows,) the times.
        units: As for `split_latest`.
        count: The number of folds.

    Returns:
        For each fold its training rows and its held-out rows.

    Raises:
        DataError: As `split_latest`.
    """
    order = np.argsort(times, kind="stable")
    size = max(len(order) // (count + 1), 1)
    cuts = _choose_cuts(times[order], [len(order) - size * number for number in range(count, 0, -1)])
    return [
        (_leave_out(order[:start], order[start:end], units), order[start:end])
        for start, end in itertools.pairwise([*cuts, len(order)])
    ]


def _choose_cuts(times: np.ndarray, wanted: Sequence[int]) -> list[int]:
    """Return increasing cuts between sorted times that differ, each the nearest to the one wanted that is left."""
    possible = np.flatnonzero(times[1:] != times[:-1]) + 1
    if len(possible) < len(wanted):
        raise DataError(
            f"The time column needs at least {len(wanted) + 1} distinct values in these rows, got {len(possible) + 1}. "
            "Rows of the same time stay together. Use fewer folds, or another time column.",
            "cv" if len(wanted) > 1 else "time_column",
        )
    chosen: list[int] = []
    for number, cut in enumerate(wanted):
        after = int(np.searchsorted(possible, chosen[-1], side="right")) if chosen else 0
        candidates = possible[after : len(possible) - (len(wanted) - number - 1)]
        chosen.append(int(candidates[np.abs(candidates - cut).argmin()]))
    return chosen


def _leave_out(train: np.ndarray, held: np.ndarray, units: np.ndarray | None) -> np.ndarray:
    """Return the training rows without those of units that also have held-out rows."""
    if units is None:
        return train
    left = train[~np.isin(units[train], units[held])]
    if len(left) < FEWEST_LEFT * len(train):
        raise DataError(
            f"Groups and a time column cannot be combined here: {len(train) - len(left):,} of {len(train):,} earlier "
            "rows belong to groups that also have later rows, so too few are left for training. Use only one of the "
            "two.",
            "groups",
        )
    return left
