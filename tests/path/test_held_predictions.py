"""Predictions of held-out rows at the checkpoints of early stopping, on request."""

from typing import Any

import keras
import numpy as np
import pytest

import poise
from poise.path.data.arrays import Data
from poise.path.solve import solve_path
from poise.path.training import Replica, Training
from poise.rules.rule import as_rules

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 3)).astype("float32")
Y = (X @ [1.0, -0.5, 0.0] + RANDOM.normal(size=60)).astype("float32")[:, None]
EVERY = np.arange(60)
STRENGTHS = np.array([1e-3, 1e-1])


def solve(penalty: Any, replicas: list[Replica], executor: str = "in_process", count: int = 20) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), loss="mse")
    return solve_path(
        model, as_rules(penalty), Data(X, Y, None, 60, None), replicas,
        executor=executor, strengths=STRENGTHS, adaptive=0, relax=False,
        training=Training(epochs=0, settle=100, update="proximal", early_stopping=True), checkpoint=None,
        report=lambda share: None, predicted_rows=count,
    )  # fmt: skip


@pytest.mark.parametrize("executor", ["in_process", "subprocess"])
def test_the_last_checkpoint_predicts_as_the_model(executor) -> None:
    """Without a replica of all rows, the path keeps the weights of those that hold out rows."""
    path = solve(poise.L1(), [Replica(0, 0, EVERY[:40], EVERY[40:])], executor)

    history, settled = path.lanes.history, path.table["settled"].to_numpy()
    for number, strength in enumerate(STRENGTHS):
        lengths = history["length"][0, number]
        last = int(np.flatnonzero(lengths >= settled[number])[0])
        np.testing.assert_allclose(
            history["predictions"][0, number, last], path.predict(strength, X[40:]), rtol=1e-4, atol=1e-5
        )
        loss = np.mean(np.square(history["predictions"][0, number] - Y[40:]), axis=(1, 2))
        np.testing.assert_allclose(loss, history["held_loss"][0, number], rtol=1e-4)


def test_replicas_with_fewer_rows_and_without_any_are_padded() -> None:
    replicas = [
        Replica(0, 0, EVERY[20:], EVERY[:20]),
        Replica(1, 0, EVERY[:50], EVERY[50:]),
        Replica(-1, 0, EVERY, EVERY[:0]),
    ]

    predictions = solve(poise.L2(), replicas).lanes.history["predictions"]

    assert predictions.shape[0] == 3
    assert predictions.shape[3:] == (20, 1)
    first = predictions[:, :, 0, :, 0]
    assert np.isfinite(first[0]).all()
    assert np.isfinite(first[1, :, :10]).all()
    assert np.isnan(first[1, :, 10:]).all()
    assert np.isnan(first[2]).all()


def test_some_rows_are_drawn_at_random() -> None:
    replica = Replica(0, 0, EVERY[:30], EVERY[30:])

    predictions = solve(poise.L2(), [replica], count=7).lanes.history["predictions"][0, :, 0]

    rows = replica.predicted_rows(7)
    assert len(set(rows) & set(EVERY[30:])) == 7
    everything = solve(poise.L2(), [replica], count=30).lanes.history["predictions"][0, :, 0]
    np.testing.assert_allclose(predictions, everything[:, rows - 30], rtol=1e-5, atol=1e-6)


def test_nothing_is_predicted_by_default() -> None:
    path = solve(poise.L2(), [Replica(0, 0, EVERY[:40], EVERY[40:])], count=0)

    assert "predictions" not in path.lanes.history
