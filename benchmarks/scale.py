"""What a second worker brings to a path on Ray, what Ray costs, and what a thousand machines would.

    python benchmarks/scale.py               # everything
    python benchmarks/scale.py overhead      # some of it: efficiency, overhead, simulated

A worker has one core. Every run is a process of its own with a Ray that is started for it, and the whole call of
`poise.fit_path` is timed, compilation included, after Ray has started. Contenders take turns, and the run of the median
time is told. The simulation gives tasks to machines as Ray does,
the next to whichever is free, with the times that the run with one worker measured; it is checked against the run with
two before it is asked about a thousand.
"""

import argparse
import functools
import heapq
import json
import os
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

SIZES, ROWS, BATCH = (64, 128, 10), 1797, 32
EPOCHS = 25
NODES = 1000
FEW, MANY, LANES = 100, 1000, 1_000_000
LOST = 0.01
"""The share of tasks whose machine fails while they run."""


def main():
    parser = argparse.ArgumentParser(description="Scaling of a path on Ray.")
    parser.add_argument("parts", nargs="*", help="efficiency, overhead, simulated; all without one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--lanes", type=int, default=FEW, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print("RESULT " + json.dumps(timed(given.one, given.lanes)))
        return
    print(
        f"{platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}, {given.repeats} "
        "repeats; a worker has one core"
    )
    wanted = given.parts or ["efficiency", "overhead", "simulated"]
    if "overhead" in wanted:
        for lanes in (FEW, MANY):
            here, there = middle(lanes, given.repeats, "local", "1")
            print(
                f"{lanes} lanes: one core without Ray {here['seconds']:.1f} s, a Ray worker {there['seconds']:.1f} s: "
                f"{there['seconds'] / here['seconds'] - 1:+.1%}",
                flush=True,
            )
    if {"efficiency", "simulated"} & {*wanted}:
        one, two = middle(MANY, given.repeats, "1", "2")
        print(
            f"{MANY} lanes: one worker {one['seconds']:.1f} s, two {two['seconds']:.1f} s: "
            f"{one['seconds'] / two['seconds']:.2f} times the work",
            flush=True,
        )
        if "simulated" in wanted:
            simulated(one, two)


def middle(lanes, repeats, *engines):
    """Of every engine the run of the median time."""
    runs = [[measured(engine, lanes, number) for engine in engines] for number in range(repeats)]
    return [sorted(own, key=lambda run: run["seconds"])[repeats // 2] for own in zip(*runs, strict=True)]


@functools.cache
def measured(engine, lanes, number):
    here = [sys.executable, os.path.abspath(__file__), "--one", engine, "--lanes", str(lanes)]
    # A worker of one core is one thread, and so is the process without Ray that it is compared with.
    known = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3", "NPROC": "1", "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(here, env={**os.environ, **known}, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.split("RESULT ")[-1])


def timed(engine, lanes):
    """The seconds of a path, and of its tasks in the order in which they ended."""
    if engine == "local":
        os.sched_setaffinity(0, {0})
    import keras
    from sklearn.datasets import load_digits

    import poise
    from poise.path.executors import ray_executor

    x, y = load_digits(return_X_y=True)
    x = np.asarray(x / 16, "float32")
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(SIZES[1], "relu"), keras.layers.Dense(SIZES[2])]
    model = keras.Sequential([keras.Input((SIZES[0],)), *dense])
    model.compile(keras.optimizers.Adam(0.005), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ended = []
    if engine != "local":
        import ray

        ray.init(num_cpus=int(engine), log_to_driver=False, logging_level="error", include_dashboard=False)
        merge = ray_executor._Piece.merge

        def noted(piece):
            lanes = piece.task.lane_numbers.size
            ended.append((time.perf_counter() - start, float(piece.arrays["measure/seconds"].sum()), lanes))
            return merge(piece)

        ray_executor._Piece.merge = noted
    start = time.perf_counter()
    poise.fit_path(
        model, x, y, poise.L2(),
        strengths=np.geomspace(1e-5, 1e-1, lanes), validation_data=(x[:360].copy(), y[:360].copy()),
        training=poise.Training(epochs=EPOCHS, batch_size=BATCH, update="coupled", settle=0),
        executor="in_process" if engine == "local" else "ray", progress=False,
    )  # fmt: skip
    return {"seconds": time.perf_counter() - start, "tasks": ended}


def simulated(one, two):
    """The makespan of the run with two workers, predicted, and that of a million lanes on a thousand machines."""
    # The first task of a worker compiles; what it takes beyond the others, and before it, is the price of a new worker.
    first, *others = one["tasks"]
    a_lane = statistics.median(seconds / count for _, seconds, count in others)
    cold = first[0] - a_lane * first[2]
    between = statistics.median(b[0] - a[0] - b[1] for a, b in zip(one["tasks"][1:], others[1:], strict=False))
    end = one["seconds"] - one["tasks"][-1][0]
    print(
        f"measured: {1e3 * a_lane:.0f} ms a lane, {cold:.1f} s for a new worker, {1e3 * between:.0f} ms between two "
        f"tasks, {end:.1f} s at the end"
    )
    for workers, found in ((1, one), (2, two)):
        tasks = [count * a_lane for *_, count in found["tasks"]]
        predicted = makespan(tasks, workers, cold, between) + end
        print(f"  {workers} workers: predicted {predicted:.1f} s, measured {found['seconds']:.1f} s")
    draw = np.random.default_rng(0)
    for size in (50, 250, 1000):
        tasks = [size * a_lane] * (LANES // size)
        calm, rough = makespan(tasks, NODES, cold, between), makespan(tasks, NODES, cold, between, LOST, draw)
        ideal = LANES * a_lane / NODES
        print(
            f"  {LANES:,} lanes in chunks of {size} on {NODES} machines: {calm:,.0f} s, {ideal / calm:.0%} of the "
            f"ideal; with {LOST:.0%} of the tasks lost {rough:,.0f} s; the driver has {1e3 * calm / len(tasks):.1f} ms "
            "a task"
        )


def makespan(tasks, workers, cold, between, lost=0.0, draw=None):
    """Seconds until all tasks are done, each given to the worker that is free first.

    A task is lost with the probability `lost`, at any moment of it, with its worker; it is given out again, and a new
    worker takes the place, with what that costs.
    """
    free = [cold] * workers
    heapq.heapify(free)
    waiting, last = list(tasks), 0.0
    while waiting:
        seconds = waiting.pop()
        now = heapq.heappop(free)
        if lost and draw.random() < lost:
            heapq.heappush(free, now + draw.random() * seconds + cold)
            waiting.append(seconds)
        else:
            heapq.heappush(free, now + seconds + between)
            last = max(last, now + seconds)
    return last


if __name__ == "__main__":
    main()
