"""EinsumDense: products by letters."""

import math
from dataclasses import dataclass

import numpy as np
from keras import layers

from poise.compaction.graph import Call
from poise.compaction.handlers import Kind, Part, activated, before_activation, is_elementwise, places, register


@dataclass(frozen=True)
class Letters:
    """The equation of an EinsumDense; what an ellipsis stands for has digits.

    Attributes:
        taken, kernel, given: the letters of the input, the kernel and the output.
        summed: the letters of the input that the kernel sums over.
        new: the letters that the kernel brings.
        made: the one of those along which units are made: the first.
    """

    taken: str
    kernel: str
    given: str

    @property
    def summed(self) -> str:
        return "".join(one for one in self.taken if one in self.kernel and one not in self.given)

    @property
    def new(self) -> str:
        return "".join(one for one in self.given if one in self.kernel and one not in self.taken)

    @property
    def made(self) -> str:
        return self.new[0]

    def read(self, axis: int | None) -> str:
        """The letter along which units are read: that of the axis that carries them, or else the first summed one."""
        is_summed = axis is not None and self.taken[axis] in self.summed
        return self.taken[axis] if axis is not None and is_summed else self.summed[0]


@register(layers.EinsumDense)
class Einsum(Kind):
    """A product by letters: units are read along one letter that is summed over, and made along the first new one."""

    is_sized = True
    makes_units = True

    def follows(self, call: Call) -> bool:
        if len(call.inputs) != 1 or call.layer.equation.split(",")[0].strip().endswith("..."):
            return False
        letters = _letters(call)
        if any(one not in letters.kernel and one not in letters.given for one in letters.taken):
            return False  # a sum that the kernel has no part in
        is_product = len(set(letters.kernel)) == len(letters.kernel) == len(letters.summed) + len(letters.new)
        is_last = bool(letters.summed and letters.new) and letters.given.endswith(letters.new)
        return is_product and is_last and call.layer.bias_axes in (None, letters.new)

    def link(self, call: Call):
        letters, shape = _letters(call), call.layer.kernel.shape
        call.enter(0, letters.taken.index(_read(call)))
        made = call.graph.units.fresh(shape[letters.kernel.index(letters.made)])
        call.outputs[0].carry(letters.given.index(letters.made), made)
        if not is_elementwise(call.layer.activation):
            call.graph.units.pin(made, f"the activation of {call.layer.name!r} blends all of them")

    def constants(self, call: Call):
        call.outputs[0].constants = activated(call, call.layer.activation, self._sums(call))

    def needs(self, call: Call):
        needed = before_activation(call.layer.activation, call.outputs[0].needed) | ~np.isnan(self._sums(call))
        is_read = (_matrices(call)[:, needed] != 0).any(axis=(1, 2, 3))
        call.need(0, is_read & np.isnan(_taken_in(call, call.foldable(0))))

    def resized(self, call: Call, config: dict, count) -> dict:
        shape = list(call.layer.partial_output_shape)
        shape[-len(_letters(call).new)] = count(call.outputs[0].units)
        return {**config, "output_shape": shape}

    def parts(self, call: Call) -> list[Part]:
        letters, made = _letters(call), call.outputs[0].units
        reads = (letters.kernel.index(_read(call)), call.given[0])
        return [Part("kernel", reads, (letters.kernel.index(letters.made), made)), Part("bias", None, (0, made))]

    def folded(self, call: Call, stays) -> dict[str, np.ndarray]:
        if call.layer.bias is None:
            return {}
        added = np.einsum("r,rmsn->mn", np.nan_to_num(_taken_in(call, call.leaving(0, stays))), _matrices(call))
        return {"bias": added.reshape(call.layer.bias.shape)}

    def products(self, call: Call) -> float:
        shape = call.outputs[0].shape
        return math.prod(call.layer.kernel.shape) * places(shape, *range(-len(_letters(call).new), 0))

    def _sums(self, call: Call) -> np.ndarray:
        """Per made unit its constant value before the activation; NaN if it varies or is not the same throughout."""
        matrices, constants = _matrices(call), _taken_in(call, call.entering(0))
        varies = (matrices[np.isnan(constants)] != 0).any(axis=(0, 2, 3))
        values = np.einsum("r,rmsn->mn", np.nan_to_num(constants), matrices)
        if call.layer.bias is not None:
            values = values + call.value(call.layer.bias).reshape(values.shape)
        return np.where(varies | (values != values[:, :1]).any(axis=1), np.nan, values[:, 0])


def _letters(call: Call) -> Letters:
    taken, kernel, given = call.layer.equation.replace(" ", "").replace("->", ",").split(",")
    digits = "".join(map(str, range(len(call.inputs[0].shape) - len(taken.replace("...", "")))))
    return Letters(taken.replace("...", digits), kernel, given.replace("...", digits))


def _read(call: Call) -> str:
    return _letters(call).read(call.inputs[0].axis)


def _matrices(call: Call) -> np.ndarray:
    """The kernel as (read, made, the other letters summed over, the other new letters)."""
    letters, read = _letters(call), _read(call)
    summed, new = letters.summed.replace(read, ""), letters.new[1:]
    order = [letters.kernel.index(one) for one in (read, letters.made, *summed, *new)]
    value = np.transpose(call.value(call.layer.kernel), order)
    return value.reshape(*value.shape[:2], math.prod(value.shape[2 : 2 + len(summed)]), -1)


def _taken_in(call: Call, constants: np.ndarray) -> np.ndarray:
    """The constants that the bias can take in; a new one would need letters, so that without it that is 0 alone."""
    return constants if call.layer.bias is not None else np.where(constants == 0, 0.0, np.nan)
