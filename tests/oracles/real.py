"""Networks of the kinds that people train, one batch for each, and one step of plain SGD as the oracle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import applications, layers, ops

from . import models
from .autodiff import BACKEND

Array = np.ndarray

RATE = 0.5
PENALIZED = ("kernel", "recurrent_kernel", "embeddings", "lora_kernel_a", "lora_kernel_b")
"""How the variables that a bare penalty acts on are called."""


@dataclass(frozen=True)
class Real:
    """A network: what builds it, a batch, and how it is compiled."""

    build: Callable[[], keras.Model]
    x: Any
    y: Any
    settings: dict
    noise: float = 0.3
    """The standard deviation of what is added to its initial weights."""

    def compiled(self, optimizer: Any) -> keras.Model:
        """A new one, always with the same weights."""
        keras.utils.set_random_seed(0)
        model = self.build()
        random = np.random.default_rng(1)
        for variable in model.trainable_variables:
            variable.assign(ops.convert_to_numpy(variable) + self.noise * random.normal(size=variable.shape))
        return models.compiled(optimizer, model, **self.settings)

    def trained(self, optimizer: Any) -> keras.Model:
        """A new one after one step through the trainer."""
        return self.stepped(self.compiled(optimizer))

    def stepped(self, model: keras.Model) -> keras.Model:
        model.train_on_batch(self.x, self.y)
        return model


def values(model: keras.Model) -> dict[str, Array]:
    """By its path the value of every trained variable."""
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables}


def is_penalized(path: str) -> bool:
    return path.split("/")[-1] in PENALIZED


def _numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _tokens(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 6, size=shape).astype("int32")


def _transformer() -> keras.Model:
    """One block; the embedding gives the logits too."""
    tokens = keras.Input((6,), dtype="int32")
    words = layers.ReversibleEmbedding(12, 8, tie_weights=True, name="words")
    x = words(tokens)
    x = layers.LayerNormalization(name="first")(x + layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    inner = layers.Dense(16, "tanh", name="inner")(x)
    x = layers.LayerNormalization(name="second")(x + layers.Dense(8, name="outer")(inner))
    return keras.Model(tokens, words(x, reverse=True))


def _sequential(*of_layers: layers.Layer, shape: tuple[int, ...], **arguments: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape, **arguments), *of_layers], name="net")


def _two_outputs() -> keras.Model:
    x = keras.Input((6,))
    trunk = layers.Dense(5, "tanh", name="trunk")(x)
    return keras.Model(x, {name: layers.Dense(1, name=name)(trunk) for name in ("a", "b")})


def _shared() -> keras.Model:
    """One layer that sees both halves of the inputs."""
    x = keras.Input((6,))
    features = layers.Dense(5, "tanh", name="features")
    both = layers.Concatenate()([features(x[:, :3]), features(x[:, 3:])])
    return keras.Model(x, layers.Dense(1, name="head")(both))


def _cut_down() -> keras.Model:
    """A layer with LoRA weights, a quantized one, and one as usual."""
    model = _sequential(
        layers.Dense(5, "tanh", name="features"),
        layers.Dense(4, "tanh", name="middle"),
        layers.Dense(1, name="head"),
        shape=(6,),
    )
    model.get_layer("features").enable_lora(2)
    model.get_layer("middle").quantize("int8")
    return model


class Own(keras.Model):
    """Subclassed, with a step and a loss of its own, as each backend's guide writes it."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.features, self.head = layers.Dense(5, "tanh", name="features"), layers.Dense(1, name="head")

    def build(self, shape: Any) -> None:
        self.features.build((None, 6))
        self.head.build((None, 5))

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(self.features(x))

    def _loss(self, y: Any, predicted: Any) -> Any:
        return 3.0 * ops.mean(ops.abs(predicted - ops.convert_to_tensor(y)) ** 3)

    if BACKEND == "jax":

        def train_step(self, state: Any, data: Any) -> Any:  # pyright: ignore[reportRedeclaration]
            import jax

            trained, others, of_optimizer, of_metrics = state
            x, y, *_ = data

            def loss_at(trained: Any) -> Any:
                predicted, updated = self.stateless_call(trained, others, x, training=True)
                return self._loss(y, predicted), updated

            (loss, others), gradients = jax.value_and_grad(loss_at, has_aux=True)(trained)
            trained, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trained)
            return {"loss": loss}, (trained, others, of_optimizer, of_metrics)

    elif BACKEND == "tensorflow":

        def train_step(self, data: Any) -> Any:
            import tensorflow as tf

            x, y, *_ = data
            with tf.GradientTape() as tape:
                loss = self._loss(y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    else:

        def train_step(self, data: Any) -> Any:
            import torch

            x, y, *_ = data
            self.zero_grad()
            loss = self._loss(y, self(x, training=True))
            loss.backward()
            with torch.no_grad():
                self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
            return {"loss": loss}


def _own() -> keras.Model:
    model = Own()
    model.build((None, 6))
    model.built = True
    return model


_LOGITS = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
_TWO = {"loss": {"a": "mse", "b": "mae"}, "loss_weights": {"a": 1.0, "b": 0.5}}

REAL: dict[str, Real] = {
    "Transformer": Real(_transformer, _tokens(4, 6), _tokens(4, 6), _LOGITS),
    "LSTM": Real(
        lambda: _sequential(layers.LSTM(4, name="memory"), layers.Dense(1, name="head"), shape=(5, 3)),
        _numbers(4, 5, 3),
        _numbers(4, 1),
        {},
    ),
    "GRU": Real(
        lambda: _sequential(layers.GRU(4, name="memory"), layers.Dense(1, name="head"), shape=(5, 3)),
        _numbers(4, 5, 3),
        _numbers(4, 1),
        {},
    ),
    "sparse gradients": Real(
        lambda: _sequential(
            layers.Embedding(12, 4, name="words"),
            layers.Flatten(),
            layers.Dense(1, name="head"),
            shape=(3,),
            dtype="int32",
        ),
        _tokens(4, 3),
        _numbers(4, 1),
        {},
    ),
    "two outputs": Real(_two_outputs, _numbers(4, 6), {"a": _numbers(4, 1), "b": _numbers(4, 1, seed=1)}, _TWO),
    "shared layers": Real(_shared, _numbers(4, 6), _numbers(4, 1), {}),
    "LoRA and int8": Real(_cut_down, _numbers(4, 6), _numbers(4, 1), {}),
    "own train_step": Real(_own, _numbers(4, 6), _numbers(4, 1), {}),
}

_SMALL = {"weights": None, "input_shape": (32, 32, 3), "classes": 5, "classifier_activation": None}
CONVOLUTIONAL: dict[str, Real] = {
    name: Real(build, _numbers(4, 32, 32, 3), np.arange(4), _LOGITS, noise=0.05)
    for name, build in {
        "MobileNetV2": lambda: applications.MobileNetV2(alpha=0.35, **_SMALL),
        "ResNet50V2": lambda: applications.ResNet50V2(**_SMALL),
    }.items()
}
