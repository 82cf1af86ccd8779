"""The graph of a model as calls of layers on tensors, in the order in which they run, with nested models expanded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from poise._keras_internals import (
    Functional,
    functional_inside,
    input_structure,
    nodes_by_depth,
    operation_of,
    sublayers,
)
from poise.compaction.units import Units

GRAPH_CALLS = (Functional.call, keras.Sequential.call)
"""The `call` methods that run the graph and nothing else; a custom `call` may do something else."""


@dataclass(eq=False)
class Tensor:
    """A tensor of the graph, with the units along one of its axes.

    Attributes:
        shape: Shape, with None for the batch and for unknown sizes.
        dtype: Name of the dtype.
        axis: Axis along which its units lie, or None if its units are not followed.
        units: (size of the axis,) numbers of the units.
        constants: (size,) value of a unit that is the same at all positions and for all data, NaN for other units.
        needed: (size,) whether an output of the model depends on the unit.
    """

    shape: tuple[Any, ...]
    dtype: str = "float32"
    axis: Any = None
    units: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    constants: np.ndarray = field(default_factory=lambda: np.zeros(0))
    needed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def carry(self, axis: int | None, units: np.ndarray) -> None:
        """Set the axis and its units, of which nothing else is known yet."""
        self.axis, self.units = axis, units
        self.reset()

    def reset(self) -> None:
        """Forget which units are constant and which are needed."""
        self.constants, self.needed = np.full(len(self.units), np.nan), np.zeros(len(self.units), bool)


@dataclass(eq=False)
class Call:
    """One use of a layer.

    Attributes:
        layer: Keras layer or another operation.
        inputs: Tensors among its arguments, in their order.
        outputs: Tensors that it returns.
        arguments: Keras' record of the call's arguments.
        graph: Graph that holds the call.
        is_training: Whether `training` is set in the call or in the call of a model around it. Dropout is then on and
            batch normalization uses the statistics of the batch, also in inference.
        handler: Handler of the layer (see `poise.compaction.handlers`).
        input_units: Maps the number of an input to the units along the axis that the layer works on (see `take_units`).
            Where the tensor carries units along another axis, these are new and pinned, and never constant.
        within: By name, tensors inside the layer that carry units of their own, such as the heads of an attention.
    """

    layer: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    arguments: Any
    graph: "Graph"
    is_training: bool = False
    handler: Any = None
    input_units: dict[int, np.ndarray] = field(default_factory=dict)
    within: dict[str, Tensor] = field(default_factory=dict)
    _off_axis: set[int] = field(default_factory=set)

    @property
    def input_names(self) -> list[str | None]:
        """The keyword of every input; None if the input is positional."""
        named = [
            name
            for name, value in sorted(self.arguments.kwargs.items())
            for leaf in keras.tree.flatten(value)
            if isinstance(leaf, keras.KerasTensor)
        ]
        return [*[None] * (len(self.inputs) - len(named)), *named]

    @property
    def side_inputs(self) -> list[int]:
        """The numbers of the inputs whose units the layer does not take, such as a mask."""
        return [number for number in range(len(self.inputs)) if number not in self.input_units]

    @property
    def form(self) -> tuple:
        """What two calls of a layer must have in common so that their units correspond."""
        read = [(number, len(units), self.inputs[number].axis) for number, units in self.input_units.items()]
        made = [(tensor.axis, len(tensor.units)) for tensor in self.outputs]
        return self.handler, self.input_names, read, made

    def take_units(self, number: int, axis: int) -> np.ndarray:
        """Return the units of an input along an axis; if it carries units along another axis, all of them stay."""
        tensor = self.inputs[number]
        axis %= len(tensor.shape)
        if tensor.axis == axis:
            self.input_units[number] = tensor.units
        else:
            self.graph.units.pin(
                tensor.units, f"{self.layer.name!r} operates on an axis other than the one that holds these units"
            )
            self.graph.units.mark_untraceable(tensor.units)
            size = tensor.shape[axis]
            self.input_units[number] = self.graph.units.create(size or 0)
            self.graph.units.pin(
                self.input_units[number], "its units lie along an axis that poise.compact does not track"
            )
            self._off_axis.add(number)
        return self.input_units[number]

    def input_constants(self, number: int) -> np.ndarray:
        """Return the constants of an input along the axis that the layer works on."""
        unknown = np.full(len(self.input_units[number]), np.nan)
        return unknown if number in self._off_axis else self.inputs[number].constants

    def foldable_constants(self, number: int) -> np.ndarray:
        """Return the constants that are the same in all calls of the layer, so that its bias can absorb them."""
        constants = self.input_constants(number)
        for call in self.graph.calls_of(self.layer):
            if call.form != self.form:
                return np.full(len(constants), np.nan)
            constants = np.where(constants == call.input_constants(number), constants, np.nan)
        return constants

    def removed_constants(self, number: int, stays: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the constants of the units that are removed, and 0 for the others."""
        constants = self.foldable_constants(number)
        return np.where(stays(self.input_units[number]) | np.isnan(constants), 0.0, constants)

    def mark_needed(self, number: int, needed: np.ndarray) -> None:
        """Record which of an input's units the layer needs."""
        tensor = self.inputs[number]
        tensor.needed |= needed.any() if number in self._off_axis else needed

    def value(self, variable: Any, is_exact: bool = False) -> np.ndarray:
        """Return a weight as float64. Entries that count as zero are zero, unless `is_exact`."""
        return self.graph.exact(variable) if is_exact else self.graph.value(variable)


