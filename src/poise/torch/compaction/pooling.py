"""Layers and functions that work along the spatial axes, in the same way for every channel."""

from typing import Any

import numpy as np
from torch import nn
from torch.nn import functional

from poise.compaction.calls import Call
from poise.compaction.elementwise import PassThrough
from poise.compaction.handlers import register
from poise.torch.compaction.handlers import spatial_axis, spellings


class TorchPerChannel(PassThrough):
    """A constant channel keeps its value.

    Args:
        spatial: Number of spatial axes, or None if the first axis is always the batch.
    """

    def __init__(self, spatial: int | None) -> None:
        self.spatial = spatial

    def supports(self, call: Call) -> bool:
        return len(call.inputs) == 1 and len(call.outputs) == 1

    def link_units(self, call: Call) -> None:
        axis = 1 if self.spatial is None else spatial_axis(call.inputs[0], self.spatial)
        call.outputs[0].carry(axis, call.take_units(0, axis))


class AveragePooling(TorchPerChannel):
    """Zeros at the border count in the average, unless `count_include_pad` is off."""

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        padding = _setting(call, 3, "padding", 0)
        counts = _setting(call, 5, "count_include_pad", True)
        is_even = not np.any(padding) or not counts
        return constants if is_even and self._divisor(call) is None else np.where(constants == 0, 0.0, np.nan)

    def _divisor(self, call: Call) -> Any:
        return _setting(call, 6, "divisor_override", None) if self.spatial != 1 else None


for rank in (1, 2, 3):
    names = [f"max_pool{rank}d", f"adaptive_avg_pool{rank}d", f"adaptive_max_pool{rank}d"]
    layers = [f"MaxPool{rank}d", f"AdaptiveAvgPool{rank}d", f"AdaptiveMaxPool{rank}d"]
    register(*spellings(*names), *(getattr(nn, name) for name in layers))(TorchPerChannel(rank))
    register(*spellings(f"avg_pool{rank}d"), getattr(nn, f"AvgPool{rank}d"))(AveragePooling(rank))
register(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, functional.interpolate)(TorchPerChannel(None))


class Padding(PassThrough):
    """Adds entries at the ends of the last axes: a fixed value, or copies of the entries that are there."""

    def supports(self, call: Call) -> bool:
        return super().supports(call) and len(call.inputs) == 1 and not self._pads_units(call)

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        value = self._value(call)
        is_padded = any(self._amounts(call)) or call.arguments.depends_on_sizes
        if value is None or not is_padded:
            return constants
        return np.where(constants == value, constants, np.nan)

    def _amounts(self, call: Call) -> list[int]:
        """Return how much is added before and after the last axis, the last but one, and so on."""
        named = call.layer.padding if call.arguments.is_module else call.arguments.get(1, "pad")
        return [int(amount) for amount in named]

    def _value(self, call: Call) -> float | None:
        """Return the value that is added, or None for copies."""
        if call.arguments.is_module:
            return float(call.layer.value) if hasattr(call.layer, "value") else None
        value = call.arguments.get(3, "value")
        return float(value or 0.0) if call.arguments.get(2, "mode", "constant") == "constant" else None

    def _pads_units(self, call: Call) -> bool:
        last, amounts = len(call.inputs[0].shape) - 1, self._amounts(call)
        first = 2 * (last - call.inputs[0].axis)
        return any(amounts[first : first + 2])


PADDINGS = ("Zero", "Constant", "Reflection", "Replication", "Circular")
register(*spellings("pad"), *(getattr(nn, f"{kind}Pad{rank}d") for kind in PADDINGS for rank in (1, 2, 3)))(Padding())


def _setting(call: Call, position: int, name: str, default: Any) -> Any:
    """Return a setting of a layer, or an argument of a function."""
    if call.arguments.is_module:
        return getattr(call.layer, name, default)
    return call.arguments.get(position, name, default)
