"""Compare the time of a training step: penalty in the optimizer against the same penalty in the loss.

    python benchmarks/step.py            # the backend of KERAS_BACKEND
    python benchmarks/step.py --all      # JAX and TensorFlow, one process each

"theirs" is the network with `kernel_regularizer=L2(0.01)` on every kernel and plain Adam. "ours" is the same network
with `poise.PenalizedOptimizer("adam", poise.L2(0.01))`. All models live in one process. In every round each model runs
one `fit` over the same batches, in random order, which gives one ratio per model. The script prints medians over the
rounds, so that a slow moment of the machine spoils a round and not the result.
"""

import argparse
import itertools
import os
import platform
import random
import statistics
import subprocess
import sys
import time

BACKENDS = ("jax", "tensorflow")


def main():
    arguments = argparse.ArgumentParser(
        description="Time of a training step, PenalizedOptimizer against kernel_regularizer."
    )
    arguments.add_argument("--all", action="store_true", help="run JAX and TensorFlow, one after the other")
    arguments.add_argument("--rounds", type=int, default=31, help="number of rounds")
    arguments.add_argument("--net", choices=("small", "large"), help="run only this network")
    given = arguments.parse_args()
    if not given.all:
        report(given.rounds, [given.net] if given.net else ["small", "large"])
        return
    here = [argument for argument in sys.argv if argument != "--all"]
    for backend in BACKENDS:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, *here], env=environment, check=True)


def report(rounds, names):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    print(f"{keras.backend.backend()}, Keras {keras.__version__}, {machine()}; medians of {rounds} rounds, µs per step")
    print(f"{'network':<22} {'what':<34} {'ours':>9} {'theirs':>9} {'ratio':>7}   middle half")
    for name in names:
        for what, ours, theirs, ratios in compare(name, rounds):
            low, middle, high = statistics.quantiles(ratios, n=4)
            line = f"{title(name):<22} {what:<34} {ours:>9.1f} {theirs:>9.1f} {middle:>7.3f}"
            print(f"{line}   {low:.3f} to {high:.3f}", flush=True)


# layer sizes, batch size, steps per fit
NETWORKS = {"small": ((10, 64, 1), 32, 1000), "large": ((784, 512, 512, 10), 128, 60)}


def title(name):
    sizes, batch, _ = NETWORKS[name]
    return f"{'-'.join(map(str, sizes))} by {batch}"


def compare(name, rounds):
    """For each of ours (what, its time, theirs, ratios): µs per step, one ratio per round."""
    import poise

    def penalized(observe=0):
        return poise.PenalizedOptimizer("adam", poise.L2(0.01), observe_every=observe)

    theirs = trainer(name, "adam", regularized=True)
    ours = {
        "L2": trainer(name, penalized()),
        "L2, PenaltyLogger": trainer(name, penalized(), [poise.PenaltyLogger()]),
        "L2, PenaltyLogger, observe_every=10": trainer(name, penalized(observe_every=10), [poise.PenaltyLogger()]),
    }
    trainers = {"theirs": theirs, **ours}
    for train in trainers.values():
        train()
        train()
    times = {what: [] for what in trainers}
    order = random.Random(0)
    for _ in range(rounds):
        for what in order.sample(list(trainers), len(trainers)):
            start = time.perf_counter()
            trainers[what]()
            times[what].append(time.perf_counter() - start)
    steps = NETWORKS[name][2]
    for what in ours:
        ratios = [a / b for a, b in zip(times[what], times["theirs"], strict=True)]
        ours_time, theirs_time = (1e6 * statistics.median(times[who]) / steps for who in (what, "theirs"))
        yield what, ours_time, theirs_time, ratios


def trainer(name, optimizer, callbacks=(), regularized=False):
    """Return a function that trains a new model for one epoch over the same batches."""
    import keras
    import numpy as np

    sizes, batch, steps = NETWORKS[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((sizes[0],))])
    for units in sizes[1:]:
        last = units == sizes[-1]
        regularizer = keras.regularizers.L2(0.01) if regularized else None
        model.add(keras.layers.Dense(units, activation=None if last else "relu", kernel_regularizer=regularizer))
    loss = "mse" if sizes[-1] == 1 else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    x = np.random.default_rng(0).normal(size=(steps, batch, sizes[0])).astype("float32")
    y = x[..., :1] if sizes[-1] == 1 else np.argmax(x[..., : sizes[-1]], axis=-1)
    data = endless(x, y)
    return lambda: model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=list(callbacks))


def endless(x, y):
    """Return the same batches again and again, in the form that the backend reads fastest."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((x, y)).repeat()
    return (batch for _ in itertools.count() for batch in zip(x, y, strict=True))


def machine():
    return f"{platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
