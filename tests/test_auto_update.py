"""`update="auto"`: smooth penalties by their gradient, as Keras does, and non-smooth ones by their prox."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import optimizers
from oracles import models
from oracles.models import assert_same_weights, compiled, fitted, net, weights
from oracles.optimizers import SETTLING, multi_optimizer
from sklearn.linear_model import ElasticNet, Lasso, Ridge

import poise

ALPHA = 0.04
"""Of the 10 columns of the diabetes table the Lasso keeps 7."""


def settled(name: str, rules: Any, update: str = "auto") -> keras.Model:
    """A single Dense(1) after full-batch training on the diabetes table."""
    x, y = models.diabetes()
    inner = SETTLING[name]
    model = models.linear(10)
    model.set_weights([np.full((10, 1), 0.1), np.zeros(1)])
    model.compile(poise.PenalizedOptimizer(inner.settling(), rules, update=update), loss="mse")
    models.descend(model, model.optimizer, models.mean_squares(x, y), inner.steps)
    return model


def assert_solution(model: keras.Model, coefficients: np.ndarray) -> None:
    kernel = weights(model)[0][:, 0]
    np.testing.assert_array_equal(kernel != 0.0, coefficients != 0.0)
    np.testing.assert_allclose(kernel, coefficients, rtol=0.0, atol=1e-4)


def double() -> tuple[np.ndarray, np.ndarray]:
    x, y = models.diabetes()
    return x.astype("float64"), y.astype("float64")


# ---------------------------------------------------------------- what acts how


def test_auto_is_the_default() -> None:
    assert poise.PenalizedOptimizer("sgd", poise.L2(0.1)).update == "auto"


@pytest.mark.parametrize(
    "make",
    [lambda: optimizers.Adam(0.01), lambda: optimizers.AdamW(0.01, clipnorm=0.5), lambda: optimizers.Lion(0.003)],
    ids=["Adam", "AdamW-clipnorm", "Lion"],
)
def test_l2_is_the_keras_regularizer_whatever_the_inner_optimizer(make: Any) -> None:
    stock = fitted(compiled(make(), net(kernel_regularizer=keras.regularizers.L2(0.05))))
    ours = fitted(compiled(poise.PenalizedOptimizer(make(), poise.L2(0.05))))

    assert_same_weights(ours, stock)


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_l1_ends_at_the_lasso_with_exact_zeros(name: str) -> None:
    lasso = Lasso(ALPHA, tol=1e-12, max_iter=100_000).fit(*double())
    assert 0 < np.sum(lasso.coef_ == 0) < 10

    assert_solution(settled(name, poise.L1.from_sklearn(ALPHA)), lasso.coef_)


@pytest.mark.parametrize("name", ["Adam", "SGD-nesterov"])
def test_l1_and_l2_on_one_variable_end_at_the_elastic_net(name: str) -> None:
    """The L2 joins the gradient and the L1 acts by its prox."""
    both = poise.ElasticNet.from_sklearn(ALPHA, l1_ratio=0.5)
    elastic_net = ElasticNet(ALPHA, l1_ratio=0.5, tol=1e-12, max_iter=100_000).fit(*double())

    model = settled(name, [poise.L1(both.l1), poise.L2(both.l2)])

    assert_solution(model, elastic_net.coef_)
    [target] = model.optimizer.targets
    assert [type(penalty) for _, penalty in target.coupled] == [poise.L2]
    assert [type(penalty) for _, penalty in target.proximal] == [poise.L1]
    assert poise.forces(model, *models.diabetes())["relative_residual"].max() < 1e-3


@pytest.mark.parametrize(
    ("kind", "strength", "peer"),
    [(poise.L1, 2 * ALPHA, Lasso(ALPHA, tol=1e-12, max_iter=100_000)), (poise.L2, 0.2, Ridge(0.2 * 442))],
    ids=["L1", "L2"],
)
def test_infinite_factors_drop_a_column(kind: Any, strength: float, peer: Any) -> None:
    is_kept = np.arange(10) != 2
    x, y = double()
    coefficients = np.zeros(10)
    coefficients[is_kept] = peer.fit(x[:, is_kept], y).coef_

    model = settled("Adam", kind(strength, factors=np.where(is_kept, 1.0, np.inf)[:, None]))

    assert_solution(model, coefficients)


def test_infinite_factors_of_a_smooth_penalty_beside_another_one_are_refused() -> None:
    held = poise.Rule("features/kernel", poise.L2(0.1, factors=np.array([[1.0, np.inf, 1.0, 1.0, 1.0]])))
    optimizer = poise.PenalizedOptimizer("sgd", [held, poise.L1(0.1)])
    with pytest.raises(ValueError, match=r"L2 has infinite factors.*without another penalty on this variable"):
        optimizer.build(net().trainable_variables)


def test_coherence_acts_by_its_gradient() -> None:
    rule = poise.Rule("features/kernel", poise.MutualCoherence(0.1))
    regularizers = {"features": keras.regularizers.OrthogonalRegularizer(0.1, mode="rows"), "head": None}

    stock = fitted(compiled("adam", net(kernel_regularizer=regularizers)))
    ours = fitted(compiled(poise.PenalizedOptimizer("adam", rule)))

    assert_same_weights(ours, stock, relative=1e-4)


def test_actions_of_every_kind_of_penalty() -> None:
    rules = [poise.Rule("features/kernel", poise.GroupLasso(0.1)), poise.Rule("head/kernel", poise.Smoothness(0.1))]
    optimizer = poise.PenalizedOptimizer("adam", rules)
    optimizer.build(net().trainable_variables)

    sparse, smooth = optimizer.targets
    assert (len(sparse.coupled), len(sparse.decoupled), len(sparse.proximal)) == (0, 0, 1)
    assert (len(smooth.coupled), len(smooth.decoupled), len(smooth.proximal)) == (1, 0, 0)


# ---------------------------------------------------------------- inner optimizers without a usable step


@pytest.mark.parametrize(
    ("make", "inner"),
    [
        (lambda: optimizers.Adam(clipnorm=1.0), r"Adam\(clipnorm=1\.0\).*Remove the clipping"),
        (lambda: optimizers.AdamW(weight_decay=0.004), r"AdamW\(weight_decay=0\.004\).*poise\.L2\(0\.002\)"),
        (optimizers.Lion, "Lion: it moves by the sign"),
    ],
    ids=["clipnorm", "weight_decay", "Lion"],
)
def test_l1_without_a_usable_step_is_refused_and_names_coupled(make: Any, inner: str) -> None:
    message = rf"L1 acts by a proximal step with update='auto', which does not work with {inner}.*update='coupled'"
    with pytest.raises(ValueError, match=message):
        poise.PenalizedOptimizer(make(), [poise.L2(0.1), poise.L1(0.1)])
    poise.PenalizedOptimizer(make(), [poise.L2(0.1), poise.L1(0.1)], update="coupled")
    poise.PenalizedOptimizer(make(), poise.L2(0.1))


def test_l0_without_a_usable_step_names_decoupled() -> None:
    with pytest.raises(ValueError, match=r"L0 acts by a proximal step.*or use update='decoupled'\.$"):
        poise.PenalizedOptimizer(optimizers.Adam(clipnorm=1.0), poise.L0(0.1))


def test_held_entries_without_a_usable_step_name_no_other_update() -> None:
    with pytest.raises(ValueError, match=r"L2 acts by a proximal step.*Remove the clipping\.$"):
        poise.PenalizedOptimizer(optimizers.Adam(clipnorm=1.0), poise.L2(0.1, factors=[[np.inf]]))


def test_nuclear_norm_with_adam_names_coupled() -> None:
    optimizer = poise.PenalizedOptimizer("adam", poise.Rule("features/kernel", poise.NuclearNorm(0.1)))
    with pytest.raises(ValueError, match=r"NuclearNorm needs one step for the whole matrix, and Adam.*'coupled'"):
        optimizer.build(net().trainable_variables)


def test_multi_optimizer_takes_smooth_penalties() -> None:
    optimizer = poise.PenalizedOptimizer(multi_optimizer(), poise.L2(0.1))
    assert optimizer.update == "auto"
    with pytest.raises(ValueError, match=r"needs one learning rate, and a MultiOptimizer has several.*'coupled'"):
        poise.PenalizedOptimizer(multi_optimizer(), poise.L1(0.1))


def test_setting_that_breaks_the_proximal_step_is_refused_and_undone() -> None:
    sparse = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L1(0.1))
    with pytest.raises(ValueError, match=r"L1 acts by a proximal step.*SGD\(clipnorm=0\.5\)"):
        sparse.clipnorm = 0.5
    assert sparse.clipnorm is None

    smooth = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L2(0.1))
    smooth.clipnorm = 0.5
    assert smooth.inner_optimizer.clipnorm == 0.5


def test_momentum_is_set_before_training_or_refused() -> None:
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.1), poise.L1(0.1))
    optimizer.momentum = 0.9
    optimizer.build(net().trainable_variables)
    with pytest.raises(ValueError, match=r"momentum=0\.0 cannot be set after the optimizer is built"):
        optimizer.momentum = 0.0
    assert optimizer.momentum == 0.9


# ---------------------------------------------------------------- saving, repr, records


def test_update_survives_saving(tmp_path: Any) -> None:
    rules = [poise.Rule("features/kernel", poise.L1(0.02)), poise.Rule("head/kernel", poise.L2(0.02))]
    inner = optimizers.SGD(0.05, momentum=0.9)
    model = fitted(compiled(poise.PenalizedOptimizer(inner, rules, observe_every=2)), epochs=3)
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.optimizer.update == "auto"
    assert dict(loaded.optimizer.strength) == dict(model.optimizer.strength)
    assert_same_weights(fitted(loaded, epochs=3), fitted(model, epochs=3), relative=1e-6)


def test_repr_shows_inner_optimizer_update_and_rules() -> None:
    schedule = optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    rules = [poise.Rule("head/kernel", poise.L1(schedule)), poise.L2(0.25)]
    optimizer = poise.PenalizedOptimizer("adam", rules)
    optimizer.strength["kernels"] = 0.5

    assert repr(optimizer) == (
        "<PenalizedOptimizer Adam, update='auto', rules={'head/kernel': L1(schedule), 'kernels': L2(0.5)}>"
    )


def test_records_have_named_fields() -> None:
    """Total and last value per rule, the sums of squared forces per target, and how many steps they count."""
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.0), poise.L2(0.5), observe_every=2)
    optimizer.keep_values()
    model = fitted(compiled(optimizer), epochs=2)  # 6 steps at a rate of 0
    kernels = [w for w in weights(model) if w.ndim == 2]
    value = 0.5 * sum(np.sum(w**2) for w in kernels)

    values, forces = model.optimizer.penalty_record(), model.optimizer.force_record()

    assert (values.steps, forces.samples) == (6, 3)
    np.testing.assert_allclose(values.last, [value], rtol=1e-5)
    np.testing.assert_allclose(values.total, [6 * value], rtol=1e-5)
    assert forces.total.shape == (2, 4)
    np.testing.assert_allclose(forces.total[:, 1], [3 * np.sum(w**2) for w in kernels], rtol=1e-5)
    model.optimizer.reset_values()
    model.optimizer.reset_forces()
    assert (model.optimizer.penalty_record().steps, model.optimizer.force_record().samples) == (0, 0)
