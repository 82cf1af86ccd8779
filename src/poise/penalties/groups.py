"""Penalties of groups of weights that become zero together. `layouts.py` defines the groups.

With a step per entry the group prox has no closed form. Its norm θ solves one secular equation per group,
Σ_i w_i²/(θ + t·h_i)² = 1 (t = strength · c_g; Yun, Lozano and Yang 2021, ProxGen; Deleu and Bengio 2021), and then
u_i = w_i·θ/(θ + t·h_i).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties.base import PACKAGE, Penalty, is_empty, soft_threshold
from poise.penalties.layouts import Groups, Layout, layout
from poise.penalties.precision import smallest_normal
from poise.penalties.secular import solve_secular
from poise.validation import is_integer, validate_axis, validate_share

NEWTON_STEPS = 10
"""Newton's steps at most; three or four are usual, more if the steps of a group differ by orders of magnitude."""


class Grouped(Penalty):
    """strength · Σ_g c_g ‖w_g‖₂ over groups that do not overlap. A subclass defines them in `layout_of`."""

    def layout_of(self, shape: Sequence[int]) -> Groups:
        """Return the groups of a variable of this shape.

        Raises:
            ValueError: If the groups do not fit it.
        """
        raise NotImplementedError

    def check(self, shape: Sequence[int]) -> None:
        self.layout_of(shape)

    def sizes(self, w: Any) -> Any:
        at = self.layout_of(w.shape)
        if is_empty(w):
            return ops.zeros((0,), w.dtype)
        return ops.take(at.norms(w), np.flatnonzero(ops.convert_to_numpy(at.factors)))

    def _value(self, w: Any, strength: Any) -> Any:
        at = self.layout_of(w.shape)
        return strength * ops.sum(at.price(w) * at.norms(w))

    def _gradient(self, w: Any, strength: Any) -> Any:
        at = self.layout_of(w.shape)
        norms = at.norms(w)
        return at.spread(strength * at.price(w)) * (w / at.spread(ops.where(norms > 0, norms, 1.0), outside=1.0))

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        at = self.layout_of(w.shape)
        return _shrink_groups(at, w, step, strength * at.price(w))

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        at = self.layout_of(w.shape)
        inside = ops.maximum(at.norms(gradient) - strength * at.price(w), 0.0)
        away = at.norms(gradient + self._gradient(w, strength))
        return at.complete(ops.where(at.norms(w) == 0, inside, away), w, gradient)

    def _critical_strength(self, gradient: Any) -> Any:
        """max_g ‖g_g‖ / c_g."""
        at = self.layout_of(gradient.shape)
        norms = at.norms(gradient)
        needed = ops.where(norms == 0, 0.0, norms / at.price(gradient))
        return ops.max(ops.where(at.is_free, needed, 0.0))


@keras.saving.register_keras_serializable(PACKAGE)
class GroupLasso(Grouped):
    """Penalize strength · Σ_g c_g ‖w_g‖₂ over groups of weights: whole groups become exactly zero.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        groups: `"outputs"` (default; one group per unit or filter), `"inputs"` (one per feature or input channel), an
            axis of the variable as an integer, or a list of lists of indices along `axis`, such as the one-hot columns
            of one categorical feature. Indices in no list are not penalized. In an optimizer the layer type decides
            where inputs and outputs lie (see docs/explanation/penalties.md). Elsewhere, also as a `kernel_regularizer`,
            the outputs are the last axis and the inputs the one before it.
        axis: The axis of listed groups: `"inputs"`, `"outputs"` or an integer. Default: None, for `"inputs"`.
        factors: Factors c per group. Default: None, for √(number of entries in the group).

    References:
        Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables".

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([[3.0, 4.0], [0.3, 0.4]])
        >>> drop_inputs = poise.GroupLasso(groups="inputs", factors=[1.0, 1.0])
        >>> print(keras.ops.convert_to_numpy(drop_inputs.prox(w, step=1.0, strength=1.0)))
        [[2.4 3.2]
         [0.  0. ]]
    """

    def __init__(
        self, strength: Any = 1.0, groups: Any = "outputs", axis: int | str | None = None, factors: Any = None
    ) -> None:
        super().__init__(strength, factors)
        self.groups, self.axis = validate_groups(groups, axis)

    def get_config(self) -> dict[str, Any]:
        return {"groups": self.groups, "axis": self.axis, **super().get_config()}

    def layout_of(self, shape: Sequence[int]) -> Layout:
        return layout(self, shape)


