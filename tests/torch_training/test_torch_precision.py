"""Half precision: exact zeros, and steps that overflow are skipped as if they had not been taken."""

from typing import Any

import numpy as np
import pytest
import torch
from torch_optimizers import OPTIMIZERS

import poise
import poise.torch

BAD = (0, 7, 8)
"""The steps whose gradients overflow."""
COUNT = 30


def problem(dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)).to(dtype)
    x = torch.randn(64, 8)
    return model, x, x[:, :1] - x[:, 1:2]


def weights_of(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("penalty", [poise.L1(0.05), poise.GroupLasso(0.1, groups="inputs")], ids=repr)
@pytest.mark.parametrize("name", ["SGD momentum", "Adam", "RMSprop momentum", "Adadelta"])
def test_bfloat16_weights_become_exactly_zero(name: str, penalty: Any) -> None:
    make, rate = OPTIMIZERS[name]
    model, x, y = problem(torch.bfloat16)
    optimizer = make(model.parameters(), rate)
    handle = poise.torch.penalize(optimizer, model, penalty)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x.bfloat16()), y.bfloat16()).backward()
        optimizer.step()

    assert 0.1 < handle.zeros()["kernels"] < 1.0
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("penalty", [poise.L1(0.05), poise.GroupLasso(0.1, groups="inputs")], ids=repr)
def test_autocast_has_the_zeros_of_full_precision(penalty: Any) -> None:
    def train(is_half: bool) -> list[torch.Tensor]:
        model, x, y = problem()
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        poise.torch.penalize(optimizer, model, penalty)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        for _ in range(100):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
                output = model(x)
            torch.nn.functional.mse_loss(output.float(), y).backward()
            optimizer.step()
            schedule.step()
        return weights_of(model)

    zeros = torch.cat([w.flatten() for w in train(is_half=True)]) == 0
    expected = torch.cat([w.flatten() for w in train(is_half=False)]) == 0

    assert 0.2 < expected.float().mean() < 1.0
    assert (zeros == expected).float().mean() > 0.9


def spoil(model: torch.nn.Module, value: float) -> None:
    """Let one entry of a gradient be infinite or NaN."""
    gradient = next(model.parameters()).grad
    assert gradient is not None
    gradient[0, 0] = value


def train_scaled(
    make: Any, rules: Any, update: str, is_scaled: bool, observe_every: int = 0
) -> tuple[list[torch.Tensor], poise.torch.PenaltyHandle]:
    """Return the weights after steps with scaled gradients, some of which overflow, or after the others only.

    The gradients are the same: they are computed in float32, and the scale is a power of two.
    """
    model, x, y = problem()
    optimizer = make(model.parameters())
    handle = poise.torch.penalize(optimizer, model, rules, update, observe_every=observe_every)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=is_scaled)
    for count in range(COUNT):
        if count in BAD and not is_scaled:
            continue
        optimizer.zero_grad()
        scaler.scale(torch.nn.functional.mse_loss(model(x), y)).backward()
        before = weights_of(model)
        if count in BAD:
            spoil(model, torch.inf)
        scaler.step(optimizer)
        if count in BAD:
            assert all(torch.equal(w, other) for w, other in zip(weights_of(model), before, strict=True))
        scaler.update()
    return weights_of(model), handle


SCALED = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, 0.05),
    "Adam fused": lambda parameters: torch.optim.Adam(parameters, 0.05, fused=True),
    "Adam maximize": lambda parameters: torch.optim.Adam(parameters, 1e-3, maximize=True),
    "Adam fused maximize": lambda parameters: torch.optim.Adam(parameters, 1e-3, fused=True, maximize=True),
    "AdamW fused": lambda parameters: torch.optim.AdamW(parameters, 0.05, weight_decay=0.0, fused=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "SGD fused": lambda parameters: torch.optim.SGD(parameters, 0.05, fused=True),
    "Adagrad fused": lambda parameters: torch.optim.Adagrad(parameters, 0.05, fused=True),
}
RULES = {
    "L1": (lambda: poise.L1(0.1), "auto"),
    "groups": (lambda: poise.GroupLasso(0.2, groups="inputs"), "auto"),
    "coupled": (lambda: poise.L2(0.3), "coupled"),
    "decoupled": (lambda: poise.L2(0.3), "decoupled"),
    "anchored": (lambda: poise.Anchored(poise.L1(0.1)), "auto"),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", SCALED)
def test_steps_that_overflow_are_not_taken(name: str, rules: str) -> None:
    make, update = RULES[rules]
    weights, handle = train_scaled(SCALED[name], make(), update, is_scaled=True)
    expected, plain = train_scaled(SCALED[name], make(), update, is_scaled=False)

    for w, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(w, other, rtol=1e-5, atol=1e-6)
        assert torch.equal(w == 0, other == 0)
    assert handle.strength.steps == plain.strength.steps == COUNT - len(BAD)


def test_momentum_is_not_moved_by_a_step_that_overflows() -> None:
    """The first step does not overflow: after it, PyTorch's fused SGD continues from memory that it has not filled."""
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, fused=True)
    handle = poise.torch.penalize(optimizer, model, poise.L1(0.1))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    traces = []
    for count in range(6):
        optimizer.zero_grad()
        scaler.scale(torch.nn.functional.mse_loss(model(x), y)).backward()
        if count in (2, 3):
            spoil(model, torch.nan)
        scaler.step(optimizer)
        scaler.update()
        traces.append(optimizer.state[next(model.parameters())]["penalty_trace"])

    assert traces == pytest.approx([1.0, 1.9, 1.9, 1.9, 2.71, 3.439])
    assert handle.strength.steps == 4


@pytest.mark.parametrize("name", ["Adam", "Adam fused"])
def test_recorded_forces_are_those_of_unscaled_gradients(name: str) -> None:
    """Without those of the steps that overflow, which would be infinite."""
    _, handle = train_scaled(SCALED[name], poise.L1(0.1), "auto", is_scaled=True, observe_every=1)
    _, plain = train_scaled(SCALED[name], poise.L1(0.1), "auto", is_scaled=False, observe_every=1)

    forces, expected = handle.forces().select_dtypes("number"), plain.forces().select_dtypes("number")
    np.testing.assert_allclose(forces.to_numpy(), expected.to_numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_float16_training_has_exact_zeros(fused: bool) -> None:
    model, x, y = problem()
    optimizer = torch.optim.Adam(model.parameters(), 0.02, fused=fused)
    handle = poise.torch.penalize(optimizer, model, [poise.L1(0.05), poise.Rule("bias", poise.L2(0.01))])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=20)
    scales = set()
    for _ in range(200):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            output = model(x)
        scaler.scale(torch.nn.functional.mse_loss(output.float(), y)).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.add(scaler.get_scale())

    assert len(scales) > 2
    assert handle.strength.steps < 200
    assert 0.2 < handle.zeros()["kernels"] < 1.0
    assert all(torch.isfinite(w).all() for w in weights_of(model))
