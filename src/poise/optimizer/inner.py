"""The optimizer inside a `PenalizedOptimizer`: what it may be, and how its settings are reached through the wrapper."""

import contextlib
from typing import Any

import keras
from keras import ops

UPDATES = ("auto", "coupled", "decoupled", "proximal")

BYPASSED = ("apply_gradients", "stateless_apply")
"""Methods that Keras' trainers call on the wrapper, so that an override in the inner optimizer would never run."""

STEP_METHODS = (
    *("apply", "update_step", "assign", "assign_add", "assign_sub", "scale_loss"),
    *("_backend_apply_gradients", "_backend_update_step", "_clip_gradients", "_apply_weight_decay"),
    *("_parallel_update_step", "_distributed_tf_update_step", "_overwrite_variables_directly_with_gradients"),
)
"""Methods whose override changes the step that an optimizer takes."""


PAUSED = "_paused_average"
"""The attribute of an inner optimizer that holds how often its average is paused, and its `use_ema` before."""


class InnerSetting:
    """A setting that Keras' base class stores, and that the wrapper reads from and writes to its inner optimizer."""

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, wrapper, owner=None) -> Any:
        if wrapper is None:
            return self
        inner = vars(wrapper).get("inner_optimizer")
        if self._name == "use_ema" and inner is not None and PAUSED in vars(inner):
            return vars(inner)[PAUSED][1]
        return None if inner is None else getattr(inner, self._name)

    def __set__(self, wrapper, value):
        # The constructor of the base class sets its defaults before there is an inner optimizer.
        if "inner_optimizer" in vars(wrapper):
            wrapper.set_inner(self._name, value)


def check_inner(inner, update, needs_rate):
    """Raise ValueError if an optimizer cannot work inside a `PenalizedOptimizer`.

    Args:
        inner: The optimizer.
        update: How the penalties act.
        needs_rate: Whether a penalty takes its own step with the learning rate.
    """
    if update not in UPDATES:
        raise ValueError(f"update={update!r} is not one of {', '.join(map(repr, UPDATES))}.")
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "PenalizedOptimizer around a LossScaleOptimizer would divide the penalty by the loss scale. Put them the other way "
            "round, LossScaleOptimizer(PenalizedOptimizer(...)); compile does so by itself under a mixed_float16 policy."
        )
    if needs_rate and isinstance(inner, getattr(keras.optimizers, "MultiOptimizer", ())):
        raise ValueError(
            f"update={update!r} needs one learning rate, and a MultiOptimizer has several. Use update='coupled'."
        )
    bypassed = overridden(inner, BYPASSED)
    if bypassed:
        raise ValueError(
            f"{type(inner).__name__} overrides {bypassed}, but Keras calls that method only on poise.PenalizedOptimizer, so the "
            "override would be skipped. Override apply or update_step instead."
        )


def overridden(inner, names, until: type = keras.optimizers.Optimizer) -> str:
    """The first of these methods that a class outside Keras overrides, or that is set on the object; "" for none.

    Args:
        inner: an optimizer.
        names: names of methods.
        until: the class at which the search along the inheritance stops.
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


def loss_scale(inner):
    """The factor by which the inner optimizer scales the loss and so the gradients that arrive; None for 1."""
    if overridden(inner, ["scale_loss"]):
        return inner.scale_loss(ops.ones((), "float32"))
    return inner.loss_scale_factor


@contextlib.contextmanager
def without_average(inner):
    """Within it the inner optimizer keeps no average of the weights: the wrapper does, after its proximal step.

    The replicas of a tf.distribute strategy take turns in threads, so several may be within it: the first one stores
    the setting and the last one puts it back.
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
