"""The graph of a model as calls of layers on tensors, in the order in which they run; nested models are opened."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from poise._keras_internals import Functional
from poise.compaction.units import Units

CALLS = (Functional.call, keras.Sequential.call)
"""How models run that are nothing but their graphs; one with a `call` of its own may do something else."""


@dataclass(eq=False)
class Tensor:
    """A tensor of the graph, with the units along one of its axes.

    Attributes:
        shape: with None for the batch and for what is not known.
        dtype: of its entries.
        axis: along which its units lie; None if its units are not followed.
        units: (size of the axis,) their numbers.
        constants: (size,) the value of an index that is the same everywhere and for all data, else NaN.
        needed: (size,) whether an output of the model depends on it.
    """

    shape: tuple[Any, ...]
    dtype: str = "float32"
    axis: Any = None
    units: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    constants: np.ndarray = field(default_factory=lambda: np.zeros(0))
    needed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def carry(self, axis: int | None, units: np.ndarray):
        self.axis, self.units = axis, units
        self.constants, self.needed = np.full(len(units), np.nan), np.zeros(len(units), bool)


@dataclass(eq=False)
class Call:
    """One use of a layer.

    Attributes:
        layer: a Keras layer, or another operation.
        inputs: the tensors among its arguments, in their order.
        outputs: the tensors that it gives.
        arguments: Keras' record of the call's arguments.
        is_training: whether `training` is set in the call, or in that of a model around it, so that also outside of
            training a dropout drops, and a batch normalization takes the statistics of the batch.
        given: per input the units along the axis that the layer works on (see `enter`); where the tensor carries units
            along another axis, they are new and pinned, and their constants are not known.
        kind: what is known of its layer (see `poise.compaction.handlers`).
        within: units inside the layer, by name, with what is known of them: the heads of an attention.
    """

    layer: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    arguments: Any
    graph: "Graph"
    is_training: bool = False
    kind: Any = None
    given: dict[int, np.ndarray] = field(default_factory=dict)
    within: dict[str, Tensor] = field(default_factory=dict)
    _foreign: set[int] = field(default_factory=set)

    @property
    def given_names(self) -> list[str | None]:
        """Per input the keyword under which it was given, None for the positional ones."""
        named = [
            name
            for name, given in sorted(self.arguments.kwargs.items())
            for one in keras.tree.flatten(given)
            if isinstance(one, keras.KerasTensor)
        ]
        return [*[None] * (len(self.inputs) - len(named)), *named]

    @property
    def others(self) -> list[int]:
        """The inputs that the layer does not take units from, such as a mask; those of a wall are all kept anyway."""
        return [number for number in range(len(self.inputs)) if number not in self.given]

    @property
    def form(self) -> tuple:
        """What two calls of a layer must have in common, for their units to be the same."""
        entered = [(number, len(units), self.inputs[number].axis) for number, units in self.given.items()]
        made = [(tensor.axis, len(tensor.units)) for tensor in self.outputs]
        return self.kind, self.given_names, entered, made

    def enter(self, number: int, axis: int) -> np.ndarray:
        """The units of an input along an axis; where it carries others, those stay and so do these."""
        tensor = self.inputs[number]
        axis %= len(tensor.shape)
        if tensor.axis == axis:
            self.given[number] = tensor.units
        else:
            self.graph.units.pin(tensor.units, f"{self.layer.name!r} works along another axis")
            size = tensor.shape[axis]
            self.given[number] = self.graph.units.fresh(size or 0)
            self.graph.units.pin(self.given[number], "its axis is not followed")
            self._foreign.add(number)
        return self.given[number]

    def entering(self, number: int) -> np.ndarray:
        """The constants of an input along the axis that the layer works on."""
        unknown = np.full(len(self.given[number]), np.nan)
        return unknown if number in self._foreign else self.inputs[number].constants

    def foldable(self, number: int) -> np.ndarray:
        """Those constants that are the same in all calls of the layer, so that its bias can take them in."""
        own = self.entering(number)
        for call in self.graph.calls_of(self.layer):
            own = (
                np.where(own == call.entering(number), own, np.nan)
                if call.form == self.form
                else np.full(len(own), np.nan)
            )
        return own

    def leaving(self, number: int, stays) -> np.ndarray:
        """The constants that go, and 0 for the others."""
        constants = self.foldable(number)
        return np.where(stays(self.given[number]) | np.isnan(constants), 0.0, constants)

    def need(self, number: int, needed: np.ndarray):
        """Says that the layer needs these of an input's units."""
        tensor = self.inputs[number]
        tensor.needed |= needed.any() if number in self._foreign else needed

    def value(self, variable, is_exact: bool = False) -> np.ndarray:
        """A weight as float64; unless it has to be exact, entries that count as zero are zero."""
        return self.graph.exact(variable) if is_exact else self.graph.value(variable)


