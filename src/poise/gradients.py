"""The gradient of a model's prediction loss on given data: the one place with a branch per backend."""

import keras
import numpy as np
from keras import ops


def mean_gradients(model, variables, batches):
    """The gradient of the mean prediction loss, without dropout and with the moving statistics of normalisation.

    Args:
        model: a compiled Keras model; its loss is differentiated as it stands.
        variables: the trained variables to differentiate by.
        batches: an iterable of (x, y, sample_weight); each counts by its number of rows.

    Returns:
        One float64 array per variable, of its shape.

    Raises:
        ValueError: if there is no batch.
    """
    totals, rows = [np.zeros(variable.shape) for variable in variables], 0
    gradients_of = _compiled(model, variables)
    for x, y, sample_weight in batches:
        count = len(keras.tree.flatten(x)[0])
        tensors = keras.tree.map_structure(
            lambda a: None if a is None else ops.convert_to_tensor(a), (x, y, sample_weight)
        )
        for total, gradient in zip(totals, gradients_of(*tensors), strict=True):
            if gradient is not None:
                total += count * ops.convert_to_numpy(gradient).astype("float64")
        rows += count
    if not rows:
        raise ValueError("The data have no rows, so that there is no gradient to measure.")
    return [total / rows for total in totals]


def _compiled(model, variables):
    def loss_on(x, y, sample_weight):
        predicted = model(x, training=False)
        return model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=False)

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        chosen = {id(variable) for variable in variables}
        others = [variable for variable in model.trainable_variables if id(variable) not in chosen]

        def loss_at(values, *data):
            # In a scope Keras' regularizers see mapped variables alone, so that those of no rule are mapped as well.
            mapping = [*zip(variables, values, strict=True), *((variable, variable.value) for variable in others)]
            with keras.StatelessScope(mapping, collect_losses=True):
                return loss_on(*data)

        gradient = jax.jit(jax.grad(loss_at))
        return lambda *data: gradient([variable.value for variable in variables], *data)
    if backend == "tensorflow":
        import tensorflow as tf

        def gradient_on(*data):
            strategy = tf.distribute.get_strategy()
            one_of_each = [strategy.experimental_local_results(variable.value)[0] for variable in variables]
            with tf.GradientTape() as tape:
                loss = loss_on(*data) * strategy.num_replicas_in_sync  # by which Keras divides it in their scope
            found = tape.gradient(loss, one_of_each)
            return [None if g is None else tf.convert_to_tensor(g) for g in found]

        return gradient_on

    import torch

    return lambda *data: torch.autograd.grad(loss_on(*data), [v.value for v in variables], allow_unused=True)
