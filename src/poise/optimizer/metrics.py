"""The step that each Keras optimizer takes per coordinate: the metric of its proximal step.

A fixed point of "optimizer step, then prox with step h" is a stationary point of prediction + penalty if and only if
h is the very factor by which the optimizer multiplied the gradient in this step, bias correction, schedule and
momentum included: then w = prox(w − h·g) with the same h on both sides (Yun, Lozano and Yang 2021, ProxGen).

One function per optimizer is registered here. It is called before the optimizer's update, when it can copy what the
update overwrites, and returns a function that returns h after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
from keras import ops

from poise._keras_internals import STEP_METHODS, nadam_momentum_product, optimizer_slot
from poise.optimizer.inner import find_override
from poise.optimizer.targets import MetricKind


@dataclass(frozen=True)
class Before:
    """What a step function reads, before the optimizer's update and after it.

    Attributes:
        optimizer: The inner optimizer.
        index: The number of the variable.
        w: The value of the variable before the update. A step that needs it after the update copies it before: PyTorch
            updates in place.
        gradient: Its gradient before the update.
        rate: The learning rate of the update.
    """

    optimizer: Any
    index: int
    w: Any
    gradient: Any
    rate: Any

    def state(self, name: str) -> Any:
        """Return a copy of the optimizer's variable `name` for this weight as it is now."""
        return ops.copy(ops.convert_to_tensor(optimizer_slot(self.optimizer, name, self.index)))

    @property
    def count(self) -> Any:
        """The number of updates; 1 after the first one."""
        return ops.maximum(ops.cast(self.optimizer.iterations, self.w.dtype), 1.0)

    def step_with_fallback(self, moment: Any, step_at: Callable[[Any], Any], least: float = 0.0) -> Any:
        """Return the step size per entry.

        Entries without a gradient so far use the step at the mean second moment, or the learning rate if no entry of
        the variable has had a gradient. Their adaptive step would be rate/ε, with which a prox would immediately set to
        zero all weights that have not been trained yet (branches that start at zero, rows of an embedding that were not
        looked up). Any positive step has the same fixed points there, because the prediction gradient is zero.

        Args:
            moment: The second moment, of the shape of the variable.
            step_at: Returns the step at a moment.
            least: Moments up to this one count as none. Default: 0.0.
        """
        is_seen = moment > least
        count = ops.sum(ops.cast(is_seen, moment.dtype))
        mean = ops.sum(ops.where(is_seen, moment, 0.0)) / ops.maximum(count, 1.0)
        elsewhere = ops.where(count > 0, step_at(ops.where(count > 0, mean, 1.0)), self.rate)
        return ops.where(is_seen, step_at(ops.where(is_seen, moment, 1.0)), elsewhere)

    def bias_correction(self, beta: Any) -> Any:
        """Return 1 − βᵗ, the bias correction after the update."""
        return 1.0 - ops.power(ops.cast(beta, self.w.dtype), self.count)


@dataclass(frozen=True)
class Metric:
    """How an optimizer steps.

    Attributes:
        kind: `"scalar"` (one step for the variable) or `"diagonal"` (one per entry).
        step: The step function of the optimizer.
        momentum: With momentum μ the optimizer moves by a trace of its steps, s ← μ·s + h.
        nesterov: With Nesterov momentum it moves by μ·s + h.
        forgets: Whether its second moment decays where no gradient arrives, so that its step grows there.
    """

    kind: MetricKind
    step: "StepFunction"
    momentum: float
    nesterov: bool
    forgets: bool


StepFunction: TypeAlias = Callable[[Before], Callable[[], Any]]
STEPS: dict[type, tuple[MetricKind, StepFunction]] = {}
REFUSED: dict[type, str] = {}


class RareRowsWarning(UserWarning):
    """A proximal step shrinks rare rows of an embedding too much, because the optimizer takes large steps on them."""


class UnusableStepError(ValueError):
    """The inner optimizer has no step after which a prox ends at a stationary point.

    Attributes:
        inner: The optimizer and the setting that is in the way.
        reason: Why its step is not usable.
        remedy: What to do, an imperative sentence without a full stop.
    """

    def __init__(self, inner: str, reason: str, remedy: str) -> None:
        super().__init__(
            f"update='proximal' does not work with {inner}: {reason}. {remedy}, or use update='decoupled' or 'coupled'."
        )
        self.inner, self.reason, self.remedy = inner, reason, remedy


