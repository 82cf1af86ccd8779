"""A group penalty whose groups run across several variables, such as all that belongs to a unit of a network.

A unit is a column of a kernel, an entry of its bias and of a normalization's scale and shift, and a row of the kernel
that reads it: slices of several variables, which become zero together. The penalty acts on one vector, the members'
entries one after the other, so that it is `GroupLasso` with other groups and has its closed formulas.

Every sum over a group first runs over the other axes of each member, and then over one number per index of a member's
axis: networks have millions of entries, and thousands of slices.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from poise.penalties.axes import Axes
from poise.penalties.base import PACKAGE
from poise.penalties.groups import Grouped
from poise.penalties.layouts import Groups
from poise.validation import is_integer

Member: TypeAlias = tuple[tuple[int, ...], int, np.ndarray]
EXAMPLE = "members={'hidden/kernel': ((10, 3), 1, [0, 1, 2]), 'hidden/bias': ((3,), 0, [0, 1, 2])}"


@keras.saving.register_keras_serializable(PACKAGE)
class JointGroupLasso(Grouped):
    """Penalize strength · Σ_g c_g √(Σ_m ‖w_{m,g}‖²) over groups that hold slices of several variables m.

    This is the group lasso across variables: whole units become exactly zero, with every weight that belongs to them.
    Use it in a rule that selects its members, or pass it to `PenalizedOptimizer` without a rule; the members are then
    penalized together. Outside an optimizer it acts on any tensor that has as many entries as all members, in their
    order, each in C order.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        members: Maps the path of a variable (`variable.path`) to a triple (shape, axis, groups): its shape, the axis
            along which it is cut into slices, and per index of that axis the number of the slice's group (−1 if it is
            in no group). The numbers run from 0 without gaps, over all members together. If several variables have the
            same path, append the place of the intended one: "fc/kernel (2 of 2)".
        factors: Factors c per group. Default: None, for √(number of entries in the group, in all members).

    Raises:
        TypeError: If `members` is not a dictionary of such triples.
        ValueError: If a triple is not consistent.

    References:
        Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables".

    Examples:
        >>> import poise, keras
        >>> members = {"hidden/kernel": ((2, 2), 1, [0, 1]), "hidden/bias": ((2,), 0, [0, 1])}
        >>> units = poise.JointGroupLasso(members=members, factors=[1.0, 1.0])
        >>> w = keras.ops.array([2.0, 0.3, 1.0, 0.4, 2.0, 0.0])  # unit 0 has the entries 0, 2 and 4
        >>> print(keras.ops.convert_to_numpy(units.prox(w, step=1.0, strength=1.5)))
        [1.  0.  0.5 0.  1.  0. ]
    """

    def __init__(self, strength: Any = 1.0, members: Any = None, factors: Any = None) -> None:
        super().__init__(strength, factors)
        self._members = _validate_members(members)
        self.members = self._members
        shapes, _, segments = zip(*self._members.values(), strict=True)
        self._segments = np.concatenate(segments)
        self._count = int(self._segments.max()) + 1
        if not self._count:
            raise ValueError(
                "members: every slice has the group -1 (no group), so there is nothing to penalize. Number the groups "
                "from 0."
            )
        lengths = [math.prod(shape) // len(groups) for shape, groups in zip(shapes, segments, strict=True)]
        slices = np.repeat(lengths, [len(groups) for groups in segments])
        is_inside = self._segments >= 0
        self._sizes = np.bincount(self._segments[is_inside], slices[is_inside], self._count)
        empty = np.flatnonzero(self._sizes == 0)
        if len(empty):
            raise ValueError(
                f"members: group {empty[0]} has no entries, but the numbers run to {self._count - 1}. Number the "
                "groups from 0 without gaps."
            )

    def layout_of(self, shape: Sequence[int]) -> "JointLayout":
        shape = tuple(shape)
        total = sum(math.prod(of_member) for of_member, _, _ in self._members.values())
        if math.prod(shape) != total:
            raise ValueError(
                f"JointGroupLasso acts on {total} entries, those of its {len(self._members)} members together, got a "
                f"tensor of shape {shape}. Use it in a poise.Rule, which joins the members."
            )
        factors = np.sqrt(self._sizes)
        if self.factors is not None:
            if self.factors.shape not in ((), (1,), (self._count,)):
                raise ValueError(
                    f"JointGroupLasso has factors of shape {self.factors.shape} for {self._count} groups. Give one "
                    "factor per group."
                )
            factors = ops.broadcast_to(self.factors, (self._count,))
        return JointLayout(shape, list(self._members.values()), self._segments, factors)

    def get_config(self) -> dict[str, Any]:
        members = {path: [list(shape), axis, groups.tolist()] for path, (shape, axis, groups) in self._members.items()}
        return {"members": members, **super().get_config()}

    def __repr__(self) -> str:
        return f"JointGroupLasso(strength={self.strength!r}, {self._count} groups over {len(self._members)} variables)"


@dataclass(frozen=True, eq=False)
class JointLayout(Groups):
    """Groups of slices of several members, which lie one after the other in a tensor.

    Attributes:
        shape: The shape of the tensor.
        members: The triples (shape, axis, groups).
        segments: All their groups in one row, −1 for none.
        factors: c per group.
    """

    shape: tuple[int, ...]
    members: list[Member]
    segments: np.ndarray
    factors: Any

    @property
    def slices(self) -> list[tuple[Axes, np.ndarray]]:
        return [(Axes.along(shape, axis), groups) for shape, axis, groups in self.members]

    @property
    def is_outside(self) -> Any:
        if (self.segments >= 0).all():
            return None
        return self.spread(ops.zeros(self.factors.shape, "bool"), outside=True)

    def sums(self, x: Any) -> Any:
        (total,) = self.sum_each(lambda x: (x,), [x], [])
        return total

    def sum_each(self, of: Callable[..., Sequence[Any]], entries: Sequence[Any], per_group: Sequence[Any]) -> list[Any]:
        """Sum member by member, so that no tensor is joined only to be split again."""
        spread = [self._spread_parts(number, outside=1.0) for number in per_group]
        by_member = [of(*parts) for parts in zip(*map(self._parts, entries), *spread, strict=True)]
        rows = [self._per_slice(ops.sum, parts) for parts in zip(*by_member, strict=True)]
        return [ops.segment_sum(row, *self._places)[: self._count] for row in rows]

    def largest(self, x: Any) -> Any:
        return ops.segment_max(self._per_slice(ops.max, self._parts(x)), *self._places)[: self._count]

    def spread(self, per_group: Any, outside: Any = 0.0) -> Any:
        parts = zip(self._spread_parts(per_group, outside), self.members, strict=True)
        whole = [ops.reshape(ops.broadcast_to(part, shape), (-1,)) for part, (shape, _, _) in parts]
        return ops.reshape(ops.concatenate(whole), self.shape)

    @property
    def _count(self) -> int:
        return self.factors.shape[0]

    @property
    def _places(self) -> Any:
        """The place of each slice, its group or one more place for all slices in none, and the number of places."""
        return self.segments % (self._count + 1), self._count + 1

    def _parts(self, x: Any) -> Any:
        """The members, each in its shape."""
        flat = ops.reshape(x, (-1,))
        parts, first = [], 0
        for shape, _, _ in self.members:
            size = math.prod(shape)
            parts.append(ops.reshape(flat[first : first + size], shape))
            first += size
        return parts

    def _spread_parts(self, per_group: Any, outside: Any = 0.0) -> Any:
        """Per member one number per slice, broadcastable to it; `outside` for slices in no group."""
        of_outside = ops.full((1,), outside, per_group.dtype)
        per_slice = ops.take(ops.concatenate([per_group, of_outside]), self._places[0])
        parts, first = [], 0
        for shape, axis, groups in self.members:
            along = [-1 if i == axis else 1 for i in range(len(shape))]
            parts.append(ops.reshape(per_slice[first : first + len(groups)], along))
            first += len(groups)
        return parts

    def _per_slice(self, reduce: Callable[..., Any], parts: Any) -> Any:
        """Each slice of each member as one number, in one row."""
        rows = []
        for part, (shape, axis, _) in zip(parts, self.members, strict=True):
            others = tuple(i for i in range(len(shape)) if i != axis)
            rows.append(reduce(part, axis=others) if others else part)
        return ops.concatenate(rows)


def _validate_members(members: Any) -> dict[str, Member]:
    """The members as a dictionary of (shape, axis ≥ 0, groups as an array)."""
    if not isinstance(members, Mapping) or not members:
        raise TypeError(
            f"members must be a dictionary of (shape, axis, groups) by the paths of variables, got {members!r}. "
            f"Example: {EXAMPLE}."
        )
    return {path: _validate_member(path, member) for path, member in members.items()}


def _validate_member(path: Any, member: Any) -> Member:
    if not isinstance(path, str) or not isinstance(member, Sequence) or len(member) != 3:
        raise TypeError(
            f"members must map paths to (shape, axis, groups), got {path!r}: {member!r}. Example: {EXAMPLE}."
        )
    shape, axis, groups = member
    if hasattr(shape, "as_list"):
        shape = shape.as_list()  # TensorFlow's variables have a TensorShape, which is not a sequence
    if not _are_integers(shape) or min(shape) < 1:
        raise ValueError(f"members[{path!r}] has the shape {shape!r}. Use the variable's shape, such as (10, 3).")
    shape = tuple(int(size) for size in shape)
    if not _are_integers([axis]) or not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"members[{path!r}] has the axis {axis!r}, which a variable of shape {shape} lacks. Use an axis between "
            f"{-len(shape)} and {len(shape) - 1}."
        )
    axis = int(axis) % len(shape)
    if not _are_integers(groups) or len(groups) != shape[axis] or min(groups) < -1:
        raise ValueError(
            f"members[{path!r}] has the groups {groups!r}. Use {shape[axis]} integers: the number of the group for "
            f"each index along axis {axis}, or -1 for no group."
        )
    return shape, axis, np.asarray(groups, "int64")


def _are_integers(entries: Any) -> bool:
    """Whether the argument is a non-empty row of integers."""
    if isinstance(entries, np.ndarray):
        return entries.ndim == 1 and entries.size > 0 and np.issubdtype(entries.dtype, np.integer)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        return False
    return all(is_integer(entry) for entry in entries)
