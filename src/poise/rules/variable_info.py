"""What a variable is for, and where its inputs and outputs lie."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from poise.penalties.axes import Sides, keras_sides

KERNEL = "kernel"
EMBEDDINGS = "embeddings"
BIASES = "biases"
SCALES = "scales"
SLOPE = "slope"
"""Learned slopes of an activation: a penalty would change the activation. Only `Role.ALL` selects them."""
TOKEN = "token"
"""Class tokens, mask tokens and position tables that a layer adds. Only `Role.ALL` selects them."""
STATE = "state"
"""Not a parameter: statistics, quantization scales, what float8 training overwrites. No role selects it."""

UNKNOWN_LAYER = (
    "the layer of this variable is unknown, and the axis differs by layer type. Name the axis by an integer, such as "
    "groups=0, or pass the model: optimizer.build(model.trainable_variables, model=model)."
)
UNKNOWN_AXES = (
    "poise does not know which axis that is in a variable of this layer type. Name the axis by an integer, such as "
    "groups=0."
)
NO_SUCH_SIDE = (
    "a variable of this kind has no such axis. Name the axis by an integer, such as groups=0, or exclude the variable."
)

TOKENS = re.compile(r"(cls|tokens?|pos|positions?|positional)")
NOT_TOKENS = re.compile(r"kernel|(?<!pos)(?<!position)(?<!positional)_embeddings?$|_(proj|projection|weights?)$")


@dataclass(frozen=True)
class VariableInfo:
    """What a variable is for (one of the words above) and where its inputs and outputs lie."""

    role: str
    sides: Sides


def info_by_name(name: str, shape: Sequence[int]) -> VariableInfo:
    """Infer the role of a variable of unknown layer type from its Keras name."""
    shape = tuple(shape)
    words = name.lower().split("_")
    long_axes = sum(size != 1 for size in shape)
    if "seed_generator_state" in name:
        role = STATE
    elif any(TOKENS.fullmatch(word) for word in words) and not NOT_TOKENS.search(name.lower()):
        role = TOKEN
    elif "embedding" in name:
        role = EMBEDDINGS
    elif name in ("bias", "beta") or name.endswith("_bias"):
        role = BIASES
    elif name in ("gamma", "scale") or len(shape) < 2 or (len(shape) > 2 and long_axes < 2 and "kernel" not in name):
        role = SCALES
    else:
        role = KERNEL
    return VariableInfo(role, keras_sides(shape))