def step_of(optimizer_class: type, kind: MetricKind = "diagonal") -> Callable[[StepFunction], StepFunction]:
    """Register the step function of an optimizer class, also for its subclasses that have no separate one.

    Args:
        optimizer_class: A subclass of `keras.optimizers.Optimizer`.
        kind: `"diagonal"` (default) or `"scalar"`, as in `Metric`.
    """

    def register(step: StepFunction) -> StepFunction:
        STEPS[optimizer_class] = (kind, step)
        return step

    return register


def metric_of(inner: Any) -> Metric:
    """Return the metric of a Keras optimizer.

    Raises:
        UnusableStepError: If no usable step is known.
    """
    name = type(inner).__name__
    kind, step, registered = _find_step(inner)
    if getattr(inner, "centered", False):
        raise UnusableStepError(
            f"{name}(centered=True)",
            "its step grows without bound where the gradient becomes constant",
            "Use centered=False",
        )
    for clip in ("clipnorm", "global_clipnorm", "clipvalue"):
        if getattr(inner, clip, None):
            raise UnusableStepError(
                f"{name}({clip}={getattr(inner, clip)!r})",
                "the prediction gradient is not zero at the optimum, and clipping it moves the fixed point",
                "Remove the clipping",
            )
    if isinstance(inner, keras.optimizers.Adafactor) and inner.gradient_accumulation_steps:
        raise UnusableStepError(
            f"Adafactor(gradient_accumulation_steps={inner.gradient_accumulation_steps!r})",
            "its step depends on the mean gradient, which the wrapper does not see",
            "Use Adam or larger batches",
        )
    if getattr(inner, "weight_decay", None):
        raise UnusableStepError(
            f"{name}(weight_decay={inner.weight_decay!r})",
            "the decay is a penalty that no rule describes, and it moves the fixed point",
            f"Use weight_decay=0 and a rule with poise.L2({inner.weight_decay / 2:g})",
        )
    has_trace = registered in (keras.optimizers.SGD, keras.optimizers.RMSprop)
    momentum = float(inner.momentum) if has_trace else 0.0
    forgets = registered in FORGETTING and not getattr(inner, "amsgrad", False)
    return Metric(kind, step, momentum, bool(getattr(inner, "nesterov", False)), forgets)


def _find_step(inner: Any) -> tuple[MetricKind, StepFunction, type]:
    """(kind, step function, the class it is registered for) of the optimizer's class or its nearest parent."""
    reason = "poise does not know its step per coordinate"
    for optimizer_class in type(inner).__mro__:
        if optimizer_class in REFUSED:
            reason = REFUSED[optimizer_class]
            break
        if optimizer_class in STEPS:
            override = find_override(inner, STEP_METHODS, until=optimizer_class)
            if override:
                reason = (
                    f"it overrides {override}, which changes the step; register its step with "
                    "poise.optimizer.metrics.step_of"
                )
                break
            return *STEPS[optimizer_class], optimizer_class
    names = ", ".join(sorted(c.__name__ for c in STEPS))
    raise UnusableStepError(type(inner).__name__, reason, f"Use one of {names}")


@step_of(keras.optimizers.SGD, kind="scalar")
def sgd(before: Before) -> Callable[[], Any]:
    return lambda: before.rate


@step_of(keras.optimizers.RMSprop)
def rmsprop(before: Before) -> Callable[[], Any]:
    """lr/√(v + ε), with ε inside the root, as in Keras."""
    inner = before.optimizer

    return lambda: before.step_with_fallback(
        before.state("velocities"), lambda v: before.rate / ops.sqrt(v + inner.epsilon)
    )


@step_of(keras.optimizers.Adagrad)
def adagrad(before: Before) -> Callable[[], Any]:
    inner = before.optimizer

    return lambda: before.step_with_fallback(
        before.state("accumulators"), lambda v: before.rate / ops.sqrt(v + inner.epsilon)
    )


@step_of(keras.optimizers.Adadelta)
def adadelta(before: Before) -> Callable[[], Any]:
    """lr·√(Δ + ε)/√(v + ε), where Δ is the accumulated change before the update."""
    inner = before.optimizer
    change = before.state("accumulated_delta_vars")
    return lambda: (
        before.rate * ops.sqrt(change + inner.epsilon) / ops.sqrt(before.state("accumulated_grads") + inner.epsilon)
    )


