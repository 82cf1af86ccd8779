"""Penalties follow the optimizer: its saved state, its parameter groups, learning rates, closures and schedulers."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import keras
import pytest
import torch
from torch_optimizers import OPTIMIZERS

import poise
import poise.torch
from poise.torch.metrics import STEPS, After

RULES: dict[str, Callable[[], Any]] = {
    "L1": lambda: poise.L1(0.05),
    "anchored": lambda: poise.Anchored(poise.L1(0.05)),
    "several": lambda: [
        poise.Rule(
            "0.weight", poise.GroupLasso(keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5), groups="inputs")
        ),
        poise.Rule("2.weight", poise.Anchored(poise.L2(0.05))),
        poise.Rule("bias", poise.L2(0.1)),
    ],
}
X = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
Y = X[:, :1] - X[:, 1:2]


def network(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def loss_of(model: torch.nn.Module, rows: slice = slice(None)) -> torch.Tensor:
    return torch.nn.functional.mse_loss(model(X[rows]), Y[rows])


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def assert_equal(model: torch.nn.Module, other: torch.nn.Module) -> None:
    for w, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(w, expected)


def assert_close(model: torch.nn.Module, other: torch.nn.Module, tolerance: float = 1e-6) -> None:
    for w, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(w, expected, rtol=0.0, atol=tolerance)
        assert torch.equal(w == 0, expected == 0)


def from_file(state: Any) -> Any:
    """Return a state as it is after it was saved and loaded."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("rules", "is_loaded_first"), [("L1", False), ("anchored", True), ("several", False)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_resumes_exactly(name: str, rules: str, is_loaded_first: bool) -> None:
    make, rate = OPTIMIZERS[name]

    def start() -> tuple[torch.nn.Module, torch.optim.Optimizer, poise.torch.PenaltyHandle]:
        model = network()
        optimizer = make(model.parameters(), rate)
        return model, optimizer, poise.torch.penalize(optimizer, model, RULES[rules]())

    whole, optimizer, handle = start()
    train(whole, optimizer, 5)
    if rules != "several":
        handle.strength["kernels"] = 0.2
    train(whole, optimizer, 7)

    model, optimizer, handle = start()
    train(model, optimizer, 5)
    if rules != "several":
        handle.strength["kernels"] = 0.2
    saved = from_file([model.state_dict(), optimizer.state_dict()])
    model = network(seed=1)
    optimizer = make(model.parameters(), rate)
    if is_loaded_first:
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
    handle = poise.torch.penalize(optimizer, model, RULES[rules]())
    if not is_loaded_first:
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
    train(model, optimizer, 7)

    assert_equal(model, whole)
    assert handle.strength.steps == 12
    if rules != "several":
        assert handle.strength["kernels"] == 0.2


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("update", ["auto", "coupled"])
def test_a_closure_is_the_same_as_a_backward_pass_before_the_step(rules: str, update: str) -> None:
    def run(kind: str) -> torch.nn.Module:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        handle = poise.torch.penalize(optimizer, model, RULES[rules](), update)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        for _ in range(10):
            if kind == "none":
                closure()
                optimizer.step()
            else:
                loss = optimizer.step(closure) if kind == "positional" else optimizer.step(closure=closure)
                assert isinstance(loss, torch.Tensor)
        assert handle.strength.steps == 10
        return model

    assert_equal(run("positional"), run("none"))
    assert_equal(run("keyword"), run("none"))


@pytest.mark.parametrize("update", ["auto", "coupled"])
def test_accumulated_gradients_are_penalized_once(update: str) -> None:
    def run(parts: int) -> torch.nn.Module:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        poise.torch.penalize(optimizer, model, poise.L1(0.2), update)
        for _ in range(10):
            optimizer.zero_grad()
            for part in range(parts):
                (loss_of(model, slice(part * 48 // parts, (part + 1) * 48 // parts)) / parts).backward()
            optimizer.step()
        return model

    assert_close(run(4), run(1))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {}), (torch.optim.RMSprop, {"momentum": 0.9})],
)
def test_a_tensor_is_a_learning_rate(optimizer_class: Any, settings: dict[str, Any], rules: str) -> None:
    def run(rate: Any) -> torch.nn.Module:
        model = network()
        optimizer = optimizer_class(model.parameters(), rate, **settings)
        handle = poise.torch.penalize(optimizer, model, RULES[rules]())
        if rules != "several":
            handle.strength["kernels"] = 0.3
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        for _ in range(10):
            train(model, optimizer, 1)
            scheduler.step()
        return model

    assert_close(run(torch.tensor(0.03)), run(0.03))


