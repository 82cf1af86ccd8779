"""What a group of weights is, and how numbers go from entries to groups and back.

The groups of a variable are slices along one axis: each index of the axis, or given lists of indices. Everything is
then vectorised over that axis: squares are summed over the other axes, and where lists are given over the segments.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops


class Groups:
    """Groups of the entries of a tensor w, by their `factors`: c per group, an array or a tensor, inf where the group
    is held at zero. How entries belong to groups is the subclass's to say, in `sums`, `largest` and `spread`."""

    factors: Any

    @property
    def slices(self) -> list[tuple[tuple[int, ...], int, np.ndarray]]:
        """(shape, axis, the group of each index of it, −1 for none) of each of the members that w is made of."""
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
    """The groups of one variable: slices along `axis` of an array of shape `shape`.

    `segments` maps the indices of the axis to groups, −1 for none (all None: index i is group i).
    """

    shape: tuple[int, ...]
    axis: int
    segments: np.ndarray | None
    factors: Any

    @property
    def slices(self):
        segments = np.arange(self.shape[self.axis]) if self.segments is None else self.segments
        return [(self.shape, self.axis, segments)]

    @property
    def is_outside(self):
        if self.segments is None or (self.segments >= 0).all():
            return None
        return (self.segments < 0).reshape(self._along)

    def sums(self, x):
        totals = ops.sum(x, axis=self._others) if self._others else x
        if self.segments is None:
            return totals
        count = self.factors.shape[0]
        return ops.segment_sum(totals, self.segments % (count + 1), count + 1)[:count]

    def largest(self, x):
        tops = ops.max(x, axis=self._others) if self._others else x
        if self.segments is None:
            return tops
        count = self.factors.shape[0]
        return ops.segment_max(tops, self.segments % (count + 1), count + 1)[:count]

    def spread(self, per_group, outside=0.0):
        if self.segments is not None:
            rest = ops.full((1,), outside, per_group.dtype)
            per_group = ops.take(ops.concatenate([per_group, rest]), self.segments % (self.factors.shape[0] + 1))
        return ops.reshape(per_group, self._along)

    @property
    def _others(self):
        return tuple(i for i in range(len(self.shape)) if i != self.axis)

    @property
    def _along(self):
        return [-1 if i == self.axis else 1 for i in range(len(self.shape))]


def layout(penalty, shape):
    """The groups of a penalty (its `groups`, `axis` and `weights`) on a variable of the given shape.

    Raises:
        ValueError: if the variable lacks the axis, an index runs past its end, or there is not one factor per group.
    """
    shape = tuple(shape)
    name = type(penalty).__name__
    listed = isinstance(penalty.groups, list)
    axis = _axis_number(name, penalty.axis if listed else penalty.groups, shape)
    length = shape[axis]
    segments = None
    count = length
    if listed:
        count = len(penalty.groups)
        segments = np.full(length, -1)
        for number, indices in enumerate(penalty.groups):
            if max(indices) >= length:
                raise ValueError(
                    f"{name}: group {number} holds the index {max(indices)}, past the end of axis {axis} of a variable "
                    f"of shape {shape}. Indices run from 0 to {length - 1}."
                )
            segments[indices] = number
        if np.array_equal(segments, np.arange(length)):
            segments = None  # index i is group i, which needs no look-up
    members = np.ones(length, int) if segments is None else np.bincount(segments[segments >= 0], minlength=count)
    factors = np.sqrt(members * (math.prod(shape) / max(length, 1)))
    if penalty.weights is not None:
        if penalty.weights.shape not in ((), (1,), (count,)):
            raise ValueError(
                f"{name} has weights of shape {penalty.weights.shape} for {count} groups of a variable of shape "
                f"{shape}. Give one factor per group, or a rule for each variable."
            )
        factors = ops.broadcast_to(penalty.weights, (count,))
    return Layout(shape, axis, segments, factors)


def _axis_number(name, axis, shape):
    named = {"outputs": -1, "inputs": -2 if len(shape) > 1 else -1}
    number: int = named[axis] if isinstance(axis, str) else axis
    if not -len(shape) <= number < len(shape):
        raise ValueError(
            f"{name}: groups along axis {axis!r} need a variable that has this axis; this one has the shape {shape}. "
            f"Use an axis between {-len(shape)} and {len(shape) - 1}, or exclude the variable from the rule."
        )
    return number % len(shape)
