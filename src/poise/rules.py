"""Which variables get which penalty.

A rule selects variables by a glob on the tail of their path, by their role, or by a predicate, and gives them one
penalty. `resolve` turns rules and variables into a plan, once, when the optimizer is built; everything that could be
a mistake (a rule that matches nothing, two penalties that have no joint proximal step, an integer variable) is an
error there, before the first step.
"""

import collections
import difflib
import enum
import fnmatch
import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

import keras

from poise.layers import KERNEL, STATE, info_of
from poise.members import check_alone, numbers_of_members, path_of
from poise.penalties import Penalty
from poise.penalties.base import PACKAGE


class Role(enum.Enum):
    """What a variable is for, by the type of its layer (see `poise.layers`), or by its name where that is unknown."""

    WEIGHTS = "weights"
    """Kernels and embeddings: what a bare penalty is put on."""
    BIASES = "biases"
    SCALES = "scales"
    """Scales of normalisation layers and every other vector or scalar of unknown name."""
    EMBEDDINGS = "embeddings"
    ALL = "all"
    """Also slopes of `PReLU`, class tokens and position tables, which no other role selects."""

    def __repr__(self):
        return f"poise.{self.name}"


WEIGHTS, BIASES, SCALES, EMBEDDINGS, ALL = Role

Select: TypeAlias = Union[str, Role, Callable[[keras.Variable], bool], Sequence["Select"]]  # noqa: UP007


@keras.saving.register_keras_serializable(PACKAGE)
@dataclass(frozen=True)
class Rule:
    """One penalty for the variables that `select` picks and `exclude` does not.

    Args:
        select: a glob on the tail of the variable's path, matched by whole segments (`"head/kernel"`, `"*/kernel"`;
            `**` stands for any number of segments), a role (`poise.WEIGHTS`, `BIASES`, `SCALES`, `EMBEDDINGS`,
            `ALL`), a predicate on the variable, or a list of those.
        penalty: a `poise.Penalty`.
        exclude: like `select`, for the variables to leave out; None leaves out none.
        name: by which its strength is read and set; None for the text of `select`.

    Raises:
        TypeError: if `select` or `exclude` is none of these, or `penalty` is no poise penalty.

    Example:
        >>> import poise
        >>> poise.Rule("*/kernel", poise.L1(1e-4), exclude="head/*").name
        '*/kernel'
    """

    select: Select
    penalty: Penalty
    exclude: Select | None = None
    name: str | None = None

    def __post_init__(self):
        if not isinstance(self.penalty, Penalty):
            raise TypeError(
                f"A rule takes a poise penalty such as poise.L2(0.01); received {self.penalty!r}. The regularizers of "
                "a Keras model become rules by poise.adopt(model)."
            )
        text = _text_of(self.select, "select")
        if self.exclude is not None:
            _text_of(self.exclude, "exclude")
        if self.name is None:
            object.__setattr__(self, "name", text)

    def selects(self, variable):
        """Whether `select` picks the variable, whatever `exclude` says."""
        return _matches(self.select, variable)

    def excludes(self, variable):
        return self.exclude is not None and _matches(self.exclude, variable)

    def applies_to(self, variable):
        return self.selects(variable) and not self.excludes(variable)

    def get_config(self):
        return {
            "select": _to_config(self.select),
            "penalty": keras.saving.serialize_keras_object(self.penalty),
            "exclude": _to_config(self.exclude),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            _from_config(config["select"]),
            keras.saving.deserialize_keras_object(config["penalty"]),
            _from_config(config["exclude"]),
            config["name"],
        )


@dataclass(frozen=True)
class Plan:
    """Rules resolved against variables: `rules_of[i]` are the numbers of the rules of variable i."""

    rules_of: dict[int, list[int]]
    asleep: list[int]
    """The rules of which every variable is frozen, or state that training sets."""
    together: dict[int, list[int]]
    """By the number of a rule with a joint penalty the numbers of its variables, in the penalty's order."""

    @property
    def alone(self) -> dict[int, list[int]]:
        """`rules_of` without the variables of joint penalties."""
        joint = {number for members in self.together.values() for number in members}
        return {number: rules for number, rules in self.rules_of.items() if number not in joint}


