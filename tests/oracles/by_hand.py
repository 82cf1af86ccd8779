"""A training in NumPy, step by step: of a model whose prediction gradient does not depend on its weights.

The prediction is left(x) + right(x) and the loss the mean of y · prediction, so that the gradient of both kernels is
xᵀy/n and that of the bias the mean of y. With the data of `rows` these numbers are exact in half precision too.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

import poise

Array = np.ndarray
START = [
    np.array([[0.75], [-0.5], [0.25], [-0.125]]),
    np.array([[0.5], [1.0], [-0.25], [0.0625]]),
    np.array([0.5]),
]
"""Of the left kernel, the right kernel and the right bias."""


def side_by_side() -> keras.Model:
    x = keras.Input((4,))
    left = layers.Dense(1, use_bias=False, name="left")
    right = layers.Dense(1, name="right")
    model = keras.Model(x, layers.Add()([left(x), right(x)]), name="side_by_side")
    left.set_weights(START[:1])
    right.set_weights(START[1:])
    return model


def product(y: Any, predicted: Any) -> Any:
    return ops.mean(y * predicted)


def rules(l1: float, l2: float) -> list[poise.Rule]:
    return [poise.Rule("left/kernel", poise.L1(l1)), poise.Rule("right/kernel", poise.L2(l2))]


def rows(count: int, scale: float = 1.0) -> tuple[Array, Array]:
    """x (count, 4) and y (count, 1) of few binary digits."""
    random = np.random.default_rng(0)
    x = random.integers(-4, 5, size=(count, 4)) / 4.0
    y = scale * random.integers(-4, 5, size=(count, 1)) / 4.0
    return x.astype("float32"), y.astype("float32")


def gradients(x: Array, y: Array) -> list[Array]:
    kernel = x.T.astype("float64") @ y / len(x)
    return [kernel, kernel, y.mean(axis=0, dtype="float64")]


def soft_threshold(w: Array, by: float) -> Array:
    return np.sign(w) * np.maximum(np.abs(w) - by, 0.0)


class ByHand:
    """SGD with momentum and the two penalties of `rules`, in double precision."""

    def __init__(self, update: str, l1: float, l2: float, rate: float, momentum: float = 0.0) -> None:
        self.update, self.l1, self.l2, self.rate, self.momentum = update, l1, l2, rate, momentum
        self.weights = [w.copy() for w in START]
        self.speeds = [np.zeros(w.shape) for w in START]
        self.trace = 0.0

    def step(self, prediction: list[Array]) -> None:
        penalties = [*self.forces(), np.zeros(1)]
        shrink = self.rate * penalties[1] if self.update == "decoupled" else 0.0
        self.weights[1] = self.weights[1] - shrink
        for i, (gradient, penalty) in enumerate(zip(prediction, penalties, strict=True)):
            total = gradient + penalty if self.update == "coupled" else gradient
            self.speeds[i] = self.momentum * self.speeds[i] - self.rate * total
            self.weights[i] = self.weights[i] + self.speeds[i]
        self.trace = self.momentum * self.trace + self.rate
        if self.update == "decoupled":
            self.weights[0] = soft_threshold(self.weights[0], self.rate * self.l1)
        if self.update == "proximal":
            self.weights[0] = soft_threshold(self.weights[0], self.trace * self.l1)
            self.weights[1] = self.weights[1] / (1.0 + 2.0 * self.trace * self.l2)

    def forces(self) -> list[Array]:
        """The gradients of both penalties."""
        return [self.l1 * np.sign(self.weights[0]), 2.0 * self.l2 * self.weights[1]]

    def values(self) -> Array:
        return np.array([self.l1 * np.abs(self.weights[0]).sum(), self.l2 * np.square(self.weights[1]).sum()])

    def measured(self, prediction: list[Array]) -> Array:
        """‖∇prediction‖², ‖∇penalty‖² and their product for both penalties, (2, 3)."""
        pairs = zip(prediction[:2], self.forces(), strict=True)
        return np.array([[np.sum(g * g), np.sum(p * p), np.sum(g * p)] for g, p in pairs])
