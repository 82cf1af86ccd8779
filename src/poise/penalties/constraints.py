"""Constraints: penalties that are 0 for some weights and infinite for all others. Bounds of single weights."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties.base import PACKAGE, Penalty
from poise.validation import LARGEST, validate_array

TOLERANCE = 2.0**-7
"""The relative violation that counts as a rounding error: that of bfloat16."""
AT_BOUND = 1e-5
"""The relative distance from a bound within which weights count as at the bound."""


class Constraint(Penalty):
    """A penalty that is 0 on a set of weights and infinite elsewhere. Its prox is the projection onto the set.

    A constraint has no strength, because scaling it changes nothing. The gradient is zero, so a constraint acts only by
    its prox. Its residual is the distance of −gradient from the normal cone of the set, and infinite outside of the
    set. The critical strength is None.

    A subclass implements `_is_violated`, `_prox` (the projection) and `_distance`. The projections of `MaxNorm` and
    `Simplex` depend on the steps: like every prox, they minimize the distance in the metric 1/step. The others ignore
    the steps.
    """

    has_force = False
    is_constraint = True
    strength_argument = None

    def __init__(self, strength: Any = 1.0) -> None:
        super().__init__(strength)

    def check_strength(self, strength: Any) -> Any:
        """Return 1.0: there is no other strength."""
        if strength != 1.0:
            raise ValueError(
                f"{self!r} is a constraint, which has no strength. Remove the rule to lift the constraint."
            )
        return 1.0

    def get_config(self) -> dict[str, Any]:
        return {}

    def _value(self, w: Any, strength: Any) -> Any:
        is_violated = ops.any(self._is_violated(w, strength))
        return ops.where(is_violated, ops.full((), math.inf, w.dtype), ops.zeros((), w.dtype))

    def _gradient(self, w: Any, strength: Any) -> Any:
        return ops.zeros_like(w)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        return ops.where(self._is_violated(w, strength), math.inf, self._distance(w, gradient, strength))

    def _is_violated(self, w: Any, strength: Any) -> Any:
        """Whether entries or groups of w are outside of the set by more than rounding errors."""
        raise NotImplementedError

    def _distance(self, w: Any, gradient: Any, strength: Any) -> Any:
        """The distance of −gradient from the normal cone at w, per entry or group."""
        raise NotImplementedError


class Bounds(Constraint):
    """lower_i ≤ w_i ≤ upper_i. Bounds are numbers or arrays, infinite where there is none."""

    lower: np.ndarray = np.asarray(-math.inf)
    upper: np.ndarray = np.asarray(math.inf)

    def check(self, shape: Sequence[int]) -> None:
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            try:
                fits = np.broadcast_shapes(bound.shape, tuple(shape)) == tuple(shape)
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{type(self).__name__} has {name} of shape {bound.shape}, which does not broadcast to a "
                    f"variable of shape {tuple(shape)}. Use a number, or a separate rule for each variable."
                )

    def _is_violated(self, w: Any, strength: Any) -> Any:
        low, high = self._limits(w, -TOLERANCE)
        return ops.logical_or(w < low, w > high)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        low, high = self._limits(w, 0.0)
        return ops.minimum(ops.maximum(w, low), high)

    def _distance(self, w: Any, gradient: Any, strength: Any) -> Any:
        low, high = self._limits(w, AT_BOUND)
        can_fall, can_rise = w > low, w < high
        return ops.where(ops.where(gradient > 0, can_fall, can_rise), ops.abs(gradient), 0.0)

    def _limits(self, w: Any, share: float) -> tuple[Any, Any]:
        """Both bounds, moved inward by a share of their size."""
        self.check(w.shape)
        sizes = [np.where(np.isfinite(bound), np.abs(bound), 0.0) for bound in (self.lower, self.upper)]
        low, high = self.lower + share * sizes[0], self.upper - share * sizes[1]
        return ops.convert_to_tensor(low, w.dtype), ops.convert_to_tensor(high, w.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class NonNegative(Bounds):
    """Constrain every weight to w_i ≥ 0. Its prox is max(w, 0).

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([3.0, -0.5, 1.0])
        >>> print(keras.ops.convert_to_numpy(poise.NonNegative().prox(w, step=1.0, strength=1.0)))
        [3. 0. 1.]
    """

    lower = np.asarray(0.0)

    def __init__(self) -> None:
        super().__init__()


@keras.saving.register_keras_serializable(PACKAGE)
class Box(Bounds):
    """Constrain every weight to lower ≤ w_i ≤ upper. The interval need not contain 0.

    Args:
        lower: A number, or an array that broadcasts to the shape of w; `-inf` where there is no bound. Default: None,
            for no lower bound.
        upper: Likewise, `inf` where there is no bound. Default: None, for no upper bound.

    Raises:
        ValueError: If there is no bound, a bound is NaN, or lower > upper.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([3.0, -0.5, 1.0])
        >>> print(keras.ops.convert_to_numpy(poise.Box(0.25, 2.0).prox(w, step=1.0, strength=1.0)))
        [2.   0.25 1.  ]
    """

    def __init__(self, lower: Any = None, upper: Any = None) -> None:
        super().__init__()
        if lower is None and upper is None:
            raise ValueError("Box needs lower or upper, got None for both. Example: poise.Box(-1.0, 1.0).")
        self.lower = _validate_bound("lower", -math.inf if lower is None else lower)
        self.upper = _validate_bound("upper", math.inf if upper is None else upper)
        is_empty = np.asarray(self.lower > self.upper)
        if is_empty.any():
            low, high = (np.broadcast_to(bound, is_empty.shape)[is_empty][0] for bound in (self.lower, self.upper))
            raise ValueError(f"lower must be <= upper, got {float(low):g} and {float(high):g}.")
        if (self.lower == math.inf).any() or (self.upper == -math.inf).any():
            raise ValueError("lower must be < inf and upper > -inf. Use -inf and inf where there is no bound.")

    def get_config(self) -> dict[str, Any]:
        return {"lower": self.lower.tolist(), "upper": self.upper.tolist()}


def _validate_bound(name: str, bound: Any) -> np.ndarray:
    bound = validate_array(name, bound)
    if np.isnan(bound).any():
        raise ValueError(f"{name} must not be NaN. Use -inf or inf where there is no bound.")
    if (np.isfinite(bound) & (np.abs(bound) > LARGEST)).any():
        raise ValueError(f"{name} must be at most {LARGEST:.2g} in size, the largest float32. Use -inf or inf.")
    return bound
