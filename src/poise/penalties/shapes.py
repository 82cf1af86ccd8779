"""Penalties of the shape of weights: smooth along an axis, or close to their start."""

import copy
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties.axes import Sides, why_no_axis
from poise.penalties.base import PACKAGE, Penalty
from poise.validation import is_integer, validate_array


class AlongAxis(Penalty):
    """A penalty of the differences between neighbors along an axis. Its factors are one per difference."""

    def __init__(self, strength: Any = 1.0, axis: Any = 0, factors: Any = None) -> None:
        super().__init__(strength, factors)
        if not is_integer(axis):
            raise TypeError(f"axis must be an int, got {axis!r}. Example: axis=0.")
        self.axis = int(axis)

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis, **super().get_config()}

    def check(self, shape: Sequence[int]) -> None:
        shape = tuple(shape)
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(why_no_axis(type(self).__name__, self.axis, shape))
        if self.factors is None:
            return
        differences = list(shape)
        differences[self.axis] -= 1
        try:
            fits = np.broadcast_shapes(self.factors.shape, tuple(differences)) == tuple(differences)
        except ValueError:
            fits = False
        if not fits or not np.isfinite(self.factors).all():
            raise ValueError(
                f"{type(self).__name__}(axis={self.axis}) on a variable of shape {shape} takes finite factors that "
                f"broadcast to {tuple(differences)}, one per difference, got factors of shape {self.factors.shape}."
            )

    def _factors(self, w: Any) -> Any:
        self.check(w.shape)
        return 1.0 if self.factors is None else ops.convert_to_tensor(self.factors, w.dtype)

    def _differences(self, w: Any) -> Any:
        along = ops.moveaxis(w, self.axis, 0)
        return ops.moveaxis(along[1:] - along[:-1], 0, self.axis)

    def _pad_differences(self, differences: Any, back: bool) -> Any:
        """Return per entry of w the difference before it (`back`) or after it, 0 at the ends."""
        along = ops.moveaxis(differences, self.axis, 0)
        nothing = ops.zeros((1, *along.shape[1:]), along.dtype)
        padded = ops.concatenate([nothing, along] if back else [along, nothing])
        return ops.moveaxis(padded, 0, self.axis)


@keras.saving.register_keras_serializable(PACKAGE)
class Smoothness(AlongAxis):
    """Penalize strength · Σ c_i (w_{i+1} − w_i)² along an axis: neighboring weights become similar.

    This is the discrete roughness penalty. Its proximal operator solves one symmetric positive definite tridiagonal
    system per line of the array, by cyclic reduction in ⌈log₂ n⌉ steps. The coefficients of the system are computed
    without subtractions, so the result is accurate at any strength.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        axis: The axis along which neighbors are compared, an integer. Default: 0.
        factors: Finite factors c per difference, broadcast to the shape of w with `axis` shorter by one. Default:
            None, for ones.

    References:
        Whittaker 1923, "On a new method of graduation".
        Eilers and Marx 1996, "Flexible smoothing with B-splines and penalties".

    Examples:
        >>> import poise, keras
        >>> float(poise.Smoothness().value(keras.ops.array([0.0, 1.0, 3.0]), strength=1.0))
        5.0
    """

    smooth = True

    def _value(self, w: Any, strength: Any) -> Any:
        factors = self._factors(w)
        differences = self._differences(w)
        return ops.sum(strength * factors * differences * differences)

    def _gradient(self, w: Any, strength: Any) -> Any:
        flow = self._factors(w) * self._differences(w)
        return 2.0 * strength * (self._pad_differences(flow, back=True) - self._pad_differences(flow, back=False))

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        """(I + 2s·h DᵀCD)u = w by parallel cyclic reduction (Hockney 1965).

        Row i is b_i u_i − a_i u_{i−k} − d_i u_{i+k} = r_i. Instead of b its excess e = b − a − d > 0 is kept.
        """
        axis = self.axis % len(w.shape)
        couplings = 2.0 * strength * self._factors(w) * ops.ones_like(self._differences(w))
        a = ops.moveaxis(step * self._pad_differences(couplings, back=True), axis, 0)
        d = ops.moveaxis(step * self._pad_differences(couplings, back=False), axis, 0)
        r = ops.moveaxis(w, axis, 0)
        e = ops.ones_like(r)
        distance = 1
        while distance < r.shape[0]:
            b = e + a + d
            before, after = a / _neighbor(b, -distance, 1.0), d / _neighbor(b, distance, 1.0)
            e = e + before * _neighbor(e, -distance) + after * _neighbor(e, distance)
            r = r + before * _neighbor(r, -distance) + after * _neighbor(r, distance)
            a, d = before * _neighbor(a, -distance), after * _neighbor(d, distance)
            distance *= 2
        return ops.moveaxis(r / (e + a + d), 0, axis)


