"""Which rules act on which variables: rules resolved against the variables of a model, once, and kept.

Everything that could be a mistake (a rule that matches nothing, two penalties without a common proximal step, an
integer variable) is an error here, before the first step. The result is saved with the optimizer and restored by the
position of the variables in the model: Keras drops prefixes of paths and renames layers on load, so that matching the
rules a second time could move them to other variables.
"""

import collections
import difflib
import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from poise.rules.layers import info_of
from poise.rules.members import LIST_VARIABLES, check_alone, numbers_of_members, path_of
from poise.rules.rule import Role, Rule, kind_of
from poise.rules.variable_info import STATE


@dataclass(frozen=True)
class Plan:
    """Rules resolved against variables.

    Attributes:
        rules_of: Maps the number of a variable to the numbers of its rules.
        inactive: The inactive rules: all their variables are frozen, or state that training sets.
        joint: Maps the number of a rule with a joint penalty to the numbers of its variables, in the penalty's order.
        config: What `resolve` takes as `saved`: JSON-compatible, with the variables by their positions.
    """

    rules_of: dict[int, list[int]]
    inactive: list[int]
    joint: dict[int, list[int]]
    config: dict[str, Any]

    @property
    def single(self) -> dict[int, list[int]]:
        """`rules_of` without the variables of joint penalties."""
        joint = {number for members in self.joint.values() for number in members}
        return {number: rules for number, rules in self.rules_of.items() if number not in joint}


def resolve(
    rules: Sequence[Rule],
    variables: Iterable[Any],
    weights: Iterable[Any] = (),
    saved: dict[str, Any] | None = None,
    hint: str = LIST_VARIABLES,
) -> Plan:
    """Find the rules of every variable.

    Args:
        rules: The rules, with names that differ.
        variables: The variables that are trained.
        weights: All weights of the model in its order, including frozen ones. Default: empty, for an unknown model.
        saved: What rules of these names resolved to before (`Plan.config`). Default: None, which matches all rules.
        hint: How to list the variables, a sentence for messages. Default: by `poise.summary`.

    Raises:
        ValueError: If a rule matches nothing, or a variable that no penalty can act on; if a penalty does not fit its
            variable; if a variable has two non-smooth penalties, a joint penalty and another one, or a Keras
            regularizer and a rule; if a joint penalty's members are not the variables that its rule selects; if a
            variable of a saved rule cannot be identified.
    """
    variables, weights = list(variables), list(weights)
    known = {id(weight) for weight in weights}
    whole = bool(weights) and all(id(variable) in known for variable in variables)
    weights = weights if whole else variables
    numbers = {id(variable): number for number, variable in enumerate(variables)}
    places = {id(weight): place for place, weight in enumerate(weights)}
    frozen = [weight for weight in weights if id(weight) not in numbers]
    restored = {} if saved is None else _restore(saved, rules, variables, weights, whole)
    rules_of = collections.defaultdict(list)
    inactive: list[int] = []
    joint: dict[int, list[int]] = {}
    positions: dict[Any, list[int]] = {}
    for number, rule in enumerate(rules):
        is_joint = rule.penalty.members is not None
        if rule.name in restored:
            chosen = restored[rule.name]
        elif is_joint:
            chosen = [variables[i] for i in numbers_of_members(rule, variables, frozen, hint)]
            _check_members(rule, [variable for variable in variables if rule.applies_to(variable)], chosen)
        else:
            chosen = [weight for weight in weights if rule.applies_to(weight)]
            if not chosen and not _means_state(rule, variables):
                raise ValueError(f"{_why_nothing_matches(rule, variables, frozen)} {hint}")
        positions[rule.name] = [places[id(variable)] for variable in chosen]
        matched = [numbers[id(variable)] for variable in chosen if id(variable) in numbers]
        if is_joint:
            _check_trained(rule, chosen, numbers)
            joint[number] = matched
        if not matched:
            inactive.append(number)
        for i in matched:
            _check_variable(rule, variables[i])
            rules_of[i].append(number)
    for number in joint:
        check_alone(number, joint, rules, rules_of, variables)
    for i, numbers_of_rules in rules_of.items():
        _check_meeting([rules[k] for k in numbers_of_rules], path_of(variables[i]))
    config = {
        "weights": [[path_of(weight), list(weight.shape)] for weight in weights],
        "trained": [places[id(variable)] for variable in variables],
        "whole": whole,
        "rules": positions,
    }
    return Plan(dict(rules_of), inactive, joint, config)


