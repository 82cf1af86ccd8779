"""Random functional models: a list of drawn steps, each of which takes tensors that are already there."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st
from keras import layers

from .zeroing import MAKES, READS, constant, silent, unread, width

CHANNELS = 4
RECURRENT = (layers.SimpleRNN, layers.GRU, layers.LSTM)
IMAGE, SEQUENCE, VECTOR = (4, 4, 2), (5, 3), (4,)
HEALTH_CHECKS: Any = list(HealthCheck)


class Step(NamedTuple):
    kind: str
    each: int
    other: int
    size: int


class Recipe(NamedTuple):
    """The steps, and the seed of the weights and of what is zeroed."""

    steps: Sequence[Step]
    seed: int


Maker = Callable[[Any, Any, int], Any]


def _conv(x: Any, y: Any, size: int) -> Any:
    fits = min(x.shape[1:3]) >= 3
    padding, activation = ("same", "valid")[size % 2 and fits], ("relu", None)[size // 2 % 2]
    return layers.Conv2D(CHANNELS, 3, padding=padding, activation=activation, use_bias=size % 3 > 0)(x)


def _merge(merge: type[layers.Layer]) -> Maker:
    """The sum (or so) of two tensors; where their sizes differ, of the first and a projection of it."""

    def make(x: Any, y: Any, size: int) -> Any:
        if x.shape != y.shape or x is y:
            units = x.shape[-1]
            y = layers.Conv2D(units, 1)(x) if len(x.shape) == 4 else layers.Dense(units, activation="tanh")(x)
        return merge()([x, y])

    return make


def _concatenate(x: Any, y: Any, size: int) -> Any:
    return layers.Concatenate()([x, y if x.shape[:-1] == y.shape[:-1] else x])


def _excited(x: Any, y: Any, size: int) -> Any:
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    squeezed = layers.Conv2D(2, 1, activation="relu")(squeezed)
    return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(squeezed)])


def _pooled(x: Any, y: Any, size: int) -> Any:
    if min(x.shape[1:3]) < 2:
        return layers.ReLU()(x)
    return (layers.MaxPooling2D, layers.AveragePooling2D)[size % 2](2)(x)


def _operate(x: Any, y: Any, size: int) -> Any:
    y = y if y.shape == x.shape else keras.ops.tanh(x)
    constant = np.linspace(0.5, 1.5, x.shape[-1], dtype="float32")
    ways = [
        lambda: x / (1.5 + keras.ops.tanh(y)),
        lambda: 1.0 - x,
        lambda: 1.0 / (2.0 + keras.ops.tanh(x)),
        lambda: (2.0 + keras.ops.tanh(x)) ** 2,
        lambda: keras.ops.where(x > y, x, 0.5 * y),
        lambda: keras.ops.cast(x > 0.0, "float32") * y,
        lambda: x * constant,
        lambda: x + keras.ops.convert_to_tensor(constant),
        lambda: x - keras.ops.mean(x, axis=tuple(range(len(x.shape) - 1))),
        lambda: layers.Dropout(0.3, seed=size)(x, training=True),
    ]
    return ways[size % len(ways)]()


ON_ALL: dict[str, Maker] = {
    "normalize": lambda x, y, size: layers.BatchNormalization(scale=size % 5 > 0, center=size % 3 > 0)(x),
    "activate": lambda x, y, size: layers.Activation(("relu", "tanh", "sigmoid", "gelu")[size % 4])(x),
    "add": _merge(layers.Add),
    "subtract": _merge(layers.Subtract),
    "multiply": _merge(layers.Multiply),
    "maximum": _merge(layers.Maximum),
    "average": _merge(layers.Average),
    "concatenate": _concatenate,
    "drop": lambda x, y, size: layers.Dropout(0.5)(x),
    "arithmetic": lambda x, y, size: 0.5 * x + keras.ops.relu(x),
    "operate": _operate,
    "scale": lambda x, y, size: x * keras.ops.sqrt(keras.ops.cast(1 + size, "float32")),
}
ON_VECTORS = ON_ALL | {
    "dense": lambda x, y, size: layers.Dense(CHANNELS, ("relu", "tanh", None)[size % 3])(x),
    "dense without bias": lambda x, y, size: layers.Dense(CHANNELS, use_bias=False)(x),
    "layer normalize": lambda x, y, size: layers.LayerNormalization()(x),
    "flatten": lambda x, y, size: layers.Flatten()(x),
}
ON_IMAGES = ON_ALL | {
    "conv": _conv,
    "conv again": _conv,
    "pool": _pooled,
    "depthwise": lambda x, y, size: layers.DepthwiseConv2D(
        min(x.shape[1], 3), padding=("same", "valid")[size % 2], depth_multiplier=1 + (size % 5 == 0)
    )(x),
    "excite": _excited,
    "pad": lambda x, y, size: layers.ZeroPadding2D(1)(x) if x.shape[1] < 5 else layers.Cropping2D(1)(x),
}
ON_SEQUENCES = ON_ALL | {
    "conv": lambda x, y, size: layers.Conv1D(CHANNELS, 3, padding=("same", "causal")[size % 2])(x),
    "dense": lambda x, y, size: layers.Dense(CHANNELS, "relu")(x),
    "recur": lambda x, y, size: RECURRENT[size % 3](CHANNELS, return_sequences=True)(x),
    "attend": lambda x, y, size: layers.MultiHeadAttention(2, 2)(x, y if len(x.shape) == len(y.shape) else x),
}
KINDS = {IMAGE: ON_IMAGES, SEQUENCE: ON_SEQUENCES, VECTOR: ON_VECTORS}


def recipes(shape: tuple[int, ...]) -> st.SearchStrategy[Recipe]:
    number = st.integers(0, 29)
    step = st.builds(Step, st.sampled_from(sorted(KINDS[shape])), number, number, number)
    return st.builds(Recipe, st.lists(step, min_size=4, max_size=9), st.integers(0, 2**16))


def built(shape: tuple[int, ...], recipe: Recipe) -> keras.Model:
    """Two dense heads read the last tensor, and one of them a tensor from the middle besides."""
    inputs = keras.Input(shape)
    first = {IMAGE: layers.Conv2D(4, 1), SEQUENCE: layers.Conv1D(4, 1), VECTOR: layers.Dense(4)}[shape]
    tensors = [first(inputs)]
    for kind, each, other, size in recipe.steps:
        x, y = tensors[-1 - min(each % 8, len(tensors) - 1) // 3], tensors[other % len(tensors)]
        tensors.append(KINDS[shape][kind](x, y, size))
    flat = [_flattened(tensors[-1], recipe.seed), _flattened(tensors[len(tensors) // 2], recipe.seed // 2)]
    heads = [layers.Dense(2)(flat[0]), layers.Dense(3)(layers.Concatenate()(flat))]
    return keras.Model(inputs, heads)


def _flattened(x: Any, seed: int) -> Any:
    if len(x.shape) == 4 and seed % 3:
        return (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)[seed % 3 - 1]()(x)
    return layers.Flatten()(x)


def kill_at_random(model: keras.Model, seed: int) -> None:
    """The same two channels in four die in most layers, so that sums lose them; now and then another dies alone."""
    random = np.random.default_rng(seed)
    common = random.choice(CHANNELS, size=2, replace=False).tolist()
    heads = {operation.name for operation in _makers_of(model.outputs)}
    for layer in model.layers:
        if isinstance(layer, tuple(MAKES)) and layer.name not in heads:
            _kill(random, layer, common)
        if isinstance(layer, tuple(READS)) and random.random() < 0.85:
            count = layer.input.shape[-1]
            unread(layer, [position for position in range(count) if position % CHANNELS in common])


def _kill(random: np.random.Generator, layer: layers.Layer, common: list[int]) -> None:
    if isinstance(layer, layers.BatchNormalization) and layer.gamma is None:
        return
    units = width(layer)
    chosen = [unit for unit in range(units) if unit % CHANNELS in common] if random.random() < 0.9 else []
    if random.random() < 0.3:
        chosen.append(int(random.integers(units)))
    recurs = isinstance(layer, layers.RNN)
    if chosen and random.random() < 0.7:
        (silent if recurs or random.random() < 0.5 else constant)(layer, sorted(set(chosen)))


def _makers_of(tensors: Sequence[Any]) -> list[Any]:
    return [tensor._keras_history.operation for tensor in tensors]
