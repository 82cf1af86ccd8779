"""The table of penalties, CASES: a row for each of them and its variations; conformance and laws run over it.

A row pairs what makes poise's penalty with its independent references. A new penalty needs a row here, or
tests/penalties/test_conformance.py fails.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import poise

from . import constraints, peers, prox, subdifferential, values

Array = np.ndarray
Shape = tuple[int, ...]

MATRIX: Shape = (4, 3)
ANY_AXES: tuple[Shape, ...] = ((6,), MATRIX, (2, 1, 2, 4, 3))
FEW: tuple[Shape, ...] = (MATRIX, (2, 4, 3))

GENERIC = np.array([0.5, 1.0, 2.25])
MIXED = np.array([[0.0, 1.0, np.inf], [1.5, 0.0, 0.25], [np.inf, 2.0, 1.0], [1.0, 1.0, 0.0]])
BROKEN = np.array([[1.0, 0.0, 2.0], [0.0, 0.5, 1.0], [3.0, 1.0, 0.0]])
GROUPS_MIXED = np.array([0.0, np.inf, 1.5])
START = np.array([[0.5, -1.0, 0.25], [0.0, 2.0, -0.125], [1.0, 1.0, -1.5], [0.75, -0.5, 0.0]])
ROWS, COLUMNS = [[0, 2], [1]], [[2], [0]]


def nothing(shape: Shape) -> Array:
    return np.zeros(shape, dtype=bool)


@dataclass(frozen=True)
class Case:
    """One penalty: how poise makes it (from a strength), its references in NumPy, and what is true of it."""

    name: str
    make: Callable[[Any], poise.Penalty]
    value: Callable[[Array, float], float]
    distance: Callable[[Array, Array, float], Array]
    """(w, gradient, strength) to what `residual` must return."""
    prox: Callable[[Array, Array, float], tuple[Array, Array | bool]] | None
    """(w, step, strength) to the minimizer and which of its entries are beyond doubt."""
    shapes: Sequence[Shape]
    metric: str | None = "diagonal"
    smooth: bool = False
    convex: bool = True
    homogeneous: bool = False
    """R(t·w) = t·R(w) for t > 0."""
    grows: bool = False
    """Its slope has no bound: squares."""
    pulls_to_one: bool = False
    """A quartic with its minimum not at zero: the weights have a scale of their own."""
    has_critical: bool = True
    constrains: bool = False
    """0 on a set, infinite elsewhere."""
    ignores_steps: bool = False
    """Its projection is the one for equal steps."""
    knots: Sequence[float] = (0.0,)
    """Sizes of an entry where the value is not smooth, in units of the strength."""
    entries: Callable[[Array, float], Array] | None = None
    """The penalty of every entry, where it is a sum over entries."""
    exchangeable: bool = False
    """A sum over entries that are all alike."""
    start: Array | float = 0.0
    held: Callable[[Shape], Array] = nothing
    free: Callable[[Shape], Array] = nothing
    balanced: Callable[[Array], Array] = np.asarray
    """The part of a prediction gradient at zero that some strength balances, of a gradient that is 0 where free."""
    peer_prox: peers.Prox | None = None
    peer_shapes: Sequence[Shape] | None = None
    peer_distance: peers.Distance | None = None
    peer_critical: Callable[[Array], float] | None = None

    def __repr__(self) -> str:
        return self.name

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How Hypothesis shows a failing case."""
        printer.text(self.name)


SMOOTH: Mapping[str, Any] = {"smooth": True, "has_critical": False, "knots": (), "grows": True}


