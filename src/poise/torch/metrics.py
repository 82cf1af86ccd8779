"""The step that each `torch.optim` optimizer takes per coordinate: the metric of its proximal step.

A fixed point of "optimizer step, then prox with step h" is a stationary point of prediction + penalty if and only if h
is the factor by which the optimizer multiplied the gradient in this step (see `poise.optimizer.metrics`). One function
per optimizer is registered here. It is called after the step and reads the state of one parameter.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, optim

from poise.optimizer.metrics import UnusableStepError
from poise.optimizer.targets import MetricKind
from poise.torch.parameters import Parameter
from poise.torch.tensors import local

TRACE = "penalty_trace"
"""The key in the state of a parameter that holds the running sum of steps of an optimizer with momentum."""
SAMPLE = 1 << 12
"""The number of entries from which the step of entries without a gradient is estimated."""


class StepSize(NamedTuple):
    """The steps of one parameter.

    Entries that have not had a gradient would get the step rate/ε from the optimizers that divide by a second moment,
    with which a prox would immediately set them to zero. They get the smallest step of the others. Any positive step
    has the same fixed points there, because the prediction gradient is zero.

    Attributes:
        size: Returns the steps for (parts of) the tensors and the numbers. A module-level function, which
            identifies the program that is recorded for it.
        tensors: Tensors of the shape of the parameter; empty for a step that is the same for all entries.
        numbers: The other arguments of `size`.
        least: Values of the first tensor up to this one mean that there was no gradient. None if every entry has a
            usable step.
    """

    size: Callable[..., Any]
    tensors: tuple[Tensor, ...]
    numbers: tuple[Any, ...]
    least: float | None = None

    def fills(self) -> list[Tensor]:
        """Return the moment of entries without a gradient: the largest one of a sample, or 1 if none is positive.

        Empty if every entry has a usable step.
        """
        if self.least is None:
            return []
        (moment,) = self.tensors
        sample = moment.reshape(-1)[:: moment.numel() // SAMPLE + 1]
        top = sample.amax() if sample.numel() else sample.new_zeros(())  # a process may have no part of a sharded one
        return [torch.where(top > self.least, top, 1.0)]

    def at(self, moments: Sequence[Tensor], numbers: Sequence[Any]) -> Any:
        """Return the steps at parts of the tensors.

        Args:
            moments: The parts.
            numbers: `numbers`, followed by `fills()`.
        """
        if self.least is None:
            return self.size(*moments, *numbers)
        *numbers, fill = numbers
        (moment,) = moments
        return self.size(torch.where(moment > self.least, moment, fill), *numbers)

    def whole(self) -> Any:
        """Return the steps of all entries."""
        return self.at(self.tensors, [*self.numbers, *self.fills()])


class After(NamedTuple):
    """What a step function reads after the optimizer's step.

    Attributes:
        group: The parameter group.
        state: The optimizer's state of the parameter.
        before: What `BEFORE` copied before the step, or None.
    """

    group: dict[str, Any]
    state: dict[str, Any]
    before: Tensor | None

    @property
    def rate(self) -> Any:
        """The learning rate."""
        return self.group["lr"]

    @property
    def step_count(self) -> Any:
        """The number of steps of the optimizer so far; 1 after the first one."""
        count = self.state["step"]
        return count.item() if isinstance(count, Tensor) and count.device.type == "cpu" else count

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the state; of a sharded one, the part on this process."""
        return local(self.state[name])


StepFunction: TypeAlias = Callable[[After], StepSize]
STEPS: dict[type, tuple[MetricKind, StepFunction]] = {}
BEFORE = {optim.Adadelta: "acc_delta"}
"""What the step of an optimizer depends on, and what the optimizer overwrites."""
REFUSED = {
    optim.LBFGS: "it takes several steps with a line search",
    optim.Rprop: "it moves by the sign of the gradient, so its steps do not shrink near an optimum",
    optim.ASGD: "it averages the weights",
    optim.SparseAdam: "it updates only the rows of an embedding that have a gradient",
}
for _name, _why in {
    "Adafactor": "its step depends on the mean of the whole update",
    "Muon": "it orthogonalizes the update, so that no coordinate has a separate step",
}.items():
    if hasattr(optim, _name):
        REFUSED[getattr(optim, _name)] = _why


