"""How long a path of strengths takes, against the loop over fits that users write, and against LassoNet.

    python benchmarks/path.py                 # everything
    python benchmarks/path.py small middle    # some of it: small, middle, large, growth, child

Every contender runs in a process of its own, from a warm disk, and is timed after its imports, compilation included;
printed are the medians of the repeats. R² is the mean over the repeats, each of which tests other rows. (Keras imports
TensorFlow, where it is installed, when it first serializes a model; that import is made before.) "Loop" is what a user
writes without poise: for every strength and fold build, compile and fit a Keras model with `kernel_regularizer`. One
fit of it is measured and multiplied by their number.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

SMALL = {"sizes": (10, 64, 1), "batch": 32, "epochs": 100, "strengths": 100, "folds": 5}
MIDDLE = {"sizes": (64, 256, 256, 10), "batch": 32, "epochs": 20, "strengths": 20, "folds": 5}
LARGE = {"sizes": (784, 512, 512, 10), "batch": 128, "epochs": 3, "strengths": 16, "folds": 1}


def main():
    parser = argparse.ArgumentParser(description="Time of a path, against a loop of fits and LassoNet.")
    parser.add_argument("parts", nargs="*", help="small, middle, large, growth, child; all without one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
        print("RESULT " + json.dumps(CONTENDERS[given.one]()))
        return
    print(
        f"{platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}, {given.repeats} repeats"
    )
    for part in given.parts or PARTS:
        PARTS[part](given.repeats)


def measured(name, repeats, backend="jax", **environment):
    """The median of every number that the contender gives."""
    runs = []
    for number in range(repeats):
        here = [sys.executable, os.path.abspath(__file__), "--one", name]
        known = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "SPLIT": str(number), **environment}
        out = subprocess.run(here, env={**os.environ, **known}, check=True, stdout=subprocess.PIPE, text=True).stdout
        runs.append(json.loads(out.split("RESULT ")[-1]))
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**middle, "r2": statistics.mean(run["r2"] for run in runs)} if "r2" in middle else middle


def line(what, seconds, *more):
    print(f"  {what:<58} {seconds:>9.2f} s   {'   '.join(more)}", flush=True)


def small(repeats):
    print("small: 10-64-1 on diabetes, 100 strengths x 5 folds, 100 epochs, batch 32")
    fit = measured("small fit", repeats, "tensorflow")["seconds"]
    line("one stock TensorFlow fit with validation_data", fit)
    for name in ("small path L2", "small path L1 without settling", "small path L1"):
        found = measured(name, repeats)
        seconds = found["seconds"]
        line(
            f"poise.fit_path, {name.removeprefix('small path ')} (R² {found['r2']:.3f})",
            seconds,
            f"{seconds / fit:.2f} of one fit",
            f"{500 * fit / seconds:.0f} times the loop's speed",
        )
    lasso = measured("LassoNet", repeats)
    line(f"LassoNetRegressorCV(hidden_dims=(64,)) (R² {lasso['r2']:.3f})", lasso["seconds"])


def middle(repeats):
    print("middle: 64-256-256-10 on digits, 20 strengths x 5 folds, 20 epochs, batch 32")
    fit = measured("middle fit", repeats)["seconds"]
    seconds = measured("middle path", repeats)["seconds"]
    line("one stock Keras-JAX fit", fit)
    line("poise.fit_path", seconds, f"{100 * fit / seconds:.1f} times the loop's speed")


def large(repeats):
    print("large: 784-512-512-10, 12,800 rows, 16 lanes, 3 epochs, batch 128")
    fit = measured("large fit", repeats)["seconds"]
    found = measured("large path", repeats)
    seconds = found["seconds"]
    line("one stock Keras-JAX fit", fit)
    line(
        "16 lanes of poise.fit_path",
        seconds,
        f"{16 * fit / seconds:.2f} times the loop's speed",
        f"{found['share']:.0%} of the machine's matrix product",
    )


def growth(repeats):
    print("growth: 10-64-1, 20 epochs, batch 32; memory beyond the process without lanes")
    for lanes in (1, 10, 100, 1000):
        found = measured("growth", repeats, LANES=str(lanes))
        print(f"  {lanes:>5} lanes {found['seconds']:>8.2f} s   {1e6 * found['step'] / lanes:>8.2f} µs a lane and step")
    found = measured("memory", 1)
    print(f"  784-512-512-10: one more lane takes {found['ratio']:.2f} times weights + optimizer state + gradients")


def child(repeats):
    print("child: the same small path from other backends")
    for backend in ("tensorflow", "torch"):
        found = measured("child", repeats, backend)
        line(f"from {backend}: whole call", found["seconds"], f"{found['start']:.1f} s more than the path itself")


PARTS = {"small": small, "middle": middle, "large": large, "growth": growth, "child": child}


def diabetes():
    import numpy as np
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    x, y = load_diabetes(return_X_y=True)
    x, xt, y, yt = train_test_split(x, y, test_size=0.2, random_state=int(os.environ.get("SPLIT", "0")))
    scale_x, scale_y = StandardScaler().fit(x), StandardScaler().fit(y[:, None])
    return [
        np.asarray(part, "float32")
        for part in (scale_x.transform(x), scale_y.transform(y[:, None]), scale_x.transform(xt),
                     scale_y.transform(yt[:, None]))
    ]  # fmt: skip


def digits():
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return np.asarray(x / 16, "float32"), np.asarray(y)


def noise(rows=12_800):
    import numpy as np

    generator = np.random.default_rng(0)
    return generator.normal(size=(rows, 784)).astype("float32"), generator.integers(0, 10, rows)


def network(sizes, regularizer=None, rate=0.005):
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((sizes[0],))])
    for number, units in enumerate(sizes[1:], 2):
        activation = None if number == len(sizes) else "relu"
        model.add(keras.layers.Dense(units, activation=activation, kernel_regularizer=regularizer))
    loss = "mse" if sizes[-1] == 1 else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


def fit_of(setting, x, y):
    """Seconds of one stock fit on the rows of a fold, with validation."""
    import keras

    held = len(x) // 5
    start = time.perf_counter()
    model = network(setting["sizes"], keras.regularizers.L2(0.01))
    model.fit(x[held:], y[held:], batch_size=setting["batch"], epochs=setting["epochs"], verbose=0,
              validation_data=(x[:held], y[:held]))  # fmt: skip
    return {"seconds": time.perf_counter() - start}


def small_path(penalty, **training):
    def run():
        import poise

        x, y, xt, yt = diabetes()
        start = time.perf_counter()
        path = poise.fit_path(
            network(SMALL["sizes"]), x, y, getattr(poise, penalty)(), strengths=SMALL["strengths"],
            cv=SMALL["folds"], training=poise.Training(**training), progress=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        predicted = path.predict(path.best_strength, xt)
        return {"seconds": seconds, "r2": float(1 - ((predicted - yt) ** 2).sum() / ((yt - yt.mean()) ** 2).sum())}

    return run


def lassonet():
    from lassonet import LassoNetRegressorCV

    x, y, xt, yt = diabetes()
    start = time.perf_counter()
    model = LassoNetRegressorCV(hidden_dims=(64,), random_state=0, torch_seed=0, verbose=0)
    model.path(x, y)
    return {"seconds": time.perf_counter() - start, "r2": float(model.score(xt, yt))}


def many_path(setting, data, **more):
    import numpy as np

    import poise

    x, y = data
    start = time.perf_counter()
    training = poise.Training(epochs=setting["epochs"], batch_size=setting["batch"], update="coupled")
    model = network(setting["sizes"])
    poise.fit_path(model, x, y, poise.L2(), strengths=np.geomspace(1e-5, 1e-1, setting["strengths"]), training=training,
               progress=False, **more)  # fmt: skip
    return time.perf_counter() - start


def middle_path():
    return {"seconds": many_path(MIDDLE, digits(), cv=MIDDLE["folds"])}


def large_path():
    x, y = noise()
    seconds = many_path(LARGE, (x, y), cv=(x[:128].copy(), y[:128].copy()))
    sizes = LARGE["sizes"]
    products = sum(a * b for a, b in itertools.pairwise(sizes)) * 3 - sizes[0] * sizes[1]
    flops = 2.0 * products * len(x) * LARGE["epochs"] * LARGE["strengths"]
    return {"seconds": seconds, "share": flops / seconds / peak()}


def peak():
    """The products and sums a second of the machine's matrix product."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2.0 * 2048**3 / min(times)