@keras.saving.register_keras_serializable(PACKAGE)
class Anchored(Penalty):
    """Penalize w − start instead of w.

    `Anchored(L2(s))` is L2-SP for fine-tuning.

    Args:
        penalty: Any penalty. Its strength and factors are used.
        start: The anchor, an array of the shape of w. Default: None, for the weights before the first training step,
            which the optimizer keeps and saves.

    References:
        Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning", equation 2.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([1.0, 2.5])
        >>> stay = poise.Anchored(poise.L1(), start=[1.5, 0.5])
        >>> print(keras.ops.convert_to_numpy(stay.prox(w, step=1.0, strength=1.0)))
        [1.5 1.5]
    """

    def __init__(self, penalty: Any, start: Any = None) -> None:
        if not isinstance(penalty, Penalty) or isinstance(penalty, Anchored):
            raise TypeError(f"Anchored takes a poise penalty such as poise.L2(0.01), got {penalty!r}.")
        if start is not None and not isinstance(start, keras.Variable):
            start = validate_array("start", start)
            if not np.isfinite(start).all():
                raise ValueError("start must be finite, got an array with NaN or infinite entries.")
        self.penalty = penalty
        super().__init__(penalty.strength, penalty.factors)
        self.start = start
        self.smooth, self.metric, self.has_force = penalty.smooth, penalty.metric, penalty.has_force
        self.is_constraint, self.is_iterative = penalty.is_constraint, penalty.is_iterative
        self.handles_nan = penalty.handles_nan
        self.strength_argument = penalty.strength_argument

    @property
    def has_kinks_only_at_zero(self) -> bool:
        return False  # they are at the start

    def check_strength(self, strength: Any) -> Any:
        return self.penalty.check_strength(strength)

    def at(self, start: Any) -> "Anchored":
        """Return the same penalty with another anchor, an array or a variable."""
        other = copy.copy(self)
        other.start = start
        return other

    def bind(self, sides: Sides) -> Penalty:
        other = copy.copy(self)
        other.penalty, other.sides = self.penalty.bind(sides), sides
        return other

    def check(self, shape: Sequence[int]) -> None:
        self.penalty.check(shape)
        if self.start is not None and tuple(self.start.shape) != tuple(shape):
            raise ValueError(
                f"Anchored has a start of shape {tuple(self.start.shape)} for a variable of shape {tuple(shape)}. Use "
                "a separate rule for each variable, or start=None to anchor at the weights before training."
            )

    def get_config(self) -> dict[str, Any]:
        start = None if self.start is None else ops.convert_to_numpy(self.start).tolist()
        return {"penalty": keras.saving.serialize_keras_object(self.penalty), "start": start}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(keras.saving.deserialize_keras_object(config["penalty"]), config["start"])

    def _value(self, w: Any, strength: Any) -> Any:
        return self.penalty.value(self._away(w), strength)

    def _gradient(self, w: Any, strength: Any) -> Any:
        return self.penalty.gradient(self._away(w), strength)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        return self._anchor(w) + self.penalty.prox(self._away(w), step, strength)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        return self.penalty.residual(self._away(w), gradient, strength)

    def _critical_strength(self, gradient: Any) -> Any:
        """The smallest strength for which w = start is stationary: the penalty's."""
        return self.penalty.critical_strength(gradient)

    def why_no_prox(self) -> Any:
        return self.penalty.why_no_prox()

    def _away(self, w: Any) -> Any:
        return w - self._anchor(w)

    def _anchor(self, w: Any) -> Any:
        if self.start is None:
            raise ValueError(
                f"{self!r} has no start yet. poise.PenalizedOptimizer sets it before the first training step. "
                "Elsewhere pass start as an array."
            )
        self.check(w.shape)
        return ops.cast(ops.convert_to_tensor(self.start), w.dtype)


def _neighbor(x: Any, distance: int, end: float = 0.0) -> Any:
    """Return x_{i+distance} along the first axis, `end` beyond its ends."""
    missing = ops.full((abs(distance), *x.shape[1:]), end, x.dtype)
    if distance < 0:
        return ops.concatenate([missing, x[:distance]])
    return ops.concatenate([x[distance:], missing])
