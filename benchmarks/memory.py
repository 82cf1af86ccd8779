"""Compare the memory of training: penalty in the optimizer against the stock optimizer.

    python benchmarks/memory.py                       # the backend of KERAS_BACKEND
    python benchmarks/memory.py jax tensorflow torch  # these backends

A network of 25 million parameters (100 MB) trains for a few steps with Adam, in a new process per line. The script
prints the memory of the process beyond what it took before the network was built, in copies of the weights: at its
highest (`peak`) and after training, with the network and its optimizer alive (`kept`); then both as ratios to stock
Adam. Stock Adam keeps three copies, the weights and its two moments, and needs a fourth for the gradient, which PyTorch
keeps as well. TensorFlow returns no memory, so its `kept` equals its `peak`.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import subprocess
import sys

UNITS, LAYERS, ROWS, STEPS = 2500, 4, 32, 4
WEIGHTS = 4 * LAYERS * (UNITS * UNITS + UNITS)
"""Bytes."""

CONTENDERS = {
    "stock Adam": None,
    **{
        f"{update} {penalty}": (update, penalty)
        for update in ("coupled", "decoupled", "proximal")
        for penalty in ("L2", "L1", "GroupLasso")
    },
    "coupled Anchored(L2)": ("coupled", "Anchored"),
}


def main():
    parser = argparse.ArgumentParser(
        description="Memory of training with PenalizedOptimizer, against the stock optimizer."
    )
    parser.add_argument("backends", nargs="*", help="jax, tensorflow, torch; without one that of KERAS_BACKEND")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print("RESULT " + json.dumps(measured(given.one)))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}; {WEIGHTS / 1e6:.0f} MB of weights, Adam")
    for backend in given.backends or [os.environ.get("KERAS_BACKEND", "jax")]:
        print(f"{backend:<24} {'peak':>6} {'kept':>6} {'peak / stock':>14} {'kept / stock':>14}")
        stock = None
        for name in CONTENDERS:
            found = in_a_process(name, backend)
            stock = stock or found
            ratios = [found[key] / stock[key] for key in ("peak", "kept")]
            print(f"{name:<24} {found['peak']:>6.2f} {found['kept']:>6.2f} {ratios[0]:>14.3f} {ratios[1]:>14.3f}")


def in_a_process(name, backend):
    here = [sys.executable, os.path.abspath(__file__), "--one", name]
    known = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "MALLOC_MMAP_THRESHOLD_": "1048576"}
    out = subprocess.run(here, env={**os.environ, **known}, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.split("RESULT ")[-1])


def measured(name):
    import keras
    import numpy as np

    import poise

    rows = np.random.default_rng(0).normal(size=(ROWS * STEPS, UNITS)).astype("float32")
    warm_up(keras, rows)
    before = resident()
    model = keras.Sequential([keras.Input((UNITS,)), *(keras.layers.Dense(UNITS) for _ in range(LAYERS))])
    model.compile(optimizer(keras, poise, CONTENDERS[name]), "mse")
    model.fit(rows, rows, batch_size=ROWS, verbose=0)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": (peak - before) / WEIGHTS, "kept": (resident() - before) / WEIGHTS}


def warm_up(keras, rows):
    """What a backend takes once, whatever the network."""
    model = keras.Sequential([keras.Input((UNITS,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(rows, rows[:, :1], batch_size=ROWS, verbose=0)


def optimizer(keras, poise, contender):
    if contender is None:
        return keras.optimizers.Adam()
    update, penalty = contender
    made = poise.Anchored(poise.L2(1e-3)) if penalty == "Anchored" else getattr(poise, penalty)(1e-3)
    return poise.PenalizedOptimizer("adam", made, update=update)


def resident():
    """Bytes of this process in memory, after what is free was handed back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
