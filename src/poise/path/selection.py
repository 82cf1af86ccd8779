"""The choice of a strength by cross-validated losses.

All functions take the strengths in ascending order and return a position. `mean` and `error` are the mean validation
loss of every strength and its standard error over folds; NaN or inf marks a strength at which a lane diverged, which is
never chosen. Of equals the largest strength is chosen, the simplest network that does as well.
"""

import numbers
from typing import Any

import numpy as np

KEPT_GAIN = 0.95
"""Minimum share of the decrease in loss kept by the strength that selects features after adaptive stages."""
NEAR = 1e-6
"""Largest relative difference between a strength and the one of the grid that is meant."""


def minimum(mean: np.ndarray) -> int:
    """Return the position of the lowest mean, (strengths,).

    Raises:
        ValueError: If no mean is finite.
    """
    usable = np.isfinite(mean)
    if not usable.any():
        raise ValueError(
            f"At each of the {len(mean)} strengths, at least one training diverged, so no strength can be chosen. "
            "Lower the learning rate, standardize the inputs, or pass smaller strengths."
        )
    return int(np.flatnonzero(usable & (mean == mean[usable].min())).max())


def one_standard_error(mean: np.ndarray, error: np.ndarray) -> int:
    """Return the position of the largest strength whose mean is at most the lowest mean plus its standard error.

    It is `lambda.1se` of glmnet (Friedman, Hastie and Tibshirani 2010; the rule is from Breiman, Friedman, Olshen
    and Stone 1984, section 3.4.3).

    Args:
        mean, error: (strengths,) both.

    Raises:
        ValueError: If no mean is finite, or the lowest has no standard error because there is a single fold.
    """
    lowest = minimum(mean)
    if not np.isfinite(error[lowest]):
        raise ValueError("The one-standard-error rule needs at least two folds. Pass cv=5, or use best_strength.")
    return int(np.flatnonzero(np.isfinite(mean) & (mean <= mean[lowest] + error[lowest])).max())


def most_of_gain(mean: np.ndarray) -> int:
    """Return the position of the largest strength that keeps at least 95% of the largest decrease of the loss.

    The decrease is that from the mean at the largest strength, where only the null model is left.

    Args:
        mean: (strengths,).

    Raises:
        ValueError: If no mean is finite.
    """
    lowest = minimum(mean)
    null = mean[np.flatnonzero(np.isfinite(mean)).max()]
    with np.errstate(invalid="ignore"):
        return int(np.flatnonzero(mean <= mean[lowest] + (1.0 - KEPT_GAIN) * (null - mean[lowest])).max())


def vertex(strengths: np.ndarray, mean: np.ndarray) -> float:
    """Return the strength at which a parabola through the lowest mean and its neighbors is lowest.

    The parabola is one in log strength. At an end of the grid, and next to a strength of zero or a mean that is not
    finite, it is the strength of the lowest mean itself.

    Args:
        strengths: (strengths,) ascending, ≥ 0.
        mean: (strengths,).

    Raises:
        ValueError: If no mean is finite.
    """
    at = minimum(mean)
    near = slice(max(at - 1, 0), at + 2)
    if len(mean[near]) < 3 or not np.isfinite(mean[near]).all() or strengths[at - 1] == 0:
        return float(strengths[at])
    before, _, after = np.log(strengths[near] / strengths[at])
    # Both rises are ≥ 0 and the second is > 0, the last of equal minima being taken: the vertex is a minimum.
    rise_before, _, rise_after = (mean[near] - mean[at]) / np.ptp(mean[near])
    turn = rise_before * after**2 - rise_after * before**2
    turn /= 2 * (rise_before * after - rise_after * before)
    return float(np.clip(strengths[at] * np.exp(turn), strengths[at - 1], strengths[at + 1]))


def at_most(mean: np.ndarray, counts: np.ndarray, most: int) -> int:
    """Return the position of the lowest mean among the strengths whose count is at most `most`.

    Args:
        mean: (strengths,).
        counts: (strengths,) number of inputs that are read.
        most: largest number of inputs, >= 0.

    Raises:
        ValueError: If there is no such strength; it names the smallest count there is.
    """
    usable = np.isfinite(mean)
    if usable.any() and not (usable & (counts <= most)).any():
        raise ValueError(
            f"No strength has at most {most} inputs; the smallest number is {int(counts[usable].min())}. Use a larger "
            "max_features, or run poise.fit_path with larger strengths."
        )
    return minimum(np.where(counts <= most, mean, np.nan))


def grid_position(grid: np.ndarray, strength: Any) -> int:
    """Return the position of a strength on the grid.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not on the grid.
    """
    if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
        raise TypeError(f"strength must be one of path.strengths, such as path.best_strength, got {strength!r}.")
    at = int(np.argmin(np.abs(grid - float(strength))))
    if not abs(grid[at] - float(strength)) <= NEAR * grid[at]:
        first = int(np.clip(np.searchsorted(grid, float(strength)) - 1, 0, max(len(grid) - 2, 0)))
        near = " and ".join(f"{value:.7g}" for value in grid[first : first + 2])
        raise ValueError(
            f"The strength {strength!r} is not on the grid; the nearest are {near}. Use one of path.strengths, or run "
            "poise.fit_path with strengths=[...]."
        )
    return at
