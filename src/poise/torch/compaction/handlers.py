"""What the handlers of PyTorch layers and functions share.

The handlers have the base class and the registry of those of Keras layers (see `poise.compaction.handlers`). They are
registered for a class of modules, a function, or the name of a method of tensors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from poise.compaction.calls import Call, Tensor
from poise.compaction.handlers import HANDLERS, OPAQUE, LayerHandler
from poise.torch.compaction.graph import Function, has_hooks, run_call


def handler_of(layer: Any) -> LayerHandler:
    """Return the handler of a module, function or method; the method `relu_` has that of `relu`."""
    key = layer.target if isinstance(layer, Function) else type(layer)
    if isinstance(key, str) and key not in HANDLERS:
        key = key.removesuffix("_")
    return HANDLERS.get(key, OPAQUE)


def is_resizable(layer: Any) -> bool:
    """Whether hooks or weights of another kind than floating-point numbers do not stop a layer from being resized."""
    if not isinstance(layer, nn.Module):
        return True
    is_floating = all(weight.is_floating_point() for weight in layer.parameters())
    return is_floating and not any(map(has_hooks, layer.modules()))


def spellings(*names: str) -> list[Any]:
    """Return everything that computes a function of one of these names: functions of torch, and methods."""
    keys: list[Any] = [*names]
    for name in names:
        for holder in (torch, functional):
            functions = [getattr(holder, each, None) for each in (name, f"{name}_")]
            keys += [function for function in functions if callable(function)]
    return keys


def is_elementwise(activation: Any) -> bool:
    """Whether an activation, a module or a function, is known to act on every entry separately."""
    key = type(activation) if isinstance(activation, nn.Module) else activation
    return getattr(HANDLERS.get(key), "is_elementwise", False)


def activate(activation: Any, constants: np.ndarray, like: torch.Tensor) -> np.ndarray:
    """Return the constants after an activation, computed in the dtype of a weight or at least float32; NaN stays."""
    with torch.no_grad():
        known = torch.tensor(np.nan_to_num(constants), dtype=torch.promote_types(like.dtype, torch.float32))
        values = activation(known.to(like.device)).cpu().double().numpy()
    return np.where(np.isnan(constants) | ~np.isfinite(values), np.nan, values)


def run_on_constants(call: Call, constants: Sequence[np.ndarray]) -> np.ndarray:
    """Apply an elementwise call to constants, given by the number of the input, in its dtype or at least float32.

    NaN stands for units that are not constant, and for results that are not finite or depend on sizes.
    """
    is_known = ~np.any([np.isnan(values) for values in np.broadcast_arrays(*constants)], axis=0)
    if not is_known.any() or call.arguments.depends_on_sizes:
        return np.full(is_known.shape, np.nan)
    tensors: dict[int, torch.Tensor] = {}
    for tensor, values in zip(call.inputs, constants, strict=True):
        dtype = getattr(torch, tensor.dtype)
        if dtype.is_floating_point:
            dtype = torch.promote_types(dtype, torch.float32)
        tensors[id(tensor)] = torch.tensor(np.nan_to_num(values), dtype=dtype).to(call.arguments.device)
    result = run_call(call, lambda tensor: tensors[id(tensor)].clone())
    values = result.cpu().double().numpy()
    return np.where(is_known & np.isfinite(values), values, np.nan)


def spatial_axis(tensor: Tensor, spatial: int) -> int:
    """Return the axis of the channels of an image with this number of spatial axes; the batch axis may be missing."""
    return len(tensor.shape) - spatial - 1
