"""What one of two processes trains, and what one process trains alone: the program of test_torch_distributed.py.

    python two_processes.py RANK FILE OUTPUT

`FILE` is where the processes meet, and `OUTPUT` is where the results of this one are written.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import poise
import poise.torch

COUNT = 16
SIZE = 32
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, 0.05),
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, 0.01, momentum=0.9),
    "Adadelta": lambda parameters: torch.optim.Adadelta(parameters, 2.0),
}
RULES: dict[str, Callable[[], Any]] = {
    "L1": lambda: poise.L1(0.3),
    "groups": lambda: [poise.Rule("0.weight", poise.GroupLasso(0.2, groups="inputs"))],
    "elastic net": lambda: poise.ElasticNet(0.3, 0.5),
    "L2": lambda: poise.L2(0.1),
    "anchored": lambda: poise.Anchored(poise.L2(0.5)),
    "factors": lambda: [poise.Rule("0.weight", poise.L1(0.1, factors=[1.0, 0.0, 1.0, 1.0, 1.0, 1.0]))],
    "MCP": lambda: poise.MCP(0.3),
}
REPLICATED = [
    *[(optimizer, rules, given) for optimizer in ("Adam", "SGD") for rules in ("L1", "groups") for given in (1, 0)],
    *[("SGD", "anchored", 1), ("Adam", "L2", 1)],
]
"""The optimizer, the rules, and whether `penalize` gets the wrapper."""
SHARDED = [
    *[("Adam", "L1", "auto"), ("SGD", "L1", "auto"), ("Adadelta", "L1", "auto"), ("Adam", "elastic net", "auto")],
    *[("Adam", "MCP", "auto"), ("SGD", "L1", "decoupled"), ("Adam", "L2", "auto"), ("SGD", "L2", "decoupled")],
    *[("SGD", "groups", "coupled"), ("SGD", "anchored", "auto"), ("RMSprop", "L1", "auto")],
]
"""The optimizer, the rules and the update."""
RESUMED = [
    *[("Adam", "L1", "sharded"), ("Adam", "L1", "full"), ("Adam", "L1", "flat"), ("SGD", "L1", "sharded")],
    *[("SGD", "anchored", "full"), ("Adadelta", "L1", "sharded"), ("RMSprop", "L1", "full")],
]
"""The optimizer, the rules, and how the state is saved."""


def network() -> torch.nn.Sequential:
    """Return a network whose parameters have sizes that two processes cannot halve."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of all processes; each takes its part."""
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(SIZE, 6, generator=generator)
    y = 2.0 * x[:, :1] - x[:, 1:2]
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return x[rank::size], y[rank::size]


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int = 0, last: int = COUNT) -> None:
    for count in range(first, last):
        x, y = batch(count)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def outcome(handle: poise.torch.PenaltyHandle, model: torch.nn.Module) -> dict[str, Any]:
    """Return the weights, and what the handle measures after one more backward pass."""
    x, y = batch(COUNT)
    handle.optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(x), y).backward()
    parameters: list[Any] = [parameter.detach() for parameter in model.parameters()]
    return {
        "weights": [
            parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter for parameter in parameters
        ],
        "penalty": handle.penalty(),
        "zeros": handle.zeros(),
        "forces": handle.forces().select_dtypes("number").to_numpy().tolist(),
        "steps": handle.strength.steps,
    }


def alone(name: str, rules: str, update: str = "auto") -> dict[str, Any]:
    """Return the outcome of one process on the whole batches."""
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    handle = poise.torch.penalize(optimizer, model, RULES[rules](), update)
    train(model, optimizer)
    return outcome(handle, model)


def replicated(name: str, rules: str, is_wrapper_given: int) -> dict[str, Any]:
    """Return the outcome of this process with `DistributedDataParallel`."""
    model = network()
    wrapper = DistributedDataParallel(model)
    optimizer = OPTIMIZERS[name](wrapper.parameters())
    handle = poise.torch.penalize(optimizer, wrapper if is_wrapper_given else model, RULES[rules]())
    train(wrapper, optimizer)
    return outcome(handle, wrapper)


def shard() -> torch.nn.Sequential:
    model = network()
    for layer in (model[0], model[2]):
        fully_shard(layer)
    fully_shard(model)
    return model


def sharded(name: str, rules: str, update: str) -> dict[str, Any]:
    """Return the outcome of this process with `fully_shard`."""
    model = shard()
    optimizer = OPTIMIZERS[name](model.parameters())
    handle = poise.torch.penalize(optimizer, model, RULES[rules](), update)
    train(model, optimizer)
    return outcome(handle, model)


def refused(rules: str) -> str:
    """Return the message for a penalty that cannot act on shards."""
    model = shard()
    try:
        poise.torch.penalize(OPTIMIZERS["Adam"](model.parameters()), model, RULES[rules]())
    except ValueError as error:
        return str(error)
    return ""


def resumed(name: str, rules: str, form: str) -> dict[str, Any]:
    """Return the outcome of this process, stopped halfway, saved and loaded into another optimizer."""
    options = states.StateDictOptions(full_state_dict=form == "full", flatten_optimizer_state_dict=form == "flat")
    model = shard()
    optimizer = OPTIMIZERS[name](model.parameters())
    handle = poise.torch.penalize(optimizer, model, RULES[rules]())
    train(model, optimizer, last=COUNT // 2)
    saved = states.get_state_dict(model, optimizer, options=options)

    model = shard()
    optimizer = OPTIMIZERS[name](model.parameters())
    handle = poise.torch.penalize(optimizer, model, RULES[rules]())
    handle.strength["kernels"] = 7.0
    states.set_state_dict(model, optimizer, model_state_dict=saved[0], optim_state_dict=saved[1], options=options)
    train(model, optimizer, first=COUNT // 2)
    return outcome(handle, model) | {"strength": handle.strength["kernels"]}


SCENARIOS: dict[str, Callable[[], Any]] = {
    **{f"replicated {case}": lambda case=case: replicated(*case) for case in REPLICATED},
    **{f"refused {rules}": lambda rules=rules: refused(rules) for rules in ("groups", "factors")},
    **{f"sharded {case}": lambda case=case: sharded(*case) for case in SHARDED},
    **{f"resumed {case}": lambda case=case: resumed(*case) for case in RESUMED},
}


def main(rank: int, meeting: Path, output: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=2)
    results: dict[str, Any] = {}
    for name, run in SCENARIOS.items():
        try:
            results[name] = run()
        except Exception:
            results[name] = traceback.format_exc()
        torch.save(results, output)  # a process that fails where the other one does not may end both
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
