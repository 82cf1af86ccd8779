"""Layers that put indices in other places, and those that bring several tensors together."""

import math

import keras
import numpy as np
from keras import layers, ops

from poise.compaction.elementwise import Passing, class_of
from poise.compaction.graph import Call
from poise.compaction.handlers import Kind, register


class Moved(Kind):
    """Every entry of the output is an entry of the input: `places` says which."""

    def follows(self, call: Call) -> bool:
        tensor = call.inputs[0]
        shape = call.outputs[0].shape
        return tensor.axis is not None and len(shape) > 1 and None not in (*tensor.shape[1:], *shape[1:])

    def link(self, call: Call):
        tensor, output = call.inputs[0], call.outputs[0]
        units = self.places(call, np.broadcast_to(self._along(call, call.enter(0, tensor.axis)), tensor.shape[1:]))
        axis = self.out_axis(call)
        rows = np.moveaxis(units, axis - 1, -1).reshape(-1, units.shape[axis - 1])
        for row in rows[1:]:
            call.graph.units.join(rows[0], row)
        output.carry(axis, rows[0])

    def constants(self, call: Call):
        axis = call.outputs[0].axis - 1
        spread = np.broadcast_to(self._along(call, call.entering(0)), call.inputs[0].shape[1:])
        values = self.places(call, spread)
        rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        call.outputs[0].constants = np.where((rows == rows[0]).all(axis=0), rows[0], np.nan)

    def needs(self, call: Call):
        tensor, output = call.inputs[0], call.outputs[0]
        numbers = np.arange(math.prod(tensor.shape[1:])).reshape(tensor.shape[1:])
        shape = [-1 if axis == output.axis else 1 for axis in range(1, len(output.shape))]
        is_needed = np.zeros(numbers.size, bool)
        taken = self.places(call, numbers)
        is_needed[taken[np.broadcast_to(output.needed.reshape(shape), taken.shape)]] = True
        others = tuple(axis for axis in range(len(tensor.shape) - 1) if axis != tensor.axis - 1)
        call.need(0, np.asarray(is_needed.reshape(numbers.shape).any(axis=others)))

    def places(self, call: Call, entries: np.ndarray) -> np.ndarray:
        """The entries of one row of the input, (without the batch), where the layer puts them."""
        raise NotImplementedError

    def out_axis(self, call: Call) -> int:
        return len(call.outputs[0].shape) - 1

    def _along(self, call: Call, values: np.ndarray) -> np.ndarray:
        tensor = call.inputs[0]
        return values.reshape([-1 if axis == tensor.axis else 1 for axis in range(1, len(tensor.shape))])


@register(layers.Flatten)
class Flattened(Moved):
    def places(self, call: Call, entries: np.ndarray) -> np.ndarray:
        if call.layer.data_format == "channels_first" and entries.ndim > 1:
            entries = np.moveaxis(entries, 0, -1)
        return entries.reshape(-1)


@register(layers.Reshape)
class Reshaped(Moved):
    is_sized = True

    def places(self, call: Call, entries: np.ndarray) -> np.ndarray:
        return entries.reshape(call.outputs[0].shape[1:])

    def resized(self, call: Call, config: dict, count) -> dict:
        axis = call.outputs[0].axis
        shape = [*call.layer.target_shape]
        if shape[axis - 1] != -1:
            shape[axis - 1] = count(call.outputs[0].units)
        return {**config, "target_shape": shape}


@register(layers.Permute)
class Permuted(Passing):
    def link(self, call: Call):
        axis = call.inputs[0].axis
        call.outputs[0].carry(1 + call.layer.dims.index(axis), call.enter(0, axis))


@register(layers.RepeatVector)
class Repeated(Passing):
    def link(self, call: Call):
        call.outputs[0].carry(2, call.enter(0, 1))


