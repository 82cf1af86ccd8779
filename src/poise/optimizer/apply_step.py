"""One training step of a `PenalizedOptimizer`: before, during and after the step of the inner optimizer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops

from poise._keras_internals import step_count, trained_variables, variable_index
from poise.optimizer import distribution
from poise.optimizer.averages import update_averages
from poise.optimizer.inner import loss_scale, without_average
from poise.optimizer.state import State
from poise.optimizer.steps import gate_step, step_after, with_momentum
from poise.optimizer.targets import Target, densify, penalty_gradient
from poise.rules.members import path_of

Pending = list[tuple[Target, Callable[[], Any]]]
"""Targets whose prox follows the inner step, each with a function that returns the step of the prox."""


@dataclass
class Step:
    """The variables and gradients of one step.

    Attributes:
        optimizer: The `PenalizedOptimizer`.
        variables: The variables of this step, which may be some of those that the optimizer was built for.
        gradients: Their gradients.
        positions: Maps the number of a variable in the optimizer to its position in `variables`.
    """

    optimizer: Any
    variables: list[Any]
    gradients: list[Any]
    positions: dict[int, int]

    def weight_of(self, number: int) -> Any:
        """Return the value of a variable without a tape: in a PyTorch loop the weights still record gradients here."""
        return ops.stop_gradient(ops.convert_to_tensor(self.variables[self.positions[number]]))

    def assign(self, target: Target, joined: Any) -> None:
        """Assign what a target's penalties act on to its variables."""
        for number, w in target.split(joined):
            self.optimizer.assign(self.variables[self.positions[number]], w)


def apply_step(optimizer: Any, state: State, gradients: list[Any], trainable_variables: list[Any] | None) -> None:
    """Take one training step.

    Args:
        optimizer: The `PenalizedOptimizer`, built.
        state: Its state.
        gradients: The gradients; None if a variable has none.
        trainable_variables: Their variables. None: the variables that the optimizer was built for.
    """
    inner = optimizer.inner_optimizer
    variables = trainable_variables or trained_variables(optimizer)
    positions = {variable_index(optimizer, variable): position for position, variable in enumerate(variables)}
    targets = [target for target in state.targets if _is_complete(target, positions, optimizer)]
    for position in [positions[number] for target in targets for number in target.members]:
        gradients[position] = densify(gradients[position], variables[position])
    step = Step(optimizer, variables, distribution.sum_over_replicas(gradients), positions)

    # Everything here is read before the inner step, which advances the iterations and the schedules with them.
    strengths = state.strengths.tensors()
    needs_rate = any(target.decoupled or target.proximal for target in targets)
    rate = ops.copy(ops.convert_to_tensor(inner.learning_rate)) if needs_rate else None
    is_update, is_first, overwrites = _phase(optimizer)
    _start_anchors(step, targets)
    scale = loss_scale(inner)
    weights = {target.index: target.gather(step.weight_of) for target in targets}

    def gradient_of(number: int) -> Any:
        gradient = step.gradients[positions[number]]
        return gradient if scale is None else gradient / scale

    if state.records is not None and state.records_values:
        state.records.record_values(targets, weights, strengths)
    if state.records is not None and optimizer.observe_every:
        observed = [(target, weights[target.index], target.gather(gradient_of)) for target in targets]
        state.records.record_forces(observed, strengths, inner.iterations)
    pending: Pending = []
    for target in targets:
        w = weights[target.index]
        if target.decoupled:
            h = gate_step(ops.cast(rate, w.dtype), is_update)
            step.assign(target, w - h * penalty_gradient(target.decoupled, w, strengths))
        if target.coupled:
            for number, force in target.split(penalty_gradient(target.coupled, w, strengths)):
                gradient = step.gradients[positions[number]]
                force = ops.cast(force if scale is None else scale * force, gradient.dtype)
                step.gradients[positions[number]] = gradient + force
        if target.proximal:
            pending.append((target, step_after(target, state.metric, inner, step.weight_of, gradient_of, rate)))

    with without_average(inner):
        inner.apply(distribution.keep_on_first_replica(step.gradients), trainable_variables)

    for target, step_size in pending:
        h = with_momentum(target, state.metric, step_size(), is_update, optimizer.assign)
        h = gate_step(h, is_update)
        w = target.gather(step.weight_of)
        for number, penalty in target.proximal:
            w = penalty.prox(w, h, strengths[number])
        step.assign(target, w)
    if optimizer.use_ema:
        update_averages(optimizer, is_first, overwrites)


def _is_complete(target: Target, positions: dict[int, int], optimizer: Any) -> bool:
    """Whether the variables of a target are part of a step.

    Raises:
        ValueError: If only some of them are.
    """
    missing = [number for number in target.members if number not in positions]
    if missing and len(missing) < len(target.members):
        raise ValueError(
            f"Rule {target.path!r} penalizes {len(target.members)} variables jointly, but "
            f"{path_of(trained_variables(optimizer)[missing[0]])!r} is missing from this call. Pass the gradients of "
            f"all {len(target.members)} variables to optimizer.apply."
        )
    return not missing


def _phase(optimizer: Any) -> tuple[Any, Any, Any]:
    """Return (is_update, is_first, overwrites).

    - is_update: Whether this step changes the weights (None: always).
    - is_first: Whether this is the first step, from which the average starts (None: there is no average).
    - overwrites: Whether the average overwrites the weights (None: never).
    """
    inner = optimizer.inner_optimizer
    is_update = is_first = overwrites = None
    if inner.gradient_accumulation_steps:
        is_update = ops.equal((step_count(inner) + 1) % inner.gradient_accumulation_steps, 0)
    if optimizer.use_ema:
        is_first = ops.equal(inner.iterations, 0)
        if optimizer.ema_overwrite_frequency:
            overwrites = ops.equal((inner.iterations + 1) % optimizer.ema_overwrite_frequency, 0)
    return is_update, is_first, overwrites


def _start_anchors(step: Step, targets: list[Target]) -> None:
    """Set the anchors to the weights before the first step: the weights may have been loaded since the build."""
    for target in targets:
        for _, start in target.anchors:
            is_start = ops.equal(step_count(step.optimizer.inner_optimizer), 0)
            w = ops.cast(step.weight_of(target.index), start.dtype)
            step.optimizer.assign(start, ops.where(is_start, w, ops.convert_to_tensor(start)))
