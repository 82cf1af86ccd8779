"""The complete state of a model's layers: variables, random seeds, and data that layers store elsewhere.

`get_weights` includes neither seeds nor data that a layer derives from its variables or stores elsewhere, such as the
statistics of an adapted Normalization, a vocabulary, or the idf weights of a TextVectorization. Files of Keras include
everything except seeds, through `save_own_variables` and `save_assets` of every layer. Here, the same methods fill a
dictionary, and all variables are copied exactly, seeds included.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from poise._keras_internals import sublayers


@dataclass(frozen=True, eq=False)
class LayerState:
    """What a layer with custom saving methods saves.

    Attributes:
        kind: Name of its class.
        entries: Values that `save_own_variables` stores, by their keys.
        assets: Contents of the files that `save_assets` writes, by their paths.
    """

    kind: str
    entries: dict[str, np.ndarray] = field(default_factory=dict)
    assets: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class State:
    """The state of a layer or model and of all layers inside it.

    Attributes:
        layers: States of the layers with custom saving methods, in the order of Keras.
        variables: Values of `layer.variables` (weights and seeds), in the same order.
    """

    layers: list[LayerState]
    variables: list[np.ndarray]

    def to_record(self, keep: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        """Return the state as JSON data.

        Args:
            keep: Stores an array and returns a JSON value, from which the `read` of `from_record` restores the array.

        Raises:
            ValueError: If a layer saves data that is not an array of numbers or text.
        """
        layers = []
        for state in self.layers:
            for key, value in state.entries.items():
                if value.dtype.hasobject:
                    raise ValueError(
                        f"A layer of the class {state.kind} saves {key!r} as Python objects. Change its "
                        "save_own_variables to store arrays of numbers or text."
                    )
            entries = [[key, keep(value)] for key, value in state.entries.items()]
            assets = [[name, keep(np.frombuffer(content, "uint8"))] for name, content in state.assets.items()]
            layers.append({"kind": state.kind, "entries": entries, "assets": assets})
        return {"layers": layers, "variables": [keep(value) for value in self.variables]}

    @classmethod
    def from_record(cls, record: dict[str, Any], read: Callable[[Any], np.ndarray]) -> "State":
        """Restore the state from the result of `to_record`; `read` returns a stored array."""
        layers = [
            LayerState(
                entry["kind"],
                {key: read(value) for key, value in entry["entries"]},
                {name: read(content).tobytes() for name, content in entry["assets"]},
            )
            for entry in record["layers"]
        ]
        return cls(layers, [read(value) for value in record["variables"]])

    def load_into(self, layer: Any) -> None:
        """Load the state into a built layer or model of the same structure.

        Raises:
            ValueError: If it has other layers or variables.
        """
        holders = _special_layers(layer)
        kinds, saved_kinds = [type(holder).__name__ for holder in holders], [state.kind for state in self.layers]
        shapes = [tuple(variable.shape) for variable in layer.variables]
        saved = [np.shape(value) for value in self.variables]
        if kinds != saved_kinds or shapes != saved:
            raise ValueError(
                f"The state of {layer.name!r} cannot be restored: it was saved from layers of the classes "
                f"{saved_kinds} and variables of the shapes {saved}, but {layer.name!r} has {kinds} and {shapes}."
            )
        for holder, state in zip(holders, self.layers, strict=True):
            holder.load_own_variables(dict(state.entries))
            if hasattr(holder, "load_assets"):
                _load_assets(holder, state.assets)
        for variable, value in zip(layer.variables, self.variables, strict=True):
            variable.assign(value)


def state_of(layer: Any) -> State:
    """Return a copy of the state of a built layer or model."""
    return State([_layer_state(each) for each in _special_layers(layer)], [_copy(v) for v in layer.variables])


def copy_state(source: Any, target: Any) -> None:
    """Copy the complete state of a built layer or model to another one of the same structure.

    Raises:
        ValueError: If they have different layers or variables.
    """
    state_of(source).load_into(target)


def copy_seeds(source: Any, target: Any) -> None:
    """Copy the random seeds of a layer or model to another one, whose weights may have other shapes."""
    for seed, other in zip(_seeds(source), _seeds(target), strict=True):
        other.assign(_copy(seed))


def _special_layers(layer: Any) -> list[Any]:
    """Return the layers with custom saving methods, `layer` included."""
    return [each for each in sublayers(layer) if _is_special(type(each))]


def _is_special(kind: type) -> bool:
    base = keras.layers.Layer
    is_plain = kind.save_own_variables is base.save_own_variables and kind.load_own_variables is base.load_own_variables
    return not is_plain or hasattr(kind, "save_assets")


def _layer_state(layer: Any) -> LayerState:
    entries: dict[str, Any] = {}
    layer.save_own_variables(entries)
    if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
        # `assign` and `set_weights` change its variables, but not the statistics that it uses.
        for key, variable, value in zip("01", layer.weights, (layer.mean, layer.variance), strict=False):
            entries[key] = keras.ops.reshape(value, variable.shape)
    assets: dict[str, bytes] = {}
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
            assets = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    return LayerState(type(layer).__name__, {key: _copy(value) for key, value in entries.items()}, assets)


def _load_assets(layer: Any, assets: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in assets.items():
            file = Path(folder, name)
            if not file.resolve().is_relative_to(Path(folder).resolve()):
                raise ValueError(f"The state of {layer.name!r} has a file {name!r} outside of its folder.")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        layer.load_assets(folder)


def _copy(value: Any) -> np.ndarray:
    """Return an array without shared memory, because JAX donates buffers and PyTorch writes into them."""
    is_tensor = isinstance(value, keras.Variable) or keras.ops.is_tensor(value)
    return np.array(keras.ops.convert_to_numpy(value) if is_tensor else value)


def _seeds(layer: Any) -> list[Any]:
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]