@step_of(keras.optimizers.Adam)
def adam(before: Before) -> Callable[[], Any]:
    """lr·√(1 − β₂ᵗ)/(√v + ε): at rest m = (1 − β₁ᵗ)·g, which cancels Adam's other correction."""
    inner = before.optimizer

    def step() -> Any:
        v = before.state("velocity_hats" if inner.amsgrad else "velocities")
        rate = before.rate * ops.sqrt(before.bias_correction(inner.beta_2))
        return before.step_with_fallback(v, lambda v: rate / (ops.sqrt(v) + inner.epsilon))

    return step


@step_of(keras.optimizers.Adamax)
def adamax(before: Before) -> Callable[[], Any]:
    inner = before.optimizer
    return lambda: before.step_with_fallback(before.state("u"), lambda u: before.rate / (u + inner.epsilon))


@step_of(keras.optimizers.Nadam)
def nadam(before: Before) -> Callable[[], Any]:
    """c_t·lr/(√v̂ + ε), c_t = u_{t+1}(1 − β₁ᵗ)/(1 − Πu·u_{t+1}) + (1 − u_t)/(1 − Πu), u_t = β₁(1 − ½·0.96ᵗ)."""
    inner = before.optimizer

    def u(count: Any) -> Any:
        return inner.beta_1 * (1.0 - 0.5 * ops.power(ops.cast(0.96, count.dtype), count))

    def step() -> Any:
        t = before.count
        product = ops.cast(nadam_momentum_product(inner), t.dtype)
        following = u(t + 1.0)
        momentum = following * before.bias_correction(inner.beta_1) / (1.0 - product * following)
        c = momentum + (1.0 - u(t)) / (1.0 - product)
        v = before.state("velocities") / before.bias_correction(inner.beta_2)
        return before.step_with_fallback(v, lambda v: c * before.rate / (ops.sqrt(v) + inner.epsilon))

    return step


@step_of(keras.optimizers.Lamb)
def lamb(before: Before) -> Callable[[], Any]:
    """(‖w before‖/‖update‖)·lr/(√v̂ + ε), the ratio 1 where either norm is zero."""
    inner, w_norm = before.optimizer, _norm(before.w)

    def step() -> Any:
        v = before.state("velocities")

        def scale(v: Any) -> Any:
            return ops.sqrt(v / before.bias_correction(inner.beta_2)) + inner.epsilon

        update = before.state("momentums") / before.bias_correction(inner.beta_1) / scale(v)
        update_norm = _norm(update)
        both = ops.logical_and(w_norm > 0, update_norm > 0)
        ratio = ops.where(both, w_norm / ops.where(both, update_norm, 1.0), 1.0)
        return before.step_with_fallback(v, lambda v: ratio * before.rate / scale(v))

    return step


@step_of(keras.optimizers.Adafactor)
def adafactor(before: Before) -> Callable[[], Any]:
    """α_t/√v/max(1, rms(g/√v)/d), α_t from the weights before the update."""
    inner, size = before.optimizer, _rms(before.w)

    def step() -> Any:
        rho = ops.minimum(before.rate, 1.0 / ops.sqrt(before.count))
        alpha = ops.maximum(ops.cast(inner.epsilon_2, rho.dtype), size) * rho
        v = before.state("v")
        clipped = alpha / ops.maximum(1.0, _rms(before.gradient / ops.sqrt(v)) / inner.clip_threshold)
        return before.step_with_fallback(v, lambda v: clipped / ops.sqrt(v), least=UNSEEN * inner.epsilon_1)

    return step


UNSEEN = 1e6
"""Adafactor adds ε₁ to every squared gradient: second moments up to this multiple of ε₁ count as none."""


def _norm(x: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(x)))


def _rms(x: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(x)))


FORGETTING = (
    *(keras.optimizers.Adam, keras.optimizers.Adamax, keras.optimizers.Nadam, keras.optimizers.Lamb),
    *(keras.optimizers.RMSprop, keras.optimizers.Adafactor),
)

REFUSED[keras.optimizers.Lion] = "it moves by the sign of the gradient, so its steps do not shrink near an optimum"
REFUSED[keras.optimizers.Ftrl] = "it is itself a proximal method, with another objective"
REFUSED[keras.optimizers.LossScaleOptimizer] = "it belongs around poise.PenalizedOptimizer"
for _name, _why in {
    "Muon": "it orthogonalizes the update, so that no coordinate has a separate step",
    "ScheduleFreeAdamW": "it trains at one point and evaluates at another, and a prox would act on one of them",
    "MultiOptimizer": "it has several optimizers",
}.items():
    if hasattr(keras.optimizers, _name):
        REFUSED[getattr(keras.optimizers, _name)] = _why
