"""The smaller model: the same layers with other sizes, and the weights that are kept."""

import copy
from typing import Any

import keras
import numpy as np

from poise._keras_internals import input_structure, operation_of, output_structure, without_tensorflow
from poise.compaction.analysis import UnitAnalysis
from poise.compaction.calls import Tensor
from poise.compaction.graph import is_graph, nodes_of
from poise.layer_state import copy_seeds, copy_state


@without_tensorflow()
def compact(model: keras.Model, *, tolerance: float = 0.0, drop_inputs: bool = False, multiple: int = 1) -> Any:
    """Create a smaller model with the same outputs by removing dead units.

    A unit is dead if all weights that read it are exactly zero, or if its value is the same for all data; the biases of
    the layers that read it then absorb that value. A unit that cannot be removed without changing an output stays, and
    `poise.dead_units(model)` shows why. The outputs of both models agree to rounding in inference mode (dropout off,
    moving statistics in normalization).

    Args:
        model: Built functional or sequential `keras.Model`. It is not changed.
        tolerance: Float >= 0. Weights of at most this absolute value count as zero; the outputs then differ by about
            as much. Default: 0.0.
        drop_inputs: Whether to also remove features of the inputs (along their last axis) that no layer reads.
            Default: False.
        multiple: Int >= 1. Keep some dead units where needed, so that each layer has a multiple of this number of
            units, or all of its original units. Layers whose width is not such a multiple can be slow on some hardware;
            8 works well for convolutions on a CPU. Default: 1.

    Returns:
        An uncompiled `keras.Model`, which does not depend on poise. With `drop_inputs=True`, a tuple `(model,
        features)`, where `features` is an int array of the positions of the features that the model takes, or a list
        of such arrays if the model has several inputs.

    Raises:
        TypeError: If the model has no graph of layers, or a layer that cannot be created from its configuration.
        ValueError: If the model is not built, has quantized layers, LoRA weights or an activation that has weights, if
            a nested model is called with a mask, or if `tolerance` or `multiple` is out of its range.

    References:
        Fang et al. 2023, "DepGraph: towards any structural pruning" (units that are removed together).

    Examples:
        >>> import poise, keras, numpy as np
        >>> hidden = keras.layers.Dense(4, activation="relu")
        >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1)])
        >>> hidden.set_weights([np.eye(3, 4), np.ones(4)])  # the fourth unit has no incoming weights
        >>> poise.compact(model).layers[0].units
        3
    """
    analysis = UnitAnalysis(model, tolerance, drop_inputs, multiple)
    smaller = _Rebuilder(analysis).model
    if not drop_inputs:
        return smaller
    features = [np.flatnonzero(analysis.stays(tensor.units)) for tensor in analysis.graph.inputs]
    return smaller, features[0] if len(features) == 1 else features