def metric_of(optimizer: optim.Optimizer) -> MetricKind:
    """Return the kind of steps that an optimizer takes.

    Raises:
        UnusableStepError: If no usable step is known.
    """
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        if group.get("centered"):
            raise UnusableStepError(
                f"{name}(centered=True)",
                "its step grows without bound where the gradient becomes constant",
                "Use centered=False",
            )
        if group.get("differentiable"):
            raise UnusableStepError(
                f"{name}(differentiable=True)",
                "the prox would change weights that autograd needs",
                "Use differentiable=False",
            )
    return STEPS[registered_class(optimizer)][0]


def registered_class(optimizer: optim.Optimizer) -> type:
    """Return the class in `STEPS` that takes the steps of an optimizer.

    Raises:
        UnusableStepError: If there is none.
    """
    reason = "poise does not know its step per coordinate"
    for optimizer_class in type(optimizer).__mro__:
        if optimizer_class in STEPS:
            return optimizer_class
        if optimizer_class in REFUSED:
            reason = REFUSED[optimizer_class]
            break
        if "step" in vars(optimizer_class):
            break
    names = ", ".join(sorted(known.__name__ for known in STEPS))
    raise UnusableStepError(type(optimizer).__name__, reason, f"Use one of {names}")


def check_weight_decay(optimizer: optim.Optimizer, parameters: Sequence[Parameter]) -> None:
    """Raise UnusableStepError if the optimizer decays a parameter that a penalty acts on by its prox."""
    paths = {id(parameter.tensor): parameter.path for parameter in parameters}
    for group in optimizer.param_groups:
        decay = group.get("weight_decay")
        path = next((paths[id(tensor)] for tensor in group["params"] if id(tensor) in paths), None)
        if decay and path is not None:
            raise UnusableStepError(
                f"{type(optimizer).__name__}(weight_decay={decay!r}) on {path!r}",
                "weight decay is a penalty that no rule describes, and it moves the solution",
                f"Set weight_decay=0 for this parameter (to keep an L2 penalty, add poise.L2({decay / 2:g}))",
            )


def step_of(optimizer_class: type, kind: MetricKind = "diagonal") -> Callable[[StepFunction], StepFunction]:
    """Register the step function of an optimizer class, also for its subclasses that do not override `step`.

    Args:
        optimizer_class: A subclass of `torch.optim.Optimizer`.
        kind: `"diagonal"` (default), one step per entry, or `"scalar"`, one for the parameter.
    """

    def register(step: StepFunction) -> StepFunction:
        STEPS[optimizer_class] = (kind, step)
        return step

    return register


@step_of(optim.SGD, kind="scalar")
def sgd(after: After) -> StepSize:
    """lr·s with the trace s ← μ·s + (1 − dampening) of the steps, s = 1 after the first; Nesterov: lr·(1 + μ·s)."""
    momentum, dampening = after.group["momentum"], after.group["dampening"]
    if not momentum:
        return StepSize(multiply, (), (after.rate, 1.0))
    trace = momentum * after.state[TRACE] + (1.0 - dampening) if TRACE in after.state else 1.0
    after.state[TRACE] = trace
    return StepSize(multiply, (), (after.rate, 1.0 + momentum * trace if after.group["nesterov"] else trace))


@step_of(optim.Adam)
@step_of(optim.AdamW)
def adam(after: After) -> StepSize:
    """lr/(√v̂ + ε): at rest m = (1 − β₁ᵗ)·g, which cancels the other bias correction."""
    v = after.tensor("max_exp_avg_sq" if after.group["amsgrad"] else "exp_avg_sq")
    correction = (1.0 - after.group["betas"][1] ** after.step_count) ** 0.5
    return StepSize(divide_by_root, (v,), (after.rate, correction, after.group["eps"]), least=0.0)


