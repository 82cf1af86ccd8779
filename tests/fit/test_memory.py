"""`PenalizedOptimizer` keeps no copy of the weights, but for the starts of `Anchored` and the trace of steps of a momentum."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras import optimizers
from oracles.autodiff import BACKEND
from oracles.models import compiled, fitted, net

import poise

KERNELS = 6 * 5 + 5 * 1
"""Entries of what a bare penalty acts on in `net()`."""

INNER: dict[str, Callable[[], Any]] = {
    "SGD": lambda: optimizers.SGD(0.01),
    "SGD-momentum": lambda: optimizers.SGD(0.01, 0.9),
    "Adam": lambda: optimizers.Adam(0.01),
    "Adam-averaged": lambda: optimizers.Adam(0.01, use_ema=True),
    "RMSprop-momentum": lambda: optimizers.RMSprop(0.01, momentum=0.9),
    "Lamb": lambda: optimizers.Lamb(0.01),
    "Adafactor": lambda: optimizers.Adafactor(0.01),
}
TRACES = {"SGD-momentum": 2, "RMSprop-momentum": KERNELS}
"""Under a prox: one number a kernel where one rate is the step, one an entry where each entry has its own."""


def entries(optimizer: Any) -> int:
    return sum(int(np.prod(variable.shape)) for variable in optimizer.variables)


def records(rules: int, observed: int = 0) -> int:
    """The strengths, the values of the penalties (sums and last, each with a count), the forces of each kernel."""
    return rules + 2 * (rules + 1) + (4 * (observed + 1) if observed else 0)


@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
@pytest.mark.parametrize("name", INNER)
def test_the_variables_are_those_of_the_inner_optimizer_and_a_few_numbers(update: str, name: str) -> None:
    stock = INNER[name]()
    stock.build(net().trainable_variables)
    ours = poise.PenalizedOptimizer(
        INNER[name](), [poise.GroupLasso(0.1), poise.L2(0.1)], update=update, observe_every=1
    )
    ours.build(net().trainable_variables)

    traces = TRACES.get(name, 0) if update == "proximal" else 0
    assert entries(ours) - entries(stock) == records(rules=2, observed=2) + traces


def test_anchored_keeps_the_weights_at_which_training_began() -> None:
    plain, anchored = (
        poise.PenalizedOptimizer("adam", poise.L2(0.1)),
        poise.PenalizedOptimizer("adam", poise.Anchored(poise.L2(0.1))),
    )
    for optimizer in (plain, anchored):
        optimizer.build(net().trainable_variables)

    assert entries(anchored) - entries(plain) == KERNELS


@pytest.mark.backends("jax", "torch")
@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
def test_training_leaves_no_array_behind(update: str) -> None:
    """What lives after `fit` lived before it, or belongs to the model: its variables, on PyTorch their gradients."""
    model = compiled(poise.PenalizedOptimizer("adam", [poise.GroupLasso(0.1), poise.L2(0.1)], update=update), net(397))
    fitted(model, epochs=1)

    of_its_size = [size for size in _live_sizes() if size == 397 * 5]

    kept = {"weights": 1, "moments": 2, "gradient": BACKEND == "torch"}
    assert len(of_its_size) == sum(kept.values())


def _live_sizes() -> list[int]:
    gc.collect()
    if BACKEND == "jax":
        import jax

        return [array.size for array in jax.live_arrays()]
    import torch

    # torch.compile, where a test before used it, keeps tensors that hold nothing.
    tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    gradients = [each.grad for each in tensors if each.is_leaf and each.grad is not None]
    storages = {each.untyped_storage().data_ptr(): each.numel() for each in [*tensors, *gradients]}
    return list(storages.values())
