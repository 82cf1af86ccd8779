"""The smaller model: the same layers with other sizes, and the weights that stay."""

import copy

import keras
import numpy as np

from poise.compaction.analysis import Findings
from poise.compaction.graph import is_graph, nodes_of
from poise.compaction.handlers import Part
from poise.layer_state import copy_seeds, copy_state


def compact(model, *, tolerance: float = 0.0, drop_inputs: bool = False, multiple: int = 1):
    """A smaller model with the same outputs: without the units that are dead.

    A unit is dead if all weights by which others read it are exactly zero, or if it is the same for all data: its value
    is then folded into the biases of those that read it. What cannot be removed without changing an output stays;
    `poise.dead_units(model)` says why. The outputs are those with dropout off and the moving statistics of
    normalization; they agree to rounding.

    Args:
        model: a built functional or sequential Keras model; it is left as it is.
        tolerance: weights whose size is at most this count as zero; the outputs then agree about as well.
        drop_inputs: whether features of the inputs (along their last axis) that nobody reads are removed too.
        multiple: keep so many dead units that every layer makes a multiple of this number, or all that it made.
            Hardware is often slow on other widths: 8 is a good number for convolutions on a CPU.

    Returns:
        A Keras model that needs nothing of poise, not compiled. With `drop_inputs` a pair of it and the positions of
        the features that it takes, an array, or a list of arrays if the model has several inputs.

    Raises:
        TypeError: if the model has no graph of layers, or a layer that cannot be made anew from its configuration.
        ValueError: if it is not built, has quantized layers, LoRA weights or an activation with weights of its own, if
            a model inside is called with a mask, if `tolerance` is no number ≥ 0, or `multiple` no whole number ≥ 1.

    References:
        Fang et al. 2023, "DepGraph: towards any structural pruning" (units that go together).

    Example:
        >>> import poise, keras, numpy as np
        >>> hidden = keras.layers.Dense(4, activation="relu")
        >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1)])
        >>> hidden.set_weights([np.eye(3, 4), np.ones(4)])  # the fourth unit has no incoming weights
        >>> poise.compact(model).layers[0].units
        3
    """
    findings = Findings(model, tolerance, drop_inputs, multiple)
    smaller = _Rebuilt(findings).model
    if not drop_inputs:
        return smaller
    needed = [np.flatnonzero(findings.stays(tensor.units)) for tensor in findings.graph.inputs]
    return smaller, needed[0] if len(needed) == 1 else needed


