"""How the `TargetSparsity` callbacks adapt the strength of a rule to a target share of zeros."""

import numbers

from poise.penalties.base import Schedule
from poise.rules.rule import Rule
from poise.validation import validate_number


def next_strength(strength: float, share: float, target: float, growth: float) -> float:
    """Return the next strength, given the share of zeros at the current one.

    With the share of zeros z and the target t, the factor is growth^((t − z)/t) below the target and
    growth^((t − z)/(1 − t)) above it: `growth` while nothing is zero, 1 at the target, and 1/growth if everything is
    zero.

    Args:
        strength: Float >= 0, the current strength.
        share: Float from 0 to 1, the share of zeros.
        target: Float between 0 and 1, the target share.
        growth: Float > 1, the largest factor.
    """
    missing = target - share
    room = target if missing > 0 else 1.0 - target
    return strength * growth ** (missing / room)


def check_target(target: float, growth: float) -> None:
    """Check the arguments of `TargetSparsity`.

    Raises:
        TypeError: If `target` or `growth` is not a number.
        ValueError: If `target` or `growth` is out of its range.
    """
    if isinstance(target, bool) or not isinstance(target, numbers.Real):
        raise TypeError(f"target must be a number such as 0.8, got {target!r}.")
    if not 0 < float(target) < 1:
        raise ValueError(f"target must be between 0 and 1 (exclusive), got {target!r}.")
    validate_number("growth", growth, least=1.0, inclusive=False)


def check_adaptable(rule: Rule, strength: float, update: str) -> None:
    """Check that the strength of a rule can be adapted by a factor, and that the update gives exact zeros.

    Raises:
        ValueError: If the penalty is a constraint, the strength follows a schedule or is 0, or the update is
            `"coupled"`.
    """
    who = f"TargetSparsity({rule.name!r})"
    if rule.penalty.is_constraint:
        raise ValueError(
            f"{who}: {rule.penalty!r} is a constraint, which has no strength to adapt. Set the share of zeros in the "
            "rule: poise.TopK(0.8)."
        )
    if isinstance(rule.penalty.strength, Schedule):
        raise ValueError(f"{who}: the strength of this rule follows a schedule. Use a number as its strength.")
    if strength == 0:
        raise ValueError(f"{who}: a strength of 0 cannot grow by a factor. Start with a small one, such as 1e-5.")
    if update == "coupled":
        raise ValueError(
            f"{who}: update='coupled' sets nothing to exactly zero. Use update='auto', 'proximal' or 'decoupled'."
        )
