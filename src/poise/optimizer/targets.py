"""What is penalized, and which of its penalties act by their gradient and which by their prox.

A target is a variable, or several variables that a penalty takes as one vector.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from poise.penalties import Anchored, Penalty

Pairs: TypeAlias = tuple[tuple[int, Penalty], ...]
"""Penalties, each with the number of its rule."""
MetricKind: TypeAlias = Literal["scalar", "diagonal"]


@dataclass(frozen=True)
class Target:
    """What is penalized as one.

    Attributes:
        members: The numbers of its variables in the optimizer: one, or all variables of a joint penalty in its order.
        shapes: Their shapes.
        path: The path of its variable, or the name of the rule of a joint penalty.
        is_joint: Whether a penalty acts on all members as on one vector, their entries one after the other.
        penalties: All penalties, each with the number of its rule.
        coupled: Penalties whose gradient is added to the prediction gradient.
        decoupled: Smooth penalties that take a separate step before the inner update.
        proximal: Penalties that act by their prox after the inner update.
        trace: The running sum of steps of an optimizer with momentum, or None.
    """

    members: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    path: str
    is_joint: bool
    penalties: Pairs
    coupled: Pairs = ()
    decoupled: Pairs = ()
    proximal: Pairs = ()
    trace: Any = None

    @property
    def index(self) -> int:
        """The number of its first variable, which identifies it: no variable belongs to two targets."""
        return self.members[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what its penalties act on."""
        return (sum(map(math.prod, self.shapes)),) if self.is_joint else self.shapes[0]

    def gather(self, tensor_of: Callable[[int], Any]) -> Any:
        """Return what its penalties act on, of tensors that belong to its variables.

        Args:
            tensor_of: Returns the tensor of a variable by the variable's number.
        """
        if not self.is_joint:
            return tensor_of(self.index)
        return ops.concatenate([ops.reshape(tensor_of(number), (-1,)) for number in self.members])

    def split(self, joined: Any) -> list[tuple[int, Any]]:
        """Return (number, tensor) for each of its variables: the inverse of `gather`."""
        if not self.is_joint:
            return [(self.index, joined)]
        parts, first = [], 0
        for number, shape in zip(self.members, self.shapes, strict=True):
            size = math.prod(shape)
            parts.append((number, ops.reshape(joined[first : first + size], shape)))
            first += size
        return parts

    @property
    def anchors(self) -> list[tuple[int, Any]]:
        """(number of the rule, variable) for each variable that holds the start weights of an `Anchored`."""
        starts = [(number, getattr(penalty, "start", None)) for number, penalty in self.penalties]
        return [(number, start) for number, start in starts if isinstance(start, keras.Variable)]

    def with_factors(self, factors: Mapping[tuple[int, int], Any]) -> "Target":
        """Return the target with other factors of its penalties, by (index, number of a rule)."""

        def replace_factors(pairs: Pairs) -> Pairs:
            return tuple(
                (number, penalty.with_factors(factors[self.index, number]))
                if (self.index, number) in factors
                else (number, penalty)
                for number, penalty in pairs
            )

        fields = ("penalties", "coupled", "decoupled", "proximal")
        return dataclasses.replace(self, **{name: replace_factors(getattr(self, name)) for name in fields})


def assign_actions(penalties: Pairs, update: str, metric_kind: MetricKind | None) -> tuple[Pairs, Pairs, Pairs]:
    """Return which penalties of a target act how: (coupled, decoupled, proximal), as in `Target`.

    A smooth penalty next to another one can act only by its gradient, which leaves the fixed points of a prox as they
    are.

    Args:
        penalties: The penalties of the target.
        update: The update of the optimizer.
        metric_kind: The kind of the inner optimizer's metric; None where the learning rate is the step.
    """
    smooth = tuple(pair for pair in penalties if pair[1].smooth)
    rough = tuple(pair for pair in penalties if not pair[1].smooth)
    if update == "coupled":
        return smooth + rough, (), ()
    if update == "decoupled":
        return (), smooth, rough
    if update == "auto":
        proximal = tuple(pair for pair in rough if needs_prox(pair[1]))
        is_alone = len(penalties) == 1 and needs_prox(penalties[0][1])
    else:
        proximal = rough
        is_alone = len(penalties) == 1 and accepts_steps(penalties[0][1], metric_kind)
    proximal = penalties if is_alone else proximal
    return tuple(pair for pair in smooth + rough if pair not in proximal), (), proximal


def needs_prox(penalty: Penalty) -> bool:
    """Whether `update="auto"` applies the penalty by its prox.

    It does so for a penalty that has a prox and is not smooth or holds entries at zero (infinite factors).
    """
    return penalty.metric is not None and (not penalty.smooth or _holds_zeros(penalty))


def accepts_steps(penalty: Penalty, metric_kind: MetricKind | None) -> bool:
    """Whether the penalty's prox takes the steps of an optimizer with this kind of metric."""
    return penalty.metric == "diagonal" or (penalty.metric == "scalar" and metric_kind in (None, "scalar"))


