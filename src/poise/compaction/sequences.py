"""Recurrent layers and attention."""

import math
from typing import Any

import numpy as np
from keras import layers

from poise._keras_internals import has_gate
from poise.compaction.calls import Call, Tensor
from poise.compaction.handlers import (
    Counter,
    LayerHandler,
    Selector,
    WeightPart,
    apply_to_constants,
    count_positions,
    is_elementwise,
    register,
)

CANDIDATE = {layers.LSTM: 2, layers.GRU: 2, layers.SimpleRNN: 0}
"""The number of the gate that is the candidate for the next state."""


@register(*CANDIDATE)
class Recurrent(LayerHandler):
    """A unit carries state from step to step, so the only constant that it can have is 0, its initial state.

    It stays 0 if its candidate for the next state has no weights and no bias: every step then keeps h = 0. A unit reads
    another one if any of its gates does.
    """

    is_sized = True
    makes_units = True

    def supports(self, call: Call) -> bool:
        layer, activations = call.layer, ("activation", "recurrent_activation")
        return (
            not layer.stateful
            and not layer.return_state
            and all(name == "mask" for name in call.input_names[1:])
            and all(is_elementwise(getattr(layer.cell, name, None)) for name in activations)
        )

    def differs_in_training(self, call: Call) -> bool:
        return bool(call.layer.cell.dropout or call.layer.cell.recurrent_dropout)

    def link_units(self, call: Call) -> None:
        call.take_units(0, 2)
        call.outputs[0].carry(len(call.outputs[0].shape) - 1, call.graph.units.create(call.layer.units))

    def find_constants(self, call: Call) -> None:
        cell, (kernel, recurrent) = call.layer.cell, self._gates(call)
        gate = CANDIDATE[type(call.layer)]
        fed = (kernel[call.input_constants(0) != 0][:, gate] != 0).any(axis=0)
        if cell.use_bias:
            bias = call.value(cell.bias).reshape(-1, kernel.shape[1], kernel.shape[2])
            fed |= (bias[:, gate] != 0).any(axis=0)
        if apply_to_constants(cell.activation, np.zeros(1), call.outputs[0].dtype)[0] != 0:
            fed[:] = True
        call.outputs[0].constants = np.where(find_silent(fed, recurrent[:, gate]), 0.0, np.nan)

    def find_needed(self, call: Call) -> None:
        kernel, recurrent = self._gates(call)
        output = call.outputs[0]
        needed = find_read_states(output.needed, recurrent, output.constants)
        is_read = (kernel[:, :, needed] != 0).any(axis=(1, 2))
        call.mark_needed(0, is_read & np.isnan(call.foldable_constants(0)))
        output.needed |= needed

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {**config, "units": count(call.outputs[0].units)}

    def weight_parts(self, call: Call) -> list[WeightPart]:
        cell, made = call.layer.cell, call.outputs[0].units
        gates = np.tile(made, cell.kernel.shape[1] // len(made))
        bias_axis = 1 if getattr(cell, "reset_after", False) else 0
        return [
            WeightPart("cell.kernel", (0, call.input_units[0]), (1, gates)),
            WeightPart("cell.recurrent_kernel", (0, made), (1, gates)),
            WeightPart("cell.bias", None, (bias_axis, gates)),
        ]

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        added = call.removed_constants(0, stays) @ call.value(call.layer.cell.kernel)
        if getattr(call.layer.cell, "reset_after", False):
            added = np.stack([added, np.zeros_like(added)])
        return {"cell.bias": added}

    def count_products(self, call: Call) -> float:
        cell = call.layer.cell
        return count_positions(call.inputs[0].shape, -1) * sum(
            math.prod(kernel.shape) for kernel in (cell.kernel, cell.recurrent_kernel)
        )

    def _gates(self, call: Call) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel and the recurrent kernel as (read, gates, units)."""
        cell, units = call.layer.cell, call.layer.units
        kernel, recurrent = call.value(cell.kernel), call.value(cell.recurrent_kernel)
        return kernel.reshape(len(kernel), -1, units), recurrent.reshape(units, -1, units)


def find_silent(fed: np.ndarray, recurrent: np.ndarray) -> np.ndarray:
    """Return which units keep their initial state 0.

    Args:
        fed: (units,) whether the candidate for the next state of a unit has inputs or a bias.
        recurrent: (read, units) weights by which the candidate reads the states.
    """
    is_zero = ~fed
    for _ in range(len(is_zero)):
        stays_zero = is_zero & ~(recurrent[~is_zero] != 0).any(axis=0)
        if (stays_zero == is_zero).all():
            break
        is_zero = stays_zero
    return is_zero


def find_read_states(needed: np.ndarray, recurrent: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Return the needed units, and those whose states the needed units read, directly or through others.

    Args:
        needed: (units,) which units are needed.
        recurrent: (read, gates, units) weights by which the gates read the states.
        constants: (units,) constant values, NaN for other units.
    """
    while True:
        is_read = (recurrent[:, :, needed] != 0).any(axis=(1, 2)) & np.isnan(constants)
        if not (is_read & ~needed).any():
            return needed
        needed = needed | is_read


@register(layers.MultiHeadAttention)
class Attention(LayerHandler):
    """Removes whole heads. A head is dead if the output does not read it, or if its values are constant.

    Attention weights sum to 1, so constant values stay as they are, and the bias of the output absorbs them.
    """

    is_sized = True
    makes_units = True
    names = ("query", "value", "key")

    def supports(self, call: Call) -> bool:
        return (
            len(call.outputs) == 1
            and len(self._tensors(call)) in (2, 3)
            and not has_gate(call.layer)
            and len(call.layer.output_dense.kernel.shape) == 3
            and len(call.outputs[0].shape) == 3
        )

    def differs_in_training(self, call: Call) -> bool:
        return bool(call.layer.dropout)

    def link_units(self, call: Call) -> None:
        for number in self._tensors(call):
            call.take_units(number, len(call.inputs[number].shape) - 1)
        call.within["heads"] = heads = Tensor(())
        heads.carry(None, call.graph.units.create(call.layer.num_heads))
        call.outputs[0].carry(2, call.graph.units.create(call.layer.output_dense.kernel.shape[-1]))

    def find_constants(self, call: Call) -> None:
        heads, across = self._head_values(call), call.value(call.layer.output_dense.kernel)
        varies = (across[np.isnan(heads).any(axis=1)] != 0).any(axis=(0, 1))
        made = np.einsum("hv,hvo->o", np.nan_to_num(heads), across) + self._bias(
            call, call.layer.output_dense, across.shape[2:]
        )
        call.outputs[0].constants = np.where(varies, np.nan, made)

    def find_needed(self, call: Call) -> None:
        across, output = call.value(call.layer.output_dense.kernel), call.outputs[0]
        is_constant = ~np.isnan(self._head_values(call)).any(axis=1)
        needed = (across[:, :, output.needed] != 0).any(axis=(1, 2)) & ~is_constant
        call.within["heads"].needed |= needed
        for name, (number, dense) in self._readers(call).items():
            kernel = call.value(dense.kernel)
            # A constant that no bias can absorb also keeps the heads that are constant because of it.
            reading = needed | is_constant if name == "value" else needed
            is_read = (kernel[:, reading] != 0).any(axis=(1, 2))
            call.mark_needed(number, is_read & np.isnan(call.foldable_constants(number)))

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {
            **config,
            "num_heads": count(call.within["heads"].units),
            "output_shape": [count(call.outputs[0].units)],
        }

    def weight_parts(self, call: Call) -> list[WeightPart]:
        heads, made = call.within["heads"].units, call.outputs[0].units
        parts = [
            WeightPart("output_dense.kernel", (0, heads), (2, made)),
            WeightPart("output_dense.bias", None, (0, made)),
        ]
        for name, (number, _) in self._readers(call).items():
            parts.append(WeightPart(f"{name}_dense.kernel", (0, call.input_units[number]), (1, heads)))
            parts.append(WeightPart(f"{name}_dense.bias", None, (0, heads)))
        return parts

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        added = {}
        for name, (number, dense) in self._readers(call).items():
            kernel = call.value(dense.kernel)
            added[f"{name}_dense.bias"] = np.einsum("i,ihd->hd", call.removed_constants(number, stays), kernel)
        removed = np.where(stays(call.within["heads"].units)[:, None], 0.0, np.nan_to_num(self._head_values(call)))
        added["output_dense.bias"] = np.einsum("hv,hvo->o", removed, call.value(call.layer.output_dense.kernel))
        return added

    def count_products(self, call: Call) -> float:
        layer, total = call.layer, 0.0
        lengths = {}
        for name, (number, dense) in self._readers(call).items():
            lengths[name] = count_positions(call.inputs[number].shape, -1)
            total += lengths[name] * math.prod(dense.kernel.shape)
        pairs = lengths["query"] * lengths["value"] * layer.num_heads
        return (
            total
            + pairs * (layer.key_dim + layer.value_dim)
            + lengths["query"] * math.prod(layer.output_dense.kernel.shape)
        )

    def _tensors(self, call: Call) -> list[int]:
        """Return the numbers of the inputs that are query, value or key, and not masks."""
        return [number for number, name in enumerate(call.input_names) if name in (None, *self.names)]

    def _readers(self, call: Call) -> dict[str, tuple[int, Any]]:
        """Return, by name, the number of the input and the layer that reads it. Without a key, the value is the key."""
        numbers, free = {}, iter(self.names)
        for number, name in enumerate(call.input_names):
            if number in call.input_units:
                numbers[name or next(free)] = number
        numbers.setdefault("key", numbers["value"])
        return {name: (number, getattr(call.layer, f"{name}_dense")) for name, number in numbers.items()}

    def _head_values(self, call: Call) -> np.ndarray:
        """Return (heads, values) the outputs of a head whose values are constant, and NaN for other heads."""
        layer = call.layer
        number, _ = self._readers(call)["value"]
        kernel, constants = call.value(layer.value_dense.kernel), call.input_constants(number)
        varies = (kernel[np.isnan(constants)] != 0).any(axis=(0, 2))
        values = np.einsum("i,ihv->hv", np.nan_to_num(constants), kernel)
        values = values + self._bias(call, layer.value_dense, values.shape)
        return np.where(varies[:, None], np.nan, values)

    def _bias(self, call: Call, dense: Any, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape) if dense.bias is None else call.value(dense.bias)
