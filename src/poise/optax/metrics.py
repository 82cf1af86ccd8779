"""The step that each optax optimizer takes per coordinate: the metric of its proximal step.

As for Keras optimizers (`poise.optimizer.metrics`), a fixed point of "optimizer step, then prox with step h" is a
stationary point of prediction + penalty if and only if h is the very factor by which the optimizer multiplies a
constant gradient in this step.

One function per optimizer is registered here, for the optax function that makes it. It returns h after the optimizer's
update.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax

from poise.optax.inner import Inner, name_of
from poise.optax.inner_update import AfterUpdate
from poise.optimizer.metrics import UnusableStepError
from poise.optimizer.targets import MetricKind

StepFunction: TypeAlias = Callable[[AfterUpdate], Any]


@dataclass(frozen=True)
class OptaxMetric:
    """How an optax optimizer steps.

    Attributes:
        kind: `"scalar"` (one step for all parameters) or `"diagonal"` (one per entry).
        step: Its step function.
        forgets: Whether its second moment decays where no gradient arrives, so that its step grows there.
        has_trace: Whether it has an argument `momentum`, by which it moves along a trace of its steps.
        rate_is_outside: Whether the learning rate multiplies the trace, so that the steps in it are without one.
        momentum: With momentum μ the trace is s ← μ·s + h. None: no trace.
        nesterov: With Nesterov momentum it moves by μ·s + h.
    """

    kind: MetricKind
    step: StepFunction
    forgets: bool = False
    has_trace: bool = False
    rate_is_outside: bool = False
    momentum: Any = None
    nesterov: bool = False


STEPS: dict[Callable[..., Any], OptaxMetric] = {}
REFUSED: dict[Callable[..., Any], str] = {}
"""Why an optimizer has no usable step, by the optax function that makes it."""
REFUSED_SETTINGS: dict[tuple[Callable[..., Any], str], tuple[str, str]] = {
    (optax.rmsprop, "centered"): (
        "its step grows without bound where the gradient becomes constant",
        "Use centered=False",
    ),
    (optax.adafactor, "momentum"): (
        "it moves by an average of updates, in which its step cannot be seen",
        "Use momentum=None",
    ),
}
"""Settings that leave no usable step: by function and argument the reason and the remedy."""


def step_of(
    *functions: Callable[..., Any], kind: MetricKind = "diagonal", **settings: Any
) -> Callable[[StepFunction], StepFunction]:
    """Register the step function of the optimizers that some optax functions make.

    Args:
        functions: The functions.
        kind: As in `OptaxMetric`. Default: `"diagonal"`.
        **settings: `forgets`, `has_trace` and `rate_is_outside`, as in `OptaxMetric`. Default: False.
    """

    def register(step: StepFunction) -> StepFunction:
        STEPS.update(dict.fromkeys(functions, OptaxMetric(kind, step, **settings)))
        return step

    return register


def metric_of(inner: Inner) -> OptaxMetric:
    """Return the metric of an optax optimizer.

    Raises:
        UnusableStepError: If no usable step is known.
    """
    settings = inner.settings
    if getattr(inner.function, "__wrapped__", None) in STEPS:
        raise UnusableStepError(
            f"a wrapper of {inner.name}",
            "a wrapper such as optax.inject_hyperparams can change its step",
            f"Pass {inner.name} itself, whose learning rate may be a schedule or a traced number",
        )
    if inner.function not in STEPS:
        reason = REFUSED.get(inner.function, "poise does not know its step per coordinate")
        raise UnusableStepError(inner.name, reason, f"Use one of {', '.join(sorted(map(name_of, STEPS)))}")
    for (function, name), (reason, remedy) in REFUSED_SETTINGS.items():
        if inner.function is function and settings[name] is not None and settings[name] is not False:
            raise UnusableStepError(f"{inner.name}({name}={settings[name]!r})", reason, remedy)
    for name in ("weight_decay", "weight_decay_rate"):
        _check_weight_decay(inner.name, name, settings.get(name))
    metric = STEPS[inner.function]
    if not metric.has_trace:
        return metric
    return dataclasses.replace(metric, momentum=settings["momentum"], nesterov=bool(settings["nesterov"]))


def _check_weight_decay(optimizer: str, name: str, decay: Any) -> None:
    """Raise UnusableStepError for a weight decay: a number above 0, or a schedule."""
    try:
        rule = f"poise.L2({float(decay) / 2:g})" if decay is not None and float(decay) else ""
    except TypeError:
        rule = "poise.L2"
    if rule:
        raise UnusableStepError(
            f"{optimizer}({name}={decay!r})",
            "the decay is a penalty that no rule describes, and it moves the fixed point",
            f"Use {name}=0 and a rule with {rule}",
        )


@step_of(optax.sgd, kind="scalar", has_trace=True, rate_is_outside=True)
def sgd(after: AfterUpdate) -> Any:
    return 1.0


@step_of(optax.rmsprop, forgets=True, has_trace=True)
def rmsprop(after: AfterUpdate) -> Any:
    """lr/√(v + ε), or lr/(√v + ε) without `eps_in_sqrt`; v is v̂ with `bias_correction`."""
    settings, v = after.settings, after.moment("nu")
    if settings.bias_correction:
        v = v / after.bias_correction(settings.decay)
    if settings.eps_in_sqrt:
        return after.step_with_fallback(v, lambda v: after.rate / jnp.sqrt(v + settings.eps))
    return after.adam_step(v)


@step_of(optax.adagrad)
def adagrad(after: AfterUpdate) -> Any:
    """lr/√(Σg² + ε)."""
    eps = after.settings.eps
    return after.step_with_fallback(after.moment("sum_of_squares"), lambda v: after.rate / jnp.sqrt(v + eps))


@step_of(optax.adadelta)
def adadelta(after: AfterUpdate) -> Any:
    """lr·√(Δ + ε)/√(v + ε), where Δ is the accumulated change before the update."""
    eps = after.settings.eps
    return after.rate * jnp.sqrt(after.old_moment("e_x") + eps) / jnp.sqrt(after.moment("e_g") + eps)


@step_of(optax.adam, optax.adamw, forgets=True)
def adam(after: AfterUpdate) -> Any:
    """c·lr/(√(v̂ + ε_root) + ε), c = 1 without Nesterov momentum. With it, `optax.adam` is `optax.nadam`."""
    v = after.moment("nu") / after.bias_correction(after.settings.b2)
    return after.adam_step(v, after.nesterov_factor())


@step_of(optax.amsgrad)
def amsgrad(after: AfterUpdate) -> Any:
    """c·lr/(√(v_max + ε_root) + ε), c = 1 − β₁ᵗ without `bias_correction_mu`, else 1."""
    is_corrected = getattr(after.settings, "bias_correction_mu", True)  # optax 0.2.6 always corrects
    factor = 1.0 if is_corrected else after.bias_correction(after.settings.b1)
    return after.adam_step(after.moment("nu_max"), factor)


@step_of(optax.radam, forgets=True)
def radam(after: AfterUpdate) -> Any:
    """c·lr·r/(√(v̂ + ε_root) + ε) once ρ reaches the threshold, and c·lr before.

    ρ = ρ_∞ − 2tβ₂ᵗ/(1 − β₂ᵗ), ρ_∞ = 2/(1 − β₂) − 1, r = √((ρ − 4)(ρ − 2)ρ_∞/((ρ_∞ − 4)(ρ_∞ − 2)ρ)).
    """
    settings, correction = after.settings, after.bias_correction(after.settings.b2)
    limit = 2.0 / (1.0 - settings.b2) - 1.0
    rho = limit - 2.0 * after.count * (1.0 - correction) / correction
    square = (rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho)
    factor = after.nesterov_factor()
    adaptive = after.adam_step(after.moment("nu") / correction, factor * jnp.sqrt(jnp.maximum(square, 0.0)))
    return jnp.where(rho >= settings.threshold, adaptive, factor * after.rate)


@step_of(optax.adabelief, forgets=True)
def adabelief(after: AfterUpdate) -> Any:
    """c·lr/(√v̂ + ε). The second moment v contains ε_root also where there was no gradient, so that m is 0."""
    v = after.moment("nu") / after.bias_correction(after.settings.b2)
    v = jnp.where(after.moment("mu") == 0, 0.0, v)
    factor, eps = after.nesterov_factor(), after.settings.eps
    return after.step_with_fallback(v, lambda v: factor * after.rate / (jnp.sqrt(v) + eps))


@step_of(optax.yogi)
def yogi(after: AfterUpdate) -> Any:
    """lr/(√v̂ + ε). Without a gradient v stays at its start."""
    v = after.moment("nu")
    v = jnp.where(v == jnp.asarray(YOGI_START, v.dtype), 0.0, v)
    return after.adam_step(v / after.bias_correction(after.settings.b2))


@step_of(optax.adamax, optax.adamaxw, forgets=True)
def adamax(after: AfterUpdate) -> Any:
    """lr/u. Without a gradient u is ε."""
    return after.step_with_fallback(after.moment("nu"), lambda u: after.rate / u, least=after.settings.eps)


@step_of(optax.adan, forgets=True)
def adan(after: AfterUpdate) -> Any:
    """lr/(√(n̂ + ε_root) + ε): at rest the differences of gradients are zero."""
    return after.adam_step(after.moment("n") / after.bias_correction(after.settings.b3))


@step_of(optax.lamb, forgets=True)
def lamb(after: AfterUpdate) -> Any:
    """(‖w‖/‖m̂/d‖)·lr/d, d = √(v̂ + ε_root) + ε; the ratio is 1 where either norm is zero."""
    settings = after.settings
    v = after.moment("nu") / after.bias_correction(settings.b2)
    scale = jnp.sqrt(v + settings.eps_root) + settings.eps
    m = after.moment("mu") / after.bias_correction(settings.b1)
    w_norm, update_norm = jnp.linalg.norm(after.w), jnp.linalg.norm(m / scale)
    both = (w_norm > 0) & (update_norm > 0)
    return after.adam_step(v, jnp.where(both, w_norm / jnp.where(both, update_norm, 1.0), 1.0))


@step_of(optax.adafactor, forgets=True)
def adafactor(after: AfterUpdate) -> Any:
    """−Δw/g: without momentum the optimizer multiplies the gradient by its step, in factors or not."""
    gradient = jnp.asarray(after.gradient, after.w.dtype)
    change = jnp.asarray(after.optimizer.changes[after.index], after.w.dtype)
    h = jnp.where(gradient == 0, 0.0, -change / jnp.where(gradient == 0, 1.0, gradient))
    return after.step_with_fallback(h, lambda h: h)


YOGI_START = 1e-6
"""The second moment from which `optax.yogi` starts."""

_SIGN = "it moves by the sign of the gradient, so its steps do not shrink near an optimum"
_TWO_POINTS = "it trains at one point and evaluates at another, and a prox would act on one of them"
for _name, _why in {
    **dict.fromkeys(["lion", "rprop", "sign_sgd", "signum"], _SIGN),
    "lbfgs": "it multiplies the gradient by a matrix, so that no coordinate has a separate step",
    "noisy_sgd": "it adds noise to the gradient",
    "contrib.muon": "it orthogonalizes the update, so that no coordinate has a separate step",
    **dict.fromkeys([f"contrib.schedule_free{end}" for end in ("", "_adamw", "_sgd")], _TWO_POINTS),
}.items():
    _module = optax.contrib if _name.startswith("contrib.") else optax
    if hasattr(_module, _name.removeprefix("contrib.")):  # older versions of optax have fewer functions
        REFUSED[getattr(_module, _name.removeprefix("contrib."))] = _why
