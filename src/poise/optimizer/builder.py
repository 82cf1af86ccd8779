"""Which targets an optimizer has: its rules, resolved against the variables, made ready to act."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras import ops

from poise.optimizer.metrics import Metric
from poise.optimizer.targets import Target, anchored, check_actions, divide
from poise.rules.layers import info_of
from poise.rules.members import path_of
from poise.rules.plan import Plan
from poise.rules.rule import Role, Rule, kind_of


def targets_of(rules: Sequence[Rule], plan: Plan, variables, anchor: Callable[[Any], Any]) -> list[Target]:
    """What is penalized, in the order of the variables; those of a joint penalty stand where the first of them does.

    Args:
        rules: the rules.
        plan: what they resolve to.
        variables: the variables that are trained.
        anchor: gives, for a variable, what holds its weights for an `Anchored` penalty without a start.
    """
    groups = [((number,), numbers) for number, numbers in plan.alone.items()]
    groups += [(tuple(members), [rule]) for rule, members in plan.together.items()]
    targets = []
    for members, numbers in groups:
        first = variables[members[0]]
        is_joint = numbers[0] in plan.together
        penalties = [(number, rules[number].penalty) for number in numbers]
        if not is_joint:
            penalties = [(number, penalty.bound(info_of(first).sides)) for number, penalty in penalties]
        targets.append(
            Target(
                members,
                tuple(tuple(variables[number].shape) for number in members),
                str(rules[numbers[0]].name) if is_joint else path_of(first),
                is_joint,
                tuple((number, anchored(penalty, first, anchor)) for number, penalty in penalties),
            )
        )
    return sorted(targets, key=lambda target: target.index)


@dataclass(frozen=True)
class Builder:
    """Makes the targets of an optimizer.

    Args:
        optimizer: whose variables hold what a target keeps.
        rules: its rules.
        update: its update.
        metric: that of the inner optimizer, or None where one learning rate is the step.
    """

    optimizer: Any
    rules: list[Rule]
    update: str
    metric: Metric | None

    def targets(self, plan: Plan, variables) -> list[Target]:
        """The targets, with what their penalties do in a step and the variables that they need.

        Raises:
            ValueError: if a penalty cannot act in the way that the update gives it.
        """
        targets = targets_of(self.rules, plan, variables, self._copy)
        return [self._ready(target, [variables[number] for number in target.members]) for target in targets]

    def _ready(self, target, variables):
        joining, shrinking, after = divide(target.penalties, self.update, self.metric)
        target = replace(target, joining=joining, shrinking=shrinking, after=after)
        check_actions(target, self.rules, self.metric, self.optimizer.inner_optimizer)
        for variable in variables if target.after else ():
            if variable.constraint is not None:
                raise ValueError(
                    f"{path_of(variable)!r} has the constraint {type(variable.constraint).__name__}, which acts before "
                    "the prox, and the prox would leave it. Drop the constraint, or use update='coupled'."
                )
            if self.metric is not None and self.metric.forgets and kind_of(variable) == Role.EMBEDDINGS.value:
                warnings.warn(self._why_rare_rows_suffer(target, variable), stacklevel=2)
        return replace(target, trace=self._trace(target, variables))

    def _why_rare_rows_suffer(self, target, variable):
        names = ", ".join(repr(self.rules[number].name) for number, _ in target.after)
        inner = type(self.optimizer.inner_optimizer).__name__
        return (
            f"Rule {names} on the embedding {path_of(variable)!r}: in {inner}, the second moment of a row decays while "
            "the row is not looked up, so the proximal step shrinks rare rows too much. Use "
            "keras.optimizers.Adam(amsgrad=True) or Adagrad, or update='decoupled'."
        )

    def _trace(self, target, variables):
        if not target.after or self.metric is None or not self.metric.momentum:
            return None
        if self.metric.kind == "diagonal" and not target.is_joint:
            return self.optimizer.add_variable_from_reference(variables[0], "step_trace")
        shape = () if self.metric.kind == "scalar" else target.shape
        return self.optimizer.add_variable(shape, "zeros", dtype=variables[0].dtype, name=f"step_trace_{target.index}")

    def _copy(self, variable):
        def value(shape, dtype):
            return ops.cast(ops.copy(ops.convert_to_tensor(variable)), dtype)

        return self.optimizer.add_variable_from_reference(variable, "start", initializer=value)
