"""Layers that compute new units from sums over the units that they read: Dense, convolutions, Embedding."""

import math
from typing import Any

import numpy as np
from keras import layers

from poise.compaction.calls import Call
from poise.compaction.handlers import (
    OPAQUE,
    Counter,
    LayerHandler,
    Selector,
    WeightPart,
    activate_constants,
    channel_axis,
    count_positions,
    is_elementwise,
    needed_before_activation,
    register,
)


class Linear(LayerHandler):
    """activation(Σ_p x_p A_p + b): a sum over positions p of the units of the input times matrices, and a bias.

    A unit with the constant value c adds c·Σ_p A_p to the bias if every output covers all positions p. Where zeros are
    padded, or outputs cover different numbers of positions, that holds only for c = 0.
    """

    is_sized = True
    makes_units = True

    def matrices(self, call: Call) -> np.ndarray:
        """Return A, of the shape (positions, read units, made units)."""
        raise NotImplementedError

    def blocks(self, call: Call) -> np.ndarray:
        """Return A by groups, of the shape (positions, groups, read units of a group, made units of a group)."""
        return self.matrices(call)[:, None]

    def covers_all_positions(self, layer: Any) -> bool:
        """Whether every output covers every position of the kernel."""
        return True

    def input_axis(self, call: Call) -> int:
        """Return the axis of the input along which the layer reads units."""
        return channel_axis(call.layer, len(call.inputs[0].shape))

    def output_axis(self, call: Call) -> int:
        """Return the axis of the output along which the layer makes units."""
        return channel_axis(call.layer, len(call.outputs[0].shape))

    def activation(self, call: Call) -> Any:
        """Return the activation of the layer, or None."""
        return getattr(call.layer, "activation", None)

    def bias(self, call: Call) -> np.ndarray | None:
        """Return the bias of the layer, or None."""
        return call.value(call.layer.bias) if getattr(call.layer, "use_bias", False) else None

    def size_name(self) -> str:
        """Return the name of the argument that sets the number of units."""
        return "filters"

    def supports(self, call: Call) -> bool:
        shape = call.outputs[0].shape
        made = getattr(call.layer, self.size_name())
        return len(call.inputs) == 1 and shape[channel_axis(call.layer, len(shape))] == made

    def link_units(self, call: Call) -> None:
        output, axis = call.outputs[0], self.output_axis(call)
        call.take_units(0, self.input_axis(call))
        output.carry(axis, call.graph.units.create(output.shape[axis]))
        if not is_elementwise(self.activation(call)):
            call.graph.units.pin(output.units, f"the activation of {call.name!r} mixes units (like softmax)")

    def find_constants(self, call: Call) -> None:
        values = self._sums(call)
        call.outputs[0].constants = activate_constants(call, self.activation(call), values)

    def find_needed(self, call: Call) -> None:
        needed = needed_before_activation(self.activation(call), call.outputs[0].needed)
        # A constant that no bias can absorb also keeps the constants that are computed from it.
        needed = needed | ~np.isnan(self._sums(call))
        blocks = (self.blocks(call) != 0).any(axis=0)
        is_read = (blocks & needed.reshape(len(blocks), 1, -1)).any(axis=2).reshape(-1)
        call.mark_needed(0, is_read & np.isnan(self._absorbable(call, call.foldable_constants(0))))

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {**config, self.size_name(): count(call.outputs[0].units)}

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        constants = np.nan_to_num(self._absorbable(call, call.removed_constants(0, stays)))
        return {"bias": _multiply(constants, self.blocks(call))}

    def count_products(self, call: Call) -> float:
        kernels = [getattr(call.layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel")]
        return sum(math.prod(kernel.shape) for kernel in kernels if kernel is not None) * self.count_uses(call)

    def count_uses(self, call: Call) -> float:
        """Return at how many positions of a sample the kernel is applied."""
        return count_positions(call.outputs[0].shape, channel_axis(call.layer, len(call.outputs[0].shape)))

    def _sums(self, call: Call) -> np.ndarray:
        """Return the constant value of every made unit before the activation, or NaN."""
        blocks, constants = self.blocks(call), self._absorbable(call, call.input_constants(0))
        is_unknown = np.isnan(constants).reshape(blocks.shape[1], -1, 1)
        varies = ((blocks != 0).any(axis=0) & is_unknown).any(axis=1).reshape(-1)
        values = _multiply(np.nan_to_num(constants), blocks)
        bias = self.bias(call)
        if bias is not None:
            values = values + bias
        return np.where(varies, np.nan, values)

    def _absorbable(self, call: Call, constants: np.ndarray) -> np.ndarray:
        """Return those constants that the bias can absorb, NaN for the others."""
        return constants if self.covers_all_positions(call.layer) else np.where(constants == 0, 0.0, np.nan)


def _multiply(constants: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the sums over positions and read units for constant units, one per made unit."""
    return np.einsum("gr,grm->gm", constants.reshape(blocks.shape[1], -1), blocks.sum(axis=0)).reshape(-1)


@register(layers.Dense)
class Dense(Linear):
    """Reads and makes units along the last axis."""

    def size_name(self) -> str:
        return "units"

    def input_axis(self, call: Call) -> int:
        return len(call.inputs[0].shape) - 1

    def matrices(self, call: Call) -> np.ndarray:
        return call.value(call.layer.kernel)[None]

    def weight_parts(self, call: Call) -> list[WeightPart]:
        reads, made = (0, call.input_units[0]), call.outputs[0].units
        return [WeightPart("kernel", reads, (1, made)), WeightPart("bias", None, (0, made))]


@register(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class Convolution(Linear):
    """With several groups, a group of inputs and its group of outputs are removed together, as a whole."""

    def link_units(self, call: Call) -> None:
        super().link_units(call)
        groups = call.layer.groups
        if groups == 1:
            return
        firsts = []
        for units in (call.input_units[0], call.outputs[0].units):
            rows = units.reshape(groups, -1)
            firsts.append(rows[:, 0])
            for column in rows.T[1:]:
                call.graph.units.join(rows[:, 0], column)
        call.graph.units.join(*firsts)

    def kernel(self, call: Call) -> np.ndarray:
        """Return the kernel, of the shape (*sizes, units read by a group, made units)."""
        return call.value(call.layer.kernel)

    def blocks(self, call: Call) -> np.ndarray:
        kernel = self.kernel(call)
        blocks = kernel.reshape(-1, kernel.shape[-2], call.layer.groups, kernel.shape[-1] // call.layer.groups)
        return blocks.swapaxes(1, 2)

    def covers_all_positions(self, layer: Any) -> bool:
        return layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        config = super().resize_config(call, config, count)
        if call.layer.groups > 1:
            config["groups"] = call.layer.groups * config["filters"] // call.layer.filters
        return config

    def weight_parts(self, call: Call) -> list[WeightPart]:
        axis = len(call.layer.kernel.shape) - 2
        reads = (axis, call.input_units[0]) if call.layer.groups == 1 else None
        return [
            WeightPart("kernel", reads, (axis + 1, call.outputs[0].units)),
            WeightPart("bias", None, (0, call.outputs[0].units)),
        ]


@register(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
class TransposedConvolution(Linear):
    """Has a kernel whose last two axes are made units, read units."""

    def matrices(self, call: Call) -> np.ndarray:
        kernel = call.value(call.layer.kernel)
        return kernel.reshape(-1, *kernel.shape[-2:]).swapaxes(1, 2)

    def covers_all_positions(self, layer: Any) -> bool:
        return all(size == 1 for size in (*layer.kernel_size, *layer.strides))

    def count_uses(self, call: Call) -> float:
        return count_positions(call.inputs[0].shape, channel_axis(call.layer, len(call.inputs[0].shape)))

    def weight_parts(self, call: Call) -> list[WeightPart]:
        axis, reads = len(call.layer.kernel.shape) - 1, call.input_units[0]
        made = call.outputs[0].units
        return [WeightPart("kernel", (axis, reads), (axis - 1, made)), WeightPart("bias", None, (0, made))]


@register(layers.SeparableConv1D, layers.SeparableConv2D)
class SeparableConvolution(Linear):
    """A depthwise convolution, then a matrix across its channels."""

    def matrices(self, call: Call) -> np.ndarray:
        depthwise, pointwise = call.value(call.layer.depthwise_kernel), call.value(call.layer.pointwise_kernel)
        depthwise = depthwise.reshape(-1, *depthwise.shape[-2:])
        pointwise = pointwise.reshape(*depthwise.shape[1:], -1)
        return np.einsum("pim,imo->pio", depthwise, pointwise)

    def covers_all_positions(self, layer: Any) -> bool:
        return CONVOLUTION.covers_all_positions(layer)

    def weight_parts(self, call: Call) -> list[WeightPart]:
        axis, read = len(call.layer.depthwise_kernel.shape) - 2, call.input_units[0]
        between = np.repeat(read, call.layer.depth_multiplier)
        return [
            WeightPart("depthwise_kernel", (axis, read), None),
            WeightPart("pointwise_kernel", (axis, between), (axis + 1, call.outputs[0].units)),
            WeightPart("bias", None, (0, call.outputs[0].units)),
        ]


@register(layers.Embedding)
class EmbeddingTable(Linear):
    """A table with one row per index: a column with equal entries is a constant."""

    def size_name(self) -> str:
        return "output_dim"

    def link_units(self, call: Call) -> None:
        output = call.outputs[0]
        output.carry(len(output.shape) - 1, call.graph.units.create(call.layer.output_dim))

    def find_constants(self, call: Call) -> None:
        table = call.value(call.layer.embeddings)
        call.outputs[0].constants = np.where((table == table[0]).all(axis=0), table[0], np.nan)

    def find_needed(self, call: Call) -> None:
        OPAQUE.find_needed(call)

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {**config, "output_dim": count(call.outputs[0].units)}

    def weight_parts(self, call: Call) -> list[WeightPart]:
        return [WeightPart("embeddings", None, (1, call.outputs[0].units))]

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        return {}


@register(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class DepthwiseConvolution(LayerHandler):
    """Every channel makes `depth_multiplier` channels, which are removed with it."""

    is_sized = True

    def supports(self, call: Call) -> bool:
        return is_elementwise(call.layer.activation)

    def link_units(self, call: Call) -> None:
        axis = channel_axis(call.layer, len(call.inputs[0].shape))
        call.outputs[0].carry(axis, np.repeat(call.take_units(0, axis), call.layer.depth_multiplier))

    def find_constants(self, call: Call) -> None:
        kernel, constants = self._kernel(call), np.repeat(call.input_constants(0), call.layer.depth_multiplier)
        if not CONVOLUTION.covers_all_positions(call.layer):
            constants = np.where(constants == 0, 0.0, np.nan)
        values = np.where((kernel == 0).all(axis=0), 0.0, kernel.sum(axis=0) * constants)
        if call.layer.use_bias:
            values = values + call.value(call.layer.bias)
        call.outputs[0].constants = activate_constants(call, call.layer.activation, values)

    def find_needed(self, call: Call) -> None:
        needed = call.outputs[0].needed & (self._kernel(call) != 0).any(axis=0)
        call.mark_needed(0, needed.reshape(-1, call.layer.depth_multiplier).any(axis=1))

    def weight_parts(self, call: Call) -> list[WeightPart]:
        axis = len(call.layer.kernel.shape) - 2
        return [
            WeightPart("kernel", None, (axis, call.input_units[0])),
            WeightPart("bias", None, (0, call.outputs[0].units)),
        ]

    def count_products(self, call: Call) -> float:
        axis = channel_axis(call.layer, len(call.outputs[0].shape))
        return math.prod(call.layer.kernel.shape) * count_positions(call.outputs[0].shape, axis)

    def _kernel(self, call: Call) -> np.ndarray:
        """Return the kernel as (positions, channels of the output)."""
        kernel = call.value(call.layer.kernel)
        return kernel.reshape(-1, kernel.shape[-2] * kernel.shape[-1])


CONVOLUTION = Convolution()
