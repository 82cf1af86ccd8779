"""On which entries of a variable the outputs and inputs of a layer depend, found by changing entry after entry.

What "outputs" and "inputs" of a kernel are is not looked up anywhere here: entry e belongs to output j if a change of
it changes output j and no other, and to input i if it matters where only input i is not zero.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

Array = np.ndarray


def by_outputs(call: Callable[[], Array], variable: keras.Variable) -> Array:
    """The output of every entry; `call` gives the outputs of the layer, (..., outputs)."""
    return _single(_changed(call, variable))


def by_inputs(call: Callable[[], Array], variable: keras.Variable) -> Array:
    """The input of every entry; `call` gives the outputs, (inputs, ...), row i for inputs of which only i is not 0."""
    return _single(_changed(lambda: np.moveaxis(call(), 0, -1), variable))


def only_one(count: int, shape: tuple[int, ...], axes: tuple[int, ...], seed: int = 0) -> Array:
    """(count, *shape): in row i all is zero but what has the number i along `axes` (C order) of `shape`."""
    x = np.random.default_rng(seed).uniform(0.5, 1.5, (count, *shape))
    lengths = [shape[axis] for axis in axes]
    numbers = np.arange(count).reshape(lengths)
    along = np.expand_dims(
        numbers, tuple(a for a in range(len(shape)) if a not in [axis % len(shape) for axis in axes])
    )
    return np.where(np.arange(count).reshape(-1, *[1] * len(shape)) == along, x, 0.0).astype("float32")


def _changed(call: Any, variable: Any) -> Array:
    """(*shape, columns): whether a change of the entry changes the column of `call()`."""
    w = keras.ops.convert_to_numpy(variable).copy()
    columns = call().shape[-1]
    before = call().reshape(-1, columns)
    actual = np.zeros((*w.shape, columns), bool)
    for at in np.ndindex(*w.shape):
        changed = w.copy()
        changed[at] += 0.25
        variable.assign(changed)
        actual[at] = (np.abs(call().reshape(-1, columns) - before) > 1e-6).any(axis=0)
    variable.assign(w)
    return actual


def _single(actual: Array) -> Array:
    """The one column that every entry changes."""
    assert (actual.sum(axis=-1) == 1).all(), "an entry belongs to several units, or to none"
    return actual.argmax(axis=-1)


def groups(w: Array, numbers: Array, step: float, strength: float) -> Array:
    """The prox of the group lasso with factors √size, for the groups that `numbers` gives."""
    result: Any = np.array(w, "float64")
    for number in np.unique(numbers):
        own = numbers == number
        norm, price = np.sqrt((result[own] ** 2).sum()), np.sqrt(own.sum())
        result[own] *= max(1.0 - step * strength * price / norm, 0.0)
    return result
