"""Layers and functions that act on every entry separately, and those that mix entries along an axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from poise.compaction import elementwise
from poise.compaction.calls import Call
from poise.compaction.elementwise import PassThrough
from poise.compaction.handlers import Counter, WeightPart, register
from poise.torch.compaction.handlers import run_on_constants, spellings

ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid),
    *(nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink),
    *(nn.Softplus, nn.Softsign, nn.Threshold),
)
FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "logsigmoid", "tanh"),
    *("hardtanh", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "tanhshrink", "softplus", "softsign"),
    *("threshold", "abs", "absolute", "neg", "negative", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p"),
    *("sqrt", "rsqrt", "square", "reciprocal", "sign", "sin", "cos", "sinh", "cosh", "asinh", "atan", "arctan", "erf"),
    *("floor", "ceil", "round", "trunc", "clamp", "clip", "clamp_min", "clamp_max", "nan_to_num", "logical_not"),
    *("to", "float", "double", "half", "bfloat16", "bool", "int", "long", "type"),
)
IDENTITIES = ("contiguous", "clone", "detach", "cpu", "cuda")


@register(*ACTIVATIONS, *spellings(*FUNCTIONS))
class TorchElementwiseFunction(PassThrough):
    """Applies the layer or function itself to constants. All other arguments are numbers or types."""

    is_elementwise = True

    def supports(self, call: Call) -> bool:
        is_elementwise = len(call.inputs) == 1 and [tensor.shape for tensor in call.outputs] == [call.inputs[0].shape]
        return super().supports(call) and is_elementwise

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return run_on_constants(call, [constants])


@register(nn.Identity, *spellings(*IDENTITIES))
class Unchanged(PassThrough):
    """Returns its input."""

    def supports(self, call: Call) -> bool:
        return super().supports(call) and len(call.inputs) == 1


register(*(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout))(Unchanged())


@register(*spellings("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"))
class FunctionalDropout(Unchanged):
    """The identity, unless the call is fixed to training."""

    def supports(self, call: Call) -> bool:
        training = call.arguments.get(2, "training", call.arguments.get(2, "train", True))
        return super().supports(call) and training is False


@register(nn.PReLU)
class TorchParametricSlope(PassThrough):
    """A slope for negative entries, one per channel or one for all."""

    is_sized = True

    def supports(self, call: Call) -> bool:
        return super().supports(call) and (call.layer.num_parameters == 1 or call.inputs[0].axis == 1)

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return np.where(constants > 0, constants, constants * call.value(call.layer.weight))

    def weight_parts(self, call: Call) -> list[WeightPart]:
        return [WeightPart("weight", makes=(0, call.input_units[0]))] if call.layer.num_parameters > 1 else []

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        return {"num_parameters": count(call.input_units[0])} if call.layer.num_parameters > 1 else {}


@register(
    *(nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d),
    *spellings("softmax", "log_softmax", "softmin", "cumsum", "cumprod", "logcumsumexp"),
)
class MixingAlongAxis(elementwise.MixingAlongAxes):
    """Mixes along an axis, and works position by position along the others."""

    def supports(self, call: Call) -> bool:
        return super().supports(call) and len(call.inputs) == 1 and isinstance(self.axes(call)[0], int)

    def axes(self, call: Call) -> Sequence[int]:
        if isinstance(call.layer, nn.Softmax2d):
            return [-3]
        return [call.layer.dim if call.arguments.is_module else call.arguments.get(1, "dim")]


@register(functional.normalize)
class UnitNormalization(MixingAlongAxis):
    """Divides by a norm along an axis."""

    def axes(self, call: Call) -> Sequence[int]:
        return [call.arguments.get(2, "dim", 1)]


REDUCTIONS: dict[str, bool] = {"mean": True, "amax": True, "amin": True, "sum": False}
"""Functions that reduce axes, and whether equal entries c reduce to c."""


class Reduction(PassThrough):
    """Reduces axes other than that of the units.

    Args:
        keeps_constants: Whether equal entries c reduce to c. Otherwise, only zeros reduce to zero.
    """

    def __init__(self, keeps_constants: bool) -> None:
        self.keeps_constants = keeps_constants

    def supports(self, call: Call) -> bool:
        axes = self._axes(call)
        return super().supports(call) and len(call.inputs) == 1 and bool(axes) and call.inputs[0].axis not in axes

    def link_units(self, call: Call) -> None:
        axis = call.inputs[0].axis
        is_kept = len(call.outputs[0].shape) == len(call.inputs[0].shape)
        before = 0 if is_kept else sum(reduced < axis for reduced in self._axes(call))
        call.outputs[0].carry(axis - before, call.take_units(0, axis))

    def map_constants(self, call: Call, constants: np.ndarray) -> np.ndarray:
        return constants if self.keeps_constants else np.where(constants == 0, 0.0, np.nan)

    def _axes(self, call: Call) -> list[int]:
        """Return the reduced axes; empty if all are reduced."""
        named = call.arguments.get(1, "dim", call.arguments.get(1, "axis"))
        named = [named] if isinstance(named, int) else named
        is_known = isinstance(named, tuple | list) and all(type(axis) is int for axis in named)
        return [axis % len(call.inputs[0].shape) for axis in named] if is_known else []


for name, keeps_constants in REDUCTIONS.items():
    register(name, getattr(torch, name))(Reduction(keeps_constants))