def as_rules(rules) -> list[Rule]:
    """A penalty, a rule, or any number of those, as rules with names that differ.

    Rules of the same default name get the class of their penalty appended.

    Raises:
        TypeError: for anything else.
        ValueError: if two rules still have the same name.
    """
    if isinstance(rules, (Penalty, Rule)):
        rules = [rules]
    if isinstance(rules, (str, bytes, dict)) or not isinstance(rules, Iterable):
        raise TypeError(
            f"rules={rules!r} is a {type(rules).__name__}; give a penalty, a poise.Rule, or a list of those."
        )
    rules = [rule if isinstance(rule, Rule) else _rule_of(rule) for rule in rules]
    named = collections.Counter(rule.name for rule in rules)
    rules = [_with_class_in_name(rule) if named[rule.name] > 1 else rule for rule in rules]
    for name, times in collections.Counter(rule.name for rule in rules).items():
        if times > 1:
            raise ValueError(
                f"{times} rules are named {name!r}, so that no strength can be set by name. Give each a name=."
            )
    return rules


def resolve(rules: Sequence[Rule], variables, frozen=()) -> Plan:
    """Finds the rules of every variable.

    Args:
        rules: the rules, with names that differ.
        variables: the variables that are trained.
        frozen: variables of the model that are not, if they are known.

    Raises:
        ValueError: if a rule matches nothing, or a variable that no penalty can act on; if a penalty does not fit its
            variable; if two non-smooth penalties meet, or another one and a joint one; if a Keras regularizer and a
            rule do; if a joint penalty's members are not the variables that its rule selects.
    """
    variables = list(variables)
    rules_of = collections.defaultdict(list)
    asleep, together = [], {}
    for number, rule in enumerate(rules):
        matched = [i for i, variable in enumerate(variables) if rule.applies_to(variable)]
        if rule.penalty.members is not None:
            together[number] = numbers_of_members(rule, variables, frozen)
            _check_members(rule, [variables[i] for i in matched], [variables[i] for i in together[number]])
            matched = together[number]
        if not matched:
            if not any(rule.applies_to(variable) for variable in frozen) and not _means_state(rule, variables):
                raise ValueError(_why_nothing_matches(rule, variables, frozen))
            asleep.append(number)
        for i in matched:
            _check_variable(rule, variables[i])
            rules_of[i].append(number)
    for number in together:
        check_alone(number, together, rules, rules_of, variables)
    for i, numbers in rules_of.items():
        _check_meeting([rules[k] for k in numbers], path_of(variables[i]))
    return Plan(dict(rules_of), asleep, together)


def kind_of(variable) -> str:
    """`"kernel"`, the value of the role `EMBEDDINGS`, `BIASES` or `SCALES`, or one of the words of `poise.layers`."""
    return info_of(variable).role


def _matches(select, variable):
    if isinstance(select, str):
        return _matches_tail(select.split("/"), path_of(variable).split("/"))
    if isinstance(select, Role):
        kind = kind_of(variable)
        if select is ALL:
            return kind != STATE
        return kind in ((KERNEL, EMBEDDINGS.value) if select is WEIGHTS else (select.value,))
    if callable(select):
        return bool(select(variable))
    return any(_matches(one, variable) for one in select)


def _matches_tail(pattern, segments):
    """Whether the pattern, `**` standing for any number of segments, matches the last segments of a path."""
    if not pattern:
        return True
    if not segments:
        return all(part == "**" for part in pattern)
    if pattern[-1] == "**":
        return any(_matches_tail(pattern[:-1], segments[:end]) for end in range(len(segments), -1, -1))
    return fnmatch.fnmatchcase(segments[-1], pattern[-1]) and _matches_tail(pattern[:-1], segments[:-1])


def _text_of(select, argument):
    if isinstance(select, str) and select:
        return select
    if isinstance(select, Role):
        return select.value
    if callable(select):
        return getattr(select, "__name__", type(select).__name__)
    if isinstance(select, (list, tuple)) and select:
        return ", ".join(_text_of(one, argument) for one in select)
    raise TypeError(
        f"{argument}={select!r} selects nothing: use a glob such as '*/kernel', a role such as poise.WEIGHTS, a "
        "predicate on the variable, or a non-empty list of those."
    )


def _rule_of(penalty):
    """A bare penalty is one of kernels and embeddings, and a joint one that of its members."""
    if isinstance(penalty, Penalty) and penalty.members is not None:
        return Rule([glob.escape(path) for path in penalty.members], penalty, name="joint groups")
    return Rule(WEIGHTS, penalty)


def _with_class_in_name(rule):
    return Rule(rule.select, rule.penalty, rule.exclude, f"{rule.name} {type(rule.penalty).__name__}")