class _Rebuilt:
    """The model anew, layer by layer.

    Attributes:
        model: the smaller model.
    """

    def __init__(self, findings: Findings):
        self._findings = findings
        self._layers: dict[int, keras.Operation] = {}
        self._initializers: list[tuple] = []
        self.model = self._anew(findings.graph.model)
        for holder, name, value in self._initializers:
            setattr(holder, name, value)
        for layer in findings.graph.layers:
            if isinstance(layer, keras.layers.Layer):
                self._fill(layer, self._layers[id(layer)])

    def _anew(self, model):
        """A model on inputs of its own."""
        inputs = [
            self._input(symbol, tensor)
            for symbol, tensor in zip(model.inputs, self._findings.graph.entered[id(model)][0], strict=True)
        ]
        about = {"name": model.name, "trainable": model.trainable}
        if isinstance(model, keras.Sequential):
            return keras.Sequential([*inputs, *map(self._other, model.layers)], **about)
        found = {id(symbol): one for symbol, one in zip(model.inputs, inputs, strict=True)}
        for node in nodes_of(model):
            args, kwargs = node.arguments.fill_in(found)
            made = self._other(node.operation)(*args, **kwargs)
            found |= {id(symbol): one for symbol, one in zip(node.outputs, keras.tree.flatten(made), strict=True)}
        taken = keras.tree.pack_sequence_as(model._inputs_struct, inputs)
        given = keras.tree.map_structure(lambda symbol: found[id(symbol)], model._outputs_struct)
        return keras.Model(taken, given, **about)

    def _input(self, symbol, tensor):
        shape = list(symbol.shape)
        if tensor.axis is not None:
            shape[tensor.axis] = self._findings.count(tensor.units)
        name = symbol._keras_history.operation.name
        is_optional = symbol._keras_history.operation.optional
        return keras.Input(batch_shape=shape, dtype=symbol.dtype, sparse=symbol.sparse, name=name, optional=is_optional)

    def _other(self, layer):
        """The layer in the place of another one, the same for all its calls."""
        if id(layer) not in self._layers:
            self._layers[id(layer)] = self._anew(layer) if is_graph(layer) else self._resized(layer)
        return self._layers[id(layer)]

    def _resized(self, layer):
        call = self._findings.graph.calls_of(layer)[0]
        try:
            if type(layer) in REMADE:
                other = REMADE[type(layer)](layer)
            else:
                config = call.kind.resized(call, layer.get_config(), self._findings.count)
                if config.get("use_bias") is False and any(added.any() for added in self._added(call).values()):
                    config["use_bias"] = True
                other = _of_config(layer, config)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise TypeError(
                f"The layer {layer.name!r} ({type(layer).__name__}) cannot be made anew from its configuration: "
                f"{reason}. Give its class a get_config and a from_config that restore it, and register the classes "
                "and functions that it holds with keras.saving.register_keras_serializable."
            ) from error
        for holder in (other, getattr(other, "cell", None)):
            for name, value in list(getattr(holder, "__dict__", {}).items()):
                if isinstance(value, keras.initializers.Initializer):
                    # What is drawn would be overwritten, and JAX compiles a program for every shape that is drawn.
                    setattr(holder, name, keras.initializers.Zeros())
                    self._initializers.append((holder, name, value))
        return other

    def _fill(self, layer, other):
        """Gives a layer the weights that stay, and its biases the constants that went."""
        call = self._findings.graph.calls_of(layer)[0]
        parts = call.kind.parts(call)
        if not parts:
            copy_state(layer, other)
            return
        copy_seeds(layer, other)
        added = self._added(call)
        for part in parts:
            new, old = part.of(other), part.of(layer)
            if new is None:
                continue
            value = np.zeros(new.shape) if old is None else self._cut(part, call.value(old, is_exact=True))
            new.assign((value + added.get(part.name, 0.0)).astype(keras.backend.standardize_dtype(new.dtype)))

    def _added(self, call) -> dict[str, np.ndarray]:
        """By the name of a bias what it takes in."""
        added = call.kind.folded(call, self._findings.stays)
        return {part.name: self._cut(part, added[part.name]) for part in call.kind.parts(call) if part.name in added}

    def _cut(self, part: Part, value: np.ndarray) -> np.ndarray:
        for along in (part.reads, part.makes):
            if along is not None:
                value = np.compress(self._findings.stays(along[1]), value, axis=along[0])
        return value


def _jax_layer(layer):
    """A JaxLayer of the same functions, which Keras finds again only if they are registered."""
    given = {"init_fn": layer.init_fn} if layer.init_fn else {"params": layer.params, "state": layer.state}
    given = {name: keras.tree.map_structure(_value, one) for name, one in given.items()}
    platforms = layer.jax2tf_native_serialization_platforms
    config = keras.layers.Layer.get_config(layer)
    return type(layer)(layer.call_fn, **given, native_serialization_platforms=platforms, **config)


def _value(one):
    return keras.ops.convert_to_numpy(one) if isinstance(one, keras.Variable) else one


def _torch_module(layer):
    """A TorchModuleWrapper of a copy of the module, which Keras restores only where code in files is trusted."""
    config = keras.layers.Layer.get_config(layer)
    return type(layer)(copy.deepcopy(layer.module), output_shape=layer.output_shape, **config)


REMADE = {keras.layers.JaxLayer: _jax_layer, keras.layers.TorchModuleWrapper: _torch_module}
"""Layers around a function or module of another library: what they hold is given to the new layer as it is."""

OBJECTS = ("activation", "_activation", "_initializer", "_regularizer", "_constraint")


def _of_config(layer, config: dict):
    """A layer of the same class with this configuration, but with the functions and objects that the layer has.

    Those need not be known to Keras, nor survive its serialization.
    """
    # An attention keeps its regularizer of activities under another name, and has None under this one.
    named = {name: getattr(layer, name, None) for name in config if name.endswith(OBJECTS)}
    own = {name: value for name, value in named.items() if value is not None}
    if isinstance(layer, keras.layers.Lambda):
        other = type(layer).from_config(config, safe_mode=False)
        other.function = layer.function
        return other
    return type(layer).from_config({**config, **own})
