"""What the callbacks of Lightning and of Transformers share: finding the penalties, their logs, and TargetSparsity."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from poise.optimizer.target_sparsity import check_adaptable, check_target, next_strength
from poise.torch.handle import PenaltyHandle
from poise.torch.penalize import handle_of
from poise.validation import validate_count

Handles = Mapping[int, PenaltyHandle]
"""Maps the number of an optimizer to the handle of its penalties."""


def find_handles(optimizers: Iterable[Any], who: str, how: str) -> Handles:
    """Return the handles of the optimizers that have penalties.

    Args:
        optimizers: The optimizers of the training.
        who: The name of the callback.
        how: What to do if no optimizer has penalties.

    Raises:
        ValueError: If no optimizer has penalties.
    """
    handles = {number: handle_of(optimizer) for number, optimizer in enumerate(optimizers)}
    penalized = {number: handle for number, handle in handles.items() if handle is not None}
    if not penalized:
        raise ValueError(f"{who} found no optimizer with penalties. {how}")
    return penalized


def penalty_logs(handles: Handles, per_rule: bool) -> dict[str, float]:
    """Return the penalties at the current weights.

    Args:
        handles: The handles of the penalties.
        per_rule: Whether to also return the penalty of every rule.

    Returns:
        `penalty`, the sum over all rules and optimizers. With `per_rule` also one `penalty/<rule>` per rule, or
        `penalty/<rule>/<number of the optimizer>` if several optimizers have a rule of this name.
    """
    penalties = [(number, *item) for number, handle in handles.items() for item in handle.penalties().items()]
    logs = {"penalty": sum(penalty for _, _, penalty in penalties)}
    if per_rule:
        counts = Counter(name for _, name, _ in penalties)
        for number, name, penalty in penalties:
            logs[f"penalty/{name}" if counts[name] == 1 else f"penalty/{name}/{number}"] = penalty
    return logs


class StrengthControl:
    """Adapts the strength of a rule to a target share of zeros: `TargetSparsity` without a training framework.

    Args:
        rule, target, growth, every: As in `poise.torch.lightning.TargetSparsity`.

    Raises:
        TypeError: If `target` is not a number, or `every` not an int.
        ValueError: If one of them is out of its range.
    """

    def __init__(self, rule: str, target: float, growth: float, every: int | None) -> None:
        check_target(target, growth)
        every = None if every is None else validate_count("every", every, 1)
        self.rule, self.target, self.growth, self.every = rule, float(target), growth, every
        self._handle: PenaltyHandle | None = None
        self._adapted_at = 0

    @property
    def handle(self) -> PenaltyHandle:
        """The handle of the optimizer that has the rule."""
        assert self._handle is not None, "the training has not started"
        return self._handle

    def start(self, handles: Handles) -> None:
        """Find the rule, and check that its strength can be adapted.

        Raises:
            KeyError: If no optimizer has the rule.
            ValueError: If several optimizers have it, or it cannot be adapted.
        """
        who = f"TargetSparsity({self.rule!r})"
        candidates = [handle for handle in handles.values() if self.rule in handle.strength]
        if not candidates:
            names = [name for handle in handles.values() for name in handle.strength]
            raise KeyError(f"No rule is named {self.rule!r}. The rules are {names}.")
        if len(candidates) > 1:
            raise ValueError(
                f"{who}: {len(candidates)} optimizers have a rule of this name. Give the rules different names, such "
                "as poise.Rule(..., name='generator')."
            )
        (handle,) = candidates
        rule = next(rule for rule in handle.rules if rule.name == self.rule)
        check_adaptable(rule, handle.strength[self.rule], handle.update)
        if self.rule not in handle.zeros():
            raise ValueError(
                f"{who}: this rule cannot produce exact zeros: {type(rule.penalty).__name__} sets nothing to zero, or "
                "all of its parameters are frozen or have the factor 0. Use poise.L1 or poise.GroupLasso, or unfreeze "
                "a parameter."
            )
        self._handle, self._adapted_at = handle, handle.strength.steps

    def measure(self) -> dict[str, float]:
        """Return `zeros/<rule>` and `strength/<rule>` now."""
        share, strength = self.handle.zeros()[self.rule], self.handle.strength[self.rule]
        return {f"zeros/{self.rule}": share, f"strength/{self.rule}": strength}

    def adapt(self, at_epoch_end: bool) -> dict[str, float]:
        """Adapt the strength if it is time, at most once per step. Call this after every step.

        A checkpoint that is saved after the last step of an epoch, and before the hooks of its end, then has the new
        strength.

        Args:
            at_epoch_end: Whether the step was the last one of an epoch.

        Returns:
            What `measure` returned before the change; empty if the strength did not change.
        """
        steps = self.handle.strength.steps
        is_time = at_epoch_end if self.every is None else steps % self.every == 0
        if not is_time or steps == self._adapted_at:
            return {}
        logs = self.measure()
        share, strength = logs.values()
        self.handle.strength[self.rule] = next_strength(strength, share, self.target, self.growth)
        self._adapted_at = steps
        return logs
