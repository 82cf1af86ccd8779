"""Find the layers and the model of an optimizer's variables in the code that called the optimizer.

Keras gives an optimizer only the trained variables. Their layers say what each variable is for, and without the frozen
variables of the model a rule for frozen layers looks like a misspelled one.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

import keras

from poise._keras_internals import model_of_h5_file
from poise.rules.layers import register_layers


def find_layers(variables: Iterable[Any]) -> list[keras.layers.Layer]:
    """Return the layers or models that own the variables, without those that no calling frame holds.

    An optimizer is given variables in `fit` by the model that calls it, and in a hand-written loop by a function that
    has the model in a local variable, in an attribute of its object, or in a global variable.
    """
    missing = {id(variable) for variable in variables}
    owners = []
    frame = sys._getframe(1)
    while frame is not None and missing:
        for layer in _layers_in(frame):
            owned = missing & {id(variable) for variable in layer.variables}
            if owned:
                owners.append(layer)
                missing -= owned
        frame = frame.f_back
    return owners


def calling_model() -> keras.Model | None:
    """Return the model in whose method the optimizer is called; None in a hand-written loop."""
    frame = sys._getframe(1)
    while frame is not None:
        owner: Any = frame.f_locals.get("self")
        if isinstance(owner, keras.Model):
            return owner
        frame = frame.f_back
    return None


def find_owner(variables: Sequence[Any]) -> keras.layers.Layer | None:
    """Return the model or layer that owns all of the variables; None if no calling frame holds it.

    Layers that own some of the variables are learned, so that the roles and sides of those are known.
    """
    if not variables:
        return model_of_h5_file() or calling_model()
    layers = find_layers(variables)
    register_layers(layers)
    for layer in layers:
        owned = {id(weight) for weight in layer.weights}
        if all(id(variable) in owned for variable in variables):
            return layer
    return None


def _layers_in(frame: FrameType) -> Iterator[Any]:
    """The layers that a frame holds: itself, its variables, those in their lists, and the attributes of its object."""
    owner = frame.f_locals.get("self")
    held = [owner, *list(frame.f_locals.values()), *list(getattr(owner, "__dict__", {}).values())]
    for value in [*held, *list(frame.f_globals.values())]:
        if _is_layer(value):
            yield value
        elif type(value) in (list, tuple):
            yield from filter(_is_layer, value)
        elif type(value) is dict:
            yield from filter(_is_layer, list(value.values()))


def _is_layer(value: Any) -> bool:
    # By its type: a proxy of another library may do anything when asked for its class.
    return issubclass(type(value), keras.layers.Layer)
