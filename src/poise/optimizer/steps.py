"""The step that a target's prox takes: the inner optimizer's, per coordinate (see `poise.optimizer.metrics`)."""

from collections.abc import Callable
from typing import Any

from keras import ops

from poise.optimizer.metrics import Before, Metric
from poise.optimizer.targets import Target


def step_after(
    target: Target,
    metric: Metric | None,
    inner: Any,
    weight_of: Callable[[int], Any],
    gradient_of: Callable[[int], Any],
    rate: Any,
) -> Callable[[], Any]:
    """Return a function that returns, after the inner update, the step of the target's prox.

    Args:
        target: The target.
        metric: The metric of the inner optimizer, or None where the learning rate is the step.
        inner: The inner optimizer.
        weight_of: Returns the value of a variable before the update, by the variable's number.
        gradient_of: Returns its gradient.
        rate: The learning rate of the update.
    """

    def step_of_member(number: int) -> Callable[[], Any]:
        w = weight_of(number)
        rate_here = ops.cast(rate, w.dtype)
        if metric is None:
            return lambda: rate_here
        return metric.step(Before(inner, number, w, ops.cast(gradient_of(number), w.dtype), rate_here))

    if metric is None or metric.kind == "scalar" or not target.is_joint:
        return step_of_member(target.index)  # all members have the same step, or there is one member
    steps = {number: step_of_member(number) for number in target.members}
    return lambda: target.gather(lambda number: steps[number]())


def with_momentum(
    target: Target, metric: Metric | None, h: Any, is_update: Any, assign: Callable[[Any, Any], None]
) -> Any:
    """Return the trace s ← μ·s + h of the steps, which an optimizer with momentum moves by; h where it has none.

    Args:
        target: The target.
        metric: The metric of the inner optimizer, or None where the learning rate is the step.
        h: The step.
        is_update: Whether the inner optimizer changes the weights in this step. None: always.
        assign: Sets a variable of the optimizer.
    """
    if target.trace is None or metric is None:
        return h
    momentum = metric.momentum
    old_trace = ops.convert_to_tensor(target.trace)
    trace = momentum * old_trace + h
    assign(target.trace, trace if is_update is None else ops.where(is_update, trace, old_trace))
    return momentum * trace + h if metric.nesterov else trace


def gate_step(step: Any, is_update: Any) -> Any:
    """Return the step, or 0 while gradients are accumulated: there a prox is the identity.

    A cond could not hold the assignments.
    """
    return step if is_update is None else ops.where(is_update, step, ops.zeros_like(step))
