"""Derivatives, and the distance of −gradient from strength·∂R(w), from the value alone wherever that can be.

For an entrywise penalty the distance is the steepest descent of gradient·u + R(u) at w over the two directions,
by one-sided numerical derivatives; that needs no formula of the subdifferential.
"""

from collections.abc import Callable

import numpy as np

from .constraints import distance_from_polytope

Array = np.ndarray
Entries = Callable[[Array, float], Array]

WIDTH = np.longdouble(2e-4)
FORWARD = np.array([-25 / 12, 4.0, -3.0, 4 / 3, -1 / 4])


def finite_difference(value: Callable[[Array], float], w: Array) -> Array:
    """∇value(w) by the five-point central stencil in float64; w must be away from kinks and knots."""
    width = 1e-3
    result = np.zeros_like(w)
    for index in np.ndindex(w.shape):
        at = []
        for offset in (-2, -1, 1, 2):
            moved = w.copy()
            moved[index] += offset * width
            at.append(value(moved))
        result[index] = (at[0] - 8.0 * at[1] + 8.0 * at[2] - at[3]) / (12.0 * width)
    return result


def separable(entries: Entries, w: Array, gradient: Array, strength: float) -> Array:
    """max(0, −(gradient·d + R'(w; d))) over d = ±1, entry by entry."""
    slopes = [
        gradient * direction + _one_sided(lambda u: entries(u, strength), w.astype(np.longdouble), direction)
        for direction in (-1.0, 1.0)
    ]
    return np.maximum(0.0, -np.minimum(*slopes)).astype(np.float64)


def _one_sided(function: Callable[[Array], Array], w: Array, direction: float) -> Array:
    return np.sum([c * function(w + k * direction * WIDTH) for k, c in enumerate(FORWARD)], axis=0) / WIDTH


def smooth(value: Callable[[Array, float], float], w: Array, gradient: Array, strength: float) -> Array:
    return np.abs(gradient + finite_difference(lambda u: value(u, strength), w))


def grouped(w: Array, gradient: Array, strength: float, labels: Array, factors: Array, l1_ratio: float = 0.0) -> Array:
    """One distance a group, and one more for the entries of no group.

    At w_g = 0 the subdifferential is a box A plus a ball, and dist(x, A + ball) = max(0, dist(x, A) − radius);
    elsewhere it is a box around the group norm's gradient, flat where the entry is not zero.
    """
    distances = []
    for group, factor in enumerate(factors):
        x, members = -gradient[labels == group], w[labels == group]
        length = np.sqrt(members @ members)
        if np.isinf(factor):
            distances.append(0.0 if length == 0 else np.inf)
            continue
        middle = np.zeros_like(x) if length == 0 else strength * (1.0 - l1_ratio) * factor * members / length
        low = middle + strength * l1_ratio * np.where(members > 0, 1.0, -1.0)
        high = middle + strength * l1_ratio * np.where(members < 0, -1.0, 1.0)
        from_box = np.linalg.norm(x - np.clip(x, low, high))
        radius = strength * (1.0 - l1_ratio) * factor if length == 0 else 0.0
        distances.append(max(0.0, from_box - radius))
    if np.any(labels < 0):
        distances.append(np.linalg.norm(gradient[labels < 0]))
    return np.asarray(distances)


def nuclear(w: Array, gradient: Array, strength: float, weight: float = 1.0) -> Array:
    """∂‖W‖_* = {UVᵀ + U⊥ Z V⊥ᵀ, ‖Z‖₂ <= 1}: the singular values of the corner U⊥ᵀ(−G)V⊥ are clipped."""
    matrix, x = w.reshape(-1, w.shape[-1]), -gradient.reshape(-1, w.shape[-1])
    left, singular, right = np.linalg.svd(matrix, full_matrices=True)
    rank = int(np.sum(singular > 1e-9))
    nearest = left[:, :rank] @ right[:rank] * strength * weight
    corner = left[:, rank:].T @ x @ right[rank:].T
    if corner.size:
        u, s, v = np.linalg.svd(corner, full_matrices=False)
        nearest = nearest + left[:, rank:] @ ((u * np.minimum(s, strength * weight)) @ v) @ right[rank:]
    return np.asarray(np.linalg.norm(x - nearest))


def smallest_stationary(distance: Callable[[float], float]) -> float:
    """The smallest strength whose distance is zero, by bisection."""
    low, high = 0.0, 1.0
    while distance(high) > 1e-12:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if distance(middle) > 1e-12 else (low, middle)
    return high


def total_variation(w: Array, gradient: Array, strength: float, axis: int, weights: Array | float = 1.0) -> Array:
    """s∂R(w) = {DᵀP}: p is s·c·sign(Dw) where that is not zero, and between −s·c and s·c elsewhere."""
    differences = np.diff(w, axis=axis)
    prices = strength * np.broadcast_to(weights, differences.shape)

    def farthest(direction: Array) -> Array:
        signs = np.where(differences != 0, np.sign(differences), np.sign(np.diff(direction, axis=axis)))
        flow = np.moveaxis(prices * signs, axis, -1)
        nothing = np.zeros((*flow.shape[:-1], 1))
        back, ahead = np.concatenate([nothing, flow], -1), np.concatenate([flow, nothing], -1)
        return np.moveaxis(back - ahead, -1, axis)

    return distance_from_polytope(-gradient, farthest)


def slope(w: Array, gradient: Array, strength: float, alphas: Array) -> Array:
    """The vertex of s∂R(w) in a direction d is ∇R(w + ε·d): α by rank of |w|, equal ones by their growth along d."""
    sizes = np.abs(w).reshape(-1)

    def farthest(direction: Array) -> Array:
        d = direction.reshape(-1)
        growth = np.where(sizes > 0, np.sign(w.reshape(-1)) * d, np.abs(d))
        order = np.lexsort((-growth, -sizes))
        vertex = np.zeros(w.size)
        vertex[order] = strength * alphas
        return (vertex * np.where(sizes > 0, np.sign(w.reshape(-1)), np.sign(d))).reshape(w.shape)

    return distance_from_polytope(-gradient, farthest)
