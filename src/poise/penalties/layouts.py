"""What a group of weights is, and how numbers go from entries to groups and back.

The groups of a variable are its units along some axes (see `poise.penalties.axes`), each for itself or in lists.
Everything is then vectorized: squares are summed over the other axes, and where lists are given over the segments.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from poise.penalties.axes import Axes, keras_sides


class Groups:
    """Groups of the entries of a tensor w, by their `factors`: c per group, an array or a tensor, inf where the group
    is held at zero. How entries belong to groups is the subclass's to say, in `sums`, `largest` and `spread`."""

    factors: Any

    @property
    def slices(self) -> list[tuple[Axes, np.ndarray]]:
        """(axes, the group of each unit along them, −1 for none) of each of the members that w is made of."""
        raise NotImplementedError

    @property
    def is_free(self):
        """Per group: whether it is not held at zero."""
        return ops.isfinite(self.factors)

    @property
    def is_held(self):
        """Per entry, broadcastable to w: whether its group is held at zero."""
        return self.spread(ops.logical_not(self.is_free), outside=False)

    @property
    def is_outside(self):
        """Per entry, broadcastable to w: whether it is in no group; None if every entry is in one."""
        raise NotImplementedError

    def price(self, w):
        """c per group as a tensor of w's dtype, 0 in the place of inf."""
        return ops.cast(ops.where(self.is_free, self.factors, 0.0), w.dtype)

    def norms(self, x):
        """‖x_g‖₂ per group; scaled by its largest entry, so that no square overflows or vanishes."""
        x = ops.abs(x)
        top = self.largest(x)
        top = ops.where(ops.logical_and(top > 0, ops.isfinite(top)), top, 1.0)
        (squares,) = self.summed(lambda x, top: (ops.square(x / top),), [x], [top])
        return top * ops.sqrt(squares)

    def sums(self, x):
        """Σ x per group."""
        raise NotImplementedError

    def summed(self, of, entries, per_group):
        """Σ per group of each tensor that of(x, …, n, …) gives, x of w's shape and n per group, given to each entry."""
        spread = [self.spread(number, outside=1.0) for number in per_group]
        return [self.sums(found) for found in of(*entries, *spread)]

    def largest(self, x):
        """max x per group."""
        raise NotImplementedError

    def spread(self, per_group, outside=0.0):
        """One number per group, given to each of its entries, broadcastable to w; `outside` for entries in none."""
        raise NotImplementedError

    def completed(self, residuals, w, gradient):
        """Residuals per group, those of held groups set, with that of the entries in no group as the last."""
        residuals = ops.where(self.is_free, residuals, ops.where(self.norms(w) == 0, 0.0, math.inf))
        outside = self.is_outside
        if outside is None:
            return residuals
        rest = ops.where(outside, gradient, 0.0)
        return ops.concatenate([residuals, ops.reshape(ops.sqrt(ops.sum(ops.square(rest))), (1,))])


@dataclass(frozen=True, eq=False)
class Layout(Groups):
    """The groups of one variable: its units along `axes`.

    `segments` maps the units to groups, −1 for none (all None: unit i is group i).
    """

    axes: Axes
    segments: np.ndarray | None
    factors: Any

    @property
    def slices(self):
        return [(self.axes, np.arange(self.axes.count) if self.segments is None else self.segments)]

    @property
    def is_outside(self):
        if self.segments is None or (self.segments >= 0).all():
            return None
        return (self.segments < 0)[self.axes.numbers]

    def sums(self, x):
        totals = self.axes.reduced(ops.sum, x)
        if self.segments is None:
            return totals
        count = self.factors.shape[0]
        return ops.segment_sum(totals, self.segments % (count + 1), count + 1)[:count]

    def largest(self, x):
        tops = self.axes.reduced(ops.max, x)
        if self.segments is None:
            return tops
        count = self.factors.shape[0]
        return ops.segment_max(tops, self.segments % (count + 1), count + 1)[:count]

    def spread(self, per_group, outside=0.0):
        if self.segments is not None:
            rest = ops.full((1,), outside, per_group.dtype)
            per_group = ops.take(ops.concatenate([per_group, rest]), self.segments % (self.factors.shape[0] + 1))
        return self.axes.spread(per_group)


def layout(penalty, shape):
    """The groups of a penalty (its `groups`, `axis`, `weights` and `sides`) on a variable of the given shape.

    Raises:
        ValueError: if the variable lacks the axis, an index runs past its end, or there is not one factor per group.
    """
    shape = tuple(shape)
    name = type(penalty).__name__
    listed = isinstance(penalty.groups, list)
    side = penalty.axis if listed else penalty.groups
    axes = _axes_of(penalty, side, shape)
    segments = None
    count = axes.count
    if listed:
        count = len(penalty.groups)
        segments = np.full(axes.count, -1)
        for number, indices in enumerate(penalty.groups):
            if max(indices) >= axes.count:
                where = f"axis {axes.chosen[0]}" if axes == Axes.along(shape, axes.chosen[0]) else f"the {side}"
                raise ValueError(
                    f"{name}: group {number} holds the index {max(indices)}, past the end of {where} of a variable "
                    f"of shape {shape}. Indices run from 0 to {axes.count - 1}."
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
        factors = ops.broadcast_to(penalty.factors, (count,))
    return Layout(axes, segments, factors)


def _axes_of(penalty, side, shape):
    """Those of "inputs" or "outputs", as the penalty was bound or else as Keras has them; or an axis."""
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
    if not shape:
        raise ValueError(f"{name} needs a variable with axes; this one is a single number. Exclude it from the rule.")
    raise ValueError(
        f"{name}: groups along axis {side!r} need a variable that has this axis; this one has the shape {shape}. "
        f"Use an axis between {-len(shape)} and {len(shape) - 1}, or exclude the variable from the rule."
    )
