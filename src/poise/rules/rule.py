"""Which variables get which penalty.

A rule selects variables by a glob on the tail of their path, by their role, by their layer, or by a predicate, and puts
one penalty on them. `poise.rules.plan` resolves rules against the variables of a model.
"""

import collections
import enum
import fnmatch
import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

import keras

from poise.penalties import Penalty
from poise.penalties.base import PACKAGE
from poise.rules.layers import info_of
from poise.rules.members import path_of
from poise.rules.variable_info import KERNEL, STATE


class Role(enum.Enum):
    """What a variable is for, by the type of its layer, or by its name if the layer is unknown.

    Attributes:
        KERNELS: Kernels, recurrent kernels and other matrices that multiply inputs.
        EMBEDDINGS: Embedding tables.
        BIASES: Biases.
        SCALES: Scales of normalization layers, and other vectors and scalars of unknown purpose.
        ALL: Every trainable variable, including slopes of `PReLU`, class tokens and position tables, which no other
            role selects.
    """

    KERNELS = "kernels"
    EMBEDDINGS = "embeddings"
    BIASES = "biases"
    SCALES = "scales"
    ALL = "all"

    def __repr__(self) -> str:
        return f"poise.Role.{self.name}"


PENALIZED_BY_DEFAULT = (Role.KERNELS, Role.EMBEDDINGS)
"""The roles that a bare penalty acts on."""
DEFAULT_NAME = "kernels"
"""The name of the rule of a bare penalty."""
COUNTERPARTS = {
    "L1": "poise.L1",
    "L2": "poise.L2",
    "L1L2": "poise.ElasticNet",
    "OrthogonalRegularizer": "poise.MutualCoherence",
}
"""Maps the name of a Keras regularizer to the equal poise penalty."""

Select: TypeAlias = Union[  # noqa: UP007
    str, Role, keras.Variable, keras.layers.Layer, Callable[[keras.Variable], bool], Sequence["Select"]
]


