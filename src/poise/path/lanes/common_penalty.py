"""One penalty that contains the convex penalties of a study, so that their lanes share one program.

R(w) = l1 Σ|w_i| + l2 Σ w_i² + Σ_g c_g ‖w_g‖₂ is L1, L2, the elastic net, the group lasso or the sparse group lasso,
depending on its coefficients. In lanes these are numbers like the strength, so that XLA compiles the steps of a network
once and not once per penalty.

References:
    Simon, Friedman, Hastie and Tibshirani 2013, "A sparse-group lasso", for the prox of the two non-smooth terms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.optimizer.penalized import PenalizedOptimizer
from poise.optimizer.targets import Target
from poise.path.executors.base import Problem
from poise.path.lanes.problem import Task
from poise.path.models import build_optimizer, resolve_rules
from poise.penalties import L1, L2, ElasticNet, GroupLasso, Penalty, SparseGroupLasso
from poise.penalties.axes import Sides
from poise.penalties.base import PACKAGE, soft_threshold
from poise.rules.rule import Role, Rule

MOST_WEIGHTS = 50_000
"""With more trained weights, computing the unused terms takes longer than compiling a separate program."""

COEFFICIENTS: Mapping[type[Penalty], Callable[[Any], tuple[float, float, float]]] = {
    L1: lambda penalty: (1.0, 0.0, 0.0),
    L2: lambda penalty: (0.0, 1.0, 0.0),
    ElasticNet: lambda penalty: (penalty.l1, penalty.l2, 0.0),
    GroupLasso: lambda penalty: (0.0, 0.0, 1.0),
    SparseGroupLasso: lambda penalty: (penalty.l1_ratio, 0.0, 1.0 - penalty.l1_ratio),
}
"""l1, l2 and the factor of c of each penalty that the common one contains."""


@keras.saving.register_keras_serializable(PACKAGE)
class CommonPenalty(Penalty):
    """strength · (l1 Σ|w_i| + l2 Σ w_i² + Σ_g c_g ‖w_g‖₂), the last term only if there are groups.

    Its `factors` are l1, l2 and c, in one vector, which `with_factors` sets; c is infinite for groups held at zero.

    Args:
        groups: A group lasso that defines the groups. Every entry must be in one. Default: None, for no groups.
        strength: As in `Penalty`. Default: 1.0.
    """

    def __init__(self, groups: GroupLasso | None = None, strength: Any = 1.0) -> None:
        super().__init__(strength)
        self.groups = groups

    def get_config(self) -> dict[str, Any]:
        return {"groups": keras.saving.serialize_keras_object(self.groups), "strength": self.strength}

    def bind(self, sides: Sides) -> "CommonPenalty":
        bound: Any = super().bind(sides)
        bound.groups = None if self.groups is None else self.groups.bind(sides)
        return bound

    def check(self, shape: Sequence[int]) -> None:
        if self.groups is not None:
            self.groups.check(shape)

    def with_factors(self, factors: Any) -> "CommonPenalty":
        other: Any = super().with_factors(factors)
        other.groups = None if self.groups is None else self.groups.with_factors(factors[2:])
        return other

    def _value(self, w: Any, strength: Any) -> Any:
        l1, l2 = self._prices(strength)
        value = l1 * ops.sum(ops.abs(w)) + l2 * ops.sum(ops.square(w))
        return value if self.groups is None else value + self.groups.value(w, strength)

    def _gradient(self, w: Any, strength: Any) -> Any:
        l1, l2 = self._prices(strength)
        gradient = l1 * ops.sign(w) + 2.0 * l2 * w
        return gradient if self.groups is None else gradient + self.groups.gradient(w, strength)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        """The square moves into the metric, h' = h/(1 + 2·l2·h) and w' = w·h'/h; then come |w_i| and the groups."""
        l1, l2 = self._prices(strength)
        shrink = 1.0 / (1.0 + 2.0 * l2 * step)
        step = shrink * step
        w = soft_threshold(shrink * w, l1 * step)
        return w if self.groups is None else self.groups.prox(w, step, strength)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        l1, _ = self._prices(strength)
        at_zero = ops.maximum(ops.abs(gradient) - l1, 0.0)
        by_entry = ops.where(w == 0, at_zero, ops.abs(gradient + self._gradient(w, strength)))
        if self.groups is None:
            return by_entry
        at = self.groups.layout_of(w.shape)
        inside = ops.maximum(at.norms(at_zero) - strength * at.price(w), 0.0)
        return at.complete(ops.where(at.norms(w) == 0, inside, at.norms(by_entry)), w, gradient)

    def _prices(self, strength: Any) -> tuple[Any, Any]:
        assert self.factors is not None
        return strength * self.factors[0], strength * self.factors[1]


