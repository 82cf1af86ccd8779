"""A proximal quasi-Newton method whose lanes stay in step: one evaluation of loss and gradient per step and lane.

It minimizes F(w) = f(w) + R(w), where f is smooth and R is a sum over entries of w with kinks only at zero. With the
subgradient s of minimum norm, ∇f + ∇R away from the kinks, and the L-BFGS direction d = −H·s of the nonzero weights, a
step tries

    prox_{h·R}(w + t·d + h·(s − ∇f)),

which is w + t·d where no weight comes near zero, since s − ∇f = ∇R cancels the shift of the prox; weights that would
cross zero become exactly zero, and weights at zero leave it only against the penalty. H comes from the last pairs of
differences of w and of s, as inner products of 2·memory vectors, so that a step reads each of them twice. A trial is
accepted if F falls below the largest of its last values (nonmonotone, as the kinks of ReLU need it). A refused trial
also gives a pair, and the step becomes shorter. With an empty memory a step is a proximal gradient step.

References:
    Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization".
    Andrew and Gao 2007, "Scalable training of L1-regularized log-linear models" (the subgradient of minimum norm).
    Grippo, Lampariello and Lucidi 1986, "A nonmonotone line search technique for Newton's method".
    Chen et al. 2014, "Large-scale L-BFGS using MapReduce" (the two loops on inner products).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from poise.path.settling import MEMORY

WINDOW = 8
"""Objectives of accepted points, whose largest a trial must not exceed."""
SUFFICIENT = 1e-4
"""Share of the predicted decrease that a trial must reach (Armijo)."""
SHRINK = 0.3
"""Factor of the step after a refused trial."""
MOST_REFUSED = 6
"""Refused trials in a row, after which the memory is emptied."""
FIRST_STEP = 1e-3
"""Scale of the first direction and of the one after the memory is emptied, before there is curvature."""
WIDTH = 10.0
"""Step of the prox in units of the Barzilai-Borwein step: how far from zero weights still become zero."""
CURVED = 1e-4
"""Least cosine between the two differences of a pair that counts."""
PROBE = 1e-3
"""Step of the prox that finds the subgradient at zero."""
PATIENCE = 50
"""Steps without progress after which a lane stops."""
PROGRESS = (1e-6, 1e-2)
"""Smallest decrease of the lowest objective and of the lowest residual that counts as progress, relative."""


class Objective(NamedTuple):
    """Functions of the flat weights w of a lane.

    Attributes:
        smooth: returns (f(w), ∇f(w)).
        penalty: returns R(w).
        force: returns ∇R(w); 0 at a kink.
        prox: returns prox_{h·R}(w) of (w, h), h being a scalar.
        residual: returns the residual of the penalized weights, relative to their prediction gradient, of (w, ∇f(w)).
        is_free: (size,) whether no penalty acts on a weight.
    """

    smooth: Callable[[Any], tuple[Any, Any]]
    penalty: Callable[[Any], Any]
    force: Callable[[Any], Any]
    prox: Callable[[Any, Any], Any]
    residual: Callable[[Any, Any], Any]
    is_free: Any


class Search(NamedTuple):
    """State of a lane between steps.

    Attributes:
        w: weights, the last accepted point.
        gradient: ∇f(w).
        slope: subgradient of F of minimum norm at w.
        direction: d.
        recent: (WINDOW,) objectives of the last accepted points, the newest first.
        step: t.
        width: h.
        pairs: (2 · MEMORY, size) differences of w, then those of s.
        products: (2 · MEMORY, 2 · MEMORY) inner products of the pairs.
        used: (MEMORY,) whether a pair counts.
        refused: trials refused in a row.
        lowest: (2,) lowest objective and residual, up to what does not count as progress.
        idle: steps since the last progress.
        steps: steps taken.
        is_done: whether the lane has settled, makes no progress, or has no finite objective; it keeps its weights.
    """

    w: Any
    gradient: Any
    slope: Any
    direction: Any
    recent: Any
    step: Any
    width: Any
    pairs: Any
    products: Any
    used: Any
    refused: Any
    lowest: Any
    idle: Any
    steps: Any
    is_done: Any


def start_search(w: Any) -> Search:
    """Return the state before the first step, which evaluates the objective where the lane is.

    Args:
        w: (size,) first weights.
    """
    zero, size = jnp.zeros((), w.dtype), w.size
    count = jnp.zeros((), "int32")
    return Search(
        w=w,
        gradient=jnp.zeros_like(w),
        slope=jnp.zeros_like(w),
        direction=jnp.zeros_like(w),
        recent=jnp.full(WINDOW, jnp.inf, w.dtype),
        step=zero,
        width=zero,
        pairs=jnp.zeros((2 * MEMORY, size), w.dtype),
        products=jnp.zeros((2 * MEMORY, 2 * MEMORY), w.dtype),
        used=jnp.zeros(MEMORY, bool),
        refused=count,
        lowest=jnp.full(2, jnp.inf, w.dtype),
        idle=count,
        steps=count,
        is_done=jnp.zeros((), bool),
    )


def take_step(objective: Objective, search: Search, number: Any, tolerance: Any) -> Search:
    """Return the state after a step.

    Args:
        objective: objective of the lane.
        search: state before the step.
        number: number of the step. It is the same in all lanes, so that they write the same place of their memories.
        tolerance: residual at which a lane has settled.
    """
    rounding = jnp.finfo(search.w.dtype).eps
    is_first = number == 0
    shift = search.step * search.direction + search.width * (search.slope - search.gradient)
    trial = objective.prox(search.w + shift, search.width)
    value, gradient = objective.smooth(trial)
    value = value + objective.penalty(trial)
    is_finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    move = trial - search.w
    limit = search.recent.max() + SUFFICIENT * jnp.minimum(search.slope @ move, 0.0) + rounding * jnp.abs(value)
    is_taken = is_finite & (value <= limit) & ~search.is_done
    refused = jnp.where(is_taken, 0, search.refused + 1)
    is_reset = refused >= MOST_REFUSED
    # The difference of s has jumps where a weight reaches or leaves zero; the penalty has no curvature there.
    is_away = (search.w != 0) & (trial != 0)
    turn = gradient - search.gradient + jnp.where(is_away, objective.force(trial) - objective.force(search.w), 0.0)

    w = jnp.where(is_taken, trial, search.w)
    gradient = jnp.where(is_taken, gradient, search.gradient)
    slope = _subgradient(objective, w, gradient)
    recent = jnp.where(is_taken, jnp.roll(search.recent, 1).at[0].set(value), search.recent)
    recent = jnp.where(is_first, value, recent)
    is_seen = is_finite & ~is_first
    pairs, products, sums = _remember(search, move, turn, slope, is_seen, number)
    used = search.used.at[number % MEMORY].set(is_seen) & ~is_reset
    weights, scale = _two_loops(products, sums, used, number, search.width / WIDTH)
    scale = jnp.where(is_first, FIRST_STEP, scale)
    direction = jnp.where((w != 0) | (slope != 0), weights @ pairs - scale * slope, 0.0)
    width = jnp.where(is_taken, WIDTH * scale, jnp.where(is_reset, 0.1 * search.width, search.width))

    residual = objective.residual(w, gradient)
    # The residual leaves out the free weights. They have settled if no decrease along them would be visible.
    rise = jnp.sum(jnp.where(objective.is_free, slope, 0.0) ** 2)
    is_flat = jnp.maximum(scale, WIDTH * FIRST_STEP) * rise <= rounding * jnp.abs(recent.min())
    lowest, idle = _watch(search, recent[0], residual)
    return Search(
        w=w,
        gradient=gradient,
        slope=slope,
        direction=jnp.where(is_reset | is_first, -width * slope, direction),
        recent=recent,
        step=jnp.where(is_taken | is_reset, 1.0, SHRINK * search.step),
        width=width,
        pairs=pairs,
        products=products,
        used=used,
        refused=jnp.where(is_reset, 0, refused),
        lowest=lowest,
        idle=idle,
        steps=search.steps + ~search.is_done,
        is_done=search.is_done | ((residual <= tolerance) & is_flat) | (idle >= PATIENCE) | ~jnp.isfinite(recent[0]),
    )


def _subgradient(objective: Objective, w: Any, gradient: Any) -> Any:
    """Return the element s of ∂F(w) of minimum norm. At w = 0 the prox finds it: prox(−h·∇f) = −h·s for a small h."""
    at_zero = -objective.prox(w - PROBE * gradient, PROBE) / PROBE
    return jnp.where(w == 0, at_zero, gradient + objective.force(w))


def _remember(search: Search, move: Any, turn: Any, slope: Any, is_seen: Any, number: Any) -> tuple[Any, Any, Any]:
    """Write a pair in the place of the oldest. Return the pairs, their inner products, and those with the slope."""
    place = number % MEMORY
    # Also the pair of a refused trial: most often it shows the curvature of a kink that the trial crossed.
    move, turn = jnp.where(is_seen, move, 0.0), jnp.where(is_seen, turn, 0.0)
    pairs = search.pairs.at[place].set(move).at[MEMORY + place].set(turn)
    columns = pairs @ jnp.stack([move, turn, slope]).T
    products = search.products
    for position, column in ((place, columns[:, 0]), (MEMORY + place, columns[:, 1])):
        products = products.at[position].set(column).at[:, position].set(column)
    return pairs, products, columns[:, 2]


def _two_loops(products: Any, sums: Any, used: Any, number: Any, scale: Any) -> tuple[Any, Any]:
    """Return (weights, scale) of the direction −H·s = weights @ pairs − scale · s.

    Args:
        products: inner products of the pairs.
        sums: their inner products with s.
        used: whether a pair counts.
        number: number of the step that wrote the newest pair.
        scale: scale to use if no pair counts; otherwise the Barzilai-Borwein step of the newest one.
    """
    order = (number - jnp.arange(MEMORY)) % MEMORY  # the newest first; its own inverse
    both = jnp.concatenate([order, MEMORY + order])
    products, sums, used = products[both][:, both], sums[both], used[order]
    move_turn, turn_turn = products[:MEMORY, MEMORY:], products[MEMORY:, MEMORY:]
    curvature, turn = jnp.diag(move_turn), jnp.diag(turn_turn)
    used = used & (curvature > CURVED * jnp.sqrt(jnp.diag(products)[:MEMORY] * turn))
    inverse = jnp.where(used, 1.0 / jnp.where(used, curvature, 1.0), 0.0)
    newest = jnp.argmax(used)
    step = curvature[newest] / jnp.where(used[newest], turn[newest], 1.0)
    scale = jnp.where(used[newest], step, scale)
    # Each loop is forward substitution in a triangular system; pairs that do not count have rows of zeros.
    below = jnp.tril(move_turn, -1)
    of_turns = _solve(inverse[:, None] * below, -inverse * sums[:MEMORY], lower=True)
    ahead = of_turns + inverse * scale * (sums[MEMORY:] + turn_turn @ of_turns)
    of_moves = _solve(inverse[:, None] * below.T, ahead, lower=False)
    return jnp.concatenate([of_moves, -scale * of_turns])[both], scale


def _solve(strict: Any, right: Any, lower: bool) -> Any:
    """Return (I + strict)⁻¹ · right for a strictly triangular matrix."""
    return jax.scipy.linalg.solve_triangular(strict, right, lower=lower, unit_diagonal=True)


def _watch(search: Search, value: Any, residual: Any) -> tuple[Any, Any]:
    """Return the lowest objective and residual, and the number of steps since either made progress (see `PROGRESS`)."""
    now = jnp.stack([value, residual])
    falls = now < search.lowest - jnp.array(PROGRESS, now.dtype) * jnp.abs(now)
    return jnp.where(falls, now, search.lowest), jnp.where(falls.any(), 0, search.idle + 1)
