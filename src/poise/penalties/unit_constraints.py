"""Constraints on the weights of a unit together: their norm, or their sum."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties.axes import Axes
from poise.penalties.base import PACKAGE
from poise.penalties.constraints import AT_BOUND, TOLERANCE, Constraint
from poise.penalties.groups import validate_groups
from poise.penalties.layouts import Layout, axes_of, layout
from poise.penalties.precision import smallest_normal, smallest_step
from poise.penalties.secular import solve_secular
from poise.validation import validate_axis, validate_number

NEWTON_STEPS = 20
"""Newton's steps at most; four are usual, more if the steps of a group differ by orders of magnitude."""


@keras.saving.register_keras_serializable(PACKAGE)
class MaxNorm(Constraint):
    """Constrain the 2-norm of every group to ‖w_g‖ ≤ max_value, as `keras.constraints.MaxNorm` does.

    With one step for all weights, the prox scales a group down to the norm. With a step per entry, it solves
    Σ_i w_i²/(1 + μh_i)² = max_value² for the multiplier μ of each group, and returns w_i/(1 + μh_i). It is the
    equation of `GroupLasso` with the offsets 1/h_i.

    Args:
        max_value: The largest norm, > 0. Default: 2.0, as in Keras.
        groups: As in `GroupLasso`. Default: `"outputs"`, the incoming weights of each unit.
        axis: As in `GroupLasso`, for listed groups. Default: None.

    References:
        Srebro, Rennie and Jaakkola 2004, "Maximum-margin matrix factorization".
        Srivastava et al. 2014, "Dropout", section 5.1.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([[3.0, 0.0], [4.0, 1.0]])
        >>> print(keras.ops.convert_to_numpy(poise.MaxNorm(1.0).prox(w, step=1.0, strength=1.0)))
        [[0.6 0. ]
         [0.8 1. ]]
    """

    def __init__(self, max_value: float = 2.0, groups: Any = "outputs", axis: int | str | None = None) -> None:
        super().__init__()
        self.max_value = validate_number("max_value", max_value, inclusive=False)
        self.groups, self.axis = validate_groups(groups, axis)

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "groups": self.groups, "axis": self.axis}

    def check(self, shape: Sequence[int]) -> None:
        self._layout(shape)

    def _is_violated(self, w: Any, strength: Any) -> Any:
        return self._layout(w.shape).norms(w) > self.max_value * (1.0 + TOLERANCE)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        at = self._layout(w.shape)
        norms = at.norms(w)
        is_long = norms > self.max_value
        if len(step.shape) == 0:
            is_long = ops.logical_and(is_long, step > 0)
            return w * at.spread(ops.where(is_long, self.max_value / ops.where(is_long, norms, 1.0), 1.0), outside=1.0)
        h = step / at.spread(ops.maximum(at.largest(step), smallest_normal(step)), outside=1.0)
        h = ops.maximum(h, smallest_step(step))
        multiplier = solve_secular(at, ops.abs(w) / (self.max_value * h), 1.0 / h, is_long, NEWTON_STEPS)
        return ops.where(step > 0, w / (1.0 + at.spread(multiplier) * h), w)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        at = self._layout(w.shape)
        norms = at.norms(w)
        outward = -at.sums(gradient * w) / ops.where(norms > 0, norms, 1.0)
        is_held = ops.logical_and(norms >= self.max_value * (1.0 - AT_BOUND), outward > 0)
        share = ops.where(is_held, outward, 0.0) / ops.where(norms > 0, norms, 1.0)
        distances = at.norms(gradient + at.spread(share) * w)
        violated = self._is_violated(w, strength)
        return at.complete(ops.where(violated, float("inf"), distances), w, gradient)

    def _layout(self, shape: Sequence[int]) -> Layout:
        return layout(self, shape)


