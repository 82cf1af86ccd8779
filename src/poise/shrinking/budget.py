"""How small a network should become."""

import numbers
from dataclasses import dataclass

from poise.shrinking.costs import FLOPS, PARAMETERS

EXAMPLE = "such as flops=0.25"


@dataclass(frozen=True)
class Budget:
    """What `poise.shrink` aims at: a share of the cost, or the smallest cost at which the network is still good.

    Attributes:
        share: Largest cost relative to the original network; None without such a budget.
        quantity: What the cost counts: `"FLOPs"` or `"parameters"`.
        accuracy_drop: Largest drop in validation accuracy; None without such a budget.
        loss_increase: Largest increase of the validation loss, relative to it; None without such a budget.
    """

    share: float | None = None
    quantity: str = FLOPS
    accuracy_drop: float | None = None
    loss_increase: float | None = None

    @property
    def description(self) -> str:
        """The budget in words."""
        if self.share is not None:
            return f"at most {self.share:.3g} of the {self.quantity}"
        if self.accuracy_drop is not None:
            return f"validation accuracy at most {self.accuracy_drop:g} lower"
        return f"validation loss at most {100 * (self.loss_increase or 0):.3g}% higher"

    def allows(self, scores: dict[str, float], original: dict[str, float], accuracy: str | None) -> bool:
        """Whether the scores of a smaller network are good enough, for a budget without a share."""
        if self.accuracy_drop is not None and accuracy is not None:
            return scores[accuracy] >= original[accuracy] - self.accuracy_drop - 1e-7  # float32 metrics
        assert self.loss_increase is not None
        return scores["loss"] <= original["loss"] + self.loss_increase * abs(original["loss"])


def read_budget(
    flops: float | None, parameters: float | None, max_accuracy_drop: float | None, max_loss_increase: float | None
) -> Budget:
    """Return the budget of the arguments of `poise.shrink`.

    Raises:
        TypeError: If it is not a number.
        ValueError: If none or several are given, or one is out of its range.
    """
    settings = {
        "flops": flops,
        "parameters": parameters,
        "max_accuracy_drop": max_accuracy_drop,
        "max_loss_increase": max_loss_increase,
    }
    budgets = {name: value for name, value in settings.items() if value is not None}
    if len(budgets) != 1:
        names = " and ".join(budgets) or "none"
        raise ValueError(f"Pass one of {', '.join(settings)}, {EXAMPLE}, got {names}.")
    ((name, value),) = budgets.items()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    value = float(value)
    if name in ("flops", "parameters"):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1 (exclusive), got {value!r}. Pass a share such as 0.25.")
        return Budget(value, FLOPS if name == "flops" else PARAMETERS)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, such as 0.005, got {value!r}.")
    return Budget(accuracy_drop=value) if name == "max_accuracy_drop" else Budget(loss_increase=value)
