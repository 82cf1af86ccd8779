"""Add penalties to a `torch.optim` optimizer (poise.torch.penalize)."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from poise.optimizer.builder import choose_metric, targets_of
from poise.optimizer.inner import UPDATES
from poise.optimizer.targets import MetricKind, Target, assign_actions, check_actions
from poise.penalties import Penalty
from poise.penalties.base import Separable
from poise.rules.members import path_of
from poise.rules.plan import resolve
from poise.rules.rule import Rule, as_rules
from poise.torch.handle import PenaltyHandle
from poise.torch.hooks import StepHooks
from poise.torch.metrics import check_weight_decay, metric_of
from poise.torch.parameters import Parameter, is_parametrized, parameters_of, with_selected_parameters
from poise.torch.strengths import OptimizerStrengths
from poise.torch.tensors import full
from poise.validation import validate_count

LIST_PARAMETERS = "List the parameters with model.named_parameters()."


def penalize(
    optimizer: torch.optim.Optimizer,
    model: torch.nn.Module,
    rules: Penalty | Rule | Iterable[Penalty | Rule],
    update: str = "auto",
    observe_every: int = 0,
    compile: bool = False,
) -> PenaltyHandle:
    """Add penalties to an optimizer of PyTorch: total loss = prediction loss + Σ_r strength_r · R_r(w_r).

    The optimizer is not wrapped or replaced. It gets hooks that run before and after every `step()`, so learning rate
    schedulers, gradient accumulation, `torch.amp.GradScaler`, and training frameworks keep working. The loss of the
    training loop is the prediction loss, without the penalty.

    Parameters without a gradient in a step are neither updated nor penalized, as the optimizer skips them. If
    gradients are still clipped when training ends, the solution is not a stationary point of the total loss.

    Args:
        optimizer: `torch.optim.Optimizer` that holds parameters of the model.
        model: `torch.nn.Module`. The type of the module that owns a parameter decides its role and where its inputs
            and outputs lie (`Linear` is (out, in)).
        rules: A penalty, a `poise.Rule`, or a list of those. A penalty without a rule acts on weight matrices,
            convolution filters and embeddings, never on biases and normalization. A rule selects parameters by a glob
            on the last parts of their names, such as `"encoder.*.weight"` (`*` stands for one part, `**` for any number
            of parts), by `poise.Role`, by a module of the model, or by a function of an object with the attributes
            `path`, `shape` and `tensor`.
        update: How the penalties act, as in `poise.PenalizedOptimizer`. Default: `"auto"`.

            - `"auto"`: Smooth penalties (L2) are coupled, non-smooth ones (L1, GroupLasso) proximal.
            - `"coupled"`: By their gradient, which is added to `parameter.grad`. L1 gives no exact zeros.
            - `"decoupled"`: By a separate step with the learning rate, as the weight decay of AdamW does.
            - `"proximal"`: By their proximal operator, with the step that the optimizer takes for each weight.

        observe_every: Record the forces at every `observe_every`-th step, for `handle.forces()`. Default: 0, which
            records none.
        compile: Whether to compile the proximal steps with TorchInductor, the default backend of `torch.compile`.
            Compiled steps are faster. On a CPU, this needs a C++ compiler. The first step takes a few seconds. Changing
            a strength does not trigger recompilation, but changing which parameters have gradients does. Default:
            False.

    Returns:
        A `poise.torch.PenaltyHandle`. Use it to read and set strengths, measure penalties, and remove the hooks.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the rules do not fit the parameters; if the optimizer has penalties already; if it has no usable
            step for a proximal update, such as with `weight_decay` on a penalized parameter.

    References:
        Yun, Lozano and Yang 2021, "Adaptive proximal gradient methods for structured neural networks".

    Examples:
        >>> import poise, poise.torch, torch
        >>> model = torch.nn.Linear(10, 1)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> handle = poise.torch.penalize(optimizer, model, poise.L1(0.01))
    """
    optimizer = _innermost(optimizer)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    model = _unwrap(model)
    if update not in UPDATES:
        raise ValueError(f"update must be one of {', '.join(map(repr, UPDATES))}, got {update!r}.")
    observe_every = validate_count("observe_every", observe_every, 0)
    if handle_of(optimizer) is not None:
        raise ValueError(
            "The optimizer already has penalties. Pass all rules to one call of poise.torch.penalize, or remove the "
            "earlier ones with handle.remove()."
        )
    parameters = parameters_of(model)
    named = [with_selected_parameters(rule, parameters, model) for rule in as_rules(rules)]
    trained = _trained(optimizer, model, parameters)
    plan = resolve(named, trained, parameters, hint=LIST_PARAMETERS)
    kind: MetricKind | None = choose_metric(optimizer, named, update, metric_of)
    targets = [
        _with_actions(target, named, update, kind, optimizer)
        for target in targets_of(named, plan, trained, lambda parameter: full(parameter.tensor.detach()).clone())
    ]
    for target in targets:
        _check(target, [trained[number] for number in target.members], model, named)
    if kind is not None:
        proximal = [trained[number] for target in targets if target.proximal for number in target.members]
        choose_metric(optimizer, named, update, functools.partial(check_weight_decay, parameters=proximal))
    strengths = OptimizerStrengths(optimizer, named)
    hooks = StepHooks(optimizer, trained, targets, strengths, kind is not None, observe_every, compile)
    return PenaltyHandle(optimizer, model, named, update, hooks, parameters)


def handle_of(optimizer: torch.optim.Optimizer) -> PenaltyHandle | None:
    """Return the handle of the penalties that `poise.torch.penalize` added to an optimizer, or None if it has none.

    Use it where a training framework creates or wraps the optimizer.

    Args:
        optimizer: `torch.optim.Optimizer`, or the wrapper that Lightning or Accelerate puts around it.

    Raises:
        TypeError: If it is not a `torch.optim.Optimizer`.

    Examples:
        >>> import poise, torch
        >>> model = torch.nn.Linear(10, 1)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> handle = poise.torch.penalize(optimizer, model, poise.L1(0.01))
        >>> poise.torch.handle_of(optimizer) is handle
        True
    """
    optimizer = _innermost(optimizer)
    owners = [getattr(hook, "__self__", None) for hook in optimizer._optimizer_step_post_hooks.values()]
    return next((owner.handle for owner in owners if isinstance(owner, StepHooks)), None)


def _innermost(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer that takes the steps: Lightning and Accelerate wrap it.

    Raises:
        TypeError: If it is not a `torch.optim.Optimizer`.
    """
    inner = optimizer
    while isinstance(getattr(inner, "optimizer", None), torch.optim.Optimizer):
        inner = inner.optimizer
    if not isinstance(inner, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}.")
    return inner