def entrywise(
    name: str, kind: Callable, entries: Callable, shapes: Sequence[Shape] = FEW, *, weights: Any = None,
    parameters: Mapping[str, float] | None = None, start: Array | float = 0.0, **facts: Any,
) -> Case:  # fmt: skip
    """A sum over entries: entries(u, strength, weights=..., **parameters) is the penalty of each."""
    parameters = parameters or {}
    factors = np.asarray(1.0 if weights is None else weights)

    def priced(u: Array, strength: float) -> Array:
        return entries(u - start, strength, weights=weights, **parameters)

    def make(strength: Any) -> poise.Penalty:
        penalty = kind(strength=strength, factors=weights, **parameters)
        return penalty if np.ndim(start) == 0 else poise.Anchored(penalty, start=start)

    def brute_force(w: Array, step: Array, strength: float) -> tuple[Array, Array]:
        result, decided = prox.separable(priced, w, step, strength, kink=start)
        held = np.broadcast_to(np.isinf(factors), w.shape)
        return np.where(held, 0.0, result), decided | held

    def distance(w: Array, gradient: Array, strength: float) -> Array:
        near = subdifferential.separable(priced, w, gradient, strength)
        return np.where(np.isinf(factors), np.where(w == 0, 0.0, np.inf), near)

    return Case(
        name,
        make,
        value=lambda w, strength: float(np.sum(priced(w, strength))),
        distance=distance,
        prox=brute_force,
        shapes=shapes,
        entries=priced,
        exchangeable=weights is None and np.ndim(start) == 0,
        start=start,
        held=lambda shape: np.broadcast_to(np.isinf(factors), shape),
        free=lambda shape: np.broadcast_to(factors == 0, shape),
        **facts,
    )


def of_groups(
    name: str,
    make: Callable[[Any], poise.Penalty],
    described: Callable[[Shape], tuple[Array, Array]],
    shapes: Sequence[Shape],
    *,
    ratio: float = 0.0,
    start: Array | float = 0.0,
    **facts: Any,
) -> Case:
    """A penalty of groups: `described` gives for a shape the group of each entry, −1 for none, and the factors."""

    def entries_of(shape: Shape, of_these: Callable[[Array], Array]) -> Array:
        labels, factors = described(shape)
        return (labels >= 0) & of_these(factors)[np.maximum(labels, 0)]

    def free(shape: Shape) -> Array:
        unpriced = entries_of(shape, lambda factors: factors == 0) if ratio == 0 else nothing(shape)
        return (described(shape)[0] < 0) | unpriced

    return Case(
        name,
        make,
        value=lambda w, s: values.of_groups(w - start, s, *described(w.shape), ratio),
        distance=lambda w, g, s: subdifferential.grouped(w - start, g, s, *described(w.shape), ratio),
        prox=lambda w, h, s: (start + prox.grouped(w - start, h, s, *described(w.shape), ratio), True),
        shapes=shapes,
        homogeneous=np.ndim(start) == 0,
        start=start,
        held=lambda shape: entries_of(shape, np.isinf),
        free=free,
        **facts,
    )


def groupwise(
    name: str, groups: Any, shapes: Sequence[Shape] = FEW, *, axis: int | None = None, weights: Any = None,
    l1_ratio: float | None = None, start: Array | float = 0.0, **facts: Any,
) -> Case:  # fmt: skip
    """GroupLasso, or with an l1_ratio SparseGroupLasso."""

    def make(strength: Any) -> poise.Penalty:
        if l1_ratio is None:
            penalty = poise.GroupLasso(strength, groups=groups, axis=axis, factors=weights)
        else:
            penalty = poise.SparseGroupLasso(strength, l1_ratio, groups=groups, axis=axis, factors=weights)
        return penalty if np.ndim(start) == 0 else poise.Anchored(penalty, start=start)

    def described(shape: Shape) -> tuple[Array, Array]:
        labels = values.group_labels(shape, groups, axis)
        return labels, values.group_factors(labels, weights)

    return of_groups(name, make, described, shapes, ratio=l1_ratio or 0.0, start=start, **facts)