@keras.saving.register_keras_serializable(PACKAGE)
class SparseGroupLasso(Penalty):
    """Penalize strength · (ρ Σ|w_i| + (1 − ρ) Σ_g c_g ‖w_g‖₂): whole groups and single entries become zero.

    Its prox is the soft threshold followed by the prox of the groups, also with a step per entry.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        l1_ratio: ρ in [0, 1], the share of the L1. Default: 0.5.
        groups: As in `GroupLasso`. Entries in no group are not penalized. Default: `"outputs"`.
        axis: As in `GroupLasso`. Default: None.
        factors: Factors c per group. Default: None, for √(number of entries in the group).

    References:
        Simon, Friedman, Hastie and Tibshirani 2013, "A sparse-group lasso", equation 3.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([[3.0, 0.4], [0.3, 0.4]])
        >>> penalty = poise.SparseGroupLasso(l1_ratio=0.5, groups="inputs", factors=[1.0, 1.0])
        >>> print(keras.ops.convert_to_numpy(penalty.prox(w, step=1.0, strength=1.0)))
        [[2. 0.]
         [0. 0.]]
    """

    def __init__(
        self,
        strength: Any = 1.0,
        l1_ratio: float = 0.5,
        groups: Any = "outputs",
        axis: int | str | None = None,
        factors: Any = None,
    ) -> None:
        super().__init__(strength, factors)
        self.l1_ratio = validate_share("l1_ratio", l1_ratio)
        self.groups, self.axis = validate_groups(groups, axis)

    def get_config(self) -> dict[str, Any]:
        return {"l1_ratio": self.l1_ratio, "groups": self.groups, "axis": self.axis, **super().get_config()}

    def layout_of(self, shape: Sequence[int]) -> Layout:
        return layout(self, shape)

    def check(self, shape: Sequence[int]) -> None:
        self.layout_of(shape)

    def sizes(self, w: Any) -> Any:
        """Return |w_i| per entry: a group that vanishes counts with all of its entries."""
        outside = self.layout_of(w.shape).is_outside
        sizes = ops.reshape(ops.abs(w), (-1,))
        return sizes if outside is None else ops.take(sizes, np.flatnonzero(~np.broadcast_to(outside, w.shape)))

    def _value(self, w: Any, strength: Any) -> Any:
        at, l1, group = self._shares(w, strength)
        return ops.sum(l1 * ops.abs(w)) + ops.sum(group * at.norms(w))

    def _gradient(self, w: Any, strength: Any) -> Any:
        at, l1, group = self._shares(w, strength)
        norms = at.norms(w)
        direction = w / at.spread(ops.where(norms > 0, norms, 1.0), outside=1.0)
        return l1 * ops.sign(w) + at.spread(group) * direction

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        at, l1, group = self._shares(w, strength)
        return _shrink_groups(at, soft_threshold(w, step * l1), step, group)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        at, l1, group = self._shares(w, strength)
        inside = ops.maximum(at.norms(soft_threshold(gradient, l1)) - group, 0.0)
        at_zero = ops.maximum(ops.abs(gradient) - l1, 0.0)
        away = at.norms(ops.where(w == 0, at_zero, ops.abs(gradient + self._gradient(w, strength))))
        return at.complete(ops.where(at.norms(w) == 0, inside, away), w, gradient)

    def _critical_strength(self, gradient: Any) -> Any:
        """The smallest s with ‖soft(g_g, sρ)‖ ≤ s(1 − ρ)c_g in every group, by bisection to float precision."""
        at = self.layout_of(gradient.shape)
        price = at.price(gradient)
        low = ops.zeros_like(at.norms(gradient))
        largest = ops.max(ops.abs(gradient)) / self.l1_ratio if self.l1_ratio > 0 else math.inf
        by_norm = at.norms(gradient) / ((1.0 - self.l1_ratio) * price) if self.l1_ratio < 1 else math.inf
        high = ops.minimum(ops.where(at.norms(gradient) == 0, 0.0, by_norm), largest)
        for _ in range(64):
            middle = 0.5 * (low + high)
            remainder = at.norms(soft_threshold(gradient, at.spread(self.l1_ratio * middle)))
            is_enough = remainder <= middle * (1.0 - self.l1_ratio) * price
            low, high = ops.where(is_enough, low, middle), ops.where(is_enough, middle, high)
        return ops.max(ops.where(at.is_free, high, 0.0))

    def _shares(self, w: Any, strength: Any) -> Any:
        """The layout, the price of |w_i| per entry (0 outside all groups and where held) and of ‖w_g‖ per group."""
        at = self.layout_of(w.shape)
        unpriced = at.is_held if at.is_outside is None else ops.logical_or(at.is_outside, at.is_held)
        l1 = ops.where(unpriced, 0.0, strength * self.l1_ratio)
        return at, l1, strength * (1.0 - self.l1_ratio) * at.price(w)


