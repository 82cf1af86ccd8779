"""What a penalty is: a function R of the weights whose gradient and proximal step are closed formulas.

A penalty never sees data, and never sees an optimizer. Every method takes the strength as an argument (it may be a
traced tensor), because for MCP and SCAD the penalty is not linear in it and because strength changes during training.

The public methods of `Penalty` handle precision and dtypes once; a subclass writes only the formulas, in `_value`,
`_gradient`, `_prox`, `_residual` and `_critical_strength`. The attributes `smooth` and `metric` say what a penalty can
do, not its place in a tree of classes.
"""

import copy
import math
import numbers
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from poise.penalties.axes import Sides
from poise.validation import check_range, validate_factors, validate_number

PACKAGE = "poise"
"""The name under which poise registers its classes with Keras."""

Schedule = keras.optimizers.schedules.LearningRateSchedule


class Penalty(keras.regularizers.Regularizer):
    """Base of all penalties: strength · R(w).

    Args:
        strength: A float ≥ 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the optimizer's iterations.
            Default: 1.0.
        factors: Factors ≥ 0 per entry (broadcast to the shape of w) or per group. 0 leaves an entry unpenalized. `inf`
            is a constraint: the entry is held at zero, and adds nothing to the value or the gradient. Factors are never
            rescaled. Default: None, which uses the default of the penalty.

    Attributes:
        smooth: Whether R is differentiable everywhere.
        metric: The steps that `prox` accepts: `"diagonal"` (a scalar or one step per entry), `"scalar"`, or None for a
            penalty without a known proximal operator.
        has_force: Whether the gradient of R has an effect (the gradient of L0 is zero wherever it exists).
        is_constraint: Whether R is 0 on a set and infinite elsewhere (see `poise.penalties.constraints`).
        strength_argument: The name of the constructor's argument that is the strength; None if there is none.
        is_iterative: Whether the number of iterations of the prox depends on the weights. PyTorch then runs it eagerly,
            and does not record a program with a fixed number of steps.
        handles_nan: Whether `_prox` returns NaN for a NaN weight. One that sorts or takes an SVD may return a number or
            fail: `prox` then takes NaN out first and puts it back.
        members: For a penalty that treats several variables as one vector, a dictionary that maps the path of each
            variable to its shape, axis and groups (see `JointGroupLasso`); otherwise None.
        sides: Where the inputs and outputs of its variable lie, once it is bound to one (see `bind`); None before.

    Raises:
        TypeError: If the strength is neither a real number nor a schedule.
        ValueError: If the strength is negative or not finite, or a factor is negative or NaN.
    """

    smooth: bool = False
    metric: Literal["diagonal", "scalar"] | None = "diagonal"
    has_force: bool = True
    is_constraint: bool = False
    strength_argument: str | None = "strength"
    is_iterative: bool = False
    handles_nan: bool = True
    members: dict[str, Any] | None = None
    sides: Sides | None = None

    def __init__(self, strength: Any = 1.0, factors: Any = None) -> None:
        self.strength = self.check_strength(strength)
        self.factors = validate_factors(factors)

    def value(self, w: Any, strength: Any) -> Any:
        """Return strength · R(w), a scalar in the dtype of w, at least float32.

        Args:
            w: The weights, a tensor of any shape.
            strength: A scalar ≥ 0.
        """
        w = ops.convert_to_tensor(w)
        w, strength = _working(w, strength)
        return ops.zeros((), w.dtype) if is_empty(w) else self._value(w, strength)

    def gradient(self, w: Any, strength: Any) -> Any:
        """Return ∇(strength · R)(w), of the shape and dtype of w; at a kink, the subgradient of minimum norm.

        Args:
            w: The weights, a tensor of any shape.
            strength: A scalar ≥ 0.
        """
        w = ops.convert_to_tensor(w)
        dtype = keras.backend.standardize_dtype(w.dtype)
        w, strength = _working(w, strength)
        return ops.cast(w if is_empty(w) else self._gradient(w, strength), dtype)

    def prox(self, w: Any, step: Any, strength: Any) -> Any:
        """Return the proximal operator, argmin_u ½‖u − w‖²_{1/step} + strength · R(u).

        Args:
            w: The weights, a tensor of any shape.
            step: A scalar ≥ 0, or with `metric == "diagonal"` an array of the shape of w (a diagonal metric). A step of
                0 leaves w as it is.
            strength: A scalar ≥ 0.

        Returns:
            A tensor of the shape and dtype of w. For a penalty that is not convex, the global minimizer. A NaN
            weight stays NaN.

        Raises:
            ValueError: If the penalty has no proximal operator, or none for a step per entry.
        """
        if self.metric is None:
            raise ValueError(self.why_no_prox())
        w = ops.convert_to_tensor(w)
        dtype = keras.backend.standardize_dtype(w.dtype)
        w, strength = _working(w, strength)
        step = ops.convert_to_tensor(step, w.dtype)
        if self.metric == "scalar" and len(step.shape) > 0:
            raise ValueError(
                f"{type(self).__name__}.prox takes one step for the whole matrix, got steps of shape "
                f"{tuple(step.shape)}. Use an optimizer with a scalar step (SGD), or update='decoupled'."
            )
        if is_empty(w):
            return ops.cast(w, dtype)
        return ops.cast((self._prox if self.handles_nan else self._prox_around_nan)(w, step, strength), dtype)

    def residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        """Return the distance of −gradient from the subdifferential strength · ∂R(w), per entry or per group.

        Args:
            w: The weights, a tensor of any shape.
            gradient: The gradient of the prediction loss, of the shape of w.
            strength: A scalar ≥ 0.

        Returns:
            Distances ≥ 0: zero everywhere if and only if w is a stationary point of prediction + penalty. An empty
            tensor for a variable without entries.
        """
        w, strength = _working(w, strength)
        return ops.zeros((0,), w.dtype) if is_empty(w) else self._residual(w, ops.cast(gradient, w.dtype), strength)

    def critical_strength(self, gradient: Any) -> Any:
        """Return the smallest strength for which w = 0 is stationary under this prediction gradient.

        glmnet calls it λ_max.

        Args:
            gradient: The gradient of the prediction loss at w = 0.

        Returns:
            A scalar, 0 for a variable without entries. None if no finite strength has that effect (a smooth penalty) or
            every strength has it (L0).
        """
        gradient, _ = _working(gradient, 0.0)
        if is_empty(gradient):
            has_none = self.smooth or not self.has_force or self.metric is None
            return None if has_none else ops.zeros((), gradient.dtype)
        return self._critical_strength(gradient)

    def sizes(self, w: Any) -> Any:
        """Return the sizes of what the penalty can set to zero: |w_i| per entry or ‖w_g‖₂ per group, a vector.

        Entries and groups with the factor 0 are left out. None if the penalty sets nothing exactly to zero.
        """
        return None

    @property
    def has_kinks_only_at_zero(self) -> bool:
        """Whether R is differentiable everywhere, or a sum over entries with kinks only at w_i = 0."""
        return self.smooth

    def check_strength(self, strength: Any) -> Any:
        """Return a strength as a float or schedule, or raise TypeError or ValueError."""
        return validate_strength(strength)

    def with_factors(self, factors: Any) -> "Penalty":
        """Return the penalty with other factors, unchecked: they may be a traced tensor (the lanes of a path)."""
        other = copy.copy(self)
        other.factors = factors
        return other

    def bind(self, sides: Sides) -> "Penalty":
        """Return the penalty for a variable whose inputs and outputs lie at these sides.

        An optimizer binds its penalties by the type of the layer. A penalty that is not bound takes the last axis for
        the outputs and the one before it for the inputs.
        """
        other = copy.copy(self)
        other.sides = sides
        return other

    def check(self, shape: Sequence[int]) -> None:
        """Raise ValueError if the penalty cannot act on a variable of this shape."""
        if self.factors is None:
            return
        try:
            fits = np.broadcast_shapes(self.factors.shape, tuple(shape)) == tuple(shape)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"{type(self).__name__} has factors of shape {self.factors.shape}, which do not broadcast to a "
                f"variable of shape {tuple(shape)}. Use one factor per entry, or a separate rule for each variable."
            )

    def __call__(self, w: Any) -> Any:
        """Return the value of the penalty as a plain Keras regularizer, with `gradient` as its exact derivative."""
        if self.is_constraint:
            raise ValueError(
                f"{self!r} is a constraint, which cannot act as a regularizer of the loss: its gradient is zero. Use "
                "it in poise.PenalizedOptimizer."
            )
        if isinstance(self.strength, Schedule):
            raise ValueError(
                f"{type(self).__name__} has a schedule as its strength, and a plain Keras regularizer has no "
                "iterations. Use it in poise.PenalizedOptimizer, or use a number."
            )
        here = ops.stop_gradient(w)
        w = ops.cast(w, _working_dtype(w))
        slope = ops.cast(self.gradient(here, self.strength), w.dtype)
        return self.value(here, self.strength) + ops.sum(slope * (w - ops.stop_gradient(w)))

    def get_config(self) -> dict[str, Any]:
        factors = self.factors if self.factors is None else self.factors.tolist()
        return {"strength": serialize_strength(self.strength), "factors": factors}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        argument = cls.strength_argument
        if argument is not None and isinstance(config.get(argument), dict):
            config = {**config, argument: keras.optimizers.schedules.deserialize(config[argument])}
        return cls(**config)

    def __repr__(self) -> str:
        settings = [f"{key}={value!r}" for key, value in self.get_config().items() if value is not None]
        return f"{type(self).__name__}({', '.join(settings)})"

    def _value(self, w: Any, strength: Any) -> Any:
        raise NotImplementedError

    def _gradient(self, w: Any, strength: Any) -> Any:
        raise NotImplementedError

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        raise NotImplementedError

    def _prox_around_nan(self, w: Any, step: Any, strength: Any) -> Any:
        """Apply `_prox` as if NaN weights were 0, and put NaN back."""
        is_nan = ops.isnan(w + step)
        w, step = ops.where(is_nan, 0.0, w), ops.where(ops.isnan(step), 1.0, step)
        return ops.where(is_nan, math.nan, self._prox(w, step, strength))

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        return ops.abs(gradient + self._gradient(w, strength))

    def _critical_strength(self, gradient: Any) -> Any:
        return None

    def why_no_prox(self) -> str:
        """Return the message for a penalty without a proximal operator (`metric` is None)."""
        return f"{type(self).__name__} has no proximal operator. Use update='coupled'."


