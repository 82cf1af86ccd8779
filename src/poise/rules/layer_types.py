"""The table of layer types: what each variable of a Keras layer is for, and where its inputs and outputs lie.

A variable does not know its layer, and its name and shape are not enough: the last axis of a kernel holds the filters
of a `Conv2D`, the input channels of a `Conv2DTranspose`, the multiplier of a `DepthwiseConv2D` and four gates of an
`LSTM`; `alpha` of a `PReLU` is not a kernel.
"""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from poise.penalties.axes import Axes, Sides, keras_sides
from poise.rules.variable_info import (
    BIASES,
    EMBEDDINGS,
    KERNEL,
    NO_SUCH_SIDE,
    SCALES,
    SLOPE,
    STATE,
    VariableInfo,
)

Shape: TypeAlias = tuple[int, ...]
Describe: TypeAlias = Callable[[Any, Shape], VariableInfo]
"""(layer, shape of the variable) → what the variable is."""


def matrix(role: str, inputs: int = -2, outputs: int = -1) -> Describe:
    """One axis for the inputs and one for the outputs."""
    return lambda layer, shape: VariableInfo(role, Sides(Axes.along(shape, inputs), Axes.along(shape, outputs)))


def vector(role: str, gates: int = 1) -> Describe:
    """One entry per output, on all axes; or `gates` blocks of one entry per unit on the last axis."""

    def describe(layer: Any, shape: Shape) -> VariableInfo:
        if not shape:
            return VariableInfo(role, Sides())
        units = Axes.blocks(shape, -1, gates) if gates > 1 else Axes.along(shape, *range(len(shape)))
        return VariableInfo(role, Sides(units, units))

    return describe


def state(layer: Any, shape: Shape) -> VariableInfo:
    return VariableInfo(STATE, keras_sides(shape))


def _gated_kernel(gates: int) -> Describe:
    """(..., inputs, gates · units): a unit has a column of each gate."""

    def describe(layer: Any, shape: Shape) -> VariableInfo:
        units = Axes.blocks(shape, -1, gates)
        return VariableInfo(KERNEL, Sides(Axes.along(shape, -2), units, columns=Axes.along(shape, -1)))

    return describe


def _convolution_kernel(layer: Any, shape: Shape) -> VariableInfo:
    """(..., inputs / groups, filters): the filters of a group read the inputs of that group."""
    inputs = Axes.along(shape, -2)
    if layer.groups > 1:
        inputs = Axes.across(shape, -1, layer.groups, -2)
    return VariableInfo(KERNEL, Sides(inputs, Axes.along(shape, -1)))


def _depthwise_kernel(layer: Any, shape: Shape) -> VariableInfo:
    """(..., inputs, multiplier): filter number input · multiplier + m."""
    return VariableInfo(KERNEL, Sides(Axes.along(shape, -2), Axes.along(shape, -2, -1)))


def _convolution_lora_a(layer: Any, shape: Shape) -> VariableInfo:
    """(..., inputs / groups, rank): with groups an entry belongs to several inputs."""
    inputs = Axes.along(shape, -2) if layer.groups == 1 else None
    return VariableInfo(KERNEL, Sides(inputs, Axes.along(shape, -1), unknown=NO_SUCH_SIDE))


def _einsum_kernel(layer: Any, shape: Shape) -> VariableInfo:
    inputs, kernel, outputs = _letters(layer)
    return VariableInfo(KERNEL, _sides_by_letters(kernel, shape, inputs, outputs))


def _einsum_bias(layer: Any, shape: Shape) -> VariableInfo:
    """Its axes are the last ones of the output, of length 1 where it has no separate letter."""
    _, kernel, outputs = _letters(layer)
    letters = outputs[len(outputs) - len(shape) :]
    axes = [axis for axis, letter in enumerate(letters) if letter in kernel and letter in layer.bias_axes]
    units = Axes.along(shape, *axes) if axes else None
    return VariableInfo(BIASES, Sides(units, units, unknown=NO_SUCH_SIDE))


def _einsum_lora_a(layer: Any, shape: Shape) -> VariableInfo:
    """The kernel's axes but the last, then the rank."""
    inputs, kernel, _ = _letters(layer)
    is_whole = kernel[-1] not in inputs
    sides = _sides_by_letters(kernel[:-1] + "*", shape, inputs if is_whole else "", "*")
    return VariableInfo(KERNEL, sides)


def _einsum_lora_b(layer: Any, shape: Shape) -> VariableInfo:
    """(rank, the kernel's last axis), which numbers the outputs where it does so without the others."""
    _, kernel, outputs = _letters(layer)
    is_whole = kernel[-1] in outputs and not set(kernel[:-1]) & set(outputs)
    return VariableInfo(KERNEL, _sides_by_letters("*" + kernel[-1], shape, "*", outputs if is_whole else ""))


