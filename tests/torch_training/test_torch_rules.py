"""Which parameters of a module the rules of `poise.torch.penalize` select, and messages for those that do not fit."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import poise
import poise.torch


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6))
        self.attention = nn.MultiheadAttention(6, 2)
        self.memory = nn.LSTM(6, 3)
        self.filters = nn.Conv1d(3, 2, 3)
        self.scale = nn.Parameter(torch.ones(2))
        self.head = nn.Linear(2, 1)


def penalize(model: nn.Module, rules: Any, **settings: Any) -> poise.torch.PenaltyHandle:
    return poise.torch.penalize(torch.optim.Adam(model.parameters()), model, rules, **settings)


def penalized(model: nn.Module, rules: Any) -> list[str]:
    table = penalize(model, rules).summary().table
    return table.loc[table["penalty"] != "", "variable"].tolist()


def test_a_bare_penalty_acts_on_matrices_filters_and_embeddings() -> None:
    assert penalized(Network(), poise.L1(0.1)) == [
        *("embedding.weight", "encoder.0.weight", "encoder.2.weight"),
        *("attention.in_proj_weight", "attention.out_proj.weight"),
        *("memory.weight_ih_l0", "memory.weight_hh_l0", "filters.weight", "head.weight"),
    ]


@pytest.mark.parametrize(
    ("select", "names"),
    [
        ("encoder.*.weight", ["encoder.0.weight", "encoder.1.weight", "encoder.2.weight"]),
        ("0.weight", ["encoder.0.weight"]),
        (".head.weight", ["head.weight"]),
        ("encoder.**", [f"encoder.{n}.{kind}" for n in range(3) for kind in ("weight", "bias")]),
        (poise.Role.SCALES, ["scale", "encoder.1.weight"]),
        (poise.Role.EMBEDDINGS, ["embedding.weight"]),
        (lambda p: p.shape == (6, 6), ["encoder.2.weight", "attention.out_proj.weight"]),
        (lambda p: p.tensor.numel() == 1, ["head.bias"]),
    ],
    ids=["three parts", "two parts", "from the start", "any number", "scales", "embeddings", "by shape", "by tensor"],
)
def test_a_rule_selects_by_name_role_and_function(select: Any, names: list[str]) -> None:
    assert sorted(penalized(Network(), poise.Rule(select, poise.L2(0.1)))) == sorted(names)


def test_a_rule_selects_and_excludes_modules() -> None:
    model = Network()
    handle = penalize(model, poise.Rule(model.encoder, poise.L2(0.1), exclude=[model.encoder[1], "*.bias"]))

    table = handle.summary().table
    assert table.loc[table["penalty"] != "", "variable"].tolist() == ["encoder.0.weight", "encoder.2.weight"]
    assert list(handle.strength) == ["encoder"]


def groups_of(model: nn.Module, groups: str, name: str) -> tuple[int, ...]:
    """Return the sizes of the parts that a group penalty sees along an axis: the number of its groups."""
    handle = penalize(model, poise.Rule(name, poise.GroupLasso(0.1, groups=groups), name="rule"))
    (target,) = handle._hooks.targets
    (_, penalty), *_ = target.penalties
    sizes = penalty.sizes(dict(model.named_parameters())[name].detach())
    return tuple(sizes.shape)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("encoder.0.weight", 4, 6),
        ("embedding.weight", 5, 4),
        ("attention.in_proj_weight", 6, 18),
        ("memory.weight_ih_l0", 6, 3),
        ("memory.weight_hh_l0", 3, 3),
        ("filters.weight", 3, 2),
    ],
)
def test_groups_lie_where_the_type_of_the_module_says(name: str, inputs: int, outputs: int) -> None:
    assert groups_of(Network(), "inputs", name) == (inputs,)
    assert groups_of(Network(), "outputs", name) == (outputs,)


def test_training_sets_whole_inputs_of_a_linear_module_to_zero() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    network: Any = model
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    rules = [poise.Rule("0.weight", poise.GroupLasso(0.05, groups="inputs")), poise.Rule("2.weight", poise.L2(0.01))]
    poise.torch.penalize(optimizer, model, rules)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    x = torch.randn(1000, 6)
    y = x[:, :1] + x[:, 3:4]
    for _ in range(500):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()
        schedule.step()

    columns = network[0].weight.detach().norm(dim=0)
    assert torch.nonzero(columns).flatten().tolist() == [0, 3]


# ---------------------------------------------------------------- shared, frozen and computed parameters


def test_a_shared_parameter_is_penalized_once_and_has_all_its_names() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    handle = penalize(model, poise.Rule("1.weight", poise.L1(0.5)))

    assert handle.penalty() == pytest.approx(0.5 * model[0].weight.abs().sum().item(), rel=1e-6)


def test_a_parameter_shared_by_modules_of_different_layout_needs_an_axis() -> None:
    model: Any = nn.ModuleDict({"embedding": nn.Embedding(7, 3), "head": nn.Linear(3, 7, bias=False)})
    model["head"].weight = model["embedding"].weight

    assert penalized(model, poise.GroupLasso(0.1, groups=0)) == ["embedding.weight"]
    with pytest.raises(ValueError, match="share this parameter. Name the axis by an integer, such as groups=0"):
        penalize(model, poise.GroupLasso(0.1, groups="outputs"))


def test_frozen_parameters_and_those_of_no_optimizer_are_listed() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([*model[0].parameters(), *model[1].parameters()], 0.1)
    handle = poise.torch.penalize(optimizer, model, poise.L1(0.1))

    notes = handle.summary().table.set_index("variable")["note"]
    assert notes["0.weight"] == "frozen; rule 'kernels' would apply if it were trained"
    assert notes["1.weight"] == "rule 'kernels'"
    assert notes["1.bias"] == "no rule selects it"
    assert notes["2.weight"] == "not in the optimizer; rule 'kernels' would apply if it were trained"


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.spectral_norm], ids=["weight", "spectral"]
)
def test_parametrized_weights_are_refused(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(wrap(nn.Linear(3, 3)), nn.Linear(3, 1))

    with pytest.raises(ValueError, match="a penalty on it is not a penalty on the weight. Remove the parametrization"):
        penalize(model, poise.L1(0.1))
    rule = poise.Rule(poise.Role.KERNELS, poise.L1(0.1), exclude="**.parametrizations.**")
    assert penalized(model, rule) == ["1.weight"]


def test_a_lazy_module_needs_data_first() -> None:
    model = nn.Sequential(nn.LazyLinear(3))

    with pytest.raises(ValueError, match="'0.weight' belongs to a lazy module and has no shape yet. Run a batch"):
        poise.torch.penalize(torch.optim.SGD(nn.Linear(1, 1).parameters()), model, poise.L1(0.1))


# ---------------------------------------------------------------- messages


def test_a_rule_that_matches_nothing_suggests_a_name() -> None:
    with pytest.raises(
        ValueError, match="Did you mean .*'encoder.0.weight'.* List the parameters with model.named_par"
    ):
        penalize(Network(), poise.Rule("encoder.0.wieght", poise.L1(0.1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: torch.optim.AdamW(p),
            "weight_decay=0 for this parameter (to keep an L2 penalty, add poise.L2(0.005))",
        ),
        (lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1), "weight_decay=0 for this parameter"),
        (lambda p: torch.optim.RMSprop(p, centered=True), "its step grows without bound"),
        (lambda p: torch.optim.Rprop(p), "it moves by the sign of the gradient"),
        (lambda p: torch.optim.LBFGS(p), "it takes several steps with a line search"),
        (lambda p: torch.optim.Adam(p, differentiable=True), "Use differentiable=False"),
    ],
)
def test_an_optimizer_without_a_usable_step_is_refused_with_the_alternative(make: Any, message: str) -> None:
    model = nn.Linear(3, 1)

    sentence = (
        rf"L1 acts by a proximal step with update='auto', which .*{re.escape(message)}.*, or use update='coupled'"
    )
    with pytest.raises(ValueError, match=sentence):
        poise.torch.penalize(make(model.parameters()), model, poise.L1(0.1))
    poise.torch.penalize(make(model.parameters()), model, poise.L1(0.1), update="coupled")


def test_an_optimizer_that_overrides_the_step_is_refused() -> None:
    class Custom(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    class Named(torch.optim.Adam):
        pass

    model = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="Custom: poise does not know its step per coordinate"):
        poise.torch.penalize(Custom(model.parameters()), model, poise.L1(0.1))
    poise.torch.penalize(Named(model.parameters()), model, poise.L1(0.1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("adam", nn.Linear(1, 1), poise.L1()), TypeError, "optimizer must be a torch.optim.Optimizer, got str."),
        ((None, "model", poise.L1()), TypeError, "model must be a torch.nn.Module, got str."),
        ((None, None, 0.1), TypeError, "rules must be a penalty, a poise.Rule, or a list of those"),
        ((None, None, poise.L1(), "prox"), ValueError, "update must be one of 'auto', 'coupled'"),
        ((None, None, poise.L1(), "auto", -1), ValueError, "observe_every must be an int >= 0, got -1."),
        ((None, nn.Linear(2, 2), poise.L1()), ValueError, "The optimizer trains no parameter of the model Linear."),
        ((None, None, poise.Rule(nn.Linear(3, 3), poise.L1())), ValueError, "not a part of the model"),
        ((None, None, poise.NuclearNorm(), "proximal"), ValueError, "Use torch.optim.SGD, or update='decoupled'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments_are_explained(arguments: Any, error: type[Exception], message: str) -> None:
    model = nn.Linear(3, 2)
    defaults = (torch.optim.Adam(model.parameters()), model)
    chosen: list[Any] = [
        default if value is None else value for value, default in zip(arguments, defaults, strict=False)
    ]

    with pytest.raises(error) as raised:
        poise.torch.penalize(*chosen, *arguments[2:])
    assert message in str(raised.value)


def test_a_second_call_is_refused_until_the_first_is_removed() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    handle = poise.torch.penalize(optimizer, model, poise.L1(0.1))

    with pytest.raises(ValueError, match="The optimizer already has penalties"):
        poise.torch.penalize(optimizer, model, poise.L2(0.1))
    handle.remove()
    poise.torch.penalize(optimizer, model, poise.L2(0.1))