class Separable(Penalty):
    """A penalty that is a sum over entries, R(w) = Σ_i c_i ρ(w_i).

    A subclass defines ρ: its value, its slope, its proximal step, and how wide its subdifferential is at zero, each
    for the whole tensor at once. The factors c are applied here, since c·ρ has the prox of ρ with the step c·step.
    """

    @property
    def has_kinks_only_at_zero(self) -> bool:
        return self.smooth or self.has_force

    def sizes(self, w: Any) -> Any:
        if self.smooth:
            return None
        sizes = ops.reshape(ops.abs(w), (-1,))
        if self.factors is None:
            return sizes
        return ops.take(sizes, np.flatnonzero(np.broadcast_to(self.factors, w.shape)))

    def _value(self, w: Any, strength: Any) -> Any:
        if self.factors is None:
            return ops.sum(self._entries(w, strength))
        price, free = self._factors(w)
        return ops.sum(ops.where(free & (price > 0), price * self._entries(w, strength), 0.0))

    def _gradient(self, w: Any, strength: Any) -> Any:
        slope = self._slope(w, strength)
        return slope if self.factors is None else self._factors(w)[0] * slope

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        if self.factors is None:
            return self._step(w, step, strength)
        price, free = self._factors(w)
        return ops.where(ops.logical_or(free, ops.isnan(w)), self._step(w, step * price, strength), 0.0)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        price, free = self._factors(w)
        radius = price * self._radius(strength)
        away = ops.abs(gradient + price * self._slope(w, strength))
        distance = ops.where(w == 0, ops.maximum(ops.abs(gradient) - radius, 0.0), away)
        return ops.where(free, distance, ops.where(w == 0, 0.0, math.inf))

    def _critical_strength(self, gradient: Any) -> Any:
        """max_i |g_i| / (c_i ρ′(0+; 1)), ρ′(0+) being linear in the strength for all penalties here."""
        price, free = self._factors(gradient)
        radius = price * self._radius(1.0)
        needed = ops.where(gradient == 0, 0.0, ops.abs(gradient) / radius)
        return ops.max(ops.where(free, needed, 0.0))

    def _factors(self, w: Any) -> Any:
        """(c with 0 in the place of inf, whether c is finite), of shapes that broadcast to w's."""
        if self.factors is None:
            return ops.ones((), w.dtype), ops.ones((), "bool")
        self.check(w.shape)
        factors = ops.convert_to_tensor(self.factors, w.dtype)
        free = ops.isfinite(factors)
        return ops.where(free, factors, 0.0), free

    def _entries(self, w: Any, strength: Any) -> Any:
        """ρ(w_i)."""
        raise NotImplementedError

    def _slope(self, w: Any, strength: Any) -> Any:
        """ρ′(w_i), and 0 at a kink at zero."""
        raise NotImplementedError

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        """argmin_u ½(u − w_i)² + step_i ρ(u)."""
        raise NotImplementedError

    def _radius(self, strength: Any) -> Any:
        """ρ′(0+): −gradient is in the subdifferential at 0 if it is no larger."""
        raise NotImplementedError