def joint(name: str, members: Mapping[str, tuple], labels: Sequence[int], weights: Any = None) -> Case:
    """JointGroupLasso; `labels` are the groups of its 12 entries, written out."""

    def described(shape: Shape) -> tuple[Array, Array]:
        of_entries = np.reshape(labels, shape)
        return of_entries, values.group_factors(of_entries, weights)

    def make(strength: Any) -> poise.Penalty:
        return poise.JointGroupLasso(strength, members, weights)

    return of_groups(f"JointGroupLasso-{name}", make, described, (MATRIX, (12,)))


def spectral(name: str, kind: Callable, value: Callable, of_one: Callable, weight: float | None = None,
             distance: Callable | None = None, **facts: Any) -> Case:  # fmt: skip
    """of_one(singular value, strength) is its share."""
    factor = 1.0 if weight is None else weight
    weighted = partial(value, weight=factor)
    return Case(
        name,
        make=lambda s: kind(s, factors=weight),
        value=weighted,
        distance=partial(distance, weight=factor) if distance else partial(subdifferential.smooth, weighted),
        prox=lambda w, h, s: (prox.spectral(lambda u, s: factor * of_one(u, s), w, h, s), True),
        shapes=ANY_AXES[1:],
        metric="scalar",
        **facts,
    )


def coherence(mode: str, weight: float | None = None) -> Case:
    value = partial(values.coherence, mode=mode, weight=1.0 if weight is None else weight)
    return Case(
        f"MutualCoherence-{mode}",
        make=lambda s: poise.MutualCoherence(s, mode=mode, factors=weight),
        value=value,
        distance=partial(subdifferential.smooth, value),
        prox=None,
        shapes=(MATRIX, (3, 4)),
        metric=None,
        convex=False,
        has_critical=False,
    )


def smoothness(name: str, axis: int, shapes: Sequence[Shape], weights: Any = None, **facts: Any) -> Case:
    value = partial(values.smoothness, axis=axis, weights=weights)
    return Case(
        name,
        make=lambda s: poise.Smoothness(s, axis=axis, factors=weights),
        value=value,
        distance=partial(subdifferential.smooth, value),
        prox=lambda w, h, s: (prox.smoothness(w, h, s, axis, weights), True),
        shapes=shapes,
        **SMOOTH,
        **facts,
    )


def constraint(
    name: str,
    make: Callable[[Any], poise.Penalty],
    is_violated: Callable[[Array, float], Array],
    nearest: Callable[[Array, Array, float], Array],
    distance: Callable[[Array, Array, float], Array],
    shapes: Sequence[Shape] = FEW,
    **facts: Any,
) -> Case:
    """0 where nothing is violated, infinite elsewhere."""
    return Case(
        name,
        make,
        value=lambda w, s: np.inf if np.any(is_violated(w, s)) else 0.0,
        distance=distance,
        prox=lambda w, h, s: (nearest(w, h, s), True),
        shapes=shapes,
        **{"has_critical": False, "constrains": True, **facts},
    )


def bounds(name: str, make: Callable[[Any], poise.Penalty], lower: Any, upper: Any, **facts: Any) -> Case:
    def distance(w: Array, gradient: Array, strength: float) -> Array:
        """How far the nearest allowed point to w − t·gradient moves, per t."""
        moved = constraints.nearest_in_bounds(w - 1e-6 * gradient, lower, upper)
        wrong = constraints.violates_bounds(w, lower, upper)
        return np.where(wrong, np.inf, np.abs(moved - w) / 1e-6)

    violated, nearest = constraints.violates_bounds, constraints.nearest_in_bounds
    return constraint(
        name,
        make,
        lambda w, s: violated(w, lower, upper),
        lambda w, h, s: nearest(w, lower, upper),
        distance,
        **facts,
    )


