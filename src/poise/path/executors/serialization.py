"""What a process that runs JAX needs to train lanes, written into a folder and read from it. No pickle.

work.json     the model, rules and optimizer as Keras configurations, the loss, the settings, and where the Python
              objects that they name can be imported from
arrays.npz    the state of the model's layers, the data and the rows of the folds

Whatever cannot travel is refused while it is written.
"""

import copy
import importlib
import json
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from poise.layer_state import State, state_of
from poise.path.data.arrays import Data
from poise.path.data.streams import Relayed, Stream
from poise.path.executors.array_store import Parcel, packed_rows, reader, unpacked_rows
from poise.path.executors.nested_json import packed, unpacked
from poise.path.executors.ray_cluster import RayCluster
from poise.path.model_config import restoring
from poise.path.models import inner_optimizer
from poise.path.training import Replica, Training
from poise.rules.members import path_of
from poise.rules.rule import Rule

TOLD = ("rows", "batches", "largest", "digest")
"""What a stream tells of itself."""
WORK, ARRAYS = "work.json", "arrays.npz"
TO_A_MODULE = "Put it at the top level of a module of its own (a .py file), and import it from there."
REGISTER = "keras.saving.register_keras_serializable()"


def pack(
    folder: str,
    model: keras.Model,
    rules: list[Rule],
    data: Data,
    replicas: list[Replica],
    *,
    strengths: int | np.ndarray,
    adaptive: int,
    relax: bool,
    training: Training,
    checkpoint: str | os.PathLike[str] | None,
    cluster: RayCluster | None = None,
    resolved: dict | None = None,
) -> None:
    """Writes down what `poise.path.fit.solved` is called with; only the call for progress stays behind.

    Raises:
        ValueError: for what cannot travel, with its name and what to do.
    """
    parcel = Parcel()
    work = {
        **packed_problem(model, rules, resolved, data, parcel),
        "replicas": [[int(r.fold), int(r.seed), parcel.keep(r.train), parcel.keep(r.held)] for r in replicas],
        "strengths": strengths if isinstance(strengths, int) else parcel.keep(strengths),
        "adaptive": adaptive,
        "relax": bool(relax),
        "training": asdict(training),
        "checkpoint": None if checkpoint is None else os.path.abspath(os.fspath(checkpoint)),
        "cluster": None if cluster is None else asdict(cluster),
    }
    Path(folder, WORK).write_text(json.dumps(work, default=_plain), encoding="utf-8")
    parcel.write(Path(folder, ARRAYS))


def packed_problem(
    model: keras.Model, rules: list[Rule], resolved: dict | None, data: Data, parcel: Parcel
) -> dict[str, Any]:
    """What is trained, as JSON holds it; its arrays go into the parcel.

    Raises:
        ValueError: for what cannot travel, with its name and what to do.
    """
    problem = {
        "path": [os.path.abspath(entry) for entry in sys.path],
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "dtype_policy": keras.config.dtype_policy().name,
        **_packed_model(model, parcel),
        "optimizer": _packed_optimizer(inner_optimizer(model), parcel),
        "loss": packed(model.loss, lambda loss: _packed_loss(loss, parcel)),
        "loss_weights": packed(model._compile_config.config["loss_weights"], float),
        "rules": [_configuration(rule, f"Rule {rule.name!r}", parcel, is_kept=True) for rule in rules],
        "resolved": resolved,
        "stream": {name: getattr(data.x, name) for name in TOLD} if isinstance(data.x, Stream) else None,
        "data": None if isinstance(data.x, Stream) else packed_rows((data.x, data.y, data.sample_weight), parcel),
        "rows": data.rows,
        "names": data.names,
    }
    return {**problem, "places": parcel.places, "has_lambdas": parcel.has_lambdas}


def unpack(work: dict, folder: str, ask: Callable[[int], tuple]) -> dict[str, Any]:
    """The arguments of `poise.path.fit.solved`, save `report`.

    Args:
        work: what `pack` wrote to work.json, its `places` imported and in Keras' scope of custom objects.
        folder: where it wrote the arrays.
        ask: gives the batch of a number, of data that pass by (see `Relayed`).

    Raises:
        ValueError: if Keras rebuilds another model here.
    """
    read = reader(Path(folder, ARRAYS))
    model, rules, resolved, data = unpacked_problem(work, read, ask)
    strengths, cluster = work["strengths"], work["cluster"]
    return {
        "model": model,
        "rules": rules,
        "resolved": resolved,
        "data": data,
        "replicas": [Replica(fold, seed, read(train), read(held)) for fold, seed, train, held in work["replicas"]],
        "strengths": strengths if isinstance(strengths, int) else read(strengths),
        "training": Training(**work["training"]),
        "cluster": None if cluster is None else RayCluster(**cluster),
        **{name: work[name] for name in ("adaptive", "relax", "checkpoint")},
    }