def _letters(layer: Any) -> list[str]:
    """The letters of the inputs, the kernel and the outputs in the equation of an EinsumDense."""
    return re.split(r",|->", layer.equation.replace(" ", ""))


def _sides_by_letters(letters_of_axes: str, shape: Shape, inputs: str, outputs: str) -> Sides:
    def along(letters: str) -> Axes | None:
        axes = [letters_of_axes.index(letter) for letter in letters if letter in letters_of_axes]
        return Axes.along(shape, *axes) if axes else None

    return Sides(along(inputs), along(outputs), unknown=NO_SUCH_SIDE)


QUANTIZATION = dict.fromkeys(
    [
        *("kernel_scale", "kernel_zero", "zero_point", "g_idx", "awq_scales"),
        *("embeddings_scale", "embeddings_zero", "reverse_embeddings_scale", "reverse_embeddings_zero"),
        *("inputs_scale", "inputs_amax_history", "kernel_amax_history"),
        *("outputs_grad_scale", "outputs_grad_amax_history"),
    ],
    state,
)
DENSE = {
    "kernel": matrix(KERNEL),
    "bias": vector(BIASES),
    "lora_kernel_a": matrix(KERNEL),
    "lora_kernel_b": matrix(KERNEL),
    **QUANTIZATION,
}
EINSUM_DENSE = {
    "kernel": _einsum_kernel,
    "bias": _einsum_bias,
    "lora_kernel_a": _einsum_lora_a,
    "lora_kernel_b": _einsum_lora_b,
    **QUANTIZATION,
}
EMBEDDING = {
    "embeddings": matrix(EMBEDDINGS),
    "reverse_embeddings": matrix(EMBEDDINGS),
    "lora_embeddings_a": matrix(EMBEDDINGS),
    "lora_embeddings_b": matrix(EMBEDDINGS),
    **QUANTIZATION,
}
CONVOLUTION = {
    "kernel": _convolution_kernel,
    "bias": vector(BIASES),
    "lora_kernel_a": _convolution_lora_a,
    "lora_kernel_b": matrix(KERNEL),
}
TRANSPOSED = {"kernel": matrix(KERNEL, inputs=-1, outputs=-2), "bias": vector(BIASES)}
DEPTHWISE = {"kernel": _depthwise_kernel, "bias": vector(BIASES)}
SEPARABLE = {"depthwise_kernel": _depthwise_kernel, "pointwise_kernel": matrix(KERNEL), "bias": vector(BIASES)}
NORMALIZATION = {"gamma": vector(SCALES), "scale": vector(SCALES), "beta": vector(BIASES)}
STATISTICS = dict.fromkeys(["moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"], state)


def _recurrent(gates: int) -> dict[str, Describe]:
    return {"kernel": _gated_kernel(gates), "recurrent_kernel": _gated_kernel(gates), "bias": vector(BIASES, gates)}


TABLE: dict[str, dict[str, Describe]] = {
    "Dense": DENSE,
    "EinsumDense": EINSUM_DENSE,
    "Embedding": EMBEDDING,
    "Conv1D": CONVOLUTION,
    "Conv2D": CONVOLUTION,
    "Conv3D": CONVOLUTION,
    "Conv1DTranspose": TRANSPOSED,
    "Conv2DTranspose": TRANSPOSED,
    "Conv3DTranspose": TRANSPOSED,
    "DepthwiseConv1D": DEPTHWISE,
    "DepthwiseConv2D": DEPTHWISE,
    "SeparableConv1D": SEPARABLE,
    "SeparableConv2D": SEPARABLE,
    "SimpleRNNCell": _recurrent(1),
    "GRUCell": _recurrent(3),
    "LSTMCell": _recurrent(4),
    "ConvLSTMCell": _recurrent(4),
    "Attention": {"scale": vector(SCALES), "concat_score_weight": vector(SCALES)},
    "AdditiveAttention": {"scale": vector(SCALES)},
    "PReLU": {"alpha": lambda layer, shape: VariableInfo(SLOPE, keras_sides(shape))},
    "BatchNormalization": {**NORMALIZATION, **STATISTICS},
    "LayerNormalization": NORMALIZATION,
    "GroupNormalization": NORMALIZATION,
    "RMSNormalization": NORMALIZATION,
    "SpectralNormalization": {"vector_u": state},
    "Normalization": {"mean": state, "variance": state, "count": state},
    "STFTSpectrogram": {"real_kernel": matrix(KERNEL), "imag_kernel": matrix(KERNEL)},
}
"""Maps the name of a Keras layer to the kind of each of its direct variables. Subclasses inherit the row."""
