"""Infer the task from the values of the target."""

import numpy as np
import pandas as pd

MOST_CLASSES = 20
ROWS_PER_CLASS = 10
FEWEST_COUNTS = 5
"""Fewer distinct numbers are classes."""
LARGEST_MEAN_COUNT = 10.0
"""Larger whole numbers can be predicted as any other number."""
MOST_ROWS_IN_TAIL = 5
"""A value with more rows is not in the tail of a distribution."""
LEAST_DISPERSION = 0.8
"""The variance of counts, relative to their mean: 1 for a Poisson distribution, and usually larger."""


def infer_task(values: np.ndarray, is_number: bool) -> tuple[str, str]:
    """Infer a task.

    Args:
        values: (rows,) numbers or labels, none of them missing.
        is_number: Whether they are numbers.

    Returns:
        The task, and what the target holds, in words.
    """
    distinct, frequencies = np.unique(values if is_number else pd.factorize(values)[0], return_counts=True)
    if len(distinct) == 2:
        return "binary", "two distinct values"
    if not is_number:
        return "multiclass", "text"
    if bool((distinct % 1 == 0).all()):
        if _are_counts(distinct, frequencies):
            return "counts", "whole numbers from 0 with a long tail"
        if len(distinct) <= min(MOST_CLASSES, len(values) / ROWS_PER_CLASS):
            return "multiclass", f"only {len(distinct)} distinct whole numbers"
    return "regression", "numbers"


def _are_counts(distinct: np.ndarray, frequencies: np.ndarray) -> bool:
    """Whether whole numbers are counts and not codes of classes.

    Counts fill 0, 1, 2, ..., become rarer after the most frequent one, and end in a tail of rare numbers, in which some
    may be missing. Their distribution is skewed to the right, and its variance is about the mean or larger. There may
    be many more zeros than other numbers.

    Args:
        distinct: The distinct whole numbers in order.
        frequencies: In how many rows each of them is.
    """
    if distinct[0] != 0 or len(distinct) < FEWEST_COUNTS:
        return False
    rows = frequencies.sum()
    mean = frequencies @ distinct / rows
    variance = frequencies @ (distinct - mean) ** 2 / rows
    skewness = frequencies @ (distinct - mean) ** 3 / rows / variance**1.5
    if mean > LARGEST_MEAN_COUNT or variance < LEAST_DISPERSION * mean:
        return False
    if skewness < 2 * np.sqrt(6 / rows):  # twice its standard error
        return False
    filled = int((distinct == np.arange(len(distinct))).sum())  # 0, 1, ..., filled - 1 all occur
    return bool((frequencies[filled - 1 :] <= MOST_ROWS_IN_TAIL).all()) and _falls(frequencies[1:filled])


def _falls(frequencies: np.ndarray) -> bool:
    """Whether frequencies fall after the largest one, apart from chance."""
    after = frequencies[frequencies.argmax() :] if len(frequencies) else frequencies
    limits = np.maximum(after[:-1] + 2 * np.sqrt(after[:-1]), MOST_ROWS_IN_TAIL)
    return bool((after[1:] <= limits).all())
