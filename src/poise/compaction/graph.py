"""The graph of a Keras model, with nested models expanded."""

from collections.abc import Iterator
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
from poise.compaction.calls import Call, CallGraph, Tensor

GRAPH_CALLS = (Functional.call, keras.Sequential.call)
"""The `call` methods that run the graph and nothing else; a custom `call` may do something else."""


class Graph(CallGraph):
    """The calls of a Keras model in the order in which they run.

    Args:
        model: Built functional or sequential model.
        tolerance: Weights of at most this absolute value count as zero. Default: 0.

    Raises:
        TypeError: If `model` is not a Keras model, or has no graph of layers.
        ValueError: If the model is not built, or has a quantized layer or a layer with LoRA weights.
    """

    def __init__(self, model: Any, tolerance: float = 0.0) -> None:
        check_model(model)
        super().__init__(tolerance)
        self.model = model
        self.inputs = [Tensor(tuple(tensor.shape), tensor.dtype) for tensor in model.inputs]
        self.entered: dict[int, list[list[Tensor]]] = {}
        """Maps the id of this model or a nested one to the tensors of each of its calls."""
        self.outputs = self._add_calls(model, self.inputs, is_training=False)

    def name_of(self, layer: Any) -> str:
        return layer.name

    def has_weights(self, layer: Any) -> bool:
        return bool(getattr(layer, "weights", None))

    def input_names(self, call: Call) -> list[str | None]:
        named = [
            name
            for name, value in sorted(call.arguments.kwargs.items())
            for leaf in keras.tree.flatten(value)
            if isinstance(leaf, keras.KerasTensor)
        ]
        return [*[None] * (len(call.inputs) - len(named)), *named]

    def read_variable(self, variable: Any) -> np.ndarray:
        return keras.ops.convert_to_numpy(variable).astype("float64")

    def unknown_axis(self, shape: tuple[Any, ...]) -> int | None:
        return len(shape) - 1 if len(shape) > 1 and shape[-1] else None

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
                self.add_call(Call(node.operation, arguments, outputs, node.arguments, self, training))
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
