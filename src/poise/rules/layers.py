"""What the variables of a layer are for, and along which axes their inputs and outputs lie: one table by layer type.

A variable does not know its layer, and its name and shape do not tell enough: the last axis of a kernel is the filters
of a `Conv2D`, the input channels of a `Conv2DTranspose`, the multiplier of a `DepthwiseConv2D` and four gates of an
`LSTM`; `alpha` of a `PReLU` is no kernel. So the layers of a model are looked up in `TABLE`, by their type and the name
of the variable, and what is known of a variable is remembered with it. What no layer is known for is judged by its name
and number of axes.
"""

import re
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras

from poise.penalties.axes import Axes, Sides, keras_sides
from poise.rules.members import path_of

KERNEL = "kernel"
EMBEDDINGS = "embeddings"
BIASES = "biases"
SCALES = "scales"
SLOPE = "slope"
"""Learned slopes of an activation: a penalty would pull them toward another activation. Only `ALL` selects them."""
TOKEN = "token"
"""Class tokens, mask tokens and position tables that a layer adds by itself. Only `ALL` selects them."""
STATE = "state"
"""What is no parameter: statistics, quantization scales, what float8 training overwrites. No role selects them."""

UNFOUND = (
    "the layer of this variable is not found, and the axis differs by layer type. Name the axis by an integer, such as "
    "groups=0, or pass the model: optimizer.build(model.trainable_variables, model=model)."
)
UNCLEAR = (
    "which axis that is in a variable of this layer type is not known. Name the axis by an integer, such as groups=0."
)
SIDELESS = "this variable has no such side. Name the axis by an integer, such as groups=0, or exclude the variable."


@dataclass(frozen=True)
class VariableInfo:
    """What a variable is for (one of the words above) and where its inputs and outputs lie."""

    role: str
    sides: Sides


Describe = Callable[[keras.layers.Layer, tuple[int, ...]], VariableInfo]
"""(layer, shape of the variable) → what it is."""


def learn(layers: Iterable[keras.layers.Layer]):
    """Remembers what the variables of some layers or models are, those of their sublayers included."""
    for key, (variable, info) in _described(layers).items():
        # By identity: variables compare by value and have no hash.
        _known[key] = (weakref.ref(variable, lambda _, key=key: _known.pop(key, None)), info)


def info_of(variable) -> VariableInfo:
    """What a variable is: as its layer says, where that was learned, or else by its name and number of axes."""
    reference, info = _known.get(id(variable), (None, None))
    if reference is not None and reference() is variable and info is not None:
        return info
    info = _by_name(path_of(variable).split("/")[-1], tuple(variable.shape))
    if getattr(variable, "overwrite_with_gradient", False):
        return VariableInfo(STATE, info.sides)
    return VariableInfo(info.role, Sides(unknown=UNFOUND)) if len(variable.shape) > 2 else info


def find_layers(variables) -> list[keras.layers.Layer]:
    """The layers or models that own the given variables, from the calling frames; without those that are not found.

    An optimizer is given variables, in `fit` by the model that calls it, and in a hand-written loop by a function that
    has the model in a variable of its own, in an attribute of its object, or in a global one.
    """
    missing = {id(variable) for variable in variables}
    found = []
    frame = sys._getframe(1)
    while frame is not None and missing:
        for layer in _layers_in(frame):
            owned = missing & {id(variable) for variable in layer.variables}
            if owned:
                found.append(layer)
                missing -= owned
        frame = frame.f_back
    return found


def is_learned(variable) -> bool:
    return id(variable) in _known and _known[id(variable)][0]() is variable


_known: dict[int, tuple[weakref.ref, VariableInfo]] = {}


# ---------------------------------------------------------------- the table


def _plain(role, inputs=-2, outputs=-1) -> Describe:
    """One axis for the inputs and one for the outputs."""
    return lambda layer, shape: VariableInfo(role, Sides(Axes.along(shape, inputs), Axes.along(shape, outputs)))


def _vector(role, gates=1) -> Describe:
    """One entry per output, on all axes; or `gates` blocks of one entry per unit on the last axis."""

    def describe(layer, shape):
        if not shape:
            return VariableInfo(role, Sides())
        units = Axes.blocks(shape, -1, gates) if gates > 1 else Axes.along(shape, *range(len(shape)))
        return VariableInfo(role, Sides(units, units))

    return describe


def _state(layer, shape):
    return VariableInfo(STATE, keras_sides(shape))


