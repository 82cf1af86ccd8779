"""`large`: larger networks against the loop that users write: one Keras fit on JAX per strength and fold.

One fit is measured and multiplied by their number. For the largest network, the table also shows the share of the
speed of a plain matrix product, and the memory of one more lane.
"""

import itertools
import resource
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .contenders import build_network, fit_stock_model, load_rows
from .harness import Numbers, Options, Row, measure

SIZES, ROWS, BATCH_SIZE, EPOCHS, LANES = (784, 512, 512, 10), 12_800, 128, 3, 16
MIDDLE_SIZES, MIDDLE_BATCH_SIZE, MIDDLE_EPOCHS, MIDDLE_STRENGTHS, MIDDLE_FOLDS = (64, 256, 256, 10), 32, 20, 20, 5
FEWEST_LANES, MOST_LANES = 20, 84
"""Numbers of lanes whose difference in memory is measured."""


def run(options: Options) -> Iterator[Row]:
    rows, epochs, lanes = (512, 1, 2) if options.quick else (ROWS, EPOCHS, LANES)
    setting = {"data": "noise", "sizes": SIZES, "batch_size": BATCH_SIZE, "epochs": epochs}
    # A fit keeps a fifth of its rows for validation
    fit = measure(fit_stock_model, options, rows=rows * 5 // 4, **setting)["seconds"]
    path = measure(fit_path, options, rows=rows, strengths=lanes, folds=None, **setting)["seconds"]
    flops = count_flops(SIZES) * rows * epochs * lanes
    product = measure(time_matrix_product, options)["flops"]
    note = f"{flops / path / product:.0%} of the speed of a matrix product"
    yield Row(f"784-512-512-10, {lanes} lanes / loop of JAX fits", path, lanes * fit, most_ratio=0.5, note=note)

    epochs, strengths, folds = (1, 2, 2) if options.quick else (MIDDLE_EPOCHS, MIDDLE_STRENGTHS, MIDDLE_FOLDS)
    setting = {"data": "digits", "sizes": MIDDLE_SIZES, "batch_size": MIDDLE_BATCH_SIZE, "epochs": epochs}
    fit = measure(fit_stock_model, options, rows=None, **setting)["seconds"]
    path = measure(fit_path, options, rows=None, strengths=strengths, folds=folds, **setting)["seconds"]
    yield Row(f"64-256-256-10, {strengths} x {folds} fits / loop of JAX fits", path, strengths * folds * fit)

    few, many = (2, 4) if options.quick else (FEWEST_LANES, MOST_LANES)
    setting = {"data": "noise", "rows": 256, "sizes": SIZES, "batch_size": BATCH_SIZE, "epochs": 1, "folds": None}
    peaks = [measure(fit_path, options, strengths=number, **setting)["peak"] for number in (few, many)]
    weights = sum(a * b + b for a, b in itertools.pairwise(SIZES))
    yield Row(
        "784-512-512-10, one more lane / weights, Adam, gradients",
        (peaks[1] - peaks[0]) / (many - few) / 1e6, 4 * 4 * weights / 1e6, unit="MB",
    )  # fmt: skip


def fit_path(
    data: str,
    rows: int | None,
    sizes: Sequence[int],
    batch_size: int,
    epochs: int,
    strengths: int,
    folds: int | None,
) -> Numbers:
    """Train a path with L2, with cross-validation or with 128 validation rows."""
    import numpy as np

    import poise

    x, y = load_rows(data, rows)
    validation: dict[str, Any] = {"cv": folds} if folds else {"validation_data": (x[:128].copy(), y[:128].copy())}
    start = time.perf_counter()
    poise.fit_path(
        build_network(sizes), x, y, poise.L2(), strengths=np.geomspace(1e-5, 1e-1, strengths),
        training=poise.Training(epochs=epochs, batch_size=batch_size, update="coupled"), progress=False, **validation,
    )  # fmt: skip
    return {"seconds": time.perf_counter() - start, "peak": peak_bytes()}


def peak_bytes() -> float:
    """Return the largest memory that this process took: on the device if it has its own, else on the machine."""
    import jax

    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return float(statistics["peak_bytes_in_use"])
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def count_flops(sizes: Sequence[int]) -> float:
    """Return the FLOPs of a training step per row: three products per layer, the first without the gradient of x."""
    products = [a * b for a, b in itertools.pairwise(sizes)]
    return 2.0 * (3 * sum(products) - products[0])


def time_matrix_product() -> Numbers:
    """Return the FLOPs per second of a matrix product."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return {"flops": 2.0 * 2048**3 / min(seconds)}
