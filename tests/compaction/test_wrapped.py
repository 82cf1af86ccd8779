"""Layers around another library's function or module stay as they are, and the advice for them can be followed."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import poise

from .zeroing import assert_same, randomized, silent, widths


def around(wrapper) -> keras.Model:
    inputs = keras.Input((6,))
    hidden = layers.Dense(5, "relu", name="hidden")
    wide = layers.Dense(4, name="wide")
    model = randomized(keras.Model(inputs, layers.Dense(2)(hidden(wrapper(wide(inputs))))))
    silent(hidden, [1, 3])
    return model


def scaled(params, inputs) -> Any:
    return inputs * params["scale"] + params["shift"]


def jax_layer(**arguments) -> Any:
    return layers.JaxLayer(scaled, **arguments)


JAX_LAYERS = {
    "init_fn": lambda: jax_layer(init_fn=lambda rng, inputs: {"scale": np.full(4, 2.0), "shift": np.ones(4)}),
    "params": lambda: jax_layer(params={"scale": np.full(4, 2.0), "shift": np.ones(4)}),
    "lambda": lambda: layers.JaxLayer(lambda inputs: 2.0 * inputs),
}


@pytest.mark.parametrize("kind", JAX_LAYERS)
@pytest.mark.backends("jax")
def test_a_jax_layer_whose_functions_are_not_registered_stays(kind) -> None:
    model = around(JAX_LAYERS[kind]())

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["wide", "hidden"]) == [4, 3]


def module() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh())


@pytest.mark.backends("torch")
def test_a_torch_module_stays_with_its_buffers_and_is_a_copy() -> None:
    wrapped = module()
    model = around(layers.TorchModuleWrapper(wrapped, output_shape=(None, 4)))
    wrapped[1].running_mean += 0.5

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["wide", "hidden"]) == [4, 3]
    copied = next(layer for layer in smaller.layers if isinstance(layer, layers.TorchModuleWrapper)).module
    assert copied is not wrapped


@pytest.mark.backends("torch")
@pytest.mark.parametrize("function", [poise.compact, poise.dead_units, poise.unit_sparsity])
def test_a_model_without_a_graph_gets_a_clear_error(function) -> None:
    model = keras.Sequential([layers.TorchModuleWrapper(module())])
    model(ops.ones((3, 4)))

    with pytest.raises(
        ValueError, match="Keras has no graph of the model .* Pass output_shape to a TorchModuleWrapper"
    ):
        function(model)

    advised = keras.Sequential([keras.Input((4,)), layers.TorchModuleWrapper(module(), output_shape=(None, 4))])
    assert_same(advised, poise.compact(advised))
