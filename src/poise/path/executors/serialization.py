"""A problem on its way to another process: the model in Keras' own format, everything else by cloudpickle.

cloudpickle takes losses, layers and functions of a notebook or script along, and lambdas. The pickles are read by
processes of the same user only, and never from a file.
"""

import copyreg
import io
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cloudpickle
import keras

from poise._keras_internals import loss_weights, sublayers, without_tensorflow
from poise.layer_state import state_of
from poise.path.executors.base import Problem
from poise.path.model_config import model_config
from poise.path.models import inner_optimizer
from poise.penalties import Penalty
from poise.rules.members import path_of
from poise.rules.rule import Role


def dump(thing: Any) -> bytes:
    """Return the pickle of an object.

    Raises:
        Exception: If it cannot be pickled.
    """
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(thing)
    return stream.getvalue()


def dump_problem(problem: Problem) -> bytes:
    """Return the pickle of a problem without its data.

    Raises:
        ValueError: If a part cannot be sent to another process, with its name.
    """
    model = problem.model
    with without_tensorflow():
        configs = {
            "The model": model_config(model),
            "The optimizer": _portable_optimizer(inner_optimizer(model)),
        }
    parts = {
        **configs,
        "The loss": (model.loss, loss_weights(model)),
        # The rules are resolved already, so that how they select is not needed.
        "A rule": [replace(rule, select=Role.ALL, exclude=None) for rule in problem.rules],
        "A custom object of the model": _custom_objects(model, configs),
        "The state of the model": {
            "layers": state_of(model),
            "are_trained": [bool(variable.trainable) for variable in model.variables],
            "shapes": _shapes(model),
            "paths": [path_of(variable) for variable in model.variables],
        },
        "The settings": {
            "floatx": keras.config.floatx(),
            "epsilon": keras.config.epsilon(),
            "image_data_format": keras.config.image_data_format(),
            "dtype_policy": keras.config.dtype_policy().name,
            "path": [os.path.abspath(entry) for entry in sys.path],
        },
        "The resolved rules": (problem.resolved, problem.update, problem.predicted_rows, problem.group_rules),
    }
    pickles = []
    for name, part in parts.items():
        try:
            pickles.append(dump(part))
        except Exception as error:
            raise ValueError(
                f"{name} cannot be sent to the process that runs JAX, because it cannot be pickled: {error} Define it "
                "without open files, locks, tensors and other objects that belong to this process."
            ) from error
    return dump(pickles)


def load_problem(pickle: bytes, data: Any) -> Problem:
    """Return the problem that `dump_problem` pickled, in a process on JAX.

    Args:
        pickle: what `dump_problem` returned.
        data: data of the problem.

    Raises:
        ValueError: If Keras rebuilds another model here.
    """
    parts = iter(cloudpickle.loads(pickle))
    model_config, optimizer_config = (cloudpickle.loads(next(parts)) for _ in range(2))
    loss, rules, objects, state, settings, resolved = list(parts)
    settings = cloudpickle.loads(settings)
    sys.path.extend(entry for entry in settings["path"] if entry not in sys.path)
    keras.config.set_floatx(settings["floatx"])
    keras.config.set_epsilon(settings["epsilon"])
    keras.config.set_image_data_format(settings["image_data_format"])
    keras.config.set_dtype_policy(settings["dtype_policy"])
    keras.config.enable_unsafe_deserialization()  # the code in the model belongs to the user who runs this process
    _register(cloudpickle.loads(objects))
    model: Any = keras.saving.deserialize_keras_object(model_config, safe_mode=False)
    state = cloudpickle.loads(state)
    if _shapes(model) != state["shapes"]:
        raise ValueError(
            f"Keras rebuilds the model from its configuration with variables of the shapes {_shapes(model)}, and the "
            f"variables {state['paths']} have the shapes {state['shapes']}. Give every layer a get_config from which "
            "it is restored."
        )
    state["layers"].load_into(model)
    for variable, is_trained in zip(model.variables, state["are_trained"], strict=True):
        if variable.trainable != is_trained:
            variable.trainable = is_trained
        variable.regularizer = None  # a configuration may bring back what poise.adopt_regularizers has removed
    loss, weights_of_losses = cloudpickle.loads(loss)
    optimizer = keras.saving.deserialize_keras_object(optimizer_config)
    model.compile(optimizer, loss=loss, loss_weights=weights_of_losses)
    resolved_rules, update, predicted_rows, group_rules = cloudpickle.loads(resolved)
    return Problem(model, cloudpickle.loads(rules), resolved_rules, update, data, predicted_rows, group_rules)


class _Pickler(cloudpickle.Pickler):
    """cloudpickle, except for two kinds of Keras objects."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, keras.losses.Loss):
            # Keras pickles what get_config returns, and the configuration of its Huber lacks delta.
            return copyreg.__newobj__, (type(obj),), vars(obj)  # type: ignore[attr-defined]
        if isinstance(obj, Penalty):
            return _build_penalty, (type(obj), obj.get_config())
        return super().reducer_override(obj)


def _build_penalty(penalty_class: type[Penalty], config: dict) -> Penalty:
    return penalty_class.from_config(config)


def _portable_optimizer(optimizer: Any) -> dict:
    config = keras.saving.serialize_keras_object(optimizer)
    if config["module"].startswith("keras.src.backend."):  # on PyTorch keras.optimizers.Adam() is a class of its own
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config


def _shapes(model: keras.Model) -> list[tuple[int, ...]]:
    """Return the shapes of the variables, in the order in which the layers made them."""
    return [tuple(variable.shape) for variable in model.variables]


def _custom_objects(model: keras.Model, configs: Any) -> dict[str, Any]:
    """Return by Keras' name every class and function of a model and its configurations that is not Keras' own."""
    classes = {type(layer) for layer in sublayers(model)}
    objects = {
        keras.saving.get_registered_name(layer_class): layer_class
        for layer_class in classes
        if not _is_of_keras(layer_class.__module__)
    }
    for layer in sublayers(model):  # functions such as an activation, which Keras saves by name
        functions = [value for value in vars(layer).values() if isinstance(value, types.FunctionType)]
        objects |= {function.__name__: function for function in functions if not _is_of_keras(function.__module__)}
    for entry in _entries(configs):
        is_function = entry["class_name"] == "function"
        module = entry.get("module") or ""
        if not is_function and _is_of_keras(module):
            continue
        class_or_function = entry["config"] if is_function else entry["class_name"]
        name = class_or_function if is_function else entry.get("registered_name") or class_or_function
        thing = keras.saving.get_registered_object(name) or getattr(sys.modules.get(module), class_or_function, None)
        if thing is not None:
            objects[name] = thing
    return objects


def _is_of_keras(module: str) -> bool:
    return module.split(".")[0] in ("keras", "builtins")


def _entries(config: Any) -> Iterator[dict]:
    """Yield the configuration of every object in a configuration."""
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config
        for part in config.values():
            yield from _entries(part)
    elif isinstance(config, (list, tuple)):
        for part in config:
            yield from _entries(part)


def _register(objects: dict[str, Any]) -> None:
    """Make custom objects known to Keras under their names."""
    keras.saving.get_custom_objects().update(objects)
    for name, thing in objects.items():
        package, separator, short_name = name.partition(">")
        if separator:  # so that this process, too, writes it down by this name
            keras.saving.register_keras_serializable(package, short_name)(thing)
