"""How long a prediction takes."""

import statistics
import time
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise._keras_internals import input_structure
from poise.compaction.graph import graph_of

BATCH_SIZES = (1, 256)
ROUNDS = 30
SECONDS = 2.0
"""The longest time for one size of batches, after which fewer rounds are enough."""


def measure_latency(before: keras.Model, after: keras.Model) -> pd.DataFrame:
    """Measure the time of `predict_on_batch` of two models, which take turns.

    Returns:
        A DataFrame with one row per batch size. Columns: `before` and `after`, the median milliseconds per batch, and
        `ratio`, the median of before / after.
    """
    rows = {}
    for size in BATCH_SIZES:
        batch = _make_batch(before, size)
        times: list[tuple[float, float]] = []
        for model in (before, after):
            model.predict_on_batch(batch)  # compiles
        start = time.perf_counter()
        while len(times) < ROUNDS and (len(times) < 3 or time.perf_counter() - start < SECONDS):
            times.append((_time(before, batch), _time(after, batch)))
        milliseconds = [1000 * statistics.median(column) for column in zip(*times, strict=True)]
        rows[size] = (*milliseconds, statistics.median(old / new for old, new in times))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["before", "after", "ratio"])
    return table.rename_axis("batch size")


def _time(model: keras.Model, batch: Any) -> float:
    start = time.perf_counter()
    model.predict_on_batch(batch)
    return time.perf_counter() - start


def _make_batch(model: keras.Model, size: int) -> Any:
    """Return zeros of the shapes of the inputs; 16 stands for a length that is not known."""
    return keras.tree.map_structure(
        lambda symbol: np.zeros(
            (size, *(axis or 16 for axis in symbol.shape[1:])), keras.backend.standardize_dtype(symbol.dtype)
        ),
        input_structure(graph_of(model)),
    )
