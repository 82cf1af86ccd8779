"""The same penalties in other libraries: pyproximal's proximal operators, skglm's distances and strengths.

Conventions. pyproximal: L2 is σ/2‖x‖² (ours s‖x‖²: σ = 2s); Log is σ/log(γ + 1)·log(γ|x| + 1) (γ = 1/ε); L0
thresholds at τσ, where the operator of s‖x‖₀ thresholds at √(2τs); QuadraticEnvelopeCard(μ) is γ·MCP with
γs = √(2μ), so that the prox of MCP with step h is its prox with τ = h/γ; weights are known to L1 alone.
skglm: L1_plus_L2 halves the square, α(ρ|w| + (1 − ρ)w²/2), and its alpha_max forgets the factor ρ.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyproximal
from skglm import penalties as skglm

from . import values

Array = np.ndarray
Prox = Callable[[Array, float, float], Array]
Distance = Callable[[Array, Array, float], Array]


def _flat(operator: Callable[[Array, float, float], pyproximal.ProxOperator]) -> Prox:
    def prox(w: Array, step: float, strength: float) -> Array:
        return np.asarray(operator(w, step, strength).prox(w.reshape(-1), step)).reshape(w.shape)

    return prox


def prox_l1(weights: Any = 1.0, start: Array | None = None) -> Prox:
    """Weighted and anchored both: pyproximal takes σ as an array and g as the anchor."""

    def operator(w: Array, step: float, strength: float) -> pyproximal.L1:
        sigma = strength * np.broadcast_to(weights, w.shape).reshape(-1)
        return pyproximal.L1(sigma, g=None if start is None else start.reshape(-1))

    return _flat(operator)


def prox_l2(start: Array | None = None) -> Prox:
    return _flat(lambda w, h, s: pyproximal.L2(sigma=2.0 * s, b=None if start is None else start.reshape(-1)))


def prox_l0() -> Prox:
    return _flat(lambda w, h, s: pyproximal.L0(sigma=float(np.sqrt(2.0 * s / h))))


def prox_scad(gamma: float) -> Prox:
    return _flat(lambda w, h, s: pyproximal.SCAD(sigma=s, a=gamma))


def prox_mcp(gamma: float) -> Prox:
    def prox(w: Array, step: float, strength: float) -> Array:
        return pyproximal.QuadraticEnvelopeCard(mu=(gamma * strength) ** 2 / 2.0).prox(w, step / gamma)

    return prox


def prox_log_sum(epsilon: float) -> Prox:
    return _flat(lambda w, h, s: pyproximal.Log(sigma=s * np.log(1.0 / epsilon + 1.0), gamma=1.0 / epsilon))


def prox_outputs(w: Array, step: float, strength: float) -> Array:
    """GroupLasso over the last axis: pyproximal's L21 takes norms down the first axis of (size, groups)."""
    size = w.size // w.shape[-1]
    operator = pyproximal.L21(ndim=size, sigma=strength * np.sqrt(size))
    return operator.prox(w.reshape(-1), step).reshape(w.shape)


def prox_sparse_outputs(l1_ratio: float) -> Prox:
    """SparseGroupLasso over the last axis with unit group weights."""

    def prox(w: Array, step: float, strength: float) -> Array:
        operator = pyproximal.L21_plus_L1(sigma=strength, rho=l1_ratio)
        return operator.prox(w.reshape(-1, w.shape[-1]), step, axis=0).reshape(w.shape)

    return prox


