"""Small models and tables that the tests train on, and training by hand on each backend."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from sklearn import datasets

from .autodiff import BACKEND

Array = np.ndarray


@cache
def diabetes() -> tuple[Array, Array]:
    """x (442, 10) and y (442,), standardized."""
    x, y = map(np.asarray, datasets.load_diabetes(return_X_y=True, scaled=False))
    return _standard(x, y)


@cache
def breast_cancer() -> tuple[Array, Array]:
    """x (569, 30) standardized, y (569,) of 0 and 1."""
    x, y = map(np.asarray, datasets.load_breast_cancer(return_X_y=True))
    return _standard(x, y)[0], y.astype("float32")


def _standard(x: Array, y: Array) -> tuple[Array, Array]:
    x, y = (((a - a.mean(0)) / a.std(0)).astype("float32") for a in (x, y))
    return x, y


def table(rows: int, inputs: int = 6, seed: int = 0) -> tuple[Array, Array]:
    """x (rows, inputs) and y (rows, 1), a noisy linear function of it."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, inputs)).astype("float32")
    y = x @ random.normal(size=(inputs, 1)) + 0.5 * random.normal(size=(rows, 1)) + 0.3
    return x, y.astype("float32")


def linear(inputs: int, activation: str | None = None) -> keras.Model:
    """Dense(1), its weights zero."""
    dense = layers.Dense(1, activation=activation, kernel_initializer="zeros", name="head")
    return keras.Sequential([keras.Input((inputs,)), dense], name="linear")


def net(inputs: int = 6, seed: int = 1, **of_layers: Any) -> keras.Model:
    """Dense layers `features` and `head`, with the same weights for the same seed.

    `of_layers` are arguments of the layers; a dictionary gives each layer its own by name.
    """

    def dense(units: int, name: str) -> layers.Layer:
        own = {key: v[name] if isinstance(v, dict) else v for key, v in of_layers.items()}
        return layers.Dense(units, activation="linear" if name == "head" else "tanh", name=name, **own)

    model = keras.Sequential([keras.Input((inputs,)), dense(5, "features"), dense(1, "head")], name="net")
    random = np.random.default_rng(seed)
    model.set_weights([0.5 * random.normal(size=w.shape) for w in model.get_weights()])
    return model


