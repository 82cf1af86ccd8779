"""What an optimizer records of its steps: the penalties' values on request, the forces at every N-th step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        add_variable: The optimizer's method.
        rules: The number of rules.
        targets: The penalized variables.
        observe_every: Record the forces at every `observe_every`-th step; 0 for never.
    """

    def __init__(self, add_variable: Callable[..., Any], rules: int, targets: list[Target], observe_every: int) -> None:
        self._observe_every = observe_every
        self._targets = targets
        self._values = add_variable((2, rules + 1), "zeros", dtype="float32", name="penalty_values")
        if observe_every:
            # The last row counts the samples: every variable costs time at every step.
            self._forces = add_variable((len(targets) + 1, 4), "zeros", dtype="float32", name="forces")

    @property
    def variables(self) -> dict[str, Any]:
        """The variables by their names."""
        return {"values": self._values, **({"forces": self._forces} if self._observe_every else {})}

    def record_values(self, targets: Sequence[Target], weights: Mapping[int, Any], strengths: Sequence[Any]) -> None:
        """Add the values of a step. Row 0 sums each rule's value over the steps, and counts them; row 1 is the last."""
        if not strengths:
            return
        now = ops.stack([*values(targets, weights, strengths), ops.ones((), "float32")])
        self._values.assign(ops.stack([ops.convert_to_tensor(self._values)[0] + now, now]))

    def record_forces(
        self, observed: Sequence[tuple[Target, Any, Any]], strengths: Sequence[Any], iterations: Any
    ) -> None:
        """Add the forces (`poise.optimizer.targets.measure`) of each (target, weights, gradient) if a sample is due."""
        if not self._observe_every or not observed:
            return

        def measure_all() -> Any:
            rows = {target.index: measure(target, w, gradient, strengths) for target, w, gradient in observed}
            nothing = ops.zeros((4,), "float32")
            return ops.stack([*(rows.get(target.index, nothing) for target in self._targets), nothing + 1.0])

        is_due = ops.equal(iterations % self._observe_every, 0)
        self._forces.assign_add(ops.cond(is_due, measure_all, lambda: ops.zeros(self._forces.shape, "float32")))

    def values(self) -> PenaltyRecord:
        """Return the recorded values."""
        total, last = np.asarray(ops.convert_to_numpy(self._values))
        return PenaltyRecord(total[:-1], last[:-1], round(float(total[-1])))

    def forces(self) -> ForceRecord:
        """Return the recorded forces."""
        if not self._observe_every:
            return ForceRecord(np.zeros((len(self._targets), 4)), 0)
        rows = np.asarray(ops.convert_to_numpy(self._forces))
        return ForceRecord(rows[:-1], round(float(rows[-1, 0])))

    def reset_values(self) -> None:
        """Discard the recorded values."""
        _set_to_zero(self._values)

    def reset_forces(self) -> None:
        """Discard the recorded forces."""
        if self._observe_every:
            _set_to_zero(self._forces)


def _set_to_zero(variable: Any) -> None:
    variable.assign(ops.zeros(variable.shape, variable.dtype))
