"""Constraints, the fused lasso and SLOPE in `poise.torch.penalize`."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import regression
from oracles.regression import HOLDS, SOLVERS, X, Y, solution

import poise
import poise.torch

PENALTIES = {**regression.PENALTIES, "fused-lasso": poise.TotalVariation(axis=1)}  # of a weight of shape (1, 8)
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "SGD": (torch.optim.SGD, 0.2),
    "Adam": (torch.optim.Adam, 0.1),
}
EVERY = [(name, kind) for name in PENALTIES for kind in OPTIMIZERS if (name, kind) != ("slope", "Adam")]
STEPS = {("fused-lasso", "SGD"): 100, ("slope", "SGD"): 100}
INPUTS, TARGETS = torch.tensor(X, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64)[:, None]


class Line:
    """A linear model without a bias, in training with a penalty."""

    def __init__(self, penalty: poise.Penalty, kind: str, **settings: Any) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(8, 1, bias=False, dtype=torch.float64)
        make, rate = OPTIMIZERS[kind]
        self.optimizer = make(self.model.parameters(), rate)
        self.handle = poise.torch.penalize(self.optimizer, self.model, penalty, **settings)

    def take(self, steps: int, falls: bool = False) -> list[np.ndarray]:
        """Return the weights after every step, at a constant learning rate or one that falls to zero."""
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        history = []
        for _ in range(steps):
            self.optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.model(INPUTS), TARGETS).backward()
            self.optimizer.step()
            if falls:
                schedule.step()
            history.append(self.model.weight.detach().numpy()[0].copy())
        return history


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_every_step_ends_in_the_set_and_training_at_the_solution(name: str, kind: str) -> None:
    line = Line(PENALTIES[name], kind)

    history = line.take(STEPS.get((name, kind), 300), falls=True)

    w = history[-1]
    assert all(HOLDS[name](w) for w in history if name in HOLDS)
    np.testing.assert_allclose(w, solution(name, w), atol=1e-5)
    if name in ("fused-lasso", "slope"):  # exactly as many sizes that differ
        assert len(np.unique(np.abs(w))) == len(np.unique(np.abs(SOLVERS[name]()).round(6))) < 8


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # by torch.compile itself
@pytest.mark.parametrize(
    ("name", "kind"), [("top-k", "Adam"), ("max-norm", "Adam"), ("fused-lasso", "SGD"), ("slope", "SGD")]
)
def test_compiled_steps_are_the_same(name: str, kind: str) -> None:
    """The fused lasso and SLOPE are not compiled."""
    plain, compiled = (Line(PENALTIES[name], kind, compile=compiles).take(10)[-1] for compiles in (False, True))

    np.testing.assert_allclose(compiled, plain, atol=1e-9)
    np.testing.assert_array_equal(compiled == 0, plain == 0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_sparsity_follows_its_schedule_and_continues_with_the_state(kind: str) -> None:
    schedule = poise.PolynomialSparsity(0.75, end_step=8, begin_step=2, initial_sparsity=0.25, frequency=2)
    line, whole = Line(poise.TopK(schedule), kind), Line(poise.TopK(schedule), kind)
    history = line.take(4)
    file = io.BytesIO()
    torch.save({"model": line.model.state_dict(), "optimizer": line.optimizer.state_dict()}, file)
    file.seek(0)

    saved = torch.load(file)
    other = Line(poise.TopK(schedule), kind)
    other.model.load_state_dict(saved["model"])
    other.optimizer.load_state_dict(saved["optimizer"])
    history += other.take(6)

    np.testing.assert_array_equal(history, whole.take(10))
    steps = np.arange(10)
    sparsity = np.where(steps < 8, 0.75 - 0.5 * (1 - (steps - 2) // 2 / 3) ** 3, 0.75) * (steps >= 2)
    assert [int(np.sum(w == 0)) for w in history] == np.round(8 * sparsity).tolist()
    assert other.handle.strength["kernels"] == 0.75


def test_slope_needs_one_step_for_all_weights() -> None:
    with pytest.raises(ValueError, match="Slope needs one step .* Adam takes one step per coordinate"):
        Line(PENALTIES["slope"], "Adam")
