"""Smaller PyTorch networks on digits: a group penalty and `poise.torch.compact`, beside Torch-Pruning.

    python benchmarks/torch_prune.py              # 3 seeds, a few minutes

A convolutional network with BatchNorm is trained for 30 epochs. Then it loses about half of its filters and units,
with 40 more epochs. `poise` trains for 30 epochs with a group lasso whose strength adapts to the target, compacts
the network, and trains the smaller one for 10 epochs without a penalty. `Torch-Pruning` removes half or 70% of
every layer at once, by the L1 or the L2 norm, and trains for 40 epochs. The script prints the mean accuracy on 360
held-out rows with its standard error, and the means of parameters and products. Torch-Pruning is not a dependency:
`pip install torch-pruning`.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch_pruning
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import poise
import poise.torch
from poise.optimizer.target_sparsity import next_strength

SHARE = 0.5
UNITS = {"0": 32, "3": 64, "8": 64}
"""The layers that lose units, with the numbers of their units."""


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


class Data:
    def __init__(self, seed: int) -> None:
        x, y = load_digits(return_X_y=True)
        parts = train_test_split(x, y, test_size=360, random_state=seed, stratify=y)
        train_x, test_x = (torch.tensor(part / 16, dtype=torch.float32).view(-1, 1, 8, 8) for part in parts[:2])
        self.train, self.test = (train_x, torch.tensor(parts[2])), (test_x, torch.tensor(parts[3]))

    def fit(self, model: nn.Module, optimizer: Any, epochs: int, after: Callable[[], None] = lambda: None) -> None:
        x, y = self.train
        model.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            after()

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        x, y = self.test
        model.eval()
        return float((model(x).argmax(1) == y).double().mean())


def adam(model: nn.Module, rate: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), rate)


def units_of(model: nn.Module, layer: str, count: int) -> poise.JointGroupLasso:
    """Return a penalty of the units of a layer: their weights, and the scale and the shift (or bias) that follow."""
    names = [f"{layer}.weight", *([f"{layer}.bias"] if layer == "8" else [])]
    names += [] if layer == "8" else [f"{int(layer) + 1}.weight", f"{int(layer) + 1}.bias"]
    parameters = dict(model.named_parameters())
    return poise.JointGroupLasso(1e-4, {name: (parameters[name].shape, 0, range(count)) for name in names})


def by_poise(model: nn.Module, data: Data) -> nn.Module:
    optimizer = adam(model)
    rules = []
    for layer, count in UNITS.items():
        penalty = units_of(model, layer, count)
        rules.append(poise.Rule(list(penalty.members or ()), penalty, name=layer))
    handle = poise.torch.penalize(optimizer, model, rules)

    def adapt() -> None:
        for layer, share in handle.zeros().items():
            handle.strength[layer] = next_strength(handle.strength[layer], share, SHARE, 1.5)

    data.fit(model, optimizer, 30, adapt)
    small = poise.torch.compact(model, data.train[0][:2])
    data.fit(small, adam(small), 10)
    return small


def by_magnitude(model: nn.Module, data: Data, p: int, share: float) -> nn.Module:
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        data.train[0][:2],
        importance=torch_pruning.importance.MagnitudeImportance(p=p),
        pruning_ratio=share,
        ignored_layers=[model[-1]],  # pyright: ignore[reportIndexIssue]
    )
    pruner.step()
    data.fit(model, adam(model), 40)
    return model


METHODS: dict[str, Callable[[nn.Module, Data], nn.Module]] = {
    "not pruned": lambda model, data: model,
    "poise": by_poise,
    "Torch-Pruning, L1, 50%": lambda model, data: by_magnitude(model, data, 1, 0.5),
    "Torch-Pruning, L2, 50%": lambda model, data: by_magnitude(model, data, 2, 0.5),
    "Torch-Pruning, L1, 70%": lambda model, data: by_magnitude(model, data, 1, 0.7),
    "Torch-Pruning, L2, 70%": lambda model, data: by_magnitude(model, data, 2, 0.7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds. Default: 3")
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in METHODS}
    for seed in range(parser.parse_args().seeds):
        data = Data(seed)
        torch.manual_seed(seed)
        trained = network()
        data.fit(trained, adam(trained), 30)
        for name, method in METHODS.items():
            torch.manual_seed(seed)
            model = network()
            model.load_state_dict(trained.state_dict())
            small = method(model, data)
            accuracy = data.accuracy(small)
            products, parameters = torch_pruning.utils.count_ops_and_params(small, data.test[0][:1])
            results[name].append((accuracy, parameters, products))
    for name, rows in results.items():
        accuracy, parameters, products = np.transpose(rows)
        error = accuracy.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
        print(
            f"{name:24s} accuracy {accuracy.mean():.4f} ± {error:.4f}   parameters {parameters.mean():9,.0f}   "
            f"million products {products.mean() / 1e6:.2f}"
        )


if __name__ == "__main__":
    main()
