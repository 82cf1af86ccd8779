"""Training with `poise.torch.penalize` ends at the solutions of independent solvers, with the same zeros."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression
from torch_optimizers import OPTIMIZERS

import poise
import poise.torch
from poise.penalties import loops

GROUPS = [[0, 1], [2, 3, 4], [5], [6, 7, 8, 9]]

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(200, 10)) + 0.5 * RANDOM.normal(size=(200, 1))
X -= X.mean(axis=0)
Y = X @ [1.0, -0.5, 0.0, 0.0, 0.02, 0.0, 0.3, 0.0, -0.2, 0.1] + 0.5 * RANDOM.normal(size=200)
Y -= Y.mean()


def train(
    name: str, penalty: Any, x: np.ndarray, y: np.ndarray, loss: Callable[..., Any], steps: int = 800, **settings: Any
) -> tuple[np.ndarray, float]:
    """Return the weights and the bias of a linear model after training."""
    make, rate = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = torch.nn.Linear(x.shape[1], 1, dtype=torch.float64)
    optimizer = make(model.parameters(), rate)
    poise.torch.penalize(optimizer, model, penalty, **settings)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    inputs, targets = torch.tensor(x), torch.tensor(y)[:, None]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
        schedule.step()
    return model.weight.detach().numpy()[0], model.bias.item()


def assert_same(weights: np.ndarray, expected: np.ndarray) -> None:
    assert ((weights == 0) == (expected == 0)).all()
    assert 0 < np.count_nonzero(expected) < len(expected)
    np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_l1_is_the_lasso(name: str) -> None:
    weights, _ = train(name, poise.L1(0.1), X, Y, torch.nn.functional.mse_loss)

    assert_same(weights, Lasso(alpha=0.05, tol=1e-12, max_iter=100_000).fit(X, Y).coef_)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if "f" not in name.partition(" ")[2]])
def test_groups_are_the_group_lasso(name: str) -> None:
    """The oracle solves one equation per group by bracketing, in rounds over the groups."""
    penalty = poise.GroupLasso(0.12, groups=GROUPS, axis="inputs")

    weights, _ = train(name, penalty, X, Y, torch.nn.functional.mse_loss, steps=400)

    assert_same(weights, group_lasso(0.12))


@pytest.mark.parametrize("name", ["SGD momentum", "Adam", "RAdam", "Adadelta"])
def test_l1_and_l2_are_the_elastic_net(name: str) -> None:
    reference = ElasticNet(alpha=0.1, l1_ratio=0.6, tol=1e-12, max_iter=100_000).fit(X, Y).coef_

    one_rule, _ = train(name, poise.ElasticNet(l1=0.12, l2=0.04), X, Y, torch.nn.functional.mse_loss)
    rules = [poise.Rule("weight", poise.L1(0.12), name="l1"), poise.Rule("weight", poise.L2(0.04), name="l2")]
    two_rules, _ = train(name, rules, X, Y, torch.nn.functional.mse_loss)

    assert_same(one_rule, reference)
    assert_same(two_rules, reference)


@pytest.mark.parametrize("name", ["SGD Nesterov", "AdamW"])
def test_l1_with_a_logistic_loss_is_logistic_regression(name: str) -> None:
    y = (Y > 0.3).astype("float64")
    strength = 0.03
    settings = {"C": 1 / (strength * len(X)), "l1_ratio": 1.0, "solver": "saga", "tol": 1e-9, "max_iter": 50_000}
    reference = LogisticRegression(**settings).fit(X, y)  # pyright: ignore[reportArgumentType]

    loss = torch.nn.functional.binary_cross_entropy_with_logits
    weights, bias = train(name, poise.L1(strength), X, y, loss, steps=4000)

    assert_same(weights, reference.coef_[0])
    assert bias == pytest.approx(reference.intercept_[0], abs=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # by torch.compile itself
@pytest.mark.parametrize(
    "penalty",
    [poise.L1(0.1), poise.GroupLasso(0.12, groups="outputs"), poise.GroupLasso(0.12, groups=GROUPS, axis="inputs")],
    ids=repr,
)
def test_a_compiled_step_gives_the_same(penalty: Any) -> None:
    plain, _ = train("Adam", penalty, X, Y, torch.nn.functional.mse_loss, steps=100)
    compiled, _ = train("Adam", penalty, X, Y, torch.nn.functional.mse_loss, steps=100, compile=True)

    np.testing.assert_allclose(compiled, plain, atol=1e-9)
    assert (compiled == 0).tolist() == (plain == 0).tolist()


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # by torch.compile itself
@pytest.mark.parametrize("compiles", [False, True])
def test_a_loop_that_needs_more_steps_than_a_program_has_takes_them(
    compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    penalty = poise.GroupLasso(0.12, groups="outputs")
    enough, _ = train("Adam", penalty, X, Y, torch.nn.functional.mse_loss, steps=100)
    monkeypatch.setattr(loops, "FIXED_STEPS", 1)

    more, _ = train("Adam", penalty, X, Y, torch.nn.functional.mse_loss, steps=100, compile=compiles)

    np.testing.assert_allclose(more, enough, atol=1e-9)


def test_maximizing_the_negative_loss_is_the_same() -> None:
    make = {"lr": 0.02, "maximize": True}
    torch.manual_seed(0)
    model = torch.nn.Linear(10, 1, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), **make)
    handle = poise.torch.penalize(optimizer, model, poise.L1(0.1))
    inputs, targets = torch.tensor(X), torch.tensor(Y)[:, None]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    for _ in range(800):
        optimizer.zero_grad()
        (-torch.nn.functional.mse_loss(model(inputs), targets)).backward()
        optimizer.step()
        schedule.step()

    assert_same(model.weight.detach().numpy()[0], Lasso(alpha=0.05, tol=1e-12, max_iter=100_000).fit(X, Y).coef_)
    assert handle.forces()["relative_residual"].item() < 1e-6


@functools.cache
def group_lasso(strength: float) -> np.ndarray:
    """Minimize mean((y − xw)²) + strength · Σ_g √|g| ‖w_g‖ by coordinate descent over groups."""
    w = np.zeros(X.shape[1])
    for _ in range(150):
        before = w.copy()
        for group in GROUPS:
            part = X[:, group]
            values, vectors = np.linalg.eigh(2 * part.T @ part / len(X))
            slope = vectors.T @ (2 * part.T @ (Y - X @ w + part @ w[group]) / len(X))
            price = strength * np.sqrt(len(group))
            w[group] = 0.0
            if np.linalg.norm(slope) > price:
                norm = brentq(lambda n, d=values, b=slope, c=price: np.linalg.norm(b / (d + c / n)) - n, 1e-9, 1e3)
                w[group] = vectors @ (slope / (values + price / norm))
        if np.abs(w - before).max() < 1e-13:
            break
    return w
