"""Layers that compute new units from sums over the units that they read: Linear, convolutions, Embedding."""

from typing import Any

import numpy as np
from torch import nn

from poise.compaction import linear
from poise.compaction.calls import Call
from poise.compaction.handlers import OPAQUE, Counter, Selector, WeightPart, register
from poise.torch.compaction.handlers import spatial_axis


class _PlainLayer:
    """Reads the bias from `bias`, which may be None, and has no activation."""

    def supports(self, call: Call) -> bool:
        return len(call.inputs) == 1

    def activation(self, call: Call) -> Any:
        return None

    def bias(self, call: Call) -> np.ndarray | None:
        return None if call.layer.bias is None else call.value(call.layer.bias)


@register(nn.Linear)
class TorchLinear(_PlainLayer, linear.Linear):
    """Reads and makes units along the last axis."""

    def input_axis(self, call: Call) -> int:
        return len(call.inputs[0].shape) - 1

    def output_axis(self, call: Call) -> int:
        return len(call.outputs[0].shape) - 1

    def matrices(self, call: Call) -> np.ndarray:
        return call.value(call.layer.weight).T[None]

    def weight_parts(self, call: Call) -> list[WeightPart]:
        made = call.outputs[0].units
        return [WeightPart("weight", (1, call.input_units[0]), (0, made)), WeightPart("bias", None, (0, made))]

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {"in_features": count(call.input_units[0]), "out_features": count(call.outputs[0].units)}


@register(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class TorchConvolution(_PlainLayer, linear.Convolution):
    """With several groups, a group of inputs and its group of outputs are removed together, as a whole."""

    def input_axis(self, call: Call) -> int:
        return spatial_axis(call.inputs[0], len(call.layer.kernel_size))

    def output_axis(self, call: Call) -> int:
        return self.input_axis(call)

    def kernel(self, call: Call) -> np.ndarray:
        return np.moveaxis(call.value(call.layer.weight), (1, 0), (-2, -1))

    def covers_all_positions(self, layer: Any) -> bool:
        if layer.padding_mode != "zeros" or layer.padding == "valid":
            return True
        if layer.padding == "same":
            return all(size == 1 for size in layer.kernel_size)
        return not any(layer.padding)

    def weight_parts(self, call: Call) -> list[WeightPart]:
        reads = (1, call.input_units[0]) if call.layer.groups == 1 else None
        made = call.outputs[0].units
        return [WeightPart("weight", reads, (0, made)), WeightPart("bias", None, (0, made))]

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        sizes = {"in_channels": count(call.input_units[0]), "out_channels": count(call.outputs[0].units)}
        if call.layer.groups > 1:
            sizes["groups"] = call.layer.groups * sizes["out_channels"] // call.layer.out_channels
        return sizes


@register(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class TorchTransposedConvolution(TorchConvolution):
    """Has a weight whose first two axes are read units, made units. Only without groups."""

    def supports(self, call: Call) -> bool:
        return super().supports(call) and call.layer.groups == 1

    def kernel(self, call: Call) -> np.ndarray:
        return np.moveaxis(call.value(call.layer.weight), (0, 1), (-2, -1))

    def covers_all_positions(self, layer: Any) -> bool:
        return all(size == 1 for size in (*layer.kernel_size, *layer.stride))

    def weight_parts(self, call: Call) -> list[WeightPart]:
        made = call.outputs[0].units
        return [WeightPart("weight", (0, call.input_units[0]), (1, made)), WeightPart("bias", None, (0, made))]


@register(nn.Embedding)
class TorchEmbeddingTable(linear.EmbeddingTable):
    """A table with one row per index: a column with equal entries is a constant."""

    def supports(self, call: Call) -> bool:
        return len(call.inputs) == 1 and call.layer.max_norm is None

    def find_constants(self, call: Call) -> None:
        table = call.value(call.layer.weight)
        call.outputs[0].constants = np.where((table == table[0]).all(axis=0), table[0], np.nan)

    def link_units(self, call: Call) -> None:
        output = call.outputs[0]
        output.carry(len(output.shape) - 1, call.graph.units.create(output.shape[-1]))

    def find_needed(self, call: Call) -> None:
        OPAQUE.find_needed(call)

    def weight_parts(self, call: Call) -> list[WeightPart]:
        return [WeightPart("weight", None, (1, call.outputs[0].units))]

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {"embedding_dim": count(call.outputs[0].units)}

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        return {}
