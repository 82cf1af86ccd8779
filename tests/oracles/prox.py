"""Proximal operators by brute force: argmin_u Σ(u − w)²/(2 step) + strength·R(u).

From the value alone where that can be (entrywise penalties, singular values), else by an exact method that shares
nothing with the library's (bisection, a dense linear system).

All take w and step (an array of w's shape; 0 leaves the entry as it is) in float64.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from . import values

Array = np.ndarray
Entries = Callable[[Array, float], Array]


def objective(value: Callable[[Array, float], float], u: Array, w: Array, step: Array, strength: float) -> float:
    """What the prox minimizes; entries of step 0 cannot move and count nothing."""
    moving = step > 0
    return float(np.sum((u - w)[moving] ** 2 / (2.0 * step[moving])) + value(u, strength))


def separable(
    entries: Entries, w: Array, step: Array, strength: float, kink: Array | float = 0.0, reach: float = 0.01
) -> tuple[Array, Array]:
    """A dense grid around the kink, as far as w or `reach`, then golden section and a parabola, in long doubles.

    Returns the minimizers and, per entry, whether every point of the grid away from it is clearly worse (near the
    jump of a non-convex prox two places are equally good, and only their objective can be compared).
    """
    grid = np.linspace(-1.0, 1.0, 2001, dtype=np.longdouble)
    grid[1000] = 0.0
    kink = np.broadcast_to(np.asarray(kink, dtype=np.longdouble), w.shape)
    w_wide, step_wide = w.astype(np.longdouble), np.where(step > 0, step, 1.0).astype(np.longdouble)
    span = 1.25 * np.maximum(np.abs(w_wide - kink), reach)

    def cost(u: Array) -> Array:
        return (u - w_wide) ** 2 / (2 * step_wide) + entries(u, strength)

    points = kink + span * grid.reshape(-1, *[1] * w.ndim)
    costs = cost(points)
    elsewhere = np.where(points == kink, np.inf, costs)
    lowest = np.take_along_axis(points, elsewhere.argmin(axis=0)[None], axis=0)[0]
    best = _golden(cost, lowest - span / 500, lowest + span / 500)
    best = _parabola(cost, best, span * np.longdouble(1e-6), kink)
    best = np.where(cost(kink) <= cost(best), kink, best)

    far = np.abs(points - best) > 0.02 * span
    runner_up = np.where(far, costs, np.inf).min(axis=0)
    decided = (runner_up - cost(best)) > 1e-6 * (1.0 + np.abs(cost(best)))
    result = np.where(step > 0, best, w_wide).astype(np.float64)
    return result, np.asarray(decided | (step == 0), dtype=bool)


def _golden(cost: Callable[[Array], Array], low: Array, high: Array) -> Array:
    ratio = (np.sqrt(np.longdouble(5.0)) - 1) / 2
    for _ in range(70):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        keep_left = cost(left) < cost(right)
        low, high = np.where(keep_left, low, left), np.where(keep_left, right, high)
    return (low + high) / 2


def _parabola(cost: Callable[[Array], Array], u: Array, width: Array, kink: Array) -> Array:
    """The vertex through three points: golden section is blind below the square root of the precision."""
    below, here, above = cost(u - width), cost(u), cost(u + width)
    bend = above - 2 * here + below
    shift = np.where(bend > 0, width * (below - above) / (2 * np.where(bend > 0, bend, 1)), 0)
    usable = (np.abs(u - kink) > 2 * width) & (np.abs(shift) < width)
    vertex = np.where(usable, u + shift, u)
    noise = 32 * np.finfo(np.longdouble).eps * np.abs(here)
    return np.where(cost(vertex) <= here + noise, vertex, u)  # at a knot the parabola is none


def grouped(w: Array, step: Array, strength: float, labels: Array, factors: Array, l1_ratio: float = 0.0) -> Array:
    """Group by group: soft threshold, then ν = ‖u‖ from Σ v²/(ν + t·step)² = 1 by bisection."""
    result = w.copy()
    for group, factor in enumerate(factors):
        inside = labels == group
        result[inside] = _one_group(
            w[inside],
            step[inside],
            strength * l1_ratio,
            strength * (1.0 - l1_ratio) * factor if np.isfinite(factor) else np.inf,
        )
    return result


def _one_group(w: Array, step: Array, threshold: float, weight: float) -> Array:
    if np.isinf(weight):
        return np.zeros_like(w)
    w, step = w.astype(np.longdouble), step.astype(np.longdouble)
    v = np.sign(w) * np.maximum(np.abs(w) - threshold * step, 0)
    if weight == 0 or not np.any(v):
        return v.astype(np.float64)
    immovable = (step == 0) & (v != 0)
    moving = step > 0
    if not immovable.any() and np.sum((v[moving] / step[moving]) ** 2) <= weight**2:
        return np.zeros(w.shape)
    low, high = np.longdouble(0), np.sqrt(np.sum(v**2))
    for _ in range(400):
        middle = (low + high) / 2
        active = v != 0
        if np.sum((v[active] / (middle + weight * step[active])) ** 2) > 1:
            low = middle
        else:
            high = middle
    return (v * high / (high + weight * step)).astype(np.float64)


def smoothness(w: Array, step: Array, strength: float, axis: int, weights: Any = None) -> Array:
    """(diag(1/step) + 2s DᵀCD) u = w/step as one dense system; entries of step 0 are given."""
    size = w.size
    differences = np.diff(np.eye(size).reshape(*w.shape, size), axis=axis % w.ndim)
    factors = np.broadcast_to(values.counted(weights), differences.shape[:-1]).reshape(-1)
    differences = differences.reshape(-1, size)
    curvature = 2.0 * strength * differences.T @ (factors[:, None] * differences)
    flat, steps = w.reshape(-1), step.reshape(-1)
    moving = steps > 0
    system = curvature[np.ix_(moving, moving)] + np.diag(1.0 / steps[moving])
    known = flat[moving] / steps[moving] - curvature[np.ix_(moving, ~moving)] @ flat[~moving]
    result = flat.copy()
    result[moving] = np.linalg.solve(system, known)
    return result.reshape(w.shape)


def spectral(entries: Entries, w: Array, step: Array, strength: float) -> Array:
    """Of a penalty of the singular values that is least at 0 or 1: the search over each of them (scalar step)."""
    left, singular, right = np.linalg.svd(w.reshape(-1, w.shape[-1]), full_matrices=False)
    moved, _ = separable(entries, singular, np.broadcast_to(step.reshape(-1)[0], singular.shape), strength, reach=1.0)
    return ((left * moved) @ right).reshape(w.shape)


def total_variation(w: Array, step: Array, strength: float, axis: int, weights: Any = None) -> Array:
    """Line by line, the best of all patterns of falling, equal and rising neighbors (entries of step 0 are given)."""
    prices = strength * np.broadcast_to(values.counted(weights), np.diff(w, axis=axis).shape)
    lines = [np.moveaxis(x, axis, -1) for x in (w, step, prices)]
    result = np.empty(lines[0].shape)
    for index in np.ndindex(result.shape[:-1]):
        result[index] = _one_line(*(line[index] for line in lines))
    return np.moveaxis(result, -1, axis)


def _one_line(w: Array, step: Array, prices: Array) -> Array:
    w, prices = w.astype(np.longdouble), prices.astype(np.longdouble)
    inverse = 1 / np.where(step > 0, step, 1e-14).astype(np.longdouble)
    best, least = w, np.inf
    for pattern in itertools.product((-1, 0, 1), repeat=len(w) - 1):
        flow = prices * np.asarray(pattern)
        pull = inverse * w + np.append(flow, 0) - np.append(0, flow)
        segment = np.cumsum(np.append(0, np.asarray(pattern) != 0))
        masks = segment == np.arange(segment[-1] + 1)[:, None]
        u = ((masks @ pull) / (masks @ inverse))[segment]
        cost = np.sum((u - w) ** 2 * inverse) / 2 + np.sum(prices * np.abs(np.diff(u)))
        if cost < least:
            best, least = u, cost
    return np.where(step > 0, best, w).astype(np.float64)


def slope(w: Array, step: Array, strength: float, alphas: Array) -> Array:
    """Isotonic regression by SciPy of the sorted sizes (Bogdan et al. 2015, section 2)."""
    sizes = np.abs(w).reshape(-1)
    order = np.argsort(-sizes)
    result = np.zeros(w.size)
    wanted = sizes[order] - step.reshape(-1)[0] * strength * alphas
    result[order] = np.maximum(isotonic_regression(wanted, increasing=False).x, 0.0)
    return np.sign(w) * result.reshape(w.shape)
