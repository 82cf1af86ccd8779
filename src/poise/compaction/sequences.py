"""Recurrent layers, attention, and EinsumDense."""

import math

import numpy as np
from keras import layers

from poise.compaction.graph import Call, Tensor
from poise.compaction.handlers import (
    Kind,
    Part,
    applied,
    is_elementwise,
    places,
    register,
)

CANDIDATE = {layers.LSTM: 2, layers.GRU: 2, layers.SimpleRNN: 0}
"""Which gate is the candidate for the next state."""


@register(*CANDIDATE)
class Recurrent(Kind):
    """A unit lives on in its own state, so that it is constant only as 0, from the first step on.

    That is so where its candidate for the next state has no weights and no bias: h = 0 is then kept by every step. A
    unit listens to another one if any of its gates does.
    """

    is_sized = True
    makes_units = True

    def follows(self, call: Call) -> bool:
        layer, activations = call.layer, ("activation", "recurrent_activation")
        return (
            not layer.stateful
            and not layer.return_state
            and all(name == "mask" for name in call.given_names[1:])
            and all(is_elementwise(getattr(layer.cell, name, None)) for name in activations)
        )

    def differs_in_training(self, call: Call) -> bool:
        return bool(call.layer.cell.dropout or call.layer.cell.recurrent_dropout)

    def link(self, call: Call):
        call.enter(0, 2)
        call.outputs[0].carry(len(call.outputs[0].shape) - 1, call.graph.units.fresh(call.layer.units))

    def constants(self, call: Call):
        cell, (kernel, recurrent) = call.layer.cell, self._gates(call)
        gate = CANDIDATE[type(call.layer)]
        fed = (kernel[call.entering(0) != 0][:, gate] != 0).any(axis=0)
        if cell.use_bias:
            bias = call.value(cell.bias).reshape(-1, kernel.shape[1], kernel.shape[2])
            fed |= (bias[:, gate] != 0).any(axis=0)
        if applied(cell.activation, np.zeros(1), call.outputs[0].dtype)[0] != 0:
            fed[:] = True
        is_zero = ~fed
        for _ in range(len(is_zero)):
            still = is_zero & ~(recurrent[~is_zero][:, gate] != 0).any(axis=0)
            if (still == is_zero).all():
                break
            is_zero = still
        call.outputs[0].constants = np.where(is_zero, 0.0, np.nan)

    def needs(self, call: Call):
        kernel, recurrent = self._gates(call)
        output = call.outputs[0]
        needed = output.needed.copy()
        while True:
            heard = needed | ((recurrent[:, :, needed] != 0).any(axis=(1, 2)) & np.isnan(output.constants))
            if (heard == needed).all():
                break
            needed = heard
        is_read = (kernel[:, :, needed] != 0).any(axis=(1, 2))
        call.need(0, is_read & np.isnan(call.foldable(0)))
        output.needed |= needed

    def resized(self, call: Call, config: dict, count) -> dict:
        return {**config, "units": count(call.outputs[0].units)}

    def parts(self, call: Call) -> list[Part]:
        cell, made = call.layer.cell, call.outputs[0].units
        gates = np.tile(made, cell.kernel.shape[1] // len(made))
        bias_axis = 1 if getattr(cell, "reset_after", False) else 0
        return [
            Part("cell.kernel", (0, call.given[0]), (1, gates)),
            Part("cell.recurrent_kernel", (0, made), (1, gates)),
            Part("cell.bias", None, (bias_axis, gates)),
        ]

    def folded(self, call: Call, stays) -> dict[str, np.ndarray]:
        added = call.leaving(0, stays) @ call.value(call.layer.cell.kernel)
        if getattr(call.layer.cell, "reset_after", False):
            added = np.stack([added, np.zeros_like(added)])
        return {"cell.bias": added}

    def products(self, call: Call) -> float:
        cell = call.layer.cell
        return places(call.inputs[0].shape, -1) * sum(
            math.prod(one.shape) for one in (cell.kernel, cell.recurrent_kernel)
        )

    def _gates(self, call: Call) -> tuple[np.ndarray, np.ndarray]:
        """The kernel and the recurrent kernel as (read, gates, units)."""
        cell, units = call.layer.cell, call.layer.units
        kernel, recurrent = call.value(cell.kernel), call.value(cell.recurrent_kernel)
        return kernel.reshape(len(kernel), -1, units), recurrent.reshape(units, -1, units)


@register(layers.MultiHeadAttention)
class Attention(Kind):
    """Heads go whole: one is dead if nothing is made of it, or if its values are constant.

    The weights of attention sum to 1, so that constant values come out as they went in, and are folded into the bias
    of the output.
    """

    is_sized = True
    makes_units = True
    names = ("query", "value", "key")

    def follows(self, call: Call) -> bool:
        return (
            len(call.outputs) == 1
            and len(self._tensors(call)) in (2, 3)
            and not getattr(call.layer, "_use_gate", False)
            and len(call.layer._output_dense.kernel.shape) == 3
            and len(call.outputs[0].shape) == 3
        )

    def differs_in_training(self, call: Call) -> bool:
        return bool(call.layer._dropout)

    def link(self, call: Call):
        for number in self._tensors(call):
            call.enter(number, len(call.inputs[number].shape) - 1)
        call.within["heads"] = heads = Tensor(())
        heads.carry(None, call.graph.units.fresh(call.layer._num_heads))
        call.outputs[0].carry(2, call.graph.units.fresh(call.layer._output_dense.kernel.shape[-1]))

    def constants(self, call: Call):
        heads, across = self._head_values(call), call.value(call.layer._output_dense.kernel)
        varies = (across[np.isnan(heads).any(axis=1)] != 0).any(axis=(0, 1))
        made = np.einsum("hv,hvo->o", np.nan_to_num(heads), across) + self._bias(
            call, "_output_dense", across.shape[2:]
        )
        call.outputs[0].constants = np.where(varies, np.nan, made)

    def needs(self, call: Call):
        across, output = call.value(call.layer._output_dense.kernel), call.outputs[0]
        is_constant = ~np.isnan(self._head_values(call)).any(axis=1)
        needed = (across[:, :, output.needed] != 0).any(axis=(1, 2)) & ~is_constant
        call.within["heads"].needed |= needed
        for name, (number, dense) in self._readers(call).items():
            kernel = call.value(dense.kernel)
            # A constant that cannot be folded also holds up the heads that are constant by it.
            heard = needed | is_constant if name == "value" else needed
            is_read = (kernel[:, heard] != 0).any(axis=(1, 2))
            call.need(number, is_read & np.isnan(call.foldable(number)))

    def resized(self, call: Call, config: dict, count) -> dict:
        return {
            **config,
            "num_heads": count(call.within["heads"].units),
            "output_shape": [count(call.outputs[0].units)],
        }

    def parts(self, call: Call) -> list[Part]:
        heads, made = call.within["heads"].units, call.outputs[0].units
        parts = [Part("_output_dense.kernel", (0, heads), (2, made)), Part("_output_dense.bias", None, (0, made))]
        for name, (number, _) in self._readers(call).items():
            parts.append(Part(f"_{name}_dense.kernel", (0, call.given[number]), (1, heads)))
            parts.append(Part(f"_{name}_dense.bias", None, (0, heads)))
        return parts

    def folded(self, call: Call, stays) -> dict[str, np.ndarray]:
        added = {}
        for name, (number, dense) in self._readers(call).items():
            kernel = call.value(dense.kernel)
            added[f"_{name}_dense.bias"] = np.einsum("i,ihd->hd", call.leaving(number, stays), kernel)
        gone = np.where(stays(call.within["heads"].units)[:, None], 0.0, np.nan_to_num(self._head_values(call)))
        added["_output_dense.bias"] = np.einsum("hv,hvo->o", gone, call.value(call.layer._output_dense.kernel))
        return added

    def products(self, call: Call) -> float:
        layer, total = call.layer, 0.0
        lengths = {}
        for name, (number, dense) in self._readers(call).items():
            lengths[name] = places(call.inputs[number].shape, -1)
            total += lengths[name] * math.prod(dense.kernel.shape)
        pairs = lengths["query"] * lengths["value"] * layer._num_heads
        return (
            total
            + pairs * (layer._key_dim + layer._value_dim)
            + lengths["query"] * math.prod(layer._output_dense.kernel.shape)
        )

    def _tensors(self, call: Call) -> list[int]:
        """The inputs that are attended to, and not masks."""
        return [number for number, name in enumerate(call.given_names) if name in (None, *self.names)]

    def _readers(self, call: Call) -> dict:
        """By name the number of the input and the layer that reads it; the key is the value where it is not given."""
        numbers, free = {}, iter(self.names)
        for number, name in enumerate(call.given_names):
            if number in call.given:
                numbers[name or next(free)] = number
        numbers.setdefault("key", numbers["value"])
        return {name: (number, getattr(call.layer, f"_{name}_dense")) for name, number in numbers.items()}

    def _head_values(self, call: Call) -> np.ndarray:
        """(heads, values) what a head gives if its values are constant, and NaN in the whole head if they are not."""
        layer = call.layer
        number, _ = self._readers(call)["value"]
        kernel, constants = call.value(layer._value_dense.kernel), call.entering(number)
        varies = (kernel[np.isnan(constants)] != 0).any(axis=(0, 2))
        values = np.einsum("i,ihv->hv", np.nan_to_num(constants), kernel)
        values = values + self._bias(call, "_value_dense", values.shape)
        return np.where(varies[:, None], np.nan, values)

    def _bias(self, call: Call, name: str, shape) -> np.ndarray:
        bias = getattr(call.layer, name).bias
        return np.zeros(shape) if bias is None else call.value(bias)
