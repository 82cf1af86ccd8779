"""How much the loss depends on the units of a model."""

from typing import Any

import keras
import numpy as np
from keras import ops

from poise._keras_internals import variable_index
from poise.shrinking.training import Trainer
from poise.shrinking.unit_sets import RemovableUnits

MOST_BATCHES = 40
"""Batches whose gradients are averaged."""


class StopAfter(keras.callbacks.Callback):
    """Ends an epoch after some batches."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch + 1 >= self._most:
            self.model.stop_training = True


class GradientSquares(keras.optimizers.Optimizer):
    """Sums the squared gradients of every weight, and changes no weight."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(learning_rate=0.0, name="gradient_squares", **kwargs)
        self.sums: list[keras.Variable] = []

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.sums = [self.add_variable_from_reference(variable, name="squares") for variable in variables]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        total = self.sums[variable_index(self, variable)]
        self.assign_add(total, ops.cast(ops.square(gradient), total.dtype))


def measure_gradients(model: keras.Model, trainer: Trainer) -> dict[int, np.ndarray]:
    """Return the mean squared gradient of every trainable weight over some batches, by the id of the variable.

    The model keeps its weights, moving statistics included.
    """
    before = [np.array(ops.convert_to_numpy(weight)) for weight in model.weights]
    optimizer = GradientSquares()
    batches = min(trainer.training.batches, MOST_BATCHES)
    trainer.fit(model, optimizer, epochs=1, callbacks=[StopAfter(batches)])
    model.set_weights(before)
    squares = [ops.convert_to_numpy(total).astype("float64") / batches for total in optimizer.sums]
    return dict(zip(map(id, model.trainable_variables), squares, strict=True))


def rate_units(units: RemovableUnits, gradients: dict[int, np.ndarray]) -> np.ndarray:
    """Return (sets,) the importance of each set, Σ w²·E[g²] over all weights that make or read its units.

    A weight is expected to change the loss by g·w when it becomes zero. A unit that no row activates, such as a dead
    ReLU unit, has gradients of zero, and the importance 0.

    References:
        Molchanov et al. 2019, "Importance estimation for neural network pruning".
    """
    weights = {id(variable): ops.convert_to_numpy(variable).astype("float64") for variable, _ in units.parts}
    return units.sum_entries({key: weights[key] ** 2 * squares for key, squares in gradients.items() if key in weights})


def norm_gradients(units: RemovableUnits, gradients: dict[int, np.ndarray]) -> np.ndarray:
    """Return (sets,) the root mean square √(Σ E[g²]) of the gradient of each set.

    That is about the smallest strength at which a group penalty with the factor 1 moves the set to zero.
    """
    return np.sqrt(units.sum_entries(gradients))
