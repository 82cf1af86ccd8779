"""What is penalized undergoes in a step: which of its penalties act by their gradient, which by their prox.

A target is a variable, or several that a penalty takes as one vector.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties import Anchored, Penalty


@dataclass(frozen=True)
class Target:
    """What is penalized as one. The penalties come as pairs of the number of their rule and the penalty itself.

    Attributes:
        members: the numbers of its variables in the optimizer: one, or those of a joint penalty in its order.
        shapes: their shapes.
        path: its variable's path, or the name of the rule of a joint penalty.
        is_joint: whether a penalty acts on all members as on one vector, their entries one after the other.
        penalties: all of them.
        joining: those whose gradient joins the prediction's.
        shrinking: smooth ones that take a step of their own before the inner update.
        after: those that act by their prox after it.
        trace: the running sum of steps of an optimizer with momentum, or None.
    """

    members: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    path: str
    is_joint: bool
    penalties: tuple[tuple[int, Penalty], ...]
    joining: tuple[tuple[int, Penalty], ...] = ()
    shrinking: tuple[tuple[int, Penalty], ...] = ()
    after: tuple[tuple[int, Penalty], ...] = ()
    trace: Any = field(default=None)

    @property
    def index(self) -> int:
        """The number of its first variable, by which it is known: no variable belongs to two targets."""
        return self.members[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of what its penalties act on."""
        return (sum(map(math.prod, self.shapes)),) if self.is_joint else self.shapes[0]

    def gathered(self, of: Callable[[int], Any]) -> Any:
        """What its penalties act on, of tensors that belong to its variables: `of` gives that of a number."""
        if not self.is_joint:
            return of(self.index)
        return ops.concatenate([ops.reshape(of(number), (-1,)) for number in self.members])

    def scattered(self, whole) -> list[tuple[int, Any]]:
        """(number, tensor) of each of its variables: what `gathered` put together, taken apart."""
        if not self.is_joint:
            return [(self.index, whole)]
        parts, first = [], 0
        for number, shape in zip(self.members, self.shapes, strict=True):
            size = math.prod(shape)
            parts.append((number, ops.reshape(whole[first : first + size], shape)))
            first += size
        return parts

    @property
    def anchors(self) -> list[tuple[int, Any]]:
        """(number of the rule, variable) for each variable that holds the weights at which `Anchored` begins."""
        starts = [(number, getattr(penalty, "start", None)) for number, penalty in self.penalties]
        return [(number, start) for number, start in starts if isinstance(start, keras.Variable)]

    def reweighted(self, factors) -> "Target":
        """The same with other factors of its penalties, by (index, number of a rule)."""

        def changed(pairs):
            return tuple(
                (number, penalty.with_factors(factors[self.index, number]))
                if (self.index, number) in factors
                else (number, penalty)
                for number, penalty in pairs
            )

        roles = ("penalties", "joining", "shrinking", "after")
        return dataclasses.replace(self, **{role: changed(getattr(self, role)) for role in roles})


def divide(penalties, update, metric):
    """Pairs of numbers and penalties → those (joining, shrinking, after) in the given update.

    In the proximal update a smooth penalty that stands alone acts by its prox if that takes the optimizer's steps;
    beside another penalty it joins the gradient, which leaves the fixed points as they are.
    """
    smooth = tuple(pair for pair in penalties if pair[1].smooth)
    rough = tuple(pair for pair in penalties if not pair[1].smooth)
    if update == "auto":
        by_prox = tuple(pair for pair in penalties if needs_prox(pair[1]))
        if rough or len(penalties) > 1:  # beside another penalty, a smooth one can only join the gradient
            by_prox = tuple(pair for pair in by_prox if not pair[1].smooth)
        return tuple(pair for pair in penalties if pair not in by_prox), (), by_prox
    if update == "coupled":
        return smooth + rough, (), ()
    if update == "decoupled":
        return (), smooth, rough
    if len(smooth) == 1 and not rough and accepts(smooth[0][1], metric):
        return (), (), smooth
    return smooth, (), rough


