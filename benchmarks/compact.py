"""Compare compaction with other ways to get a network of about as many operations.

    python benchmarks/compact.py                        # mnist1d and digits
    python benchmarks/compact.py mnist1d --seeds 5      # only one of them (mnist1d: pip install mnist1d)
    python benchmarks/compact.py --validation           # score on validation rows instead of test rows

- "poise" trains with `poise.unit_sparsity` and the proximal update, removes the dead units with `poise.compact`, and
  continues without the penalty.
- "even" is the same with the factor 1 for every filter instead of √(entries of the filter).
- "magnitude" trains without a penalty, sets the same share of the filters of every layer to zero (those with the
  smallest L1 norm; Li et al. 2017), and continues in the same way.
- "narrow" has the widths of "magnitude" from the start.

Every layer keeps a multiple of 8 filters (`--multiple 1` turns this off), because convolutions of other widths can be
twice as slow on a CPU. All ways train for the same total number of epochs, on the same rows and from the same seed.
"accuracy" is the mean over the seeds on test rows; "lost" is in percentage points against the full network.

The full and the small network take turns with `predict` on batches of 256. "faster" is the median ratio of their
times, "of it" is this ratio divided by the ratio of the FLOPs, and "CPU" is the ratio of the processor times.
"""

import argparse
import os
import platform
import time

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import pandas as pd

import poise

RATE = 0.01
WAYS = {"poise": None, "even": 1.0}

# the kind of convolution, its kernel, filters in each block, the blocks behind which is pooled; epochs with the
# penalty and afterwards; the strength of each way
TABLES = {
    "mnist1d": (1, 5, (64, 128, 128), (0, 1), (18, 6), (0.0002, 0.003)),
    "digits": (2, 3, (64, 64, 128, 128), (1,), (9, 3), (0.0003, 0.006)),
}


def main():
    parser = argparse.ArgumentParser(description="Accuracy and speed of compacted networks, against magnitude pruning.")
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; default: both")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--validation", action="store_true", help="score on validation rows instead of test rows")
    parser.add_argument("--multiple", type=int, default=8, help="keep a multiple of this many filters per layer")
    given = parser.parse_args()
    print(f"{platform.machine()} with {os.cpu_count()} cores, Keras {keras.__version__} on {keras.backend.backend()}")
    for name in given.tables or TABLES:
        found = pd.concat([compared(name, seed, given.validation, given.multiple) for seed in range(given.seeds)])
        report(name, found, given.seeds)


def report(name, found, seeds):
    _, _, filters, _, (epochs, afterwards), _ = TABLES[name]
    full = found[found["way"] == "full"].set_index("seed")
    print(f"{name}: filters {'-'.join(map(str, filters))}, {epochs} + {afterwards} epochs, {seeds} seeds")
    print(f"  {'':<19} {'strength':>8} {'accuracy':>8} {'lost':>6} {'parameters':>10} {'FLOPs':>11} {'ratio':>6}"
          f" {'predict ms':>10} {'faster':>6} {'of it':>5} {'CPU':>5}   filters of seed 0")  # fmt: skip
    for (strength, way), rows in found.groupby(["strength", "way"], sort=False):
        lost = 100 * (full["accuracy"] - rows.set_index("seed")["accuracy"]).mean()
        mean = rows.mean(numeric_only=True)
        print(f"  {way:<19} {strength:>8g} {mean['accuracy']:>8.4f} {lost:>6.2f} {mean['parameters']:>10,.0f}"
              f" {mean['flops']:>11,.0f} {mean['ratio']:>6.2f} {mean['milliseconds']:>10.2f} {mean['faster']:>6.2f}"
              f" {mean['share']:>5.2f} {mean['lighter']:>5.2f}   {rows['filters'].iloc[0]}")  # fmt: skip
    by_way = found.pivot(index="seed", columns="way", values="accuracy")
    for way in WAYS:
        for other in ("magnitude", "narrow"):
            gained = 100 * (by_way[way] - by_way[f"{other} like {way}"])
            error = gained.std() / np.sqrt(seeds)
            print(f"  {way} has {gained.mean():+.2f} ± {error:.2f} points against {other}", flush=True)


def compared(name, seed, validation, multiple):
    """Return one row per network of a seed."""
    *training, x, y = rows_of(name, seed, validation)
    _, _, filters, _, (epochs, afterwards), strengths = TABLES[name]
    keras.utils.set_random_seed(seed)
    start = network(name, filters)
    full, dense = copied(start), copied(start)
    train(full, training, epochs + afterwards)
    train(dense, training, epochs)
    rows = [judged(full, full, x, y, seed=seed, strength=0.0, way="full")]
    for (own, weights), strength in zip(WAYS.items(), strengths, strict=True):
        sparse = copied(start)
        train(sparse, training, epochs, poise.unit_sparsity(sparse, strength, weights))
        ours = poise.compact(sparse, multiple=multiple)
        theirs = poise.compact(pruned(dense, filters_like(name, ours, multiple)))
        narrow = network(name, filters_of(theirs))
        for model in (ours, theirs):
            train(model, training, afterwards)
        train(narrow, training, epochs + afterwards)
        for way, model in ((own, ours), (f"magnitude like {own}", theirs), (f"narrow like {own}", narrow)):
            rows.append(judged(full, model, x, y, seed=seed, strength=strength, way=way))
    return pd.DataFrame(rows)