def counted(
    name: str,
    make: Callable[[Any], poise.Penalty],
    described: Callable[[Shape, float], tuple[Array, int]],
    **facts: Any,
) -> Case:
    """`described` gives for a shape and a strength the group of each entry, and how many of a group are kept."""

    def distance(w: Array, gradient: Array, strength: float) -> Array:
        about = described(w.shape, strength)
        wrong = constraints.violates_count(w, *about)
        if wrong.any():
            whole = np.isin(about[0], about[0][wrong])
            return np.where(wrong, np.inf, np.where(whole, 0.0, distance(np.where(whole, 0, w), gradient, strength)))
        return np.where(constraints.free_with_count(w, *about), np.abs(gradient), 0.0)

    return constraint(
        name,
        make,
        lambda w, s: constraints.violates_count(w, *described(w.shape, s)),
        lambda w, h, s: constraints.nearest_with_count(w, *described(w.shape, s)),
        distance,
        convex=False,
        ignores_steps=True,
        **facts,
    )


def counted_groups(
    name: str, make: Callable[[Any], poise.Penalty], groups: Any, count_of: Callable[[int, float], int], **facts: Any
) -> Case:
    """`count_of` gives for a number of groups and a strength how many are kept. A norm per group decides."""

    def of_norms(w: Array, oracle: Callable[..., Array], strength: float) -> tuple[Array, Array]:
        """What an oracle of single entries returns for the norms, and the group of each entry."""
        labels = values.group_labels(w.shape, groups)
        norms = np.array([np.linalg.norm(w[members]) for members in constraints.groups_of(labels)])
        return oracle(norms, np.zeros(norms.shape, int), count_of(len(norms), strength)), labels

    def is_violated(w: Array, strength: float) -> Array:
        wrong, labels = of_norms(w, constraints.violates_count, strength)
        return np.append(wrong, False)[labels]

    def nearest(w: Array, step: Array, strength: float) -> Array:
        norms, labels = of_norms(w, constraints.nearest_with_count, strength)
        return np.where(np.append(norms > 0, True)[labels], w, 0.0)

    def distance(w: Array, gradient: Array, strength: float) -> Array:
        free, labels = of_norms(w, constraints.free_with_count, strength)
        away = np.where(np.append(free, True)[labels], np.abs(gradient), 0.0)
        return np.where(is_violated(w, strength), np.inf, away)

    return constraint(name, make, is_violated, nearest, distance, convex=False, ignores_steps=True, **facts)


def _bounds() -> list[Case]:
    column = np.array([[-np.inf], [0.0], [0.25], [-1.0]])
    ceiling = np.array([0.5, 0.5, np.inf])
    both = {"peer_prox": peers.prox_box(0.25, 1.5)}
    return [
        bounds("NonNegative", lambda s: poise.NonNegative(), 0.0, np.inf, shapes=ANY_AXES,
               peer_distance=peers.distance_positive(), peer_prox=peers.prox_box(0.0, np.inf)),
        bounds("Box", lambda s: poise.Box(-0.5, 0.75), -0.5, 0.75, shapes=ANY_AXES),
        bounds("Box-without-zero", lambda s: poise.Box(0.25, 1.5), 0.25, 1.5, **both),
        bounds("Box-one-side", lambda s: poise.Box(upper=-0.25), -np.inf, -0.25),
        bounds("Box-arrays", lambda s: poise.Box(column, ceiling), column, ceiling, shapes=(MATRIX,)),
        bounds("Box-of-a-point", lambda s: poise.Box(0.5, 0.5), 0.5, 0.5),
    ]  # fmt: skip