def _gated(gates) -> Describe:
    """(..., inputs, gates · units): a unit has a column of each gate."""

    def describe(layer, shape):
        units = Axes.blocks(shape, -1, gates)
        return VariableInfo(KERNEL, Sides(Axes.along(shape, -2), units, columns=Axes.along(shape, -1)))

    return describe


def _convolution(layer, shape):
    """(..., inputs / groups, filters): the filters of a group read the inputs of that group."""
    inputs = Axes.along(shape, -2)
    if layer.groups > 1:
        inputs = Axes.across(shape, -1, layer.groups, -2)
    return VariableInfo(KERNEL, Sides(inputs, Axes.along(shape, -1)))


def _depthwise(layer, shape):
    """(..., inputs, multiplier): filter number input · multiplier + m."""
    return VariableInfo(KERNEL, Sides(Axes.along(shape, -2), Axes.along(shape, -2, -1)))


def _low_rank_of_convolution(layer, shape):
    """(..., inputs / groups, rank): with groups an entry belongs to several inputs."""
    inputs = Axes.along(shape, -2) if layer.groups == 1 else None
    return VariableInfo(KERNEL, Sides(inputs, Axes.along(shape, -1), unknown=SIDELESS))


def _einsum_kernel(layer, shape):
    inputs, kernel, outputs = _letters(layer)
    return VariableInfo(KERNEL, _sides_by_letters(kernel, shape, inputs, outputs))


def _einsum_bias(layer, shape):
    """Its axes are the last ones of the output, of length 1 where it has no letter of its own."""
    _, kernel, outputs = _letters(layer)
    own = outputs[len(outputs) - len(shape) :]
    axes = [axis for axis, letter in enumerate(own) if letter in kernel and letter in layer.bias_axes]
    units = Axes.along(shape, *axes) if axes else None
    return VariableInfo(BIASES, Sides(units, units, unknown=SIDELESS))


def _einsum_lora_a(layer, shape):
    """The kernel's axes but the last, then the rank."""
    inputs, kernel, _ = _letters(layer)
    is_whole = kernel[-1] not in inputs
    sides = _sides_by_letters(kernel[:-1] + "*", shape, inputs if is_whole else "", "*")
    return VariableInfo(KERNEL, sides)


def _einsum_lora_b(layer, shape):
    """(rank, the kernel's last axis), which numbers the outputs where it does so without the others."""
    _, kernel, outputs = _letters(layer)
    is_whole = kernel[-1] in outputs and not set(kernel[:-1]) & set(outputs)
    return VariableInfo(KERNEL, _sides_by_letters("*" + kernel[-1], shape, "*", outputs if is_whole else ""))


def _letters(layer):
    """The letters of the inputs, the kernel and the outputs in the equation of an EinsumDense."""
    return re.split(r",|->", layer.equation.replace(" ", ""))


def _sides_by_letters(own, shape, inputs, outputs):
    def along(letters):
        axes = [own.index(letter) for letter in letters if letter in own]
        return Axes.along(shape, *axes) if axes else None

    return Sides(along(inputs), along(outputs), unknown=SIDELESS)


QUANTIZATION = dict.fromkeys(
    [
        *("kernel_scale", "kernel_zero", "zero_point", "g_idx", "awq_scales"),
        *("embeddings_scale", "embeddings_zero", "reverse_embeddings_scale", "reverse_embeddings_zero"),
        *("inputs_scale", "inputs_amax_history", "kernel_amax_history"),
        *("outputs_grad_scale", "outputs_grad_amax_history"),
    ],
    _state,
)
DENSE = {
    "kernel": _plain(KERNEL),
    "bias": _vector(BIASES),
    "lora_kernel_a": _plain(KERNEL),
    "lora_kernel_b": _plain(KERNEL),
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
    "embeddings": _plain(EMBEDDINGS),
    "reverse_embeddings": _plain(EMBEDDINGS),
    "lora_embeddings_a": _plain(EMBEDDINGS),
    "lora_embeddings_b": _plain(EMBEDDINGS),
    **QUANTIZATION,
}
CONVOLUTION = {
    "kernel": _convolution,
    "bias": _vector(BIASES),
    "lora_kernel_a": _low_rank_of_convolution,
    "lora_kernel_b": _plain(KERNEL),
}
TRANSPOSED = {"kernel": _plain(KERNEL, inputs=-1, outputs=-2), "bias": _vector(BIASES)}
DEPTHWISE = {"kernel": _depthwise, "bias": _vector(BIASES)}
SEPARABLE = {"depthwise_kernel": _depthwise, "pointwise_kernel": _plain(KERNEL), "bias": _vector(BIASES)}
NORMALIZATION = {"gamma": _vector(SCALES), "scale": _vector(SCALES), "beta": _vector(BIASES)}
STATISTICS = dict.fromkeys(["moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"], _state)


