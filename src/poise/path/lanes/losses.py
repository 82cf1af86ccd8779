"""The prediction loss of a batch in which some rows count and others do not."""

import jax
import keras
import numpy as np
from keras import ops


def is_mean_loss(model, data) -> bool:
    """Whether the model's loss is a mean over the rows of a batch; False if it is their sum.

    Found by trying: the loss of some rows must be that of a batch in which others have weight zero.

    Raises:
        ValueError: if it is neither.
    """
    rows = min(4, len(keras.tree.flatten(data)[0]))
    x, y, _ = keras.tree.map_structure(lambda a: None if a is None else a[:rows], tuple(data))
    half = (rows + 1) // 2
    # Any predictions do, as long as they are none at which the loss is zero; these take no run of the network.
    shapes = model.compute_output_spec(
        keras.tree.map_structure(lambda a: None if a is None else keras.KerasTensor(a.shape, a.dtype.name), x)
    )
    draw = np.random.default_rng(0)
    predicted = keras.tree.map_structure(lambda p: draw.uniform(0.2, 0.8, p.shape).astype("float32"), shapes)
    mask = np.arange(rows) < half
    first = keras.tree.map_structure(lambda a: None if a is None else a[:half], (x, y, predicted))

    @jax.jit
    def loss(x, y, predicted, weights):
        with keras.StatelessScope(collect_losses=True):
            return loss_of(model, x, y, predicted, weights, False)

    with keras.StatelessScope():  # builds the loss
        jax.eval_shape(lambda: model.compute_loss(x=x, y=y, y_pred=predicted, training=False))
    alone = loss(first[0], first[1], first[2], np.ones(half, "float32"))
    for is_mean, scale in ((True, rows / half), (False, 1.0)):
        if np.isclose(loss(x, y, predicted, (scale * mask).astype("float32")), alone, rtol=1e-3, atol=1e-6):
            return is_mean
    raise ValueError(
        "The loss is neither a mean nor a sum over the rows of a batch, so that the lanes cannot share batches of rows "
        "that count and rows that do not. Return one loss a row, and let Keras take the mean."
    )


def loss_of(model, x, y, predicted, weights, is_training):
    """The loss of a batch. `weights` are those of its rows, also where a row has a loss at every step or pixel."""

    def spread(weights, predicted):
        return ops.reshape(weights, (*weights.shape, *(1,) * (predicted.ndim - 1 - weights.ndim)))

    if keras.tree.is_nested(weights):
        weights = keras.tree.map_structure(spread, weights, predicted)
    elif any(output.ndim > 2 for output in keras.tree.flatten(predicted)):
        weights = keras.tree.map_structure(lambda output: spread(weights, output), predicted)
    return model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weights, training=is_training)


def times(weights, given):
    """`weights`, (..., rows), times the sample weights: an array (..., rows, ...), a structure of those, or None."""
    if given is None:
        return weights

    def product(given):
        if given is None:
            return weights
        return ops.reshape(weights, (*weights.shape, *(1,) * (given.ndim - weights.ndim))) * given

    return keras.tree.map_structure(product, given)
