"""The arguments of `poise.fit_path`, checked before anything is trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from poise.optimizer.lookup import find_penalized_optimizer
from poise.path.models import compiled_update, is_whole_batch
from poise.path.settling import default_steps
from poise.path.training import Training
from poise.penalties.base import Schedule
from poise.rules.rule import Rule, as_rules
from poise.validation import LARGEST, validate_count


def check_rules(model: Any, rules: Any) -> list[Rule]:
    """Return the rules of a path; if `rules` is None, the rules that the model was compiled with.

    Raises:
        ValueError: If there are none, a strength is not a positive number, or a constraint cannot be part of a path.
    """
    if rules is None:
        compiled = find_penalized_optimizer(model)
        if compiled is None:
            raise ValueError(
                "rules is None, and the model was not compiled with poise.PenalizedOptimizer. Pass a penalty, such as "
                "poise.fit_path(model, x, y, poise.L1())."
            )
        rules = compiled.rules
    rules = as_rules(rules)
    if not rules:
        raise ValueError("rules is empty. Pass a penalty, such as poise.L1().")
    for rule in rules:
        strength = rule.penalty.strength
        if rule.penalty.is_constraint and (rule is rules[0] or rule.penalty.strength_argument is not None):
            raise ValueError(
                f"Rule {rule.name!r} has the constraint {rule.penalty!r}. A path varies the strength of the first "
                "rule and scales those of the others, which is not possible for a constraint. Put a penalty first. For "
                "poise.TopK, train once per sparsity."
            )
        if isinstance(strength, Schedule):
            raise ValueError(
                f"Rule {rule.name!r} has a scheduled strength, but a path trains each network at a constant strength. "
                "Pass a number as its strength."
            )
        if not strength > 0:
            raise ValueError(
                f"Rule {rule.name!r} has the strength {strength:g}. A path varies the strength of the first rule and "
                "scales the other rules in proportion, so every strength must be > 0. Pass one, or remove the rule."
            )
    return rules


def check_strengths(strengths: Any) -> int | np.ndarray:
    """Return a number of strengths, or the strengths themselves in ascending order without repetition.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are none, or one is negative or not finite.
    """
    if isinstance(strengths, (int, np.integer)) and not isinstance(strengths, bool):
        return validate_count("strengths", strengths, 1)
    try:
        values = np.asarray(strengths, dtype="float64")
    except (TypeError, ValueError):
        raise TypeError(f"strengths must be an int or an array of numbers >= 0, got {strengths!r}.") from None
    if values.ndim != 1 or not len(values):
        raise ValueError(f"strengths must be an int or one row of numbers, got an array of shape {values.shape}.")
    if not np.isfinite(values).all() or (values < 0).any():
        wrong = values[~np.isfinite(values) | (values < 0)][0]
        raise ValueError(f"strengths must be finite numbers >= 0, got {float(wrong)!r} among them.")
    if values.max() > LARGEST:
        raise ValueError(f"strengths must be at most {LARGEST:.2g} (float32), got {float(values.max())!r} among them.")
    return np.unique(values)


def check_adaptive(adaptive: Any) -> None:
    """Check the number of adaptive stages.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is negative.
    """
    validate_count("adaptive", adaptive, 0)


def complete_training(
    model: Any, rules: Sequence[Rule], training: Training | None, rows: int | None, adaptive: int = 0
) -> Training:
    """Return the training with `update` and `settle` filled in.

    Args:
        model: compiled model.
        rules: rules of the path.
        training: how lanes are trained; None for the defaults.
        rows: number of rows in memory; None for a stream.
        adaptive: number of adaptive stages. Default: 0.

    Raises:
        ValueError: If the loss compares the rows of a batch, and the training has smaller batches.
    """
    is_whole = is_whole_batch(model)
    if is_whole and rows is None:
        raise ValueError(
            "The loss of the model compares all rows with each other, which a stream of batches does not allow. Pass "
            "x and y as arrays."
        )
    if training is None:
        training = Training.full_batch() if is_whole or (adaptive and rows is not None) else Training()
    if is_whole and training.epochs and training.batch_size is not None:
        raise ValueError(
            f"The loss of the model compares all rows with each other, and training has batch_size="
            f"{training.batch_size}. Pass poise.Training(batch_size=None) or poise.Training.full_batch()."
        )
    if training.update is None:
        training = replace(training, update=compiled_update(model))
    has_zeros = training.update != "coupled" and not all(rule.penalty.smooth for rule in rules)
    if training.settle is None:
        training = replace(training, settle=default_steps(model, rules, training, rows) if has_zeros else 0)
    return training


def has_class_targets(model: Any) -> bool | None:
    """Return True if the loss says that the targets are classes; None if it does not say."""
    loss = getattr(model, "loss", None)
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
    return True if "crossentropy" in str(name).lower() else None
