"""What the variables of a wrapped PyTorch module or JAX function are: they have no Keras layer."""

import re
from typing import Any

import keras

from poise.penalties.axes import Axes, Sides, keras_sides
from poise.rules.layer_types import Shape, matrix, state, vector
from poise.rules.variable_info import (
    BIASES,
    EMBEDDINGS,
    KERNEL,
    NO_SUCH_SIDE,
    SCALES,
    SLOPE,
    UNKNOWN_AXES,
    VariableInfo,
    info_by_name,
)

TORCH_GATES = {"RNN": 1, "RNNCell": 1, "GRU": 3, "GRUCell": 3, "LSTM": 4, "LSTMCell": 4}


def infos_of_wrapped(layer: Any) -> dict[int, VariableInfo]:
    """Return, by the identity of each variable of a wrapper, what it is; empty if the layer is not a wrapper."""
    if isinstance(layer, keras.layers.TorchModuleWrapper):
        infos = infos_of_module(layer.module)
        values = {id(variable): id(variable.value) for variable in layer.variables}
        return {key: infos[value] for key, value in values.items() if value in infos}
    return _infos_of_functions(layer) if isinstance(layer, keras.layers.JaxLayer) else {}


def infos_of_module(top: Any) -> dict[int, VariableInfo]:
    """Return, by the identity of each parameter of a `torch.nn.Module`, what it is.

    The type of the module that owns the parameter, and the parameter's name in it, decide.
    """
    infos = {}
    modules = dict(top.named_modules())
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters(prefix=prefix, recurse=False):
            path = name.split(".")
            owner, own_name = module, path[-1]
            if len(path) > 2 and path[-3] == "parametrizations":  # torch.nn.utils.parametrize
                owner, own_name = modules[".".join(path[:-3])], path[-2] + ("_g" if path[-1] == "original0" else "_v")
            infos[id(parameter)] = info_of_parameter(owner, own_name, tuple(parameter.shape))
    return infos


def info_of_parameter(module: Any, name: str, shape: Shape) -> VariableInfo:
    """Return what a parameter of a `torch.nn.Module` is.

    PyTorch has the outputs first, except in transposed convolutions and embeddings.
    """
    kinds = [kind.__name__ for kind in type(module).__mro__]
    name = name.removesuffix("_v")  # torch.nn.utils.weight_norm: the direction, next to its length "_g"
    if "bias" in name:
        gates = next((count for kind, count in TORCH_GATES.items() if kind in kinds), 1)
        return vector(BIASES, gates if "_ih" in name or "_hh" in name else 1)(module, shape)
    if "PReLU" in kinds:
        return VariableInfo(SLOPE, keras_sides(shape))
    if name.endswith("_g") or any(kind.endswith("Norm") or "BatchNorm" in kind for kind in kinds):
        return vector(SCALES)(module, shape)
    for kind in kinds:
        if kind in TORCH_GATES and name.startswith(("weight_ih", "weight_hh")):
            units = Axes.blocks(shape, 0, TORCH_GATES[kind])
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 1), units, columns=Axes.along(shape, 0)))
        is_projection = kind in TORCH_GATES and name.startswith("weight_hr")
        if len(shape) == 2 and (is_projection or kind in ("Linear", "MultiheadAttention")):
            return matrix(KERNEL, inputs=1, outputs=0)(module, shape)
        if len(shape) == 2 and kind == "Conv1D":  # of transformers: a linear map with its inputs first
            return matrix(KERNEL)(module, shape)
        if kind in ("Embedding", "EmbeddingBag"):
            return matrix(EMBEDDINGS)(module, shape)
        if re.fullmatch(r"ConvTranspose[123]d", kind):
            outputs = Axes.along(shape, 1) if module.groups == 1 else Axes.across(shape, 0, module.groups, 1)
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 0), outputs))
        if re.fullmatch(r"Conv[123]d", kind):
            inputs = Axes.along(shape, 1) if module.groups == 1 else Axes.across(shape, 0, module.groups, 1)
            return VariableInfo(KERNEL, Sides(inputs, Axes.along(shape, 0)))
        if kind == "Bilinear":
            return VariableInfo(KERNEL, Sides(None, Axes.along(shape, 0), unknown=NO_SUCH_SIDE))
    info = info_by_name(name, shape)
    return VariableInfo(info.role, info.sides if len(shape) < 2 else Sides(unknown=UNKNOWN_AXES))


def _infos_of_functions(layer: Any) -> dict[int, VariableInfo]:
    """What the parameters of a `JaxLayer` or `FlaxLayer` are, by their names in its tree of parameters."""
    infos = {}
    for path, variable in keras.tree.flatten_with_path(layer.params or {}):
        if isinstance(variable, keras.Variable):
            infos[id(variable)] = info_of_leaf([str(part) for part in path], tuple(variable.shape))
    for variable in keras.tree.flatten(layer.state or {}):
        if isinstance(variable, keras.Variable):
            infos[id(variable)] = state(layer, tuple(variable.shape))
    return infos


def info_of_leaf(path: list[str], shape: Shape) -> VariableInfo:
    """Return what an array of Flax or Haiku is, by its path in the tree of parameters.

    A projection of an attention has its heads on a separate axis.
    """
    name, parents = path[-1], path[:-1]
    if name in ("b", "bias"):
        return vector(BIASES)(None, shape)
    if name in ("w", "kernel", "weight") and len(shape) > 1:
        parent = parents[-1] if parents else ""
        if parent in ("query", "key", "value") and len(shape) == 3:
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 0), Axes.along(shape, 1, 2)))
        if parent == "out" and len(shape) == 3:
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 0, 1), Axes.along(shape, 2)))
        return VariableInfo(KERNEL, keras_sides(shape))
    return info_by_name(name, shape)