class Graph:
    """The calls of a model in the order in which they run.

    Args:
        model: a built functional or sequential model.
        tolerance: weights whose size is at most this count as zero.

    Raises:
        TypeError: if the model is none, or has no graph of layers.
        ValueError: if it is not built, or has a quantized layer or one with LoRA.
    """

    def __init__(self, model, tolerance: float = 0.0):
        check_model(model)
        self.model = model
        self.units = Units()
        self.calls: list[Call] = []
        self._tolerance = tolerance
        self._exact: dict[int, np.ndarray] = {}
        self._by_layer: dict[int, list[Call]] = {}
        self.inputs = [Tensor(tuple(tensor.shape), tensor.dtype) for tensor in model.inputs]
        self.entered: dict[int, list[list[Tensor]]] = {}
        """By the id of a model, this one or one inside, what it is called on, call by call."""
        self.outputs = self._opened(model, self.inputs, is_training=False)

    def calls_of(self, layer) -> list[Call]:
        return self._by_layer[id(layer)]

    @property
    def layers(self) -> list:
        """Every layer or operation once, in the order of their first calls."""
        return [calls[0].layer for calls in self._by_layer.values()]

    def exact(self, variable) -> np.ndarray:
        if id(variable) not in self._exact:
            self._exact[id(variable)] = keras.ops.convert_to_numpy(variable).astype("float64")
        return self._exact[id(variable)]

    def value(self, variable) -> np.ndarray:
        value = self.exact(variable)
        return np.where(np.abs(value) <= self._tolerance, 0.0, value) if self._tolerance else value

    def _opened(self, model, inputs: list[Tensor], is_training: bool) -> list[Tensor]:
        """Adds the calls inside a model that is called on tensors, and gives what comes out."""
        self.entered.setdefault(id(model), []).append(inputs)
        found = {id(symbol): tensor for symbol, tensor in zip(model.inputs, inputs, strict=True)}
        for node in nodes_of(model):
            given = [found[id(symbol)] for symbol in node.arguments.keras_tensors]
            training = _training_of(node, is_training)
            if is_graph(node.operation):
                made = self._opened(node.operation, [found[id(symbol)] for symbol in _in_order(node)], training)
            else:
                made = [Tensor(tuple(symbol.shape), symbol.dtype) for symbol in node.outputs]
                call = Call(node.operation, given, made, node.arguments, self, training)
                self.calls.append(call)
                self._by_layer.setdefault(id(node.operation), []).append(call)
            found |= {id(symbol): tensor for symbol, tensor in zip(node.outputs, made, strict=True)}
        return [found[id(symbol)] for symbol in model.outputs]


def nodes_of(model) -> Iterator:
    """The nodes of a model's graph that compute something, in an order in which they can run."""
    graph = graph_of(model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if node.operation and not node.is_input)


def _training_of(node, around: bool) -> bool:
    """Whether a call may run as in training, because of its own argument or of that of a model around it, which wins.

    Keras takes nothing but tensors by position.
    """
    training = node.arguments.kwargs.get("training")
    return around or not (training is None or training is False)  # a tensor may be true


def _in_order(node) -> list:
    """What a model inside is called on, in the order of its inputs."""
    model, arguments = node.operation, node.arguments
    given = arguments.args[0] if arguments.args else arguments.kwargs.get("inputs")
    if isinstance(given, dict) and not isinstance(graph_of(model)._inputs_struct, dict):
        given = [given[symbol._keras_history.operation.name] for symbol in model.inputs]
    given = keras.tree.flatten(given)
    if len(given) != len(model.inputs) or len(given) != len(arguments.keras_tensors):
        raise ValueError(
            f"The model {model.name!r} is called with a mask or another argument beside its inputs, which cannot be "
            "followed. Give the mask to the layers inside that use it."
        )
    return given


def graph_of(model):
    """The functional model inside a sequential one, or the functional model itself."""
    return model._functional if isinstance(model, keras.Sequential) else model


def is_graph(layer) -> bool:
    """Whether a layer is a model whose graph can be followed."""
    if getattr(type(layer), "call", None) not in CALLS:
        return False
    return not isinstance(layer, keras.Sequential) or (layer.built and layer._functional is not None)


def check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{model!r} is a {type(model).__name__}, and no Keras model. Give a functional or a sequential."
        )
    if isinstance(model, keras.Sequential) and not model.layers:
        raise ValueError(f"The model {model.name!r} has no layers, and nothing can be removed from it.")
    if model.built and isinstance(model, keras.Sequential) and model._functional is None:
        raise ValueError(
            f"Keras has no graph of the model {model.name!r}, because a layer of it does not say what shape its output "
            "has. Give a TorchModuleWrapper its output_shape, or a custom layer a compute_output_shape, and begin the "
            "model with a keras.Input."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, and has no weights yet. Give it a keras.Input, or call it on data."
        )
    if not is_graph(model):
        raise TypeError(
            f"The model {model.name!r} is a {type(model).__name__} without a graph of layers, or with a call of its "
            "own, and it cannot be told who reads a unit. Write it as a functional model, keras.Model(inputs, outputs)."
        )
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None) is not None:
            raise ValueError(
                f"The layer {layer.name!r} is quantized ({layer.quantization_mode}), and its weights cannot be cut. "
                "Compact the model before it is quantized."
            )
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"The layer {layer.name!r} has LoRA weights beside its kernel. Save and load the model's weights "
                "without LoRA, which merges them, and compact that."
            )
