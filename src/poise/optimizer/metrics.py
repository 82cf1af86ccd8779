"""The step that each Keras optimizer takes per coordinate: the metric of its proximal step.

A fixed point of "optimizer step, then prox with step h" is a stationary point of prediction + penalty if and only if
h is the very factor by which the optimizer multiplied the gradient in this step, bias correction, schedule and
momentum included: then w = prox(w − h·g) with the same h on both sides (Yun, Lozano and Yang 2021, ProxGen).

One function per optimizer is registered here. It is called before the optimizer's update, when it may keep what the
update overwrites, and returns a function that gives h after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from poise.optimizer.inner import STEP_METHODS, overridden


@dataclass(frozen=True)
class Before:
    """What a step function may look at, before the optimizer's update and after it.

    `w` and `gradient` are the variable's value and its gradient before the update, `rate` the learning rate of the
    update, `index` the variable's number. A step that needs `w` after the update copies it before: PyTorch updates in
    place.
    """

    optimizer: Any
    index: int
    w: Any
    gradient: Any
    rate: Any

    def state(self, name):
        """The optimizer's variable `name` for this weight as it is now, copied: PyTorch updates in place."""
        return ops.copy(ops.convert_to_tensor(getattr(self.optimizer, name)[self.index]))

    @property
    def count(self):
        """The number of updates, counting from 1 once the update is done."""
        return ops.maximum(ops.cast(self.optimizer.iterations, self.w.dtype), 1.0)

    def where_seen(self, moment, step_at: Callable[[Any], Any], least=0.0):
        """The step that an optimizer takes at its second moment, also where no gradient has arrived yet.

        There an adaptive step is rate/ε, with which a prox would set to zero at once whatever has not been trained
        yet: branches that start at zero, rows of an embedding that were not looked up. Any positive step has the same
        fixed points there, because the prediction gradient is zero. So these entries take the step at the mean moment
        of the others, and the learning rate as long as the whole variable has none.

        Args:
            moment: of the shape of the variable.
            step_at: the step at a moment.
            least: moments up to this one count as none.
        """
        is_seen = moment > least
        count = ops.sum(ops.cast(is_seen, moment.dtype))
        mean = ops.sum(ops.where(is_seen, moment, 0.0)) / ops.maximum(count, 1.0)
        elsewhere = ops.where(count > 0, step_at(ops.where(count > 0, mean, 1.0)), self.rate)
        return ops.where(is_seen, step_at(ops.where(is_seen, moment, 1.0)), elsewhere)

    def remaining(self, beta):
        """1 − βᵗ, the bias correction after the update."""
        return 1.0 - ops.power(ops.cast(beta, self.w.dtype), self.count)


@dataclass(frozen=True)
class Metric:
    """How an optimizer steps.

    `kind` is `"scalar"` (one step for the variable) or `"diagonal"`. With `momentum` μ the optimizer moves by a trace
    of its steps, s ← μ·s + h, and with `nesterov` by μ·s + h. One that `forgets` lets its second moment decay where no
    gradient arrives, so that its step grows there.
    """

    kind: str
    step: Callable[[Before], Callable[[], Any]]
    momentum: float
    nesterov: bool
    forgets: bool


STEPS: dict[type, tuple[str, Callable]] = {}
REFUSED: dict[type, str] = {}


def step_of(optimizer_class, kind="diagonal"):
    """Registers the step function of an optimizer class, also for its subclasses that have none of their own."""

    def register(step):
        STEPS[optimizer_class] = (kind, step)
        return step

    return register


def metric_of(inner) -> Metric:
    """The metric of a Keras optimizer.

    Raises:
        ValueError: if no usable step is known, with what to use instead.
    """
    name = type(inner).__name__
    kind, step, registered = _registered(inner)
    if getattr(inner, "centered", False):
        raise ValueError(
            f"{name}(centered=True) has no usable step for update='proximal': it grows without bound where the "
            "gradient settles. Use centered=False, or update='decoupled'."
        )
    for clip in ("clipnorm", "global_clipnorm", "clipvalue"):
        if getattr(inner, clip, None):
            raise ValueError(
                f"update='proximal' with {clip}={getattr(inner, clip)!r} has a wrong fixed point, because the "
                "prediction gradient is not zero at the optimum and would be clipped there. Drop the clipping, or use "
                "update='decoupled' or 'coupled'."
            )
    if isinstance(inner, keras.optimizers.Adafactor) and inner.gradient_accumulation_steps:
        raise ValueError(
            "update='proximal' does not work with Adafactor(gradient_accumulation_steps=...): its step depends on the "
            "mean gradient, which is not known here. Use Adam, or larger batches."
        )
    if getattr(inner, "weight_decay", None):
        raise ValueError(
            f"update='proximal' with {name}(weight_decay={inner.weight_decay!r}) has a wrong fixed point: the decay is "
            f"a force of its own, in no rule. Use weight_decay=0 and a rule with poise.L2({inner.weight_decay / 2:g})."
        )
    has_trace = registered in (keras.optimizers.SGD, keras.optimizers.RMSprop)
    momentum = float(inner.momentum) if has_trace else 0.0
    forgets = registered in FORGETTING and not getattr(inner, "amsgrad", False)
    return Metric(kind, step, momentum, bool(getattr(inner, "nesterov", False)), forgets)


def _registered(inner):
    """(kind, step function, the class that it was registered for) of the optimizer's class or the nearest parent."""
    why = "no step per coordinate is known for it"
    for optimizer_class in type(inner).__mro__:
        if optimizer_class in REFUSED:
            why = REFUSED[optimizer_class]
            break
        if optimizer_class in STEPS:
            override = overridden(inner, STEP_METHODS, until=optimizer_class)
            if override:
                why = f"it overrides {override}, which changes the step; register one with poise.optimizer.metrics.step_of"
                break
            return *STEPS[optimizer_class], optimizer_class
    raise ValueError(
        f"update='proximal' does not work with {type(inner).__name__}: {why}. Use one of "
        f"{', '.join(sorted(c.__name__ for c in STEPS))}, or update='decoupled'."
    )


