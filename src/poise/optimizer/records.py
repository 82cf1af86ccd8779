"""What an optimizer remembers of its steps: the penalties' values if asked for, the forces at every N-th."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from poise.optimizer.targets import Target, measure, values


@dataclass(frozen=True, eq=False)
class PenaltyRecord:
    """The values of the penalties over a number of training steps.

    Attributes:
        total: (rules,) sum over the steps of strength · R, in the order of the rules.
        last: (rules,) strength · R at the last step.
        steps: Number of steps.
    """

    total: np.ndarray
    last: np.ndarray
    steps: int


@dataclass(frozen=True, eq=False)
class ForceRecord:
    """The forces on the penalized variables, summed over the observed training steps.

    Attributes:
        total: (targets, 4) sums of ‖∇prediction‖², ‖∇penalty‖², ⟨∇prediction, ∇penalty⟩ and ‖residual‖².
        samples: Number of observed steps.
    """

    total: np.ndarray
    samples: int


class Records:
    """Sums over training steps, held in variables of the optimizer.

    Args:
        add_variable: the optimizer's method.
        rules: how many rules there are.
        targets: the penalized variables.
        observe: record the forces at every so-many-th step; 0: never.
    """

    def __init__(self, add_variable, rules: int, targets: list[Target], observe: int):
        self._observe = observe
        self._targets = targets
        self._values = add_variable((2, rules + 1), "zeros", dtype="float32", name="penalty_values")
        if observe:
            # The last row counts the samples: every variable costs time at every step.
            self._forces = add_variable((len(targets) + 1, 4), "zeros", dtype="float32", name="forces")

    @property
    def variables(self) -> dict:
        """By their names."""
        return {"values": self._values, **({"forces": self._forces} if self._observe else {})}

    def record_values(self, targets, weights, strengths):
        """Row 0: sums over steps of each rule's value, and of 1; row 1: those of the last step alone."""
        if not strengths:
            return
        now = ops.stack([*values(targets, weights, strengths), ops.ones((), "float32")])
        self._values.assign(ops.stack([ops.convert_to_tensor(self._values)[0] + now, now]))

    def record_forces(self, observed, strengths, iterations):
        """Adds what `poise.optimizer.targets.measure` gives for each (target, weights, gradient), where a sample is due."""
        if not self._observe or not observed:
            return

        def measured():
            rows = {target.index: measure(target, w, gradient, strengths) for target, w, gradient in observed}
            nothing = ops.zeros((4,), "float32")
            return ops.stack([*(rows.get(target.index, nothing) for target in self._targets), nothing + 1.0])

        is_due = ops.equal(iterations % self._observe, 0)
        self._forces.assign_add(ops.cond(is_due, measured, lambda: ops.zeros(self._forces.shape, "float32")))

    def values(self) -> PenaltyRecord:
        total, last = ops.convert_to_numpy(self._values)
        return PenaltyRecord(total[:-1], last[:-1], round(float(total[-1])))

    def forces(self) -> ForceRecord:
        if not self._observe:
            return ForceRecord(np.zeros((len(self._targets), 4)), 0)
        rows = ops.convert_to_numpy(self._forces)
        return ForceRecord(rows[:-1], round(float(rows[-1, 0])))

    def reset_values(self):
        _zero(self._values)

    def reset_forces(self):
        if self._observe:
            _zero(self._forces)


def _zero(variable):
    variable.assign(ops.zeros(variable.shape, variable.dtype))
