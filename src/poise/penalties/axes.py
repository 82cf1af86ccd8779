"""Along which axes of a variable its inputs and its outputs lie.

A unit of a layer is not always an index of one axis. The outputs of an attention projection are numbered by (head,
entry of the head), two axes; a unit of an LSTM has four columns of its kernel, one per gate, so that the last axis
holds (gate, unit); a grouped convolution has its input channels on two axes. So the axes of a variable are split into
parts, and a side of the variable is an ordered choice of those parts.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops


@dataclass(frozen=True)
class Axes:
    """The units along some axes of a variable, numbered in C order.

    Attributes:
        parts: Per axis of the variable the lengths of the parts that it is split into, the outermost first; a single
            length for an axis that is not split.
        chosen: The positions, among the parts of all axes, of those that number the units, the outermost first.

    Examples:
        >>> from poise.penalties.axes import Axes
        >>> Axes.blocks((2, 6), axis=1, count=2).numbers.tolist()  # two gates of three units
        [[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2]]
    """

    parts: tuple[tuple[int, ...], ...]
    chosen: tuple[int, ...]

    @classmethod
    def along(cls, shape: Sequence[int], *axes: int) -> "Axes":
        """Return the indices of one axis, or of several axes as one."""
        return cls(tuple((size,) for size in shape), tuple(axis % len(shape) for axis in axes))

    @classmethod
    def blocks(cls, shape: Sequence[int], axis: int, count: int) -> "Axes":
        """Return the positions inside the `count` equal blocks of an axis, such as the gates of an LSTM."""
        axis = axis % len(shape)
        return cls(_split(shape, axis, count), (axis + 1,))

    @classmethod
    def across(cls, shape: Sequence[int], blocks: int, count: int, other: int) -> "Axes":
        """Return (block of axis `blocks`, index of axis `other`), as a grouped convolution numbers its channels."""
        blocks, other = blocks % len(shape), other % len(shape)
        return cls(_split(shape, blocks, count), (blocks, other + (other > blocks)))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the variable."""
        return tuple(map(math.prod, self.parts))

    @cached_property
    def count(self) -> int:
        """The number of units."""
        return math.prod(self._lengths[part] for part in self.chosen)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The unit of every entry of the variable."""
        ordered = np.arange(self.count).reshape([self._lengths[part] for part in self.chosen])
        spread = np.transpose(ordered, np.argsort(self.chosen)).reshape(self._marked)
        return np.broadcast_to(spread, self._lengths).reshape(self.shape)

    def reduce(self, reduction: Callable[..., Any], x: Any) -> Any:
        """Return one number per unit: `reduction` (`ops.sum` or `ops.max`) over the other parts of a tensor."""
        x = ops.reshape(x, self._lengths) if self._is_split else x
        x = reduction(x, axis=self._others) if self._others else x
        x = x if self._is_sorted else ops.transpose(x, np.argsort(np.argsort(self.chosen)).tolist())
        return x if len(self.chosen) == 1 else ops.reshape(x, (-1,))

    def spread(self, per_unit: Any) -> Any:
        """Give the number of each unit to its entries; broadcastable to the variable."""
        if len(self.chosen) > 1:
            per_unit = ops.reshape(per_unit, [self._lengths[part] for part in self.chosen])
            per_unit = per_unit if self._is_sorted else ops.transpose(per_unit, np.argsort(self.chosen).tolist())
        x = ops.reshape(per_unit, self._marked)
        if not self._is_split:
            return x
        # The parts of an axis become one axis again, and so must all be there.
        first = np.cumsum([0, *map(len, self.parts)])
        ranges = [range(begin, begin + len(lengths)) for begin, lengths in zip(first, self.parts, strict=False)]
        has_units = [any(part in self.chosen for part in of_axis) for of_axis in ranges]
        whole = [
            self._lengths[part] if yes else 1
            for of_axis, yes in zip(ranges, has_units, strict=True)
            for part in of_axis
        ]
        joined = [size if yes else 1 for size, yes in zip(self.shape, has_units, strict=True)]
        return ops.reshape(ops.broadcast_to(x, whole), joined)

    def matrix(self, w: Any) -> Any:
        """Return the variable as a matrix with one column per unit."""
        if self._is_last:
            return ops.reshape(w, (-1, self.count))
        parts = ops.transpose(ops.reshape(w, self._lengths), [*self._others, *self.chosen])
        return ops.reshape(parts, (-1, self.count))

    def from_matrix(self, matrix: Any) -> Any:
        """Return the variable of a matrix: the inverse of `matrix`."""
        if self._is_last:
            return ops.reshape(matrix, self.shape)
        order = [*self._others, *self.chosen]
        parts = ops.reshape(matrix, [self._lengths[part] for part in order])
        return ops.reshape(ops.transpose(parts, np.argsort(order).tolist()), self.shape)

    def columns(self, w: np.ndarray) -> np.ndarray:
        """Do the same as `matrix` for NumPy arrays with any axes in front."""
        lead = w.shape[: w.ndim - len(self.parts)]
        order = [*range(len(lead)), *(len(lead) + part for part in [*self._others, *self.chosen])]
        rows = math.prod(self._lengths[part] for part in self._others)
        return w.reshape(*lead, *self._lengths).transpose(order).reshape(*lead, rows, self.count)

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(itertools.chain.from_iterable(self.parts))

    @cached_property
    def _others(self) -> tuple[int, ...]:
        return tuple(part for part in range(len(self._lengths)) if part not in self.chosen)

    @cached_property
    def _marked(self) -> list[int]:
        """The lengths of the parts that number the units, 1 for the others."""
        return [size if part in self.chosen else 1 for part, size in enumerate(self._lengths)]

    @property
    def _is_split(self) -> bool:
        return len(self._lengths) > len(self.parts)

    @property
    def _is_sorted(self) -> bool:
        return list(self.chosen) == sorted(self.chosen)

    @property
    def _is_last(self) -> bool:
        """Whether a reshape without a transpose makes the units columns."""
        first = len(self._lengths) - len(self.chosen)
        return list(self.chosen) == list(range(first, len(self._lengths)))


@dataclass(frozen=True)
class Sides:
    """Where the inputs and the outputs of a variable lie.

    Attributes:
        inputs: The axes of the inputs; None if they are not known, or the variable has no such side.
        outputs: The axes of the outputs; None likewise.
        columns: The columns of the matrix that penalties of a matrix (`NuclearNorm`, `Orthogonal`) act on; None for the
            outputs. They differ where a unit has several columns, one per gate.
        unknown: Why a side is not known and what to do about it, for the message.
    """

    inputs: Axes | None = None
    outputs: Axes | None = None
    columns: Axes | None = None
    unknown: str = ""


def keras_sides(shape: Sequence[int]) -> Sides:
    """Return the sides by the convention of Keras: the outputs are the last axis, the inputs the one before it."""
    if not len(shape):
        return Sides()
    return Sides(Axes.along(shape, -2 if len(shape) > 1 else -1), Axes.along(shape, -1))


def why_no_axis(name: str, axis: Any, shape: Sequence[int]) -> str:
    """Return the message for a penalty on a variable that lacks its axis."""
    shape = tuple(shape)
    return (
        f"{name} acts along axis {axis!r}, which a variable of shape {shape} lacks. Use an axis from {-len(shape)} to "
        f"{len(shape) - 1}, or exclude the variable from the rule."
        if shape
        else f"{name} needs a variable with axes, got a scalar. Exclude the variable from the rule."
    )


def _split(shape: Sequence[int], axis: int, count: int) -> tuple[tuple[int, ...], ...]:
    parts: list[tuple[int, ...]] = [(size,) for size in shape]
    parts[axis] = (count, shape[axis] // count)
    return tuple(parts)