def _restore(
    saved: Mapping[str, Any], rules: Sequence[Rule], variables: list[Any], weights: list[Any], whole: bool
) -> dict[Any, list[Any]]:
    """Return by the name of each saved rule its variables.

    They are found by position among all weights of the model, which freezing does not change; if the model is not
    known, among the trained variables; and if the two lists differ in number or form, by path.

    Raises:
        ValueError: If a variable cannot be identified.
    """
    before = [(path, tuple(shape)) for path, shape in saved["weights"]]
    by_model = whole and saved["whole"]
    places, now = (range(len(before)), weights) if by_model else (saved["trained"], variables)
    if _are_alike([before[place] for place in places], now) and (by_model or not _is_permuted(before, places, now)):
        by_place = dict(zip(places, now, strict=True))
        return {
            name: [by_place[place] for place in of_rule if place in by_place]
            for name, of_rule in saved["rules"].items()
        }
    restored = {}
    for rule in rules:
        if rule.name in saved["rules"]:
            of_rule = saved["rules"][rule.name]
            visible = [place for place in of_rule if whole or place in saved["trained"]]
            restored[rule.name] = [_find_by_path(rule, before[place], weights) for place in visible]
            if rule.penalty.members is None:  # the paths are the old ones, so that new ones can be matched
                paths = {path for path, _ in before}
                restored[rule.name] += [w for w in weights if path_of(w) not in paths and rule.applies_to(w)]
    return restored


