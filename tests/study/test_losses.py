"""Losses of the estimators and of tasks: coefficients and scores of scikit-learn and statsmodels."""

from typing import Any

import keras
import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm
from sklearn.linear_model import (
    GammaRegressor,
    LogisticRegression,
    MultiTaskLasso,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.metrics import (
    d2_pinball_score,
    d2_tweedie_score,
    mean_pinball_loss,
    mean_tweedie_deviance,
    r2_score,
)
from sklearn.utils.class_weight import compute_class_weight

import poise
from poise.study.scores import Scorer
from poise.study.tasks.table import make_task

LINEAR: dict[str, Any] = {
    "early_stopping": False,
    "hidden_layer_sizes": (),
    "cv": 2,
    "max_iter": 600,
    "learning_rate": 0.1,
    "standardize": False,
}
STRENGTH = 0.025
ALPHA = 2.0 * STRENGTH
"""scikit-learn penalizes alpha · Σ w²/2, and poise.L2 strength · Σ w²."""
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(150, 4))
MEAN = np.exp(X @ [0.6, -0.4, 0.2, 0.0] + 0.5)
WEIGHT, OFFSET = RANDOM.uniform(0.5, 3.0, 150), RANDOM.uniform(-1.0, 2.0, 150)


def draw(power: float, mean: np.ndarray) -> np.ndarray:
    """Return targets with a mean; with 1 < power < 2, some are zero."""
    random = np.random.default_rng(1)
    if power == 1.0:
        return random.poisson(mean).astype("float64")
    if power == 2.0:
        return random.gamma(3.0, mean / 3.0)
    return np.array([random.gamma(2.0, 0.5, size=count).sum() for count in random.poisson(mean)])


LOSSES: dict[str, tuple[dict[str, Any], float, Any]] = {
    "poisson": ({"loss": "poisson"}, 1.0, PoissonRegressor(alpha=ALPHA, tol=1e-8)),
    "gamma": ({"loss": "gamma"}, 2.0, GammaRegressor(alpha=ALPHA, tol=1e-8)),
    "tweedie": ({"loss": "tweedie"}, 1.5, TweedieRegressor(power=1.5, alpha=ALPHA, link="log", tol=1e-8)),
    "tweedie-1.2": (
        {"loss": "tweedie", "power": 1.2},
        1.2,
        TweedieRegressor(power=1.2, alpha=ALPHA, link="log", tol=1e-8),
    ),
}


def coefficients_of(estimator: Any) -> np.ndarray:
    """Return the weights and the intercept."""
    kernel, bias = (np.asarray(weight, "float64") for weight in estimator.model_.weights)
    return np.concatenate([kernel[:, 0], bias])


# ---------------------------------------------------------------- coefficients


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_the_linear_model_has_the_coefficients_of_scikit_learn(name, weight) -> None:
    arguments, power, model = LOSSES[name]
    y = draw(power, MEAN)

    ours = poise.PathRegressor(strengths=[STRENGTH], **arguments, **LINEAR).fit(X, y, sample_weight=weight)

    theirs = model.fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(coefficients_of(ours), [*theirs.coef_, theirs.intercept_], atol=2e-4)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-3)


