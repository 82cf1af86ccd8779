"""One update of the inner optimizer, as the step functions in `poise.optax.metrics` read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp

from poise.optimizer.metrics import Before


@dataclass(frozen=True)
class InnerUpdate:
    """An update of the inner optimizer.

    Attributes:
        settings: The arguments of the optax function.
        iterations: The number of updates, including this one.
        old, new: The optimizer's state before and after the update.
        changes: How the optimizer changes the arrays.
        align: Returns what a tree of the structure of the parameters has in the places of the arrays.
    """

    settings: SimpleNamespace
    iterations: Any
    old: Any
    new: Any
    changes: Sequence[Any]
    align: Callable[[Any], list[Any]]


class AfterUpdate(Before):
    """What a step function reads of an update of one array. The attribute `optimizer` is an `InnerUpdate`."""

    @property
    def settings(self) -> SimpleNamespace:
        """The arguments of the optax function, as attributes."""
        return self.optimizer.settings

    def moment(self, name: str) -> Any:
        """Return what the optimizer's state holds under a name for this array, after the update."""
        return self._part(self.optimizer.new, name)

    def old_moment(self, name: str) -> Any:
        """Return the same before the update."""
        return self._part(self.optimizer.old, name)

    def adam_step(self, second_moment: Any, factor: Any = 1.0) -> Any:
        """Return factor·lr/(√(v + ε_root) + ε), with the fallback for entries without a gradient so far."""
        eps, eps_root = self.settings.eps, getattr(self.settings, "eps_root", 0.0)
        return self.step_with_fallback(second_moment, lambda v: factor * self.rate / (jnp.sqrt(v + eps_root) + eps))

    def nesterov_factor(self) -> Any:
        """Return c = β₁(1 − β₁ᵗ)/(1 − β₁ᵗ⁺¹) + (1 − β₁)/(1 − β₁ᵗ) with Nesterov momentum, else 1.

        At rest m = (1 − β₁ᵗ)·g, and m̂ = c·g.
        """
        if not self.settings.nesterov:
            return 1.0
        b1, correction = self.settings.b1, self.bias_correction(self.settings.b1)
        following = 1.0 - b1 * (1.0 - correction)
        return b1 * correction / following + (1.0 - b1) / correction

    def _part(self, state: Any, name: str) -> Any:
        tree = next(getattr(part, name) for part in state if hasattr(part, name))
        return jnp.asarray(self.optimizer.align(tree)[self.index], self.w.dtype)
