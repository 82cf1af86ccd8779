"""Rebuild the rules with which the lanes of a strength were trained."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.shared_groups import find_shared_groups
from poise.path.stages import adaptive_factors, current_factors, hold_at_zero
from poise.penalties import Anchored, Penalty
from poise.rules.rule import Rule


def plain_rules(rules: Sequence[Rule], strength: float) -> list[Rule]:
    """Return the rules of a path at a strength."""
    return [
        replace(rule, penalty=change_penalty(rule.penalty, strength=float(strength * ratio)))
        for rule, ratio in zip(rules, _ratios(rules), strict=True)
    ]


def rules_with_factors(
    rules: Sequence[Rule],
    strength: float,
    model: Any,
    resolved: dict,
    update: str,
    held: Mapping[str, np.ndarray],
    sizes: Mapping[str, np.ndarray] | None,
    position: int,
    replica: int,
) -> list[Rule]:
    """Return the rules of a stage at a strength: one per variable and penalty, with its factors.

    Args:
        rules: rules of the path.
        strength: strength of the first rule.
        model: a model of the path.
        resolved: what the rules resolved to.
        update: how the penalties act.
        held: as for `hold_at_zero`, by the paths of the model's variables.
        sizes: sizes of the stage before, by the paths of the model's variables; None for the first stage.
        position: position of the strength, in the stage before, whose sizes to use.
        replica: position of the replica whose factors to use.

    Raises:
        ValueError: If two variables share a path, so that no rule can give each its factors.
    """
    optimizer = PenalizedOptimizer("sgd", list(rules), update).restore_plan(resolved)
    optimizer.build(model.trainable_variables, model)
    replicas = len(next(iter((sizes or held).values())))
    if sizes is None:
        factors = current_factors(optimizer.targets, replicas)
    else:
        same_inputs = find_shared_groups(model, optimizer.targets)
        factors = adaptive_factors(optimizer.targets, dict(sizes), position, same_inputs)
    factors = hold_at_zero(factors, optimizer.targets, held)
    paths = [target.path for target in optimizer.targets]
    shared = next((path for path in paths if paths.count(path) > 1), None)
    if shared is not None:
        raise ValueError(
            f"{shared!r} is the path of {paths.count(shared)} variables, so that no rule can give each its factors. "
            "Give their layers different names."
        )
    ratios = _ratios(rules)
    stage_rules = []
    for target in optimizer.targets:
        for number, penalty in target.penalties:
            arguments: dict[str, Any] = {"strength": float(strength * ratios[number])}
            if (target.index, number) in factors:
                arguments["factors"] = factors[target.index, number][replica, 0].tolist()
            penalty = change_penalty(penalty, **arguments)
            if target.is_joint:
                stage_rules.append(replace(rules[number], penalty=penalty))
            else:
                stage_rules.append(Rule(glob.escape(target.path), penalty, name=f"{target.path} {number}"))
    return stage_rules


def change_penalty(penalty: Penalty, **arguments: Any) -> Penalty:
    """Return the same penalty with other arguments, those of the inner penalty of `Anchored`; a constraint as it is."""
    if penalty.is_constraint:
        return penalty
    if isinstance(penalty, Anchored):
        return Anchored(change_penalty(penalty.penalty, **arguments), penalty.start)
    return type(penalty).from_config({**penalty.get_config(), **arguments})


def _ratios(rules: Sequence[Rule]) -> list[float]:
    """Return the strengths of the rules in units of the first."""
    return [rule.penalty.strength / rules[0].penalty.strength for rule in rules]
