"""Along which axes of a variable its inputs and its outputs lie.

A unit of a layer is not always an index of one axis. The outputs of an attention's projection are numbered by (head,
entry of the head), two axes; a unit of an LSTM has four columns of its kernel, one per gate, so that the last axis
holds (gate, unit); a grouped convolution has its input channels on two axes. So a variable is read with its axes
split into parts, and a side of it is an ordered choice of those parts.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops


@dataclass(frozen=True)
class Axes:
    """The units along some axes of a variable, numbered in C order.

    Attributes:
        parts: for each axis of the variable the lengths of the parts that it is split into, the outermost first;
            a single length where an axis is not split.
        chosen: the positions, among the parts of all axes, of those that number the units, the outermost first.

    Examples:
        >>> from poise.penalties.axes import Axes
        >>> Axes.blocks((2, 6), axis=1, count=2).numbers.tolist()  # two gates of three units
        [[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2]]
    """

    parts: tuple[tuple[int, ...], ...]
    chosen: tuple[int, ...]

    @classmethod
    def along(cls, shape, *axes: int) -> "Axes":
        """The indices of one axis, or of several as one."""
        return cls(tuple((size,) for size in shape), tuple(axis % len(shape) for axis in axes))

    @classmethod
    def blocks(cls, shape, axis: int, count: int) -> "Axes":
        """The positions inside `count` blocks of equal length that an axis is made of, such as the gates of an LSTM."""
        axis = axis % len(shape)
        return cls(_split(shape, axis, count), (axis + 1,))

    @classmethod
    def across(cls, shape, blocks: int, count: int, other: int) -> "Axes":
        """(block of the axis `blocks`, index of the axis `other`), as a grouped convolution numbers its channels."""
        blocks, other = blocks % len(shape), other % len(shape)
        return cls(_split(shape, blocks, count), (blocks, other + (other > blocks)))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """That of the variable."""
        return tuple(map(math.prod, self.parts))

    @cached_property
    def count(self) -> int:
        """How many units there are."""
        return math.prod(self._lengths[part] for part in self.chosen)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The unit of every entry of the variable."""
        ordered = np.arange(self.count).reshape([self._lengths[part] for part in self.chosen])
        spread = np.transpose(ordered, np.argsort(self.chosen)).reshape(self._marked)
        return np.broadcast_to(spread, self._lengths).reshape(self.shape)

    def reduced(self, reduce, x) -> Any:
        """One number per unit: `reduce` (`ops.sum` or `ops.max`) over the other parts of a tensor of the shape."""
        x = ops.reshape(x, self._lengths) if self._is_split else x
        x = reduce(x, axis=self._others) if self._others else x
        x = x if self._is_sorted else ops.transpose(x, np.argsort(np.argsort(self.chosen)).tolist())
        return x if len(self.chosen) == 1 else ops.reshape(x, (-1,))

    def spread(self, per_unit) -> Any:
        """One number per unit, given to each of its entries, broadcastable to the variable."""
        if len(self.chosen) > 1:
            per_unit = ops.reshape(per_unit, [self._lengths[part] for part in self.chosen])
            per_unit = per_unit if self._is_sorted else ops.transpose(per_unit, np.argsort(self.chosen).tolist())
        x = ops.reshape(per_unit, self._marked)
        if not self._is_split:
            return x
        # The parts of an axis become one axis again, and so must all be there.
        first = np.cumsum([0, *map(len, self.parts)])
        ranges = [range(begin, begin + len(own)) for begin, own in zip(first, self.parts, strict=False)]
        has_units = [any(part in self.chosen for part in own) for own in ranges]
        whole = [self._lengths[part] if yes else 1 for own, yes in zip(ranges, has_units, strict=True) for part in own]
        joined = [size if yes else 1 for size, yes in zip(self.shape, has_units, strict=True)]
        return ops.reshape(ops.broadcast_to(x, whole), joined)

    def matrix(self, w) -> Any:
        """The variable as a matrix, one column per unit."""
        if self._is_last:
            return ops.reshape(w, (-1, self.count))
        parts = ops.transpose(ops.reshape(w, self._lengths), [*self._others, *self.chosen])
        return ops.reshape(parts, (-1, self.count))

    def from_matrix(self, matrix) -> Any:
        """The inverse of `matrix`."""
        if self._is_last:
            return ops.reshape(matrix, self.shape)
        order = [*self._others, *self.chosen]
        parts = ops.reshape(matrix, [self._lengths[part] for part in order])
        return ops.reshape(ops.transpose(parts, np.argsort(order).tolist()), self.shape)

    def columns(self, w: np.ndarray) -> np.ndarray:
        """As `matrix`, of NumPy arrays with any axes in front."""
        lead = w.shape[: w.ndim - len(self.parts)]
        order = [*range(len(lead)), *(len(lead) + part for part in [*self._others, *self.chosen])]
        rest = math.prod(self._lengths[part] for part in self._others)
        return w.reshape(*lead, *self._lengths).transpose(order).reshape(*lead, rest, self.count)

    @cached_property
    def _lengths(self):
        return tuple(itertools.chain.from_iterable(self.parts))

    @cached_property
    def _others(self):
        return tuple(part for part in range(len(self._lengths)) if part not in self.chosen)

    @cached_property
    def _marked(self):
        """The lengths of the parts that number the units, 1 for the others."""
        return [size if part in self.chosen else 1 for part, size in enumerate(self._lengths)]

    @property
    def _is_split(self):
        return len(self._lengths) > len(self.parts)

    @property
    def _is_sorted(self):
        return list(self.chosen) == sorted(self.chosen)

    @property
    def _is_last(self):
        """Whether a mere reshape makes the units columns."""
        first = len(self._lengths) - len(self.chosen)
        return list(self.chosen) == list(range(first, len(self._lengths)))


@dataclass(frozen=True)
class Sides:
    """Where the inputs and the outputs of a variable lie.

    Attributes:
        inputs, outputs: their axes; None where that is not known, or the variable has no such side.
        columns: those of the matrix that penalties of a matrix (`NuclearNorm`, `Orthogonal`) see; None for the outputs.
            They differ where a unit has several columns, one per gate.
        unknown: why a side is not known and what to do about it, for the message.
    """

    inputs: Axes | None = None
    outputs: Axes | None = None
    columns: Axes | None = None
    unknown: str = ""


def keras_sides(shape) -> Sides:
    """The convention of Keras for Dense and Conv: the outputs are the last axis, the inputs the one before it."""
    if not len(shape):
        return Sides()
    return Sides(Axes.along(shape, -2 if len(shape) > 1 else -1), Axes.along(shape, -1))


def _split(shape, axis, count):
    parts = [(size,) for size in shape]
    parts[axis] = (count, shape[axis] // count)
    return tuple(parts)
