"""The whole state of a model's layers: variables, random seeds, and what layers keep beside them.

`get_weights` has neither the seeds nor what a layer derives from its variables or stores elsewhere: the statistics of
an adapted Normalization, a vocabulary, the idf weights of a TextVectorization. Keras' files have all but the seeds, by
`save_own_variables` and `save_assets` of every layer. Here the same methods fill a dictionary, and the variables follow
exactly, seeds included.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, eq=False)
class LayerState:
    """What one layer saves in a way of its own.

    Attributes:
        kind: the name of its class.
        entries: by the key under which `save_own_variables` stores it, each value.
        assets: by the path of a file that `save_assets` writes, its bytes.
    """

    kind: str
    entries: dict[str, np.ndarray] = field(default_factory=dict)
    assets: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class State:
    """The state of a layer or model and of all layers inside it.

    Attributes:
        layers: of the layers that save more than their variables, in the order in which Keras holds them.
        variables: the values of `variables`, weights and seeds, in this order.
    """

    layers: list[LayerState]
    variables: list[np.ndarray]

    def to_record(self, keep: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        """The state as JSON holds it; `keep` stores an array and returns what `read` of `from_record` finds it by.

        Raises:
            ValueError: if a layer saves something that is not an array of numbers or text.
        """
        layers = []
        for one in self.layers:
            for key, value in one.entries.items():
                if value.dtype.hasobject:
                    raise ValueError(
                        f"A layer of the class {one.kind} saves {key!r} as Python objects. Let its save_own_variables "
                        "store arrays of numbers or text."
                    )
            entries = [[key, keep(value)] for key, value in one.entries.items()]
            assets = [[name, keep(np.frombuffer(content, "uint8"))] for name, content in one.assets.items()]
            layers.append({"kind": one.kind, "entries": entries, "assets": assets})
        return {"layers": layers, "variables": [keep(value) for value in self.variables]}

    @classmethod
    def from_record(cls, record: dict[str, Any], read: Callable[[Any], np.ndarray]) -> "State":
        layers = [
            LayerState(
                one["kind"],
                {key: read(value) for key, value in one["entries"]},
                {name: read(content).tobytes() for name, content in one["assets"]},
            )
            for one in record["layers"]
        ]
        return cls(layers, [read(value) for value in record["variables"]])

    def load_into(self, layer) -> None:
        """Gives the state to a layer or model of the same structure, which must be built.

        Raises:
            ValueError: if it has other layers or variables.
        """
        holders = _special_layers(layer)
        kinds, needed = [type(one).__name__ for one in holders], [one.kind for one in self.layers]
        shapes = [tuple(variable.shape) for variable in layer.variables]
        saved = [np.shape(value) for value in self.variables]
        if kinds != needed or shapes != saved:
            raise ValueError(
                f"The state of {layer.name!r} cannot be restored: it was taken from layers of the classes {needed} and "
                f"variables of the shapes {saved}, and {layer.name!r} has {kinds} and {shapes}."
            )
        for holder, state in zip(holders, self.layers, strict=True):
            holder.load_own_variables(dict(state.entries))
            if hasattr(holder, "load_assets"):
                _load_assets(holder, state.assets)
        for variable, value in zip(layer.variables, self.variables, strict=True):
            variable.assign(value)


def state_of(layer) -> State:
    """The state of a built layer or model, in copies."""
    return State([_own_state(one) for one in _special_layers(layer)], [_copied(v) for v in layer.variables])


def copy_state(source, target) -> None:
    """Gives a layer or model the whole state of another one of the same structure; both must be built.

    Raises:
        ValueError: if they have different layers or variables.
    """
    state_of(source).load_into(target)


def copy_seeds(source, target) -> None:
    """Gives the random layers of a layer or model the seeds of another one, whose weights may have other shapes."""
    for seed, copied in zip(_seeds(source), _seeds(target), strict=True):
        copied.assign(_copied(seed))


def _special_layers(layer) -> list:
    """The layers that save or load in a way of their own, `layer` included."""
    # Keras has no public way to walk through all layers inside a layer.
    return [one for one in layer._flatten_layers() if _is_special(type(one))]


def _is_special(kind: type) -> bool:
    base = keras.layers.Layer
    is_plain = kind.save_own_variables is base.save_own_variables and kind.load_own_variables is base.load_own_variables
    return not is_plain or hasattr(kind, "save_assets")


def _own_state(layer) -> LayerState:
    entries: dict[str, Any] = {}
    layer.save_own_variables(entries)
    if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
        # `assign` and `set_weights` change its variables, but not the statistics that it computes with.
        for key, variable, value in zip("01", layer.weights, (layer.mean, layer.variance), strict=False):
            entries[key] = keras.ops.reshape(value, variable.shape)
    assets: dict[str, bytes] = {}
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
            assets = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    return LayerState(type(layer).__name__, {key: _copied(value) for key, value in entries.items()}, assets)


def _load_assets(layer, assets: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in assets.items():
            file = Path(folder, name)
            if not file.resolve().is_relative_to(Path(folder).resolve()):
                raise ValueError(f"The state of {layer.name!r} has a file {name!r} outside of its folder.")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        layer.load_assets(folder)


def _copied(value) -> np.ndarray:
    """As an array that shares no memory with a variable: JAX gives buffers away, and PyTorch writes into them."""
    is_tensor = isinstance(value, keras.Variable) or keras.ops.is_tensor(value)
    return np.array(keras.ops.convert_to_numpy(value) if is_tensor else value)


def _seeds(layer) -> list:
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]
