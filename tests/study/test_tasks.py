"""Tasks: the loss of the network is the one of the scores, and its start is the best constant."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

import poise
from poise.study.report.schema import schema
from poise.study.tasks.base import Task
from poise.study.tasks.table import TASKS, make_task


class Case(NamedTuple):
    """Targets and outputs of a task.

    Args:
        task: The task.
        y: The targets, as the network takes them.
        outputs: Outputs of the network.
        classes: The number of classes.
    """

    task: Task
    y: np.ndarray
    outputs: np.ndarray
    classes: int


def activate(task: Task, linear: np.ndarray) -> np.ndarray:
    """Return the outputs of a network, of those of its last layer without the activation."""
    return np.asarray(keras.activations.get(task.make_activation())(keras.ops.convert_to_tensor(linear)), "float64")


def make_case(name: str, **settings: Any) -> Case:
    random = np.random.default_rng(0)
    signal = random.normal(size=(40, 1))
    classes = {"binary": 2, "multiclass": 3}.get(name, 0)
    values = {
        "regression": signal[:, 0],
        "binary": random.integers(0, 2, 40),
        "multiclass": random.integers(0, 3, 40),
        "counts": random.poisson(2.0, 40).astype("float64"),
        "survival": np.copysign(np.ceil(4 * random.exponential(size=40)), random.normal(size=40)),
        "gamma": random.gamma(2.0, size=40),
        "tweedie": random.poisson(2.0, 40) * random.gamma(2.0, size=40),
        "quantile": signal[:, 0],
        "multioutput": np.hstack([signal, np.square(signal), np.sin(9 * signal)]),
    }[name]
    task = make_task(name, {"targets": ("a", "b", "c"), **settings})
    outputs = activate(task, random.normal(size=(40, task.count_outputs(classes))))
    return Case(task, task.encode(values), outputs.astype("float32"), classes)


CASES = {name: make_case(name) for name in TASKS}


WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, 40)
WEIGHT /= WEIGHT.mean()


def test_the_schema_of_a_study_lists_every_task() -> None:
    assert schema()["properties"]["data"]["properties"]["task"]["enum"] == list(TASKS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_the_loss_of_the_network_is_the_mean_of_the_row_losses(name, weight) -> None:
    task, y, outputs, _ = CASES[name]

    loss = float(keras.ops.convert_to_numpy(task.make_loss()(y, outputs, sample_weight=weight)))

    assert loss == pytest.approx(np.average(task.row_losses(y, outputs, weight), weights=weight), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_scores_of_several_networks_at_once_are_those_of_each(name) -> None:
    task, y, outputs, _ = CASES[name]
    several = np.stack([outputs, 2 * outputs, outputs[::-1]])

    scores = task.score_rows(y, several)

    for number, each in enumerate(several):
        single = task.score_rows(y, each)
        np.testing.assert_array_equal(scores.losses[number], single.losses)
        np.testing.assert_array_equal(
            np.broadcast_to(scores.score_terms, scores.losses.shape)[number], single.score_terms
        )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.task.compares_rows])
def test_a_network_starts_at_the_constant_with_the_lowest_loss(name) -> None:
    task, y, outputs, _ = CASES[name]
    y = (y - np.average(y, axis=0, weights=WEIGHT)) / y.std(axis=0) if task.standardizes else y
    bias = task.initial_bias(y, outputs.shape[1], WEIGHT)

    def loss_at(bias: np.ndarray) -> float:
        constant = np.tile(activate(task, bias[None]), (len(y), 1))
        return float(np.average(task.row_losses(y, constant), weights=WEIGHT))

    lowest = loss_at(bias)
    for output in range(len(bias)):
        for step in (-0.3, 0.3):
            assert loss_at(bias + step * (np.arange(len(bias)) == output)) > lowest


@pytest.mark.parametrize("name", CASES)
def test_a_task_names_what_users_see(name) -> None:
    task, _, outputs, classes = CASES[name]
    labels = [f"class {number}" for number in range(classes)]

    columns = task.tabulate(outputs, "price", labels, 0.0, 1.0)

    assert {len(column) for column in columns.values()} == {len(outputs)}
    assert task.allows_classes(classes)
    assert not task.allows_classes(1)
    names, explained = task.explain(outputs, labels)
    assert explained.shape == (len(outputs), len(names))
    assert task.predict(outputs).shape[1] >= len(names) >= 1
    table, modules = SimpleNamespace(task=task), {"keras": keras, "poise": poise}
    assert eval(task.loss_code, {**modules, "table": table}).get_config() == task.make_loss().get_config()