class _Rebuilder:
    """Rebuilds a model layer by layer.

    Attributes:
        model: Smaller model.
    """

    def __init__(self, analysis: UnitAnalysis) -> None:
        self._analysis = analysis
        self._layers: dict[int, keras.Operation] = {}
        self._initializers: list[tuple] = []
        self.model = self._rebuild_model(analysis.graph.model)
        for holder, name, value in self._initializers:
            setattr(holder, name, value)
        for layer in analysis.graph.layers:
            if isinstance(layer, keras.layers.Layer):
                self._copy_weights(layer, self._layers[id(layer)])

    def _rebuild_model(self, model: Any) -> keras.Model:
        """Rebuild the model or a nested model, on new inputs."""
        inputs = [
            self._input(symbol, tensor)
            for symbol, tensor in zip(model.inputs, self._analysis.graph.entered[id(model)][0], strict=True)
        ]
        config = {"name": model.name, "trainable": model.trainable}
        if isinstance(model, keras.Sequential):
            return keras.Sequential([*inputs, *map(self._counterpart, model.layers)], **config)
        tensors = dict(zip(map(id, model.inputs), inputs, strict=True))
        for node in nodes_of(model):
            args, kwargs = node.arguments.fill_in(tensors)
            if not is_graph(node.operation):
                call = self._analysis.graph.calls_of(node.operation)[0]
                args, kwargs = call.handler.resize_arguments(call, args, kwargs, self._analysis.stays)
            outputs: Any = self._counterpart(node.operation)(*args, **kwargs)
            tensors |= zip(map(id, node.outputs), keras.tree.flatten(outputs), strict=True)
        inputs = keras.tree.pack_sequence_as(input_structure(model), inputs)
        outputs = keras.tree.map_structure(lambda symbol: tensors[id(symbol)], output_structure(model))
        return keras.Model(inputs, outputs, **config)

    def _input(self, symbol: Any, tensor: Tensor) -> Any:
        """Create an input without the removed features."""
        shape = list(symbol.shape)
        if tensor.axis is not None:
            shape[tensor.axis] = self._analysis.count(tensor.units)
        layer = operation_of(symbol)
        return keras.Input(
            batch_shape=shape, dtype=symbol.dtype, sparse=symbol.sparse, name=layer.name, optional=layer.optional
        )

    def _counterpart(self, layer: Any) -> Any:
        """Return the layer of the smaller model in the place of a layer, the same for all of its calls."""
        if id(layer) not in self._layers:
            self._layers[id(layer)] = self._rebuild_model(layer) if is_graph(layer) else self._resize_layer(layer)
        return self._layers[id(layer)]

    def _resize_layer(self, layer: Any) -> Any:
        """Create the layer of the smaller model, with zeros for weights."""
        call = self._analysis.graph.calls_of(layer)[0]
        try:
            if type(layer) in WRAPPERS:
                other = WRAPPERS[type(layer)](layer)
            else:
                config = call.handler.resize_config(call, layer.get_config(), self._analysis.count)
                if config.get("use_bias") is False and any(
                    added.any() for added in self._analysis.bias_additions(call).values()
                ):
                    config["use_bias"] = True
                other = _layer_from_config(layer, config)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise TypeError(
                f"The layer {layer.name!r} ({type(layer).__name__}) cannot be created from its configuration: "
                f"{reason}. Define get_config and from_config in its class, and register the classes and functions "
                "that it holds with keras.saving.register_keras_serializable."
            ) from error
        for holder in (other, getattr(other, "cell", None)):
            for name, value in list(getattr(holder, "__dict__", {}).items()):
                if isinstance(value, keras.initializers.Initializer):
                    # Initial values are overwritten, and JAX compiles a program for every shape that it draws.
                    setattr(holder, name, keras.initializers.Zeros())
                    self._initializers.append((holder, name, value))
        return other

    def _copy_weights(self, layer: Any, other: Any) -> None:
        """Set the weights that are kept, and add the removed constants to the biases."""
        call = self._analysis.graph.calls_of(layer)[0]
        parts = call.handler.weight_parts(call)
        if not parts:
            copy_state(layer, other)
            return
        copy_seeds(layer, other)
        added = self._analysis.bias_additions(call)
        for part in parts:
            new, old = part.of(other), part.of(layer)
            if new is None:
                continue
            value = np.zeros(new.shape) if old is None else self._analysis.select(part, call.value(old, is_exact=True))
            new.assign((value + added.get(part.name, 0.0)).astype(keras.backend.standardize_dtype(new.dtype)))


def _copy_jax_layer(layer: Any) -> Any:
    """Create a JaxLayer of the same functions, which Keras finds by name only if they are registered."""
    kwargs = {"init_fn": layer.init_fn} if layer.init_fn else {"params": layer.params, "state": layer.state}
    kwargs = {name: keras.tree.map_structure(_to_numpy, value) for name, value in kwargs.items()}
    platforms = layer.jax2tf_native_serialization_platforms
    config = keras.layers.Layer.get_config(layer)
    return type(layer)(layer.call_fn, **kwargs, native_serialization_platforms=platforms, **config)


def _to_numpy(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value) if isinstance(value, keras.Variable) else value


def _copy_torch_module(layer: Any) -> Any:
    """Create a TorchModuleWrapper of a copy of the module, which Keras restores only from trusted files."""
    config = keras.layers.Layer.get_config(layer)
    return type(layer)(copy.deepcopy(layer.module), output_shape=layer.output_shape, **config)


WRAPPERS = {keras.layers.JaxLayer: _copy_jax_layer, keras.layers.TorchModuleWrapper: _copy_torch_module}
"""By layer type, how to copy a layer around a function or module of another library."""

OBJECT_SUFFIXES = ("activation", "_activation", "_initializer", "_regularizer", "_constraint")
"""Ends of the names of arguments that are functions or objects."""


def _layer_from_config(layer: Any, config: dict[str, Any]) -> Any:
    """Create a layer of the same class from a configuration, with the functions and objects of the layer itself.

    Functions and objects need not be registered with Keras.
    """
    # MultiHeadAttention has its activity regularizer under another name, and None under this one.
    attributes = {name: getattr(layer, name, None) for name in config if name.endswith(OBJECT_SUFFIXES)}
    objects = {name: value for name, value in attributes.items() if value is not None}
    if isinstance(layer, keras.layers.Lambda):
        other = type(layer).from_config(config, safe_mode=False)
        other.function = layer.function
        return other
    return type(layer).from_config({**config, **objects})
