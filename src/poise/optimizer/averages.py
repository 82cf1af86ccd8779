"""The moving average of the weights (`use_ema=True`). The wrapper keeps it, because its prox follows the inner step."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from poise._keras_internals import moving_averages, set_moving_averages, trained_variables, variable_index
from poise.optimizer.saved_state import copy_value


def build_averages(optimizer: Any, variables: Sequence[Any]) -> list[Any]:
    """Make the variables that hold the averages, None per variable that is not trained; empty without `use_ema`."""
    if not optimizer.use_ema:
        return []
    averages = optimizer.add_optimizer_variables(variables, "average")
    # An inner optimizer that has trained before has an average already.
    for average, earlier in zip(averages, moving_averages(optimizer.inner_optimizer), strict=False):
        if average is not None:
            average.assign(copy_value(earlier))
    # keras.callbacks.SwapEMAWeights looks for them in the inner optimizer.
    for owner in (optimizer, optimizer.inner_optimizer):
        set_moving_averages(owner, averages)
    return averages


def update_averages(optimizer: Any, is_first: Any, overwrites: Any) -> None:
    """Average the weights after a step, and overwrite the weights where that is due.

    Args:
        optimizer: The `PenalizedOptimizer`.
        is_first: Whether this is the first step, from which the average starts.
        overwrites: Whether the average overwrites the weights in this step. None: never.
    """
    for variable in trained_variables(optimizer):
        average = moving_averages(optimizer)[variable_index(optimizer, variable)]
        if average is None:  # bookkeeping that is overwritten and not trained, as in float8 layers
            continue
        w = ops.convert_to_tensor(variable)
        momentum = ops.where(is_first, 0.0, ops.cast(optimizer.ema_momentum, w.dtype))
        mean = momentum * ops.convert_to_tensor(average) + (1.0 - momentum) * w
        optimizer.assign(average, mean)
        if overwrites is not None:
            optimizer.assign(variable, ops.where(overwrites, mean, w))


def copy_averages(optimizer: Any) -> None:
    """Give every average a separate buffer after Keras has assigned it to its weight.

    On JAX the weight and its average would share a buffer, which the next `fit` donates twice.
    """
    for average in moving_averages(optimizer):
        if average is not None:
            average.assign(copy_value(average))
