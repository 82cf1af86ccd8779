"""Layers whose output index is a function of the same input index, alone."""

import keras
import numpy as np
from keras import layers, ops

from poise.compaction.graph import Call
from poise.compaction.handlers import Kind, Part, applied, channel_axis, is_elementwise, register

FUNCTIONS = (
    *(ops.relu, ops.relu6, ops.sigmoid, ops.softplus, ops.softsign, ops.silu, ops.log_sigmoid, ops.leaky_relu),
    *(ops.hard_sigmoid, ops.hard_silu, ops.elu, ops.selu, ops.gelu, ops.celu, ops.hard_tanh, ops.tanh, ops.abs),
    *(ops.absolute, ops.exp, ops.expm1, ops.log, ops.log1p, ops.negative, ops.square, ops.sqrt, ops.rsqrt, ops.erf),
    *(ops.reciprocal, ops.sign, ops.sin, ops.cos, ops.sinh, ops.cosh, ops.arctan, ops.floor, ops.ceil, ops.round),
    *(ops.stop_gradient, ops.copy),
)
"""Operations that act on every entry alone."""


def class_of(function, arguments: int) -> type:
    """The class of the operation that a function of `keras.ops` puts into a graph."""
    return type(function(*[keras.KerasTensor((1, 2))] * arguments)._keras_history.operation)


class Passing(Kind):
    """The output is the input, as far as constants and units go. Further tensors (a mask) stay whole."""

    def follows(self, call: Call) -> bool:
        return call.inputs[0].axis is not None and len(call.outputs) == 1

    def link(self, call: Call):
        axis = call.inputs[0].axis
        call.outputs[0].carry(axis, call.enter(0, axis))

    def constants(self, call: Call):
        call.outputs[0].constants = self.passed(call, call.entering(0))

    def needs(self, call: Call):
        call.need(0, call.outputs[0].needed)

    def passed(self, call: Call, constants: np.ndarray) -> np.ndarray:
        """The constants of the output, given those of the input."""
        return constants


register(layers.Identity, layers.ActivityRegularization)(Passing())


@register(
    *(layers.Dropout, layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
)
class Random(Passing):
    """The identity outside of training; in training another draw for every number of units."""

    def differs_in_training(self, call: Call) -> bool:
        return True


@register(layers.ReLU, layers.LeakyReLU, layers.ELU, *(class_of(function, 1) for function in FUNCTIONS))
class Elementwise(Passing):
    """The layer or operation itself tells what it makes of a constant."""

    def passed(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return applied(call.layer, constants, call.outputs[0].dtype)


@register(layers.Activation)
class Activated(Passing):
    """An activation, if it is known to act on every entry alone."""

    def follows(self, call: Call) -> bool:
        return super().follows(call) and is_elementwise(call.layer.activation)

    def passed(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return applied(call.layer.activation, constants, call.outputs[0].dtype)


@register(layers.Rescaling)
class Rescaled(Passing):
    """x · scale + offset, where both are numbers."""

    def follows(self, call: Call) -> bool:
        return super().follows(call) and np.ndim(call.layer.scale) == 0 == np.ndim(call.layer.offset)

    def passed(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return constants * call.layer.scale + call.layer.offset


@register(layers.PReLU)
class Sloped(Passing):
    """A slope for negative entries, at every place that is not shared one of its own."""

    is_sized = True

    def parts(self, call: Call) -> list[Part]:
        axis = self._axis(call)
        return [] if axis is None else [Part("alpha", makes=(axis, call.given[0]))]

    def passed(self, call: Call, constants: np.ndarray) -> np.ndarray:
        slopes, axis = call.value(call.layer.alpha), self._axis(call)
        slopes = (
            slopes.reshape(-1, 1) if axis is None else np.moveaxis(slopes, axis, -1).reshape(-1, slopes.shape[axis])
        )
        is_one = (slopes == slopes[0]).all(axis=0)
        below = np.where(is_one | (constants == 0), constants * slopes[0], np.nan)
        return np.where(constants > 0, constants, below)

    def _axis(self, call: Call) -> int | None:
        """The axis of the slopes along which the units lie; None where all units share them."""
        axis = (call.inputs[0].axis or 0) - 1
        return axis if call.layer.alpha.shape[axis] > 1 else None


class Blending(Passing):
    """Every output depends on all inputs, and on their number: none can go while any output is needed."""

    def link(self, call: Call):
        super().link(call)
        for units in call.given.values():
            call.graph.units.pin(units, f"{call.layer.name!r} ({type(call.layer).__name__}) blends all of them")

    def constants(self, call: Call):
        pass

    def needs(self, call: Call):
        needed = call.outputs[0].needed
        call.need(0, np.full(len(needed), needed.any()))


BLENDING = Blending()


@register(layers.Softmax, layers.UnitNormalization)
class BlendingAlong(Passing):
    """Blends along the axes that the layer names, and goes place by place along the others."""

    def link(self, call: Call):
        self._kind(call).link(call)

    def constants(self, call: Call):
        pass

    def needs(self, call: Call):
        self._kind(call).needs(call)

    def _kind(self, call: Call) -> Kind:
        named = call.layer.axis if isinstance(call.layer.axis, (list, tuple)) else [call.layer.axis]
        rank = len(call.inputs[0].shape)
        return BLENDING if call.inputs[0].axis in [axis % rank for axis in named] else PASSING


PASSING = Passing()


class OverPlaces(Passing):
    """Acts along the other axes than the channels', alike on each: a constant channel stays what it is."""

    def link(self, call: Call):
        axis = channel_axis(call.layer, len(call.inputs[0].shape))
        units = call.enter(0, axis)
        # Global pooling without keepdims leaves the channels as the last of two axes.
        call.outputs[0].carry(min(axis, len(call.outputs[0].shape) - 1), units)


NAMES = (
    *(f"{kind}Pooling{rank}D" for kind in ("Max", "Average", "AdaptiveMax", "AdaptiveAverage") for rank in (1, 2, 3)),
    *(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)),
    *(f"{kind}{rank}D" for kind in ("Cropping", "UpSampling") for rank in (1, 2, 3)),
)
register(*(getattr(layers, name) for name in NAMES if hasattr(layers, name)))(OverPlaces())


@register(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
class Padded(OverPlaces):
    """Zeros around: only the constant 0 stays one."""

    def passed(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return np.where(constants == 0, 0.0, np.nan)
