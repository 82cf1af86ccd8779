"""Build the layers of a saved model without drawing random weights, which its file replaces at once.

JAX compiles a function for each shape that it draws. For a network of two layers this takes longer than everything else
that loads it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

RANDOM = (
    keras.initializers.Orthogonal,
    keras.initializers.RandomNormal,
    keras.initializers.RandomUniform,
    keras.initializers.TruncatedNormal,
    keras.initializers.VarianceScaling,
)
PLACEHOLDER = -11072.0
"""What all entries of a weight hold until the file is read; float16 and bfloat16 represent it exactly."""


@contextlib.contextmanager
def skip_random_weights() -> Iterator[None]:
    """Fill weights whose initial values are random with a placeholder instead.

    Layers may leave weights out of the file that they save. At the end, weights that still hold the placeholder are
    drawn as usual.
    """
    original = keras.layers.Layer.add_weight
    filled: list[tuple[keras.Variable, keras.Initializer]] = []

    def add_weight(layer: Any, *arguments: Any, **settings: Any) -> keras.Variable:
        initializer = keras.initializers.get(settings.get("initializer"))
        if not isinstance(initializer, RANDOM):
            return original(layer, *arguments, **settings)
        weight = original(layer, *arguments, **settings | {"initializer": _fill})
        filled.append((weight, initializer))
        return weight

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = original
    for weight, initializer in filled:
        if (keras.ops.convert_to_numpy(weight) == PLACEHOLDER).all():
            weight.assign(initializer(weight.shape, dtype=weight.dtype))


def _fill(shape: Sequence[int], dtype: Any = None) -> Any:
    return keras.ops.convert_to_tensor(np.full(tuple(shape), PLACEHOLDER, "float32"), dtype)
