"""The concordance index: how often the row with the higher predicted risk has its event first."""

from typing import Any

import numpy as np

from poise.survival.targets import BLOCK, check_numbers, check_targets, check_weights


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
        TypeError: If an argument is not numbers.
        ValueError: If y is not times and events, predictions or weights do not fit it, or no pair is comparable.

    References:
        Harrell, Califf, Pryor, Lee and Rosati 1982, "Evaluating the yield of medical tests".

    Examples:
        >>> import poise
        >>> poise.concordance_index([[1.0, 1], [2.0, 1], [3.0, 0]], [0.5, 0.9, -1.0])  # 2 of 3 pairs
        0.6666666666666666
    """
    times, events = check_targets(y)
    predicted = check_numbers(log_hazard, "log_hazard", len(times))
    weights = check_weights(sample_weight, len(times))
    positions = np.flatnonzero(events)
    size = max(BLOCK // max(len(times), 1), 1)
    right = total = 0.0
    for first in range(0, len(positions), size):
        rows = positions[first : first + size]
        is_comparable = (times > times[rows, None]) | ((times == times[rows, None]) & ~events)
        score = np.where(predicted < predicted[rows, None], 1.0, 0.5 * (predicted == predicted[rows, None]))
        right += weights[rows] @ (is_comparable * score @ weights)
        total += weights[rows] @ (is_comparable @ weights)
    if total == 0:
        raise ValueError(
            f"None of the pairs of {len(times)} rows is comparable: each needs a row with an event and a positive "
            "weight, and a row that was at risk longer. Pass more rows."
        )
    return float(right / total)
