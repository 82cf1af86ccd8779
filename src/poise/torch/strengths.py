"""The strengths of the rules, kept in the optimizer, so that they are saved and loaded with its state."""

from typing import Any

import torch

from poise.optimizer.strengths import Strengths
from poise.penalties.base import Schedule
from poise.rules.rule import Rule

KEY = "penalties"
"""The key in the optimizer's first parameter group."""


class OptimizerStrengths(Strengths):
    """The current strengths, by rule name, in the state of a `torch.optim.Optimizer`. Assign to one to change it.

    Args:
        optimizer: The optimizer.
        rules: The rules, with names that differ.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rules: list[Rule]) -> None:
        super().__init__(rules, lambda: self.steps)
        self._optimizer = optimizer
        self._saved()

    @property
    def steps(self) -> int:
        """The number of steps so far, of which a schedule is a function."""
        return self._saved()["steps"]

    @steps.setter
    def steps(self, steps: int) -> None:
        self._saved()["steps"] = steps

    def tensors(self) -> list[Any]:
        """Return the strengths in the order of the rules, as numbers or, if they follow a schedule, tensors."""
        self._load()
        return [setting(self.steps) if isinstance(setting, Schedule) else setting for setting in self._settings]

    def remove(self) -> None:
        """Remove the strengths from the optimizer."""
        self._optimizer.param_groups[0].pop(KEY, None)

    def __getitem__(self, name: Any) -> float:
        self._load()
        return super().__getitem__(name)

    def __setitem__(self, name: Any, strength: Any) -> None:
        super().__setitem__(name, strength)
        self._saved()["strengths"][name] = self._settings[self._number(name)]

    def _load(self) -> None:
        """Take the strengths that the optimizer has, which `load_state_dict` may have replaced."""
        for name, strength in self._saved()["strengths"].items():
            if name in self._numbers:
                self._settings[self._numbers[name]] = strength

    def _saved(self) -> dict[str, Any]:
        group = self._optimizer.param_groups[0]
        if KEY not in group:  # the state of an optimizer without penalties was loaded
            numbers = {name: self._settings[number] for name, number in self._numbers.items()}
            strengths = {name: value for name, value in numbers.items() if not isinstance(value, Schedule)}
            group[KEY] = {"steps": 0, "strengths": strengths}
        return group[KEY]
