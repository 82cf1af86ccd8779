"""What a group of weights is, and how numbers go from entries to groups and back.

The groups of a variable are its units along some axes (see `poise.penalties.axes`), one by one or in lists. All sums
are vectorized: over the other axes, and for lists over segments.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from poise.penalties.axes import Axes, keras_sides, why_no_axis


class Groups:
    """Groups of the entries of a tensor w. A subclass defines them in `sums`, `largest` and `spread`.

    Attributes:
        factors: c per group, an array or a tensor; inf for a group that is held at zero.
    """

    factors: Any

    @property
    def slices(self) -> list[tuple[Axes, np.ndarray]]:
        """(axes, the group of each unit along them, −1 for none) for each variable that w is made of."""
        raise NotImplementedError

    @property
    def is_free(self) -> Any:
        """Per group: whether it is not held at zero."""
        return np.isfinite(self.factors) if isinstance(self.factors, np.ndarray) else ops.isfinite(self.factors)

    @property
    def are_all_free(self) -> bool:
        """Whether it is known that no group is held at zero."""
        return isinstance(self.factors, np.ndarray) and bool(np.isfinite(self.factors).all())

    @property
    def is_held(self) -> Any:
        """Per entry, broadcastable to w: whether its group is held at zero."""
        return self.spread(ops.logical_not(self.is_free), outside=False)

    @property
    def is_outside(self) -> Any:
        """Per entry, broadcastable to w: whether it is in no group; None if every entry is in one."""
        raise NotImplementedError

    def price(self, w: Any) -> Any:
        """Return c per group as a tensor of the dtype of w, 0 in place of inf."""
        if self.are_all_free:
            return ops.convert_to_tensor(self.factors, w.dtype)
        return ops.cast(ops.where(self.is_free, self.factors, 0.0), w.dtype)

    def norms(self, x: Any) -> Any:
        """Return ‖x_g‖₂ per group, scaled by the largest entry, so that no square overflows or vanishes."""
        x = ops.abs(x)
        top = self.largest(x)
        top = ops.where(ops.logical_and(top > 0, ops.isfinite(top)), top, 1.0)
        (squares,) = self.sum_each(lambda x, top: (ops.square(x / top),), [x], [top])
        return top * ops.sqrt(squares)

    def sums(self, x: Any) -> Any:
        """Return Σ x per group."""
        raise NotImplementedError

    def sum_each(self, of: Callable[..., Sequence[Any]], entries: Sequence[Any], per_group: Sequence[Any]) -> list[Any]:
        """Return Σ per group of each tensor of `of(*entries, *per_group)`, where numbers per group go to each entry."""
        spread = [self.spread(number, outside=1.0) for number in per_group]
        return [self.sums(tensor) for tensor in of(*entries, *spread)]

    def largest(self, x: Any) -> Any:
        """Return max x per group."""
        raise NotImplementedError

    def spread(self, per_group: Any, outside: Any = 0.0) -> Any:
        """Give the number of each group to its entries, broadcastable to w; `outside` to entries in no group."""
        raise NotImplementedError

    def complete(self, residuals: Any, w: Any, gradient: Any) -> Any:
        """Set the residuals of held groups, and append the residual of the entries in no group."""
        residuals = ops.where(self.is_free, residuals, ops.where(self.norms(w) == 0, 0.0, math.inf))
        outside = self.is_outside
        if outside is None:
            return residuals
        free_gradient = ops.where(outside, gradient, 0.0)
        return ops.concatenate([residuals, ops.reshape(ops.sqrt(ops.sum(ops.square(free_gradient))), (1,))])


@dataclass(frozen=True, eq=False)
class Layout(Groups):
    """The groups of one variable: its units along `axes`.

    Attributes:
        axes: The axes.
        segments: The group of each unit, −1 for none. None if unit i is group i.
        factors: c per group.
    """

    axes: Axes
    segments: np.ndarray | None
    factors: Any

    @property
    def slices(self) -> list[tuple[Axes, np.ndarray]]:
        return [(self.axes, np.arange(self.axes.count) if self.segments is None else self.segments)]

    @property
    def is_outside(self) -> Any:
        if self.segments is None or (self.segments >= 0).all():
            return None
        return (self.segments < 0)[self.axes.numbers]

    def sums(self, x: Any) -> Any:
        totals = self.axes.reduce(ops.sum, x)
        if self.segments is None:
            return totals
        count = self.factors.shape[0]
        return ops.segment_sum(totals, self.segments % (count + 1), count + 1)[:count]

    def largest(self, x: Any) -> Any:
        tops = self.axes.reduce(ops.max, x)
        if self.segments is None:
            return tops
        count = self.factors.shape[0]
        return ops.segment_max(tops, self.segments % (count + 1), count + 1)[:count]

    def spread(self, per_group: Any, outside: Any = 0.0) -> Any:
        if self.segments is not None:
            of_outside = ops.full((1,), outside, per_group.dtype)
            per_group = ops.take(ops.concatenate([per_group, of_outside]), self.segments % (self.factors.shape[0] + 1))
        return self.axes.spread(per_group)


def layout(penalty: Any, shape: Sequence[int]) -> Layout:
    """Return the groups of a penalty (its `groups`, `axis`, `factors` and `sides`) on a variable of this shape.

    Raises:
        ValueError: If the variable lacks the axis, an index is past its end, or there is not one factor per group.
    """
    shape = tuple(shape)
    name = type(penalty).__name__
    listed = isinstance(penalty.groups, list)
    side = penalty.axis if listed else penalty.groups
    axes = axes_of(penalty, side, shape)
    segments = None
    count = axes.count
    if listed:
        count = len(penalty.groups)
        segments = np.full(axes.count, -1)
        for number, indices in enumerate(penalty.groups):
            if max(indices) >= axes.count:
                where = f"axis {axes.chosen[0]}" if axes == Axes.along(shape, axes.chosen[0]) else f"the {side}"
                raise ValueError(
                    f"{name}: group {number} has the index {max(indices)}, past the end of {where} of a variable of "
                    f"shape {shape}. Use indices from 0 to {axes.count - 1}."
                )
            segments[indices] = number
        if np.array_equal(segments, np.arange(axes.count)):
            segments = None  # index i is group i, which needs no look-up
    members = np.ones(axes.count, int) if segments is None else np.bincount(segments[segments >= 0], minlength=count)
    factors = np.sqrt(members * (math.prod(shape) / max(axes.count, 1)))
    if penalty.factors is not None:
        if penalty.factors.shape not in ((), (1,), (count,)):
            raise ValueError(
                f"{name} has factors of shape {penalty.factors.shape} for {count} groups of a variable of shape "
                f"{shape}. Give one factor per group, or a rule for each variable."
            )
        is_known = isinstance(penalty.factors, np.ndarray)
        factors = (np if is_known else ops).broadcast_to(penalty.factors, (count,))
    return Layout(axes, segments, factors)


def axes_of(penalty: Any, side: Any, shape: Sequence[int]) -> Axes:
    """The axes of a side, by the sides the penalty is bound to, else by the convention of Keras; or one axis."""
    name = type(penalty).__name__
    if isinstance(side, str):
        sides = keras_sides(shape) if penalty.sides is None else penalty.sides
        axes = getattr(sides, side)
        if axes is not None:
            return axes
        if sides.unknown:
            raise ValueError(f"{name} with groups along the {side}: {sides.unknown}")
    elif -len(shape) <= side < len(shape):
        return Axes.along(shape, side)
    raise ValueError(why_no_axis(name, side, shape))
