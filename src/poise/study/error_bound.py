"""Bounds on the expected number of false columns of a stability selection with complementary pairs.

B times, the rows are divided at random into two halves, and a procedure selects at most q of p columns in each half. A
column is selected if at least a share τ of the 2B halves select it. Let θ = q/p. A column is false here if the
probability that a half selects it is at most θ, as for a random choice of q columns. Let D(η, t, N, r) be the largest
P(X ≥ t/N) over all r-concave X on {0, 1/N, …, 1} with E[X] ≤ η. If the shares of pairs and of halves that select a
false column are r-concave with r = −1/2 and r = −1/4, the expected number of false columns is at most

    p · min(D(θ², B·(2τ − 1), B, −1/2), D(θ, 2B·τ, 2B, −1/4)).

References:
    Meinshausen and Bühlmann 2010, "Stability selection" (the method); Shah and Samworth 2013, "Variable selection with
    error control: another look at stability selection" (complementary pairs, and this bound: equation 8 and the
    appendix on r-concave distributions).
"""

import math
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar

SIMULTANEOUS, SINGLE = -1 / 2, -1 / 4
"""r of the share of pairs in which both halves select a column, and of the share of halves that select it."""
SMALLEST, LARGEST = math.log(1e-12), math.log(1e6)
"""The range of the logarithm of the shift a of the extreme distributions."""


def bound_false_columns(per_half: int, columns: int, threshold: float, pairs: int) -> float:
    """Return a bound on the expected number of false columns.

    Args:
        per_half: q, how many columns a half selects at most.
        columns: p, the number of columns.
        threshold: τ, above 0.5 and at most 1.
        pairs: B, the number of complementary pairs.
    """
    share, count = per_half / columns, math.ceil(round(2 * pairs * threshold, 8))
    simultaneous = largest_tail(share**2, count - pairs, pairs, SIMULTANEOUS)
    return columns * min(simultaneous, largest_tail(share, count, 2 * pairs, SINGLE))


def most_per_half(most_false: float, columns: int, threshold: float, pairs: int) -> int:
    """Return the largest q whose bound is at most `most_false`, 0 if there is none."""
    per_half = 0
    while per_half < columns and bound_false_columns(per_half + 1, columns, threshold, pairs) <= most_false:
        per_half += 1
    return per_half


def largest_tail(mean: float, count: int, size: int, r: float) -> float:
    """Return the largest P(X ≥ count/size) of an r-concave variable on {0, 1/size, …, 1} whose mean is at most `mean`.

    The extreme distributions have f(i) ∝ (a + i)^(1/r) for i ≤ k, possibly with a smaller value at k + 1, and 0
    afterward. For each k, the mean decides the value at k + 1, and the best a is found numerically. This holds for
    tails that start after ⌈2 · mean · size⌉ < size − 1. Otherwise, the result is 1.

    Args:
        mean: η, from 0 to 1.
        count: Where the tail starts.
        size: N.
        r: Below 0.
    """
    center, power = mean * size, 1 / r
    first = math.ceil(2 * center) + 1
    if count < first or first >= size:
        return 1.0
    shifts, upper = {}, LARGEST
    for k in range(first, size + 1):
        upper = shifts[k] = _find_shift(k, center, power, upper)
    ends = range(max(first, count - 1), size)  # others end before the tail starts
    return max(_largest_tail_of(k, count, center, power, (shifts[k + 1], shifts[k])) for k in ends)


def _find_shift(k: int, center: float, power: float, upper: float) -> float:
    """Return the log a at which (a + i)^power on 0, …, k has the mean `center`."""
    values = np.arange(k + 1.0)

    def excess(log_a: float) -> float:
        weights = (math.exp(log_a) + values) ** power
        return float(weights @ values / weights.sum()) - center

    found: Any = brentq(excess, SMALLEST, upper)
    return float(found)


def _largest_tail_of(k: int, count: int, center: float, power: float, limits: tuple[float, float]) -> float:
    """Return the largest tail of the distributions that end at k + 1."""
    values = np.arange(k + 1.0)

    def below(log_a: float) -> float:
        weights = (math.exp(log_a) + values) ** power
        return float((k + 1 - center) * weights[:count].sum() / ((k + 1 - values) @ weights))

    found: Any = minimize_scalar(below, bounds=limits, method="bounded", options={"xatol": 1e-8})
    return 1.0 - float(found.fun)