def rows_of(name, seed, validation):
    """Return training x and y, then scoring x and y."""
    from sklearn.model_selection import train_test_split

    if name == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x, size = (x / 16).reshape(-1, 8, 8, 1), 1437
    else:
        from mnist1d.data import get_dataset_args, make_dataset

        settings = get_dataset_args()
        settings.num_samples, settings.train_split = 10_000, 1.0  # 4,000 train, as is usual, and more than 1,000 test
        made = make_dataset(settings)
        x, y, size = made["x"][..., None], made["y"], 4000
    x, xt, y, yt = train_test_split(x.astype("float32"), y, train_size=size, random_state=0, stratify=y)
    if validation:
        x, xt, y, yt = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    return x, y, xt, yt


def network(name, filters):
    """Build blocks of a convolution, batch normalization and ReLU."""
    dimension, kernel, _, pooled, *_ = TABLES[name]
    layers = keras.layers
    convolution, pooling, average = (
        (layers.Conv1D, layers.MaxPooling1D, layers.GlobalAveragePooling1D),
        (layers.Conv2D, layers.MaxPooling2D, layers.GlobalAveragePooling2D),
    )[dimension - 1]
    stack = [keras.Input({1: (40, 1), 2: (8, 8, 1)}[dimension])]
    for number, count in enumerate(filters):
        stack.append(convolution(count, kernel, padding="same", use_bias=False))
        # Tables of a few thousand rows have too few steps for moving statistics that remember a hundred of them.
        stack += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
        stack += [pooling(2)] if number in pooled else []
    return keras.Sequential([*stack, average(), layers.Dense(10)])


def copied(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def train(model, rows, epochs, rule=None):
    """Compile with a cosine-decayed learning rate and the rule in the proximal update."""
    batch = 64 if len(rows[0]) > 2000 else 32
    steps = epochs * -(-len(rows[0]) // batch)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps))
    if rule is not None:
        optimizer = poise.PenalizedOptimizer(optimizer, rule, update="proximal")
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*rows, epochs=epochs, batch_size=batch, verbose=0)


def filters_like(name, ours, multiple):
    """Return the share of filters per layer that gives about as many FLOPs as ours."""
    allowed = flops(name, filters_of(ours))
    shares = np.linspace(0, 1, 201)[:, None] * TABLES[name][2]
    counts = np.maximum(1, np.round(shares / multiple)).astype(int) * multiple
    return min(counts.tolist(), key=lambda filters: abs(np.log(flops(name, filters) / allowed)))


def pruned(model, filters):
    """Return a copy in which the filters of small L1 norm are zero, with the scale and shift of their normalization."""
    model = copied(model)
    convolutions = [position for position, layer in enumerate(model.layers) if hasattr(layer, "filters")]
    for position, count in zip(convolutions, filters, strict=True):
        layer, behind = model.layers[position : position + 2]
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        sizes = np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1)))
        is_kept = np.isin(np.arange(len(sizes)), np.argsort(-sizes)[:count])
        for variable in (layer.kernel, behind.gamma, behind.beta):
            variable.assign(keras.ops.convert_to_numpy(variable) * is_kept)
    return model


def filters_of(model):
    return [layer.filters for layer in model.layers if hasattr(layer, "filters")]


def flops(name, filters):
    """Count FLOPs like poise.compare_models, without building the network."""
    dimension, kernel, _, pooled, *_ = TABLES[name]
    places, before, products = {1: 40, 2: 64}[dimension], 1, 0
    for number, count in enumerate(filters):
        products += places * kernel**dimension * before * count
        places //= 2**dimension if number in pooled else 1
        before = count
    return 2 * (products + 10 * before)


def judged(full, model, x, y, **about):
    said = model.predict(x, batch_size=256, verbose=0)
    saved = poise.compare_models(full, model)
    ratio = saved.loc["FLOPs per sample", "ratio"]
    milliseconds, faster, lighter = timed(full, model, x) if model is not full else (np.nan, 1.0, 1.0)
    return {
        **about,
        "accuracy": np.mean(said.argmax(axis=1) == y),
        "parameters": saved.loc["parameters", "after"],
        "flops": saved.loc["FLOPs per sample", "after"],
        "ratio": ratio,
        "milliseconds": milliseconds,
        "faster": faster,
        "share": faster / ratio,
        "lighter": lighter,
        "filters": "-".join(map(str, filters_of(model))),
    }


def timed(full, model, x, rounds=21, batches=8):
    """Return milliseconds for a batch of 256, and the ratios of time and CPU time of the full network to this one."""
    x = np.resize(x, (256 * batches, *x.shape[1:]))
    times = np.zeros((rounds, 2, 2))
    for number in range(-1, rounds):  # the first round compiles, and is overwritten
        for column, one in enumerate((full, model)):
            start = time.perf_counter(), time.process_time()
            one.predict(x, batch_size=256, verbose=0)
            times[number, column] = time.perf_counter() - start[0], time.process_time() - start[1]
    faster, lighter = np.median(times[:, 0] / times[:, 1], axis=0)
    return 1000 * np.median(times[:, 1, 0]) / batches, faster, lighter


if __name__ == "__main__":
    main()