def _counts() -> list[Case]:
    few = ((6,), MATRIX, (2, 2, 3))

    def top(name: str) -> Case:
        def described(shape: Shape, sparsity: float) -> tuple[Array, int]:
            size = int(np.prod(shape))
            return np.zeros(shape, int), size - round(min(sparsity, 1.0) * size)

        return counted(name, lambda s: poise.TopK(s if callable(s) else min(s, 1.0)), described, shapes=few)

    def n_of_m(name: str, n: int, m: int, axis: Any, position: int, shapes: Sequence[Shape]) -> Case:
        def described(shape: Shape, strength: float) -> tuple[Array, int]:
            return constraints.blocks(shape, position if len(shape) > 1 else 0, m), n

        return counted(name, lambda s: poise.NofM(n, m, axis), described, shapes=shapes)

    def top_groups(name: str, groups: Any, shapes: Sequence[Shape]) -> Case:
        def make(s: Any) -> poise.Penalty:
            return poise.TopK(s if callable(s) else min(s, 1.0), groups)

        def count_of(groups: int, sparsity: float) -> int:
            return groups - round(min(sparsity, 1.0) * groups)

        return counted_groups(name, make, groups, count_of, shapes=shapes)

    return [
        top("TopK"),
        top_groups("TopK-outputs", "outputs", FEW),
        top_groups("TopK-inputs", "inputs", ANY_AXES),
        top_groups("TopK-lists", ROWS, ANY_AXES),
        n_of_m("NofM", 2, 4, "inputs", -2, (MATRIX, (8,), (2, 4, 3))),
        n_of_m("NofM-1-of-3", 1, 3, "outputs", -1, (MATRIX, (2, 4, 3))),
        n_of_m("NofM-axis", 1, 2, 0, 0, (MATRIX,)),
    ]


def _units() -> list[Case]:
    def max_norm(name: str, largest: float, groups: Any, shapes: Sequence[Shape] = FEW, **facts: Any) -> Case:
        labels = partial(values.group_labels, groups=groups)
        return constraint(
            name,
            lambda s: poise.MaxNorm(largest, groups),
            lambda w, s: constraints.violates_norm(w, labels(w.shape), largest),
            lambda w, h, s: constraints.nearest_in_balls(w, h, labels(w.shape), largest),
            lambda w, g, s: constraints.distance_from_balls(w, g, labels(w.shape), largest),
            shapes,
            **facts,
        )

    def simplex(
        name: str, radius: float, axis: Any, position: int, shapes: Sequence[Shape] = FEW, **facts: Any
    ) -> Case:
        def labels(w: Array) -> Array:
            place = position if w.ndim > 1 else 0
            return constraints.blocks(w.shape, place, w.shape[place])

        return constraint(
            name,
            lambda s: poise.Simplex(radius, axis),
            lambda w, s: constraints.violates_simplex(w, labels(w), radius),
            lambda w, h, s: constraints.nearest_in_simplices(w, h, labels(w), radius),
            lambda w, g, s: constraints.distance_from_simplices(w, g, labels(w), radius),
            shapes,
            **facts,
        )

    vector = {"peer_prox": peers.prox_simplex_of_a_vector(2.0), "peer_shapes": ((6,),)}
    return [
        max_norm("MaxNorm", 1.5, "outputs", ANY_AXES, peer_prox=peers.prox_balls_of_outputs(1.5)),
        max_norm("MaxNorm-inputs", 0.75, "inputs"),
        max_norm("MaxNorm-lists", 0.75, ROWS, ANY_AXES),
        simplex("Simplex", 2.0, "inputs", -2, ANY_AXES, **vector),
        simplex("Simplex-outputs", 1.0, "outputs", -1),
        simplex("Simplex-axis", 1.0, 0, 0),
    ]


def _total_variation() -> list[Case]:
    def row(name: str, axis: int, shapes: Sequence[Shape], weights: Any = None, **facts: Any) -> Case:
        priced: Any = 1.0 if weights is None else weights
        return Case(
            name,
            make=lambda s: poise.TotalVariation(s, axis, weights),
            value=partial(values.total_variation, axis=axis, weights=weights),
            distance=partial(subdifferential.total_variation, axis=axis, weights=priced),
            prox=lambda w, h, s: (prox.total_variation(w, h, s, axis, weights), True),
            shapes=shapes,
            homogeneous=True,
            balanced=lambda g: g - values.means_of_parts(g, axis, weights),
            **facts,
        )

    peer = {"peer_prox": peers.prox_total_variation_of_a_vector(), "peer_shapes": ((6,),)}
    return [
        row("TotalVariation", 0, ANY_AXES, **peer),
        row("TotalVariation-last-axis", -1, FEW),
        row("TotalVariation-weights", 0, (MATRIX,), np.where(BROKEN == 0, 0.25, BROKEN)),
        row("TotalVariation-free", 0, (MATRIX,), BROKEN),
    ]