def prox_nuclear(weight: float = 1.0) -> Prox:
    return _flat(lambda w, h, s: pyproximal.Nuclear((w.size // w.shape[-1], w.shape[-1]), sigma=s * weight))


def prox_smoothness_of_a_vector(w: Array, step: float, strength: float) -> Array:
    """σ/2‖Dx‖² with D the dense matrix of differences."""
    from pylops import MatrixMult

    operator = pyproximal.L2(
        MatrixMult(np.diff(np.eye(w.size), axis=0)),
        b=np.zeros(w.size - 1),
        sigma=2.0 * strength,
        densesolver="numpy",
    )
    return operator.prox(w, step)


def distance_entrywise(penalty: Callable[[float, Array], Any]) -> Distance:
    """penalty(strength, w) gives skglm's; entries are its features."""

    def distance(w: Array, gradient: Array, strength: float) -> Array:
        peer = penalty(strength, w)
        return peer.subdiff_distance(w.reshape(-1), gradient.reshape(-1), np.arange(w.size)).reshape(w.shape)

    return distance


def distance_l1(weights: Any = None) -> Distance:
    if weights is None:
        return distance_entrywise(lambda s, w: skglm.L1(s))
    return distance_entrywise(lambda s, w: skglm.WeightedL1(s, np.broadcast_to(weights, w.shape).reshape(-1)))


def distance_elastic_net(l1: float, l2: float) -> Distance:
    total = l1 + 2.0 * l2
    return distance_entrywise(lambda s, w: skglm.L1_plus_L2(s * total, l1 / total))


def distance_mcp(gamma: float, weights: Any = None) -> Distance:
    if weights is None:
        return distance_entrywise(lambda s, w: skglm.MCPenalty(s, gamma))
    return distance_entrywise(
        lambda s, w: skglm.WeightedMCPenalty(s, gamma, np.broadcast_to(weights, w.shape).reshape(-1))
    )


def distance_scad(gamma: float) -> Distance:
    return distance_entrywise(lambda s, w: skglm.SCAD(s, gamma))


def distance_log_sum(epsilon: float) -> Distance:
    return distance_entrywise(lambda s, w: skglm.LogSumPenalty(s, epsilon))


def distance_groups(groups: Any, axis: int | None = None, weights: Any = None) -> Distance:
    """One number a group; skglm knows no entries outside groups."""

    def distance(w: Array, gradient: Array, strength: float) -> Array:
        labels = values.group_labels(w.shape, groups, axis).reshape(-1)
        members = [np.flatnonzero(labels == group) for group in range(labels.max() + 1)]
        order = np.concatenate(members).astype(np.int32)
        starts = np.cumsum([0, *map(len, members)]).astype(np.int32)
        factors = values.group_factors(labels, weights)
        peer = skglm.WeightedGroupL2(strength, factors, starts, order)
        return peer.subdiff_distance(w.reshape(-1), gradient.reshape(-1)[order], np.arange(len(members)))

    return distance


def critical_l1(weights: Any = None) -> Callable[[Array], float]:
    def critical(gradient: Array) -> float:
        if weights is None:
            return float(skglm.L1(1.0).alpha_max(gradient.reshape(-1)))
        flat = np.broadcast_to(weights, gradient.shape).reshape(-1)
        return float(skglm.WeightedL1(1.0, flat).alpha_max(gradient.reshape(-1)))

    return critical


def critical_mcp(gamma: float, weights: Any = None) -> Callable[[Array], float]:
    def critical(gradient: Array) -> float:
        if weights is None:
            return float(skglm.MCPenalty(1.0, gamma).alpha_max(gradient.reshape(-1)))
        flat = np.broadcast_to(weights, gradient.shape).reshape(-1)
        return float(skglm.WeightedMCPenalty(1.0, gamma, flat).alpha_max(gradient.reshape(-1)))

    return critical


def critical_elastic_net(l1: float) -> Callable[[Array], float]:
    return lambda gradient: float(skglm.L1_plus_L2(1.0, 0.5).alpha_max(gradient.reshape(-1))) / l1


def prox_box(lower: float, upper: float) -> Prox:
    return _flat(lambda w, h, s: pyproximal.Box(lower, upper))


def prox_balls_of_outputs(largest: float) -> Prox:
    """Each column in pyproximal's EuclideanBall."""

    def prox(w: Array, step: float, strength: float) -> Array:
        columns = w.reshape(-1, w.shape[-1])
        ball = pyproximal.EuclideanBall(np.zeros(len(columns)), largest)
        return np.stack([ball.prox(column, step) for column in columns.T], axis=1).reshape(w.shape)

    return prox


def prox_simplex_of_a_vector(radius: float) -> Prox:
    return _flat(lambda w, h, s: pyproximal.Simplex(n=w.size, radius=radius, engine="numpy", maxiter=200, ftol=1e-14))


def prox_total_variation_of_a_vector() -> Prox:
    return _flat(lambda w, h, s: pyproximal.TV((w.size,), sigma=s, niter=20_000, rtol=1e-14))


def prox_slope(alphas: Callable[[int], Array]) -> Prox:
    def prox(w: Array, step: float, strength: float) -> Array:
        return skglm.SLOPE(strength * alphas(w.size)).prox_vec(w.reshape(-1), step).reshape(w.shape)

    return prox


def distance_positive() -> Distance:
    return distance_entrywise(lambda s, w: skglm.PositiveConstraint())
