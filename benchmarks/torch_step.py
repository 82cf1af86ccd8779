"""The cost of a training step of PyTorch with a penalty, and how far the weights end from the penalized optimum.

    python benchmarks/torch_step.py              # both tables, a few minutes
    python benchmarks/torch_step.py --distance   # only the second table

The first table: the time of a step (forward, backward, optimizer) with a penalty, divided by the time of the same step
with `AdamW(fused=True)` and no penalty. The second table: 5,000 steps of Adam on the diabetes data with a cosine
schedule. It shows the largest distance of a coefficient from scikit-learn's lasso, and whether the same ones are zero.
torchao is the proximal optimizer of its prototype (`pip install torchao`). It is left out if it is not installed.
"""

import argparse
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso

import poise
import poise.torch

NETWORKS = (
    ("64-128-128-10 (0.03 million)", (64, 128, 128, 10), 64, 200),
    ("1024-4096-4096-1024 (25 million)", (1024, 4096, 4096, 1024), 128, 3),
    ("1024-4096-4096-1024 (25 million)", (1024, 4096, 4096, 1024), 1024, 1),
)
"""Title, sizes, batch size, and the number of steps per round."""
HAS_TORCHAO = importlib.util.find_spec("torchao") is not None
PENALTIES: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "L1": (lambda: poise.L1(1e-6), {"prox_type": "ProxLasso", "group_type": "ElemGrouper"}),
    "group lasso": (
        lambda: poise.GroupLasso(1e-6, groups="outputs"),
        {"prox_type": "ProxGroupLasso", "group_type": "Dim0Grouper"},
    ),
}


def network(sizes: tuple[int, ...]) -> torch.nn.Module:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def plain(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)


def with_poise(model: torch.nn.Module, name: str, compiles: bool) -> torch.optim.Optimizer:
    optimizer = plain(model)
    poise.torch.penalize(optimizer, model, PENALTIES[name][0](), compile=compiles)
    return optimizer


def with_torchao(model: torch.nn.Module, name: str) -> Any:
    from torchao.prototype.pat.optim.pruneopt import PruneOptimizer

    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": weights, "reg_lambda": 1e-6, **PENALTIES[name][1]}, {"params": others}]
    return PruneOptimizer(torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.0, fused=True))


def seconds_per_step(sizes: tuple[int, ...], rows: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """Return the times of a step, per variant and round. The variants take turns, so that they share the load."""
    makers: dict[str, Callable[[torch.nn.Module], Any]] = {"AdamW(fused=True)": plain}
    for name in PENALTIES:
        makers[f"poise, {name}"] = lambda model, name=name: with_poise(model, name, False)
        makers[f"poise, {name}, compile=True"] = lambda model, name=name: with_poise(model, name, True)
        if HAS_TORCHAO:
            makers[f"torchao, {name}"] = lambda model, name=name: with_torchao(model, name)
    x, y = torch.randn(rows, sizes[0]), torch.randn(rows, sizes[-1])
    runs = {}
    for name, make in makers.items():
        model = network(sizes)
        runs[name] = (model, make(model))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, (model, optimizer) in runs.items():
            start = time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
            if turn:  # the first one creates the state of the optimizers
                times[name].append((time.perf_counter() - start) / steps)
    return times


def print_times(rounds: int) -> None:
    for title, sizes, rows, steps in NETWORKS:
        times = seconds_per_step(sizes, rows, steps, rounds)
        print(f"\n{title}, batches of {rows}, {torch.get_num_threads()} threads")
        base = times["AdamW(fused=True)"]
        for name, own in times.items():
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            print(f"  {name:32s} {1e3 * statistics.median(own):9.2f} ms   ratio {ratio:5.2f}")


def print_distances() -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    strength = 0.1
    reference = Lasso(alpha=strength / 2, tol=1e-12, max_iter=100_000).fit(x, y).coef_
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]

    def train(make: Callable[[torch.nn.Module], Any]) -> np.ndarray:
        torch.manual_seed(0)
        model = torch.nn.Linear(10, 1)
        optimizer = make(model)
        base = getattr(optimizer, "base_optimizer", optimizer)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(base, 5000)
        for _ in range(5000):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            schedule.step()
        return model.weight.detach().numpy()[0]

    def poise_l1(model: torch.nn.Module) -> Any:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        poise.torch.penalize(optimizer, model, poise.L1(strength))
        return optimizer

    def torchao_l1(model: Any) -> Any:
        from torchao.prototype.pat.optim.pruneopt import PruneOptimizer

        weights = {"params": [model.weight], "reg_lambda": strength, **PENALTIES["L1"][1]}
        return PruneOptimizer(torch.optim.Adam([weights, {"params": [model.bias]}], lr=0.02))

    print(f"\nLasso on diabetes, strength {strength}, {np.count_nonzero(reference)} of 10 coefficients are not zero")
    makers = {"poise": poise_l1, **({"torchao": torchao_l1} if HAS_TORCHAO else {})}
    for name, make in makers.items():
        w = train(make)
        print(
            f"  {name:10s} largest distance {np.abs(w - reference).max():.1e}   not zero {np.count_nonzero(w)}   "
            f"same zeros {bool(np.all((w == 0) == (reference == 0)))}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distance", action="store_true", help="only the distances")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per table of times. Default: 9")
    arguments = parser.parse_args()
    if not arguments.distance:
        print_times(arguments.rounds)
    print_distances()


if __name__ == "__main__":
    main()