def _why_nothing_matches(rule, variables, frozen):
    paths = [path_of(variable) for variable in [*variables, *frozen]]
    tails = {"/".join(path.split("/")[-2:]): path for path in paths} | {path: path for path in paths}
    near = [path for glob in _globs(rule.select) for path in difflib.get_close_matches(glob, tails, n=3, cutoff=0.5)]
    nearest = f" Nearest: {', '.join(map(repr, dict.fromkeys(near)))}." if near else ""
    excluded = [variable for variable in variables if rule.selects(variable)]
    if excluded:
        nearest = f" Its exclude leaves out all {len(excluded)} that it selects."
    hint = "" if frozen else " A frozen variable is not trained and not seen here."
    return (
        f"Rule {rule.name!r} matches no variable of the {len(variables)} that are trained.{nearest}{hint} "
        "poise.summary(model) lists all."
    )


def _globs(select):
    if isinstance(select, str):
        return [select]
    return [glob for one in select for glob in _globs(one)] if isinstance(select, (list, tuple)) else []


def _means_state(rule, variables):
    """Whether a rule for scales finds only those of float8, which no penalty can act on."""
    select = rule.select if isinstance(rule.select, (list, tuple)) else [rule.select]
    return SCALES in select and any(kind_of(variable) == STATE for variable in variables)


def _check_variable(rule, variable):
    path = path_of(variable)
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"Rule {rule.name!r} matches {path!r}, which is {dtype} and has no gradient. Exclude it from the rule."
        )
    if kind_of(variable) == STATE:
        raise ValueError(
            f"Rule {rule.name!r} matches {path!r}, which is state and no parameter: training sets it to a value of its "
            "own, such as a scale of float8. Exclude it from the rule."
        )
    regularizer = getattr(variable, "regularizer", None)
    if regularizer is not None:
        raise ValueError(
            f"Rule {rule.name!r} matches {path!r}, which still carries the Keras regularizer "
            f"{type(regularizer).__name__}: it would be penalised twice. Move it into a rule with poise.adopt(model), "
            "or build the layer without it."
        )
    if rule.penalty.members is not None:
        return
    try:
        rule.penalty.bound(info_of(variable).sides).check(variable.shape)
    except ValueError as error:
        raise ValueError(f"Rule {rule.name!r} cannot act on {path!r}: {error}") from error


def _check_members(rule, matched, members):
    """Raises ValueError unless a rule with a joint penalty selects its members and nothing else."""
    named = _globs(rule.select)
    for path, variable in zip(rule.penalty.members, members, strict=True):
        is_selected = rule.selects(variable) or path in named or glob.escape(path) in named
        if not is_selected or rule.excludes(variable):
            raise ValueError(
                f"Rule {rule.name!r} leaves out {path!r}, which is a member of its penalty. Select all members: "
                "poise.Rule([*penalty.members], penalty)."
            )
    for variable in matched:
        if not any(variable is member for member in members):
            raise ValueError(
                f"Rule {rule.name!r} selects {path_of(variable)!r}, which is no member of its penalty, so that it has "
                "no groups there. Select the members alone: poise.Rule([*penalty.members], penalty)."
            )


def _check_meeting(rules, path):
    rough = [rule for rule in rules if not rule.penalty.smooth]
    if len(rough) < 2:
        return
    kinds = {type(rule.penalty).__name__ for rule in rough}
    if kinds == {"L1", "GroupLasso"}:
        instead = "Use poise.SparseGroupLasso, which is their sum, in one rule"
    elif kinds <= {"L1", "ElasticNet"}:
        instead = "Add their strengths in one rule"
    else:
        instead = "Keep one of them"
    names = " and ".join(repr(rule.name) for rule in rough)
    raise ValueError(
        f"Rules {names} put {len(rough)} non-smooth penalties on {path!r}, and their sum has no proximal step. "
        f"{instead}, or exclude the variable from all but one."
    )


def _to_config(select):
    if isinstance(select, Role):
        return {"role": select.value}
    if isinstance(select, (list, tuple)):
        return [_to_config(one) for one in select]
    return keras.saving.serialize_keras_object(select) if callable(select) else select


def _from_config(config):
    if isinstance(config, list):
        return [_from_config(one) for one in config]
    if isinstance(config, dict):
        return Role(config["role"]) if "role" in config else keras.saving.deserialize_keras_object(config)
    return config
