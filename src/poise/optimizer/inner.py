"""The optimizer inside a `PenalizedOptimizer`: which ones are allowed, and how its average is paused."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

UPDATES = ("auto", "coupled", "decoupled", "proximal")

BYPASSED = ("apply_gradients", "stateless_apply")
"""Methods that Keras' trainers call on the wrapper only, so that an override in the inner optimizer never runs."""

PAUSED = "_paused_average"
"""The attribute of an inner optimizer that holds how often its average is paused, and its `use_ema` before."""


def check_inner(inner: Any, update: Any, needs_rate: bool) -> None:
    """Raise ValueError if an optimizer cannot work inside a `PenalizedOptimizer`.

    Args:
        inner: The optimizer.
        update: How the penalties act.
        needs_rate: Whether a penalty takes a separate step with the learning rate.
    """
    if update not in UPDATES:
        raise ValueError(f"update={update!r} is not one of {', '.join(map(repr, UPDATES))}.")
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "inner_optimizer is a LossScaleOptimizer, and the penalty would be divided by the loss scale. Use "
            "LossScaleOptimizer(PenalizedOptimizer(...)); under a mixed_float16 policy, compile adds it automatically."
        )
    if needs_rate and isinstance(inner, getattr(keras.optimizers, "MultiOptimizer", ())):
        raise ValueError(
            f"update={update!r} needs one learning rate, and a MultiOptimizer has several. Use update='coupled'."
        )
    bypassed = find_override(inner, BYPASSED)
    if bypassed:
        raise ValueError(
            f"{type(inner).__name__} overrides {bypassed}, but Keras calls that method only on "
            "poise.PenalizedOptimizer, so the override would be skipped. Override apply or update_step instead."
        )


def find_override(inner: Any, names: Sequence[str], until: type = keras.optimizers.Optimizer) -> str:
    """Return the first method that a class outside Keras overrides, or that is set on the object; "" for none.

    Args:
        inner: An optimizer.
        names: Names of methods.
        until: The class at which the search along the inheritance stops. Default: `keras.optimizers.Optimizer`.
    """
    for name in names:
        if name in vars(inner):
            return name
    for optimizer_class in type(inner).__mro__:
        if optimizer_class is until:
            break
        if not optimizer_class.__module__.startswith("keras."):
            for name in names:
                if name in vars(optimizer_class):
                    return name
    return ""


def loss_scale(inner: Any) -> Any:
    """Return the factor by which the inner optimizer scales the loss and so the gradients; None means 1."""
    if find_override(inner, ["scale_loss"]):
        return inner.scale_loss(ops.ones((), "float32"))
    return inner.loss_scale_factor


@contextlib.contextmanager
def without_average(inner: Any) -> Iterator[None]:
    """Pause the inner optimizer's average of the weights within a `with` block: the wrapper averages after its prox.

    The device replicas of a tf.distribute strategy take turns in threads, so several may be in the block at once: the
    first one stores the setting and the last one restores it.
    """
    count, use_ema = vars(inner).get(PAUSED, (0, inner.use_ema))
    object.__setattr__(inner, PAUSED, (count + 1, use_ema))
    inner.use_ema = False
    try:
        yield
    finally:
        count, use_ema = vars(inner)[PAUSED]
        if count > 1:
            object.__setattr__(inner, PAUSED, (count - 1, use_ema))
        else:
            object.__delattr__(inner, PAUSED)
            inner.use_ema = use_ema