def _slope() -> list[Case]:
    def row(name: str, alphas_of: Callable[[int], Array], shapes: Sequence[Shape] = FEW, **parameters: Any) -> Case:
        def alphas(w: Array) -> Array:
            return alphas_of(w.size)

        return Case(
            name,
            make=lambda s: poise.Slope(s, **parameters),
            value=lambda w, s: values.slope(w, s, alphas(w)),
            distance=lambda w, g, s: subdifferential.slope(w, g, s, alphas(w)),
            prox=lambda w, h, s: (prox.slope(w, h, s, alphas(w)), True),
            shapes=shapes,
            metric="scalar",
            homogeneous=True,
            peer_prox=peers.prox_slope(alphas_of),
        )

    def oscar(count: int) -> Array:
        return 0.5 + 0.25 * np.arange(count)[::-1]

    return [
        row("Slope", partial(values.benjamini_hochberg, q=0.1), ((6,), MATRIX)),
        row("Slope-q", partial(values.benjamini_hochberg, q=0.5), q=0.5),
        row("Slope-oscar", oscar, (MATRIX,), alphas=oscar(12)),
        row("Slope-l1", np.ones, (MATRIX,), alphas=np.ones(12)),
    ]


def _l1() -> list[Case]:
    row = partial(entrywise, kind=poise.L1, entries=values.l1, homogeneous=True)
    return [
        row(
            "L1",
            shapes=ANY_AXES,
            peer_prox=peers.prox_l1(),
            peer_distance=peers.distance_l1(),
            peer_critical=peers.critical_l1(),
        ),
        row(
            "L1-weights",
            weights=GENERIC,
            peer_prox=peers.prox_l1(GENERIC),
            peer_distance=peers.distance_l1(GENERIC),
            peer_critical=peers.critical_l1(GENERIC),
        ),
        row("L1-held-and-free", weights=MIXED),
    ]


def _l2() -> list[Case]:
    row = partial(entrywise, kind=poise.L2, entries=values.l2, **SMOOTH)
    return [
        row("L2", shapes=ANY_AXES, peer_prox=peers.prox_l2()),
        row("L2-weights", weights=GENERIC),
        row("L2-held-and-free", weights=MIXED),
    ]


def _elastic_net() -> list[Case]:
    def row(name: str, l1: float, l2: float, **facts: Any) -> Case:
        facts = {"parameters": {"l1": l1, "l2": l2}, "grows": l2 > 0, **facts}
        return entrywise(name, poise.ElasticNet, values.elastic_net, **facts)

    def beside_skglm(name: str, l1: float, l2: float) -> Case:
        distance, critical = peers.distance_elastic_net(l1, l2), peers.critical_elastic_net(l1)
        return row(name, l1, l2, peer_distance=distance, peer_critical=critical)

    return [
        beside_skglm("ElasticNet", 1.0, 0.5),
        beside_skglm("ElasticNet-mostly-l2", 0.125, 2.0),
        row("ElasticNet-without-l2", 0.5, 0.0, homogeneous=True, peer_prox=peers.prox_l1(0.5)),
        row("ElasticNet-without-l1", 0.0, 0.5, **SMOOTH),
        row("ElasticNet-held-and-free", 0.5, 0.25, weights=MIXED),
    ]


