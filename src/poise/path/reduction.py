"""Leave out inputs that an adaptive stage holds at zero: training them would change nothing.

An input is left out if all groups of weights that read it have an infinite factor in every lane. The smaller problem
has the same initial weights for the other inputs, and its trained weights are put back among exact zeros.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

import keras
import numpy as np

from poise._keras_internals import loss_weights
from poise.compaction import compact
from poise.compaction.input_groups import restrict_groups
from poise.compaction.inputs import input_kernels
from poise.optimizer.targets import Target
from poise.path.executors.base import Problem
from poise.path.models import inner_optimizer
from poise.penalties import GroupLasso, SparseGroupLasso
from poise.penalties.axes import Axes

WORTHWHILE = 2_000_000
"""Weights of all lanes that a reduction must leave out, or compiling its programs takes longer than it saves."""

Factors = Mapping[tuple[int, int], np.ndarray]


class InputReduction:
    """Make a problem smaller, and its trained weights large again.

    This is possible where dense kernels read the columns of a table, and a penalty of groups of columns is the only one
    of each of these kernels.

    Args:
        problem: problem of the path.
        targets: targets of its penalties.
    """

    def __init__(self, problem: Problem, targets: Sequence[Target]):
        self._problem, self._targets = problem, targets

    def find_inputs(self, factors: Factors) -> np.ndarray | None:
        """Return the positions of the inputs to train; None if leaving out the others is impossible or of no use.

        Args:
            factors: factors of the penalties, (replicas, strengths, groups or *shape).
        """
        if not any(np.isinf(value).any() for value in factors.values()) or not self._kernels:
            return None
        is_kept = np.zeros(self._problem.data[0].shape[1], bool)
        weights = 0
        for target, number in self._kernels.values():
            if (target.index, number) not in factors:
                return None
            is_held = np.isinf(factors[target.index, number])
            is_dropped = np.append(is_held.all(axis=(0, 1)), False)  # inputs in no group are kept
            is_kept |= ~is_dropped[_segments(target)]
            weights += target.shape[1] * is_held.shape[0] * is_held.shape[1]
        is_kept[0] |= not is_kept.any()
        return np.flatnonzero(is_kept) if (~is_kept).sum() * weights >= WORTHWHILE else None

    def count_values(self, values: int, inputs: np.ndarray) -> int:
        """Return how many of the numbers in the state of a lane are left."""
        weights = self._problem.model.weights
        total = sum(int(np.prod(weight.shape)) for weight in weights)
        shapes = [weights[position].shape for position in self._kernels]
        dropped = sum((rows - len(inputs)) * columns for rows, columns in shapes)
        return max(round(values * (total - dropped) / total), 1)

    def reduce_problem(self, inputs: np.ndarray) -> Problem:
        """Return the problem with some of the inputs. The initial weights of its model are of no use.

        Raises:
            TypeError: If a layer cannot be created from its configuration.
            ValueError: If the model cannot be rebuilt with fewer inputs.
        """
        problem, model = self._problem, self._problem.model
        clone: Any = keras.models.clone_model(model)
        for position, weight in enumerate(clone.weights):
            value = np.ones(weight.shape)  # only the inputs to leave out are dead
            if position in self._kernels:
                value[np.setdiff1d(np.arange(len(value)), inputs)] = 0.0
            weight.assign(value)
        smaller, features = compact(clone, drop_inputs=True)
        shapes = [
            (len(inputs), *weight.shape[1:]) if position in self._kernels else tuple(weight.shape)
            for position, weight in enumerate(model.weights)
        ]
        if [tuple(weight.shape) for weight in smaller.weights] != shapes or not np.array_equal(features, inputs):
            raise ValueError("The model cannot be rebuilt with fewer inputs.")
        for variable, other in zip(model.variables, smaller.variables, strict=True):
            if other.trainable != variable.trainable:
                other.trainable = variable.trainable
        inner = inner_optimizer(model)
        smaller.compile(type(inner).from_config(inner.get_config()), loss=model.loss, loss_weights=loss_weights(model))
        resolved = deepcopy(problem.resolved)
        paths = [path for path, _ in resolved["weights"]]
        resolved["weights"] = [[path, [*shape]] for path, shape in zip(paths, shapes, strict=True)]
        rules = [
            replace(rule, penalty=_reduce_penalty(rule.penalty, inputs))
            if self._kernels.keys() & {*resolved["rules"][rule.name]}
            else rule
            for rule in problem.rules
        ]
        x, *others = problem.data
        data = (np.ascontiguousarray(x[:, inputs]), *others)
        return Problem(smaller, rules, resolved, problem.update, data, problem.predicted_rows)

    def reduce_factors(self, factors: Factors, inputs: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        """Return the factors of the groups that are left."""
        reduced = dict(factors)
        for target, number in self._kernels.values():
            groups = np.unique(_segments(target)[inputs])
            reduced[target.index, number] = factors[target.index, number][..., groups[groups >= 0]]
        return reduced

    def reduce_starts(self, starts: Sequence[np.ndarray], inputs: np.ndarray) -> list[np.ndarray]:
        """Return the initial values of the trained variables that are left."""
        numbers = {target.index for target, _ in self._kernels.values()}
        return [start[inputs] if number in numbers else start for number, start in enumerate(starts)]

    def expand_weights(self, weights: Sequence[np.ndarray], inputs: np.ndarray) -> list[np.ndarray]:
        """Return the weights of the whole model, (replicas, strengths, *shape), of those of the smaller one."""
        expanded = [*weights]
        for position in self._kernels:
            weight = weights[position]
            shape = self._problem.model.weights[position].shape
            expanded[position] = np.zeros((*weight.shape[:2], *shape), weight.dtype)
            expanded[position][:, :, inputs] = weight
        return expanded

    @cached_property
    def _kernels(self) -> dict[int, tuple[Target, int]]:
        """By the position of a kernel that reads the inputs its target and the number of its rule; {} if impossible."""
        problem = self._problem
        x = None if problem.is_stream else problem.data[0]
        kernels = input_kernels(problem.model) if isinstance(x, np.ndarray) and x.ndim == 2 else None
        if kernels is None or len(problem.model.inputs) != 1:
            return {}
        assert isinstance(x, np.ndarray)
        weights = problem.model.weights
        trained = {id(variable): number for number, variable in enumerate(problem.model.trainable_variables)}
        target_of = {target.index: target for target in self._targets}
        chosen: dict[int, tuple[Target, int]] = {}
        for kernel in kernels:
            target = target_of.get(trained.get(id(weights[kernel.position]), -1))
            if target is None or target.is_joint or len(target.penalties) != 1 or len(target.shape) != 2:
                return {}
            ((number, penalty),) = target.penalties
            reads_columns = kernel.axis == 0 and np.array_equal(kernel.inputs, np.arange(x.shape[1]))
            is_grouped = type(penalty) in (GroupLasso, SparseGroupLasso)
            if not (reads_columns and is_grouped and _is_along_inputs(penalty, target)):
                return {}
            chosen[kernel.position] = target, number
        numbers = {number for _, number in chosen.values()}
        acting_on = {place for number in numbers for place in problem.resolved["rules"][problem.rules[number].name]}
        return chosen if acting_on == chosen.keys() else {}


def _is_along_inputs(penalty: Any, target: Target) -> bool:
    return penalty.layout_of(target.shape).axes == Axes.along(target.shape, 0)


def _segments(target: Target) -> np.ndarray:
    """Return the group of every input, −1 for none."""
    ((_, penalty),) = target.penalties
    segments = penalty.layout_of(target.shape).segments
    return np.arange(target.shape[0]) if segments is None else segments


def _reduce_penalty(penalty: Any, inputs: np.ndarray) -> Any:
    """Return a penalty of the groups that are left; every stage brings its own factors."""
    config, count = penalty.get_config(), len(inputs)
    if isinstance(penalty.groups, list):
        config = restrict_groups(penalty, inputs).get_config()
        count = len(config["groups"])
    return type(penalty).from_config({**config, "factors": [1.0] * count})
