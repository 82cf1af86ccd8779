"""The strengths of an optimizer's rules: numbers before it is built, variables after, schedules throughout."""

import functools
import re
from collections.abc import Callable, Mapping

import numpy as np
from keras import ops

from poise.penalties.base import Schedule, checked_strength
from poise.rules.rule import Rule


class Strengths(Mapping):
    """The current strengths by the name of their rule; assigning sets one.

    Args:
        rules: the rules, with names that differ.
        iterations: gives the optimizer's iterations, of which a schedule is a function.

    Raises:
        KeyError: for a name that no rule has.
        TypeError, ValueError: when a strength is set that is no finite number ≥ 0, or that follows a schedule.
    """

    def __init__(self, rules: list[Rule], iterations: Callable):
        self._numbers = {rule.name: number for number, rule in enumerate(rules)}
        self._given = [rule.penalty.strength for rule in rules]
        self._variables = {}
        self._iterations = iterations

    def build(self, add_variable, dtype="float32"):
        """Makes a scalar variable for every strength that does not follow a schedule."""
        names = _variable_names(self._numbers)
        for number, given in enumerate(self._given):
            if not isinstance(given, Schedule):
                # Not keras.initializers.Constant, which rounds to float32 on its way to float64.
                initial = functools.partial(_filled, given)
                self._variables[number] = add_variable((), initial, dtype=dtype, name=names[number])

    @property
    def variables(self) -> dict:
        """By the number of a rule the variable that holds its strength, for those that follow no schedule."""
        return dict(self._variables)

    def tensors(self) -> list:
        """The strengths in the order of the rules."""
        return [self._tensor(number) for number in range(len(self._given))]

    def __getitem__(self, name) -> float:
        number = self._number(name)
        given = self._given[number]
        if not isinstance(given, Schedule) and number not in self._variables:
            return given
        held = ops.convert_to_numpy(self._tensor(number))
        if isinstance(given, Schedule):
            return float(held)
        # 0.1 reads as 0.1, and not as its nearest float32; what is too small for float32 acts as 0.
        is_given = held == held.dtype.type(given) or max(float(held), given) < np.finfo(held.dtype).tiny
        return given if is_given else float(held)

    def __setitem__(self, name, strength):
        number = self._number(name)
        if isinstance(self._given[number], Schedule):
            raise ValueError(
                f"The strength of rule {name!r} follows a schedule and cannot be set. Give the rule a number instead."
            )
        strength = checked_strength(strength)
        if isinstance(strength, Schedule):
            raise TypeError(f"The strength of rule {name!r} is a number; a schedule is given when the rule is made.")
        self._given[number] = strength
        if number in self._variables:
            self._variables[number].assign(strength)

    def __iter__(self):
        return iter(self._numbers)

    def __len__(self):
        return len(self._numbers)

    def __repr__(self):
        return repr(dict(self))

    def _number(self, name):
        if name not in self._numbers:
            raise KeyError(f"No rule is named {name!r}; the rules are {list(self._numbers)}.")
        return self._numbers[name]

    def _tensor(self, number):
        if number in self._variables:
            return ops.convert_to_tensor(self._variables[number])
        return self._given[number](self._iterations())


def _filled(number, shape, dtype):
    return ops.convert_to_tensor(number, dtype)


def _variable_names(rules) -> list[str]:
    """Names for the variables that hold the strengths, of the characters that TensorFlow allows, none of them twice."""
    names = [f"strength_{re.sub('[^A-Za-z0-9_.-]', '_', rule)}" for rule in rules]
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names)]
