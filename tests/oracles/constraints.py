"""Constraints in plain NumPy: whether they hold, the nearest point by brute force, and the normal cone.

A penalty is 0 where its constraint holds, up to the rounding errors of the narrowest type, and infinite elsewhere. All
take the group of every entry as `labels`; entries of step 0 cannot move.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import nnls

Array = np.ndarray
SLACK = 0.0078125
"""2⁻⁷, the relative violation that counts as rounding."""


def groups_of(labels: Array) -> Iterator[Array]:
    """The masks of the groups."""
    for group in range(int(labels.max()) + 1):
        yield labels == group


def blocks(shape: tuple, axis: int, length: int) -> Array:
    """The number of the block of consecutive entries along an axis that each entry is in."""
    lines = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), axis, -1)
    labels = np.empty(shape, int)
    labels.reshape(-1)[lines.reshape(-1, length)] = np.arange(lines.size // length)[:, None]
    return labels


# ---------------------------------------------------------------- bounds


def violates_bounds(w: Array, lower: Array, upper: Array) -> Array:
    low, high = np.broadcast_to(lower, w.shape), np.broadcast_to(upper, w.shape)
    with np.errstate(invalid="ignore"):
        return (w < low - SLACK * np.where(np.isinf(low), 0, abs(low))) | (
            w > high + SLACK * np.where(np.isinf(high), 0, abs(high))
        )


def nearest_in_bounds(w: Array, lower: Array, upper: Array) -> Array:
    """The nearest of w and the two bounds among those that are inside."""
    candidates = np.stack([w, np.broadcast_to(lower, w.shape), np.broadcast_to(upper, w.shape)])
    allowed = (candidates >= lower) & (candidates <= upper) & np.isfinite(candidates)
    distances = np.where(allowed, np.abs(np.where(allowed, candidates, 0.0) - w), np.inf)
    return np.take_along_axis(candidates, distances.argmin(axis=0)[None], axis=0)[0]


# ---------------------------------------------------------------- numbers of weights


def violates_count(w: Array, labels: Array, count: int) -> Array:
    """The nonzero entries of groups with more than `count` of them."""
    wrong = np.zeros(w.shape, bool)
    for members in groups_of(labels):
        wrong |= members & (np.count_nonzero(w[members]) > count) & (w != 0)
    return wrong


def nearest_with_count(w: Array, labels: Array, count: int) -> Array:
    """Of all ways to keep `count` entries of a group, the one that changes w least."""
    result = np.zeros_like(w)
    for members in groups_of(labels):
        values = w[members]
        ways = itertools.combinations(range(len(values)), count)
        best = max(ways, key=lambda kept: np.sum(values[list(kept)] ** 2))
        kept = np.zeros_like(values)
        kept[list(best)] = values[list(best)]
        result[members] = kept
    return result


def free_with_count(w: Array, labels: Array, count: int) -> Array:
    """Entries that can move: those in a set of `count` entries of their group that contains its nonzero ones."""
    free = np.zeros(w.shape, bool)
    for members in groups_of(labels):
        live = set(np.flatnonzero(w[members]))
        sets = (set(kept) for kept in itertools.combinations(range(int(members.sum())), count))
        inside = np.zeros(int(members.sum()), bool)
        inside[sorted(set().union(*(kept for kept in sets if live <= kept)))] = True
        free[members] = inside
    return free


# ---------------------------------------------------------------- groups


def violates_norm(w: Array, labels: Array, largest: float) -> Array:
    return np.asarray([np.linalg.norm(w[members]) > largest * (1 + SLACK) for members in groups_of(labels)])


def nearest_in_balls(w: Array, step: Array, labels: Array, largest: float) -> Array:
    """w_i/(1 + μ·h_i) with ‖·‖ = largest, by bisection of log μ."""
    result = w.astype(np.longdouble)
    for members in groups_of(labels):
        x, h = w[members].astype(np.longdouble), step[members].astype(np.longdouble)
        if np.sum(x * x) <= np.longdouble(largest) ** 2:
            continue
        low, high = np.longdouble(-80), np.longdouble(80)
        for _ in range(130):
            middle = (low + high) / 2
            is_long = np.sum((x / (1 + np.exp(middle) * h)) ** 2) > np.longdouble(largest) ** 2
            low, high = (middle, high) if is_long else (low, middle)
        result[members] = x / (1 + np.exp(high) * h)
    return result.astype(np.float64)


def distance_from_balls(w: Array, gradient: Array, labels: Array, largest: float) -> Array:
    """The normal cone is the half-line through w_g at the bound, and {0} inside."""
    distances = []
    for members, wrong in zip(groups_of(labels), violates_norm(w, labels, largest), strict=True):
        x, at = -gradient[members], w[members]
        is_at_bound = np.linalg.norm(at) > largest * (1 - 1e-5)
        distances.append(np.inf if wrong else nnls(at[:, None], x)[1] if is_at_bound else np.linalg.norm(x))
    if (labels < 0).any():
        distances.append(np.linalg.norm(gradient[labels < 0]))  # entries in no group are free
    return np.asarray(distances)


def violates_simplex(w: Array, labels: Array, radius: float) -> Array:
    wrong = np.zeros(w.shape, bool)
    for members in groups_of(labels):
        is_sum = abs(w[members].sum() - radius) <= SLACK * radius
        wrong[members] = not (is_sum and w[members].min() >= -SLACK * radius)
    return wrong


def nearest_in_simplices(w: Array, step: Array, labels: Array, radius: float) -> Array:
    """max(w − h·μ, 0) with the sum `radius`, by bisection of μ; steps of zero are tiny ones."""
    result = np.zeros(w.shape, np.longdouble)
    for members in groups_of(labels):
        x, h = w[members].astype(np.longdouble), np.maximum(step[members], 1e-14).astype(np.longdouble)
        low, high = ((x - radius) / h).min() - 1, (x / h).max()
        for _ in range(130):
            middle = (low + high) / 2
            is_large = np.maximum(x - h * middle, 0).sum() > radius
            low, high = (middle, high) if is_large else (low, middle)
        result[members] = np.maximum(x - h * high, 0)
    return result.astype(np.float64)


def distance_from_simplices(w: Array, gradient: Array, labels: Array, radius: float) -> Array:
    """The entries of what is left of −gradient after the nearest c·1 − Σ_{w_i = 0} λ_i e_i, λ ≥ 0 (NNLS)."""
    away = np.full(w.shape, np.inf)
    for members in groups_of(labels):
        if violates_simplex(w, labels, radius)[members].any():
            continue
        x, at = -gradient[members], w[members]
        ones = np.ones((len(x), 1))
        cone = np.concatenate([ones, -ones, -np.eye(len(x))[:, at == 0]], axis=1)
        away[members] = np.abs(x - cone @ nnls(cone, x)[0])
    return away


# ---------------------------------------------------------------- polytopes


def distance_from_polytope(x: Array, farthest: Callable[[Array], Array]) -> Array:
    """The entries of x − its nearest point in the polytope whose vertex in a direction is farthest(direction).

    Fully corrective Frank-Wolfe: the nearest point in the hull of some vertices by NNLS, then one more vertex.
    """
    shape, x = x.shape, x.reshape(-1)
    smallest = 1e-13 * max(1.0, float(np.abs(x).max()))

    def vertex(direction: Array) -> Array:
        return farthest(direction.reshape(shape)).reshape(-1)

    vertices, nearest = [vertex(x)], np.inf
    while True:
        hull = np.stack(vertices, axis=1)
        weights = _nearest_in_hull(hull, x)
        point = hull @ weights
        away = x - point
        if np.abs(away).max() <= smallest:
            return np.zeros(shape)
        best = vertex(away)
        is_last = away @ (best - point) <= 1e-12 * away @ away or np.linalg.norm(away) >= nearest * (1 - 1e-14)
        if is_last:
            return np.abs(away).reshape(shape)
        nearest = np.linalg.norm(away)
        vertices = [v for v, weight in zip(vertices, weights, strict=True) if weight > 0] + [best]


def _nearest_in_hull(hull: Array, x: Array) -> Array:
    """min ‖x − Vλ‖ over λ ≥ 0 with Σλ = 1: NNLS on (V − x) with a row of ones, normalized (Wolfe 1976)."""
    scale = max(1.0, float(np.abs(hull - x[:, None]).max()))
    system = np.concatenate([(hull - x[:, None]) / scale, np.ones((1, hull.shape[1]))])
    weights = nnls(system, np.append(np.zeros(len(x)), 1.0))[0]
    return weights / weights.sum()
