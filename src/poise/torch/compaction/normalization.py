"""Normalization layers, with statistics of one unit or of several."""

from typing import Any

import numpy as np
from torch import nn

from poise.compaction import normalization
from poise.compaction.calls import Call
from poise.compaction.handlers import Counter, register
from poise.torch.compaction.handlers import spatial_axis


class _Affine:
    """Reads γ and β from `weight` and `bias`."""

    def supports(self, call: Call) -> bool:
        return len(call.inputs) == 1

    def axis(self, call: Call) -> int:
        return 1

    def scale(self, call: Call) -> np.ndarray:
        weight = call.layer.weight
        return np.ones(len(call.input_units[0])) if weight is None else call.value(weight)

    def shift(self, call: Call) -> np.ndarray:
        bias = getattr(call.layer, "bias", None)
        return np.zeros(len(call.input_units[0])) if bias is None else call.value(bias)


@register(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
class TorchBatchStatistics(_Affine, normalization.BatchStatistics):
    """Normalizes every unit by its running statistics, or by those of the batch if it has no others."""

    names = ("weight", "bias", "running_mean", "running_var")

    def map_constants(self, call: Call) -> np.ndarray:
        layer, constants = call.layer, call.input_constants(0)
        if layer.running_mean is None:  # a constant is its own mean
            return np.where(np.isnan(constants), np.nan, self.shift(call))
        mean, variance = (call.value(v, is_exact=True) for v in (layer.running_mean, layer.running_var))
        with np.errstate(invalid="ignore"):  # a negative variance gives NaN, which counts as not constant
            scale = self.scale(call) / np.sqrt(variance + layer.eps)
        return scale * (constants - mean) + self.shift(call)

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {"num_features": count(call.input_units[0])}


@register(nn.InstanceNorm1d)
class InstanceStatistics(TorchBatchStatistics):
    """Normalizes every unit by its statistics in a sample, or by its running statistics. The batch axis may be missing.

    Args:
        spatial: Number of spatial axes. Default: 1.
    """

    def __init__(self, spatial: int = 1) -> None:
        self.spatial = spatial

    def axis(self, call: Call) -> int:
        return spatial_axis(call.inputs[0], self.spatial)


register(nn.InstanceNorm2d)(InstanceStatistics(2))
register(nn.InstanceNorm3d)(InstanceStatistics(3))


@register(nn.GroupNorm)
class TorchGroupStatistics(_Affine, normalization.GroupStatistics):
    """Statistics over the units of a group, so only whole groups can be removed."""

    names = ("weight", "bias")

    def groups(self, call: Call) -> int:
        return call.layer.num_groups

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        units = call.input_units[0]
        channels = count(units)
        return {"num_channels": channels, "num_groups": self.groups(call) * channels // len(units)}


@register(nn.LayerNorm, nn.RMSNorm)
class TorchLayerStatistics(_Affine, normalization.LayerStatistics):
    """Statistics over the last axes. Where the units lie along one of them, none can be removed."""

    def axis(self, call: Call) -> int:
        axis, rank = call.inputs[0].axis, len(call.inputs[0].shape)
        return rank - 1 if axis is None else axis

    def link_units(self, call: Call) -> None:
        if self._mixes(call):
            super().link_units(call)
        else:
            call.outputs[0].carry(self.axis(call), call.take_units(0, self.axis(call)))

    def needed_inputs(self, call: Call, needed: np.ndarray) -> np.ndarray:
        return super().needed_inputs(call, needed) if self._mixes(call) else needed

    def scale(self, call: Call) -> np.ndarray:
        return super().scale(call) if self._has_weight_per_unit(call) else np.ones(len(call.input_units[0]))

    def shift(self, call: Call) -> np.ndarray:
        return super().shift(call) if self._has_weight_per_unit(call) else np.zeros(len(call.input_units[0]))

    def _has_weight_per_unit(self, call: Call) -> bool:
        return self._mixes(call) and len(call.layer.normalized_shape) == 1

    def _mixes(self, call: Call) -> bool:
        return self.axis(call) >= len(call.inputs[0].shape) - len(call.layer.normalized_shape)
