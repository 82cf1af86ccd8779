"""The concordance index: how often the row with the higher predicted risk has its event first."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from poise.survival.targets import check_targets

BLOCK = 20_000_000
"""Largest number of pairs that are compared at once."""


def concordance_index(y: Any, log_hazard: Any, sample_weight: Any = None) -> float:
    """Return Harrell's concordance index: the share of comparable pairs that the predictions put in the right order.

    A pair is comparable if the row with the shorter time has an event; of two rows with equal times, if exactly one of
    them has an event, which counts as the earlier one. A pair is right if the row whose event is earlier has the higher
    predicted hazard. Equal predictions count one half. A value of 0.5 is no better than chance.

    Args:
        y: (rows, 2) time and event (1: event, 0: censored).
        log_hazard: (rows,) or (rows, 1) predictions; higher means an earlier event.
        sample_weight: (rows,) weights >= 0; a pair is weighted by the product of its weights. Default: None, for ones.

    Returns:
        The index, from 0 to 1.

    Raises:
        ValueError: If y is not times and events, or no pair is comparable.

    References:
        Harrell, Califf, Pryor, Lee and Rosati 1982, "Evaluating the yield of medical tests".

    Examples:
        >>> import poise
        >>> poise.concordance_index([[1.0, 1], [2.0, 1], [3.0, 0]], [0.5, 0.9, -1.0])  # 2 of 3 pairs
        0.6666666666666666
    """
    times, events = check_targets(y)
    predicted = np.asarray(log_hazard, "float64").reshape(-1)
    weights = np.ones(len(times)) if sample_weight is None else np.asarray(sample_weight, "float64").reshape(-1)
    right = total = 0.0
    for rows, is_comparable, score in compare_pairs(times, events, predicted):
        right += weights[rows] @ (score @ weights)
        total += weights[rows] @ (is_comparable @ weights)
    if total == 0:
        raise ValueError(f"None of the pairs of {len(times)} rows is comparable. Pass rows with events.")
    return float(right / total)


def compare_pairs(
    times: np.ndarray, events: np.ndarray, predicted: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield blocks of rows with an event, compared with all rows.

    Args:
        times, events, predicted: (rows,).

    Yields:
        The positions of the rows of the block; whether each pair is comparable, and what it adds to the right pairs (0,
        0.5 or 1), both (rows of the block, rows).
    """
    positions = np.flatnonzero(events)
    size = max(BLOCK // max(len(times), 1), 1)
    for first in range(0, len(positions), size):
        rows = positions[first : first + size]
        is_later = (times > times[rows, None]) | ((times == times[rows, None]) & ~events)
        score = np.where(predicted < predicted[rows, None], 1.0, 0.5 * (predicted == predicted[rows, None]))
        yield rows, is_later, is_later * score