@pytest.mark.parametrize("update", ["auto", "decoupled"])
@pytest.mark.parametrize("name", ["SGD momentum", "Adam", "Adadelta"])
def test_every_parameter_group_has_its_rate(name: str, update: str) -> None:
    """One optimizer with two groups does what two optimizers do."""
    make, rate = OPTIMIZERS[name]
    rules = [poise.Rule("weight", poise.L1(0.2)), poise.Rule("bias", poise.L2(0.2))]

    model = network()
    groups: Any = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": rate / 3}]
    optimizer = make(groups, rate)
    poise.torch.penalize(optimizer, model, rules, update)
    train(model, optimizer, 10)

    other = network()
    optimizers = make(other[0].parameters(), rate), make(other[2].parameters(), rate / 3)
    for optimizer in optimizers:
        poise.torch.penalize(optimizer, other, rules, update)
    for _ in range(10):
        other.zero_grad()
        loss_of(other).backward()
        for optimizer in optimizers:
            optimizer.step()

    assert_close(model, other)


def test_a_group_that_is_added_later_is_trained_without_penalty() -> None:
    rule = poise.Rule("weight", poise.L1(0.2))

    def run(is_added: bool) -> torch.nn.Module:
        model = network()
        last: dict[str, Any] = {"params": list(model[2].parameters()), "lr": 0.01}
        optimizer = torch.optim.SGD(model[0].parameters(), 0.03, momentum=0.9)
        if not is_added:
            optimizer.add_param_group(last)
        poise.torch.penalize(optimizer, model, rule if is_added else poise.Rule("weight", rule.penalty, exclude="2.*"))
        if is_added:
            optimizer.add_param_group(last)
        with pytest.warns(UserWarning, match="added to the optimizer") if is_added else contextlib.nullcontext():
            train(model, optimizer, 10)
        return model

    assert_equal(run(is_added=True), run(is_added=False))


ONE_CYCLE = {"SGD momentum": 1e-7, "SGD Nesterov": 1e-7, "Adamax": 0.1, "RAdam": 0.1, "Adam": 0.1, "NAdam": 0.1}
"""By optimizer the largest relative error of the step while the momentum changes.

The momentum of SGD may change: the trace follows it. The others correct the bias of their first moment as if β₁ had
always been the one of now, which the step leaves out. The error disappears with the powers of β₁.
"""


@pytest.mark.parametrize("name", ONE_CYCLE)
def test_the_step_is_right_while_a_scheduler_changes_the_momentum(name: str) -> None:
    make, rate = OPTIMIZERS[name]
    gradient = torch.tensor([1e-3, 0.5, -20.0], dtype=torch.float64)
    w = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = make([w], rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=400)
    errors = []
    for _ in range(400):
        before = w.detach().clone()
        w.grad = gradient.clone()
        optimizer.step()
        size = STEPS[type(optimizer)][1](After(optimizer.param_groups[0], optimizer.state[w], None)).whole()
        errors.append(((before - w.detach()) / (size * gradient) - 1.0).abs().max().item())
        if len(errors) < 400:
            scheduler.step()

    assert max(errors) < ONE_CYCLE[name]
    assert max(errors[200:]) < 1e-6


def test_a_state_without_penalties_starts_with_the_strengths_of_the_rules() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 3)
    saved = from_file(optimizer.state_dict())

    optimizer = torch.optim.Adam(model.parameters())
    handle = poise.torch.penalize(optimizer, model, poise.L1(0.05))
    optimizer.load_state_dict(saved)
    train(model, optimizer, 1)

    assert dict(handle.strength) == {"kernels": 0.05}
    assert handle.strength.steps == 1


def test_a_removed_penalty_leaves_the_optimizer_as_it_was() -> None:
    model, plain = network(), network()
    optimizer, other = (torch.optim.Adam(network.parameters(), 0.05) for network in (model, plain))
    poise.torch.penalize(optimizer, model, poise.L1(0.05)).remove()
    train(model, optimizer, 3)
    train(plain, other, 3)

    assert_equal(model, plain)
    assert optimizer.state_dict().keys() == other.state_dict().keys()
    assert optimizer.param_groups[0].keys() == other.param_groups[0].keys()
