"""The prediction loss of a batch in which some rows count and others do not."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import jax
import keras
import numpy as np
from keras import ops

from poise.path.lanes.programs import PROGRAMS


def is_mean_loss(key: Hashable, model: Any, data: Any) -> bool:
    """Return whether the model's loss is a mean over the rows of a batch; False if it is their sum.

    Tested numerically: a row with weight 0 must not change the loss (of a mean, after rescaling the other weights).

    Args:
        key: `network_key` of the model.
        model: compiled model.
        data: (x, y, ...) of some rows.

    Raises:
        ValueError: If it is neither.
    """
    rows = min(4, len(keras.tree.flatten(data)[0]))
    x, y, _ = keras.tree.map_structure(lambda a: None if a is None else a[:rows], tuple(data))
    half = (rows + 1) // 2
    # Any predictions with a nonzero loss work for this test. Random ones avoid running the network.
    shapes = model.compute_output_spec(
        keras.tree.map_structure(lambda a: None if a is None else keras.KerasTensor(a.shape, a.dtype.name), x)
    )
    draw = np.random.default_rng(0)
    predicted = keras.tree.map_structure(lambda p: draw.uniform(0.2, 0.8, p.shape).astype("float32"), shapes)
    mask = np.arange(rows) < half
    first = keras.tree.map_structure(lambda a: None if a is None else a[:half], (x, y, predicted))

    def loss(*arguments: Any) -> Any:
        return PROGRAMS.call(evaluate_loss, LossOf(key, model), *arguments)

    with keras.StatelessScope():  # builds the loss
        jax.eval_shape(lambda: model.compute_loss(x=x, y=y, y_pred=predicted, training=False))
    reference = loss(first[0], first[1], first[2], np.ones(half, "float32"))
    for is_mean, scale in ((True, rows / half), (False, 1.0)):
        if np.isclose(loss(x, y, predicted, (scale * mask).astype("float32")), reference, rtol=1e-3, atol=1e-6):
            return is_mean
    raise ValueError(
        "The loss must be a mean or a sum over the rows of a batch, because poise masks held-out rows by weight. "
        "Return one loss per row and let Keras average them."
    )


@dataclass(frozen=True)
class LossOf:
    """A model's loss, a constant of programs."""

    key: Hashable
    model: Any


def evaluate_loss(constant: LossOf, x: Any, y: Any, predicted: Any, weights: Any) -> Any:
    """Return the loss of predictions."""
    with keras.StatelessScope(collect_losses=True):
        return loss_of(constant.model, x, y, predicted, weights, False)


def loss_of(model: Any, x: Any, y: Any, predicted: Any, weights: Any, is_training: bool) -> Any:
    """Return the loss of a batch. `weights` has one entry per row, also if a row has a loss at every step or pixel."""

    def spread(weights: Any, predicted: Any) -> Any:
        return ops.reshape(weights, (*weights.shape, *(1,) * (predicted.ndim - 1 - weights.ndim)))

    if keras.tree.is_nested(weights):
        weights = keras.tree.map_structure(spread, weights, predicted)
    elif any(output.ndim > 2 for output in keras.tree.flatten(predicted)):
        weights = keras.tree.map_structure(lambda output: spread(weights, output), predicted)
    return model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weights, training=is_training)


def times(weights: Any, sample_weight: Any) -> Any:
    """Return `weights`, (..., rows), times the sample weights: an array (..., rows, ...), a structure, or None."""
    if sample_weight is None:
        return weights

    def multiply(factor: Any) -> Any:
        if factor is None:
            return weights
        return ops.reshape(weights, (*weights.shape, *(1,) * (factor.ndim - weights.ndim))) * factor

    return keras.tree.map_structure(multiply, sample_weight)
