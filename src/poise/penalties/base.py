"""What a penalty is: a function R of the weights whose gradient and proximal step are closed formulas.

A penalty never sees data, and never sees an optimizer. Every method takes the strength as an argument (it may be a
traced tensor), because for MCP and SCAD the penalty is not linear in it and because strength changes during training.

The public methods of `Penalty` fix the precision and the dtypes once; a subclass writes the formulas alone, in
`_value`, `_gradient`, `_prox`, `_residual` and `_critical_strength`. What a penalty can do is told by its attributes
`smooth` and `metric`, not by its place in a tree of classes.
"""

import copy
import math
import numbers
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from poise.penalties.axes import Sides

PACKAGE = "poise"
"""The name under which poise registers its classes with Keras."""

LARGEST = float(np.finfo("float32").max)

Schedule = keras.optimizers.schedules.LearningRateSchedule


class Penalty(keras.regularizers.Regularizer):
    """Base of all penalties: strength · R(w).

    Args:
        strength: float ≥ 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the optimizer's iterations.
        factors: non-negative factors per entry (broadcast to w's shape) or per group; 0 leaves an entry unpenalized,
            `inf` holds it at zero. None for the default of the penalty. They are never rescaled. An entry that is
            held at zero is a constraint and not a price: it counts nothing in the value and the gradient.

    Attributes:
        smooth: whether R is differentiable everywhere.
        metric: the steps that `prox` accepts: `"diagonal"` (a scalar or one step an entry), `"scalar"`, or None where
            no proximal operator is known.
        has_force: whether the gradient of R is of any use (that of L0 is zero wherever it exists).
        members: None, or, if it acts on several variables as on one vector, by the path of each its shape, axis and
            groups (see `JointGroupLasso`).
        sides: where the inputs and outputs of its variable lie, once it is bound to one (see `bound`); None before.

    Raises:
        TypeError: if the strength is neither a real number nor a schedule.
        ValueError: if the strength is negative or not finite, or a factor is negative or NaN.
    """

    smooth: ClassVar[bool] = False
    metric: ClassVar[Literal["diagonal", "scalar"] | None] = "diagonal"
    has_force: ClassVar[bool] = True
    members: dict[str, tuple] | None = None
    sides: Sides | None = None

    def __init__(self, strength=1.0, factors=None):
        self.strength = checked_strength(strength)
        self.factors = _checked_factors(factors)

    def value(self, w, strength):
        """strength · R(w): a scalar, in w's dtype but float32 at least. `w`: a tensor of any shape."""
        w = ops.convert_to_tensor(w)
        w, strength = _working(w, strength)
        return ops.zeros((), w.dtype) if is_empty(w) else self._value(w, strength)

    def gradient(self, w, strength):
        """∇(strength · R)(w), of w's shape and dtype; where R is not smooth, the subgradient of minimum norm."""
        w = ops.convert_to_tensor(w)
        dtype = keras.backend.standardize_dtype(w.dtype)
        w, strength = _working(w, strength)
        return ops.cast(w if is_empty(w) else self._gradient(w, strength), dtype)

    def prox(self, w, step, strength):
        """The proximal operator, argmin_u ½‖u − w‖²_{1/step} + strength · R(u).

        Args:
            w: a tensor of any shape.
            step: a scalar ≥ 0, or with `metric == "diagonal"` an array of w's shape (a diagonal metric). A step of 0
                leaves w as it is.
            strength: a scalar ≥ 0.

        Returns:
            A tensor of w's shape and dtype. For a penalty that is not convex the global minimizer.

        Raises:
            ValueError: if the penalty has no proximal operator, or none for a step per entry.
        """
        if self.metric is None:
            raise ValueError(self.why_no_prox())
        w = ops.convert_to_tensor(w)
        dtype = keras.backend.standardize_dtype(w.dtype)
        w, strength = _working(w, strength)
        step = ops.convert_to_tensor(step, w.dtype)
        if self.metric == "scalar" and len(step.shape) > 0:
            raise ValueError(
                f"{type(self).__name__}.prox takes one step for the whole matrix; received steps of shape "
                f"{tuple(step.shape)}. Use an optimizer with a scalar step (SGD), or update='decoupled'."
            )
        return ops.cast(w if is_empty(w) else self._prox(w, step, strength), dtype)

    def residual(self, w, gradient, strength):
        """The distance of −gradient from the subdifferential strength · ∂R(w), per entry or per group.

        Args:
            w: the weights, any shape.
            gradient: the gradient of the prediction loss, of w's shape.
            strength: a scalar ≥ 0.

        Returns:
            Non-negative distances: zero everywhere if and only if w is a stationary point of prediction + penalty. Of a
            variable without entries there are none.
        """
        w, strength = _working(w, strength)
        return ops.zeros((0,), w.dtype) if is_empty(w) else self._residual(w, ops.cast(gradient, w.dtype), strength)

    def critical_strength(self, gradient):
        """The smallest strength for which w = 0 is stationary under this prediction gradient, a scalar.

        glmnet calls it λ_max. None where no finite strength does it (a smooth penalty) or any does (L0). 0 for a
        variable without entries.
        """
        gradient, _ = _working(gradient, 0.0)
        if is_empty(gradient):
            has_none = self.smooth or not self.has_force or self.metric is None
            return None if has_none else ops.zeros((), gradient.dtype)
        return self._critical_strength(gradient)

    def sizes(self, w) -> Any:
        """What the penalty can bring to zero one by one: |w_i| per entry or ‖w_g‖₂ per group, (numbers,).

        Without those that have the factor 0. None where nothing becomes exactly zero (a smooth penalty).
        """
        return None

    def with_factors(self, factors) -> "Penalty":
        """The penalty with other `weights`, unchecked: they may be a traced tensor, one for each lane of a path."""
        other = copy.copy(self)
        other.factors = factors
        return other

    def bound(self, sides: Sides) -> "Penalty":
        """The penalty for a variable of which it is known where its inputs and outputs lie.

        An optimizer binds its penalties by the type of the layer. One that is not bound takes the last axis for the
        outputs and the one before it for the inputs.
        """
        other = copy.copy(self)
        other.sides = sides
        return other

    def check(self, shape):
        """Raises ValueError if the penalty cannot act on a variable of this shape."""
        if self.factors is None:
            return
        try:
            fits = np.broadcast_shapes(self.factors.shape, tuple(shape)) == tuple(shape)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"{type(self).__name__} has factors of shape {self.factors.shape}, which do not broadcast to a "
                f"variable of shape {tuple(shape)}. Give one factor per entry, or a rule for each variable."
            )

    def __call__(self, w):
        """The penalty as a plain Keras regularizer: its value, with `gradient` as its exact derivative."""
        if isinstance(self.strength, Schedule):
            raise ValueError(
                f"{type(self).__name__} has a scheduled strength, and a plain Keras regularizer knows no iterations. "
                "Use it in poise.PenalizedOptimizer, or give it a number."
            )
        here = ops.stop_gradient(w)
        w = ops.cast(w, _working_dtype(w))
        slope = ops.cast(self.gradient(here, self.strength), w.dtype)
        return self.value(here, self.strength) + ops.sum(slope * (w - ops.stop_gradient(w)))

    def get_config(self):
        strength = self.strength
        if isinstance(strength, Schedule):
            strength = keras.optimizers.schedules.serialize(strength)
        factors = self.factors if self.factors is None else self.factors.tolist()
        return {"strength": strength, "factors": factors}

    @classmethod
    def from_config(cls, config):
        if isinstance(config.get("strength"), dict):
            schedule = keras.optimizers.schedules.deserialize(config["strength"])
            config = {**config, "strength": schedule}
        return cls(**config)

    def __repr__(self):
        given = [f"{key}={value!r}" for key, value in self.get_config().items() if value is not None]
        return f"{type(self).__name__}({', '.join(given)})"

    def _value(self, w, strength):
        raise NotImplementedError

    def _gradient(self, w, strength):
        raise NotImplementedError

    def _prox(self, w, step, strength):
        raise NotImplementedError

    def _residual(self, w, gradient, strength):
        return ops.abs(gradient + self._gradient(w, strength))

    def _critical_strength(self, gradient):
        return None

    def why_no_prox(self) -> str:
        """Return the message for a penalty without a proximal operator (`metric` is None)."""
        return f"{type(self).__name__} has no proximal operator. Use update='coupled'."


