"""Lanes that are trained in this process, without the checks of `poise.fit_path`."""

from typing import Any

import keras

from poise.path.arguments import complete_training
from poise.path.executors.base import Problem
from poise.path.executors.in_process import InProcessExecutor
from poise.path.models import check_model, resolve_rules
from poise.path.runner import LaneRunner
from poise.rules.rule import as_rules


def runner_of(model, rules, data, replicas, training, start_executor=InProcessExecutor) -> Any:
    """A runner of the lanes of a compiled model; data are (x, y, sample_weight or None)."""
    check_model(model)
    rules = as_rules(rules)
    training = complete_training(model, rules, training, len(keras.tree.flatten(data)[0]))
    assert training.update is not None
    problem = Problem(model, rules, resolve_rules(model, rules), training.update, data)
    return LaneRunner(problem, list(replicas), training, start_executor)
