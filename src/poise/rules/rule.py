"""Which variables get which penalty.

A rule selects variables by a glob on the tail of their path, by their role, or by a predicate, and gives them one
penalty. `poise.rules.plan` resolves rules against the variables of a model.
"""

import collections
import enum
import fnmatch
import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

import keras

from poise.penalties import Penalty
from poise.penalties.base import PACKAGE
from poise.rules.layers import KERNEL, STATE, info_of
from poise.rules.members import path_of


class Role(enum.Enum):
    """What a variable is for, by the type of its layer (see `poise.rules.layers`), or by its name where that is unknown."""

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


def kind_of(variable) -> str:
    """`"kernel"`, the value of the role `EMBEDDINGS`, `BIASES` or `SCALES`, or one of the words of `poise.rules.layers`."""
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
