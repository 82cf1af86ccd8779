"""What the variables of a model are: looked up by the type of their layer, and remembered with the variable.

A variable without a known layer is judged by its name and number of axes.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import keras

from poise._keras_internals import sublayers
from poise.penalties.axes import Sides
from poise.rules.layer_types import TABLE, state
from poise.rules.members import path_of
from poise.rules.variable_info import STATE, UNKNOWN_LAYER, VariableInfo, info_by_name
from poise.rules.wrapped_layers import infos_of_wrapped


def register_layers(layers: Iterable[keras.layers.Layer]) -> None:
    """Remember what the variables of layers or models are, including the variables of their sublayers."""
    register_infos(_describe(layers).values())


def register_infos(pairs: Iterable[tuple[Any, VariableInfo]]) -> None:
    """Remember what variables are: pairs of a variable and what it is."""
    for variable, info in pairs:
        # By identity: variables compare by value and have no hash.
        key = id(variable)
        _known[key] = (weakref.ref(variable, lambda _, key=key: _known.pop(key, None)), info)


def info_of(variable: Any) -> VariableInfo:
    """Return what a variable is: by its layer if that was learned, else by its name and number of axes."""
    if is_registered(variable):
        return _known[id(variable)][1]
    info = info_by_name(path_of(variable).split("/")[-1], variable.shape)
    if getattr(variable, "overwrite_with_gradient", False):
        return VariableInfo(STATE, info.sides)
    return VariableInfo(info.role, Sides(unknown=UNKNOWN_LAYER)) if len(variable.shape) > 2 else info


def is_registered(variable: Any) -> bool:
    """Whether the layer of the variable is known."""
    return id(variable) in _known and _known[id(variable)][0]() is variable


_known: dict[int, tuple[weakref.ref, VariableInfo]] = {}


def _describe(layers: Iterable[keras.layers.Layer]) -> dict[int, tuple[Any, VariableInfo]]:
    """Return by the identity of each variable the variable and what it is."""
    infos = {}
    for top in layers:
        for layer in sublayers(top):
            parts = sublayers(layer, include_self=False, recursive=False)
            of_parts = {id(variable) for part in parts for variable in part.variables}
            wrapped = infos_of_wrapped(layer)
            for variable in layer.variables:
                if id(variable) in of_parts:
                    continue
                info = wrapped.get(id(variable)) or _info_of_table(layer, variable)
                # A custom layer may hold a variable of another layer, which describes it better.
                if info is not None or id(variable) not in infos:
                    infos[id(variable)] = variable, info or info_by_name(variable.name, variable.shape)
    return infos


def _info_of_table(layer: Any, variable: Any) -> VariableInfo | None:
    shape = tuple(variable.shape)
    if getattr(variable, "overwrite_with_gradient", False):
        return state(layer, shape)
    for layer_class in type(layer).__mro__:
        is_of_keras = layer_class.__module__.split(".")[0] == "keras"
        describe = TABLE.get(layer_class.__name__, {}).get(variable.name) if is_of_keras else None
        if describe is not None:
            return describe(layer, shape)
    return None