def _mcp() -> list[Case]:
    def row(name: str, gamma: float, **facts: Any) -> Case:
        facts = {"convex": False, "knots": (0.0, gamma), "parameters": {"gamma": gamma}, **facts}
        return entrywise(name, poise.MCP, values.mcp, **facts)

    return [
        row(
            "MCP",
            3.0,
            shapes=ANY_AXES,
            peer_prox=peers.prox_mcp(3.0),
            peer_distance=peers.distance_mcp(3.0),
            peer_critical=peers.critical_mcp(3.0),
        ),
        row("MCP-sharp", 1.125, peer_distance=peers.distance_mcp(1.125)),
        row(
            "MCP-weights",
            3.0,
            weights=GENERIC,
            peer_distance=peers.distance_mcp(3.0, GENERIC),
            peer_critical=peers.critical_mcp(3.0, GENERIC),
        ),
        row("MCP-held-and-free", 2.0, weights=MIXED),
    ]


def _scad() -> list[Case]:
    def row(name: str, gamma: float, **facts: Any) -> Case:
        facts = {"convex": False, "knots": (0.0, 1.0, gamma), "parameters": {"gamma": gamma}, **facts}
        return entrywise(name, poise.SCAD, values.scad, **facts)

    peer_prox, peer_distance = peers.prox_scad(3.75), peers.distance_scad(3.75)
    return [
        row("SCAD", 3.75, shapes=ANY_AXES, peer_prox=peer_prox, peer_distance=peer_distance),
        row("SCAD-sharp", 2.25, peer_distance=peers.distance_scad(2.25)),
        row("SCAD-weights", 3.75, weights=GENERIC),
        row("SCAD-held-and-free", 3.0, weights=MIXED),
    ]


def _log_sum() -> list[Case]:
    def row(name: str, epsilon: float, **facts: Any) -> Case:
        facts = {"convex": False, "parameters": {"epsilon": epsilon}, **facts}
        return entrywise(name, poise.LogSum, values.log_sum, **facts)

    def beside_others(name: str, epsilon: float) -> Case:
        peer_prox, peer_distance = peers.prox_log_sum(epsilon), peers.distance_log_sum(epsilon)
        return row(name, epsilon, peer_prox=peer_prox, peer_distance=peer_distance)

    return [
        beside_others("LogSum", 1.0),
        beside_others("LogSum-sharp", 0.125),
        row("LogSum-weights", 0.5, weights=GENERIC),
        row("LogSum-held-and-free", 0.5, weights=MIXED),
    ]


def _l0() -> list[Case]:
    row = partial(entrywise, kind=poise.L0, entries=values.l0, convex=False, has_critical=False)
    return [
        row("L0", shapes=ANY_AXES, peer_prox=peers.prox_l0()),
        row("L0-weights", weights=GENERIC),
        row("L0-held-and-free", weights=MIXED),
    ]


def _group_lasso() -> list[Case]:
    def row(name: str, groups: Any, shapes: Sequence[Shape] = FEW, **facts: Any) -> Case:
        described = {key: facts[key] for key in ("axis", "weights") if key in facts}
        beside = {"peer_distance": peers.distance_groups(groups, **described), **facts}
        return groupwise(f"GroupLasso-{name}", groups, shapes, **beside)

    return [
        row("outputs", "outputs", ANY_AXES, peer_prox=peers.prox_outputs),
        row("inputs", "inputs", ANY_AXES),
        row("axis", 0),
        row("negative-axis", -2),
        row("lists", ROWS, ANY_AXES),
        row("lists-of-one", [[0], [1], [2], [3]]),
        row("lists-along-an-axis", COLUMNS, axis=-1),
        row("weights", "outputs", weights=GENERIC),
        row("held-and-free", "outputs", weights=GROUPS_MIXED, peer_distance=None),
    ]


def _sparse_group_lasso() -> list[Case]:
    def row(name: str, ratio: float, groups: Any = "outputs", shapes: Sequence[Shape] = FEW, **facts: Any) -> Case:
        return groupwise(f"SparseGroupLasso-{name}", groups, shapes, l1_ratio=ratio, **facts)

    return [
        row("outputs", 0.5, shapes=ANY_AXES),
        row("inputs", 0.25, "inputs"),
        row("lists", 0.5, ROWS),
        row("unit-weights", 0.75, weights=np.ones(3), peer_prox=peers.prox_sparse_outputs(0.75)),
        row("all-l1", 1.0, peer_prox=peers.prox_l1()),
        row("all-group", 0.0, peer_prox=peers.prox_outputs),
        row("held-and-free", 0.5, weights=GROUPS_MIXED),
    ]