class Merged(Kind):
    """Index j of the output is a function of index j of every input; an input of one index counts for all.

    Args:
        function: of constants, as arrays.
    """

    def __init__(self, function):
        self.function = function

    def follows(self, call: Call) -> bool:
        """Whether all that is merged is a tensor of the graph or a single number, and one of them carries units."""
        flat = keras.tree.flatten((call.arguments.args, call.arguments.kwargs))
        are_known = all(isinstance(one, keras.KerasTensor) or one is None or _is_number(one) for one in flat)
        are_followed = any(tensor.axis is not None for tensor in call.inputs)
        return are_known and are_followed and call.outputs[0].shape[self._axis(call)] is not None

    def link(self, call: Call):
        rank = len(call.outputs[0].shape)
        axis = self._axis(call)
        size = call.outputs[0].shape[axis]
        shares, is_open = [], False
        for number, tensor in enumerate(call.inputs):
            if len(tensor.shape) < -axis or (len(tensor.shape) == -axis and isinstance(call.layer, layers.Layer)):
                continue  # broadcast along the axis, as an input of one index is; layers keep the batch in front
            units = call.enter(number, axis)
            if len(units) == size:
                shares.append(units)
            else:
                call.graph.units.pin(units, f"{call.layer.name!r} spreads it over all units")
            is_open |= tensor.shape[axis] is None
        for units in shares[1:]:
            call.graph.units.join(shares[0], units)
        if is_open:  # it may be as long, and meet unit by unit
            call.graph.units.pin(shares[0], f"{call.layer.name!r} brings it together with a tensor of unknown length")
        call.outputs[0].carry(rank + axis, shares[0])

    def constants(self, call: Call):
        if len(call.given) < len(call.inputs) or not all(map(len, call.given.values())):
            return
        entering = iter([call.entering(number) for number in range(len(call.inputs))])
        args, kwargs = call.arguments.convert(
            lambda one: next(entering) if isinstance(one, keras.KerasTensor) else _number(one)
        )
        with np.errstate(all="ignore"):
            values = np.broadcast_to(self.function(*args, **kwargs), call.outputs[0].constants.shape).astype("float64")
        call.outputs[0].constants = np.where(np.isfinite(values), values, np.nan)

    def needs(self, call: Call):
        needed = call.outputs[0].needed
        for number, units in call.given.items():
            call.need(number, needed if len(units) == len(needed) else np.full(len(units), needed.any()))

    def _axis(self, call: Call) -> int:
        """The axis, counted from the last, along which most of the inputs carry their units."""
        axes = [tensor.axis - len(tensor.shape) for tensor in call.inputs if tensor.axis is not None]
        return max(set(axes), key=axes.count)


def _is_number(one) -> bool:
    return np.ndim(one) == 0 and not isinstance(one, keras.Variable)


def _number(one):
    """A number, or a tensor of a single one as NumPy knows it."""
    return ops.convert_to_numpy(one).astype("float64") if ops.is_tensor(one) else one


def _product(*factors):
    """A product is zero where any factor is, whatever the others are."""
    is_zero = np.any(np.broadcast_arrays(*[np.equal(factor, 0) for factor in factors]), axis=0)
    return np.where(is_zero, 0.0, math.prod(factors))


for layer_class, function in (
    (layers.Add, sum),
    (layers.Subtract, lambda pair: pair[0] - pair[1]),
    (layers.Multiply, lambda factors: _product(*factors)),
    (layers.Average, lambda terms: sum(terms) / len(terms)),
    (layers.Maximum, lambda terms: np.max(np.broadcast_arrays(*terms), axis=0)),
    (layers.Minimum, lambda terms: np.min(np.broadcast_arrays(*terms), axis=0)),
    (class_of(ops.add, 2), np.add),
    (class_of(ops.subtract, 2), np.subtract),
    (class_of(ops.multiply, 2), _product),
    (class_of(ops.divide, 2), np.divide),
    (class_of(ops.true_divide, 2), np.divide),  # the operator /
    (class_of(ops.power, 2), np.power),
    (class_of(ops.maximum, 2), np.maximum),
    (class_of(ops.minimum, 2), np.minimum),
):
    register(layer_class)(Merged(function))


@register(layers.Concatenate)
class Concatenated(Kind):
    def follows(self, call: Call) -> bool:
        return any(tensor.axis is not None for tensor in call.inputs)

    def link(self, call: Call):
        axis = next(tensor.axis for tensor in call.inputs if tensor.axis is not None)
        parts = [call.enter(number, axis) for number in range(len(call.inputs))]
        if call.layer.axis % len(call.outputs[0].shape) == axis:
            call.outputs[0].carry(axis, np.concatenate(parts))
        else:
            for units in parts[1:]:
                call.graph.units.join(parts[0], units)
            call.outputs[0].carry(axis, parts[0])

    def constants(self, call: Call):
        parts = [call.entering(number) for number in range(len(call.inputs))]
        if self._is_along(call):
            call.outputs[0].constants = np.concatenate(parts)
        else:
            is_same = np.all([part == parts[0] for part in parts], axis=0)
            call.outputs[0].constants = np.where(is_same, parts[0], np.nan)

    def needs(self, call: Call):
        needed = call.outputs[0].needed
        first = 0
        for number in range(len(call.inputs)):
            size = len(call.given[number])
            call.need(number, needed[first : first + size] if self._is_along(call) else needed)
            first += size

    def _is_along(self, call: Call) -> bool:
        return call.layer.axis % len(call.outputs[0].shape) == call.outputs[0].axis
