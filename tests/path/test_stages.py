"""Adaptive stages are the adaptive Lasso, refits are least squares on what survived, and nothing comes back."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, optimizers
from oracles.models import assert_same_weights, diabetes, linear, net
from sklearn.linear_model import Lasso, LinearRegression

import poise
from poise.path.stages import adaptive_factors, check_reweightable, zero_holding_factors
from poise.path.tables import reweighting_position
from poise.path.training import Lanes, Training

x, y = diabetes()
SETTLED = Training(epochs=0, batch_size=None, settle=2000, tolerance=1e-5)
GRID = np.geomspace(0.01, 1.0, 9)


def built(model, rules, update="proximal") -> Any:
    optimizer = poise.PenalizedOptimizer("sgd", rules, update)
    optimizer.build(model.trainable_variables, model)
    return optimizer


def shares(size) -> Any:
    """The factors by hand: (1 + ε)/(share of the largest + ε) with ε = 0.03."""
    return np.where(size > 0, 1.03 / (size / size.max() + 0.03), np.inf)


# ---------------------------------------------------------------- factors


def test_factors_are_those_of_the_chosen_strength_and_of_the_replica() -> None:
    sizes = np.array([[[0.0, 1.0], [3.0, 1.0]], [[2.0, 1.0], [0.0, 0.0]]])[..., None]
    model = linear(2)
    factors = adaptive_factors(built(model, poise.L1()).targets, {"linear/head/kernel": sizes}, 1)
    assert list(factors) == [(0, 0)]
    assert factors[0, 0].shape == (2, 1, 2, 1)
    np.testing.assert_allclose(factors[0, 0][0, 0, :, 0], [1.0, 1.03 / (1 / 3 + 0.03)], rtol=1e-6)
    assert np.isposinf(factors[0, 0][1]).all()


def test_factors_of_groups_keep_the_penalty_s_own() -> None:
    model = net()
    rules = [poise.Rule("features/kernel", poise.GroupLasso(groups="inputs")), poise.Rule("head/kernel", poise.L2())]
    size = np.arange(6.0)
    factors = adaptive_factors(
        built(model, rules).targets,
        {"net/features/kernel": size[None, None], "net/head/kernel": np.ones((1, 1, 5, 1))},
        0,
    )
    assert list(factors) == [(0, 0)]
    np.testing.assert_allclose(factors[0, 0][0, 0], np.sqrt(5) * shares(size), rtol=1e-6)


def test_own_factors_of_zero_and_infinity_stay() -> None:
    size = np.array([2.0, 1.0, 0.0])[:, None]
    optimizer = built(linear(3), poise.L1(factors=[[0.0], [2.0], [np.inf]]))
    factors = adaptive_factors(optimizer.targets, {"linear/head/kernel": size[None, None]}, 0)[0, 0][0, 0, :, 0]
    np.testing.assert_allclose(factors, [0.0, 2 * 1.03 / 0.53, np.inf], rtol=1e-6)


def test_an_entry_that_is_free_stays_free_even_at_zero() -> None:
    optimizer = built(linear(2), poise.L1(factors=[[0.0], [1.0]]))
    factors = adaptive_factors(optimizer.targets, {"linear/head/kernel": np.array([[[[0.0], [1.0]]]])}, 0)[0, 0]
    np.testing.assert_array_equal(factors[0, 0, :, 0], [0.0, 1.0])


def test_what_was_dropped_is_zero_holding_factors() -> None:
    sizes = {"linear/head/kernel": np.array([[[[0.0], [3.0]]]])}
    factors = zero_holding_factors(built(linear(2), poise.L1()).targets, sizes)
    assert factors[0, 0].tolist() == [[[[np.inf], [1.0]]]]


REFUSED = {
    "smooth": (poise.L2(), "proximal", "^adaptive needs exact zeros, and here no weight becomes exactly zero"),
    "coupled": (poise.L1(), "coupled", "^adaptive needs exact zeros, and here no weight becomes exactly zero"),
    "no factors": (poise.NuclearNorm(), "proximal", r"^adaptive gives every group or entry a factor, and NuclearNorm on 'linear/head/kernel' does not take factors\. Use poise"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_penalties_that_cannot_be_reweighted_are_refused(case) -> None:
    penalty, update, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        check_reweightable(built(linear(3), penalty, update).targets, update, "adaptive")


# ---------------------------------------------------------------- whole paths


@pytest.fixture(scope="module")
def path() -> Any:
    model = linear(10)
    model.compile(optimizers.Adam(0.1), "mse")
    arguments = {"strengths": GRID, "cv": 3, "adaptive": 1, "relax": True, "training": SETTLED}
    return poise.fit_path(model, x, y[:, None], poise.L1(), progress=False, **arguments)


def strength_of_factors(stage, is_first=True) -> float:
    """The strength whose weights decide the factors of the next stage."""
    best, strengths = stage.best_strength, stage.strengths
    weaker = strengths[strengths <= best / 1.5] if is_first else strengths[strengths == best]
    return float(weaker.max() if len(weaker) else strengths.min())


def test_adaptive_stage_is_the_adaptive_lasso(path) -> None:
    first = path.stages[0]
    before = np.abs(first.weights(strength_of_factors(first))[0][:, 0])
    factors = shares(before)
    alive = np.isfinite(factors)
    assert 0 < alive.sum() < 10
    for strength in path.strengths:
        lasso = Lasso(strength / 2, tol=1e-10).fit((x / factors)[:, alive].astype("float64"), y)
        expected = np.zeros(10)
        expected[alive] = lasso.coef_ / factors[alive]
        kernel = path.weights(strength)[0][:, 0]
        np.testing.assert_allclose(kernel, expected, atol=1e-3)
        assert ((kernel != 0) == (expected != 0)).all()


def test_every_fold_is_weighted_by_its_own_solution_and_what_it_dropped_stays_out(path) -> None:
    first = path.stages[0]
    chosen = int(np.flatnonzero(path.strengths == strength_of_factors(first))[0])
    (before,), (after,) = first.lanes.sizes.values(), path.lanes.sizes.values()
    dropped = before[:, chosen] == 0
    assert dropped.any(axis=(1, 2)).all()
    for fold, out in enumerate(dropped):
        assert (after[fold][:, out] == 0).all()
        assert (after[fold][0, ~out] != 0).any()


def test_refit_is_least_squares_on_what_survived(path) -> None:
    for strength in path.strengths:
        kernel, _ = path.weights(strength)
        refit, refit_bias = path.relaxed.weights(strength)
        alive = kernel[:, 0] != 0
        assert (refit[~alive] == 0).all()
        if alive.any():
            squares = LinearRegression().fit(x[:, alive], y)
            np.testing.assert_allclose(refit[alive, 0], squares.coef_, atol=1e-3)
            np.testing.assert_allclose(refit_bias, squares.intercept_, atol=1e-3)
    assert path.relaxed.strengths.tolist() == path.strengths.tolist()


def test_null_model_competes_and_ends_the_stages() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(size=(60, 1)).astype("float32")
    x = random.normal(size=(60, 4)).astype("float32")
    model = linear(4)
    model.compile(optimizers.Adam(0.1), "mse")
    training = Training(epochs=0, batch_size=None, settle=300)
    path = poise.fit_path(model, x, noise, poise.L1(), strengths=4, cv=3, adaptive=3, relax=True, training=training, progress=False)  # fmt: skip
    assert path.features(path.strengths[-1]).size == 0
    assert path.strengths[-1] > 50 * path.strengths[-2]
    if not path.features(path.best_strength).size:
        assert len(path.stages) < 3
    assert path.relaxed is not None


def test_groups_of_a_network_stay_out() -> None:
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, "tanh", name="hidden"), layers.Dense(1)], name="net")
    model.compile(optimizers.Adam(0.02), "mse")
    rules = [poise.Rule("hidden/kernel", poise.GroupLasso(groups="inputs")), poise.Rule("dense*/kernel", poise.L2(0.1))]
    training = Training(epochs=0, batch_size=None, settle=200)
    path = poise.fit_path(model, x, y[:, None], rules, strengths=[0.02, 0.1, 0.2], cv=2, adaptive=1, training=training, progress=False)  # fmt: skip
    first = path.stages[0]
    chosen = int(np.flatnonzero(path.strengths == strength_of_factors(first))[0])
    dropped = first.lanes.sizes["net/hidden/kernel"][:, chosen] == 0
    after = path.lanes.sizes["net/hidden/kernel"]
    assert (after[np.broadcast_to(dropped[:, None], after.shape)] == 0).all()
    assert set(path.features(path.best_strength)) <= set(first.features(strength_of_factors(first)))


def test_training_again_under_the_rules_of_a_strength_gives_its_weights() -> None:
    x = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
    y = x[:, :1] - np.square(x[:, 1:2])
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(1, name="output")],
        name="network",
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    groups = [[0, 1], [2], [3], [4], [5]]
    rules = [
        poise.Rule(
            "hidden/kernel", poise.GroupLasso(1.0, groups=groups, axis="inputs", factors=[1.0, 2.0, 1.0, 0.5, 1.0])
        ),
        poise.Rule("output/kernel", poise.L2(0.5)),
    ]
    training = poise.Training(epochs=0, settle=200, tolerance=1e-12)
    path = poise.fit_path(model, x, y, rules, strengths=5, cv=3, adaptive=2, training=training, progress=False)

    for stage in (*path.stages, path):
        again = keras.models.clone_model(model)
        start = model.get_weights()
        for number, before in enumerate(stage.stages):  # what was dropped starts at zero
            start[0][before.weights(strength_of_factors(before, number == 0))[0] == 0] = 0.0
        again.set_weights(start)
        rate = keras.optimizers.schedules.CosineDecay(0.01, 200)
        optimizer = poise.PenalizedOptimizer(keras.optimizers.Adam(rate), stage.rules_at(stage.best_strength))
        again.compile(optimizer, "mse")
        again.fit(x, y, batch_size=80, epochs=200, shuffle=False, verbose=0)
        assert_same_weights(stage.weights(stage.best_strength), again.get_weights())


@pytest.mark.parametrize(
    ("losses", "diverged", "is_first", "expected"),
    [
        ([9, 9, 9, 1, 9], [0, 0, 0, 0, 0], True, 1),  # 2 is the largest strength up to 4/1.5
        ([9, 9, 9, 1, 9], [0, 0, 0, 0, 0], False, 3),
        ([9, 9, 9, 1, 9], [0, 1, 0, 0, 0], True, 0),
        ([9, 1, 9, 9, 9], [1, 0, 0, 0, 0], True, 1),  # nothing weaker is left
        ([1, 9, 9, 9, 9], [0, 0, 0, 0, 0], True, 0),
    ],
)
def test_the_first_stage_is_weighted_at_a_weaker_strength(losses, diverged, is_first, expected) -> None:
    strengths = [1.0, 2.0, 3.0, 4.0, 8.0]
    rows = {"seed": 0, "strength": strengths, "held_loss": np.array(losses, "float64"), "diverged": diverged}
    table = pd.concat([pd.DataFrame({"fold": fold, **rows}) for fold in (0, 1)], ignore_index=True)

    assert reweighting_position(Lanes(table), is_first) == expected
