"""Layers that move entries to other positions, and layers that merge several tensors."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from poise._keras_internals import operation_of
from poise.compaction.calls import Call
from poise.compaction.elementwise import PassThrough, operation_class
from poise.compaction.handlers import Counter, LayerHandler, Selector, register


class Rearrangement(LayerHandler):
    """Every entry of the output is an entry of the input: `rearrange` says which."""

    def supports(self, call: Call) -> bool:
        tensor = call.inputs[0]
        shape = call.outputs[0].shape
        return tensor.axis is not None and len(shape) > 1 and None not in (*tensor.shape[1:], *shape[1:])

    def link_units(self, call: Call) -> None:
        tensor, output = call.inputs[0], call.outputs[0]
        units = self.rearrange(
            call, np.broadcast_to(self._along(call, call.take_units(0, tensor.axis)), tensor.shape[1:])
        )
        axis = self.output_axis(call)
        rows = np.moveaxis(units, axis - 1, -1).reshape(-1, units.shape[axis - 1])
        for row in rows[1:]:
            call.graph.units.join(rows[0], row)
        if (rows != rows[0]).any():
            call.graph.units.mark_untraceable(rows.reshape(-1))
        output.carry(axis, rows[0])

    def find_constants(self, call: Call) -> None:
        axis = call.outputs[0].axis - 1
        spread = np.broadcast_to(self._along(call, call.input_constants(0)), call.inputs[0].shape[1:])
        values = self.rearrange(call, spread)
        rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        call.outputs[0].constants = np.where((rows == rows[0]).all(axis=0), rows[0], np.nan)

    def find_needed(self, call: Call) -> None:
        tensor, output = call.inputs[0], call.outputs[0]
        numbers = np.arange(math.prod(tensor.shape[1:])).reshape(tensor.shape[1:])
        shape = [-1 if axis == output.axis else 1 for axis in range(1, len(output.shape))]
        is_needed = np.zeros(numbers.size, bool)
        taken = self.rearrange(call, numbers)
        is_needed[taken[np.broadcast_to(output.needed.reshape(shape), taken.shape)]] = True
        others = tuple(axis for axis in range(len(tensor.shape) - 1) if axis != tensor.axis - 1)
        call.mark_needed(0, np.asarray(is_needed.reshape(numbers.shape).any(axis=others)))

    def rearrange(self, call: Call, entries: np.ndarray) -> np.ndarray:
        """Return the entries of one sample of the input at their positions in the output."""
        raise NotImplementedError

    def output_axis(self, call: Call) -> int:
        """Return the axis of the output along which the units lie."""
        return len(call.outputs[0].shape) - 1

    def _along(self, call: Call, values: np.ndarray) -> np.ndarray:
        tensor = call.inputs[0]
        return values.reshape([-1 if axis == tensor.axis else 1 for axis in range(1, len(tensor.shape))])


@register(layers.Flatten)
class Flattening(Rearrangement):
    """Puts the entries of a sample into one row."""

    def rearrange(self, call: Call, entries: np.ndarray) -> np.ndarray:
        if call.layer.data_format == "channels_first" and entries.ndim > 1:
            entries = np.moveaxis(entries, 0, -1)
        return entries.reshape(-1)


@register(layers.Reshape)
class Reshaping(Rearrangement):
    """Puts the entries of a sample, in C order, into another shape."""

    is_sized = True

    def rearrange(self, call: Call, entries: np.ndarray) -> np.ndarray:
        return entries.reshape(call.outputs[0].shape[1:])

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        axis = call.outputs[0].axis
        shape = [*call.layer.target_shape]
        if shape[axis - 1] != -1:
            shape[axis - 1] = count(call.outputs[0].units)
        return {**config, "target_shape": shape}


@register(layers.Permute)
class Permutation(PassThrough):
    """Reorders the axes."""

    def link_units(self, call: Call) -> None:
        axis = call.inputs[0].axis
        call.outputs[0].carry(1 + call.layer.dims.index(axis), call.take_units(0, axis))


@register(type(operation_of(ops.take(keras.KerasTensor((1, 2)), [0], axis=1))))
class Selection(LayerHandler):
    """Takes the entries at constant positions of an axis, each at most once."""

    is_sized = True  # the positions depend on the units that stay

    def supports(self, call: Call) -> bool:
        return self._positions(call) is not None

    def link_units(self, call: Call) -> None:
        axis = call.inputs[0].axis
        call.outputs[0].carry(axis, call.take_units(0, axis)[self._positions(call)])

    def find_constants(self, call: Call) -> None:
        call.outputs[0].constants = call.input_constants(0)[self._positions(call)]

    def find_needed(self, call: Call) -> None:
        needed = np.zeros(len(call.input_units[0]), bool)
        needed[self._positions(call)] = call.outputs[0].needed
        call.mark_needed(0, needed)

    def resize_arguments(self, call: Call, args: tuple, kwargs: dict[str, Any], stays: Selector) -> tuple[tuple, dict]:
        is_kept = stays(call.input_units[0])
        positions = self._positions(call)
        places = (np.cumsum(is_kept) - 1)[positions][is_kept[positions]]
        tensor = args[0] if args else kwargs["x"]
        return (tensor, places.tolist()), {}

    def _positions(self, call: Call) -> np.ndarray | None:
        """Return the positions, or None if they are not constant, distinct and along the axis of the units."""
        tensor, axis = call.inputs[0], call.layer.axis
        args, kwargs = call.arguments.args, call.arguments.kwargs
        taken = args[1] if len(args) > 1 else kwargs.get("indices")
        if len(call.inputs) != 1 or isinstance(taken, keras.KerasTensor):  # the positions are data
            return None
        if tensor.axis is None or axis is None or axis % len(tensor.shape) != tensor.axis:
            return None
        size, positions = tensor.shape[tensor.axis], np.asarray(taken)
        if size is None or positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
            return None
        positions = np.where(positions < 0, positions + size, positions)
        is_valid = ((positions >= 0) & (positions < size)).all() and len(np.unique(positions)) == len(positions)
        return positions if is_valid else None


@register(layers.RepeatVector)
class Repetition(PassThrough):
    """Repeats a vector along a new axis."""

    def link_units(self, call: Call) -> None:
        call.outputs[0].carry(2, call.take_units(0, 1))


class ElementwiseMerge(LayerHandler):
    """Index j of the output is a function of index j of every input. An input of size one is used for every j.

    Args:
        function: Function of arrays of constants.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def supports(self, call: Call) -> bool:
        """Whether all arguments are tensors of the graph or single numbers, and one of them carries units."""
        flat = keras.tree.flatten((call.arguments.args, call.arguments.kwargs))
        are_known = all(isinstance(leaf, keras.KerasTensor) or leaf is None or _is_number(leaf) for leaf in flat)
        are_followed = any(tensor.axis is not None for tensor in call.inputs)
        return are_known and are_followed and call.outputs[0].shape[self._axis(call)] is not None

    def link_units(self, call: Call) -> None:
        rank = len(call.outputs[0].shape)
        axis = self._axis(call)
        size = call.outputs[0].shape[axis]
        matching, has_unknown_length = [], False
        for number, tensor in enumerate(call.inputs):
            if len(tensor.shape) < -axis or (len(tensor.shape) == -axis and isinstance(call.layer, layers.Layer)):
                continue  # broadcast along the axis; layers keep the batch axis in front
            units = call.take_units(number, axis)
            if len(units) == size:
                matching.append(units)
            else:
                call.graph.units.pin(units, f"{call.description} broadcasts this tensor to every unit")
            has_unknown_length |= tensor.shape[axis] is None
        for units in matching[1:]:
            call.graph.units.join(matching[0], units)
        if has_unknown_length:  # which may be the same length
            call.graph.units.pin(matching[0], f"{call.description} merges this tensor with one of unknown length")
        call.outputs[0].carry(rank + axis, matching[0])

    def find_constants(self, call: Call) -> None:
        if len(call.input_units) < len(call.inputs) or not all(map(len, call.input_units.values())):
            return
        constants = iter([call.input_constants(number) for number in range(len(call.inputs))])
        args, kwargs = call.arguments.convert(
            lambda leaf: next(constants) if isinstance(leaf, keras.KerasTensor) else _to_number(leaf)
        )
        with np.errstate(all="ignore"):
            values = np.broadcast_to(self.function(*args, **kwargs), call.outputs[0].constants.shape).astype("float64")
        call.outputs[0].constants = np.where(np.isfinite(values), values, np.nan)

    def find_needed(self, call: Call) -> None:
        needed = call.outputs[0].needed
        for number, units in call.input_units.items():
            call.mark_needed(number, needed if len(units) == len(needed) else np.full(len(units), needed.any()))

    def _axis(self, call: Call) -> int:
        """Return the axis, counted from the last, along which most of the inputs carry their units."""
        axes = [tensor.axis - len(tensor.shape) for tensor in call.inputs if tensor.axis is not None]
        return max(set(axes), key=axes.count)


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, keras.Variable)


