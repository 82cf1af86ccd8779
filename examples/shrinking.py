"""Train a small convolutional network that loses whole filters, then make it smaller and faster.

    python examples/shrinking.py            # scikit-learn's digits, images of 8 x 8
    python examples/shrinking.py mnist1d    # digits drawn as curves (pip install mnist1d)

The same network trains once per strength with `poise.unit_sparsity` and the proximal update, so that filters and their
batch normalization become exactly zero. `poise.compact` then removes them. The script prints the accuracy on the
validation rows before and after, and the size of the smaller network relative to the network of strength 0:
parameters, operations, time of `predict` for a batch of 256, and file size. You could continue to train the smaller
network; this example does not.
"""

import argparse
import os
import time

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import poise


def main():
    parser = argparse.ArgumentParser(description="Train under a penalty of whole filters, and remove those at zero.")
    parser.add_argument("data", nargs="?", choices=("digits", "mnist1d"), default="digits")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--strengths", type=int, default=6, help="how many: 0, and doubling from 0.0002")
    given = parser.parse_args()
    name = given.data
    (x, y), validation, test = digits() if name == "digits" else mnist1d()
    print(f"{name}: {len(x)} rows train for {given.epochs} epochs, {len(validation[0])} choose, {len(test[0])} test")
    print("strength   accuracy  compacted   parameters        FLOPs           predict         file            filters")
    full, chosen = None, None
    for strength in [0.0, *(0.0002 * 2.0 ** np.arange(given.strengths - 1))]:
        model = trained(x, y, strength, given.epochs)
        smaller = poise.compact(model)
        full = full or smaller
        accuracy = accuracy_of(model, *validation)
        print_row(strength, accuracy, accuracy_of(smaller, *validation), full, smaller, x)
        if accuracy >= accuracy_of(full, *validation) - 0.01:
            chosen = strength, smaller
    strength, smaller = chosen
    before, after = accuracy_of(full, *test), accuracy_of(smaller, *test)
    ratio = poise.compare_models(full, smaller).loc["FLOPs per sample", "ratio"]
    print(
        f"The largest strength that costs at most a point on the validation rows is {strength:g}: the network takes "
        f"{ratio:.1f} times fewer operations, and is right on {after:.1%} of the test rows, the full one on "
        f"{before:.1%}."
    )


def digits():
    """Return images of 8 x 8 as (x, y) for training, validation and test."""
    x, y = load_digits(return_X_y=True)
    return split((x / 16).reshape(-1, 8, 8, 1), y)


def mnist1d():
    """Return curves of 40 points."""
    from mnist1d.data import get_dataset_args, make_dataset

    settings = get_dataset_args()
    settings.train_split = 1.0
    made = make_dataset(settings)
    return split(made["x"][..., None], made["y"])


def split(x, y):
    x, xt, y, yt = train_test_split(x.astype("float32"), y, test_size=0.2, random_state=0, stratify=y)
    x, xv, y, yv = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    return (x, y), (xv, yv), (xt, yt)


def network(shape):
    """Build four blocks of a convolution, batch normalization and ReLU."""
    flat = len(shape) == 2
    convolution, pooling, average = (
        (layers.Conv1D, layers.MaxPooling1D, layers.GlobalAveragePooling1D)
        if flat
        else (layers.Conv2D, layers.MaxPooling2D, layers.GlobalAveragePooling2D)
    )
    stack = [keras.Input(shape)]
    for number, filters in enumerate((32, 32, 64, 64)):
        stack.append(convolution(filters, 5 if flat else 3, padding="same", use_bias=False))
        # There are too few steps for moving statistics that remember a hundred of them.
        stack += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
        stack += [pooling(2)] if number == 1 else []
    return keras.Sequential([*stack, average(), layers.Dense(10)])


def trained(x, y, strength, epochs):
    keras.utils.set_random_seed(0)
    model = network(x.shape[1:])
    steps = epochs * -(-len(x) // 32)
    inner = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, steps))
    optimizer = poise.PenalizedOptimizer(inner, poise.unit_sparsity(model, strength), update="proximal")
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


def accuracy_of(model, x, y):
    return np.mean(model.predict(x, verbose=0).argmax(axis=1) == y)


def print_row(strength, before, after, full, smaller, x):
    saved = poise.compare_models(full, smaller)
    columns = [f"{strength:>8g}   {before:>8.4f}  {after:>9.4f}"]
    for row, width in (("parameters", 7), ("FLOPs per sample", 10)):
        columns.append(f"{saved.loc[row, 'after']:>{width},.0f} /{saved.loc[row, 'ratio']:>5.1f}")
    seconds, faster = time_of_predict(full, smaller, x)
    columns.append(f"{1000 * seconds:>6.2f} ms /{faster:>5.1f}")
    columns.append(f"{saved.loc['file size', 'after'] / 1000:>4.0f} kB /{saved.loc['file size', 'ratio']:>5.1f}")
    columns.append("-".join(str(layer.filters) for layer in smaller.layers if hasattr(layer, "filters")))
    print("  ".join(columns), flush=True)


def time_of_predict(full, smaller, x, rounds=15, batches=4):
    """Return seconds for a batch of 256 with the smaller network, and its speedup over the full one."""
    x = np.resize(x, (256 * batches, *x.shape[1:]))
    times = np.zeros((rounds, 2))
    for number in range(-1, rounds):  # the first round compiles, and is overwritten
        for column, model in enumerate((full, smaller)):
            start = time.perf_counter()
            model.predict(x, batch_size=256, verbose=0)
            times[number, column] = time.perf_counter() - start
    return np.median(times[:, 1]) / batches, np.median(times[:, 0] / times[:, 1])


if __name__ == "__main__":
    main()
