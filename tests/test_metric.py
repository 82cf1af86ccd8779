"""The proximal update ends at the solutions that scikit-learn and skglm find, whatever the inner optimizer."""

import dataclasses
import warnings
from typing import Any

import celer
import keras
import numpy as np
import pytest
from keras import optimizers
from oracles import models
from oracles.optimizers import SETTLING, HalfSGD, Inner, RenamedAdam, multi_optimizer, without_step
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression

import poise
from poise.optimizer import metrics as metric

ALPHA = 0.04
"""Of the 10 columns of the diabetes table the Lasso keeps 7."""

SOME = ("SGD", "SGD-nesterov", "Adam")
every_optimizer = pytest.mark.parametrize("inner", SETTLING.values(), ids=SETTLING)
some_optimizers = pytest.mark.parametrize("inner", [SETTLING[name] for name in SOME], ids=SOME)


def settled(inner: Any, rules: Any, gradients: Any, x: Any, y: Any, loss: str = "mse") -> keras.Model:
    """A single Dense(1) after its proximal training on all rows."""
    model = models.linear(x.shape[1], "sigmoid" if loss == "binary_crossentropy" else None)
    model.set_weights([np.full((x.shape[1], 1), 0.1), np.zeros(1)])
    model.compile(poise.PenalizedOptimizer(inner.settling(), rules, update="proximal"), loss=loss)
    models.descend(model, model.optimizer, gradients(x, y), inner.steps)
    return model


def assert_solution(model: keras.Model, coefficients: np.ndarray) -> None:
    kernel = models.weights(model)[0][:, 0]
    np.testing.assert_array_equal(kernel != 0.0, coefficients != 0.0)
    np.testing.assert_allclose(kernel, coefficients, rtol=0.0, atol=1e-4)


def assert_certified(model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
    assert poise.forces(model, x, y)["relative_residual"].max() < 1e-3


def test_every_optimizer_with_a_step_is_in_the_table() -> None:
    covered = {type(inner.make(0.1)) for inner in SETTLING.values()}
    uncovered = [kind.__name__ for kind in metric.STEPS if not any(issubclass(c, kind) for c in covered)]
    assert uncovered == []


@every_optimizer
def test_proximal_l1_is_the_lasso(inner: Any) -> None:
    x, y = models.diabetes()
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(*_in_double(x, y))
    assert 0 < np.sum(lasso.coef_ == 0) < 10

    model = settled(inner, poise.L1.from_sklearn(ALPHA), models.mean_squares, x, y)

    assert_solution(model, lasso.coef_)
    assert_certified(model, x, y)


@every_optimizer
def test_column_without_gradients_leaves_the_lasso_as_it_is(inner: Any) -> None:
    """A column of zeros never has a gradient, and its coefficient is 0 in every solution."""
    x, y = models.diabetes()
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(*_in_double(x, y))
    wide = np.concatenate([x[:, :5], np.zeros_like(x[:, :1]), x[:, 5:]], axis=1)

    model = settled(inner, poise.L1.from_sklearn(ALPHA), models.mean_squares, wide, y)

    kernel = models.weights(model)[0][:, 0]
    assert kernel[5] == 0
    np.testing.assert_allclose(np.delete(kernel, 5), lasso.coef_, rtol=0.0, atol=1e-5)


def stepped(inner: Any, penalty: Any, gradient: list, steps: int = 3) -> np.ndarray:
    """The kernel of ones after steps along a constant gradient with the rate 0.01, and the prox."""
    model = models.linear(3)
    model.set_weights([np.ones((3, 1)), np.zeros(1)])
    optimizer = poise.PenalizedOptimizer(inner.make(0.01), penalty, update="proximal")
    optimizer.build(model.trainable_variables)
    gradients = [keras.ops.convert_to_tensor(np.array(gradient, "float32")[:, None]), keras.ops.zeros(1)]
    for _ in range(steps):
        optimizer.apply(list(gradients), model.trainable_variables)
    return models.weights(model)[0][:, 0]


TRACES = {"SGD-momentum": 1 + 1.9 + 2.71, "SGD-nesterov": 1.9 + 2.71 + 3.439, "RMSprop-momentum": 1 + 1.5 + 1.75}
"""The sums of the traces of three steps of 1."""
TRACES["Adagrad"] = 3 / np.sqrt(0.1)  # it starts from a second moment of 0.1


@pytest.mark.parametrize("name", SETTLING)
@pytest.mark.parametrize("penalty", [poise.L1(0.5), poise.GroupLasso(0.5, groups="inputs")], ids=["l1", "group"])
def test_variable_without_a_gradient_so_far_moves_by_the_learning_rate_times_the_strength(
    name: str, penalty: Any
) -> None:
    """And not by rate/ε times the strength, which would set it to zero at once."""
    kernel = stepped(SETTLING[name], penalty, [0.0, 0.0, 0.0])
    np.testing.assert_allclose(kernel, 1 - TRACES.get(name, 3.0) * 0.01 * 0.5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SETTLING if name not in ("Adagrad", "Adadelta")])
