"""Normalization layers, with statistics of one unit or of several."""

from typing import Any

import numpy as np
from keras import layers

from poise.compaction.calls import Call
from poise.compaction.handlers import Counter, LayerHandler, WeightPart, register


class Normalization(LayerHandler):
    """γ(x − μ)/σ + β along one axis. Where γ is zero, the output is β for any input."""

    is_sized = True
    names = ("gamma", "beta")

    def supports(self, call: Call) -> bool:
        return not isinstance(call.layer.axis, (list, tuple)) or len(call.layer.axis) == 1

    def link_units(self, call: Call) -> None:
        axis = self.axis(call)
        call.outputs[0].carry(axis, call.take_units(0, axis))

    def find_constants(self, call: Call) -> None:
        call.outputs[0].constants = np.where(self.scale(call) == 0, self.shift(call), self.map_constants(call))

    def find_needed(self, call: Call) -> None:
        call.mark_needed(0, self.needed_inputs(call, call.outputs[0].needed & (self.scale(call) != 0)))

    def weight_parts(self, call: Call) -> list[WeightPart]:
        return [WeightPart(name, None, (0, call.input_units[0])) for name in self.names]

    def map_constants(self, call: Call) -> np.ndarray:
        """Return the constants of the output where γ is not zero."""
        return np.full(len(call.input_units[0]), np.nan)

    def needed_inputs(self, call: Call, needed: np.ndarray) -> np.ndarray:
        """Return the needed units of the input, given the needed units of the output."""
        return needed

    def axis(self, call: Call) -> int:
        """Return the axis along which γ and β lie."""
        axes = call.layer.axis if isinstance(call.layer.axis, (list, tuple)) else [call.layer.axis]
        return axes[0] % len(call.inputs[0].shape)

    def scale(self, call: Call) -> np.ndarray:
        """Return γ, or ones."""
        gamma = getattr(call.layer, "gamma", None)
        return np.ones(len(call.input_units[0])) if gamma is None else call.value(gamma)

    def shift(self, call: Call) -> np.ndarray:
        """Return β, or zeros."""
        beta = getattr(call.layer, "beta", None)
        return np.zeros(len(call.input_units[0])) if beta is None else call.value(beta)


@register(layers.BatchNormalization)
class BatchStatistics(Normalization):
    """Normalizes every unit by its moving statistics, so a constant stays constant."""

    names = ("gamma", "beta", "moving_mean", "moving_variance")

    def differs_in_training(self, call: Call) -> bool:
        return True

    def map_constants(self, call: Call) -> np.ndarray:
        layer = call.layer
        mean, variance = (call.value(v, is_exact=True) for v in (layer.moving_mean, layer.moving_variance))
        with np.errstate(invalid="ignore"):  # a negative variance gives NaN, which counts as not constant
            scale = self.scale(call) / np.sqrt(variance + layer.epsilon)
        return scale * (call.input_constants(0) - mean) + self.shift(call)


@register(layers.GroupNormalization)
class GroupStatistics(Normalization):
    """Statistics over the units of a group, so only whole groups can be removed."""

    def link_units(self, call: Call) -> None:
        super().link_units(call)
        rows = call.input_units[0].reshape(self.groups(call), -1)
        for column in rows.T[1:]:
            call.graph.units.join(rows[:, 0], column)

    def needed_inputs(self, call: Call, needed: np.ndarray) -> np.ndarray:
        groups = needed.reshape(self.groups(call), -1)
        return np.broadcast_to(groups.any(axis=1, keepdims=True), groups.shape).reshape(-1)

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        units = call.input_units[0]
        return {**config, "groups": self.groups(call) * count(units) // len(units)}

    def groups(self, call: Call) -> int:
        """Return the number of groups."""
        groups = call.layer.groups
        return len(call.input_units[0]) if groups == -1 else groups


@register(layers.LayerNormalization, layers.RMSNormalization)
class LayerStatistics(Normalization):
    """Statistics over all units and their number, so none can be removed."""

    is_sized = False

    def link_units(self, call: Call) -> None:
        super().link_units(call)
        for units in call.input_units.values():
            call.graph.units.pin(units, f"{call.description} computes statistics over all of them")

    def weight_parts(self, call: Call) -> list[WeightPart]:
        return []

    def needed_inputs(self, call: Call, needed: np.ndarray) -> np.ndarray:
        return np.full(len(needed), needed.any())

    def scale(self, call: Call) -> np.ndarray:
        scale = getattr(call.layer, "gamma", getattr(call.layer, "scale", None))
        return np.ones(len(call.input_units[0])) if scale is None or isinstance(scale, bool) else call.value(scale)