def validate_groups(groups: Any, axis: Any) -> Any:
    """Return the arguments `groups` and `axis` in the form that `layout` reads: (axis, None) or (lists, axis)."""
    if isinstance(groups, (list, tuple, np.ndarray)):
        lists = [_validate_indices(indices) for indices in groups]
        seen = Counter(i for indices in lists for i in indices)
        twice = [i for i, times in seen.items() if times > 1]
        if twice:
            raise ValueError(f"groups overlap: the index {twice[0]} is listed twice. List each index in one group.")
        if not lists or not all(lists) or min(seen) < 0:
            raise ValueError(f"groups must be non-empty lists of indices >= 0, got {groups!r}.")
        return lists, validate_axis("axis", "inputs" if axis is None else axis)
    if axis is not None:
        raise ValueError(f"axis must be None where groups names an axis, got axis={axis!r} and groups={groups!r}.")
    return validate_axis("groups", groups), None


def _validate_indices(indices: Any) -> list[int]:
    is_list = isinstance(indices, (list, tuple, np.ndarray))
    if not is_list or not all(map(is_integer, indices)):
        raise TypeError(f"groups must be lists of integers, such as [[0, 1], [2]], got {indices!r} in the list.")
    return [int(i) for i in indices]


def _shrink_groups(at: Groups, w: Any, step: Any, threshold: Any) -> Any:
    """argmin_u ½‖u − w‖²_{1/step} + Σ_g threshold_g ‖u_g‖, groups held at zero set to zero.

    Args:
        at: The layout of w's groups.
        w: The weights.
        step: A scalar, or one step per entry.
        threshold: (groups,), ≥ 0.
    """
    if len(step.shape) == 0:
        norms = at.norms(w)
        keep = ops.maximum(1.0 - step * threshold / ops.where(norms > 0, norms, 1.0), 0.0)
        shrunk = w * at.spread(keep, outside=1.0)
    else:
        shrunk = w * _share_left(at, ops.abs(w), at.spread(threshold) * step)
    if at.are_all_free:
        return shrunk
    return ops.where(at.is_held, ops.where(ops.isnan(w), w, 0.0), shrunk)


def _share_left(at: Groups, size: Any, pull: Any) -> Any:
    """Return θ/(θ + pull) per entry, where θ ≥ 0 solves Σ_g size²/(θ + pull)² = 1 in every group; 0 if no θ does."""
    pull = ops.maximum(pull, smallest_normal(size))
    is_left = at.sums(ops.square(size / pull)) > 1.0  # an overflow is more than 1
    theta = at.spread(solve_secular(at, size, pull, is_left, NEWTON_STEPS), outside=1.0)
    return theta / (theta + pull)
