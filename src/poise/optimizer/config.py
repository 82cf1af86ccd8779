"""A penalized optimizer as a configuration, from which Keras makes it again, and as a line of text."""

from typing import Any

import keras

from poise.penalties.base import Schedule
from poise.rules.rule import Rule


def config_of(optimizer: Any) -> dict[str, Any]:
    """Return the configuration of a `PenalizedOptimizer`, with the current strengths."""
    rules = [keras.saving.serialize_keras_object(rule) for rule in optimizer.rules]
    for rule, config in zip(optimizer.rules, rules, strict=True):
        argument = rule.penalty.strength_argument
        if argument is not None and not isinstance(rule.penalty.strength, Schedule):
            _innermost(config["config"]["penalty"])[argument] = optimizer.strength[rule.name]
    return {
        "name": optimizer.name,
        "inner_optimizer": keras.saving.serialize_keras_object(optimizer.inner_optimizer),
        "rules": rules,
        "update": optimizer.update,
        "observe_every": optimizer.observe_every,
        "resolved": optimizer.resolved,
    }


def read_config(config: dict[str, Any], custom_objects: dict[str, Any] | None) -> tuple[dict[str, Any], dict | None]:
    """Return the arguments of `PenalizedOptimizer` and what the rules resolved to, from a configuration."""
    arguments = dict(config)
    resolved = arguments.pop("resolved", None)
    inner = keras.saving.deserialize_keras_object(arguments["inner_optimizer"], custom_objects=custom_objects)
    rules = [keras.saving.deserialize_keras_object(rule, custom_objects=custom_objects) for rule in arguments["rules"]]
    return {**arguments, "inner_optimizer": inner, "rules": rules}, resolved


def describe(optimizer: Any) -> str:
    """Return the line that shows an optimizer: its inner optimizer, its update, and the penalties with strengths."""
    rules = ", ".join(f"{rule.name!r}: {_describe_rule(rule, optimizer)}" for rule in optimizer.rules)
    inner = type(optimizer.inner_optimizer).__name__
    return f"<PenalizedOptimizer {inner}, update={optimizer.update!r}, rules={{{rules}}}>"


def _describe_rule(rule: Rule, optimizer: Any) -> str:
    if rule.penalty.strength_argument is None:
        return repr(rule.penalty)
    is_scheduled = isinstance(rule.penalty.strength, Schedule)
    return f"{type(rule.penalty).__name__}({'schedule' if is_scheduled else f'{optimizer.strength[rule.name]:g}'})"


def _innermost(penalty_config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the penalty that holds the strength, inside an `Anchored`."""
    config = penalty_config["config"]
    return _innermost(config["penalty"]) if "penalty" in config else config