def _recurrent(gates):
    return {"kernel": _gated(gates), "recurrent_kernel": _gated(gates), "bias": _vector(BIASES, gates)}


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
    "Attention": {"scale": _vector(SCALES), "concat_score_weight": _vector(SCALES)},
    "AdditiveAttention": {"scale": _vector(SCALES)},
    "PReLU": {"alpha": lambda layer, shape: VariableInfo(SLOPE, keras_sides(shape))},
    "BatchNormalization": {**NORMALIZATION, **STATISTICS},
    "LayerNormalization": NORMALIZATION,
    "GroupNormalization": NORMALIZATION,
    "RMSNormalization": NORMALIZATION,
    "SpectralNormalization": {"vector_u": _state},
    "Normalization": {"mean": _state, "variance": _state, "count": _state},
    "STFTSpectrogram": {"real_kernel": _plain(KERNEL), "imag_kernel": _plain(KERNEL)},
}
"""By the name of a Keras layer, for each of its own variables what it is. Subclasses inherit the row."""


# ---------------------------------------------------------------- layers


def _described(layers):
    """By the identity of a variable (the variable, what it is)."""
    found = {}
    for top in layers:
        # Keras has no public way to all sublayers of a layer.
        for layer in top._flatten_layers():
            parts = layer._flatten_layers(include_self=False, recursive=False)
            inside = {id(variable) for part in parts for variable in part.variables}
            wrapped = _of_wrapped(layer)
            for variable in layer.variables:
                if id(variable) in inside:
                    continue
                known = wrapped.get(id(variable)) or _of_table(layer, variable)
                # A layer of the user's may hold a variable of another layer, which knows it better.
                if known is not None or id(variable) not in found:
                    found[id(variable)] = variable, known or _by_name(variable.name, tuple(variable.shape))
    return found


def _of_table(layer, variable):
    shape = tuple(variable.shape)
    if getattr(variable, "overwrite_with_gradient", False):
        return _state(layer, shape)
    for kind in type(layer).__mro__:
        is_of_keras = kind.__module__.split(".")[0] == "keras"
        describe = TABLE.get(kind.__name__, {}).get(variable.name) if is_of_keras else None
        if describe is not None:
            return describe(layer, shape)
    return None


def _of_wrapped(layer):
    """What the variables of a wrapper are, which have no names of their own, by their place in what it wraps."""
    if isinstance(layer, keras.layers.TorchModuleWrapper):
        return _of_module(layer)
    return _of_functions(layer) if isinstance(layer, keras.layers.JaxLayer) else {}


TOKENS = re.compile(r"(cls|tokens?|pos|positions?|positional)")
NO_TOKENS = re.compile(r"kernel|(?<!pos)(?<!position)(?<!positional)_embeddings?$|_(proj|projection|weights?)$")


def _by_name(name, shape) -> VariableInfo:
    """By the habits of Keras: what a variable without a row in the table is."""
    words = name.lower().split("_")
    longer = sum(size != 1 for size in shape)
    if "seed_generator_state" in name:
        role = STATE
    elif any(TOKENS.fullmatch(word) for word in words) and not NO_TOKENS.search(name.lower()):
        role = TOKEN
    elif "embedding" in name:
        role = EMBEDDINGS
    elif name in ("bias", "beta") or name.endswith("_bias"):
        role = BIASES
    elif name in ("gamma", "scale") or len(shape) < 2 or (len(shape) > 2 and longer < 2 and "kernel" not in name):
        role = SCALES
    else:
        role = KERNEL
    return VariableInfo(role, keras_sides(shape))


# ---------------------------------------------------------------- PyTorch modules, JAX functions


def _of_module(layer):
    """What the parameters of a `TorchModuleWrapper` are, by the type of their module and their name in it."""
    infos = {}
    modules = dict(layer.module.named_modules())
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters(prefix=prefix, recurse=False):
            path = name.split(".")
            owner, own = module, path[-1]
            if len(path) > 2 and path[-3] == "parametrizations":  # torch.nn.utils.parametrize
                owner, own = modules[".".join(path[:-3])], path[-2] + ("_g" if path[-1] == "original0" else "_v")
            infos[id(parameter)] = _of_parameter(owner, own, tuple(parameter.shape))
    values = {id(variable): id(variable.value) for variable in layer.variables}
    return {key: infos[value] for key, value in values.items() if value in infos}