FAMILIES = {
    "poisson": lambda: sm.families.Poisson(),
    "gamma": lambda: sm.families.Gamma(sm.families.links.Log()),
    "tweedie": lambda: sm.families.Tweedie(sm.families.links.Log(), var_power=1.5),
    "tweedie-1.2": lambda: sm.families.Tweedie(sm.families.links.Log(), var_power=1.2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_offset_is_that_of_a_generalized_linear_model(name) -> None:
    arguments, power, _ = LOSSES[name]
    y = draw(power, MEAN * np.exp(OFFSET))

    ours = poise.PathRegressor(strengths=[1e-6], **arguments, **LINEAR).fit(X, y, offset=OFFSET)

    theirs = sm.GLM(y, sm.add_constant(X), family=FAMILIES[name](), offset=OFFSET).fit(tol=1e-10)
    np.testing.assert_allclose(coefficients_of(ours)[:-1], theirs.params[1:], atol=3e-4)
    expected = theirs.predict(sm.add_constant(X[:9]), offset=OFFSET[:9])
    np.testing.assert_allclose(ours.predict(X[:9], offset=OFFSET[:9]), expected, rtol=1e-3)


@pytest.mark.parametrize("unit", [1.0, 1e6], ids=["years", "microyears"])
def test_a_strength_with_an_offset_is_that_of_a_penalized_generalized_linear_model(unit) -> None:
    y, offset = draw(1.0, MEAN * np.exp(OFFSET)), OFFSET + np.log(unit)

    ours = poise.PathRegressor(strengths=[STRENGTH], loss="poisson", **LINEAR).fit(X, y, offset=offset)

    model: Any = sm.GLM(y, sm.add_constant(X), family=sm.families.Poisson(), offset=OFFSET)
    theirs = model.fit_regularized(alpha=ALPHA * np.array([0.0, 1.0, 1.0, 1.0, 1.0]), L1_wt=0.0)
    np.testing.assert_allclose(coefficients_of(ours)[:-1], theirs.params[1:], atol=3e-4)
    np.testing.assert_allclose(ours.predict(X, offset), theirs.predict(sm.add_constant(X), offset=OFFSET), rtol=1e-3)


def test_an_offset_of_the_squared_error_is_subtracted() -> None:
    y = X @ [1.0, 2.0, 0.0, 0.0] + OFFSET

    ours = poise.PathRegressor(strengths=[1e-6], **LINEAR).fit(X, y, offset=OFFSET)

    np.testing.assert_allclose(ours.predict(X, offset=OFFSET), y, atol=2e-3)
    assert ours.score(X, y, offset=OFFSET) > 0.9999


def test_predictions_after_a_fit_with_an_offset_need_one() -> None:
    fitted = poise.PathRegressor(strengths=[0.1], loss="poisson", **{**LINEAR, "max_iter": 20})
    fitted.fit(X, draw(1.0, MEAN), offset=OFFSET)

    with pytest.raises(ValueError, match="predict needs an offset, because the estimator was fitted with one"):
        fitted.predict(X)
    with pytest.raises(ValueError, match=r"offset must lie between ±50.*got 365\. Pass the logarithm of an exposure"):
        fitted.fit(X, draw(1.0, MEAN), offset=np.full(150, 365.0))


def test_an_offset_after_a_fit_without_one_is_refused(monkeypatch) -> None:
    fitted = poise.PathRegressor(strengths=[0.1], loss="poisson", **{**LINEAR, "max_iter": 20})
    fitted.fit(X, draw(1.0, MEAN))
    monkeypatch.delattr(fitted, "model_")  # the network is not needed

    with pytest.raises(
        ValueError, match="predict got an offset, but the estimator was fitted without one. Omit offset, or"
    ):
        fitted.predict(X, offset=OFFSET)


@pytest.mark.parametrize(
    ("arguments", "y", "message"),
    [
        ({"loss": "gamma"}, np.arange(150.0), r"loss='gamma' needs y > 0, got values from 0 to 149"),
        (
            {"loss": "poisson"},
            np.arange(150.0) - 1.0,
            r"loss='poisson' needs y >= 0, and not all 0, got values from -1",
        ),
        ({"loss": "tweedie"}, np.zeros(150), r"loss='tweedie' needs y >= 0, and not all 0"),
        ({"loss": "huber"}, MEAN, r"loss must be one of squared_error, poisson, gamma, tweedie, quantile, got 'huber'"),
        (
            {"loss": "tweedie", "power": 2.0},
            MEAN,
            r"power must be a number between 1 and 2 \(exclusive\), such as 1.5, got 2.0",
        ),
    ],
    ids=["gamma", "poisson", "tweedie", "unknown", "power"],
)
def test_targets_that_do_not_fit_the_loss_are_refused(arguments, y, message) -> None:
    with pytest.raises(ValueError, match=message):
        poise.PathRegressor(**arguments, **LINEAR).fit(X, y)


# ---------------------------------------------------------------- quantiles


@pytest.mark.parametrize("quantile", [0.2, 0.5])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_one_quantile_of_the_linear_model_is_that_of_quantile_regression(quantile, weight) -> None:
    y = X @ [1.0, -0.5, 0.2, 0.0] + np.random.default_rng(1).normal(size=150)

    ours = poise.PathRegressor(
        "l1", loss="quantile", quantile=quantile, strengths=[0.02], **{**LINEAR, "max_iter": 3000}
    ).fit(X, y, sample_weight=weight)  # fmt: skip

    target = (y - ours.center_) / ours.scale_
    theirs = QuantileRegressor(quantile=quantile, alpha=0.02, solver="highs").fit(X, target, sample_weight=weight)
    kernel, bias = coefficients_of(ours)[:-1], coefficients_of(ours)[-1]

    def objective(kernel: np.ndarray, bias: float) -> float:
        pinball = mean_pinball_loss(target, X @ kernel + bias, alpha=quantile, sample_weight=weight)
        return float(pinball + 0.02 * np.abs(kernel).sum())

    assert objective(kernel, bias) == pytest.approx(objective(theirs.coef_, theirs.intercept_), rel=1e-4)
    np.testing.assert_allclose(kernel, theirs.coef_, atol=0.02)
    assert ours.predict(X).shape == (150,)


def test_several_quantiles_do_not_cross_and_cover_their_share() -> None:
    random, quantiles = np.random.default_rng(0), (0.1, 0.5, 0.9)
    x = random.uniform(-1.0, 1.0, size=(600, 1))
    y = 3.0 * x[:, 0] + np.exp(x[:, 0]) * random.normal(size=600)

    fitted = poise.PathRegressor(
        loss="quantile", quantile=quantiles, strengths=[1e-5], cv=2, hidden_layer_sizes=(16,), early_stopping=False
    ).fit(x, y)

    predicted = fitted.predict(x)
    assert (np.diff(predicted, axis=1) > 0).all()
    assert (np.diff(fitted.predict(np.linspace(-30.0, 30.0, 50)[:, None]), axis=1) >= 0).all()
    np.testing.assert_allclose((y[:, None] <= predicted).mean(axis=0), quantiles, atol=0.02)
    truth = 3.0 * x + np.exp(x) * norm.ppf(quantiles)
    assert np.abs(predicted - truth).mean() < 0.25


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_the_pinball_loss_and_its_explained_share_are_those_of_scikit_learn(quantile, weight) -> None:
    predicted = X[:147, 0]  # with 150 rows, many constants would have the lowest loss
    y, weight = predicted + np.random.default_rng(1).normal(size=147), None if weight is None else weight[:147]
    task = make_task("quantile", {"quantiles": (quantile,)})

    scores = task.score_rows(y[:, None], predicted[:, None])
    score = Scorer(task, y[:, None], weight, None, 0).score(scores).value

    loss = mean_pinball_loss(y, predicted, alpha=quantile, sample_weight=weight)
    assert np.average(scores.losses, weights=weight) == pytest.approx(loss)
    assert score == pytest.approx(d2_pinball_score(y, predicted, alpha=quantile, sample_weight=weight), rel=1e-9)
    assert task.measure(y, predicted[:, None], weight)["pinball loss"] == pytest.approx(loss)


def test_several_quantiles_have_no_score() -> None:
    fitted = poise.PathRegressor(loss="quantile", quantile=(0.1, 0.9), **{**LINEAR, "max_iter": 20}, strengths=[0.1])
    fitted.fit(X, X[:, 0])

    with pytest.raises(
        ValueError, match="score returns R², which is not defined for 2 quantiles. Use sklearn.metrics.d2_pinball"
    ):
        fitted.score(X, X[:, 0])


@pytest.mark.parametrize("quantile", [0.0, (0.9, 0.1), (), "0.5"], ids=["zero", "descending", "none", "text"])
def test_quantiles_that_cannot_be_used_are_refused(quantile) -> None:
    with pytest.raises(
        ValueError, match=r"quantile must be a number between 0 and 1 \(exclusive\), or an ascending sequence of them"
    ):
        poise.PathRegressor(loss="quantile", quantile=quantile).fit(X, X[:, 0])


# ---------------------------------------------------------------- several outputs


def make_outputs() -> np.ndarray:
    """Return two targets on different scales, which depend on the first two features."""
    random = np.random.default_rng(3)
    signal = X @ np.array([[1.0, -0.5], [0.5, 1.0], [0.0, 0.0], [0.0, 0.0]])
    return (signal + 0.5 * random.normal(size=(150, 2))) * [1.0, 1000.0] + [5.0, 0.0]


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_several_outputs_of_the_linear_model_are_those_of_ridge(weight) -> None:
    y = make_outputs()

    ours = poise.PathRegressor(strengths=[STRENGTH], **LINEAR).fit(X, y, sample_weight=weight)

    center = np.average(y, axis=0, weights=weight)
    scale = np.sqrt(np.average((y - center) ** 2, axis=0, weights=weight))
    total = 150.0 if weight is None else weight.sum()
    theirs = Ridge(alpha=2 * total * STRENGTH).fit(X, (y - center) / scale, sample_weight=weight)
    np.testing.assert_allclose(ours.model_.get_weights()[0], theirs.coef_.T, atol=1e-4)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X) * scale + center, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(ours.center_, center)
    assert ours.score(X, y) == pytest.approx(r2_score(y, ours.predict(X)))


def test_the_group_lasso_of_several_outputs_is_the_multitask_lasso() -> None:
    y = make_outputs()

    ours = poise.PathRegressor("group", strengths=[0.2], **LINEAR).fit(X, y)

    theirs = MultiTaskLasso(alpha=0.2).fit(X, (y - y.mean(axis=0)) / y.std(axis=0))
    np.testing.assert_allclose(ours.model_.get_weights()[0], theirs.coef_.T, atol=1e-4)
    assert np.asarray(ours.feature_mask_).tolist() == [True, True, False, False]


def test_several_outputs_with_hidden_layers_and_pieces() -> None:
    y = np.column_stack([X[:, 0], np.abs(X[:, 1])])

    fitted = poise.PathRegressor(
        "group", strengths=[1e-3], cv=2, max_iter=200, hidden_layer_sizes=(8,), encoding="piecewise"
    ).fit(X, y)  # fmt: skip

    assert fitted.predict(X).shape == (150, 2)
    assert fitted.score(X, y) > 0.9


def test_several_outputs_need_the_squared_error_and_no_offset() -> None:
    with pytest.raises(ValueError, match="1d array"):
        poise.PathRegressor(loss="poisson", **LINEAR).fit(X, np.ones((150, 2)))
    with pytest.raises(ValueError, match=r"offset needs y of shape \(rows,\), got several outputs"):
        poise.PathRegressor(**LINEAR).fit(X, make_outputs(), offset=OFFSET)


def test_quantiles_take_no_offset() -> None:
    with pytest.raises(
        ValueError,
        match=r"offset cannot be combined with loss='quantile'\. Omit offset, and subtract it from y instead\.",
    ):
        poise.PathRegressor(loss="quantile", **LINEAR).fit(X, X[:, 0], offset=OFFSET)


# ---------------------------------------------------------------- class weights


@pytest.mark.parametrize("class_weight", ["balanced", {"a": 4.0}], ids=["balanced", "dict"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_class_weights_are_those_of_logistic_regression(class_weight, classes, weight) -> None:
    signal = X @ [1.0, -1.0, 0.0, 0.0] + np.random.default_rng(2).normal(size=150)
    y = np.array(["a", "b", "c"])[np.digitize(signal, [-1.0, 1.5][: classes - 1])]

    ours = poise.PathClassifier(strengths=[STRENGTH], class_weight=class_weight, **LINEAR).fit(
        X, y, sample_weight=weight
    )

    labels, rows = np.unique(y, return_inverse=True)
    full = dict.fromkeys(labels, 1.0) | (class_weight if isinstance(class_weight, dict) else {})
    of_class = compute_class_weight(
        class_weight if class_weight == "balanced" else full, classes=labels, y=y, sample_weight=weight
    )
    total = (of_class[rows] * (1.0 if weight is None else weight)).sum()
    theirs = LogisticRegression(C=1.0 / (ALPHA * total), class_weight=class_weight, tol=1e-8, max_iter=1000)
    theirs.fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=5e-4)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("even", "class_weight must be 'balanced' or a dict from classes to weights, got 'even'"),
        ({"c": 2.0}, "class_weight names 'c', which is not a class. The classes are 'a', 'b'"),
        ({"a": 0.0}, "class_weight must have positive and finite weights, got 0.0 for the class 'a'"),
    ],
    ids=["text", "unknown", "zero"],
)
def test_class_weights_that_cannot_be_used_are_refused(class_weight, message) -> None:
    y = np.where(X[:, 0] > 0, "a", "b")

    with pytest.raises(ValueError, match=message):
        poise.PathClassifier(class_weight=class_weight, **LINEAR).fit(X, y)