@keras.saving.register_keras_serializable(PACKAGE)
@dataclass(frozen=True)
class Rule:
    """Put one penalty on the variables that `select` picks and `exclude` does not.

    Args:
        select: Which variables: one of the following, or a list of them.

            - A glob on the last segments of the variable's path, such as `"head/kernel"` or `"*/kernel"`. `**` stands
              for any number of segments, and a leading `/` anchors the glob at the start of the path.
            - A `poise.Role`.
            - A built Keras layer or model (all its variables) or a variable. They are saved by their paths.
            - A predicate: a function of a variable that returns a bool.

        penalty: A `poise.Penalty`.
        exclude: Which variables to leave out, in the same forms as `select`. Default: None, which leaves out none.
        name: Name under which the strength is read and set. Default: None, which uses the text of `select`.

    Raises:
        TypeError: If `select` or `exclude` is none of these, or `penalty` is not a poise penalty.
        ValueError: If a layer is not built.

    Examples:
        >>> import poise
        >>> poise.Rule("*/kernel", poise.L1(1e-4), exclude="head/*").name
        '*/kernel'
    """

    select: Select
    penalty: Penalty
    exclude: Select | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        check_penalty(self.penalty)
        text = _text_of(self.select, "select")
        if self.exclude is not None:
            _text_of(self.exclude, "exclude")
        if self.name is None:
            object.__setattr__(self, "name", text)

    def selects(self, variable: keras.Variable) -> bool:
        """Whether `select` picks the variable, whatever `exclude` says."""
        return _matches(self.select, variable)

    def excludes(self, variable: keras.Variable) -> bool:
        """Whether `exclude` leaves the variable out."""
        return self.exclude is not None and _matches(self.exclude, variable)

    def applies_to(self, variable: keras.Variable) -> bool:
        """Whether `select` picks the variable and `exclude` does not leave it out."""
        return self.selects(variable) and not self.excludes(variable)

    def get_config(self) -> dict[str, Any]:
        return {
            "select": _to_config(self.select),
            "penalty": keras.saving.serialize_keras_object(self.penalty),
            "exclude": _to_config(self.exclude),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Rule":
        return cls(
            _from_config(config["select"]),
            keras.saving.deserialize_keras_object(config["penalty"]),
            _from_config(config["exclude"]),
            config["name"],
        )


def check_penalty(penalty: Any) -> None:
    """Raise TypeError if the argument is not a poise penalty."""
    if isinstance(penalty, Penalty):
        return
    if isinstance(penalty, keras.regularizers.Regularizer):
        counterpart = COUNTERPARTS.get(type(penalty).__name__, "a poise penalty such as poise.L2(0.01)")
        raise TypeError(
            f"A rule takes a poise penalty, got keras.regularizers.{type(penalty).__name__}. Use {counterpart} "
            "instead. To move the regularizers of a whole model to the optimizer, use poise.adopt_regularizers(model)."
        )
    raise TypeError(f"A rule takes a poise penalty such as poise.L2(0.01), got {penalty!r}.")


def as_rules(rules: Any) -> list[Rule]:
    """Return a penalty, a rule, or any number of those, as rules with names that differ.

    Rules of the same name get the class of their penalty appended.

    Raises:
        TypeError: For anything else.
        ValueError: If two rules still have the same name.
    """
    if isinstance(rules, (Penalty, Rule)):
        rules = [rules]
    if isinstance(rules, keras.regularizers.Regularizer):
        check_penalty(rules)
    if isinstance(rules, (str, bytes, dict)) or not isinstance(rules, Iterable):
        raise TypeError(
            f"rules must be a penalty, a poise.Rule, or a list of those, got {rules!r} of type {type(rules).__name__}."
        )
    rules = [rule if isinstance(rule, Rule) else _rule_of(rule) for rule in rules]
    named = collections.Counter(rule.name for rule in rules)
    rules = [_with_class_in_name(rule) if named[rule.name] > 1 else rule for rule in rules]
    for name, times in collections.Counter(rule.name for rule in rules).items():
        if times > 1:
            raise ValueError(
                f"{times} rules are named {name!r}. Pass a different name= to each rule, so that its strength can be "
                "set by name."
            )
    return rules


def kind_of(variable: Any) -> str:
    """Return what a variable is for: one of the words of `poise.rules.variable_info`, such as `"kernel"`."""
    return info_of(variable).role


def _matches(select: Any, variable: keras.Variable) -> bool:
    if isinstance(select, str):
        paths = getattr(variable, "paths", None) or [path_of(variable)]
        return any(_matches_path(select, path, getattr(variable, "separator", "/")) for path in paths)
    if isinstance(select, Role):
        kind = kind_of(variable)
        if select is Role.ALL:
            return kind != STATE
        return kind == (KERNEL if select is Role.KERNELS else select.value)
    if isinstance(select, keras.Variable):
        return variable is select
    if isinstance(select, keras.layers.Layer):
        return kind_of(variable) != STATE and any(variable is weight for weight in select.weights)
    if callable(select):
        return bool(select(variable))
    return any(_matches(part, variable) for part in select)


def _matches_path(pattern: str, path: str, separator: str) -> bool:
    parts, segments = pattern.split(separator), path.split(separator)
    if pattern.startswith(separator):
        parts, segments = ["", *parts[1:]], ["", *segments]
    return _matches_tail(parts, segments)


def _matches_tail(pattern: list[str], segments: list[str]) -> bool:
    """Whether the pattern, `**` standing for any number of segments, matches the last segments of a path."""
    if not pattern:
        return True
    if not segments:
        return all(part == "**" for part in pattern)
    if pattern[-1] == "**":
        return any(_matches_tail(pattern[:-1], segments[:end]) for end in range(len(segments), -1, -1))
    return fnmatch.fnmatchcase(segments[-1], pattern[-1]) and _matches_tail(pattern[:-1], segments[:-1])


def _text_of(select: Any, argument: str) -> str:
    if isinstance(select, str) and select:
        return select
    if isinstance(select, Role):
        return select.value
    if isinstance(select, keras.layers.Layer):
        layer: Any = select
        if not layer.built:
            raise ValueError(
                f"{argument}: the layer {layer.name!r} is not built and has no variables yet. Build the model first, "
                "for example with keras.Input, or use a glob such as 'head/kernel'."
            )
        return layer.name
    if isinstance(select, keras.Variable):
        return path_of(select)
    if callable(select):
        return getattr(select, "__name__", type(select).__name__)
    if isinstance(select, (list, tuple)) and select:
        return ", ".join(_text_of(part, argument) for part in select)
    raise TypeError(
        f"{argument} must be a glob such as '*/kernel', a role such as poise.Role.KERNELS, a Keras layer or variable, "
        f"a predicate on a variable, or a non-empty list of those, got {select!r}."
    )


def _rule_of(penalty: Any) -> Rule:
    """The rule of a penalty without one: of kernels and embeddings, or of the members of a joint penalty."""
    if isinstance(penalty, Penalty) and penalty.members is not None:
        return Rule([glob.escape(path) for path in penalty.members], penalty, name="joint groups")
    return Rule(list(PENALIZED_BY_DEFAULT), penalty, name=DEFAULT_NAME)


def _with_class_in_name(rule: Rule) -> Rule:
    return Rule(rule.select, rule.penalty, rule.exclude, f"{rule.name} {type(rule.penalty).__name__}")


def _to_config(select: Any) -> Any:
    if isinstance(select, Role):
        return {"role": select.value}
    if isinstance(select, keras.layers.Layer):
        return [_to_config(weight) for weight in select.weights]
    if isinstance(select, keras.Variable):
        return "/" + glob.escape(path_of(select))
    if isinstance(select, (list, tuple)):
        return [_to_config(part) for part in select]
    return keras.saving.serialize_keras_object(select) if callable(select) else select


def _from_config(config: Any) -> Any:
    if isinstance(config, list):
        return [_from_config(part) for part in config]
    if isinstance(config, dict):
        return Role(config["role"]) if "role" in config else keras.saving.deserialize_keras_object(config)
    return config
