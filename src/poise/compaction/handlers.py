"""What a type of layer does with units: the base class of all handlers, and the registry.

A handler answers these questions about a call of its layer:

- `supports`: is this a call that the handler knows?
- `link_units`: which units do the outputs carry, and which units can only be removed together?
- `find_constants`: which outputs are constant, given the constant inputs?
- `find_needed`: which inputs are needed, given the needed outputs?
- `weight_parts`: along which axes of the weights do the units lie?
- `resize_config`: what changes in the layer's configuration when units are removed?
- `resize_arguments`: what changes in the arguments of the call, other than tensors?
- `bias_additions`: what do the biases absorb when constant inputs are removed?

To add a layer type, write one class with `@register(LayerType)`. A layer is looked up by its exact class, because a
subclass may compute something else. A layer without a handler is opaque: it needs all of its inputs, and all of its
outputs stay.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
from keras import ops

from poise.compaction.calls import Call

Selector = Callable[[np.ndarray], np.ndarray]
"""Says, per unit, whether it stays."""
Counter = Callable[[np.ndarray], int]
"""Says how many of a number of units stay."""

_Registered = TypeVar("_Registered")

MIXING_ACTIVATIONS = (
    keras.activations.softmax,
    keras.activations.log_softmax,
    keras.activations.sparsemax,
    keras.activations.glu,
)
ELEMENTWISE_ACTIVATIONS = tuple(
    function
    for name in keras.activations.__dict__
    if callable(function := getattr(keras.activations, name))
    and name not in ("get", "serialize", "deserialize")
    and function not in MIXING_ACTIVATIONS
)


@dataclass(frozen=True)
class WeightPart:
    """A weight of a layer and the units along its axes.

    Attributes:
        name: Name of the attribute of the layer that holds it, such as "kernel".
        reads: (axis, units) along which it reads units of another layer, or None.
        makes: (axis, units) along which it makes units, or None.
    """

    name: str
    reads: tuple[int, np.ndarray] | None = None
    makes: tuple[int, np.ndarray] | None = None

    def of(self, layer: Any) -> Any:
        """Return the variable, or None if the layer has none of this name."""
        return functools.reduce(lambda holder, name: getattr(holder, name, None), self.name.split("."), layer)


class LayerHandler:
    """The base class, which treats a layer as opaque: it needs all of its inputs, and all of its outputs stay."""

    is_sized: ClassVar[bool] = False
    """Whether weights or configuration depend on the units, so that all calls of a layer must agree on them."""

    makes_units: ClassVar[bool] = False
    """Whether the outputs are new units instead of the units of the inputs."""

    def supports(self, call: Call) -> bool:
        """Whether the handler knows this call; otherwise the layer is opaque."""
        return True

    def differs_in_training(self, call: Call) -> bool:
        """Whether the layer computes something else, or something random, in training; it is then opaque there."""
        return False

    def link_units(self, call: Call) -> None:
        """Set the units of the outputs, and join or pin units."""
        unsupported = f"{call.description}, which {call.graph.compact_name} does not support"
        for tensor in call.inputs:
            call.graph.units.pin(tensor.units, f"read by {unsupported}")
            call.graph.units.mark_untraceable(tensor.units)
        for tensor in call.outputs:
            axis = call.graph.unknown_axis(tensor.shape)
            units = call.graph.units.create(0 if axis is None else tensor.shape[axis])
            call.graph.units.pin(units, f"output of {unsupported}")
            tensor.carry(axis, units)
            if axis is None:
                origins = [each.origin for each in call.inputs if each.origin]
                tensor.origin = origins[0] if len(origins) == len(call.inputs) else f"output of {unsupported}"

    def find_constants(self, call: Call) -> None:
        """Set the constants of the outputs."""

    def find_needed(self, call: Call) -> None:
        """Mark the inputs that are needed."""
        for tensor in call.inputs:
            tensor.needed[:] = True

    def weight_parts(self, call: Call) -> list[WeightPart]:
        """Return the weights and the units along their axes."""
        return []

    def resize_config(self, call: Call, config: dict[str, Any], count: Counter) -> dict[str, Any]:
        """Return the configuration of the layer without the removed units."""
        return config

    def resize_arguments(self, call: Call, args: tuple, kwargs: dict[str, Any], stays: Selector) -> tuple[tuple, dict]:
        """Return the arguments of the call without the removed units."""
        return args, kwargs

    def bias_additions(self, call: Call, stays: Selector) -> dict[str, np.ndarray]:
        """Return, by the name of a bias, what to add to it for the constants that are removed."""
        return {}

    def count_products(self, call: Call) -> float:
        """Return how many products the layer computes per sample; NaN if a length is not known."""
        return 0.0


OPAQUE = LayerHandler()
HANDLERS: dict[Any, LayerHandler] = {}


def register(*layer_types: Any) -> Callable[[_Registered], _Registered]:
    """Register a handler for layer types: as a decorator of its class, or called with an instance.

    For PyTorch, functions and names of methods are registered like layer types.
    """

    def add(handler: _Registered) -> _Registered:
        instance: Any = handler() if isinstance(handler, type) else handler
        for layer_type in layer_types:
            HANDLERS[layer_type] = instance
        return handler

    return add


def handler_of(layer: Any) -> LayerHandler:
    """Return the handler of a layer or operation."""
    return HANDLERS.get(type(layer), OPAQUE)


def is_elementwise(activation: Any) -> bool:
    """Whether an activation is known to act on every entry separately."""
    return activation is None or activation in ELEMENTWISE_ACTIVATIONS


def apply_to_constants(function: Callable[[Any], Any], constants: np.ndarray, dtype: str) -> np.ndarray:
    """Apply an elementwise function to constants, in this dtype or at least float32; NaN (not constant) stays NaN."""
    if np.isnan(constants).all():
        return constants
    known = np.where(np.isnan(constants), 0.0, constants).astype("float64" if dtype == "float64" else "float32")
    result = ops.convert_to_numpy(function(ops.convert_to_tensor(known[None])))[0].astype("float64")
    return np.where(np.isnan(constants) | ~np.isfinite(result), np.nan, result)


def activate_constants(call: Call, activation: Any, constants: np.ndarray) -> np.ndarray:
    """Return the constants after an activation of the call's layer."""
    if not is_elementwise(activation):
        return np.full(len(constants), np.nan)
    return constants if activation is None else apply_to_constants(activation, constants, call.outputs[0].dtype)


def needed_before_activation(activation: Any, needed: np.ndarray) -> np.ndarray:
    """Return what is needed before an activation, given what is needed after it."""
    return needed if is_elementwise(activation) else np.full(len(needed), needed.any())


def channel_axis(layer: Any, rank: int) -> int:
    """Return the axis of the channels in a tensor of this rank, by the layer's data format."""
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else rank - 1


def count_positions(shape: tuple[int | None, ...], *without: int) -> float:
    """Return the number of positions of a tensor per sample, without some axes; NaN if a length is not known."""
    excluded = {axis % len(shape) for axis in without}
    lengths = [size for axis, size in enumerate(shape) if axis and axis not in excluded]
    return float("nan") if None in lengths else float(math.prod(size for size in lengths if size is not None))
