"""EinsumDense: products in the notation of einsum."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers

from poise.compaction.calls import Call
from poise.compaction.handlers import (
    Counter,
    LayerHandler,
    Selector,
    WeightPart,
    activate_constants,
    count_positions,
    is_elementwise,
    needed_before_activation,
    register,
)


@dataclass(frozen=True)
class Letters:
    """The equation of an EinsumDense, with digits in place of an ellipsis.

    Attributes:
        input, kernel, output: Letters of the input, the kernel and the output.
    """

    input: str
    kernel: str
    output: str

    @property
    def summed(self) -> str:
        """The letters of the input that are summed over with the kernel."""
        return "".join(letter for letter in self.input if letter in self.kernel and letter not in self.output)

    @property
    def new(self) -> str:
        """The letters of the output that come from the kernel."""
        return "".join(letter for letter in self.output if letter in self.kernel and letter not in self.input)

    @property
    def made(self) -> str:
        """The letter along which units are made: the first new one."""
        return self.new[0]

    def read(self, axis: int | None) -> str:
        """Return the letter along which units are read: the letter of the axis with units, or the first summed one."""
        is_summed = axis is not None and self.input[axis] in self.summed
        return self.input[axis] if axis is not None and is_summed else self.summed[0]


@register(layers.EinsumDense)
class Einsum(LayerHandler):
    """Reads units along one of the letters that are summed over, and makes units along the first new letter."""

    is_sized = True
    makes_units = True

    def supports(self, call: Call) -> bool:
        if len(call.inputs) != 1 or call.layer.equation.split(",")[0].strip().endswith("..."):
            return False
        letters = _letters(call)
        if any(letter not in letters.kernel and letter not in letters.output for letter in letters.input):
            return False  # a sum without the kernel
        is_product = len(set(letters.kernel)) == len(letters.kernel) == len(letters.summed) + len(letters.new)
        is_last = bool(letters.summed and letters.new) and letters.output.endswith(letters.new)
        return is_product and is_last and call.layer.bias_axes in (None, letters.new)

    def link_units(self, call: Call) -> None:
        letters, shape = _letters(call), call.layer.kernel.shape
        call.take_units(0, letters.input.index(_read(call)))
        made = call.graph.units.create(shape[letters.kernel.index(letters.made)])
        call.outputs[0].carry(letters.output.index(letters.made), made)
        if not is_elementwise(call.layer.activation):
            call.graph.units.pin(made, f"the activation of {call.name!r} mixes units (like softmax)")

    def find_constants(self, call: Call) -> None:
        call.outputs[0].constants = activate_constants(call, call.layer.activation, self._sums(call))

    def find_needed(self, call: Call) -> None:
        needed = needed_before_activation(call.layer.activation, call.outputs[0].needed)
        needed = needed | ~np.isnan(self._sums(call))
        is_read = (_matrices(call)[:, needed] != 0).any(axis=(1, 2, 3))
        call.mark_needed(0, is_read & np.isnan(_absorbable(call, call.foldable_constants(0))))

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        shape = list(call.layer.partial_output_shape)
        shape[-len(_letters(call).new)] = count(call.outputs[0].units)
        return {**config, "output_shape": shape}

    def weight_parts(self, call: Call) -> list[WeightPart]:
        letters, made = _letters(call), call.outputs[0].units
        reads = (letters.kernel.index(_read(call)), call.input_units[0])
        return [
            WeightPart("kernel", reads, (letters.kernel.index(letters.made), made)),
            WeightPart("bias", None, (0, made)),
        ]

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        if call.layer.bias is None:
            return {}
        added = np.einsum(
            "r,rmsn->mn", np.nan_to_num(_absorbable(call, call.removed_constants(0, stays))), _matrices(call)
        )
        return {"bias": added.reshape(call.layer.bias.shape)}

    def count_products(self, call: Call) -> float:
        shape = call.outputs[0].shape
        return math.prod(call.layer.kernel.shape) * count_positions(shape, *range(-len(_letters(call).new), 0))

    def _sums(self, call: Call) -> np.ndarray:
        """Return the constant value of every made unit before the activation, or NaN; all positions must agree."""
        matrices, constants = _matrices(call), _absorbable(call, call.input_constants(0))
        varies = (matrices[np.isnan(constants)] != 0).any(axis=(0, 2, 3))
        values = np.einsum("r,rmsn->mn", np.nan_to_num(constants), matrices)
        if call.layer.bias is not None:
            values = values + call.value(call.layer.bias).reshape(values.shape)
        return np.where(varies | (values != values[:, :1]).any(axis=1), np.nan, values[:, 0])


def _letters(call: Call) -> Letters:
    inputs, kernel, output = call.layer.equation.replace(" ", "").replace("->", ",").split(",")
    digits = "".join(map(str, range(len(call.inputs[0].shape) - len(inputs.replace("...", "")))))
    return Letters(inputs.replace("...", digits), kernel, output.replace("...", digits))


def _read(call: Call) -> str:
    return _letters(call).read(call.inputs[0].axis)


def _matrices(call: Call) -> np.ndarray:
    """Return the kernel as (read, made, other letters summed over, other new letters)."""
    letters, read = _letters(call), _read(call)
    summed, new = letters.summed.replace(read, ""), letters.new[1:]
    order = [letters.kernel.index(letter) for letter in (read, letters.made, *summed, *new)]
    value = np.transpose(call.value(call.layer.kernel), order)
    return value.reshape(*value.shape[:2], math.prod(value.shape[2 : 2 + len(summed)]), -1)


def _absorbable(call: Call, constants: np.ndarray) -> np.ndarray:
    """Return the constants that the bias can absorb; without a bias only 0, since a new one would need letters."""
    return constants if call.layer.bias is not None else np.where(constants == 0, 0.0, np.nan)