def _of_parameter(module, name, shape):
    """PyTorch has the outputs first, except in transposed convolutions and embeddings."""
    kinds = [kind.__name__ for kind in type(module).__mro__]
    name = name.removesuffix("_v")  # torch.nn.utils.weight_norm: the direction, beside its length "_g"
    if "bias" in name:
        gates = next((count for kind, count in TORCH_GATES.items() if kind in kinds), 1)
        return _vector(BIASES, gates if "_ih" in name or "_hh" in name else 1)(module, shape)
    if "PReLU" in kinds:
        return VariableInfo(SLOPE, keras_sides(shape))
    if name.endswith("_g") or any(kind.endswith("Norm") or "BatchNorm" in kind for kind in kinds):
        return _vector(SCALES)(module, shape)
    for kind in kinds:
        if kind in TORCH_GATES and name.startswith(("weight_ih", "weight_hh")):
            units = Axes.blocks(shape, 0, TORCH_GATES[kind])
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 1), units, columns=Axes.along(shape, 0)))
        is_projection = kind in TORCH_GATES and name.startswith("weight_hr")
        if len(shape) == 2 and (is_projection or kind in ("Linear", "MultiheadAttention")):
            return _plain(KERNEL, inputs=1, outputs=0)(module, shape)
        if kind in ("Embedding", "EmbeddingBag"):
            return _plain(EMBEDDINGS)(module, shape)
        if re.fullmatch(r"ConvTranspose[123]d", kind):
            outputs = Axes.along(shape, 1) if module.groups == 1 else Axes.across(shape, 0, module.groups, 1)
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 0), outputs))
        if re.fullmatch(r"Conv[123]d", kind):
            inputs = Axes.along(shape, 1) if module.groups == 1 else Axes.across(shape, 0, module.groups, 1)
            return VariableInfo(KERNEL, Sides(inputs, Axes.along(shape, 0)))
        if kind == "Bilinear":
            return VariableInfo(KERNEL, Sides(None, Axes.along(shape, 0), unknown=SIDELESS))
    info = _by_name(name, shape)
    return VariableInfo(info.role, info.sides if len(shape) < 2 else Sides(unknown=UNCLEAR))


TORCH_GATES = {"RNN": 1, "RNNCell": 1, "GRU": 3, "GRUCell": 3, "LSTM": 4, "LSTMCell": 4}


def _of_functions(layer):
    """What the parameters of a `JaxLayer` or `FlaxLayer` are, by their names in its tree of parameters."""
    infos = {}
    for path, variable in keras.tree.flatten_with_path(layer.params or {}):
        if isinstance(variable, keras.Variable):
            infos[id(variable)] = _of_leaf([str(part) for part in path], tuple(variable.shape))
    for variable in keras.tree.flatten(layer.state or {}):
        if isinstance(variable, keras.Variable):
            infos[id(variable)] = _state(layer, tuple(variable.shape))
    return infos


def _of_leaf(path, shape):
    """As Flax and Haiku name them; a projection of an attention has its heads on an axis of their own."""
    name, parents = path[-1], path[:-1]
    if name in ("b", "bias"):
        return _vector(BIASES)(None, shape)
    if name in ("w", "kernel", "weight") and len(shape) > 1:
        parent = parents[-1] if parents else ""
        if parent in ("query", "key", "value") and len(shape) == 3:
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 0), Axes.along(shape, 1, 2)))
        if parent == "out" and len(shape) == 3:
            return VariableInfo(KERNEL, Sides(Axes.along(shape, 0, 1), Axes.along(shape, 2)))
        return VariableInfo(KERNEL, keras_sides(shape))
    return _by_name(name, shape)


# ---------------------------------------------------------------- frames


def _layers_in(frame):
    """The layers that a frame has: itself, its variables, those in their lists, and the attributes of its object."""
    owner = frame.f_locals.get("self")
    held = [owner, *list(frame.f_locals.values()), *list(getattr(owner, "__dict__", {}).values())]
    for value in [*held, *list(frame.f_globals.values())]:
        if _is_layer(value):
            yield value
        elif type(value) in (list, tuple):
            yield from filter(_is_layer, value)
        elif type(value) is dict:
            yield from filter(_is_layer, list(value.values()))


def _is_layer(value):
    # By its type: a proxy of another library may do anything when asked for its class.
    return issubclass(type(value), keras.layers.Layer)