def test_entry_without_a_gradient_so_far_takes_the_step_of_the_others(name: str) -> None:
    """The first entry moves by h·(g + s) and the others by h·s. (Adagrad and Adadelta have finite steps of their own.)"""
    gradient, strength = 0.1, 0.02
    kernel = stepped(SETTLING[name], poise.L1(strength), [gradient, 0.0, 0.0])
    assert kernel[0] > 0
    expected = (1 - kernel[0]) * strength / (gradient + strength)
    np.testing.assert_allclose(1 - kernel[1:], expected, rtol=2e-2 if name == "Lamb" else 1e-3)


def test_branch_that_starts_at_zero_is_trained_and_not_wiped_out() -> None:
    """The kernel behind a gate of zero has no gradient in the first step: Bachlechner et al. 2021, ReZero."""
    x = models.table(64, 4)[0]
    inputs = keras.Input((4,))
    branch = keras.layers.Dense(8, use_bias=False, name="branch")
    gate = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="gate")
    model = keras.Model(inputs, gate(branch(inputs)))
    before = np.abs(models.weights(model)[0]).max()
    optimizer = poise.PenalizedOptimizer(
        optimizers.Adam(0.01), poise.Rule("branch/kernel", poise.L1(1e-3)), update="proximal"
    )
    models.compiled(optimizer, model)

    model.fit(x, x @ np.array([[1.0], [-1.0], [0.5], [0.0]]), batch_size=64, epochs=300, verbose=0)

    assert before > 0
    assert np.count_nonzero(models.weights(model)[0]) > 8
    assert model.evaluate(x, x @ np.array([[1.0], [-1.0], [0.5], [0.0]]), verbose=0) < 0.05


FORGETFUL = {"Adam", "AdamW", "RMSprop", "RMSprop-momentum", "Adamax", "Nadam", "Lamb", "Adafactor"}


@pytest.mark.parametrize("name", SETTLING)
def test_rare_rows_of_an_embedding_are_warned_of_where_the_step_forgets_them(name: str) -> None:
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(5, 3), keras.layers.Flatten()])
    optimizer = poise.PenalizedOptimizer(SETTLING[name].make(0.1), poise.L1(0.1), update="proximal")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.build(model.trainable_variables)
    messages = [str(each.message) for each in caught]
    assert len(messages) == (name in FORGETFUL)
    assert all("embedding" in text and "amsgrad=True" in text for text in messages)


@some_optimizers
def test_proximal_elastic_net_is_the_elastic_net(inner: Any) -> None:
    x, y = models.diabetes()
    peer = ElasticNet(0.1, l1_ratio=0.7, tol=1e-12, max_iter=100_000).fit(*_in_double(x, y))
    assert 0 < np.sum(peer.coef_ == 0) < 10

    model = settled(inner, poise.ElasticNet.from_sklearn(0.1, l1_ratio=0.7), models.mean_squares, x, y)

    assert_solution(model, peer.coef_)
    assert_certified(model, x, y)


@some_optimizers
def test_proximal_l1_beside_l2_is_the_elastic_net(inner: Any) -> None:
    x, y = models.diabetes()
    peer = ElasticNet(0.1, l1_ratio=0.7, tol=1e-12, max_iter=100_000).fit(*_in_double(x, y))
    both = poise.ElasticNet.from_sklearn(0.1, l1_ratio=0.7)

    model = settled(inner, [poise.L1(both.l1), poise.L2(both.l2)], models.mean_squares, x, y)

    assert_solution(model, peer.coef_)
    assert_certified(model, x, y)


@some_optimizers
@pytest.mark.parametrize("shares", [(0.3,), (0.1, 0.2)], ids=["one", "two"])
def test_proximal_l2_is_ridge(inner: Any, shares: tuple[float, ...]) -> None:
    """One L2 acts by its prox, two of them join the gradient: the same solution."""
    x, y = models.diabetes()
    double = x.astype("float64")
    ridge = np.linalg.solve(double.T @ double / len(x) + sum(shares) * np.eye(10), double.T @ y / len(x))
    rules = [poise.Rule("head/kernel", poise.L2(share), name=f"{share}") for share in shares]

    model = settled(inner, rules, models.mean_squares, x, y)

    np.testing.assert_allclose(models.weights(model)[0][:, 0], ridge, rtol=0.0, atol=1e-4)
    assert_certified(model, x, y)


