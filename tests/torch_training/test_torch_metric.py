"""The step of the prox is the factor by which the optimizer multiplies a constant gradient."""

import pytest
import torch
from torch_optimizers import OPTIMIZERS

import poise
import poise.torch
from poise.torch.metrics import STEPS, After, registered_class


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_step_per_unit_of_a_constant_gradient(name: str) -> None:
    """The learning rate changes on the way, and so does the scale of the gradients from entry to entry."""
    make, rate = OPTIMIZERS[name]
    gradient = torch.tensor([1e-3, 0.5, -20.0, 3.0], dtype=torch.float64)
    w = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = make([w], rate)
    step_of = STEPS[registered_class(optimizer)][1]

    for count in range(40):
        optimizer.param_groups[0]["lr"] = rate * (1.0 if count < 20 else 0.3)
        before, state = w.detach().clone(), optimizer.state[w]
        change = state["acc_delta"].clone() if "acc_delta" in state else None
        w.grad = gradient.clone()
        optimizer.step()
        size = step_of(After(optimizer.param_groups[0], optimizer.state[w], change)).whole()

        moved = before - w.detach()
        torch.testing.assert_close(moved, size * gradient, rtol=1e-10, atol=0.0)


def test_every_registered_optimizer_is_tested() -> None:
    w = torch.nn.Parameter(torch.zeros(2))

    assert {registered_class(make([w], rate)) for make, rate in OPTIMIZERS.values()} == set(STEPS)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name.startswith(("Adam", "NAdam", "RMS", "Adagrad"))])
def test_entries_without_a_gradient_take_a_step_like_the_others(name: str) -> None:
    make, rate = OPTIMIZERS[name]
    model = torch.nn.Embedding(4, 3, dtype=torch.float64)
    optimizer = make(model.parameters(), rate)
    poise.torch.penalize(optimizer, model, poise.L1(1e-3))
    before = model.weight.detach().clone()

    for _ in range(3):
        optimizer.zero_grad()
        model(torch.tensor([1, 1, 2])).square().sum().backward()
        optimizer.step()

    never = model.weight.detach()[[0, 3]]
    moved = (before[[0, 3]] - never).abs()
    assert (never != 0).all()
    assert (moved > 0).all()
    torch.testing.assert_close(moved, moved[:1, :1].expand_as(moved), rtol=1e-9, atol=0.0)  # all by the same step


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Adagrad", "Adamax"])
def test_weights_of_zero_gradients_are_not_set_to_zero_at_once(name: str) -> None:
    make, rate = OPTIMIZERS[name]
    model = torch.nn.Linear(3, 2, bias=False)
    optimizer = make(model.parameters(), rate)
    poise.torch.penalize(optimizer, model, poise.L1(1e-3))
    model.weight.grad = torch.zeros_like(model.weight)

    optimizer.step()

    assert (model.weight != 0).all()
