"""`child`: the same small path called from TensorFlow and PyTorch, where it trains in a process on JAX."""

import time
from collections.abc import Iterator

from .contenders import build_network, load_rows
from .harness import Numbers, Options, Row, measure, note_missing


def run(options: Options) -> Iterator[Row]:
    strengths, epochs = (3, 2) if options.quick else (20, 100)
    here = measure(fit_path, options, strengths=strengths, epochs=epochs)
    for backend in ("tensorflow", "torch"):
        path = measure(fit_path, options, backend=backend, needs=(backend,), strengths=strengths, epochs=epochs)
        note = note_missing(backend) or f"{path['seconds'] - here['seconds']:.1f} s longer"
        yield Row(f"path from {backend} / from JAX", path.get("seconds"), here["seconds"], note=note)


def fit_path(strengths: int, epochs: int) -> Numbers:
    import numpy as np

    import poise

    x, y = load_rows("diabetes")
    model = build_network((10, 64, 1))
    start = time.perf_counter()
    poise.fit_path(
        model, x, y, poise.L2(), strengths=np.geomspace(1e-4, 1, strengths), training=poise.Training(epochs=epochs),
        progress=False,
    )  # fmt: skip
    return {"seconds": time.perf_counter() - start}
