"""Which strength of a path to take, told from its cross-validated losses.

All functions see the strengths in ascending order and return a position. `mean` and `error` are the mean validation
loss of every strength and its standard error over folds; NaN or inf marks a strength that cannot be taken, because a
lane diverged there. Of equals the largest strength is taken, the simplest network that does as well.
"""

import numpy as np


def minimum(mean: np.ndarray) -> int:
    """The position of the lowest mean, (strengths,).

    Raises:
        ValueError: if no mean is finite.
    """
    usable = np.isfinite(mean)
    if not usable.any():
        raise ValueError(
            f"At none of the {len(mean)} strengths all lanes stayed finite, so that none can be chosen. Lower the "
            "learning rate of the optimizer, standardize the inputs, or give smaller strengths."
        )
    return int(np.flatnonzero(usable & (mean == mean[usable].min())).max())


def one_standard_error(mean: np.ndarray, error: np.ndarray) -> int:
    """The position of the largest strength whose mean is at most the lowest mean plus its standard error.

    It is `lambda.1se` of glmnet (Friedman, Hastie and Tibshirani 2010; the rule is that of Breiman, Friedman, Olshen
    and Stone 1984, section 3.4.3).

    Args:
        mean, error: (strengths,) both.

    Raises:
        ValueError: if no mean is finite, or the lowest has no standard error because there is a single fold.
    """
    lowest = minimum(mean)
    if not np.isfinite(error[lowest]):
        raise ValueError(
            "One standard error over folds needs two folds at least, and here is one. Use cv=5, or best_strength."
        )
    return int(np.flatnonzero(np.isfinite(mean) & (mean <= mean[lowest] + error[lowest])).max())


def vertex(strengths: np.ndarray, mean: np.ndarray) -> float:
    """The strength, between grid points, at which a parabola through the lowest mean and its neighbors is lowest.

    The parabola is one in log strength. At an end of the grid, and beside a strength of zero or a mean that is not
    finite, it is the strength of the lowest mean itself.

    Args:
        strengths: (strengths,) ascending, ≥ 0.
        mean: (strengths,).

    Raises:
        ValueError: if no mean is finite.
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
    """The position of the lowest mean among the strengths whose count is at most `most`.

    Args:
        mean: (strengths,).
        counts: (strengths,) how many inputs are read.
        most: a number ≥ 0.

    Raises:
        ValueError: if there is no such strength; it names the smallest count there is.
    """
    usable = np.isfinite(mean)
    if usable.any() and not (usable & (counts <= most)).any():
        raise ValueError(
            f"No strength leaves at most {most} inputs: the fewest are {int(counts[usable].min())}. Ask for so many, "
            "or give larger strengths."
        )
    return minimum(np.where(counts <= most, mean, np.nan))
