"""The parameters of a `torch.nn.Module` as rules see them: names, shape, role, and where inputs and outputs lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from poise.penalties.axes import Sides
from poise.rules.layers import register_infos
from poise.rules.rule import Rule
from poise.rules.variable_info import VariableInfo, info_by_name
from poise.rules.wrapped_layers import infos_of_module

SHARED = (
    "modules that store their weights in different layouts share this parameter. Name the axis by an integer, such as "
    "groups=0."
)


@dataclass(eq=False)
class Parameter:
    """A parameter of a module.

    Attributes:
        tensor: The `torch.nn.Parameter`.
        paths: Its names in the module, such as `"encoder.0.weight"`. A tied parameter has several.
    """

    tensor: torch.nn.Parameter
    paths: list[str]
    separator = "."

    @property
    def path(self) -> str:
        """The first of its names."""
        return self.paths[0]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        """The name of its dtype, such as `"float32"`."""
        return str(self.tensor.dtype).removeprefix("torch.")


def parameters_of(model: torch.nn.Module) -> list[Parameter]:
    """Return the parameters of a model in its order, each one once, and remember what they are for rules.

    Raises:
        ValueError: If a lazy module has no weights yet.
    """
    by_identity: dict[int, Parameter] = {}
    for path, tensor in model.named_parameters(remove_duplicate=False):
        if isinstance(tensor, torch.nn.parameter.UninitializedParameter):
            raise ValueError(
                f"The parameter {path!r} belongs to a lazy module and has no shape yet. Run a batch through the model "
                "before you call poise.torch.penalize."
            )
        by_identity.setdefault(id(tensor), Parameter(tensor, [])).paths.append(path)
    infos = infos_of_module(model)
    parameters = list(by_identity.values())
    register_infos((parameter, _info_of(model, parameter, infos)) for parameter in parameters)
    return parameters


def _info_of(model: torch.nn.Module, parameter: Parameter, infos: dict[int, VariableInfo]) -> VariableInfo:
    info = infos.get(id(parameter.tensor)) or info_by_name(parameter.name, parameter.shape)
    owners = {type(model.get_submodule(path.rpartition(".")[0])) for path in parameter.paths}
    return info if len(owners) == 1 else VariableInfo(info.role, Sides(unknown=SHARED))


def is_parametrized(parameter: Parameter, model: torch.nn.Module) -> bool:
    """Whether a weight is computed from the parameter, so that a penalty on the parameter is not one on the weight."""
    path = parameter.path.split(".")
    if len(path) > 2 and path[-3] == "parametrizations":
        return True
    module = model.get_submodule(".".join(path[:-1]))
    hooks = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
    computed = ("_g", "_v") if "WeightNorm" in hooks else ()
    computed += ("_orig",) if "SpectralNorm" in hooks else ()
    return bool(computed) and parameter.name.endswith(computed)


def with_selected_parameters(rule: Rule, parameters: Sequence[Parameter], model: torch.nn.Module) -> Rule:
    """Return a rule that selects parameters where the given one selects modules of PyTorch.

    Raises:
        ValueError: If a module is not a part of the model.
    """
    select, exclude = (_resolve(part, parameters, model) for part in (rule.select, rule.exclude))
    if select is rule.select and exclude is rule.exclude:
        return rule
    name = rule.name
    if isinstance(rule.select, torch.nn.Module) and name == type(rule.select).__name__:
        name = next((path for path, module in model.named_modules() if module is rule.select), "") or name
    return Rule(select, rule.penalty, exclude, name)


def _resolve(select: Any, parameters: Sequence[Parameter], model: torch.nn.Module) -> Any:
    if isinstance(select, (list, tuple)):
        parts = [_resolve(part, parameters, model) for part in select]
        return select if all(new is old for new, old in zip(parts, select, strict=True)) else parts
    if not isinstance(select, torch.nn.Module):
        return select
    tensors = {id(tensor) for tensor in select.parameters()}
    if not tensors <= {id(parameter.tensor) for parameter in parameters}:
        raise ValueError(
            f"A rule selects the module {type(select).__name__}, which is not a part of the model "
            f"{type(model).__name__}. Select a module of the model that is penalized."
        )
    return lambda parameter: id(parameter.tensor) in tensors
