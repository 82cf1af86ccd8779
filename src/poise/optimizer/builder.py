"""Which targets an optimizer has: its rules, resolved against the variables, with the actions of their penalties."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras import ops

from poise.optimizer.metrics import Metric, RareRowsWarning, UnusableStepError, metric_of
from poise.optimizer.targets import Target, anchor, assign_actions, check_actions, needs_prox
from poise.rules.layers import info_of
from poise.rules.members import path_of
from poise.rules.plan import Plan
from poise.rules.rule import Role, Rule, kind_of


def uses_metric(rules: Sequence[Rule], update: str) -> bool:
    """Whether a penalty acts by its prox in the metric of the inner optimizer's step."""
    return update == "proximal" or (update == "auto" and any(needs_prox(rule.penalty) for rule in rules))


def choose_metric(inner: Any, rules: Sequence[Rule], update: str, metric_of: Callable[[Any], Any] = metric_of) -> Any:
    """Return the metric of the inner optimizer if a penalty acts in it, else None.

    Args:
        inner: The inner optimizer.
        rules: The rules.
        update: The update.
        metric_of: Returns the metric of an optimizer. Default: that of Keras optimizers, a `Metric`.

    Raises:
        ValueError: If the inner optimizer has no usable step.
    """
    if not uses_metric(rules, update):
        return None
    try:
        return metric_of(inner)
    except UnusableStepError as error:
        if update == "proximal":
            raise
        penalty = next(rule.penalty for rule in rules if needs_prox(rule.penalty))
        instead = ""
        if not penalty.has_force:
            instead = ", or use update='decoupled'"
        elif not penalty.smooth:
            instead = ", or use update='coupled', in which the penalty acts by its gradient and gives no exact zeros"
        raise ValueError(
            f"{type(penalty).__name__} acts by a proximal step with update='auto', which does not work with "
            f"{error.inner}: {error.reason}. {error.remedy}{instead}."
        ) from None


def targets_of(rules: Sequence[Rule], plan: Plan, variables: Sequence[Any], copy: Callable[[Any], Any]) -> list[Target]:
    """Return what is penalized, in the order of the variables; a joint penalty is at the place of its first variable.

    Args:
        rules: The rules.
        plan: What they resolve to.
        variables: The variables that are trained.
        copy: Makes, for a variable, what holds its weights for an `Anchored` penalty without a start.
    """
    groups = [((number,), numbers) for number, numbers in plan.single.items()]
    groups += [(tuple(members), [rule]) for rule, members in plan.joint.items()]
    targets = []
    for members, numbers in groups:
        first = variables[members[0]]
        is_joint = numbers[0] in plan.joint
        penalties = [(number, rules[number].penalty) for number in numbers]
        if not is_joint:
            penalties = [(number, penalty.bind(info_of(first).sides)) for number, penalty in penalties]
        targets.append(
            Target(
                members,
                tuple(tuple(variables[number].shape) for number in members),
                str(rules[numbers[0]].name) if is_joint else path_of(first),
                is_joint,
                tuple((number, anchor(penalty, first, copy)) for number, penalty in penalties),
            )
        )
    return sorted(targets, key=lambda target: target.index)


@dataclass(frozen=True)
class Builder:
    """Makes the targets of an optimizer.

    Attributes:
        optimizer: The `PenalizedOptimizer`, whose variables hold what a target keeps.
        rules: Its rules.
        update: Its update.
        metric: The metric of the inner optimizer, or None where the learning rate is the step.
    """

    optimizer: Any
    rules: list[Rule]
    update: str
    metric: Metric | None

    def targets(self, plan: Plan, variables: Sequence[Any]) -> list[Target]:
        """Return the targets, with the actions of their penalties and the variables that they need.

        Raises:
            ValueError: If a penalty cannot act in the way that the update requires.
        """
        targets = targets_of(self.rules, plan, variables, self._copy)
        return [self._complete(target, [variables[number] for number in target.members]) for target in targets]

    def _complete(self, target: Target, variables: Sequence[Any]) -> Target:
        kind = None if self.metric is None else self.metric.kind
        coupled, decoupled, proximal = assign_actions(target.penalties, self.update, kind)
        target = replace(target, coupled=coupled, decoupled=decoupled, proximal=proximal)
        names = [rule.name for rule in self.rules]
        check_actions(target, names, self.update, kind, self.optimizer.inner_optimizer)
        for variable in variables if target.proximal else ():
            if variable.constraint is not None:
                raise ValueError(
                    f"The constraint {type(variable.constraint).__name__} on {path_of(variable)!r} cannot be combined "
                    "with a proximal update, because Keras applies it before the proximal step. Remove the "
                    "constraint, or use update='coupled'."
                )
            if self.metric is not None and self.metric.forgets and kind_of(variable) == Role.EMBEDDINGS.value:
                warnings.warn(self._explain_rare_rows(target, variable), RareRowsWarning, stacklevel=2)
        return replace(target, trace=self._trace(target, variables))

    def _explain_rare_rows(self, target: Target, variable: Any) -> str:
        names = ", ".join(repr(self.rules[number].name) for number, _ in target.proximal)
        inner = type(self.optimizer.inner_optimizer).__name__
        return (
            f"Rule {names} on the embedding {path_of(variable)!r}: {inner} takes very large steps on rows "
            "that are rarely looked up, so the proximal step shrinks them too much. Use "
            "keras.optimizers.Adam(amsgrad=True) or Adagrad, or update='decoupled'."
        )

    def _trace(self, target: Target, variables: Sequence[Any]) -> Any:
        """The variable for the running sum of steps, or None without momentum."""
        if not target.proximal or self.metric is None or not self.metric.momentum:
            return None
        if self.metric.kind == "diagonal" and not target.is_joint:
            return self.optimizer.add_variable_from_reference(variables[0], "step_trace")
        shape = () if self.metric.kind == "scalar" else target.shape
        return self.optimizer.add_variable(shape, "zeros", dtype=variables[0].dtype, name=f"step_trace_{target.index}")

    def _copy(self, variable: Any) -> Any:
        def value(shape: Any, dtype: Any) -> Any:
            return ops.cast(ops.copy(ops.convert_to_tensor(variable)), dtype)

        return self.optimizer.add_variable_from_reference(variable, "start", initializer=value)