def check_actions(
    target: Target,
    rule_names: Sequence[Any],
    update: str,
    metric_kind: MetricKind | None,
    inner: Any,
    sgd: str = "keras.optimizers.SGD as the inner optimizer",
) -> None:
    """Raise ValueError if a penalty cannot act in the way that the update requires.

    Args:
        target: The target, with the actions of its penalties.
        rule_names: The names of the rules.
        update, metric_kind: As in `assign_actions`.
        inner: The inner optimizer, or its name.
        sgd: The optimizer with one step for all coordinates, for messages.
    """
    for number, penalty in target.proximal:
        where = f"Rule {rule_names[number]!r} on {target.path!r}"
        if penalty.metric is None:
            raise ValueError(f"{where}: {penalty.why_no_prox()}")
        if not accepts_steps(penalty, metric_kind):
            name = inner if isinstance(inner, str) else type(inner).__name__
            raise ValueError(
                f"{where}: {type(penalty).__name__} needs one step for the whole matrix, and {name} "
                f"takes one step per coordinate. Use {sgd}, or update='decoupled' or 'coupled'."
            )
    for number, penalty in target.coupled + target.decoupled:
        who = f"Rule {rule_names[number]!r} on {target.path!r}: {type(penalty).__name__}"
        if not penalty.has_force:
            raise ValueError(
                f"{who} has no effect with update={update!r}, because its gradient is zero. Use update='auto', "
                "'proximal' or 'decoupled'."
            )
        if _holds_zeros(penalty):
            raise ValueError(
                f"{who} has infinite factors, and only a proximal step can hold an entry at zero. Use update='auto' "
                "or 'proximal', without another penalty on this variable."
            )


def penalty_gradient(penalties: Pairs, w: Any, strengths: Sequence[Any]) -> Any:
    """Return Σ_r ∇(strength_r · R_r)(w) over at least one penalty."""
    gradients = [penalty.gradient(w, strengths[number]) for number, penalty in penalties]
    return functools.reduce(ops.add, gradients)


def values(targets: Sequence[Target], weights: Mapping[int, Any], strengths: Sequence[Any]) -> list[Any]:
    """Return the value of every rule, summed over its variables, as float32 scalars.

    A constraint counts 0: every step of training ends where it holds.

    Args:
        targets: The targets.
        weights: Maps the index of a target to its weights.
        strengths: Maps the number of a rule to its strength.
    """
    totals = [ops.zeros((), "float32") for _ in strengths]
    for target in targets:
        for number, penalty in target.penalties:
            if penalty.is_constraint:
                continue
            value = penalty.value(weights[target.index], strengths[number])
            totals[number] = totals[number] + ops.cast(value, "float32")
    return totals


def measure(target: Target, w: Any, gradient: Any, strengths: Sequence[Any]) -> Any:
    """Return ‖∇prediction‖², ‖∇penalty‖², ⟨∇prediction, ∇penalty⟩ and ‖residual‖² of a target, (4,) in float32.

    The residual is the stationarity residual of prediction + penalty: of the one non-smooth penalty, with the gradients
    of the smooth ones added to the prediction's. Without a non-smooth penalty it is the sum of all gradients.

    Args:
        target: The target.
        w: Its weights.
        gradient: The prediction gradient, of the shape of w.
        strengths: Maps the number of a rule to its strength.
    """
    w, gradient = ops.cast(w, "float32"), ops.cast(gradient, "float32")
    force = penalty_gradient(target.penalties, w, strengths)
    rough = [pair for pair in target.penalties if not pair[1].smooth]
    smooth = tuple(pair for pair in target.penalties if pair[1].smooth)
    smooth_gradient = gradient + penalty_gradient(smooth, w, strengths) if smooth else gradient
    residual = rough[0][1].residual(w, smooth_gradient, strengths[rough[0][0]]) if rough else smooth_gradient
    products = [(gradient, gradient), (force, force), (gradient, force), (residual, residual)]
    return ops.stack([ops.sum(a * b) for a, b in products])


def anchor(penalty: Penalty, variable: Any, copy: Callable[[Any], Any]) -> Penalty:
    """Return the penalty with a start, if it is an `Anchored` without one.

    Args:
        penalty: The penalty.
        variable: The variable that it acts on.
        copy: Makes an optimizer variable that holds the weights of a variable as they are now.
    """
    if isinstance(penalty, Anchored) and penalty.start is None:
        return penalty.at(copy(variable))
    return penalty


def densify(gradient: Any, variable: Any) -> Any:
    """Return the gradient as a tensor: zeros where there is none, an embedding's rows in their places."""
    if gradient is None:
        return ops.zeros(variable.shape, variable.dtype)
    is_tensor = hasattr(gradient, "shape") and not hasattr(gradient, "dense_shape")
    return gradient if is_tensor else ops.add(gradient, 0.0)


def _holds_zeros(penalty: Penalty) -> bool:
    return penalty.factors is not None and bool(np.isinf(penalty.factors).any())
