"""Every model here is given its weights by `randomized`; JAX would compile a program for every shape to draw others."""

from typing import Any

import keras
import numpy as np
import pytest

DRAWING = [keras.initializers.VarianceScaling, keras.initializers.Orthogonal, keras.initializers.RandomUniform]


@pytest.fixture(autouse=True)
def _layers_start_from_zeros(monkeypatch) -> None:
    def zeros(self, shape, dtype=None, **settings) -> Any:
        return keras.ops.convert_to_tensor(np.zeros(shape), dtype or keras.config.floatx())

    for initializer in DRAWING:
        monkeypatch.setattr(initializer, "__call__", zeros)
