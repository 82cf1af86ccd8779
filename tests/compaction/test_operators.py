"""Operators between tensors and with constants of every kind: the outputs stay, on every backend."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import poise

from .zeroing import assert_same, constant, randomized, silent, unread, widths

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike

UNITS = 4


def tensor(value) -> Any:
    return ops.convert_to_tensor(np.asarray(value, "float32"))


ROW = np.linspace(0.5, 1.5, UNITS, dtype="float32")
OPERATORS = {
    "a / b": lambda a, b: a / (b + 3.0),
    "a / number": lambda a, b: a / 2.0,
    "number / a": lambda a, b: 2.0 / (a + 9.0),
    "a / 0 at dead units": lambda a, b: (a + 1.0) / ops.maximum(b, 0.001),
    "a // number": lambda a, b: a // 0.5,
    "number // a": lambda a, b: 2.0 // (a + 9.0),
    "a % number": lambda a, b: a % 0.5,
    "a ** number": lambda a, b: a**2,
    "number ** a": lambda a, b: 2.0**a,
    "a ** b": lambda a, b: (ops.abs(a) + 1.0) ** b,
    "-a": lambda a, b: -a,
    "|a|": lambda a, b: abs(a),
    "number - a": lambda a, b: 1.0 - a,
    "where": lambda a, b: ops.where(a > b, a, b),
    "where, number": lambda a, b: ops.where(b > 0.2, 0.5, a),
    "a > b": lambda a, b: ops.cast(a > b, "float32"),
    "number < a": lambda a, b: ops.cast(a > 0.1, "float32") * a,
    "a > 0 and b > 0": lambda a, b: ops.cast((a > 0) & ~(b > 0), "float32"),
    "a @ constant": lambda a, b: a @ tensor(np.ones((UNITS, UNITS))),
    "a · NumPy's number": lambda a, b: a * np.float32(2.0),
    "a · NumPy's array of none": lambda a, b: a * np.array(2.0, "float32"),
    "a · NumPy's row": lambda a, b: a * ROW,
    "a - NumPy's rows": lambda a, b: a - ROW[None],
    "a + NumPy's single": lambda a, b: a + np.ones(1, "float32"),
    "a · tensor's number": lambda a, b: a * tensor(2.0),
    "a · square root": lambda a, b: a * ops.sqrt(ops.cast(UNITS, "float32")),
    "a + tensor's row": lambda a, b: a + tensor(ROW),
    "maximum, tensor's number": lambda a, b: ops.maximum(a, tensor(0.1)),
    "a - mean of the batch": lambda a, b: a - ops.mean(b, axis=0),
    "a - mean of the batch, kept": lambda a, b: a - ops.mean(b, axis=0, keepdims=True),
    "a · sum of means": lambda a, b: a * (ops.mean(b, axis=0) + ops.mean(a, axis=0)),
    "a - mean of all": lambda a, b: a - ops.mean(b),
    "a - mean of a row": lambda a, b: a - ops.mean(b, axis=1, keepdims=True),
    "all pairs": lambda a, b: ops.expand_dims(a, 2) * ops.expand_dims(b, 1),
    "arguments by name": lambda a, b: ops.subtract(x2=a, x1=b),
    "add, a vector to rows": lambda a, b: layers.Add()([layers.RepeatVector(3)(a), b]),
}
WAYS = {
    "silent": lambda a, b, head: [silent(layer, [0, 2]) for layer in (a, b)],
    "constant": lambda a, b, head: [constant(layer, [0, 2]) for layer in (a, b)],
    "unread": lambda a, b, head: unread(head, [at for at in range(head.kernel.shape[0]) if at % UNITS in (0, 2)]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_gives_the_same_outputs(operator, way) -> None:
    inputs = keras.Input((6,))
    a, b = layers.Dense(UNITS, name="a"), layers.Dense(UNITS, "tanh", name="b")
    head = layers.Dense(2, name="head")
    combined = OPERATORS[operator](a(inputs), b(inputs))
    model = randomized(keras.Model(inputs, head(layers.Flatten()(combined) if len(combined.shape) > 2 else combined)))
    WAYS[way](a, b, head)

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert smaller.count_params() <= model.count_params()


def test_a_single_number_of_the_backend_hides_no_dead_units() -> None:
    inputs = keras.Input((6,))
    hidden, head = layers.Dense(UNITS, name="hidden"), layers.Dense(2, name="head")
    model = randomized(keras.Model(inputs, head(hidden(inputs) * ops.sqrt(ops.cast(8, "float32")) / tensor(3.0))))
    constant(hidden, [0, 2])

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert widths(smaller, ["hidden"]) == [2]


def test_a_constant_that_is_infinite_is_not_folded() -> None:
    inputs = keras.Input((6,))
    hidden, head = layers.Dense(UNITS, name="hidden"), layers.Dense(2, name="head")
    model = randomized(keras.Model(inputs, head(ops.exp(-1.0 / (ops.relu(hidden(inputs)) / 2.0)))))
    silent(hidden, [0, 2])

    assert_same(model, poise.compact(model))