@dataclass(frozen=True, eq=False)
class CommonForm:
    """A path in the form of the common penalty: one rule per target of its penalties.

    Attributes:
        optimizer: The optimizer of the path, as its rules define it.
        rules: Rules of common penalties.
        resolved: What they resolve to.
    """

    optimizer: PenalizedOptimizer
    rules: list[Rule]
    resolved: dict

    def translate(self, task: Task) -> Task:
        """Return the task with the strengths and the factors of the common penalties."""
        numbers = [number for target in self.optimizer.targets for number, _ in target.penalties]
        factors = {
            (target.index, position): _coefficients(target, rule.penalty, task)
            for position, (target, rule) in enumerate(zip(self.optimizer.targets, self.rules, strict=True))
        }
        return replace(task, strengths=task.strengths[:, numbers], factors=factors)


def find_common_form(problem: Problem, optimizer: PenalizedOptimizer) -> CommonForm | None:
    """Return the common form of a path; None if it has none, or if a separate program is faster.

    Args:
        problem: The problem of the path; its `group_rules` define the groups.
        optimizer: Its optimizer, built.
    """
    model, targets = problem.model, optimizer.targets
    weights = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    if problem.group_rules is None or problem.update != "proximal" or weights > MOST_WEIGHTS:
        return None
    others = build_optimizer(model, problem.group_rules, problem.update, resolve_rules(model, problem.group_rules))
    groups = {target.index: target.penalties[0][1] for target in others.targets}
    if groups.keys() != {target.index for target in targets} or not all(map(_is_contained, targets)):
        return None
    rules, places = [], {}
    for target in targets:
        penalty = target.penalties[0][1]
        grouped = penalty if hasattr(penalty, "layout_of") else groups[target.index]
        common = CommonPenalty(_plain_groups(grouped) if hasattr(grouped, "layout_of") else None)
        rules.append(Rule(Role.ALL, common, name=str(target.index)))
        places[str(target.index)] = [problem.resolved["trained"][target.index]]
    return CommonForm(optimizer, rules, {**problem.resolved, "rules": places})


def _is_contained(target: Target) -> bool:
    """Return whether a target has one penalty, which the common one contains."""
    if target.is_joint or len(target.penalties) != 1:
        return False
    penalty: Any = target.penalties[0][1]
    if hasattr(penalty, "layout_of"):
        return type(penalty) in COEFFICIENTS and penalty.layout_of(target.shape).is_outside is None
    return type(penalty) in COEFFICIENTS and penalty.factors is None


def _plain_groups(penalty: Any) -> GroupLasso:
    return GroupLasso(groups=penalty.groups, axis=penalty.axis if isinstance(penalty.groups, list) else None)


def _coefficients(target: Target, common: Any, task: Task) -> np.ndarray:
    """Return l1, l2 and c for a target, (replicas, strengths, 2 + groups)."""
    ((number, penalty),) = target.penalties
    l1, l2, group = COEFFICIENTS[type(penalty)](penalty)
    parts = [np.broadcast_to(np.array([l1, l2]), (*task.shape, 2))]
    if common.groups is not None:
        c = np.zeros(common.groups.layout_of(target.shape).factors.shape)
        if group:
            c = task.factors.get((target.index, number), np.asarray(penalty.layout_of(target.shape).factors)) * group
        parts.append(np.broadcast_to(c, (*task.shape, c.shape[-1])))
    return np.concatenate(parts, axis=-1).astype("float32")
