"""The network that a study trains."""

import importlib
from collections.abc import Callable, Sequence

import keras
import numpy as np

from poise.path.models import check_model
from poise.study.errors import DataError, count_noun
from poise.study.tasks.base import Task

ModelFunction = Callable[[int, int], keras.Model]


def build_start(
    task: Task,
    inputs: int,
    classes: int,
    y: np.ndarray,
    weight: np.ndarray | None,
    hidden: Sequence[int],
    learning_rate: float,
    model: str | ModelFunction | None = None,
    hidden_inputs: np.ndarray | None = None,
) -> keras.Model:
    """Return the compiled network from which every training starts, by `build_network` or a custom function.

    Args:
        task: The task.
        inputs: The number of inputs.
        classes: The number of classes; 0 if there are none.
        y: The targets of all training rows, as the network takes them.
        weight: (rows,) sample weights, or `None`.
        hidden: The units of each hidden layer.
        learning_rate: Adam's learning rate, unless a custom model is compiled.
        model: A custom model, as for `poise.run_study`. Default: `None`.
        hidden_inputs: As for `build_network`. Default: `None`.

    Raises:
        DataError: If the custom model cannot be used.
    """
    outputs = task.count_outputs(classes)
    if model is None:
        network = build_network(inputs, outputs, hidden, task, hidden_inputs)
        network.get_layer("output").bias.assign(task.initial_bias(y, outputs, weight))
    else:
        network = _build_custom(model, inputs, outputs)
    optimizer = getattr(network, "optimizer", None) or keras.optimizers.Adam(learning_rate)
    network.compile(optimizer=optimizer, loss=task.make_loss())
    try:
        check_model(network)
    except ValueError as error:
        raise DataError(f"The model {network.name!r} cannot be trained on a path. {error}", "model") from None
    return network


def build_network(
    inputs: int, outputs: int, hidden: Sequence[int], task: Task, hidden_inputs: np.ndarray | None = None
) -> keras.Model:
    """Return dense ReLU layers and an output layer.

    Args:
        inputs: The number of inputs.
        outputs: The number of outputs.
        hidden: The units of each hidden layer.
        task: The task, which has the activation of the output.
        hidden_inputs: The positions of the inputs that the hidden layers read. The outputs are then the sum of theirs
            and of a linear skip connection from all inputs, the layer `curves`: with a piecewise-linear encoding, a
            curve of every column. Default: `None`, for hidden layers that read all inputs, and no skip connection.
    """
    layers = [
        keras.layers.Dense(units, activation="relu", kernel_initializer="glorot_normal", name=f"hidden_{number}")
        for number, units in enumerate(hidden, 1)
    ]
    start = keras.Input((inputs,), name="inputs")
    if hidden_inputs is None or not hidden:
        last = keras.layers.Dense(
            outputs, activation=task.make_activation(), kernel_initializer="glorot_normal", name="output"
        )
        return keras.Sequential([start, *layers, last], name="network")
    x = keras.ops.take(start, np.asarray(hidden_inputs).tolist(), axis=1)
    for layer in layers:
        x = layer(x)
    last = keras.layers.Dense(outputs, kernel_initializer="glorot_normal", name="output")
    curves = keras.layers.Dense(outputs, use_bias=False, kernel_initializer="zeros", name="curves")
    x = keras.layers.Add(name="sum")([last(x), curves(start)])
    activation = task.make_activation()
    if activation is not None:
        x = keras.layers.Activation(activation, name="mean")(x)
    return keras.Model(start, x, name="network")


def _build_custom(model: str | ModelFunction, inputs: int, outputs: int) -> keras.Model:
    function = _import_function(model) if isinstance(model, str) else model
    network = function(inputs, outputs)
    if not isinstance(network, keras.Model) or not network.built:
        raise DataError(
            f"The model function must return a built Keras model, got {type(network).__name__} for {inputs} inputs and "
            f"{outputs} outputs. Start it with keras.Input, such as keras.Sequential([keras.Input((inputs,)), ...]).",
            "model",
        )
    if tuple(network.output_shape) != (None, outputs):
        raise DataError(
            f"The model's outputs must have shape (None, {outputs}) for this task, got {network.output_shape}. Make "
            f"the last layer return {count_noun(outputs, 'number')} per row.",
            "model",
        )
    return network


def _import_function(place: str) -> ModelFunction:
    module, colon, name = place.partition(":")
    try:
        if not colon:
            raise ImportError("it has no colon")
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"The model {place!r} cannot be imported: {error}. Write it as MODULE:FUNCTION, with the module in the "
            "current folder or on PYTHONPATH.",
            "model",
        ) from None