def _unwrap(model: Any) -> torch.nn.Module:
    """Return the module in a wrapper that only changes how it runs, so that its parameters have their usual names."""
    while True:
        if isinstance(model, (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)):
            model = model.module
            continue
        compiled = dict(model.named_children()).get("_orig_mod")  # as torch.compile names it
        if compiled is None:
            return model
        model = compiled


def _trained(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module, parameters: Sequence[Parameter]
) -> list[Parameter]:
    """Return the parameters of the model that the optimizer trains.

    Raises:
        ValueError: If there are none.
    """
    held = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    trained = [parameter for parameter in parameters if id(parameter.tensor) in held and parameter.tensor.requires_grad]
    if not trained:
        raise ValueError(
            f"The optimizer trains no parameter of the model {type(model).__name__}. Create the optimizer from "
            "model.parameters() after the model is in its final form, and pass this model."
        )
    return trained


def _with_actions(
    target: Target, rules: Sequence[Rule], update: str, kind: MetricKind | None, optimizer: Any
) -> Target:
    coupled, decoupled, proximal = assign_actions(target.penalties, update, kind)
    target = replace(target, coupled=coupled, decoupled=decoupled, proximal=proximal)
    check_actions(target, [rule.name for rule in rules], update, kind, optimizer, "torch.optim.SGD")
    return target


def _check(
    target: Target,
    parameters: Sequence[Parameter],
    model: torch.nn.Module,
    rules: Sequence[Rule],
) -> None:
    """Raise ValueError if a parameter does not permit the penalties of a target."""
    for parameter in parameters:
        rule = rules[target.penalties[0][0]].name
        if is_parametrized(parameter, model):
            raise ValueError(
                f"Rule {rule!r} matches {path_of(parameter)!r}, from which a parametrization (such as weight_norm) "
                "computes the weight: a penalty on it is not a penalty on the weight. Remove the parametrization with "
                "torch.nn.utils.parametrize.remove_parametrizations, or exclude the parameter from the rule."
            )
        if hasattr(parameter.tensor, "to_local"):
            _check_sharded(target, parameter, str(rule))


def _check_sharded(target: Target, parameter: Parameter, rule: str) -> None:
    for _, penalty in target.proximal:
        if not isinstance(penalty, Separable) or penalty.factors is not None:
            raise ValueError(
                f"Rule {rule!r} matches {path_of(parameter)!r}, which is sharded over several processes. Only "
                f"penalties of single entries without factors, such as poise.L1, act on shards, got "
                f"{type(penalty).__name__}. Use update='coupled', or do not shard this module."
            )
