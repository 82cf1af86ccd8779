"""Compare `poise.shrink` with pruning at once, by magnitude and by the L1 norm, and with Torch-Pruning.

    python benchmarks/shrink.py                        # all networks, 3 seeds; pip install torch-pruning mnist1d
    python benchmarks/shrink.py digits-cnn --seeds 1
    python benchmarks/shrink.py --no-torch             # without Torch-Pruning

A network is trained for 30 epochs. Every method then gets the same budget of FLOPs, and the same number of further
epochs:

- "poise" is `poise.shrink` with its defaults, except for the batch size and `multiple=1`.
- "L1" and "magnitude" remove the same share of units of every layer at once, those whose weights have the smallest L1
  norm (Li et al. 2017) or L2 norm, and fine-tune with a cosine schedule.
- "Torch-Pruning" does the same for a PyTorch network of the same architecture, with its L1 importance per group.
- "longer" is the original network after as many further epochs, without pruning: what the budget costs.

Accuracies are those of test rows that no method sees. "lost" is in percentage points against the original network
before the further epochs, with the standard error over the seeds; "flops" is how many times fewer they are.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import pandas as pd
from keras import layers
from sklearn.model_selection import train_test_split

import poise
from poise.shrinking.costs import FLOPS, Costs
from poise.shrinking.unit_sets import RemovableUnits

EPOCHS, BATCH_SIZE, RATE = 30, 64, 1e-3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits(seed: int) -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    return _split(x, y, 1437, seed)


def mnist1d(seed: int) -> tuple[np.ndarray, ...]:
    from mnist1d.data import get_dataset_args, make_dataset

    settings = get_dataset_args()
    settings.num_samples, settings.train_split = 8000, 1.0
    made = make_dataset(settings)
    return _split(made["x"][..., None].astype("float32"), made["y"], 4000, seed)


def _split(x: np.ndarray, y: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, ...]:
    x, x_test, y, y_test = train_test_split(x, y, train_size=size, random_state=seed, stratify=y)
    keras.utils.set_random_seed(seed)
    return x, y, x_test, y_test


def cnn() -> keras.Model:
    """A plain network with ReLU and without normalization, which a uniform penalty destroys."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            *(layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10)),
        ]
    )


def cnn1d() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((40, 1)),
            *(layers.Conv1D(32, 5, padding="same", activation="relu"), layers.MaxPooling1D()),
            *(layers.Conv1D(64, 5, padding="same", activation="relu"), layers.MaxPooling1D()),
            layers.Conv1D(64, 5, padding="same", activation="relu"),
            *(layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10)),
        ]
    )


