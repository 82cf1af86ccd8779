"""One number per group from a secular equation, for the proximal steps of group norms and of balls."""

from typing import Any

from keras import ops

from poise.penalties.layouts import Groups
from poise.penalties.loops import repeat
from poise.penalties.precision import smallest_normal

SMALLEST_RISE = 1e-6
"""Share of θ by which a step of Newton must raise it, in some group, so that another one follows."""


def solve_secular(at: Groups, size: Any, offset: Any, has_root: Any, max_steps: int) -> Any:
    """Return θ ≥ 0 per group with Σ_g size²/(θ + offset)² = 1; 0 in a group without such a θ.

    1/√Σ is concave and increasing in θ, so Newton's steps on it rise to the root from the left. They start at a lower
    bound, max(size − offset). From there on every size/(θ + offset) ≤ 1, so that nothing overflows. Where all offsets
    of a group are equal, 1/√Σ is linear, and the first step reaches θ.

    Args:
        at: The groups.
        size: Per entry, ≥ 0.
        offset: Per entry, > 0.
        has_root: Per group, whether there is such a θ.
        max_steps: The largest number of Newton's steps.
    """
    least = smallest_normal(size)

    def square_and_slope(size: Any, offset: Any, theta: Any) -> tuple[Any, Any]:
        inverse = 1.0 / (theta + offset)
        square = ops.square(size * inverse)
        return square, square * inverse

    def take_step(theta: Any) -> tuple[Any, Any]:
        square, slope = at.sum_each(square_and_slope, [size, offset], [theta])
        move = square * (ops.sqrt(square) - 1.0) / ops.maximum(slope, least)
        after = ops.where(has_root, theta + ops.maximum(move, 0.0), 0.0)
        return after, ops.any(after > theta * (1.0 + SMALLEST_RISE))

    theta = ops.where(has_root, ops.maximum(at.largest(size - offset), 0.0), 0.0)
    (theta,) = repeat(take_step, (theta,), ops.any(has_root), max_steps)
    return theta