def needs_prox(penalty: Penalty) -> bool:
    """Whether update="auto" applies the penalty by its prox: it has exact zeros and a prox that can reach them."""
    holds_zeros = penalty.factors is not None and bool(np.isinf(penalty.factors).any())
    return penalty.metric is not None and (not penalty.smooth or holds_zeros)


def accepts(penalty, metric):
    """Whether the penalty's prox takes the steps of an optimizer with this metric (None: one learning rate)."""
    return penalty.metric == "diagonal" or (penalty.metric == "scalar" and (metric is None or metric.kind == "scalar"))


def check_actions(target, rules, metric, inner):
    """Raises ValueError if a penalty cannot act in the way that the update gives it."""
    for number, penalty in target.joining + target.shrinking + target.after:
        who = f"Rule {rules[number].name!r} on {target.path!r}: {type(penalty).__name__}"
        if (number, penalty) in target.after:
            if penalty.metric is None:
                raise ValueError(f"{who} has no proximal operator. Use update='coupled', or poise.Orthogonal.")
            if not accepts(penalty, metric):
                raise ValueError(
                    f"{who} needs one step for the whole matrix, and {type(inner).__name__} takes one per coordinate. "
                    "Use keras.optimizers.SGD as the inner optimizer, or update='decoupled' or 'coupled'."
                )
            continue
        if not penalty.has_force:
            raise ValueError(
                f"{who} has a gradient of zero, so that it does nothing in this update. Use update='proximal' or "
                "'decoupled'."
            )
        if penalty.factors is not None and np.isinf(penalty.factors).any():
            raise ValueError(
                f"{who} has infinite factors, and only a proximal step can hold an entry at zero. Use "
                "update='proximal', without another penalty on this variable."
            )


def pull(penalties, w, strengths):
    """Σ ∇(strength · R)(w) over the given pairs."""
    gradients = [penalty.gradient(w, strengths[number]) for number, penalty in penalties]
    return functools.reduce(ops.add, gradients)


def values(targets, weights, strengths):
    """The value of every rule, summed over its variables, as float32 scalars.

    Args:
        targets: the targets.
        weights: by the index of a target its weights.
        strengths: by the number of a rule its strength.
    """
    totals = [ops.zeros((), "float32") for _ in strengths]
    for target in targets:
        for number, penalty in target.penalties:
            value = penalty.value(weights[target.index], strengths[number])
            totals[number] = totals[number] + ops.cast(value, "float32")
    return totals


def measure(target, w, gradient, strengths):
    """‖∇prediction‖², ‖∇penalty‖², ⟨∇prediction, ∇penalty⟩ and ‖residual‖² of one target, (4,) in float32.

    The residual is that of the whole: of the one non-smooth penalty, with the gradients of the smooth ones added to
    the prediction's; without a non-smooth one it is the sum of all gradients.
    """
    w, gradient = ops.cast(w, "float32"), ops.cast(gradient, "float32")
    penalty_gradient = pull(target.penalties, w, strengths)
    rough = [pair for pair in target.penalties if not pair[1].smooth]
    smooth = [pair for pair in target.penalties if pair[1].smooth]
    outside = gradient + pull(smooth, w, strengths) if smooth else gradient
    residual = rough[0][1].residual(w, outside, strengths[rough[0][0]]) if rough else outside
    products = [(gradient, gradient), (penalty_gradient, penalty_gradient), (gradient, penalty_gradient)]
    sums = [ops.sum(a * b) for a, b in [*products, (residual, residual)]]
    return ops.stack(sums)


def anchored(penalty, variable, copy):
    """The penalty, at the given weights if it is an `Anchored` that waits for training to begin.

    `copy` makes an optimizer variable that holds the weights of `variable` as they are now.
    """
    if isinstance(penalty, Anchored) and penalty.start is None:
        return penalty.at(copy(variable))
    return penalty


def dense(gradient, variable):
    """The gradient as a tensor: zeros where there is none, an embedding's rows put in their places."""
    if gradient is None:
        return ops.zeros(variable.shape, variable.dtype)
    is_tensor = hasattr(gradient, "shape") and not hasattr(gradient, "dense_shape")
    return gradient if is_tensor else ops.add(gradient, 0.0)
