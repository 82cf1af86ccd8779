"""Groups across variables, and their references: a step of a two-layer net in NumPy, and FISTA on one design."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

import poise

from . import prox

Array = np.ndarray

UNITS = 5
"""Hidden units of `models.net()`."""


def units_of(model: keras.Model, strength: Any = 1.0, **arguments: Any) -> poise.JointGroupLasso:
    """A group for each hidden unit of `net()`: its column of the first kernel, its bias, its row of the second."""
    kernel, bias, following, _ = model.trainable_variables
    every = list(range(UNITS))
    members = {
        kernel.path: (tuple(kernel.shape), 1, every),
        bias.path: (tuple(bias.shape), 0, every),
        following.path: (tuple(following.shape), 0, every),
    }
    return poise.JointGroupLasso(strength, members, **arguments)


def flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([np.asarray(a, "float64").reshape(-1) for a in arrays])


def unflat(vector: Array, like: Sequence[Array]) -> list[Array]:
    parts = np.split(vector, np.cumsum([a.size for a in like])[:-1])
    return [part.reshape(a.shape) for part, a in zip(parts, like, strict=True)]


def unit_labels(inputs: int) -> Array:
    """The unit of every entry of the three members of `units_of`, one after the other."""
    every = np.arange(UNITS)
    return np.concatenate([np.tile(every, inputs), every, every])


def gradients(weights: Sequence[Array], x: Array, y: Array) -> list[Array]:
    """∇ of the mean squares of `net()`, tanh(xW + b)V + c, in float64."""
    w, b, v, c = weights
    hidden = np.tanh(x @ w + b)
    away = 2.0 * (hidden @ v + c - y) / len(x)
    inner = (away @ v.T) * (1.0 - hidden**2)
    return [x.T @ inner, inner.sum(0), hidden.T @ away, away.sum(0)]


class ByHand:
    """`PenalizedOptimizer` with a JointGroupLasso over the units of `net()`, once more in NumPy.

    Args:
        kind: "SGD", "Adam" or "RMSprop" (with momentum 0.5), Keras' defaults but for the rate.
        rate: the learning rate.
        update: as in `PenalizedOptimizer`.
        strength: of the penalty; its factors are √(entries of a unit).
    """

    def __init__(self, kind: str, rate: float, update: str, strength: float) -> None:
        self.kind, self.rate, self.update, self.strength = kind, rate, update, strength
        self.count, self.first, self.second, self.trace = 0, 0.0, 0.0, 0.0

    def step(self, weights: Sequence[Array], x: Array, y: Array) -> list[Array]:
        labels = unit_labels(len(weights[0]))
        factors = np.sqrt(np.bincount(labels))
        g, w = flat(gradients(weights, x, y)), flat(weights)
        inside = slice(len(labels))  # all but the last bias
        if self.update == "coupled":
            norms = np.sqrt(np.bincount(labels, w[inside] ** 2))
            g[inside] += self.strength * (factors / norms)[labels] * w[inside]
        move, h = self._inner(g)
        w = w - move
        if self.update != "coupled":
            step = h[inside] if self.update == "proximal" else np.full(len(labels), self.rate)
            w[inside] = prox.grouped(w[inside], step, self.strength, labels, factors)
        return unflat(w, weights)

    def _inner(self, g: Array) -> tuple[Array, Array]:
        """How far the inner optimizer moves, and its step per coordinate."""
        self.count += 1
        if self.kind == "SGD":
            return self.rate * g, np.full(g.shape, self.rate)
        if self.kind == "Adam":
            self.first = 0.9 * self.first + 0.1 * g
            self.second = 0.999 * self.second + 0.001 * g**2
            root = np.sqrt(1.0 - 0.999**self.count)
            scale = self.rate / (np.sqrt(self.second) + 1e-7)
            return scale * root / (1.0 - 0.9**self.count) * self.first, scale * root
        self.second = 0.9 * self.second + 0.1 * g**2
        h = self.rate / np.sqrt(self.second + 1e-7)
        self.first, self.trace = 0.5 * self.first + h * g, 0.5 * self.trace + h
        return self.first, self.trace


def two_inputs(inputs: int) -> keras.Model:
    """Dense(1) of one input plus Dense(1) of another, all weights zero."""
    tensors = [keras.Input((inputs,), name=name) for name in "ab"]
    heads = [
        layers.Dense(1, kernel_initializer="zeros", use_bias=name == "a", name=f"head_{name}")(tensor)
        for name, tensor in zip("ab", tensors, strict=True)
    ]
    return keras.Model(tensors, layers.Add()(heads), name="two")


def pairs_of(model: keras.Model, strength: float = 1.0, **arguments: Any) -> poise.JointGroupLasso:
    """Column j of both inputs of `two_inputs` as group j."""
    kernels = [variable for variable in model.trainable_variables if variable.name == "kernel"]
    members = {kernel.path: (tuple(kernel.shape), 0, list(range(kernel.shape[0]))) for kernel in kernels}
    return poise.JointGroupLasso(strength, members, **arguments)


def paired_table(rows: int = 80, inputs: int = 6, seed: int = 0) -> tuple[Array, Array, Array]:
    """Two designs (rows, inputs) and y (rows, 1), of which the first two pairs of columns tell."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, rows, inputs))
    y = a[:, :1] - 0.5 * b[:, :1] + 0.6 * b[:, 1:2] + 0.5 * random.normal(size=(rows, 1)) + 0.3
    return a.astype("float32"), b.astype("float32"), y.astype("float32")


def group_lasso(a: Array, b: Array, y: Array, strength: float, steps: int = 3000) -> tuple[Array, float]:
    """min mean (aw₁ + bw₂ + c − y)² + s√2 Σ_j ‖(w₁ⱼ, w₂ⱼ)‖ by FISTA (Beck and Teboulle 2009), in float64.

    Returns (2, inputs) and c.
    """
    design = np.concatenate([a, b], axis=1).astype("float64")
    center, mean = design.mean(0), float(y.mean())
    design, away = design - center, y[:, 0].astype("float64") - mean
    step = len(y) / (2.0 * np.linalg.norm(design, 2) ** 2)
    w = ahead = np.zeros(design.shape[1])
    t = 1.0
    for _ in range(steps):
        moved = (ahead - step * 2.0 * design.T @ (design @ ahead - away) / len(y)).reshape(2, -1)
        lengths = np.linalg.norm(moved, axis=0)
        keep = np.maximum(1.0 - step * strength * np.sqrt(2.0) / np.where(lengths > 0, lengths, 1.0), 0.0)
        new = (moved * keep).reshape(-1)
        t, before = (1.0 + np.sqrt(1.0 + 4.0 * t * t)) / 2.0, t
        ahead, w = new + (before - 1.0) / t * (new - w), new
    return w.reshape(2, -1), mean - float(center @ w)