# ---------------------------------------------------------------- deviances and scores


@pytest.mark.parametrize(("task", "power"), [("counts", 1.0), ("gamma", 2.0), ("tweedie", 1.5), ("tweedie", 1.2)])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_deviances_and_their_explained_share_are_those_of_scikit_learn(task, power, weight) -> None:
    y = draw(power, MEAN)
    posed = make_task(task, {"tweedie_power": power})

    scores = posed.score_rows(y[:, None], MEAN[:, None])
    score = Scorer(posed, y[:, None], weight, None, 0).score(scores)

    deviance = mean_tweedie_deviance(y, MEAN, power=power, sample_weight=weight)
    assert np.average(scores.score_terms, weights=weight) == pytest.approx(deviance, rel=1e-6)
    assert score.value == pytest.approx(d2_tweedie_score(y, MEAN, power=power, sample_weight=weight), rel=1e-6)
    assert score.low < score.value < score.high
    assert posed.measure(y, MEAN, weight)["deviance"] == pytest.approx(deviance, rel=1e-6)


@pytest.mark.parametrize(("task", "power"), [("counts", 1.0), ("gamma", 2.0), ("tweedie", 1.5), ("tweedie", 1.2)])
def test_a_rate_with_its_weight_has_the_loss_of_the_target_up_to_a_constant(task, power) -> None:
    posed, y = make_task(task, {"tweedie_power": power}), draw(power, MEAN * np.exp(OFFSET))

    rates, weight = posed.remove_offset(y, OFFSET), posed.offset_weight(OFFSET)

    for first, second in ((MEAN, 2.0 * MEAN), (MEAN, np.ones(150))):
        ours = weight @ (
            posed.row_losses(rates[:, None], second[:, None]) - posed.row_losses(rates[:, None], first[:, None])
        )
        parts = [mean_tweedie_deviance(y, mean * np.exp(OFFSET), power=power) for mean in (first, second)]
        assert ours == pytest.approx(150 * (parts[1] - parts[0]) / 2, rel=1e-5)
    np.testing.assert_allclose(posed.add_offset(rates, OFFSET), y, rtol=1e-12)


@pytest.mark.parametrize("task", ["gamma", "tweedie", "quantile"])
def test_losses_are_saved_with_their_options(task, tmp_path) -> None:
    posed = make_task(task, {"tweedie_power": 1.3, "quantiles": (0.3,)})
    model: Any = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation=posed.make_activation())])
    model.compile("adam", posed.make_loss())
    y, mean = np.array([[0.5], [2.0]], "float32"), np.array([[1.0], [0.0]], "float32")
    model.fit(np.ones((2, 2)), y, verbose=0)
    model.save(tmp_path / "model.keras")

    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.loss.get_config() == model.loss.get_config()
    assert float(loaded.loss(y, mean)) == float(model.loss(y, mean)) < np.inf