class Separable(Penalty):
    """A penalty that is a sum over entries, R(w) = Σ_i c_i ρ(w_i).

    A subclass gives ρ: its value, its slope, its proximal step, and how wide its subdifferential is at zero, each
    for the whole tensor at once. The factors c are applied here, since c·ρ has the prox of ρ with the step c·step.
    """

    def sizes(self, w):
        if self.smooth:
            return None
        sizes = ops.reshape(ops.abs(w), (-1,))
        if self.factors is None:
            return sizes
        return ops.take(sizes, np.flatnonzero(np.broadcast_to(self.factors, w.shape)))

    def _value(self, w, strength):
        if self.factors is None:
            return ops.sum(self._entries(w, strength))
        price, free = self._factors(w)
        return ops.sum(ops.where(free & (price > 0), price * self._entries(w, strength), 0.0))

    def _gradient(self, w, strength):
        slope = self._slope(w, strength)
        return slope if self.factors is None else self._factors(w)[0] * slope

    def _prox(self, w, step, strength):
        if self.factors is None:
            return self._step(w, step, strength)
        price, free = self._factors(w)
        return ops.where(free, self._step(w, step * price, strength), 0.0)

    def _residual(self, w, gradient, strength):
        price, free = self._factors(w)
        radius = price * self._radius(strength)
        away = ops.abs(gradient + price * self._slope(w, strength))
        distance = ops.where(w == 0, ops.maximum(ops.abs(gradient) - radius, 0.0), away)
        return ops.where(free, distance, ops.where(w == 0, 0.0, math.inf))

    def _critical_strength(self, gradient):
        """max_i |g_i| / (c_i ρ′(0+; 1)), ρ′(0+) being linear in the strength for all penalties here."""
        price, free = self._factors(gradient)
        radius = price * self._radius(1.0)
        needed = ops.where(gradient == 0, 0.0, ops.abs(gradient) / radius)
        return ops.max(ops.where(free, needed, 0.0))

    def _factors(self, w):
        """(c with 0 in the place of inf, whether c is finite), of shapes that broadcast to w's."""
        if self.factors is None:
            return ops.ones((), w.dtype), ops.ones((), "bool")
        self.check(w.shape)
        factors = ops.convert_to_tensor(self.factors, w.dtype)
        free = ops.isfinite(factors)
        return ops.where(free, factors, 0.0), free

    def _entries(self, w, strength):
        """ρ(w_i)."""
        raise NotImplementedError

    def _slope(self, w, strength):
        """ρ′(w_i), and 0 at a kink at zero."""
        raise NotImplementedError

    def _step(self, w, step, strength):
        """argmin_u ½(u − w_i)² + step_i ρ(u)."""
        raise NotImplementedError

    def _radius(self, strength):
        """ρ′(0+): −gradient is in the subdifferential at 0 if it is no larger."""
        raise NotImplementedError