class Graph:
    """The calls of a model in the order in which they run.

    Args:
        model: Built functional or sequential model.
        tolerance: Weights of at most this absolute value count as zero. Default: 0.

    Raises:
        TypeError: If `model` is not a Keras model, or has no graph of layers.
        ValueError: If the model is not built, or has a quantized layer or a layer with LoRA weights.
    """

    def __init__(self, model: Any, tolerance: float = 0.0) -> None:
        check_model(model)
        self.model = model
        self.units = Units()
        self.calls: list[Call] = []
        self._tolerance = tolerance
        self._exact: dict[int, np.ndarray] = {}
        self._by_layer: dict[int, list[Call]] = {}
        self.inputs = [Tensor(tuple(tensor.shape), tensor.dtype) for tensor in model.inputs]
        self.entered: dict[int, list[list[Tensor]]] = {}
        """Maps the id of this model or a nested one to the tensors of each of its calls."""
        self.outputs = self._add_calls(model, self.inputs, is_training=False)

    def calls_of(self, layer: Any) -> list[Call]:
        """Return all calls of a layer."""
        return self._by_layer[id(layer)]

    @property
    def layers(self) -> list:
        """Every layer or operation once, in the order of its first call."""
        return [calls[0].layer for calls in self._by_layer.values()]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, those inside of layers included."""
        calls = [tensor for call in self.calls for tensor in (*call.outputs, *call.within.values())]
        return [*self.inputs, *calls]

    def set_values(self, values: dict[int, np.ndarray]) -> None:
        """Use other values of variables, by the id of the variable."""
        self._exact = {key: value.astype("float64") for key, value in values.items()}

    def exact(self, variable: Any) -> np.ndarray:
        """Return the value of a variable as float64."""
        if id(variable) not in self._exact:
            self._exact[id(variable)] = keras.ops.convert_to_numpy(variable).astype("float64")
        return self._exact[id(variable)]

    def value(self, variable: Any) -> np.ndarray:
        """Return the value of a variable as float64, with zeros for entries that count as zero."""
        value = self.exact(variable)
        return np.where(np.abs(value) <= self._tolerance, 0.0, value) if self._tolerance else value

    def _add_calls(self, model: Any, inputs: list[Tensor], is_training: bool) -> list[Tensor]:
        """Add the calls inside a model that is called on tensors, and return its outputs."""
        self.entered.setdefault(id(model), []).append(inputs)
        tensors = {id(symbol): tensor for symbol, tensor in zip(model.inputs, inputs, strict=True)}
        for node in nodes_of(model):
            training = _is_in_training(node, is_training)
            if is_graph(node.operation):
                arguments = [tensors[id(symbol)] for symbol in _inputs_in_order(node)]
                outputs = self._add_calls(node.operation, arguments, training)
            else:
                arguments = [tensors[id(symbol)] for symbol in node.arguments.keras_tensors]
                outputs = [Tensor(tuple(symbol.shape), symbol.dtype) for symbol in node.outputs]
                call = Call(node.operation, arguments, outputs, node.arguments, self, training)
                self.calls.append(call)
                self._by_layer.setdefault(id(node.operation), []).append(call)
            tensors |= {id(symbol): tensor for symbol, tensor in zip(node.outputs, outputs, strict=True)}
        return [tensors[id(symbol)] for symbol in model.outputs]


def nodes_of(model: Any) -> Iterator[Any]:
    """Yield the nodes of a model's graph that compute something, in an order in which they can run."""
    graph = graph_of(model)
    for depth in sorted(nodes_by_depth(graph), reverse=True):
        yield from (node for node in nodes_by_depth(graph)[depth] if node.operation and not node.is_input)


