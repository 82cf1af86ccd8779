"""A group penalty whose groups run across several variables, such as all that belongs to a unit of a network.

A unit is a column of a kernel, an entry of its bias and of a normalization's scale and shift, and a row of the kernel
that reads it: slices of several variables, which live or die together. The penalty acts on one vector, the members'
entries one after the other, so that it is `GroupLasso` with other groups, and has its closed formulas.

Every sum over a group runs over the other axes of each member first, and then over the few numbers that are left, one
for each index of a member's axis: networks have millions of entries, and thousands of slices.
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from poise.penalties.axes import Axes
from poise.penalties.base import PACKAGE
from poise.penalties.groups import Grouped
from poise.penalties.layouts import Groups

Member: TypeAlias = tuple[tuple[int, ...], int, np.ndarray]
EXAMPLE = "members={'hidden/kernel': ((10, 3), 1, [0, 1, 2]), 'hidden/bias': ((3,), 0, [0, 1, 2])}"


@keras.saving.register_keras_serializable(PACKAGE)
class JointGroupLasso(Grouped):
    """strength · Σ_g c_g √(Σ_m ‖w_{m,g}‖²) over groups that hold slices of several variables m.

    Yuan and Lin 2006, of groups across variables: whole units become exactly zero, with all that belongs to them. Give
    it to a rule that selects its members, or to `PenalizedOptimizer` as it is; they are then penalized together. Alone it acts
    on any tensor that has as many entries as all members, in their order, each in C order.

    Args:
        strength: s ≥ 0 or a schedule.
        members: by the path of a variable (`variable.path`) the triple (shape, axis, groups): its shape, the axis
            along which it is cut into slices, and for each index of that axis the number of the group that the slice
            belongs to, −1 for none. The numbers run from 0 without gaps, over all members together. Where several
            variables have the path, it is followed by the place of the one that is meant: "fc/kernel (2 of 2)".
        factors: factors c per group; None for √(number of entries in the group, in all members).

    Raises:
        TypeError, ValueError: for members that are not of this form.

    Example:
        >>> import poise, keras
        >>> members = {"hidden/kernel": ((2, 2), 1, [0, 1]), "hidden/bias": ((2,), 0, [0, 1])}
        >>> units = poise.JointGroupLasso(members=members, factors=[1.0, 1.0])
        >>> w = keras.ops.array([2.0, 0.3, 1.0, 0.4, 2.0, 0.0])  # unit 0 has the entries 0, 2 and 4
        >>> print(keras.ops.convert_to_numpy(units.prox(w, step=1.0, strength=1.5)))
        [1.  0.  0.5 0.  1.  0. ]
    """

    members: dict[str, Member]

    def __init__(self, strength=1.0, members=None, factors=None):
        super().__init__(strength, factors)
        self.members = _checked_members(members)
        shapes, _, segments = zip(*self.members.values(), strict=True)
        self._segments = np.concatenate(segments)
        self._count = int(self._segments.max()) + 1
        if not self._count:
            raise ValueError("members: every slice is in no group (−1). Number the groups from 0.")
        lengths = [math.prod(shape) // len(groups) for shape, groups in zip(shapes, segments, strict=True)]
        slices = np.repeat(lengths, [len(groups) for groups in segments])
        is_inside = self._segments >= 0
        self._sizes = np.bincount(self._segments[is_inside], slices[is_inside], self._count)
        empty = np.flatnonzero(self._sizes == 0)
        if len(empty):
            raise ValueError(
                f"members: group {empty[0]} has no entries, and the numbers run to {self._count - 1}. Number the "
                "groups from 0 without gaps."
            )

    def layout_of(self, shape) -> "JointLayout":
        shape = tuple(shape)
        total = sum(math.prod(own) for own, _, _ in self.members.values())
        if math.prod(shape) != total:
            raise ValueError(
                f"JointGroupLasso acts on {total} entries, those of its {len(self.members)} members together, and not "
                f"on a tensor of shape {shape}. Give it to a poise.Rule, which puts the members together."
            )
        factors = np.sqrt(self._sizes)
        if self.factors is not None:
            if self.factors.shape not in ((), (1,), (self._count,)):
                raise ValueError(
                    f"JointGroupLasso has factors of shape {self.factors.shape} for {self._count} groups. Give one "
                    "factor per group."
                )
            factors = ops.broadcast_to(self.factors, (self._count,))
        return JointLayout(shape, list(self.members.values()), self._segments, factors)

    def get_config(self):
        members = {path: [list(shape), axis, groups.tolist()] for path, (shape, axis, groups) in self.members.items()}
        return {"members": members, **super().get_config()}

    def __repr__(self):
        return f"JointGroupLasso(strength={self.strength!r}, {self._count} groups over {len(self.members)} variables)"


@dataclass(frozen=True, eq=False)
class JointLayout(Groups):
    """Groups of slices of several members, which lie one after the other in a tensor of shape `shape`.

    `members` are triples (shape, axis, groups), `segments` all their groups in one row, −1 for none.
    """

    shape: tuple[int, ...]
    members: list[Member]
    segments: np.ndarray
    factors: Any

    @property
    def slices(self):
        return [(Axes.along(shape, axis), groups) for shape, axis, groups in self.members]

    @property
    def is_outside(self):
        if (self.segments >= 0).all():
            return None
        return self.spread(ops.zeros(self.factors.shape, "bool"), outside=True)

    def sums(self, x):
        (total,) = self.summed(lambda x: (x,), [x], [])
        return total

    def summed(self, of, entries, per_group):
        """Member by member, so that nothing is put together to be taken apart."""
        numbers = [self._spread_parts(number, outside=1.0) for number in per_group]
        found = [of(*parts) for parts in zip(*map(self._parts, entries), *numbers, strict=True)]
        rows = [self._per_slice(ops.sum, parts) for parts in zip(*found, strict=True)]
        return [ops.segment_sum(row, *self._places)[: self._count] for row in rows]

    def largest(self, x):
        return ops.segment_max(self._per_slice(ops.max, self._parts(x)), *self._places)[: self._count]

    def spread(self, per_group, outside=0.0):
        parts = zip(self._spread_parts(per_group, outside), self.members, strict=True)
        whole = [ops.reshape(ops.broadcast_to(part, shape), (-1,)) for part, (shape, _, _) in parts]
        return ops.reshape(ops.concatenate(whole), self.shape)

    @property
    def _count(self):
        return self.factors.shape[0]

    @property
    def _places(self):
        """The group of each slice, the slices of none in one place behind the groups, and how many places there are."""
        return self.segments % (self._count + 1), self._count + 1

    def _parts(self, x):
        """The members, each of its own shape."""
        flat = ops.reshape(x, (-1,))
        parts, first = [], 0
        for shape, _, _ in self.members:
            size = math.prod(shape)
            parts.append(ops.reshape(flat[first : first + size], shape))
            first += size
        return parts

    def _spread_parts(self, per_group, outside=0.0):
        """Per member one number per slice, broadcastable to it; `outside` for slices in no group."""
        rest = ops.full((1,), outside, per_group.dtype)
        per_slice = ops.take(ops.concatenate([per_group, rest]), self._places[0])
        parts, first = [], 0
        for shape, axis, groups in self.members:
            along = [-1 if i == axis else 1 for i in range(len(shape))]
            parts.append(ops.reshape(per_slice[first : first + len(groups)], along))
            first += len(groups)
        return parts

    def _per_slice(self, reduced, parts):
        """Each slice of each member as one number, in one row."""
        found = []
        for part, (shape, axis, _) in zip(parts, self.members, strict=True):
            others = tuple(i for i in range(len(shape)) if i != axis)
            found.append(reduced(part, axis=others) if others else part)
        return ops.concatenate(found)


def _checked_members(members):
    """The members as a dictionary of (shape, axis ≥ 0, groups as an array)."""
    if not isinstance(members, Mapping) or not members:
        raise TypeError(
            f"members={members!r} must tell, by the paths of variables, their shape, axis and groups: {EXAMPLE}."
        )
    return {path: _checked_member(path, member) for path, member in members.items()}


def _checked_member(path, member):
    if not isinstance(path, str) or not isinstance(member, Sequence) or len(member) != 3:
        raise TypeError(f"members holds {path!r}: {member!r}, and a path leads to (shape, axis, groups): {EXAMPLE}.")
    shape, axis, groups = member
    if hasattr(shape, "as_list"):
        shape = shape.as_list()  # TensorFlow's variables have a TensorShape, which is no sequence
    if not _are_whole(shape) or min(shape) < 1:
        raise ValueError(f"members[{path!r}] has the shape {shape!r}: give the variable's shape, such as (10, 3).")
    shape = tuple(int(size) for size in shape)
    if not _are_whole([axis]) or not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"members[{path!r}] has the axis {axis!r}, which a variable of shape {shape} lacks. Use an axis between "
            f"{-len(shape)} and {len(shape) - 1}."
        )
    axis = int(axis) % len(shape)
    if not _are_whole(groups) or len(groups) != shape[axis] or min(groups) < -1:
        raise ValueError(
            f"members[{path!r}] has the groups {groups!r}. Give {shape[axis]} whole numbers, the group of each index "
            f"of axis {axis}, −1 for none."
        )
    return shape, axis, np.asarray(groups, "int64")


def _are_whole(given):
    """Whether it is a non-empty row of whole numbers."""
    if isinstance(given, np.ndarray):
        return given.ndim == 1 and given.size > 0 and np.issubdtype(given.dtype, np.integer)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        return False
    return all(isinstance(one, numbers.Integral) and not isinstance(one, (bool, np.bool_)) for one in given)