@step_of(keras.optimizers.SGD, kind="scalar")
def sgd(before):
    return lambda: before.rate


@step_of(keras.optimizers.RMSprop)
def rmsprop(before):
    """lr/√(v + ε), with ε inside the root, as in Keras."""
    inner = before.optimizer

    return lambda: before.where_seen(before.state("_velocities"), lambda v: before.rate / ops.sqrt(v + inner.epsilon))


@step_of(keras.optimizers.Adagrad)
def adagrad(before):
    inner = before.optimizer

    return lambda: before.where_seen(before.state("_accumulators"), lambda v: before.rate / ops.sqrt(v + inner.epsilon))


@step_of(keras.optimizers.Adadelta)
def adadelta(before):
    """lr·√(Δ + ε)/√(v + ε), where Δ is the accumulated change before the update."""
    inner = before.optimizer
    change = before.state("_accumulated_delta_vars")
    return lambda: (
        before.rate * ops.sqrt(change + inner.epsilon) / ops.sqrt(before.state("_accumulated_grads") + inner.epsilon)
    )


@step_of(keras.optimizers.Adam)
def adam(before):
    """lr·√(1 − β₂ᵗ)/(√v + ε): at rest m = (1 − β₁ᵗ)·g, which cancels Adam's other correction."""
    inner = before.optimizer

    def step():
        v = before.state("_velocity_hats" if inner.amsgrad else "_velocities")
        rate = before.rate * ops.sqrt(before.remaining(inner.beta_2))
        return before.where_seen(v, lambda v: rate / (ops.sqrt(v) + inner.epsilon))

    return step


@step_of(keras.optimizers.Adamax)
def adamax(before):
    inner = before.optimizer
    return lambda: before.where_seen(before.state("_u"), lambda u: before.rate / (u + inner.epsilon))


@step_of(keras.optimizers.Nadam)
def nadam(before):
    """c_t·lr/(√v̂ + ε), c_t = u_{t+1}(1 − β₁ᵗ)/(1 − Πu·u_{t+1}) + (1 − u_t)/(1 − Πu), u_t = β₁(1 − ½·0.96ᵗ)."""
    inner = before.optimizer

    def u(count):
        return inner.beta_1 * (1.0 - 0.5 * ops.power(ops.cast(0.96, count.dtype), count))

    def step():
        t = before.count
        product = ops.cast(inner._u_product, t.dtype)
        following = u(t + 1.0)
        c = following * before.remaining(inner.beta_1) / (1.0 - product * following) + (1.0 - u(t)) / (1.0 - product)
        v = before.state("_velocities") / before.remaining(inner.beta_2)
        return before.where_seen(v, lambda v: c * before.rate / (ops.sqrt(v) + inner.epsilon))

    return step


@step_of(keras.optimizers.Lamb)
def lamb(before):
    """(‖w before‖/‖update‖)·lr/(√v̂ + ε), the ratio 1 where either norm is zero."""
    inner, w_norm = before.optimizer, _norm(before.w)

    def step():
        v = before.state("_velocities")

        def scale(v):
            return ops.sqrt(v / before.remaining(inner.beta_2)) + inner.epsilon

        update = before.state("_momentums") / before.remaining(inner.beta_1) / scale(v)
        update_norm = _norm(update)
        both = ops.logical_and(w_norm > 0, update_norm > 0)
        ratio = ops.where(both, w_norm / ops.where(both, update_norm, 1.0), 1.0)
        return before.where_seen(v, lambda v: ratio * before.rate / scale(v))

    return step


@step_of(keras.optimizers.Adafactor)
def adafactor(before):
    """α_t/√v/max(1, rms(g/√v)/d), α_t from the weights before the update."""
    inner, size = before.optimizer, _rms(before.w)

    def step():
        rho = ops.minimum(before.rate, 1.0 / ops.sqrt(before.count))
        alpha = ops.maximum(ops.cast(inner.epsilon_2, rho.dtype), size) * rho
        v = before.state("_v")
        clipped = alpha / ops.maximum(1.0, _rms(before.gradient / ops.sqrt(v)) / inner.clip_threshold)
        return before.where_seen(v, lambda v: clipped / ops.sqrt(v), least=UNSEEN * inner.epsilon_1)

    return step


UNSEEN = 1e6
"""Adafactor adds ε₁ to every squared gradient: second moments of up to so many times ε₁ count as none."""


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


def _rms(x):
    return ops.sqrt(ops.mean(ops.square(x)))


FORGETTING = (
    *(keras.optimizers.Adam, keras.optimizers.Adamax, keras.optimizers.Nadam, keras.optimizers.Lamb),
    *(keras.optimizers.RMSprop, keras.optimizers.Adafactor),
)

REFUSED[keras.optimizers.Lion] = "it moves by the sign of the gradient, which has no stationary point to keep"
REFUSED[keras.optimizers.Ftrl] = "it is a proximal method of its own, with another objective"
REFUSED[keras.optimizers.LossScaleOptimizer] = "it goes outside poise.PenalizedOptimizer"
for _name, _why in {
    "Muon": "it orthogonalises the update, so that no coordinate has a step of its own",
    "ScheduleFreeAdamW": "it trains at one point and evaluates at another, and the prox would break their tie",
    "MultiOptimizer": "it has no single step for a variable",
}.items():
    if hasattr(keras.optimizers, _name):
        REFUSED[getattr(keras.optimizers, _name)] = _why