def _joint_group_lasso() -> list[Case]:
    columns = {"a/kernel": ((3, 3), 1, [0, 1, 2]), "a/bias": ((3,), 0, [0, 1, 2])}
    crossed = {"a/kernel": ((2, 3), 1, [1, -1, 0]), "a/bias": ((2,), -1, [2, 1]), "b/kernel": ((2, 1, 2), 0, [0, -1])}
    return [
        joint("columns", columns, [0, 1, 2] * 4),
        joint("crossed", crossed, [1, -1, 0, 1, -1, 0, 2, 1, 0, 0, -1, -1]),
        joint("weights", columns, [0, 1, 2] * 4, GENERIC),
        joint("held-and-free", columns, [0, 1, 2] * 4, GROUPS_MIXED),
    ]


def _matrices() -> list[Case]:
    def nuclear(name: str, weight: float | None) -> Case:
        known = {"distance": subdifferential.nuclear, "peer_prox": peers.prox_nuclear(weight or 1.0)}
        share = values.l1
        return spectral(name, poise.NuclearNorm, values.nuclear, share, weight, homogeneous=True, **known)

    def orthogonal(name: str, weight: float | None) -> Case:
        def share(u: Array, strength: float) -> Array:
            return strength * (u * u - 1.0) ** 2

        facts = {**SMOOTH, "convex": False, "pulls_to_one": True}
        return spectral(name, poise.Orthogonal, values.orthogonal, share, weight, **facts)

    return [
        nuclear("NuclearNorm", None),
        nuclear("NuclearNorm-weight", 2.5),
        orthogonal("Orthogonal", None),
        orthogonal("Orthogonal-weight", 0.25),
        coherence("rows"),
        coherence("columns", 2.0),
    ]


def _shapes() -> list[Case]:
    anchored = partial(entrywise, shapes=(MATRIX,), start=START)
    line = {"peer_prox": peers.prox_smoothness_of_a_vector, "peer_shapes": ((6,),)}
    concave = {"parameters": {"gamma": 3.0}, "convex": False, "knots": (0.0, 3.0)}
    return [
        smoothness("Smoothness", 0, ANY_AXES, **line),
        smoothness("Smoothness-last-axis", -1, FEW),
        smoothness("Smoothness-weights", 0, (MATRIX,), BROKEN),
        anchored("Anchored-L1", poise.L1, values.l1, peer_prox=peers.prox_l1(start=START)),
        anchored("Anchored-L2", poise.L2, values.l2, peer_prox=peers.prox_l2(START), **SMOOTH),
        anchored("Anchored-L1-weights", poise.L1, values.l1, weights=GENERIC),
        anchored("Anchored-MCP", poise.MCP, values.mcp, **concave),
        groupwise("Anchored-GroupLasso", "inputs", (MATRIX,), start=START),
    ]


CASES: list[Case] = [
    *_l1(),
    *_l2(),
    *_elastic_net(),
    *_mcp(),
    *_scad(),
    *_log_sum(),
    *_l0(),
    *_group_lasso(),
    *_sparse_group_lasso(),
    *_joint_group_lasso(),
    *_matrices(),
    *_shapes(),
    *_total_variation(),
    *_slope(),
    *_bounds(),
    *_counts(),
    *_units(),
]
WITH_PROX = [case for case in CASES if case.prox is not None]
CONVEX = [case for case in WITH_PROX if case.convex]
ONE_EACH = list({type(case.make(1.0)): case for case in reversed(CASES)}.values())
VARIED = [*ONE_EACH, *(case for case in CASES if case not in ONE_EACH and re.search("held|lists|without", case.name))]
"""One row per penalty, and those in which entries or groups are held, free or listed."""
