"""The strengths of an optimizer's rules: numbers before it is built, variables after, or schedules."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from keras import ops

from poise.penalties.base import Schedule
from poise.rules.rule import Rule


class Strengths(Mapping):
    """The current strengths, by rule name. Assign to one to change it.

    Args:
        rules: The rules, with names that differ.
        iterations: Returns the optimizer's iterations, of which a schedule is a function.

    Raises:
        KeyError: For a name that no rule has.
        TypeError: When a strength is set to anything but a number.
        ValueError: When a strength is set to a number that its penalty does not take, or follows a schedule.
    """

    def __init__(self, rules: list[Rule], iterations: Callable[[], Any]) -> None:
        self._numbers = {str(rule.name): number for number, rule in enumerate(rules)}
        self._penalties = [rule.penalty for rule in rules]
        self._settings: list[Any] = [penalty.strength for penalty in self._penalties]
        self._variables: dict[int, Any] = {}
        self._iterations = iterations

    def build(self, add_variable: Callable[..., Any], dtype: str = "float32") -> None:
        """Make a scalar variable for every strength that does not follow a schedule."""
        names = _variable_names(self._numbers)
        for number, setting in enumerate(self._settings):
            if not isinstance(setting, Schedule):
                # Not keras.initializers.Constant, which rounds to float32 on its way to float64.
                initial = functools.partial(_fill, setting)
                self._variables[number] = add_variable((), initial, dtype=dtype, name=names[number])

    @property
    def variables(self) -> dict[int, Any]:
        """Maps the number of a rule to the variable of its strength; rules that follow a schedule are left out."""
        return dict(self._variables)

    def tensors(self) -> list[Any]:
        """Return the strengths in the order of the rules."""
        return [self._tensor(number) for number in range(len(self._settings))]

    def __getitem__(self, name: Any) -> float:
        number = self._number(name)
        setting = self._settings[number]
        if not isinstance(setting, Schedule) and number not in self._variables:
            return setting
        current = np.asarray(ops.convert_to_numpy(self._tensor(number)))
        if isinstance(setting, Schedule):
            return float(current)
        # 0.1 reads as 0.1, and not as its nearest float32; what is too small for float32 acts as 0.
        is_tiny = max(float(current), setting) < np.finfo(current.dtype).tiny
        return setting if is_tiny or current == current.dtype.type(setting) else float(current)

    def __setitem__(self, name: Any, strength: Any) -> None:
        number = self._number(name)
        if isinstance(self._settings[number], Schedule):
            raise ValueError(
                f"The strength of rule {name!r} follows a schedule and cannot be set. Create the rule with a number "
                "instead."
            )
        strength = self._penalties[number].check_strength(strength)
        if isinstance(strength, Schedule):
            raise TypeError(
                f"The strength of rule {name!r} must be a number, got a {type(strength).__name__}. Pass a schedule to "
                "the penalty when the rule is created."
            )
        self._settings[number] = strength
        if number in self._variables:
            self._variables[number].assign(strength)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return repr(dict(self))

    def _number(self, name: Any) -> int:
        if name not in self._numbers:
            raise KeyError(f"No rule is named {name!r}. The rules are {list(self._numbers)}.")
        return self._numbers[name]

    def _tensor(self, number: int) -> Any:
        if number in self._variables:
            return ops.convert_to_tensor(self._variables[number])
        return self._settings[number](self._iterations())


def _fill(number: float, shape: Any, dtype: Any) -> Any:
    return ops.convert_to_tensor(number, dtype)


def _variable_names(rules: Iterable[str]) -> list[str]:
    """Unique names for the variables that hold the strengths, of the characters that TensorFlow allows."""
    names = [f"strength_{re.sub('[^A-Za-z0-9_.-]', '_', rule)}" for rule in rules]
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names)]
