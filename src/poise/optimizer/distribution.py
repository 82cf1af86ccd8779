"""Several device replicas under tf.distribute: one gradient for all of them, and one penalty.

Each device replica has the gradient of its share of the batch, and Keras sums these inside the inner optimizer, after
clipping. A penalty that acted there would count once per replica, and forces and clipping would see a share. So the
gradients are summed first, every replica computes the same from their sum, and the inner optimizer, which sums again,
gets the result from the first replica and zeros from the others.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def check(strategy: Any, inner: Any) -> None:
    """Raise ValueError if training under this tf.distribute strategy is not known to equal training on one device.

    Args:
        strategy: The strategy, or None on other backends.
        inner: The inner optimizer.
    """
    if strategy is None:
        return
    kind = type(strategy).__name__
    if kind not in ("_DefaultDistributionStrategy", "OneDeviceStrategy", "MirroredStrategy"):
        raise ValueError(
            f"poise.PenalizedOptimizer does not support {kind}. Use tf.distribute.MirroredStrategy, or the JAX backend "
            "with keras.distribution.DataParallel."
        )
    if strategy.num_replicas_in_sync > 1 and inner.gradient_accumulation_steps:
        raise ValueError(
            f"gradient_accumulation_steps={inner.gradient_accumulation_steps!r} is not supported under {kind}. Set "
            "gradient_accumulation_steps=None and use larger batches."
        )


def sum_over_replicas(gradients: list[Any]) -> list[Any]:
    """Return the gradients of the whole batch on each of several replicas; elsewhere the gradients as they are."""
    context = _context()
    if context is None:
        return gradients
    present = [number for number, gradient in enumerate(gradients) if gradient is not None]
    sums = context.all_reduce("SUM", [gradients[number] for number in present])
    by_number = dict(zip(present, sums, strict=True))
    return [by_number.get(number) for number in range(len(gradients))]


def keep_on_first_replica(gradients: list[Any]) -> list[Any]:
    """Return the gradients on the first of several replicas and zeros on the others; elsewhere as they are."""
    context = _context()
    if context is None:
        return gradients
    is_first = ops.equal(context.replica_id_in_sync_group, 0)

    def keep_on_first(values: Any) -> Any:
        return ops.where(is_first, values, ops.zeros_like(values))

    return [_map_values(keep_on_first, gradient) for gradient in gradients]


def assign(variable: Any, value: Any) -> bool:
    """Assign what each of several replicas has computed; return False if there are not several."""
    context = _context()
    if context is None:
        return False

    def on_each(strategy: Any, variable: Any, value: Any) -> None:
        strategy.extended.update(variable, lambda local, new: local.assign(new), args=(value,), group=False)

    variable = variable.value if isinstance(variable, keras.Variable) else variable
    context.merge_call(on_each, args=(variable, ops.cast(value, variable.dtype)))
    return True


def _context() -> Any:
    """The context of the replica in which this is called; None if there are not several."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def _map_values(function: Callable[[Any], Any], gradient: Any) -> Any:
    """Apply a function to the values of a gradient, which may be missing or be the rows of an embedding."""
    import tensorflow as tf

    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)
    return None if gradient is None else function(gradient)