def _is_in_training(node: Any, is_model_in_training: bool) -> bool:
    """Whether a call may run as in training: because its model does, or because of its own argument."""
    training = node.arguments.kwargs.get("training")  # Keras takes only tensors by position
    return is_model_in_training or not (training is None or training is False)  # a tensor may be true


def _inputs_in_order(node: Any) -> list[Any]:
    """Return the tensors that a nested model is called on, in the order of its inputs."""
    model, arguments = node.operation, node.arguments
    tensors = arguments.args[0] if arguments.args else arguments.kwargs.get("inputs")
    if isinstance(tensors, dict) and not isinstance(input_structure(graph_of(model)), dict):
        tensors = [tensors[operation_of(symbol).name] for symbol in model.inputs]
    tensors = keras.tree.flatten(tensors)
    if len(tensors) != len(model.inputs) or len(tensors) != len(arguments.keras_tensors):
        raise ValueError(
            f"The nested model {model.name!r} is called with a mask or another argument in addition to its inputs, "
            "which poise cannot follow. Pass the mask to the layers inside the model that use it."
        )
    return tensors


def graph_of(model: Any) -> Any:
    """Return the functional model inside a sequential model, or the functional model itself."""
    return functional_inside(model) if isinstance(model, keras.Sequential) else model


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model whose graph can be followed."""
    if getattr(type(layer), "call", None) not in GRAPH_CALLS:
        return False
    return not isinstance(layer, keras.Sequential) or (layer.built and functional_inside(layer) is not None)


def check_model(model: Any) -> None:
    """Raise TypeError or ValueError if a model has no graph that can be followed, or weights that cannot be cut."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a functional or sequential keras.Model, got {type(model).__name__}: {model!r}.")
    if isinstance(model, keras.Sequential) and not model.layers:
        raise ValueError(f"The model {model.name!r} has no layers, so there is nothing to remove.")
    if model.built and isinstance(model, keras.Sequential) and functional_inside(model) is None:
        raise ValueError(
            f"Keras has no graph of the model {model.name!r}, because the output shape of one of its layers is not "
            "known. Pass output_shape to a TorchModuleWrapper, define compute_output_shape in a custom layer, and "
            "start the model with keras.Input."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built and has no weights yet. Start it with keras.Input, or call it on "
            "data."
        )
    if not is_graph(model):
        raise TypeError(
            f"The model {model.name!r} is a {type(model).__name__} without a graph of layers, or with a custom call "
            "method, so poise cannot see which layers read a unit. Write it as a functional model, "
            "keras.Model(inputs, outputs)."
        )
    for layer in sublayers(model):
        if getattr(layer, "quantization_mode", None) is not None:
            raise ValueError(
                f"The layer {layer.name!r} is quantized ({layer.quantization_mode}), and quantized weights cannot be "
                "cut. Compact the model before you quantize it."
            )
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"The layer {layer.name!r} has LoRA weights in addition to its kernel. Save the weights of the model, "
                "which merges them, load them into a model without LoRA, and compact that model."
            )
