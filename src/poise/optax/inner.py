"""An optimizer, as the optax function that makes it and the arguments of this function.

An `optax.GradientTransformation` hides both, and without them its step is not known.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optax


@dataclass(frozen=True)
class Inner:
    """An optimizer, as the optax function that makes it and the arguments of this function.

    Attributes:
        function: The function.
        arguments: All of its arguments, including defaults.
    """

    function: Callable[..., Any]
    arguments: inspect.BoundArguments

    @classmethod
    def of(cls, function: Any, hyperparameters: Mapping[str, Any]) -> "Inner":
        """Return an optimizer of an optax function, which may be a `functools.partial`, and its arguments.

        Raises:
            TypeError: If it is not a function, or does not take these arguments.
        """
        settings = dict(hyperparameters)
        while isinstance(function, functools.partial):
            if function.args:
                raise TypeError(f"optimizer must be a functools.partial with named arguments only, got {function!r}.")
            function, settings = function.func, {**function.keywords, **settings}
        if not callable(function):
            raise TypeError(
                f"optimizer must be a function of optax, such as optax.adam, got {type(function).__name__}. Pass its "
                "arguments by name: poise.optax.penalized(optax.adam, rules, learning_rate=0.01)."
            )
        try:
            arguments = inspect.signature(function).bind(**settings)
        except TypeError as error:
            raise TypeError(
                f"{name_of(function)}: {error}. Pass its arguments by name: "
                f"poise.optax.penalized({name_of(function)}, rules, learning_rate=0.01)."
            ) from None
        arguments.apply_defaults()
        return cls(function, arguments)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its arguments by name."""
        return self.arguments.arguments

    @property
    def name(self) -> str:
        """Its name, for messages."""
        return name_of(self.function)

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """Return the optax transformation.

        Raises:
            TypeError: If the function returns something else.
        """
        made = self.function(*self.arguments.args, **self.arguments.kwargs)
        if not isinstance(made, optax.GradientTransformation):
            raise TypeError(f"{self.name} must return an optax.GradientTransformation, got {type(made).__name__}.")
        return optax.with_extra_args_support(made)

    def rate(self, count: Any) -> Any:
        """Return the learning rate of an update.

        Args:
            count: The number of updates before.

        Raises:
            ValueError: If the optimizer has none.
        """
        rate = self.settings.get("learning_rate")
        if rate is None:
            raise ValueError(
                f"{self.name} has no learning rate, which the penalty needs for its step. Pass learning_rate, or use "
                "update='coupled'."
            )
        return rate(count) if callable(rate) else rate


def name_of(function: Any) -> str:
    """Return the name of a function as a user writes it."""
    name = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", "")
    if not module.startswith("optax"):
        return name
    return f"optax.contrib.{name}" if "contrib" in module else f"optax.{name}"