@pytest.mark.parametrize(
    "inner",
    [
        Inner(lambda rate: optimizers.SGD(rate, 0.95, nesterov=True), 0.5, 1.0, 1000),
        Inner(optimizers.Adam, 1.0, 0.01, 1000),
    ],
    ids=["SGD-nesterov", "Adam"],
)
def test_proximal_l1_is_sparse_logistic_regression(inner: Any) -> None:
    x, y = models.breast_cancer()
    strength = 0.05
    peer = LogisticRegression(C=1.0 / (strength * len(x)), l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=100_000).fit(
        x.astype("float64"), y
    )
    assert 0 < np.sum(peer.coef_ == 0) < 30

    model = settled(inner, poise.L1(strength), models.mean_log_loss, x, y, "binary_crossentropy")

    assert_solution(model, peer.coef_[0])
    np.testing.assert_allclose(models.weights(model)[1], peer.intercept_, atol=1e-3)
    assert_certified(model, x, y)


@some_optimizers
def test_proximal_group_lasso_is_that_of_celer(inner: Any) -> None:
    x, y = models.diabetes()
    groups: Any = [[0, 1], [2, 3, 8], [4, 5, 6, 7], [9]]
    alpha = 0.1
    peer = celer.GroupLasso(groups, alpha, weights=np.sqrt([2.0, 3.0, 4.0, 1.0]), tol=1e-12).fit(*_in_double(x, y))
    dropped = [not peer.coef_[group].any() for group in groups]
    assert any(dropped)
    assert not all(dropped)

    model = settled(inner, poise.GroupLasso(2 * alpha, groups=groups, axis=0), models.mean_squares, x, y)

    assert_solution(model, peer.coef_)
    assert_certified(model, x, y)


def test_infinite_weights_drop_a_column_from_the_lasso() -> None:
    x, y = models.diabetes()
    kept = np.arange(10) != 2
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(*_in_double(x[:, kept], y))
    coefficients = np.zeros(10)
    coefficients[kept] = lasso.coef_
    weights = np.where(kept, 1.0, np.inf)[:, None]

    model = settled(SETTLING["Adam"], poise.L1(2 * ALPHA, factors=weights), models.mean_squares, x, y)

    assert_solution(model, coefficients)


def test_proximal_nuclear_norm_cuts_singular_values() -> None:
    """With XᵀX = n·I the solution is UΣ′Vᵀ, Σ′ the singular values of XᵀY/n less k·s/2 (k outputs, mean squares)."""
    x = np.linalg.qr(models.table(64, 5)[0])[0] * np.sqrt(64)
    y = models.table(64, 4, seed=1)[0]
    u, sizes, v = np.linalg.svd(x.T.astype("float64") @ y / 64, full_matrices=False)
    strength = 0.25 * (sizes[1] + sizes[2])
    expected = (u * np.maximum(sizes - 2.0 * strength, 0.0)) @ v
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, use_bias=False)])
    inner = poise.PenalizedOptimizer(optimizers.SGD(0.5), poise.NuclearNorm(strength), update="proximal")
    models.compiled(inner, model)

    model.fit(x, y, batch_size=64, epochs=80, verbose=0)

    np.testing.assert_allclose(models.weights(model)[0], expected, atol=1e-5)
    assert np.linalg.matrix_rank(models.weights(model)[0], tol=1e-5) == 2


def test_gradient_accumulation_settles_on_the_lasso() -> None:
    x, y = models.diabetes()
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(*_in_double(x, y))

    def twice(rate: Any) -> Any:
        return optimizers.Adam(rate, gradient_accumulation_steps=2)

    inner = dataclasses.replace(SETTLING["Adam"], make=twice, steps=1600)

    model = settled(inner, poise.L1(2 * ALPHA), models.mean_squares, x, y)

    assert_solution(model, lasso.coef_)


def test_an_optimizer_with_its_own_step_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = models.diabetes()
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(*_in_double(x, y))
    monkeypatch.setattr(metric, "STEPS", dict(metric.STEPS))
    metric.step_of(HalfSGD, kind="scalar")(lambda before: lambda: 0.5 * before.rate)
    inner = dataclasses.replace(SETTLING["SGD"], make=HalfSGD, steps=600)

    model = settled(inner, poise.L1(2 * ALPHA), models.mean_squares, x, y)

    assert_solution(model, lasso.coef_)


def test_a_subclass_without_its_own_step_has_the_step_of_its_parent() -> None:
    assert metric.metric_of(RenamedAdam()).step is metric.STEPS[optimizers.Adam][1]


@pytest.mark.parametrize(("make", "message"), without_step().values(), ids=without_step())
def test_optimizer_without_a_usable_step_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        poise.PenalizedOptimizer(make(), poise.L1(0.1), update="proximal")
    poise.PenalizedOptimizer(make(), poise.L1(0.1), update="coupled")


@pytest.mark.parametrize("update", ["proximal", "decoupled"])
def test_several_optimizers_in_one_are_refused_where_one_rate_is_needed(update: str) -> None:
    several = multi_optimizer()
    with pytest.raises(ValueError, match=rf"update='{update}' needs one learning rate, and a MultiOptimizer.*coupled"):
        poise.PenalizedOptimizer(several, poise.L1(0.1), update=update)


def _in_double(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.astype("float64"), y.astype("float64")