def soft_threshold(w, threshold):
    """sign(w) max(|w| − threshold, 0), the proximal operator of the absolute value; its zeros are +0.0."""
    return w - ops.maximum(ops.minimum(w, threshold), -threshold)


def _working_dtype(w):
    """float32 at least: a penalty of half-precision weights overflows in half precision."""
    dtype = keras.backend.standardize_dtype(w.dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def is_empty(w) -> bool:
    """Whether a tensor has no entries, such as the kernel of a layer without inputs."""
    return 0 in tuple(w.shape)


def _working(w, strength):
    dtype = _working_dtype(w)
    if isinstance(strength, numbers.Real) and math.isfinite(strength):
        _check_range("strength", float(strength))
    return ops.cast(w, dtype), ops.convert_to_tensor(strength, dtype)


def checked_strength(strength):
    if isinstance(strength, Schedule):
        return strength
    if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
        raise TypeError(
            f"strength={strength!r} is a {type(strength).__name__}; a strength is a number ≥ 0 or a keras "
            "LearningRateSchedule."
        )
    return checked_number("strength", float(strength))


def checked_number(name, value, least=0.0, inclusive=True):
    """`value` as a float, or a ValueError if it is not finite or below `least`."""
    value = float(value)
    _check_range(name, value)
    above = value >= least if inclusive else value > least
    if not (above and math.isfinite(value)):
        sign = "≥" if inclusive else ">"
        raise ValueError(f"{name}={value!r} is not allowed: give a finite number {sign} {least:g}.")
    return value


def _check_range(name, value):
    """Raises ValueError for a finite number that would be infinite in float32."""
    if LARGEST < value < math.inf:
        raise ValueError(f"{name}={value!r} is beyond the range of float32: give a number of at most {LARGEST:.2g}.")


def _checked_factors(factors):
    if factors is None:
        return None
    factors = np.asarray(factors, dtype="float64")
    if (np.isfinite(factors) & (factors > LARGEST)).any():
        _check_range("factors", float(factors[np.isfinite(factors)].max()))
    if np.isnan(factors).any() or (factors < 0).any():
        worst = factors[np.isnan(factors) | (factors < 0)].flat[0]
        raise ValueError(f"factors must be >= 0, got {worst!r} (0: not penalized, inf: held at zero).")
    return factors