def growing():
    x, y, *_ = diabetes()
    lanes = int(os.environ["LANES"])
    setting = {**SMALL, "epochs": 20, "strengths": lanes}
    seconds = many_path(setting, (x, y), cv=(x[:32].copy(), y[:32].copy()))
    return {"seconds": seconds, "step": seconds / (20 * -(-len(x) // 32))}


def memory():
    x, y = noise(256)
    sizes = LARGE["sizes"]
    weights = sum(a * b + b for a, b in itertools.pairwise(sizes))
    peaks = []
    for lanes in (20, 84):
        os.environ["LANES"] = str(lanes)
        if os.fork() == 0:
            many_path({**LARGE, "epochs": 1, "strengths": lanes}, (x, y), cv=(x[:128].copy(), y[:128].copy()))
            print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
            os._exit(0)
        os.wait()
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    return {"ratio": (peaks[1] - peaks[0]) / 64 / (weights * 4 * 4)}


def from_child():
    import numpy as np

    import poise

    x, y, *_ = diabetes()
    model = network(SMALL["sizes"])
    start = time.perf_counter()
    path = poise.fit_path(model, x, y, poise.L2(), strengths=np.geomspace(1e-4, 1, 20), progress=False)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "start": seconds - path.seconds}


CONTENDERS = {
    "small fit": lambda: fit_of(SMALL, *diabetes()[:2]),
    "small path L2": small_path("L2"),
    "small path L1": small_path("L1"),
    "small path L1 without settling": small_path("L1", settle=0),
    "LassoNet": lassonet,
    "middle fit": lambda: fit_of(MIDDLE, *digits()),
    "middle path": middle_path,
    "large fit": lambda: fit_of(LARGE, *noise(16_000)),
    "large path": large_path,
    "growth": growing,
    "memory": memory,
    "child": from_child,
}

if __name__ == "__main__":
    main()
