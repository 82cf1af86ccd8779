"""The step that a target's prox takes: that of the inner optimizer, coordinate by coordinate (see `poise.optimizer.metrics`)."""

from collections.abc import Callable
from typing import Any

from keras import ops

from poise.optimizer.metrics import Before, Metric
from poise.optimizer.targets import Target


def step_after(target: Target, metric: Metric | None, inner, weight_of, gradient_of, rate) -> Callable[[], Any]:
    """A function that gives, after the inner update, the step of the target's prox.

    Args:
        target: the target.
        metric: that of the inner optimizer, or None where the learning rate is the step.
        inner: the inner optimizer.
        weight_of, gradient_of: give by a variable's number its value and its gradient before the update.
        rate: the learning rate of the update.
    """

    def before(number):
        w = weight_of(number)
        rate_here = ops.cast(rate, w.dtype)
        if metric is None:
            return lambda: rate_here
        return metric.step(Before(inner, number, w, ops.cast(gradient_of(number), w.dtype), rate_here))

    if metric is None or metric.kind == "scalar" or not target.is_joint:
        return before(target.index)  # one step does for all members, or there is one member
    steps = {number: before(number) for number in target.members}
    return lambda: target.gathered(lambda number: steps[number]())


def with_momentum(target: Target, metric: Metric | None, h, is_update, assign) -> Any:
    """The trace s ← μ·s + h of the steps, which an optimizer with momentum moves by; h where it has none.

    Args:
        target, metric: as for `step_after`.
        h: the step.
        is_update: whether the inner optimizer changes the weights in this step; None for always.
        assign: sets a variable of the optimizer.
    """
    if target.trace is None or metric is None:
        return h
    momentum = metric.momentum
    kept = ops.convert_to_tensor(target.trace)
    trace = momentum * kept + h
    assign(target.trace, trace if is_update is None else ops.where(is_update, trace, kept))
    return momentum * trace + h if metric.nesterov else trace


def gated(step, is_update) -> Any:
    """The step, or 0 while gradients are accumulated: there a prox is the identity. (A cond could not hold assigns.)"""
    return step if is_update is None else ops.where(is_update, step, ops.zeros_like(step))
