"""Layers whose output at an index depends only on the input at the same index, and layers that mix indices."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from poise._keras_internals import operation_of
from poise.compaction.calls import Call
from poise.compaction.handlers import (
    LayerHandler,
    WeightPart,
    apply_to_constants,
    channel_axis,
    is_elementwise,
    register,
)

FUNCTIONS = (
    *(ops.relu, ops.relu6, ops.sigmoid, ops.softplus, ops.softsign, ops.silu, ops.log_sigmoid, ops.leaky_relu),
    *(ops.hard_sigmoid, ops.hard_silu, ops.elu, ops.selu, ops.gelu, ops.celu, ops.hard_tanh, ops.tanh, ops.abs),
    *(ops.absolute, ops.exp, ops.expm1, ops.log, ops.log1p, ops.negative, ops.square, ops.sqrt, ops.rsqrt, ops.erf),
    *(ops.reciprocal, ops.sign, ops.sin, ops.cos, ops.sinh, ops.cosh, ops.arctan, ops.floor, ops.ceil, ops.round),
    *(ops.stop_gradient, ops.copy),
)
"""Operations that act on every entry separately."""


def operation_class(function: Callable[..., Any], arguments: int) -> type:
    """Return the class of the operation that a function of `keras.ops` adds to a graph."""
    return type(operation_of(function(*[keras.KerasTensor((1, 2))] * arguments)))


class PassThrough(LayerHandler):
    """Passes units and constants on unchanged. Further inputs, such as a mask, keep all of their units."""

    def supports(self, call: Call) -> bool:
        return call.inputs[0].axis is not None and len(call.outputs) == 1

    def link_units(self, call: Call) -> None:
        axis = call.inputs[0].axis
        call.outputs[0].carry(axis, call.take_units(0, axis))

    def find_constants(self, call: Call) -> None:
        call.outputs[0].constants = self.map_constants(call, call.input_constants(0))

    def find_needed(self, call: Call) -> None:
        call.mark_needed(0, call.outputs[0].needed)

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        """Return the constants of the output, given the constants of the input."""
        return constants


register(layers.Identity, layers.ActivityRegularization)(PassThrough())


@register(layers.Normalization)
class FixedNormalization(PassThrough):
    """Normalization by stored statistics. Its features stay, because the statistics are also in its configuration."""

    def link_units(self, call: Call) -> None:
        super().link_units(call)
        call.graph.units.pin(call.input_units[0], f"{call.name!r} holds the statistics of all of them")

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return np.full(len(constants), np.nan)


@register(
    *(layers.Dropout, layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
)
class TrainingNoise(PassThrough):
    """The identity in inference. In training, the random draw depends on the number of units."""

    def differs_in_training(self, call: Call) -> bool:
        return True


@register(layers.ReLU, layers.LeakyReLU, layers.ELU, *(operation_class(function, 1) for function in FUNCTIONS))
class ElementwiseFunction(PassThrough):
    """Applies the layer or operation itself to constants."""

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return apply_to_constants(call.layer, constants, call.outputs[0].dtype)


@register(layers.Activation)
class ActivationLayer(PassThrough):
    """An activation layer, if the activation is known to act on every entry separately."""

    def supports(self, call: Call) -> bool:
        return super().supports(call) and is_elementwise(call.layer.activation)

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return apply_to_constants(call.layer.activation, constants, call.outputs[0].dtype)


@register(layers.Rescaling)
class ScalarRescaling(PassThrough):
    """x · scale + offset, where both are numbers."""

    def supports(self, call: Call) -> bool:
        return super().supports(call) and np.ndim(call.layer.scale) == 0 == np.ndim(call.layer.offset)

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return constants * call.layer.scale + call.layer.offset


@register(layers.PReLU)
class ParametricSlope(PassThrough):
    """A slope for negative entries, one per position unless positions share it."""

    is_sized = True

    def weight_parts(self, call: Call) -> list[WeightPart]:
        axis = self._axis(call)
        return [] if axis is None else [WeightPart("alpha", makes=(axis, call.input_units[0]))]

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        slopes, axis = call.value(call.layer.alpha), self._axis(call)
        slopes = (
            np.moveaxis(slopes, axis, -1).reshape(-1, slopes.shape[axis]) if axis is not None else slopes.reshape(-1, 1)
        )
        is_same = (slopes == slopes[0]).all(axis=0)
        below = np.where(is_same | (constants == 0), constants * slopes[0], np.nan)
        return np.where(constants > 0, constants, below)

    def _axis(self, call: Call) -> int | None:
        """Return the axis of the slopes along which the units lie, or None where all units share them."""
        axis = (call.inputs[0].axis or 0) - 1
        return axis if call.layer.alpha.shape[axis] > 1 else None


class Mixing(PassThrough):
    """Every output depends on all inputs and on their number, so no input is removed while an output is needed."""

    def link_units(self, call: Call) -> None:
        super().link_units(call)
        for units in call.input_units.values():
            call.graph.units.pin(units, f"{call.description} combines all of them")

    def find_constants(self, call: Call) -> None:
        pass

    def find_needed(self, call: Call) -> None:
        needed = call.outputs[0].needed
        call.mark_needed(0, np.full(len(needed), needed.any()))


MIXING = Mixing()


@register(layers.Softmax, layers.UnitNormalization)
class MixingAlongAxes(PassThrough):
    """Mixes along the axes that the layer names, and works position by position along the others."""

    def link_units(self, call: Call) -> None:
        self._handler(call).link_units(call)

    def find_constants(self, call: Call) -> None:
        pass

    def find_needed(self, call: Call) -> None:
        self._handler(call).find_needed(call)

    def axes(self, call: Call) -> Sequence[int]:
        """Return the axes along which the layer mixes."""
        return call.layer.axis if isinstance(call.layer.axis, (list, tuple)) else [call.layer.axis]

    def _handler(self, call: Call) -> LayerHandler:
        rank = len(call.inputs[0].shape)
        return MIXING if call.inputs[0].axis in [axis % rank for axis in self.axes(call)] else PASS_THROUGH


PASS_THROUGH = PassThrough()


@register(operation_class(ops.glu, 1))
class GatedLinearUnit(LayerHandler):
    """a · σ(b) of the two halves a and b of an axis. All units stay."""

    def supports(self, call: Call) -> bool:
        tensor = call.inputs[0]
        return tensor.axis is not None and tensor.axis == call.layer.axis % len(tensor.shape)

    def link_units(self, call: Call) -> None:
        axis = call.inputs[0].axis
        units = call.take_units(0, axis)
        made = call.graph.units.create(len(units) // 2)
        for pinned in (units, made):
            call.graph.units.pin(pinned, f"{call.description} combines two halves of them")
        call.outputs[0].carry(axis, made)

    def find_needed(self, call: Call) -> None:
        call.mark_needed(0, np.tile(call.outputs[0].needed, 2))


class PerChannel(PassThrough):
    """Works along the other axes, in the same way for every channel, so a constant channel keeps its value."""

    def link_units(self, call: Call) -> None:
        axis = channel_axis(call.layer, len(call.inputs[0].shape))
        units = call.take_units(0, axis)
        # Global pooling without keepdims leaves the channels as the last of two axes.
        call.outputs[0].carry(min(axis, len(call.outputs[0].shape) - 1), units)


PER_CHANNEL_LAYERS = (
    *(f"{kind}Pooling{rank}D" for kind in ("Max", "Average", "AdaptiveMax", "AdaptiveAverage") for rank in (1, 2, 3)),
    *(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)),
    *(f"{kind}{rank}D" for kind in ("Cropping", "UpSampling") for rank in (1, 2, 3)),
)
register(*(getattr(layers, name) for name in PER_CHANNEL_LAYERS if hasattr(layers, name)))(PerChannel())


@register(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
class ZeroPadding(PerChannel):
    """Adds zeros at the border, so only the constant 0 stays constant."""

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return np.where(constants == 0, 0.0, np.nan)
