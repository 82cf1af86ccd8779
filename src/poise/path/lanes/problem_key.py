"""When two problems of lanes are the same computation, so that they share their compiled programs."""

import copy
import inspect
import warnings
from collections.abc import Hashable
from typing import Any

import jax
import keras
import numpy as np

from poise._keras_internals import sublayers
from poise.layer_state import state_of
from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.model_config import model_config

KNOWN_PACKAGES = ("keras", "poise")
"""Packages whose classes and functions are fully described by their configuration."""
GRAPH_KEYS = ("name", "keras_history", "input_layers", "output_layers")
"""Entries of a configuration that name layers."""
OTHER_KEYS = ("name", "select", "exclude", "strength")
"""Entries of an optimizer's or rule's configuration that programs do not depend on: strengths are variables."""


def network_key(model: keras.Model) -> Hashable:
    """Return a value that is equal for models with the same forward pass and loss, whatever their weights are.

    Layer names are ignored. For a model with custom code (from outside Keras and poise), every call returns another
    value, because its configuration may not describe that code completely, and the code may change between two paths.

    Args:
        model: A built and compiled model.
    """
    layers = sublayers(model)
    parts = [*layers, *(part for part in keras.tree.flatten(model.loss) if not isinstance(part, (str, type(None))))]
    constraints = [variable.constraint for variable in model.trainable_variables if variable.constraint is not None]
    if not all(map(_is_known, [*parts, *constraints])):
        return object()
    config, loss = model_config(model), compile_config(model)
    if not loss or _has_foreign_code(config) or _has_foreign_code(loss):
        return object()
    # Operations such as keras.ops.take are parts of the graph, but no layers.
    operations = [part for each in (model, *layers) for part in getattr(each, "operations", []) if part not in layers]
    names = {part.name: f"layer {number}" for number, part in enumerate([*layers, *operations])}
    positions = {id(weight): number for number, weight in enumerate(model.weights)}
    # Layers for preprocessing compute with data that are not in their variables.
    states = [state_of(layer) for layer in layers if ".preprocessing." in type(layer).__module__]
    derived = [layer for state in states for layer in state.layers]
    return (
        repr(_rename_layers(config, names)),
        repr({key: value for key, value in loss.items() if key != "optimizer"}),
        tuple(loss_attributes(model.loss)),
        tuple(layer.dtype_policy.name for layer in layers),
        tuple((tuple(variable.shape), str(variable.dtype)) for variable in model.variables),
        tuple(positions[id(variable)] for variable in model.trainable_variables),
        tuple(variable.constraint is not None for variable in model.trainable_variables),
        repr([keras.constraints.serialize(constraint) for constraint in constraints]),
        tuple((key, _digest(value)) for layer in derived for key, value in layer.entries.items()),
        tuple((key, value) for layer in derived for key, value in layer.assets.items()),
        (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()),
        tuple(jax.config.values[name] for name in ("jax_enable_x64", "jax_default_matmul_precision")),
    )


def optimizer_key(optimizer: PenalizedOptimizer) -> Hashable:
    """Return a value that is equal for optimizers that take the same steps at the same strengths.

    It includes the anchors of penalties, with which programs measure. With custom code in the optimizer or in a
    penalty, every call returns another value.

    Args:
        optimizer: A built optimizer.
    """
    rules, inner, resolved = optimizer.rules, optimizer.inner_optimizer, optimizer.resolved
    assert resolved is not None
    configs = [keras.saving.serialize_keras_object(part) for part in (inner, *rules)]
    if not _is_known(inner) or _has_foreign_code(configs):
        return object()
    shapes = [shape for _, shape in resolved["weights"]]
    members = [resolved["rules"][str(rule.name)] for rule in rules]
    anchors = tuple(_digest(start.value) for target in optimizer.targets for _, start in target.anchors)
    return repr(_drop_others(configs)), repr((shapes, resolved["trained"], members)), optimizer.update, anchors


def compile_config(model: Any) -> dict:
    """Return what the model was compiled with, except the optimizers' names, which Keras counts in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of lambdas
        config = copy.deepcopy(model.get_compile_config()) or {}
    optimizer = config.get("optimizer")
    while isinstance(optimizer, dict):
        optimizer["config"].pop("name", None)
        optimizer = optimizer["config"].get("inner_optimizer")
    return config


def loss_attributes(loss: Any) -> list[str]:
    """Return the numbers and texts that a loss holds: Keras' configurations lack some, such as Huber's delta."""
    parts = [(type(part).__name__, getattr(part, "__dict__", {})) for part in keras.tree.flatten(loss)]
    # Keras' own losses keep the arguments of their function in a dictionary.
    parts += [(kind, value) for kind, attributes in parts for value in attributes.values() if isinstance(value, dict)]
    return sorted(
        f"{kind}.{name}={value!r}"
        for kind, attributes in parts
        for name, value in attributes.items()
        if isinstance(value, (bool, int, float, str))
    )


def _is_known(part: Any) -> bool:
    """Return whether the class of a layer, loss or optimizer, or a function, and the functions it holds are known."""
    functions = [value for value in vars(part).values() if inspect.isroutine(value)]
    code = [part if inspect.isroutine(part) else type(part), *functions]
    return all(str(getattr(each, "__module__", "")).partition(".")[0] in KNOWN_PACKAGES for each in code)


def _has_foreign_code(config: Any) -> bool:
    """Return whether a configuration of Keras names a class or function that is defined elsewhere."""
    if isinstance(config, dict):
        if config.get("class_name", "__keras_tensor__") != "__keras_tensor__":
            module = config.get("module")
            if not isinstance(module, str) or module.partition(".")[0] not in KNOWN_PACKAGES:
                return True
        return any(map(_has_foreign_code, config.values()))
    return isinstance(config, (list, tuple)) and any(map(_has_foreign_code, config))


def _rename_layers(config: Any, names: dict[str, str], is_graph: bool = False) -> Any:
    if isinstance(config, dict):
        return {key: _rename_layers(value, names, is_graph or key in GRAPH_KEYS) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_rename_layers(value, names, is_graph) for value in config]
    return names.get(config, config) if is_graph and isinstance(config, str) else config


def _drop_others(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _drop_others(value) for key, value in config.items() if key not in OTHER_KEYS}
    return [_drop_others(value) for value in config] if isinstance(config, (list, tuple)) else config


def _digest(value: Any) -> tuple:
    array = np.asarray(value)
    return array.shape, str(array.dtype), array.tobytes()