def _are_alike(before: Sequence[tuple[str, tuple[int, ...]]], now: Sequence[Any]) -> bool:
    """Whether the weights have the shapes and last names of those before, one by one."""

    def form(path: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        return re.sub(r"_\d+$", "", path.split("/")[-1]), tuple(shape)

    return [form(path, shape) for path, shape in before] == [form(path_of(weight), weight.shape) for weight in now]


def _is_permuted(before: Sequence[tuple[str, tuple[int, ...]]], places: Iterable[int], now: Sequence[Any]) -> bool:
    """Whether a weight has the path that another one had before."""
    paths = [before[place][0] for place in places]
    return any(path_of(weight) != path and path_of(weight) in paths for path, weight in zip(paths, now, strict=True))


def _find_by_path(rule: Rule, before: tuple[str, tuple[int, ...]], weights: Iterable[Any]) -> Any:
    path, shape = before
    matches = [weight for weight in weights if path_of(weight) == path and tuple(weight.shape) == shape]
    if len(matches) != 1:
        count = "no variable" if not matches else f"{len(matches)} variables"
        raise ValueError(
            f"Rule {rule.name!r} cannot be restored: it was saved for {path!r} of shape {shape}, and this model has "
            f"{count} with that path and shape. Compile with a new optimizer: "
            "poise.PenalizedOptimizer(inner_optimizer, rules)."
        )
    return matches[0]


def _check_trained(rule: Rule, chosen: Iterable[Any], numbers: Mapping[int, int]) -> None:
    """Raise ValueError if a member of a joint rule is frozen."""
    for variable in chosen:
        if id(variable) not in numbers:
            raise ValueError(
                f"Rule {rule.name!r}: the member {path_of(variable)!r} is frozen (trainable=False) and cannot become "
                "zero. Set trainable=True, or leave it out of the penalty's members."
            )


def _why_nothing_matches(rule: Rule, variables: Sequence[Any], frozen: Sequence[Any]) -> str:
    """The message for a rule that matches no variable."""
    paths = [path_of(variable) for variable in [*variables, *frozen]]
    separator = getattr(variables[0], "separator", "/") if variables else "/"
    tails = {separator.join(path.split(separator)[-2:]): path for path in paths} | {path: path for path in paths}
    near = [path for glob in _globs(rule.select) for path in difflib.get_close_matches(glob, tails, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(map(repr, dict.fromkeys(near)))}?" if near else ""
    excluded = [variable for variable in variables if rule.selects(variable)]
    if excluded:
        hint = f" Its exclude argument removes all {len(excluded)} variables that its select argument picks."
    if not frozen:
        hint += " Frozen variables are not counted."
    return f"Rule {rule.name!r} matches none of the {len(variables)} trained variables.{hint}"


def _globs(select: Any) -> list[str]:
    """The globs in a selection."""
    if isinstance(select, str):
        return [select]
    return [glob for part in select for glob in _globs(part)] if isinstance(select, (list, tuple)) else []


def _means_state(rule: Rule, variables: Iterable[Any]) -> bool:
    """Whether a rule for scales finds only the scales of float8, on which no penalty can act."""
    select = rule.select if isinstance(rule.select, (list, tuple)) else [rule.select]
    return Role.SCALES in select and any(kind_of(variable) == STATE for variable in variables)


def _check_variable(rule: Rule, variable: Any) -> None:
    """Raise ValueError if the penalty of a rule cannot act on a variable."""
    path = path_of(variable)
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"Rule {rule.name!r} matches {path!r}, which is {dtype} and has no gradient. Exclude it from the rule."
        )
    if kind_of(variable) == STATE:
        raise ValueError(
            f"Rule {rule.name!r} matches {path!r}, which is not a trainable parameter (for example, a float8 scale). "
            "Exclude it from the rule."
        )
    regularizer = getattr(variable, "regularizer", None)
    if regularizer is not None:
        raise ValueError(
            f"Rule {rule.name!r} matches {path!r}, which still has the Keras regularizer "
            f"{type(regularizer).__name__} and would be penalized twice. Move the regularizer into a rule with "
            "poise.adopt_regularizers(model), or build the layer without it."
        )
    if rule.penalty.members is not None:
        return
    try:
        rule.penalty.bind(info_of(variable).sides).check(variable.shape)
    except ValueError as error:
        raise ValueError(f"Rule {rule.name!r} cannot act on {path!r}: {error}") from error


def _check_members(rule: Rule, matched: Iterable[Any], members: Sequence[Any]) -> None:
    """Raise ValueError unless a rule with a joint penalty selects its members and nothing else."""
    named = _globs(rule.select)
    for path, variable in zip(rule.penalty.members or (), members, strict=True):
        is_selected = rule.selects(variable) or path in named or glob.escape(path) in named
        if not is_selected or rule.excludes(variable):
            raise ValueError(
                f"Rule {rule.name!r} does not select {path!r}, a member of its penalty. Select all members: "
                "poise.Rule([*penalty.members], penalty)."
            )
    for variable in matched:
        if not any(variable is member for member in members):
            raise ValueError(
                f"Rule {rule.name!r} selects {path_of(variable)!r}, which is not a member of its penalty. Select only "
                "the members: poise.Rule([*penalty.members], penalty)."
            )


def _check_meeting(rules: Iterable[Rule], path: str) -> None:
    """Raise ValueError if a variable has two non-smooth penalties."""
    rough = [rule for rule in rules if not rule.penalty.smooth]
    if len(rough) < 2:
        return
    names_of_penalties = {type(rule.penalty).__name__ for rule in rough}
    if names_of_penalties == {"L1", "GroupLasso"}:
        instead = "Use poise.SparseGroupLasso, which is their sum, in one rule"
    elif names_of_penalties <= {"L1", "ElasticNet"}:
        instead = "Add their strengths in one rule"
    else:
        instead = "Keep one of them"
    names = " and ".join(repr(rule.name) for rule in rough)
    raise ValueError(
        f"Rules {names} put {len(rough)} non-smooth penalties on {path!r}, and no proximal step is known for their "
        f"sum. {instead}, or exclude the variable from all but one."
    )