@keras.saving.register_keras_serializable("poise-oracles")
class Block(layers.Layer):
    """Sub-layers without names of their own, as the transformer examples of keras.io have them."""

    def __init__(self, size: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.size = size
        self.up = layers.Dense(2 * size, activation="tanh")
        self.down = layers.Dense(size)

    def build(self, shape: Any) -> None:
        self.up.build(shape)
        self.down.build((*shape[:-1], 2 * self.size))

    def call(self, x: Any) -> Any:
        return x + self.down(self.up(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


def compiled(optimizer: Any, model: keras.Model | None = None, **settings: Any) -> keras.Model:
    """The model (by default `net()`) compiled with mean squares; XLA only where Keras is slow without it."""
    model = net() if model is None else model
    assert model is not None
    model.compile(optimizer, **{"loss": "mse", "jit_compile": BACKEND == "jax", **settings})
    return model


def fitted(model: keras.Model, epochs: int = 10, rows: int = 40, batch_size: int = 16, **arguments: Any) -> keras.Model:
    """The model after so many epochs in a fixed order of rows (by default 3 steps each; the last batch is short)."""
    x, y = table(rows, model.input_shape[-1])
    model.fit(x, y, batch_size, epochs, **{"verbose": 0, "shuffle": False, **arguments})
    return model


def batches(epochs: int = 10, rows: int = 40, batch_size: int = 16) -> list[tuple[Array, Array]]:
    """The batches that `fitted` trains on, in its order."""
    x, y = table(rows)
    one_epoch = [(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, rows, batch_size)]
    return one_epoch * epochs


def weights(model: keras.Model) -> list[Array]:
    return [np.array(w) for w in model.get_weights()]


def assert_same_weights(model: Any, other: Any, relative: float = 1e-5) -> None:
    """No weight differs by more than `relative` of the largest weight of its variable."""
    actual, expected = (m if isinstance(m, list) else weights(m) for m in (model, other))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=relative * max(float(np.abs(b).max()), 1e-3))


def train_by_hand(model: keras.Model, optimizer: Any, batches: Sequence[tuple[Array, Array]]) -> None:
    """One step for every batch on mean squares, in the hand-written loop of each backend's own guide."""
    variables = model.trainable_variables
    if BACKEND == "jax":
        _train_by_hand_in_jax(model, optimizer, batches)
        return
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function
        def step(x: Any, y: Any) -> None:
            with tf.GradientTape() as tape:
                loss = ops.mean(ops.square(model(x, training=True) - y))
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

        for x, y in batches:
            step(tf.constant(x), tf.constant(y))
        return
    for x, y in batches:
        model.zero_grad()
        loss = ops.mean(ops.square(model(x, training=True) - ops.convert_to_tensor(y)))
        loss.backward()
        optimizer.apply([variable.value.grad for variable in variables], variables)


def _train_by_hand_in_jax(model: keras.Model, optimizer: Any, batches: Sequence[tuple[Array, Array]]) -> None:
    import jax

    variables, others = model.trainable_variables, [v.value for v in model.non_trainable_variables]
    optimizer.build(variables)

    def loss_at(trained: list, x: Any, y: Any) -> Any:
        predicted, _ = model.stateless_call(trained, others, x, training=True)
        return ops.mean(ops.square(predicted - y))

    @jax.jit
    def step(trained: list, state: list, x: Any, y: Any) -> Any:
        _, gradients = jax.value_and_grad(loss_at)(trained, x, y)
        return optimizer.stateless_apply(state, gradients, trained)

    trained, state = [v.value for v in variables], [v.value for v in optimizer.variables]
    for x, y in batches:
        trained, state = step(trained, state, x, y)
    _assign(variables, trained)
    _assign(optimizer.variables, state)


def counted_traces(model: keras.Model) -> list[int]:
    """A list that grows by one whenever the training step of the model is traced (on PyTorch: run).

    The optimizer is built here: Keras on TensorFlow does that in the first trace, and then traces once more.
    """
    model.optimizer.build(model.trainable_variables)
    step, traces = model.train_step, []

    def counted(*arguments: Any) -> Any:
        traces.append(1)
        return step(*arguments)

    model.train_step = counted
    return traces


def descend(model: keras.Model, optimizer: Any, gradients: Callable[[list], list], steps: int) -> None:
    """Many full-batch steps, fast: one compiled loop on JAX and TensorFlow, a plain one on PyTorch.

    `gradients` takes the tensors of model.trainable_variables and returns their gradients, in closed form.
    """
    variables = model.trainable_variables
    optimizer.build(variables)
    if BACKEND == "jax":
        import jax

        def body(_: Any, carried: Any) -> Any:
            trained, state = carried
            return optimizer.stateless_apply(state, gradients(trained), trained)

        start = [v.value for v in variables], [v.value for v in optimizer.variables]
        trained, state = jax.jit(lambda c: jax.lax.fori_loop(0, steps, body, c))(start)
        _assign(variables, trained)
        _assign(optimizer.variables, state)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function
        def loop() -> None:
            for _ in tf.range(steps):
                optimizer.apply(gradients([ops.convert_to_tensor(v) for v in variables]), variables)

        loop()
    else:
        import torch

        torch.set_num_threads(1)  # on tensors this small threads wait longer than they work
        with torch.no_grad():
            for _ in range(steps):
                optimizer.apply(gradients([v.value for v in variables]), variables)


def mean_squares(x: Array, y: Array) -> Callable[[list], list]:
    """∇ of mean (xw + b − y)² by (w, b)."""
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(np.reshape(y, (len(x), -1)))

    def gradients(trained: list) -> list:
        w, b = trained
        away = (2.0 / x.shape[0]) * (x @ w + b - y)
        return [ops.transpose(x) @ away, ops.sum(away, axis=0)]

    return gradients


def mean_log_loss(x: Array, y: Array) -> Callable[[list], list]:
    """∇ of the mean logistic loss of xw + b by (w, b)."""
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(np.reshape(y, (len(x), 1)))

    def gradients(trained: list) -> list:
        w, b = trained
        away = (ops.sigmoid(x @ w + b) - y) / x.shape[0]
        return [ops.transpose(x) @ away, ops.sum(away, axis=0)]

    return gradients


def _assign(variables: Sequence[keras.Variable], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
