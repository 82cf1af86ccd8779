"""The penalties' values in plain NumPy, written from the formulas of the papers (float64 or wider).

Entrywise ones return an array of u's shape, so that a brute-force search can run over many u at once. Weights c
are 0 for an entry that is not penalized and infinite for one held at zero, which counts 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def counted(weights: Any) -> Array:
    """Weights as they count in a value: a held entry (infinite) counts 0."""
    weights = np.asarray(1.0 if weights is None else weights, dtype=np.float64)
    return np.where(np.isinf(weights), 0.0, weights)


def l1(u: Array, strength: float, weights: Any = None) -> Array:
    return strength * counted(weights) * np.abs(u)


def l2(u: Array, strength: float, weights: Any = None) -> Array:
    return strength * counted(weights) * u * u


def elastic_net(u: Array, strength: float, l1: float, l2: float, weights: Any = None) -> Array:
    return strength * counted(weights) * (l1 * np.abs(u) + l2 * u * u)


def mcp(u: Array, strength: float, gamma: float, weights: Any = None) -> Array:
    """Zhang 2010, equation 2.2: the integral from 0 to |u| of (strength − x/γ)₊."""
    x = np.minimum(np.abs(u), gamma * strength)
    return counted(weights) * (strength * x - x * x / (2.0 * gamma))


def scad(u: Array, strength: float, gamma: float, weights: Any = None) -> Array:
    """Fan and Li 2001: the integral of s up to s, of (γs − x)/(γ − 1) up to γs, of 0 beyond."""
    flat = np.minimum(np.abs(u), strength)
    x = np.clip(np.abs(u), strength, gamma * strength)
    falling = (gamma * strength * (x - strength) - (x * x - strength * strength) / 2.0) / (gamma - 1.0)
    return counted(weights) * (strength * flat + falling)


def log_sum(u: Array, strength: float, epsilon: float, weights: Any = None) -> Array:
    return strength * counted(weights) * np.log1p(np.abs(u) / epsilon)


def l0(u: Array, strength: float, weights: Any = None) -> Array:
    return strength * counted(weights) * (u != 0)


def group_labels(shape: Sequence[int], groups: Any, axis: Any = None) -> Array:
    """Which group every entry belongs to; −1 for none."""
    named: dict[Any, int] = {"outputs": -1, "inputs": -2 if len(shape) > 1 else 0}
    if isinstance(groups, (str, int)):
        return np.indices(shape)[named[groups] if isinstance(groups, str) else groups]
    position = named["inputs"] if axis is None else named.get(axis, axis)
    along = np.indices(shape)[position]
    labels = np.full(shape, -1)
    for number, members in enumerate(groups):
        labels[np.isin(along, members)] = number
    return labels


def group_factors(labels: Array, weights: Any = None) -> Array:
    """c_g: the weights as given, else √(size of the group)."""
    if weights is not None:
        return np.asarray(weights, dtype=np.float64)
    return np.sqrt([np.sum(labels == group) for group in range(labels.max() + 1)])


def grouped(
    w: Array,
    strength: float,
    groups: Any,
    axis: Any = None,
    weights: Any = None,
    l1_ratio: float = 0.0,
) -> float:
    """`of_groups` of slices along an axis."""
    labels = group_labels(w.shape, groups, axis)
    return of_groups(w, strength, labels, group_factors(labels, weights), l1_ratio)


def of_groups(w: Array, strength: float, labels: Array, factors: Array, l1_ratio: float = 0.0) -> float:
    """s Σ_g (ρ Σ|w_g| + (1 − ρ) c_g‖w_g‖): group lasso at ρ = 0; held groups count 0."""
    total = 0.0
    for group, factor in enumerate(factors):
        if np.isfinite(factor):
            members = w[labels == group]
            total += l1_ratio * np.abs(members).sum() + (1.0 - l1_ratio) * factor * np.sqrt(members @ members)
    return strength * total


def nuclear(w: Array, strength: float, weight: float = 1.0) -> float:
    return strength * weight * float(np.linalg.norm(w.reshape(-1, w.shape[-1]), "nuc"))


def orthogonal(w: Array, strength: float, weight: float = 1.0) -> float:
    """‖WᵀW − I‖_F² for tall W, ‖WWᵀ − I‖_F² for wide W."""
    matrix = w.reshape(-1, w.shape[-1])
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    return strength * weight * np.sum((gram - np.eye(len(gram))) ** 2)


def coherence(w: Array, strength: float, mode: str, weight: float = 1.0) -> float:
    """The mean over pairs of |cos|; a row of zeros has cosine 0 with every other."""
    rows = w if mode == "rows" else w.T
    cosines = []
    for i in range(len(rows)):
        for j in range(i):
            lengths = np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])
            cosines.append(0.0 if lengths == 0 else abs(rows[i] @ rows[j]) / lengths)
    return strength * weight * float(np.mean(cosines))


def smoothness(w: Array, strength: float, axis: int, weights: Any = None) -> float:
    return strength * float(np.sum(counted(weights) * np.diff(w, axis=axis) ** 2))


def total_variation(w: Array, strength: float, axis: int, weights: Any = None) -> float:
    return strength * float(np.sum(counted(weights) * np.abs(np.diff(w, axis=axis))))


def means_of_parts(w: Array, axis: int, weights: Any = None) -> Array:
    """The mean along the axis, or those of the parts that weights of 0 separate."""
    lines = np.moveaxis(w, axis, -1)
    means = np.empty(lines.shape)
    apart = np.moveaxis(np.broadcast_to(counted(weights), np.diff(w, axis=axis).shape) == 0, axis, -1)
    for index in np.ndindex(lines.shape[:-1]):
        part = np.cumsum(np.append(0, apart[index]))
        means[index] = (np.bincount(part, lines[index]) / np.bincount(part))[part]
    return np.moveaxis(means, -1, axis)


def slope(w: Array, strength: float, alphas: Array) -> float:
    """The largest Σ α_π(i)|w_i| over all orders π: the largest α belongs to the largest |w|."""
    return strength * float(np.sort(alphas) @ np.sort(np.abs(w), axis=None))


def benjamini_hochberg(count: int, q: float) -> Array:
    """Φ⁻¹(1 − iq/(2n)), which is −Φ⁻¹(iq/(2n))."""
    from scipy.stats import norm

    return -norm.ppf(np.arange(1, count + 1) * q / (2 * count))
