"""What a kind of layer does with units, and the registry of kinds.

A kind answers these questions:

- `follows`: is it a call that the kind knows?
- `link`: which units do its outputs carry, and which go together?
- `constants`: which outputs are constant, given the inputs that are?
- `needs`: which inputs are needed, given the outputs that are?
- `parts`: along which axes of its weights do the units lie?
- `resized`: what changes in its configuration when units go?
- `folded`: what do its biases take in when constant inputs go?

A layer is looked up by its very class: a subclass may compute something else. What is not registered is a wall, which
needs all that it is given.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from poise.compaction.graph import Call

MIXING = (keras.activations.softmax, keras.activations.log_softmax, keras.activations.sparsemax, keras.activations.glu)
ELEMENTWISE = tuple(
    function
    for name in keras.activations.__dict__
    if callable(function := getattr(keras.activations, name))
    and name not in ("get", "serialize", "deserialize")
    and function not in MIXING
)


@dataclass(frozen=True)
class Part:
    """A weight of a layer and the units along its axes.

    Attributes:
        name: where the layer holds it, such as "kernel".
        reads: (axis, units) along which it reads units that others make; None if there is none.
        makes: (axis, units) along which it makes units.
    """

    name: str
    reads: tuple[int, np.ndarray] | None = None
    makes: tuple[int, np.ndarray] | None = None

    def of(self, layer) -> Any:
        """The variable; None if the layer has none of this name."""
        return functools.reduce(lambda holder, name: getattr(holder, name, None), self.name.split("."), layer)


class Kind:
    """A wall: it needs all that it is given, and what it gives stays."""

    is_sized: ClassVar[bool] = False
    """Whether weights or configuration depend on the units, so that all calls of a layer must agree on them."""

    makes_units: ClassVar[bool] = False
    """Whether its outputs are units of its own, and not those that it was given."""

    def follows(self, call: Call) -> bool:
        """Whether a call is one that this kind knows; else it is a wall."""
        return True

    def differs_in_training(self, call: Call) -> bool:
        """Whether the layer computes something else, or something random, in training; then it is a wall there."""
        return False

    def link(self, call: Call):
        for tensor in call.inputs:
            call.graph.units.pin(tensor.units, f"{describe(call.layer)} reads it, and is not known to compact")
        for tensor in call.outputs:
            last = tensor.shape[-1] if len(tensor.shape) > 1 else None
            units = call.graph.units.fresh(last or 0)
            call.graph.units.pin(units, f"{describe(call.layer)} makes it, and is not known to compact")
            tensor.carry(len(tensor.shape) - 1 if last else None, units)

    def constants(self, call: Call):
        pass

    def needs(self, call: Call):
        for tensor in call.inputs:
            tensor.needed[:] = True

    def parts(self, call: Call) -> list[Part]:
        return []

    def resized(self, call: Call, config: dict, count: Callable[[np.ndarray], int]) -> dict:
        """The layer's configuration when units are gone; `count` says how many of some stay."""
        return config

    def folded(self, call: Call, stays: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        """By the name of a bias what has to be added to it for constants that go; `stays` says which units do not."""
        return {}

    def products(self, call: Call) -> float:
        """How many products the layer computes for one sample, NaN if a length is not known."""
        return 0.0


WALL = Kind()
KINDS: dict[type, Kind] = {}


def register(*classes: type) -> Callable:
    """Registers a kind for layer classes; used as a decorator of the kind's class, or called with a kind."""

    def registered(kind):
        made: Kind = kind() if isinstance(kind, type) else kind
        for one in classes:
            KINDS[one] = made
        return kind

    return registered


def kind_of(layer) -> Kind:
    return KINDS.get(type(layer), WALL)


def describe(layer) -> str:
    return f"{layer.name!r} ({type(layer).__name__})"


def is_elementwise(activation) -> bool:
    """Whether an activation is known to act on every entry alone."""
    return activation is None or activation in ELEMENTWISE


def applied(function, values: np.ndarray, dtype: str) -> np.ndarray:
    """A function of single entries, applied to constants in this dtype, float32 at least; NaN (not constant) stays."""
    known = np.where(np.isnan(values), 0.0, values).astype("float64" if dtype == "float64" else "float32")
    result = ops.convert_to_numpy(function(ops.convert_to_tensor(known[None])))[0].astype("float64")
    return np.where(np.isnan(values) | ~np.isfinite(result), np.nan, result)


def activated(call: Call, activation, values: np.ndarray) -> np.ndarray:
    """The constants after an activation of a call's layer."""
    if not is_elementwise(activation):
        return np.full(len(values), np.nan)
    return values if activation is None else applied(activation, values, call.outputs[0].dtype)


def before_activation(activation, needed: np.ndarray) -> np.ndarray:
    """What is needed before an activation, given what is needed after it."""
    return needed if is_elementwise(activation) else np.full(len(needed), needed.any())


def channel_axis(layer, rank: int) -> int:
    """The axis of the channels in a tensor of this rank, as the layer's data format says."""
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else rank - 1


def places(shape, *but: int) -> float:
    """How many places a tensor of this shape has for one sample, but for some axes; NaN if a length is not known."""
    lengths = [size for axis, size in enumerate(shape) if axis and axis not in [one % len(shape) for one in but]]
    return float("nan") if None in lengths else float(math.prod(lengths))