def resnet() -> keras.Model:
    """Two stages of two residual blocks, with 32 and 64 filters."""

    def convolve(x: Any, filters: int, is_last: bool = False) -> Any:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        return x if is_last else layers.ReLU()(x)

    inputs = keras.Input((8, 8, 1))
    x = convolve(inputs, 32)
    for filters in (32, 64):
        if filters != 32:
            x = layers.MaxPooling2D()(convolve(x, filters))
        for _ in range(2):
            x = layers.ReLU()(layers.Add()([x, convolve(convolve(x, filters), filters, is_last=True)]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def transformer() -> keras.Model:
    """Two blocks of attention over the eight rows of a digit."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Dense(64)(layers.Reshape((8, 8))(inputs))
    for _ in range(2):
        normal = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 16)(normal, normal)])
        x = layers.Add()([x, layers.Dense(64)(layers.Dense(128, activation="gelu")(layers.LayerNormalization()(x)))])
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(layers.LayerNormalization()(x))))


NETWORKS: dict[str, tuple[Callable, Callable[[], keras.Model], float]] = {
    "digits-cnn": (digits, cnn, 1 / 4),
    "digits-resnet": (digits, resnet, 1 / 8),
    "digits-transformer": (digits, transformer, 1 / 4),
    "mnist1d-cnn": (mnist1d, cnn1d, 1 / 4),
    "mnist1d-cnn-small": (mnist1d, cnn1d, 1 / 16),
}
"""By name the data, the network, and the share of FLOPs that is left."""


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    steps = epochs * -(-len(x) // BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, batch_size=BATCH_SIZE, verbose=0)


def copy(model: keras.Model) -> keras.Model:
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    return float((model.predict(x, batch_size=512, verbose=0).argmax(axis=1) == y).mean())


def flops(model: keras.Model) -> float:
    return float(poise.compare_models(model, model)["before"].loc["FLOPs per sample"])


def prune_at_once(model: keras.Model, share: float, power: int) -> keras.Model:
    """Remove the same share of units of every layer, so that at most this share of the FLOPs is left."""
    units = RemovableUnits(copy(model))
    makers = {
        id(variable): np.abs(keras.ops.convert_to_numpy(variable)) ** power
        for variable, part in units.parts
        if part.makes is not None and len(variable.shape) > 1
    }
    sizes = units.sum_entries(makers)
    costs = Costs(units, FLOPS)
    whole = costs.total(np.ones(len(sizes), bool))
    for removed in np.linspace(0.02, 0.98, 97):
        chosen = np.zeros(len(sizes), bool)
        for sets in [*units.widths, *units.heads]:
            free = np.unique(sets[units.is_removable[sets]])
            chosen[free[np.argsort(sizes[free])[: min(int(removed * len(free)), len(free) - 1)]]] = True
        if costs.total(~chosen) <= share * whole:
            smaller = units.remove(chosen)
            if flops(smaller) <= share * flops(model):
                return smaller
    raise ValueError(f"{share:g} of the FLOPs cannot be reached.")


def compare(name: str, seed: int, with_torch: bool) -> Iterator[dict[str, Any]]:
    """Yield one row per method."""
    data, build, share = NETWORKS[name]
    x, y, x_test, y_test = data(seed)
    model = build()
    train(model, x, y, EPOCHS)
    original = accuracy(model, x_test, y_test)
    yield {"method": "original", "accuracy": original, "lost": 0.0, "flops": 1.0, "parameters": model.count_params()}

    def describe(method: str, smaller: keras.Model, seconds: float) -> dict[str, Any]:
        score = accuracy(smaller, x_test, y_test)
        return {
            "method": method, "accuracy": score, "lost": 100 * (original - score),
            "flops": flops(model) / flops(smaller), "parameters": smaller.count_params(), "seconds": seconds,
        }  # fmt: skip

    start = time.perf_counter()
    scored = (x[:256], y[:256])  # for the tables of the result; a budget of FLOPs chooses nothing by these scores
    result = poise.shrink(
        model, x, y, flops=share, validation_data=scored, batch_size=BATCH_SIZE, learning_rate=RATE, multiple=1,
        seed=seed,
    )  # fmt: skip
    yield describe("poise", result.model, time.perf_counter() - start)
    epochs = int(result.stages["epochs"].iloc[-1])
    for method, power in (("L1", 1), ("magnitude", 2)):
        start = time.perf_counter()
        smaller = prune_at_once(model, share, power)
        train(smaller, x, y, epochs)
        yield describe(method, smaller, time.perf_counter() - start)
    longer = copy(model)
    train(longer, x, y, epochs)
    yield describe("longer", longer, float("nan"))
    if with_torch and name in ("digits-cnn", "mnist1d-cnn", "mnist1d-cnn-small"):
        yield torch_pruning(name, share, (x, y, x_test, y_test), epochs, seed)


def torch_pruning(name: str, share: float, data: tuple[np.ndarray, ...], epochs: int, seed: int) -> dict[str, Any]:
    """Return the row of Torch-Pruning for the same architecture in PyTorch, trained in the same way."""
    import torch
    import torch_pruning as tp
    from torch import nn

    torch.manual_seed(seed)
    x, y, x_test, y_test = (torch.tensor(array) for array in data)
    if name.startswith("mnist1d"):
        x, x_test = x.transpose(1, 2), x_test.transpose(1, 2)
        convolution, pool, shape, kernel, pooled, left = nn.Conv1d, nn.MaxPool1d, (1, 40), 5, (0, 1), 10
    else:
        x, x_test = x.permute(0, 3, 1, 2), x_test.permute(0, 3, 1, 2)
        convolution, pool, shape, kernel, pooled, left = nn.Conv2d, nn.MaxPool2d, (1, 8, 8), 3, (1,), 16
    blocks: list[nn.Module] = []
    for number, (read, made) in enumerate([(1, 32), (32, 64), (64, 64)]):
        blocks += [convolution(read, made, kernel, padding=kernel // 2), nn.ReLU()]
        blocks += [pool(2)] if number in pooled else []
    head = nn.Linear(64, 10)
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * left, 64), nn.ReLU(), head)

    def fit(epochs: int) -> None:
        optimizer = torch.optim.Adam(model.parameters(), RATE)
        batches = -(-len(x) // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(BATCH_SIZE):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
                schedule.step()

    def score() -> float:
        with torch.no_grad():
            return float((model(x_test).argmax(1) == y_test).double().mean())

    fit(EPOCHS)
    original, example = score(), torch.zeros(1, *shape)
    before, _ = tp.utils.count_ops_and_params(model, example)
    start = time.perf_counter()
    pruner = tp.pruner.MagnitudePruner(
        model, example, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.98, ignored_layers=[head],
        iterative_steps=97,
    )  # fmt: skip
    after = before
    while after > share * before:
        pruner.step()
        after, parameters = tp.utils.count_ops_and_params(model, example)
    fit(epochs)
    return {
        "method": "Torch-Pruning", "accuracy": score(), "lost": 100 * (original - score()), "flops": before / after,
        "parameters": parameters, "seconds": time.perf_counter() - start,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of smaller networks.")
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-torch", action="store_true", help="leave Torch-Pruning out")
    given = parser.parse_args()
    print(f"{platform.machine()} with {os.cpu_count()} cores, Keras {keras.__version__} on {keras.backend.backend()}")
    for name in given.networks or NETWORKS:
        rows = [row for seed in range(given.seeds) for row in compare(name, seed, not given.no_torch)]
        table = pd.DataFrame(rows).groupby("method", sort=False)
        means = table.mean()
        means.insert(2, "error", table["lost"].sem())
        print(f"\n{name}: {NETWORKS[name][2]:g} of the FLOPs, {given.seeds} seeds")
        print(means.round({"accuracy": 4, "lost": 2, "error": 2, "flops": 2, "seconds": 0}).to_string(), flush=True)


if __name__ == "__main__":
    main()