def _to_number(value: Any) -> Any:
    """Return a number as it is, and a scalar tensor as a NumPy scalar."""
    return ops.convert_to_numpy(value).astype("float64") if ops.is_tensor(value) else value


def _product(*factors: Any) -> np.ndarray:
    """Return the product, which is zero where any factor is zero, even if the others are not constant (NaN)."""
    is_zero = np.any(np.broadcast_arrays(*[np.equal(factor, 0) for factor in factors]), axis=0)
    return np.where(is_zero, 0.0, math.prod(factors))


for layer_class, function in (
    (layers.Add, sum),
    (layers.Subtract, lambda pair: pair[0] - pair[1]),
    (layers.Multiply, lambda factors: _product(*factors)),
    (layers.Average, lambda terms: sum(terms) / len(terms)),
    (layers.Maximum, lambda terms: np.max(np.broadcast_arrays(*terms), axis=0)),
    (layers.Minimum, lambda terms: np.min(np.broadcast_arrays(*terms), axis=0)),
    (operation_class(ops.add, 2), np.add),
    (operation_class(ops.subtract, 2), np.subtract),
    (operation_class(ops.multiply, 2), _product),
    (operation_class(ops.divide, 2), np.divide),
    (operation_class(ops.true_divide, 2), np.divide),  # the operator /
    (operation_class(ops.power, 2), np.power),
    (operation_class(ops.maximum, 2), np.maximum),
    (operation_class(ops.minimum, 2), np.minimum),
):
    register(layer_class)(ElementwiseMerge(function))


