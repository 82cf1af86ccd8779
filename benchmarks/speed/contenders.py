"""Data, networks and contenders that several parts use."""

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .harness import Numbers


def load_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of a table of scikit-learn."""
    table = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")()
    return table.data, table.target


def load_diabetes_split() -> list[np.ndarray]:
    """Return standardized x, y to train on and x, y to test on. Every repeat tests other rows."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    x, y = load_table("diabetes")
    seed = int(os.environ.get("REPEAT", "0"))
    x, x_test, y, y_test = train_test_split(x, y[:, None], test_size=0.2, random_state=seed)
    x_scaler, y_scaler = StandardScaler().fit(x), StandardScaler().fit(y)
    parts = (x_scaler.transform(x), y_scaler.transform(y), x_scaler.transform(x_test), y_scaler.transform(y_test))
    return [np.asarray(part, "float32") for part in parts]


def load_rows(data: str, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y to train on: of `"diabetes"`, of `"digits"`, or `"noise"` with 784 columns and ten classes."""
    if data == "diabetes":
        x, y, *_ = load_diabetes_split()
    elif data == "digits":
        x, y = load_table("digits")
        x = np.asarray(x / 16, "float32")
    else:
        generator = np.random.default_rng(0)
        x = generator.normal(size=(rows or 12_800, 784)).astype("float32")
        y = generator.integers(0, 10, len(x))
    return x[:rows], y[:rows]


def build_network(sizes: Sequence[int], l2: float | None = None) -> Any:
    """Return a compiled dense network with ReLU, for one number or for classes."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((sizes[0],))])
    for number, units in enumerate(sizes[1:], 2):
        activation = None if number == len(sizes) else "relu"
        regularizer = None if l2 is None else keras.regularizers.L2(l2)
        model.add(keras.layers.Dense(units, activation=activation, kernel_regularizer=regularizer))
    loss = "mse" if sizes[-1] == 1 else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    return model


def fit_stock_model(data: str, rows: int | None, sizes: Sequence[int], batch_size: int, epochs: int) -> Numbers:
    """Build, compile and fit a Keras model with `kernel_regularizer` on the rows of a fold, with validation rows."""
    x, y = load_rows(data, rows)
    held = len(x) // 5
    start = time.perf_counter()
    model = build_network(sizes, l2=0.01)
    model.fit(x[held:], y[held:], batch_size=batch_size, epochs=epochs, verbose=0, validation_data=(x[:held], y[:held]))
    return {"seconds": time.perf_counter() - start}
