"""The estimators: scikit-learn's own checks, closed forms of linear models, and what estimators are put into."""

import doctest
import random
from typing import Any

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.inspection import permutation_importance
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import poise
from poise.study import estimators
from poise.study.errors import DataError

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (8,),
    "strengths": [1e-3, 0.1],
    "cv": 2,
    "max_iter": 30,
    "learning_rate": 0.1,
}
LINEAR: dict[str, Any] = {
    "early_stopping": False,
    "hidden_layer_sizes": (),
    "cv": 2,
    "max_iter": 600,
    "learning_rate": 0.1,
}


LEFT_OUT = ("check_sample_weight_equivalence_on_dense_data", "check_array_api_input")
"""The first asks for seven digits, and float32 has six; see test_a_weight_counts_as_so_many_rows. The second is for
estimators that support the array API."""


def estimator_checks() -> list[tuple[Any, Any]]:
    """All checks of scikit-learn for the regressor, and those that only a classifier has."""
    regressor: list[Any] = [*estimator_checks_generator(poise.PathRegressor(**SMALL))]
    shared = {check.func.__name__ for _, check in regressor} - {"check_sample_weights_list", "check_dict_unchanged"}
    classifier: Any = estimator_checks_generator(poise.PathClassifier(**SMALL))
    checks = [*regressor, *(pair for pair in classifier if pair[1].func.__name__ not in shared)]
    return [pair for pair in checks if pair[1].func.__name__ not in LEFT_OUT]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [pytest.param(*pair, id=f"{type(pair[0]).__name__}-{pair[1].func.__name__}") for pair in estimator_checks()],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_the_estimator(estimator, check) -> None:
    check(estimator)


