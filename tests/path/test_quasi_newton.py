"""Quasi-Newton settling: the solutions of other libraries, exact zeros, and when the optimizer settles instead."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from celer import celer_path
from keras import layers, optimizers
from oracles.models import breast_cancer, diabetes, linear
from sklearn.linear_model import LogisticRegression, enet_path, lasso_path

import poise
from poise.path import settling
from poise.path.arguments import complete_training
from poise.path.lanes import settlers, trainer
from poise.path.settling import takes_quasi_newton_steps
from poise.path.training import Replica, Training
from poise.rules.rule import as_rules

from .runners import runner_of

x, y = diabetes()
TRAINING = Training(epochs=1, settle=1000, tolerance=1e-5)
ALPHAS: Any = np.geomspace(0.002, 0.6, 12)
EXACT: Any = {"tol": 1e-11, "max_iter": 100_000, "precompute": False}
HALVES = [Replica(0, 0, np.arange(220), np.arange(220, 442)), Replica(-1, 0, np.arange(442), np.arange(0))]


@pytest.fixture(autouse=True)
def settles(monkeypatch) -> Any:
    """The kinds of settlers that a test has used."""
    used = set()
    for kind in (settlers.OptimizerSettler, settlers.QuasiNewtonSettler):

        def take(self, *arguments, kind=kind, take_steps=kind.take_steps) -> Any:
            used.add(kind.__name__)
            return take_steps(self, *arguments)

        monkeypatch.setattr(kind, "take_steps", take)
    return used


def train(model, penalty, strengths: Any, data: Any = (x, y[:, None]), loss: Any = "mse", training=TRAINING, replicas=HALVES, **arguments) -> Any:  # fmt: skip
    model.compile("adam", loss)
    return runner_of(model, penalty, (*data, None), replicas, training).run(np.asarray(strengths, float), **arguments)


def relu(*inside) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((10,)), *inside, layers.Dense(16, "relu"), layers.Dense(1)])


def kernels(lanes) -> np.ndarray:
    """The kernels of the first layer of the lanes that train on all rows, (strengths, *shape)."""
    return lanes.weights[0][-1]


def objectives(lanes) -> np.ndarray:
    return (lanes.table["loss"] + lanes.table["penalty"]).to_numpy()


def shares(lanes) -> np.ndarray:
    return (lanes.table["residual"] / lanes.table["gradient"]).to_numpy()


def assert_same_coefficients(lanes, expected, atol=1e-4) -> None:
    """`expected`: (strengths, inputs) by ascending strength."""
    found = kernels(lanes)[:, :, 0]
    np.testing.assert_allclose(found, expected, atol=atol)
    np.testing.assert_array_equal(found == 0, expected == 0)
    assert (lanes.table["settled"] < TRAINING.settle).all()


# ---------------------------------------------------------------- convex problems


@pytest.fixture(scope="module")
def lasso() -> np.ndarray:
    return lasso_path(x.astype("float64"), y.astype("float64"), alphas=ALPHAS, **EXACT)[1].T[::-1]


def test_a_linear_model_with_l1_is_the_lasso(lasso, settles) -> None:
    lanes = train(linear(10), poise.L1(), 2 * ALPHAS)
    assert settles == {"QuasiNewtonSettler"}
    assert_same_coefficients(lanes, lasso)
    double = np.asfortranarray(x, "float64")
    _, celer, _ = celer_path(double, y.astype("float64"), "lasso", alphas=ALPHAS[::-1], tol=1e-12)
    assert_same_coefficients(lanes, celer.T[::-1])


def test_elastic_net_by_one_penalty_and_by_two() -> None:
    _, coefficients, _ = enet_path(x.astype("float64"), y.astype("float64"), l1_ratio=0.7, alphas=ALPHAS, **EXACT)
    one = poise.ElasticNet(l1=2 * 0.7, l2=0.3)
    assert_same_coefficients(train(linear(10), one, ALPHAS), coefficients.T[::-1])
    two = [poise.Rule("*kernel", poise.L1(1.0)), poise.Rule("*kernel", poise.L2(0.3 / 1.4))]  # L2 by its gradient
    assert_same_coefficients(train(linear(10), two, 1.4 * ALPHAS), coefficients.T[::-1])


def test_logistic_regression_with_l1() -> None:
    data = inputs, classes = breast_cancer()
    rows, strengths = np.arange(len(classes)), np.geomspace(0.02, 0.3, 4)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    training = replace(TRAINING, tolerance=1e-6)
    lanes = train(linear(30), poise.L1(), strengths, data, loss, training, [Replica(-1, 0, rows, rows[:0])])
    for strength, kernel in zip(strengths, kernels(lanes), strict=True):
        peer = LogisticRegression(l1_ratio=1.0, C=1 / (len(rows) * strength), solver="saga", tol=1e-9, max_iter=50_000)
        expected = peer.fit(inputs.astype("float64"), classes).coef_[0]
        np.testing.assert_allclose(kernel[:, 0], expected, atol=1e-3)
        np.testing.assert_array_equal(kernel[:, 0] == 0, expected == 0)


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("penalty", [poise.L1(), poise.MCP()])
def test_a_relu_network_ends_no_higher_than_after_2000_steps_of_adam(penalty, monkeypatch, settles) -> None:
    training = Training(epochs=30)
    strengths = np.geomspace(1e-3, 0.5, 8)
    fast = train(relu(), penalty, strengths, training=training)
    monkeypatch.setattr(settling, "LARGEST", 0)
    slow = train(relu(), penalty, strengths, training=training)
    assert settles == {"QuasiNewtonSettler", "OptimizerSettler"}
    assert (fast.table["settled"] <= 400).all()
    assert slow.table["settled"].max() == 2000
    assert objectives(fast).mean() <= objectives(slow).mean()
    assert (shares(fast) <= 1e-3).sum() >= (shares(slow) <= 1e-3).sum()


def test_lanes_do_not_depend_on_other_lanes() -> None:
    strengths, training = np.geomspace(1e-3, 0.5, 7), Training(epochs=5, settle=20)
    together = train(relu(), poise.L1(), strengths, training=training)
    alone = train(relu(), poise.L1(), strengths[3:4], training=training, replicas=HALVES[1:])
    np.testing.assert_allclose(kernels(alone)[0], kernels(together)[3], rtol=1e-3, atol=1e-4)


def test_lanes_do_not_depend_on_parts(monkeypatch) -> None:
    training = Training(epochs=5, settle=20)
    parts = train(relu(), poise.L1(), [1e-3, 0.03, 0.3], training=training)
    monkeypatch.setattr(trainer, "fills_device", lambda: True)
    whole = train(relu(), poise.L1(), [1e-3, 0.03, 0.3], training=training)
    np.testing.assert_allclose(kernels(whole), kernels(parts), rtol=1e-3, atol=1e-4)
    assert whole.table["settled"].tolist() == parts.table["settled"].tolist()


def test_settled_lanes_keep_their_weights() -> None:
    strengths = [1e-3, 0.3]  # the second one settles in a few steps
    short, long = (train(relu(), poise.L1(), strengths, training=Training(epochs=5, settle=n)) for n in (150, 300))
    assert short.table["settled"].tolist()[:2] == [150, long.table["settled"][1]]
    np.testing.assert_array_equal(kernels(short)[1], kernels(long)[1])
    assert np.abs(kernels(short)[0] - kernels(long)[0]).max() > 0


def test_lanes_without_progress_stop() -> None:
    training = Training(epochs=5, settle=5000, tolerance=1e-12)  # less than float32 can reach
    lanes = train(relu(), poise.L1(), [0.03, 0.3], training=training)
    assert (lanes.table["settled"] < 5000).all()


def test_infinite_factors_hold_zeros() -> None:
    is_held = np.zeros((2, 3, 10, 16), bool)
    is_held[:, :, ::2] = True
    factors = {(0, 0): np.where(is_held, np.inf, 1.0), (2, 0): np.ones((2, 3, 16, 1))}
    lanes = train(relu(), poise.L1(), [1e-3, 1e-2, 0.1], training=Training(epochs=5), factors=factors)
    assert (kernels(lanes)[is_held[1]] == 0).all()
    assert (kernels(lanes)[0] != 0).any()
    free = train(relu(), poise.L1(), [1e-3], training=Training(epochs=5), factors={k: f[:, :1] for k, f in factors.items()}, is_free=True)  # fmt: skip
    assert (kernels(free)[0][::2] == 0).all()
    assert (kernels(free)[0][1::2] != 0).all()


def test_early_stopping_chooses_the_number_of_steps(settles) -> None:
    training = Training(epochs=5, settle=100, early_stopping=True)
    lanes = train(relu(), poise.L1(), [1e-3, 0.1], training=training)
    assert settles == {"QuasiNewtonSettler"}
    assert (lanes.table["settled"] <= 100).all()


# ---------------------------------------------------------------- which steps


def settles_fast(model, rules: Any = None, rows: int | None = 442, optimizer: Any = "adam", **training) -> bool:
    model.compile(optimizer, "mse")
    rules = as_rules(poise.L1() if rules is None else rules)
    return takes_quasi_newton_steps(model, rules, Training(**{"update": "auto", **training}), rows)


def test_the_default_number_of_steps_is_that_of_the_method() -> None:
    model = relu()
    model.compile("adam", "mse")
    rules = as_rules(poise.L1())
    assert complete_training(model, rules, None, 442).settle == 400
    assert complete_training(model, rules, None, None).settle == 2000
    assert complete_training(model, rules, Training(epochs=0), 442).settle == 2000
    assert complete_training(model, as_rules(poise.L2()), None, 442).settle == 0


def test_models_with_state_or_random_numbers_settle_by_the_optimizer(settles) -> None:
    assert settles_fast(relu())
    assert not settles_fast(relu(layers.Dropout(0.1)))
    assert not settles_fast(relu(layers.BatchNormalization()))
    lanes = train(relu(layers.Dropout(0.1)), poise.L1(), [0.1], training=Training(epochs=1, settle=3))
    assert settles == {"OptimizerSettler"}
    assert (lanes.table["settled"] == 3).all()


def test_the_normalization_of_inputs_is_no_state() -> None:
    normalization = layers.Normalization()
    normalization.adapt(x)
    assert settles_fast(relu(normalization))


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 0},
        {"rows": None},
        {"rows": 8193},
        {"update": "coupled"},
        {"update": "decoupled"},
        {"optimizer": optimizers.AdamW},
        {"rules": poise.Anchored(poise.L1())},
        {"rules": poise.L0()},
        {"rules": poise.NuclearNorm()},
        {"rules": poise.GroupLasso(groups="inputs")},
        {"rules": poise.MutualCoherence()},
    ],
    ids=str,
)
def test_what_only_the_optimizer_settles(arguments) -> None:
    if "optimizer" in arguments:
        arguments = {"optimizer": arguments["optimizer"]()}
    assert not settles_fast(relu(), **arguments)


def test_constraints_and_large_lanes_are_left_to_the_optimizer(monkeypatch) -> None:
    nonnegative = keras.Sequential([keras.Input((10,)), layers.Dense(1, bias_constraint="non_neg")])
    assert not settles_fast(nonnegative)
    half = keras.Sequential([keras.Input((10,)), layers.Dense(1, dtype="mixed_bfloat16")])
    assert not settles_fast(half)
    monkeypatch.setattr(settling, "LARGEST", 21 * 192)
    assert not settles_fast(relu())
    monkeypatch.setattr(settling, "LARGEST", 21 * 193)
    assert settles_fast(relu())
