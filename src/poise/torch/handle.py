"""The penalties of an optimizer: their strengths, values and forces (poise.torch.PenaltyHandle)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from poise.diagnostics.force_balance import COLUMNS, forces_row
from poise.diagnostics.inventory import COLUMNS as SUMMARY_COLUMNS
from poise.diagnostics.inventory import Summary
from poise.optimizer.targets import values
from poise.rules.rule import Rule, kind_of
from poise.torch.hooks import StepHooks
from poise.torch.parameters import Parameter
from poise.torch.strengths import OptimizerStrengths
from poise.torch.tensors import on_device


class PenaltyHandle:
    """The penalties that `poise.torch.penalize` added to an optimizer.

    Attributes:
        optimizer: The `torch.optim.Optimizer`.
        model: The `torch.nn.Module`.
        rules: The rules.
        update: How the penalties act.
        strength: The strengths by rule name. Assign to one to change it: `handle.strength["kernels"] = 0.1`. They are
            saved in `optimizer.state_dict()`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: torch.nn.Module,
        rules: Sequence[Rule],
        update: str,
        hooks: StepHooks,
        parameters: Sequence[Parameter],
    ) -> None:
        self.optimizer, self.model, self.rules, self.update = optimizer, model, list(rules), update
        self._hooks, self._parameters = hooks, parameters
        hooks.handle = self

    @property
    def strength(self) -> OptimizerStrengths:
        """The strengths by rule name."""
        return self._hooks.strengths

    @torch.no_grad()
    def penalties(self) -> dict[str, float]:
        """Return strength · R of every rule at the current weights, by rule name."""
        hooks = self._hooks
        totals = np.zeros(len(self.rules))
        for target in hooks.targets:
            with on_device(hooks.tensors[target.index]):
                weights = {target.index: hooks.weights_of(target)}
                totals += [float(value) for value in values([target], weights, hooks.strengths.tensors())]
        return {str(rule.name): float(total) for rule, total in zip(self.rules, totals, strict=True)}

    def penalty(self) -> float:
        """Return the total penalty at the current weights, a float: total loss = prediction loss + penalty."""
        return sum(self.penalties().values())

    @torch.no_grad()
    def forces(self) -> pd.DataFrame:
        """Measure the two forces on every penalized parameter: the prediction gradient and the penalty gradient.

        With `observe_every=0`, the prediction gradient is `parameter.grad` now: call this between `loss.backward()` and
        `optimizer.step()`. Otherwise the forces are root mean squares over the steps that were recorded since the last
        `reset_forces()`.

        Returns:
            A DataFrame with one row per penalized parameter and the columns of `poise.forces`.

        Raises:
            ValueError: If a parameter has no gradient, or nothing was recorded.
        """
        hooks = self._hooks
        if not hooks.observe_every:
            squares = hooks.measure_forces()
        elif hooks.samples:
            squares = hooks.forces / hooks.samples
        else:
            raise ValueError("No forces were recorded since the last reset. Take optimizer steps first.")
        names = [str(rule.name) for rule in self.rules]
        rows = [
            forces_row(target, names, hooks.weights_of(target).cpu().double().numpy(), sums)
            for target, sums in zip(hooks.targets, squares, strict=True)
        ]
        return pd.DataFrame(rows, columns=COLUMNS)

    def reset_forces(self) -> None:
        """Discard the recorded forces."""
        self._hooks.forces, self._hooks.samples = np.zeros_like(self._hooks.forces), 0

    def zeros(self) -> dict[str, float]:
        """Return the share of zeros per rule: of groups for group penalties, of single entries for the others.

        Rules that cannot produce exact zeros are omitted.
        """
        sizes: dict[str, list[np.ndarray]] = {}
        for target in self._hooks.targets:
            with torch.no_grad(), on_device(self._hooks.tensors[target.index]):
                w = self._hooks.weights_of(target)
                for number, penalty in target.proximal:
                    size = penalty.sizes(w)
                    if size is not None:
                        sizes.setdefault(str(self.rules[number].name), []).append((size == 0).cpu().numpy())
        joined = {name: np.concatenate(parts) for name, parts in sizes.items()}
        return {name: float(np.mean(is_zero)) for name, is_zero in joined.items() if len(is_zero)}

    def summary(self) -> Summary:
        """List every parameter with its penalties and strengths, or why it has none.

        Returns:
            A `poise.Summary`, which displays as a table; `handle.summary().table` is the DataFrame.
        """
        hooks, rows = self._hooks, []
        acting = {hooks.tensors[number]: target for target in hooks.targets for number in target.members}
        trained = {id(tensor) for tensor in hooks.tensors}
        for parameter in self._parameters:
            target = acting.get(parameter.tensor)
            about = {"variable": parameter.path, "shape": parameter.shape, "role": kind_of(parameter)}
            for number, penalty in () if target is None else target.penalties:
                rule = self.rules[number]
                rows.append(
                    {
                        **about,
                        "penalty": type(penalty).__name__,
                        "strength": None if penalty.strength_argument is None else self.strength[rule.name],
                        "update": _update_of(target, number),
                        "note": f"rule {rule.name!r}",
                    }
                )
            if target is None:
                note = self._why_not(parameter, id(parameter.tensor) in trained)
                rows.append({**about, "penalty": "", "strength": None, "update": "", "note": note})
        title = f"{type(self.model).__name__}: {len(acting)} of {len(trained)} trained parameters penalized"
        return Summary(f"{title}, update={self.update!r}", pd.DataFrame(rows, columns=SUMMARY_COLUMNS))

    def remove(self) -> None:
        """Remove the hooks, the strengths, and everything else that the penalties added to the optimizer."""
        self._hooks.remove()
        self.strength.remove()

    def __repr__(self) -> str:
        rules = {str(rule.name): rule.penalty for rule in self.rules}
        return f"<PenaltyHandle {type(self.optimizer).__name__}, update={self.update!r}, rules={rules!r}>"

    def _why_not(self, parameter: Parameter, is_trained: bool) -> str:
        applying = [repr(rule.name) for rule in self.rules if rule.applies_to(parameter)]
        if not is_trained:
            suffix = f"; rule {', '.join(applying)} would apply if it were trained" if applying else ""
            return self._why_not_trained(parameter) + suffix
        excluding = [repr(rule.name) for rule in self.rules if rule.selects(parameter)]
        if excluding:
            return f"excluded by rule {', '.join(excluding)}"
        return "no rule selects it" if self.rules else "there are no rules"

    def _why_not_trained(self, parameter: Parameter) -> str:
        held = {id(tensor) for group in self.optimizer.param_groups for tensor in group["params"]}
        if id(parameter.tensor) in held:
            return "added to the optimizer later" if parameter.tensor.requires_grad else "frozen"
        return "not in the optimizer" if parameter.tensor.requires_grad else "frozen"


def _update_of(target: Any, number: int) -> str:
    for update in ("coupled", "decoupled", "proximal"):
        if any(number == rule for rule, _ in getattr(target, update)):
            return update
    return ""