@register(layers.Concatenate)
class Concatenation(LayerHandler):
    """Puts tensors one after the other, along the axis of their units or along another one."""

    def supports(self, call: Call) -> bool:
        return any(tensor.axis is not None for tensor in call.inputs)

    def link_units(self, call: Call) -> None:
        axis = next(tensor.axis for tensor in call.inputs if tensor.axis is not None)
        parts = [call.take_units(number, axis) for number in range(len(call.inputs))]
        if self.axis(call) == axis:
            call.outputs[0].carry(axis, np.concatenate(parts))
        else:
            for units in parts[1:]:
                call.graph.units.join(parts[0], units)
            call.outputs[0].carry(axis, parts[0])

    def find_constants(self, call: Call) -> None:
        parts = [call.input_constants(number) for number in range(len(call.inputs))]
        if self._is_along(call):
            call.outputs[0].constants = np.concatenate(parts)
        else:
            is_same = np.all([part == parts[0] for part in parts], axis=0)
            call.outputs[0].constants = np.where(is_same, parts[0], np.nan)

    def find_needed(self, call: Call) -> None:
        needed = call.outputs[0].needed
        first = 0
        for number in range(len(call.inputs)):
            size = len(call.input_units[number])
            call.mark_needed(number, needed[first : first + size] if self._is_along(call) else needed)
            first += size

    def axis(self, call: Call) -> int:
        """Return the axis along which the tensors are put one after the other."""
        return call.layer.axis % len(call.outputs[0].shape)

    def _is_along(self, call: Call) -> bool:
        return self.axis(call) == call.outputs[0].axis