def unpacked_problem(
    work: dict, read: Callable[[dict], np.ndarray], ask: Callable[[int], tuple] | None = None
) -> tuple[keras.Model, list[Rule], dict | None, Data]:
    """The compiled model, the rules, what they resolve to and the data of `packed_problem`.

    Args:
        work: what that returned, its `places` imported and in Keras' scope of custom objects.
        read: gives the array of what the parcel told.
        ask: as for `unpack`; only data that pass by need it.

    Raises:
        ValueError: if Keras rebuilds another model here.
    """
    keras.config.set_floatx(work["floatx"])
    keras.config.set_epsilon(work["epsilon"])
    keras.config.set_image_data_format(work["image_data_format"])
    keras.config.set_dtype_policy(work["dtype_policy"])
    if work["has_lambdas"]:
        keras.config.enable_unsafe_deserialization()
    model = keras.saving.deserialize_keras_object(work["model"])
    _check_shapes(model, [tuple(shape) for shape in work["shapes"]])
    State.from_record(work["state"], read).load_into(model)
    for variable, is_trained in zip(model.variables, work["are_trained"], strict=True):
        if variable.trainable != is_trained:
            variable.trainable = is_trained
        variable.regularizer = (
            None  # check_model refuses it; what poise.adopt_regularizers took off, a configuration may bring back
        )
    model.compile(
        keras.saving.deserialize_keras_object(work["optimizer"]),
        loss=unpacked(work["loss"], _unpacked_loss),
        loss_weights=unpacked(work["loss_weights"], float),
    )
    stream = work["stream"]
    rows = (Relayed(ask, **stream), None, None) if stream and ask else unpacked_rows(work["data"], read)
    data = Data(*rows, rows=work["rows"], names=work["names"] and tuple(work["names"]))
    rules = [keras.saving.deserialize_keras_object(rule) for rule in work["rules"]]
    return model, rules, work["resolved"], data


