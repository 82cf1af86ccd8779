"""Normalization layers: which of them look at one unit alone, and which at several."""

import numpy as np
from keras import layers

from poise.compaction.graph import Call
from poise.compaction.handlers import Kind, Part, register


class Normalizing(Kind):
    """γ(x − μ)/σ + β along one axis: where γ is zero, the output is β whatever comes in."""

    is_sized = True
    names = ("gamma", "beta")

    def follows(self, call: Call) -> bool:
        return not isinstance(call.layer.axis, (list, tuple)) or len(call.layer.axis) == 1

    def link(self, call: Call):
        axes = call.layer.axis if isinstance(call.layer.axis, (list, tuple)) else [call.layer.axis]
        axis = axes[0] % len(call.inputs[0].shape)
        call.outputs[0].carry(axis, call.enter(0, axis))

    def constants(self, call: Call):
        call.outputs[0].constants = np.where(self._scale(call) == 0, self._shift(call), self.passed(call))

    def needs(self, call: Call):
        call.need(0, self.required(call, call.outputs[0].needed & (self._scale(call) != 0)))

    def parts(self, call: Call) -> list[Part]:
        return [Part(name, None, (0, call.given[0])) for name in self.names]

    def passed(self, call: Call) -> np.ndarray:
        """The constants of the output where γ is not zero."""
        return np.full(len(call.given[0]), np.nan)

    def required(self, call: Call, needed: np.ndarray) -> np.ndarray:
        """What is needed of the input for some units of the output."""
        return needed

    def _scale(self, call: Call) -> np.ndarray:
        gamma = getattr(call.layer, "gamma", None)
        return np.ones(len(call.given[0])) if gamma is None else call.value(gamma)

    def _shift(self, call: Call) -> np.ndarray:
        beta = getattr(call.layer, "beta", None)
        return np.zeros(len(call.given[0])) if beta is None else call.value(beta)


@register(layers.BatchNormalization)
class Batch(Normalizing):
    """Every unit alone, by its moving statistics: a constant stays one."""

    names = ("gamma", "beta", "moving_mean", "moving_variance")

    def differs_in_training(self, call: Call) -> bool:
        return True

    def passed(self, call: Call) -> np.ndarray:
        layer = call.layer
        mean, variance = (call.value(v, is_exact=True) for v in (layer.moving_mean, layer.moving_variance))
        scale = self._scale(call) / np.sqrt(variance + layer.epsilon)
        return scale * (call.entering(0) - mean) + self._shift(call)


@register(layers.GroupNormalization)
class Grouped(Normalizing):
    """Statistics over the units of a group: only whole groups can go."""

    def link(self, call: Call):
        super().link(call)
        rows = call.given[0].reshape(self._groups(call), -1)
        for column in rows.T[1:]:
            call.graph.units.join(rows[:, 0], column)

    def required(self, call: Call, needed: np.ndarray) -> np.ndarray:
        groups = needed.reshape(self._groups(call), -1)
        return np.broadcast_to(groups.any(axis=1, keepdims=True), groups.shape).reshape(-1)

    def resized(self, call: Call, config: dict, count) -> dict:
        units = call.given[0]
        return {**config, "groups": self._groups(call) * count(units) // len(units)}

    def _groups(self, call: Call) -> int:
        groups = call.layer.groups
        return len(call.given[0]) if groups == -1 else groups


@register(layers.LayerNormalization, layers.RMSNormalization)
class Layerwise(Normalizing):
    """Statistics over all units, whose number counts: none can go."""

    is_sized = False

    def link(self, call: Call):
        super().link(call)
        for units in call.given.values():
            call.graph.units.pin(units, f"{call.layer.name!r} ({type(call.layer).__name__}) takes statistics over all")

    def parts(self, call: Call) -> list[Part]:
        return []

    def required(self, call: Call, needed: np.ndarray) -> np.ndarray:
        return np.full(len(needed), needed.any())

    def _scale(self, call: Call) -> np.ndarray:
        scale = getattr(call.layer, "gamma", getattr(call.layer, "scale", None))
        return np.ones(len(call.given[0])) if scale is None or isinstance(scale, bool) else call.value(scale)