def soft_threshold(w: Any, threshold: Any) -> Any:
    """sign(w) max(|w| − threshold, 0), the proximal operator of the absolute value; its zeros are +0.0."""
    return w - ops.maximum(ops.minimum(w, threshold), -threshold)


def _working_dtype(w: Any) -> str:
    """float32 at least: a penalty of half-precision weights overflows in half precision."""
    dtype = keras.backend.standardize_dtype(w.dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def is_empty(w: Any) -> bool:
    """Whether a tensor has no entries, such as the kernel of a layer without inputs."""
    return 0 in tuple(w.shape)


def _working(w: Any, strength: Any) -> Any:
    dtype = _working_dtype(w)
    if isinstance(strength, numbers.Real) and math.isfinite(strength):
        check_range("strength", float(strength))
    return ops.cast(w, dtype), ops.convert_to_tensor(strength, dtype)


def validate_strength(strength: Any) -> Any:
    """Return a strength as a float or schedule, or raise TypeError or ValueError."""
    if isinstance(strength, Schedule):
        return strength
    if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
        raise TypeError(f"strength must be a number >= 0 or a keras LearningRateSchedule, got {strength!r}.")
    return validate_number("strength", float(strength))


def serialize_strength(strength: Any) -> Any:
    """Return a strength as a number or the configuration of its schedule."""
    return keras.optimizers.schedules.serialize(strength) if isinstance(strength, Schedule) else strength