def imported(places: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """By Keras' name for it, everything of `places` that can be reached from its module, which is imported."""
    for module, _ in places.values():
        importlib.import_module(module)
    return _known(places)


# ---------------------------------------------------------------- objects


def _packed_model(model, parcel):
    return {
        "model": _configuration(model, "The model", parcel, is_kept=True),
        "shapes": _shapes(model),
        "state": state_of(model).to_record(parcel.keep),
        "are_trained": [bool(variable.trainable) for variable in model.variables],
    }


def _packed_optimizer(optimizer, parcel):
    config = _configuration(optimizer, "The optimizer", parcel)
    if config["module"].startswith("keras.src.backend."):  # on PyTorch keras.optimizers.Adam() is a class of its own
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config


def _shapes(model):
    return [tuple(variable.shape) for variable in model.variables]


def _check_shapes(model, shapes):
    """Raises ValueError unless the variables have these shapes; the order is that in which the layers made them."""
    if _shapes(model) != shapes:
        names = [path_of(variable) for variable in model.variables]
        raise ValueError(
            f"Keras rebuilds the model from its configuration with variables of the shapes {_shapes(model)} ({names}), "
            f"and it has {shapes}. A layer of it does not restore itself from its get_config."
        )


def _configuration(thing, what, parcel, is_kept=False) -> dict:
    """An object as JSON holds it, tried out by rebuilding it here.

    Args:
        thing: what Keras can write down.
        what: its name in messages.
        parcel: takes up where its Python objects can be imported from.
        is_kept: whether the path keeps it, so that Keras must find all of it by itself.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of lambdas, which are judged below
            found = _without_compilation(keras.saving.serialize_keras_object(thing))
            text = json.dumps(found, default=_plain)
    except Exception as error:
        raise ValueError(
            f"{what} cannot be handed to the process that runs JAX, because Keras cannot write it down: {error} Give "
            "every class of it a get_config that returns numbers, texts, lists and Keras objects."
        ) from error
    lambdas = []
    for entry, owner in _entries(json.loads(text)):
        _note_place(entry, what, parcel.places)
        lambdas += [owner] if entry["class_name"] == "__lambda__" else []
    try:
        scope = keras.saving.custom_object_scope({} if is_kept else _known(parcel.places))
        with restoring(what), warnings.catch_warnings(), scope:
            warnings.simplefilter("ignore")
            rebuilt = keras.saving.deserialize_keras_object(json.loads(text))  # which empties what it is given
    except Exception as error:
        if lambdas:
            raise ValueError(
                f"{what} holds a Python lambda (in {lambdas[0]!r}), which cannot be handed to the process that runs "
                f"JAX. Make it a function in a module, and decorate that with {REGISTER}."
            ) from error
        raise ValueError(
            f"{error} So it cannot be handed to the process that runs JAX. Decorate its classes and functions with "
            f"{REGISTER}, and give the classes a get_config."
        ) from error
    if isinstance(thing, keras.Model):
        _check_shapes(rebuilt, _shapes(thing))
    parcel.has_lambdas |= bool(lambdas)
    return json.loads(text)


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a configuration holds {value!r}, of type {type(value).__name__}.")


def _without_compilation(config):
    """The configuration without how it and the models inside it were compiled."""
    if isinstance(config, dict):
        is_object = "class_name" in config
        return {
            key: _without_compilation(part)
            for key, part in config.items()
            if not (is_object and key == "compile_config")
        }
    return [_without_compilation(part) for part in config] if isinstance(config, (list, tuple)) else config


def _entries(config, owner="") -> Iterator[tuple[dict, str]]:
    """(configuration, name of the layer that holds it) of every object in a configuration."""
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config, owner
            if isinstance(config["config"], dict):
                owner = config["config"].get("name", owner)
        for part in config.values():
            yield from _entries(part, owner)
    elif isinstance(config, list):
        for part in config:
            yield from _entries(part, owner)


# ---------------------------------------------------------------- losses


def _packed_loss(loss, parcel):
    if isinstance(loss, str):
        return {"name": loss}
    if isinstance(loss, types.FunctionType):
        if loss.__name__ == "<lambda>":
            raise ValueError(
                "The loss is a Python lambda, which cannot be handed to the process that runs JAX. Make it a function "
                "in a module."
            )
        return {"function": _place(loss, "The loss")}
    if not isinstance(loss, keras.losses.Loss):
        raise ValueError(
            f"The loss {loss!r} is of type {type(loss).__name__}, which cannot be handed to the process that runs JAX. "
            "Give a name, a keras.losses.Loss, or a function in a module."
        )
    config = _configuration(loss, "The loss", parcel)
    with keras.saving.custom_object_scope(_known(parcel.places)):
        rebuilt = keras.saving.deserialize_keras_object(copy.deepcopy(config))
    # Keras' own Huber, among others, leaves its parameters out of its get_config.
    forgotten = {
        name: json.loads(text)
        for name, value in vars(loss).items()
        if (text := _text(value)) is not None and text != _text(vars(rebuilt).get(name))
    }
    return {"object": config, "forgotten": forgotten}


def _unpacked_loss(found):
    if "name" in found:
        return found["name"]
    if "function" in found:
        module, attribute = found["function"]
        return _reached(importlib.import_module(module), attribute)
    loss: Any = keras.saving.deserialize_keras_object(found["object"])
    for name, value in found["forgotten"].items():
        setattr(loss, name, value)
    return loss


def _text(value):
    try:
        return json.dumps(value, sort_keys=True, default=_plain)
    except (TypeError, ValueError):
        return None


# ---------------------------------------------------------------- where Python objects come from


def _note_place(entry, what, places):
    """Takes up where the class or function of a configuration can be imported from, unless it is Keras' own."""
    name, module = entry["class_name"], entry.get("module") or ""
    if name == "function":
        name = entry["config"]
        thing = keras.saving.get_registered_object(name)
    elif module.split(".")[0] in ("keras", "builtins"):
        return
    else:
        own = getattr(sys.modules.get(module), name, None)
        name = entry.get("registered_name") or name
        thing = keras.saving.get_registered_object(name) or own
    if thing is not None:
        places[name] = _place(thing, what)


def _place(thing, what) -> tuple[str, str]:
    """(module, name in it) of a class or function.

    Raises:
        ValueError: if another process could not import it.
    """
    module, attribute, reason = thing.__module__, thing.__qualname__, ""
    if module == "__main__":
        reason = "is defined in the script or notebook itself"
    elif not _is_importable(module):
        reason = f"belongs to the module {module!r}, which is in no folder of sys.path"
    elif "<locals>" in attribute:
        reason = f"is defined inside a function of {module!r}"
    if reason:
        raise ValueError(
            f"{what} needs {thing.__name__!r}, which {reason}, so that the process that runs JAX cannot import it. "
            f"{TO_A_MODULE}"
        )
    return module, attribute


def _is_importable(module) -> bool:
    """Whether a new process with the same sys.path finds the module."""
    path, parts = None, module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        specs = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        path = None if spec is None else spec.submodule_search_locations
        if spec is None or (path is None and length < len(parts)):
            return False
    return True


def _known(places):
    """`imported`, of modules that this process has imported already."""
    found = {name: _reached(sys.modules.get(module), attribute) for name, (module, attribute) in places.items()}
    return {name: thing for name, thing in found.items() if thing is not None}


def _reached(module, attribute):
    thing = module
    for name in attribute.split("."):
        thing = getattr(thing, name, None)
    return thing
