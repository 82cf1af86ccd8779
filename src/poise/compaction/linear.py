"""Layers that sum over the units that they read and make new ones: Dense, convolutions, Embedding."""

import math

import numpy as np
from keras import layers

from poise.compaction.graph import Call
from poise.compaction.handlers import (
    WALL,
    Kind,
    Part,
    activated,
    before_activation,
    channel_axis,
    is_elementwise,
    places,
    register,
)


class Linear(Kind):
    """activation(Σ_p x_p A_p + b): a sum over places p of the input's units times matrices, and a bias.

    A constant unit adds c·Σ_p A_p to the bias, if it is met at all places. Where zeros are padded, or places of the
    output meet different numbers of places of the input, that holds for c = 0 alone.
    """

    is_sized = True
    makes_units = True

    def matrices(self, call: Call) -> np.ndarray:
        """A: (places, read, made)."""
        raise NotImplementedError

    def meets_all(self, layer) -> bool:
        """Whether every output meets every place of the kernel."""
        return True

    def axis_in(self, call: Call) -> int:
        return channel_axis(call.layer, len(call.inputs[0].shape))

    def size_name(self) -> str:
        """The argument that says how many units are made."""
        return "filters"

    def follows(self, call: Call) -> bool:
        shape = call.outputs[0].shape
        made = getattr(call.layer, self.size_name())
        return len(call.inputs) == 1 and shape[channel_axis(call.layer, len(shape))] == made

    def link(self, call: Call):
        output, axis = call.outputs[0], channel_axis(call.layer, len(call.outputs[0].shape))
        call.enter(0, self.axis_in(call))
        output.carry(axis, call.graph.units.fresh(output.shape[axis]))
        if not is_elementwise(getattr(call.layer, "activation", None)):
            call.graph.units.pin(output.units, f"the activation of {call.layer.name!r} blends all of them")

    def constants(self, call: Call):
        values = self._sums(call)
        call.outputs[0].constants = activated(call, getattr(call.layer, "activation", None), values)

    def needs(self, call: Call):
        needed = before_activation(getattr(call.layer, "activation", None), call.outputs[0].needed)
        # A constant that cannot be folded also holds up the constants that are made of it.
        needed = needed | ~np.isnan(self._sums(call))
        is_read = (self.matrices(call)[:, :, needed] != 0).any(axis=(0, 2))
        call.need(0, is_read & np.isnan(self._swallowed(call, call.foldable(0))))

    def resized(self, call: Call, config: dict, count) -> dict:
        return {**config, self.size_name(): count(call.outputs[0].units)}

    def folded(self, call: Call, stays) -> dict[str, np.ndarray]:
        return {"bias": np.nan_to_num(self._swallowed(call, call.leaving(0, stays))) @ self.matrices(call).sum(axis=0)}

    def products(self, call: Call) -> float:
        kernels = [getattr(call.layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel")]
        return sum(math.prod(one.shape) for one in kernels if one is not None) * self.uses(call)

    def uses(self, call: Call) -> float:
        """At how many places of a sample the kernel is used."""
        return places(call.outputs[0].shape, channel_axis(call.layer, len(call.outputs[0].shape)))

    def _sums(self, call: Call) -> np.ndarray:
        """Per made unit its constant value before the activation, or NaN."""
        matrices, constants = self.matrices(call), self._swallowed(call, call.entering(0))
        varies = (matrices[:, np.isnan(constants)] != 0).any(axis=(0, 1))
        values = np.nan_to_num(constants) @ matrices.sum(axis=0)
        if getattr(call.layer, "use_bias", False):
            values = values + call.value(call.layer.bias)
        return np.where(varies, np.nan, values)

    def _swallowed(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return constants if self.meets_all(call.layer) else np.where(constants == 0, 0.0, np.nan)


@register(layers.Dense)
class Dense(Linear):
    def size_name(self) -> str:
        return "units"

    def axis_in(self, call: Call) -> int:
        return len(call.inputs[0].shape) - 1

    def matrices(self, call: Call) -> np.ndarray:
        return call.value(call.layer.kernel)[None]

    def parts(self, call: Call) -> list[Part]:
        made = call.outputs[0].units
        return [Part("kernel", (0, call.given[0]), (1, made)), Part("bias", None, (0, made))]


@register(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class Convolution(Linear):
    """With several groups, those of the inputs and of the outputs go together, whole."""

    def link(self, call: Call):
        super().link(call)
        groups = call.layer.groups
        if groups == 1:
            return
        for units in (call.given[0], call.outputs[0].units):
            rows = units.reshape(groups, -1)
            for column in rows.T[1:]:
                call.graph.units.join(rows[:, 0], column)
        call.graph.units.join(call.given[0].reshape(groups, -1)[:, 0], call.outputs[0].units.reshape(groups, -1)[:, 0])

    def matrices(self, call: Call) -> np.ndarray:
        kernel = call.value(call.layer.kernel)
        kernel = kernel.reshape(-1, *kernel.shape[-2:])
        groups, (places, inside, made) = call.layer.groups, kernel.shape
        if groups == 1:
            return kernel
        whole = np.zeros((places, inside * groups, made))
        for group in range(groups):
            own = slice(group * made // groups, (group + 1) * made // groups)
            whole[:, group * inside : (group + 1) * inside, own] = kernel[:, :, own]
        return whole

    def meets_all(self, layer) -> bool:
        return layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)

    def resized(self, call: Call, config: dict, count) -> dict:
        config = super().resized(call, config, count)
        if call.layer.groups > 1:
            config["groups"] = call.layer.groups * config["filters"] // call.layer.filters
        return config

    def parts(self, call: Call) -> list[Part]:
        axis, made = len(call.layer.kernel.shape) - 2, call.outputs[0].units
        reads = (axis, call.given[0]) if call.layer.groups == 1 else None
        return [Part("kernel", reads, (axis + 1, made)), Part("bias", None, (0, made))]


@register(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
class Transposed(Linear):
    def matrices(self, call: Call) -> np.ndarray:
        kernel = call.value(call.layer.kernel)
        return kernel.reshape(-1, *kernel.shape[-2:]).swapaxes(1, 2)

    def meets_all(self, layer) -> bool:
        return all(size == 1 for size in (*layer.kernel_size, *layer.strides))

    def uses(self, call: Call) -> float:
        return places(call.inputs[0].shape, channel_axis(call.layer, len(call.inputs[0].shape)))

    def parts(self, call: Call) -> list[Part]:
        axis, made = len(call.layer.kernel.shape) - 1, call.outputs[0].units
        return [Part("kernel", (axis, call.given[0]), (axis - 1, made)), Part("bias", None, (0, made))]


@register(layers.SeparableConv1D, layers.SeparableConv2D)
class Separable(Linear):
    def matrices(self, call: Call) -> np.ndarray:
        deep, across = call.value(call.layer.depthwise_kernel), call.value(call.layer.pointwise_kernel)
        deep = deep.reshape(-1, *deep.shape[-2:])
        across = across.reshape(*deep.shape[1:], -1)
        return np.einsum("pim,imo->pio", deep, across)

    def meets_all(self, layer) -> bool:
        return CONVOLUTION.meets_all(layer)

    def parts(self, call: Call) -> list[Part]:
        axis, read, made = len(call.layer.depthwise_kernel.shape) - 2, call.given[0], call.outputs[0].units
        between = np.repeat(read, call.layer.depth_multiplier)
        return [
            Part("depthwise_kernel", (axis, read), None),
            Part("pointwise_kernel", (axis, between), (axis + 1, made)),
            Part("bias", None, (0, made)),
        ]


@register(layers.Embedding)
class Embedded(Linear):
    """A table of rows: a column whose entries are all alike is a constant."""

    def size_name(self) -> str:
        return "output_dim"

    def link(self, call: Call):
        output = call.outputs[0]
        output.carry(len(output.shape) - 1, call.graph.units.fresh(call.layer.output_dim))

    def constants(self, call: Call):
        table = call.value(call.layer.embeddings)
        call.outputs[0].constants = np.where((table == table[0]).all(axis=0), table[0], np.nan)

    def needs(self, call: Call):
        WALL.needs(call)

    def resized(self, call: Call, config: dict, count) -> dict:
        return {**config, "output_dim": count(call.outputs[0].units)}

    def parts(self, call: Call) -> list[Part]:
        return [Part("embeddings", None, (1, call.outputs[0].units))]

    def folded(self, call: Call, stays) -> dict[str, np.ndarray]:
        return {}


@register(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class Depthwise(Kind):
    """Every channel makes `depth_multiplier` of its own, which go with it."""

    is_sized = True

    def follows(self, call: Call) -> bool:
        return is_elementwise(call.layer.activation)

    def link(self, call: Call):
        axis = channel_axis(call.layer, len(call.inputs[0].shape))
        call.outputs[0].carry(axis, np.repeat(call.enter(0, axis), call.layer.depth_multiplier))

    def constants(self, call: Call):
        kernel, constants = self._kernel(call), np.repeat(call.entering(0), call.layer.depth_multiplier)
        if not CONVOLUTION.meets_all(call.layer):
            constants = np.where(constants == 0, 0.0, np.nan)
        values = np.where((kernel == 0).all(axis=0), 0.0, kernel.sum(axis=0) * constants)
        if call.layer.use_bias:
            values = values + call.value(call.layer.bias)
        call.outputs[0].constants = activated(call, call.layer.activation, values)

    def needs(self, call: Call):
        needed = call.outputs[0].needed & (self._kernel(call) != 0).any(axis=0)
        call.need(0, needed.reshape(-1, call.layer.depth_multiplier).any(axis=1))

    def parts(self, call: Call) -> list[Part]:
        axis = len(call.layer.kernel.shape) - 2
        return [Part("kernel", None, (axis, call.given[0])), Part("bias", None, (0, call.outputs[0].units))]

    def products(self, call: Call) -> float:
        axis = channel_axis(call.layer, len(call.outputs[0].shape))
        return math.prod(call.layer.kernel.shape) * places(call.outputs[0].shape, axis)

    def _kernel(self, call: Call) -> np.ndarray:
        """(places, channels of the output)."""
        kernel = call.value(call.layer.kernel)
        return kernel.reshape(-1, kernel.shape[-2] * kernel.shape[-1])


CONVOLUTION = Convolution()