@keras.saving.register_keras_serializable(PACKAGE)
class Simplex(Constraint):
    """Constrain weights along an axis to w_i ≥ 0 and Σ_i w_i = radius: a weighted average of inputs.

    The prox sorts the weights: it is max(w_i − h_i·μ, 0) with steps h, where μ is chosen so that the weights sum to
    `radius`.

    Args:
        radius: The sum, > 0. Default: 1.0.
        axis: The axis along which the weights sum to `radius`: `"inputs"` (default), `"outputs"` or an integer.

    References:
        Duchi, Shalev-Shwartz, Singer and Chandra 2008, "Efficient projections onto the ℓ1-ball", figure 1.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([0.75, -0.5, 1.0])
        >>> print(keras.ops.convert_to_numpy(poise.Simplex().prox(w, step=1.0, strength=1.0)))
        [0.375 0.    0.625]
    """

    def __init__(self, radius: float = 1.0, axis: int | str = "inputs") -> None:
        super().__init__()
        self.radius = validate_number("radius", radius, inclusive=False)
        self.axis = validate_axis("axis", axis)

    def get_config(self) -> dict[str, Any]:
        return {"radius": self.radius, "axis": self.axis}

    def check(self, shape: Sequence[int]) -> None:
        self._axes(shape)

    def _is_violated(self, w: Any, strength: Any) -> Any:
        axes = self._axes(w.shape)
        lines, slack = axes.matrix(w), TOLERANCE * self.radius
        is_wrong = ops.abs(ops.sum(lines, axis=-1, keepdims=True) - self.radius) > slack
        is_wrong = ops.logical_or(is_wrong, ops.any(lines < -slack, axis=-1, keepdims=True))
        return axes.from_matrix(ops.broadcast_to(is_wrong, lines.shape))

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        axes = self._axes(w.shape)
        lines = axes.matrix(w)
        h = axes.matrix(ops.broadcast_to(step, w.shape))
        h = h / ops.maximum(ops.max(h, axis=-1, keepdims=True), smallest_normal(h))
        projected = _project_lines(lines, ops.maximum(h, smallest_step(h)), self.radius)
        return ops.where(step > 0, axes.from_matrix(projected), w)

    def _distance(self, w: Any, gradient: Any, strength: Any) -> Any:
        """Of x = −gradient from the normal cone {v: v_i = c where w_i > 0, v_i ≤ c elsewhere}, for the best c.

        c is the mean of x over all w_i > 0 and over the x_i > c at zero, which are found from the largest one down.
        """
        axes = self._axes(w.shape)
        x, is_live = -axes.matrix(gradient), axes.matrix(w) > 0
        order = ops.argsort(ops.where(is_live, -np.inf, -x), axis=-1)
        x_sorted = ops.take_along_axis(x, order, axis=-1)
        places = ops.arange(1, x.shape[-1] + 1)
        means = ops.cumsum(x_sorted, axis=-1) / ops.cast(places, x.dtype)
        live = ops.sum(ops.cast(is_live, "int32"), axis=-1, keepdims=True)
        before = ops.concatenate([means[:, :1], means[:, :-1]], axis=-1)
        is_above = ops.logical_and(places > live, x_sorted > before)
        last = live + ops.sum(ops.cast(is_above, "int32"), axis=-1, keepdims=True)
        away = x - ops.take_along_axis(means, ops.maximum(last - 1, 0), axis=-1)
        return axes.from_matrix(ops.where(is_live, ops.abs(away), ops.maximum(away, 0.0)))

    def _axes(self, shape: Sequence[int]) -> Axes:
        return axes_of(self, self.axis, tuple(shape))


def _project_lines(w: Any, h: Any, radius: float) -> Any:
    """argmin Σ (u_i − w_i)²/(2h_i) over u ≥ 0 with the sum `radius`, per row."""
    scale = ops.maximum(ops.max(ops.abs(w), axis=-1, keepdims=True), radius)
    w, total = w / scale, radius / scale
    order = ops.argsort(-w / h, axis=-1)
    w_sorted, h_sorted = ops.take_along_axis(w, order, axis=-1), ops.take_along_axis(h, order, axis=-1)
    levels = (ops.cumsum(w_sorted, axis=-1) - total) / ops.cumsum(h_sorted, axis=-1)
    is_live = w_sorted > h_sorted * levels
    last = ops.maximum(ops.sum(ops.cast(is_live, "int32"), axis=-1, keepdims=True) - 1, 0)
    level = ops.take_along_axis(levels, last, axis=-1)
    for _ in range(2):  # the rounding errors of the sums
        u = ops.maximum(w - h * level, 0.0)
        excess = ops.sum(u, axis=-1, keepdims=True) - total
        moving = ops.sum(ops.where(u > 0, h, 0.0), axis=-1, keepdims=True)
        level = level + excess / ops.where(moving > 0, moving, 1.0)
    return scale * ops.maximum(w - h * level, 0.0)
