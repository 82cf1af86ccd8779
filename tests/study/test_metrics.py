"""Further scores of the test rows, computed by hand."""

from typing import Any

import numpy as np
import pytest

from poise.study.predicted_rows import make_predicted_rows
from poise.study.scores import Scorer
from poise.study.tasks.table import make_task

LOGITS = np.array([[2.0], [-1.0], [0.5], [-3.0]])
LABELS = np.array([[1.0], [0.0], [0.0], [1.0]])


def measure(name: str, y: Any, outputs: np.ndarray, weight: Any = None, scale: float = 1.0) -> dict[str, float]:
    task = make_task(name)
    rows = make_predicted_rows(Scorer(task, np.asarray(y), weight, None, 0), outputs, 5.0, scale, weight)
    return task.measure(rows.actual, rows.predictions, rows.weight)


def test_errors_are_in_units_of_the_target() -> None:
    y, outputs = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [1.0], [0.0]])

    assert measure("regression", y, outputs, scale=10.0) == pytest.approx({"RMSE": 10 * np.sqrt(5 / 3), "MAE": 10.0})
    weighted = measure("regression", y, outputs, np.array([1.0, 0.0, 3.0]))
    assert weighted == pytest.approx({"RMSE": np.sqrt((1 + 3 * 4) / 4), "MAE": (1 + 3 * 2) / 4})


def test_two_classes() -> None:
    scores = measure("binary", LABELS, LOGITS)

    probabilities = 1 / (1 + np.exp(-LOGITS[:, 0]))
    loss = -np.mean(np.log(np.where(LABELS[:, 0] == 1, probabilities, 1 - probabilities)))
    # Of the four pairs of a row of each class, two are in the right order: 2.0 above −1.0 and 0.5.
    assert scores == pytest.approx({"majority rate": 0.5, "log loss": loss, "AUC": 0.5})


def test_more_classes_and_a_class_without_rows() -> None:
    logits = np.eye(3)[[0, 1, 2, 2]] * 5.0
    scores = measure("multiclass", [0, 1, 2, 2], logits)

    assert scores["majority rate"] == 0.5
    assert scores["AUC"] == 1.0
    assert scores["log loss"] == pytest.approx(np.log(1 + 2 * np.exp(-5.0)))
    assert np.isnan(measure("multiclass", [0, 1, 1, 1], logits)["AUC"])


def test_counts() -> None:
    y, outputs = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]])

    scores = make_task("counts").measure(y[:, 0], outputs[:, 0], None)

    deviance = 2 * np.array([1.0, 2 * np.log(2.0) - 1.0])
    assert scores == pytest.approx({"RMSE": 1.0, "MAE": 1.0, "deviance": deviance.mean()}, abs=1e-6)