@step_of(optim.NAdam)
def nadam(after: After) -> StepSize:
    """c·lr/(√v̂ + ε), c = μ_{t+1}(1 − β₁ᵗ)/(1 − Πμ·μ_{t+1}) + (1 − μ_t)/(1 − Πμ), μ_t = β₁(1 − ½·0.96^{tψ})."""
    (beta_1, beta_2), t = after.group["betas"], after.step_count

    def mu(count: Any) -> Any:
        return beta_1 * (1.0 - 0.5 * 0.96 ** (count * after.group["momentum_decay"]))

    product = after.state["mu_product"]
    product = product.item() if product.device.type == "cpu" else product
    c = mu(t + 1) * (1.0 - beta_1**t) / (1.0 - product * mu(t + 1)) + (1.0 - mu(t)) / (1.0 - product)
    numbers = (c * after.rate, (1.0 - beta_2**t) ** 0.5, after.group["eps"])
    return StepSize(divide_by_root, (after.tensor("exp_avg_sq"),), numbers, least=0.0)


@step_of(optim.RAdam)
def radam(after: After) -> StepSize:
    """lr·r_t·√(1 − β₂ᵗ)/(√v + ε) with the rectification r_t where ρ_t > 5, and lr before."""
    beta_2, t = after.group["betas"][1], after.step_count
    correction = 1.0 - beta_2**t
    rho_inf = 2.0 / (1.0 - beta_2) - 1.0
    rho = rho_inf - 2.0 * t * beta_2**t / correction
    if not rho > 5.0:
        return StepSize(multiply, (), (after.rate, 1.0))
    rectification = ((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)) ** 0.5
    numbers = (after.rate * rectification * correction**0.5, 1.0, after.group["eps"])
    return StepSize(divide_by_root, (after.tensor("exp_avg_sq"),), numbers, least=0.0)


@step_of(optim.Adamax)
def adamax(after: After) -> StepSize:
    """lr/u. PyTorch adds ε to every |g| inside the maximum u, which is ε where there was no gradient."""
    return StepSize(divide, (after.tensor("exp_inf"),), (after.rate,), least=after.group["eps"])


@step_of(optim.Adagrad)
def adagrad(after: After) -> StepSize:
    """lr/((1 + (t − 1)·decay)·(√Σg² + ε))."""
    rate = after.rate / (1.0 + (after.step_count - 1) * after.group["lr_decay"])
    return StepSize(divide_by_root, (after.tensor("sum"),), (rate, 1.0, after.group["eps"]), least=0.0)


@step_of(optim.RMSprop)
def rmsprop(after: After) -> StepSize:
    """lr/(√v + ε); with momentum μ, lr·s with the trace s ← μ·s + 1/(√v + ε)."""
    v, eps = after.tensor("square_avg"), after.group["eps"]
    if not after.group["momentum"]:
        return StepSize(divide_by_root, (v,), (after.rate, 1.0, eps), least=0.0)
    step = StepSize(divide_by_root, (v,), (1.0, 1.0, eps), least=0.0).whole()
    if TRACE not in after.state:
        after.state[TRACE] = torch.zeros_like(after.state["square_avg"])  # sharded like it, and so saved like it
    trace = after.tensor(TRACE).mul_(after.group["momentum"]).add_(step)
    return StepSize(multiply, (trace,), (after.rate,))


@step_of(optim.Adadelta)
def adadelta(after: After) -> StepSize:
    """lr·√(Δ + ε)/√(v + ε), where Δ is the accumulated change before the step."""
    v = after.tensor("square_avg")
    change = torch.zeros_like(v) if after.before is None else local(after.before)
    return StepSize(rate_of_changes, (change, v), (after.rate, after.group["eps"]))


def multiply(a: Any, b: Any) -> Any:
    """Return a·b."""
    return a * b


def divide(moment: Any, rate: Any) -> Any:
    """Return rate/moment."""
    return rate / moment


def divide_by_root(moment: Any, rate: Any, correction: Any, eps: Any) -> Any:
    """Return rate/(√moment/correction + ε)."""
    return rate / (moment.sqrt() / correction + eps)


def rate_of_changes(change: Any, moment: Any, rate: Any, eps: Any) -> Any:
    """Return rate·√(change + ε)/√(moment + ε)."""
    return rate * ((change + eps) / (moment + eps)).sqrt()