def table(rows=60, features=5, seed=0) -> Any:
    """X on very different scales, and y that depends on its first two columns."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)) * 10.0 ** np.arange(features) + 3.0
    signal = X / 10.0 ** np.arange(features)
    return X, 50.0 + 20.0 * (signal[:, 0] - 2.0 * signal[:, 1]) + 5.0 * rng.normal(size=rows)


# ---------------------------------------------------------------- against closed forms


def standard(X, y, rows=slice(None), weight=None) -> Any:
    """All of X and y, by the means and deviations of some rows."""

    def scaled(values) -> Any:
        center = np.average(values[rows], axis=0, weights=weight)
        return (values - center) / np.sqrt(np.average((values[rows] - center) ** 2, axis=0, weights=weight))

    return scaled(X), scaled(y)


def test_without_hidden_layers_it_is_ridge() -> None:
    X, y = table()
    x, target = standard(X, y)

    result = poise.PathRegressor("l2", strengths=[0.05], **LINEAR).fit(X, y)

    ridge = Ridge(alpha=0.05 * len(y)).fit(x, target)
    np.testing.assert_allclose(result.predict(X), ridge.predict(x) * y.std() + y.mean(), rtol=1e-4)
    np.testing.assert_allclose(result.model_.get_weights()[0][:, 0], ridge.coef_, atol=1e-4)


def test_without_hidden_layers_it_is_the_lasso() -> None:
    X, y = table()
    x, target = standard(X, y)

    result = poise.PathRegressor("l1", strengths=[0.3], **LINEAR).fit(X, y)

    lasso = Lasso(alpha=0.15).fit(x, target)
    np.testing.assert_allclose(result.predict(X), lasso.predict(x) * y.std() + y.mean(), rtol=1e-4)
    np.testing.assert_array_equal(result.feature_mask_, lasso.coef_ != 0)
    assert 0 < np.asarray(result.feature_mask_).sum() < 5


@pytest.mark.parametrize("classes", [["no", "yes"], ["a", "b", "c"]])
def test_without_hidden_layers_it_is_logistic_regression(classes) -> None:
    X, y = table(90)
    labels = np.array(classes)[np.digitize(y, np.quantile(y, np.linspace(0, 1, len(classes) + 1)[1:-1]))]
    x, _ = standard(X, y)

    result = poise.PathClassifier("l2", strengths=[0.01], **LINEAR).fit(X, labels)

    other = LogisticRegression(C=1 / (2 * 0.01 * len(y)), tol=1e-8, max_iter=1000).fit(x, labels)
    assert result.classes_.tolist() == classes
    np.testing.assert_allclose(result.predict_proba(X), other.predict_proba(x), atol=1e-4)
    logits, theirs = result.decision_function(X), other.decision_function(x)
    if len(classes) > 2:  # which are free to move together
        logits, theirs = (values - values.mean(axis=1, keepdims=True) for values in (logits, theirs))
    np.testing.assert_allclose(logits, theirs, atol=1e-3)
    assert result.predict(X).tolist() == other.predict(x).tolist()
    assert result.score(X, labels) == other.score(x, labels)


def test_held_out_rows_have_no_part_in_the_standardization() -> None:
    X, y = table()
    X[:30] *= 4.0
    pairs = list(KFold(2).split(X))

    result = poise.PathRegressor("l2", strengths=[0.05, 0.5], **{**LINEAR, "cv": pairs}).fit(X, y)

    losses = []
    for train, held in pairs:
        x, target = standard(X, y, train)
        fits = [Ridge(alpha=s * len(train)).fit(x[train], target[train]) for s in (0.05, 0.5)]
        losses.append([np.mean((fit.predict(x[held]) - target[held]) ** 2) for fit in fits])
    np.testing.assert_allclose(result.path_.table["val_loss"], np.mean(losses, axis=0), rtol=1e-3)


def test_features_are_left_as_they_are_on_request() -> None:
    X, y = table(features=2)
    X, target = standard(X, y)
    X *= [1.0, 2.0]

    result = poise.PathRegressor("l2", strengths=[0.05], standardize=False, **LINEAR).fit(X, y)

    ridge = Ridge(alpha=0.05 * len(y)).fit(X, target)
    np.testing.assert_allclose(result.predict(X), ridge.predict(X) * y.std() + y.mean(), rtol=1e-4)
    assert result.scaler_ is None


def test_a_weight_counts_as_so_many_rows() -> None:
    X, y = table()
    times = np.arange(len(y)) % 4
    repeated = np.repeat(np.arange(len(y)), times)
    pairs = list(KFold(2).split(X))
    copies = [tuple(np.flatnonzero(np.isin(repeated, part)) for part in pair) for pair in pairs]

    weighted = poise.PathRegressor("l2", **{**SMALL, "cv": pairs}).fit(X, y, sample_weight=times)
    longer = poise.PathRegressor("l2", **{**SMALL, "cv": copies}).fit(X[repeated], y[repeated])

    np.testing.assert_allclose(weighted.predict(X), longer.predict(X), rtol=1e-4)
    np.testing.assert_allclose(weighted.center_, np.average(y, weights=times))
    np.testing.assert_allclose(weighted.path_.table["val_loss"], longer.path_.table["val_loss"], rtol=1e-3)


# ---------------------------------------------------------------- what is chosen


def test_the_model_is_that_of_the_chosen_strength() -> None:
    X, y = table(60)
    arguments = {"penalty": "group", **SMALL, "strengths": 9, "max_iter": 200, "early_stopping": False}

    best, sparse = (poise.PathRegressor(selection=selection, **arguments).fit(X, y) for selection in ("best", "one_se"))

    assert best.strength_ == best.path_.best_strength
    assert sparse.strength_ == sparse.path_.one_se_strength > best.strength_
    for result in (best, sparse):
        for ours, theirs in zip(result.model_.get_weights(), result.path_.weights(result.strength_), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(
            np.flatnonzero(np.asarray(result.feature_mask_)), result.path_.features(result.strength_)
        )
        inner = np.asarray(StandardScaler().fit_transform(X), "float32")
        outputs = result.model_.predict(inner, verbose=0)[:, 0]
        np.testing.assert_allclose(result.predict(X), outputs * y.std() + y.mean(), rtol=1e-5)
        assert 0 < result.n_iter_ <= 200


def test_of_adaptive_stages_the_one_with_the_lowest_held_out_loss_predicts() -> None:
    X, y = table(150, 8)
    arguments = {"hidden_layer_sizes": (), "strengths": 6, "cv": 3, "max_iter": 300, "learning_rate": 0.1}

    result = poise.PathRegressor("adaptive", **arguments).fit(X, y)
    by_hand = poise.PathRegressor("group", adaptive=2, selection="one_se", **arguments).fit(X, y)

    stages = [*by_hand.path_.stages, by_hand.path_]
    losses = [stage.table["val_loss"].min() for stage in stages]
    assert len(stages) == 3
    assert result.path_.table["val_loss"].min() == min(losses)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(by_hand.feature_mask_)), [0, 1])


@pytest.mark.parametrize(
    "penalty", [poise.L1(0.5), poise.Rule("*/kernel", poise.L1(1.0)), [poise.Rule(poise.Role.KERNELS, poise.L1(2.0))]]
)
def test_a_penalty_may_be_given_as_such(penalty) -> None:
    X, y = table()

    result, named = (poise.PathRegressor(each, **SMALL).fit(X, y) for each in (penalty, "l1"))

    np.testing.assert_array_equal(result.predict(X), named.predict(X))


def own_network(inputs, outputs) -> keras.Model:
    layers = [keras.layers.Dense(3, "tanh"), keras.layers.Dense(outputs)]
    return keras.Sequential([keras.Input((inputs,)), *layers], name="mine")


def test_a_custom_network_and_one_that_hides_which_inputs_it_reads() -> None:
    X, y = table()

    def summed(inputs, outputs) -> keras.Model:
        x = keras.Input((inputs,))
        return keras.Model(x, keras.layers.Dense(outputs)(keras.ops.cumsum(x, axis=1)))

    plain, hiding = (poise.PathRegressor(model=each, **SMALL).fit(X, y) for each in (own_network, summed))

    assert plain.model_.name == "mine"
    assert np.all(plain.feature_mask_)
    assert hiding.feature_mask_ is None
    assert np.isfinite(hiding.predict(X)).all()


def test_groups_stay_together_in_the_folds() -> None:
    X, y = table()
    groups = np.arange(len(y)) // 7

    by_number = poise.PathRegressor(**SMALL).fit(X, y, groups=groups)
    by_splitter = poise.PathRegressor(**{**SMALL, "cv": GroupKFold(2)}).fit(X, y, groups=groups)
    by_hand = poise.PathRegressor(**{**SMALL, "cv": list(GroupKFold(2).split(X, y, groups))}).fit(X, y)

    for result in (by_number, by_splitter):
        np.testing.assert_array_equal(result.path_.table["val_loss"], by_hand.path_.table["val_loss"])


def test_the_random_state_decides_and_nothing_else_is_touched() -> None:
    X, y = table()
    random.seed(3)
    np.random.seed(3)
    before = random.random(), np.random.rand()
    random.seed(3)
    np.random.seed(3)

    first, again, other = (poise.PathRegressor(random_state=n, **SMALL).fit(X, y).predict(X) for n in (1, 1, 2))
    by_state = poise.PathRegressor(random_state=np.random.RandomState(1), **SMALL).fit(X, y).predict(X)

    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, by_state)
    assert not np.allclose(first, other)
    assert (random.random(), np.random.rand()) == before


def test_seeds_are_more_draws_by_which_strengths_are_judged() -> None:
    X, y = table()

    # Early stopping would choose the lengths by the mean over all draws.
    result = poise.PathRegressor(n_init=2, early_stopping=False, **SMALL).fit(X, y)
    alone = poise.PathRegressor(early_stopping=False, **SMALL).fit(X, y)

    assert sorted(result.path_.lanes.table["seed"].unique()) == [0, 1]
    of_first = result.path_.lanes.table.query("seed == 0")["held_loss"]
    np.testing.assert_allclose(of_first, alone.path_.lanes.table["held_loss"], rtol=1e-5)


# ---------------------------------------------------------------- what estimators are put into


@pytest.fixture(scope="module")
def classified() -> Any:
    """A classifier that is fitted, and its rows with the names of their columns."""
    X, y = table(90, 4)
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    labels = np.where(y > np.median(y), "high", "low")
    return (
        poise.PathClassifier("group", **{**SMALL, "strengths": [0.08], "max_iter": 300}).fit(frame, labels),
        frame,
        labels,
    )


def test_joblib_saves_it(classified, tmp_path) -> None:
    result, frame, _ = classified

    joblib.dump(result, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")

    np.testing.assert_array_equal(again.predict_proba(frame), result.predict_proba(frame))
    np.testing.assert_array_equal(again.feature_mask_, result.feature_mask_)
    assert again.path_.best_strength == result.path_.best_strength
    pd.testing.assert_frame_equal(again.path_.table, result.path_.table)


def test_a_clone_has_the_parameters_and_no_fitted_attributes(classified) -> None:
    result, frame, labels = classified

    again: Any = clone(result)

    assert again.get_params() == result.get_params()
    assert not hasattr(again, "model_")
    np.testing.assert_array_equal(again.fit(frame, labels).predict_proba(frame), result.predict_proba(frame))


def test_a_penalty_that_is_an_object_is_cloned() -> None:
    again: Any = clone(poise.PathRegressor([poise.Rule("*/kernel", poise.GroupLasso(0.5, groups="inputs"))]))

    assert again.penalty[0].penalty.get_config() == poise.GroupLasso(0.5, groups="inputs").get_config()


def test_features_have_their_names(classified) -> None:
    result, frame, _ = classified

    assert result.feature_names_in_.tolist() == [*frame]
    assert result.path_.stability.index.tolist() == [*frame]
    with pytest.raises(ValueError, match="feature names should match"):
        result.predict(frame.rename(columns={"a": "z"}))


def test_a_feature_that_is_not_read_has_no_importance(classified) -> None:
    result, frame, labels = classified

    permuted: Any = permutation_importance(result, frame, labels, n_repeats=3, random_state=0)
    importance = permuted.importances_mean

    assert 0 < result.feature_mask_.sum() < 4
    assert (importance[~result.feature_mask_] == 0).all()
    assert importance[1] > 0.1


def test_in_a_pipeline_under_cross_validation() -> None:
    X, y = table(80, 2)
    pipeline: Any = make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), poise.PathRegressor(**SMALL)
    )
    pairs = list(KFold(2).split(X))

    scores = cross_val_score(pipeline, X, y, cv=pairs)

    by_hand = [pipeline.fit(X[train], y[train]).score(X[held], y[held]) for train, held in pairs]
    np.testing.assert_array_equal(scores, by_hand)
    assert min(scores) > 0.5


def test_classes_are_held_out_in_equal_shares() -> None:
    X, y = table(60)
    labels = (y > np.quantile(y, 0.8)).astype(int)

    result = poise.PathClassifier(**SMALL).fit(X, labels)
    by_hand = poise.PathClassifier(
        **{**SMALL, "cv": [*StratifiedKFold(2, shuffle=True, random_state=0).split(X, labels)]}
    ).fit(X, labels)

    np.testing.assert_array_equal(result.path_.table["val_loss"], by_hand.path_.table["val_loss"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"penalty": "ridge"}, DataError, "Unknown penalty 'ridge'. Use one of l2, l1"),
        (
            {"penalty": None},
            ValueError,
            "penalty must be a name such as 'l2', a penalty, a rule or a list of them, got None.",
        ),
        ({"penalty": poise.L1(0.0)}, ValueError, "has the strength 0"),
        ({"selection": "1se"}, ValueError, "selection must be 'best', 'one_se' or 'stable', got '1se'."),
        (
            {"hidden_layer_sizes": 64},
            TypeError,
            r"hidden_layer_sizes must be a tuple such as \(64,\) or \(\), got 64.",
        ),
        ({"hidden_layer_sizes": (0,)}, DataError, "hidden_layer_sizes must be positive whole numbers"),
        ({"cv": 1}, ValueError, "cv must be an int >= 2, got 1."),
        (
            {"cv": (np.ones(2), np.ones(2))},
            ValueError,
            "cv must be a number, a scikit-learn splitter or a list of pairs, got a tuple.",
        ),
        ({"strengths": 0}, ValueError, "strengths must be an int >= 1, got 0."),
        ({"strengths": [-1.0]}, ValueError, "strengths must be finite numbers >= 0, got -1.0"),
        ({"adaptive": -1}, ValueError, "adaptive must be an int >= 0, got -1."),
        ({"max_iter": 0}, DataError, "max_iter must be at least 1, got 0"),
        ({"n_init": 0}, DataError, "n_init must be at least 1, got 0"),
        ({"learning_rate": 0.0}, DataError, "learning_rate must be positive"),
        ({"model": lambda inputs, outputs: None}, DataError, "got NoneType for 5 inputs and 1 outputs"),
    ],
)
def test_parameters_that_cannot_be_are_refused(arguments, error, message) -> None:
    X, y = table(20)
    with pytest.raises(error, match=message):
        poise.PathRegressor(**{**SMALL, **arguments}).fit(X, y)


def test_weights_that_cannot_be_are_refused() -> None:
    X, y = table(20)
    for weight, ends in ((-np.ones(20), "-1 to -1"), (np.zeros(20), "0 to 0")):
        with pytest.raises(
            ValueError, match=f"sample_weight must be >= 0, and not zero in all rows, got values from {ends}"
        ):
            poise.PathRegressor(**SMALL).fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="at least two classes among the rows with a positive sample_weight, got 1"):
        poise.PathClassifier(**SMALL).fit(X, y > y.mean(), sample_weight=y > y.mean())
    with pytest.raises(ValueError, match="y must have at least two classes, got 1"):
        poise.PathClassifier(**SMALL).fit(X, y > np.inf)


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(estimators).failed == 0
