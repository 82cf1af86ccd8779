"""The two functions of a penalized optax transformation: the first state, and one step."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from poise.optax.inner import Inner
from poise.optax.inner_update import AfterUpdate, InnerUpdate
from poise.optax.metrics import OptaxMetric
from poise.optax.parameters import Leaf, Parameters
from poise.optimizer.builder import targets_of
from poise.optimizer.metrics import RareRowsWarning
from poise.optimizer.targets import Target, assign_actions, check_actions, penalty_gradient
from poise.penalties.base import Schedule
from poise.rules.plan import resolve
from poise.rules.rule import Role, Rule, kind_of

LISTED = 8
"""How many arrays a message lists."""


class PenalizedState(NamedTuple):
    """The state of an optimizer with penalties.

    Attributes:
        inner: The state of the inner optimizer.
        count: The number of updates.
        strengths: Maps the name of each rule to its strength, a float32 scalar. Replace an entry to change a strength.
            A strength that follows a schedule is set by every update.
        traces: Maps the path of an array to the trace of the steps of an optimizer with momentum.
        starts: Maps the path of an array to the start weights of its `poise.Anchored` penalty.
    """

    inner: Any
    count: Any
    strengths: dict[str, Any]
    traces: dict[str, Any]
    starts: dict[str, Any]


@dataclass(frozen=True)
class PenalizedStep:
    """The functions of the transformation.

    Attributes:
        rules: The rules.
        update: How the penalties act.
        inner: The inner optimizer.
        metric: Its metric, or None where the learning rate is the step.
        transformation: Its transformation.
    """

    rules: list[Rule]
    update: str
    inner: Inner
    metric: OptaxMetric | None
    transformation: optax.GradientTransformationExtraArgs

    def first_state(self, params: Any) -> PenalizedState:
        """Return the state before the first step."""
        parameters, starts = Parameters.of(params), {}

        def keep_start(leaf: Leaf) -> Any:
            return starts.setdefault(leaf.path, jnp.array(parameters.value_of(leaf)))

        targets = self._targets(parameters, keep_start)
        for target in targets:
            self._warn_of_rare_rows(target, parameters)
        inner, count = self.transformation.init(params), jnp.zeros((), jnp.int32)
        return PenalizedState(
            inner, count, strengths_at(self.rules, 0), self._first_traces(targets, parameters), starts
        )

    def take(self, updates: Any, state: Any, params: Any | None = None, **extra: Any) -> tuple[Any, PenalizedState]:
        """Return the updates of the parameters and the next state.

        Args:
            updates: The gradients of the prediction loss, under the name that optax gives them.
            state: The `PenalizedState`.
            params: The parameters.
            **extra: Other arguments of the inner optimizer's `update`.

        Raises:
            ValueError: If the parameters are missing, or the strengths do not fit the rules.
        """
        if params is None:
            raise ValueError("A penalty needs the parameters. Pass them: tx.update(gradients, state, params).")
        parameters, strengths = Parameters.of(params), self._current_strengths(state)
        weights, gradients = parameters.values, parameters.align(updates)
        targets = self._targets(parameters, lambda leaf: state.starts.get(leaf.path))
        targets = [target for target in targets if _has_gradients(target, gradients, parameters)]
        is_moved = any(target.decoupled or target.proximal for target in targets)
        rate = self.inner.rate(state.count) if is_moved else None

        for target in targets:
            if target.coupled:
                force = penalty_gradient(target.coupled, target.gather(weights.__getitem__), strengths)
                for number, part in target.split(force):
                    gradients[number] = gradients[number] + part.astype(gradients[number].dtype)

        total = parameters.replace(updates, gradients)
        updates, inner_state = self.transformation.update(total, state.inner, params, **extra)

        settings, count = SimpleNamespace(**self.inner.settings), optax.safe_increment(state.count)
        changes, traces = parameters.align(updates), dict(state.traces)
        inner_update = InnerUpdate(settings, count, state.inner, inner_state, tuple(changes), parameters.align)
        for target in targets:
            if target.decoupled:
                force = penalty_gradient(target.decoupled, target.gather(weights.__getitem__), strengths)
                for number, part in target.split(force):
                    changes[number] = changes[number] - (rate * part).astype(changes[number].dtype)
            if target.proximal:
                h = self._step_size(target, inner_update, weights, gradients, rate)
                h, traces = self._with_momentum(target, h, rate, traces)
                w = target.gather(lambda number: (weights[number] + changes[number]).astype(weights[number].dtype))
                for number, penalty in target.proximal:
                    w = penalty.prox(w, h, strengths[number])
                for number, part in target.split(w):
                    changes[number] = _change(weights[number], part, changes[number].dtype)

        current = {str(rule.name): strength for rule, strength in zip(self.rules, strengths, strict=True)}
        following = {**current, **_scheduled(self.rules, count)}
        state = PenalizedState(inner_state, count, following, traces, state.starts)
        return parameters.replace(updates, changes), state

    def _targets(self, parameters: Parameters, copy: Callable[[Leaf], Any]) -> list[Target]:
        kind = None if self.metric is None else self.metric.kind
        names, targets = [rule.name for rule in self.rules], []
        for target in find_targets(self.rules, parameters, copy):
            coupled, decoupled, proximal = assign_actions(target.penalties, self.update, kind)
            target = replace(target, coupled=coupled, decoupled=decoupled, proximal=proximal)
            check_actions(target, names, self.update, kind, self.inner.name, "optax.sgd")
            targets.append(target)
        return targets

    def _warn_of_rare_rows(self, target: Target, parameters: Parameters) -> None:
        if self.metric is None or not self.metric.forgets or not target.proximal:
            return
        for number in target.members:
            if kind_of(parameters.leaves[number]) == Role.EMBEDDINGS.value:
                names = ", ".join(repr(self.rules[rule].name) for rule, _ in target.proximal)
                warnings.warn(
                    f"Rule {names} on the embedding {parameters.leaves[number].path!r}: {self.inner.name} takes very "
                    "large steps on rows that are rarely looked up, so the proximal step shrinks them too much. Use "
                    "optax.amsgrad or optax.adagrad, or update='decoupled'.",
                    RareRowsWarning,
                    stacklevel=3,
                )

    def _first_traces(self, targets: Sequence[Target], parameters: Parameters) -> dict[str, Any]:
        """Return zeros for the running sums of steps; empty without momentum."""
        if self.metric is None or self.metric.momentum is None:
            return {}
        is_scalar = self.metric.kind == "scalar"
        return {
            target.path: jnp.zeros(() if is_scalar else target.shape, _working_dtype(parameters.values[target.index]))
            for target in targets
            if target.proximal
        }

    def _step_size(
        self, target: Target, inner_update: InnerUpdate, weights: Sequence[Any], gradients: Sequence[Any], rate: Any
    ) -> Any:
        """Return the step of the target's prox, without momentum."""
        metric = self.metric
        if metric is None:
            return rate

        def step_of_member(number: int) -> Any:
            w = weights[number].astype(_working_dtype(weights[number]))
            return metric.step(AfterUpdate(inner_update, number, w, gradients[number], jnp.asarray(rate, w.dtype)))

        if metric.kind == "scalar" or not target.is_joint:
            return step_of_member(target.index)  # all members have the same step, or there is one member
        return target.gather(step_of_member)

    def _with_momentum(self, target: Target, h: Any, rate: Any, traces: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the step with the trace s ← μ·s + h of an optimizer with momentum, and the traces."""
        if self.metric is None:
            return h, traces
        if self.metric.momentum is not None:
            trace = self.metric.momentum * traces[target.path] + h
            traces = {**traces, target.path: trace}
            h = self.metric.momentum * trace + h if self.metric.nesterov else trace
        return rate * h if self.metric.rate_is_outside else h, traces

    def _current_strengths(self, state: PenalizedState) -> list[Any]:
        """Return the strengths in the order of the rules."""
        names = [str(rule.name) for rule in self.rules]
        if set(state.strengths) != set(names):
            raise ValueError(
                f"state.strengths must have the names of the rules, {names}, got {list(state.strengths)}. Replace one "
                "entry and keep the others."
            )
        current = {**state.strengths, **_scheduled(self.rules, state.count)}
        return [jnp.asarray(current[name], jnp.float32) for name in names]


def find_targets(rules: Sequence[Rule], parameters: Parameters, copy: Callable[[Leaf], Any]) -> list[Target]:
    """Return what is penalized.

    Args:
        rules: The rules.
        parameters: The parameters.
        copy: Returns the start weights of an array for a `poise.Anchored` without a start.

    Raises:
        ValueError: If the rules do not fit the parameters.
    """
    paths = [repr(leaf.path) for leaf in parameters.leaves]
    more = f", and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    plan = resolve(rules, parameters.leaves, hint=f"The arrays are {', '.join(paths[:LISTED])}{more}.")
    return targets_of(rules, plan, parameters.leaves, copy)


def strengths_at(rules: Sequence[Rule], count: Any) -> dict[str, Any]:
    """Return the strength of each rule by its name. A schedule is evaluated at this number of updates."""
    constant = {
        str(rule.name): jnp.asarray(rule.penalty.strength, jnp.float32)
        for rule in rules
        if not isinstance(rule.penalty.strength, Schedule)
    }
    return {**constant, **_scheduled(rules, count)}


def _scheduled(rules: Sequence[Rule], count: Any) -> dict[str, Any]:
    return {
        str(rule.name): jnp.asarray(rule.penalty.strength(count), jnp.float32)
        for rule in rules
        if isinstance(rule.penalty.strength, Schedule)
    }


def _has_gradients(target: Target, gradients: Sequence[Any], parameters: Parameters) -> bool:
    """Whether the arrays of a target are trained.

    Raises:
        ValueError: If only some of them are.
    """
    missing = [number for number in target.members if gradients[number] is None]
    if missing and len(missing) < len(target.members):
        raise ValueError(
            f"Rule {target.path!r} penalizes {len(target.members)} arrays jointly, but "
            f"{parameters.leaves[missing[0]].path!r} has no gradient. Pass the gradients of all of them."
        )
    return not missing


def _change(before: Any, after: Any, dtype: Any) -> Any:
    """Return after − before in a dtype that is exact where `after` is zero."""
    dtype = jnp.promote_types(before.dtype, dtype)
    return after.astype(dtype) - before.astype(dtype)


def _working_dtype(w: Any) -> Any:
    return jnp.promote_types(w.dtype, jnp.float32)
