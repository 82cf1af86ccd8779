"""The prox of a large parameter in parts, and of small ones together, is that of each as a whole."""

import itertools
from typing import Any

import pytest
import torch

import poise
import poise.torch
from poise.torch import prox

PENALTIES = [
    poise.L1(0.02),
    poise.L1(0.02, factors=[[1.0], [0.0], [3.0]] * 4),
    poise.ElasticNet(0.02),
    poise.MCP(0.02),
    poise.GroupLasso(0.02, groups="outputs"),
    poise.GroupLasso(0.02, groups="inputs"),
    poise.GroupLasso(0.02, groups=[[0, 3], [1, 2], [4, 5, 6]]),
    poise.SparseGroupLasso(0.02, groups="inputs"),
    poise.Anchored(poise.L1(0.02)),
]


def train(penalty: Any, sizes: tuple[int, ...], rate: float = 0.05) -> tuple[list[torch.Tensor], Any]:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    handle = poise.torch.penalize(optimizer, model, penalty)
    x, y = torch.randn(30, sizes[0]), torch.randn(30, sizes[-1])
    for _ in range(12):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()], handle


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_parts_give_the_same_as_the_whole(penalty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train(penalty, (7, 12))
    monkeypatch.setattr(prox, "PART", 20)
    monkeypatch.setattr(prox, "JOINED", 0)
    parts, _ = train(penalty, (7, 12))

    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        assert torch.equal(a == 0, b == 0)


def test_joined_parameters_give_the_same_as_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    joined, _ = train(poise.L1(0.03), (5, 8, 8, 3))
    monkeypatch.setattr(prox, "JOINED", 0)
    single, _ = train(poise.L1(0.03), (5, 8, 8, 3))

    assert sum(int((w == 0).sum()) for w in joined) > 10
    for a, b in zip(joined, single, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_parameters_whose_memory_is_not_in_order_are_right() -> None:
    torch.manual_seed(0)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model: Any = torch.nn.Conv2d(3, 4, 3)
        model = model.to(memory_format=memory_format)
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        poise.torch.penalize(optimizer, model, poise.L1(0.05))
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        for _ in range(10):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        results.append(model.weight.detach())

    torch.testing.assert_close(results[0], results[1].contiguous())
    assert (results[0] == 0).any()


def test_a_joint_penalty_sets_all_weights_of_a_unit_to_zero() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
    members = {
        "0.weight": ((6, 4), 0, list(range(6))),
        "0.bias": ((6,), 0, list(range(6))),
        "2.weight": ((1, 6), 1, list(range(6))),
    }
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    handle = poise.torch.penalize(optimizer, model, poise.JointGroupLasso(0.1, members))
    x = torch.randn(100, 4)
    y = x[:, :1]
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()

    weights = dict(model.named_parameters())
    dead = (weights["0.weight"] == 0).all(dim=1)
    assert 0 < int(dead.sum()) < 6
    assert torch.equal(dead, weights["0.bias"] == 0)
    assert torch.equal(dead, (weights["2.weight"] == 0).all(dim=0))
    assert handle.zeros()["joint groups"] == pytest.approx(float(dead.double().mean()))
