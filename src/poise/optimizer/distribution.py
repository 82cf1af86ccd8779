"""Several replicas under tf.distribute: one gradient for all of them, and one penalty.

Each replica has the gradient of its share of the batch, and Keras adds these up inside the inner optimizer, after
clipping. A penalty that acted there would count once for every replica, and forces and clipping would see a share. So
the gradients are added up first, every replica computes the same from their sum, and the inner optimizer, which adds
up once more, gets that from the first replica and zeros from the others.
"""

from typing import Any

import keras
from keras import ops


def check(strategy, inner):
    """Raises ValueError if training under this tf.distribute strategy is not known to be that of one device."""
    kind = type(strategy).__name__
    if kind not in ("_DefaultDistributionStrategy", "OneDeviceStrategy", "MirroredStrategy"):
        raise ValueError(
            f"poise.PenalizedOptimizer does not train under {kind}: that its steps are those of one device is shown for "
            "tf.distribute.MirroredStrategy alone. Use that, or the JAX backend with keras.distribution.DataParallel."
        )
    if strategy.num_replicas_in_sync > 1 and inner.gradient_accumulation_steps:
        raise ValueError(
            f"Keras cannot accumulate gradients under {kind}: gradient_accumulation_steps="
            f"{inner.gradient_accumulation_steps!r} fails in its cond. Use larger batches."
        )


def summed(gradients: list) -> list:
    """The gradients of the whole batch, on each of several replicas; elsewhere the given ones."""
    context = _context()
    if context is None:
        return gradients
    found = [number for number, gradient in enumerate(gradients) if gradient is not None]
    whole = context.all_reduce("SUM", [gradients[number] for number in found])
    return [dict(zip(found, whole, strict=True)).get(number) for number in range(len(gradients))]


def of_the_first(gradients: list) -> list:
    """The gradients on the first of several replicas and zeros on the others; elsewhere the given ones."""
    context = _context()
    if context is None:
        return gradients
    is_first = ops.equal(context.replica_id_in_sync_group, 0)

    def alone(values):
        return ops.where(is_first, values, ops.zeros_like(values))

    return [_of_values(alone, gradient) for gradient in gradients]


def assign(variable, value) -> bool:
    """Sets a variable to what each of several replicas has computed for itself; False if there are not several."""
    context = _context()
    if context is None:
        return False

    def on_each(strategy, variable, value):
        strategy.extended.update(variable, lambda own, new: own.assign(new), args=(value,), group=False)

    variable = variable.value if isinstance(variable, keras.Variable) else variable
    context.merge_call(on_each, args=(variable, ops.cast(value, variable.dtype)))
    return True


def _context() -> Any:
    """That of the replica in which this is called, None if there are not several."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def _of_values(function, gradient):
    """A function of the values of a gradient, which may be missing or be the rows of an embedding."""
    import tensorflow as tf

    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)
    return None if gradient is None else function(gradient)
