"""Reference models predict what scikit-learn's own models do, on the folds of the study."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import (
    GammaRegressor,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.metrics import log_loss, mean_squared_error

from poise.path.training import Replica
from poise.study.candidates.references import REFERENCES, fit_reference
from poise.study.columns.folds import Folds
from poise.study.tasks.base import ALPHAS
from poise.study.tasks.table import make_task

ROWS, FOLD = 120, 40
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, 3)).astype("float32")
X_TEST = RANDOM.normal(size=(30, 3)).astype("float32")
SIGNAL = X @ np.array([1.0, -0.5, 0.0])
TARGETS: dict[str, Any] = {
    "regression": (SIGNAL + RANDOM.normal(size=ROWS))[:, None].astype("float32"),
    "binary": (SIGNAL + RANDOM.normal(size=ROWS) > 0)[:, None].astype("float32"),
    "multiclass": np.digitize(SIGNAL + RANDOM.normal(size=ROWS), [-0.5, 0.5]).astype("int32"),
    "counts": RANDOM.poisson(np.exp(0.5 * SIGNAL))[:, None].astype("float32"),
    "gamma": RANDOM.gamma(2.0, np.exp(0.5 * SIGNAL))[:, None].astype("float32"),
    "tweedie": (RANDOM.poisson(np.exp(0.5 * SIGNAL)) * RANDOM.gamma(2.0, size=ROWS))[:, None].astype("float32"),
}

TREES: dict[str, Any] = {"early_stopping": False, "random_state": 0}


def rows_of(task: str, weight: np.ndarray | None = None) -> Folds:
    every = np.arange(ROWS)
    replicas = [
        Replica(fold, 0, np.delete(every, held), held)
        for fold, held in enumerate(every[first : first + FOLD] for first in range(0, ROWS, FOLD))
    ]
    encoder: Any = None
    return Folds(X, TARGETS[task], weight, [*replicas, Replica(-1, 0, every, every[:0])], encoder, 0.0, 1.0)


def fit(name: str, task: str, weight: np.ndarray | None = None) -> Any:
    model = next(model for model in REFERENCES if model.name == name)
    return fit_reference(
        model, make_task(task), rows_of(task, weight), X_TEST, {"multiclass": 3, "binary": 2}.get(task, 0)
    )


def held_rows() -> list[np.ndarray]:
    return [replica.held for replica in rows_of("regression").replicas[:-1]]


def fold_rows() -> list[np.ndarray]:
    return [replica.train for replica in rows_of("regression").replicas[:-1]]


def test_the_mean_of_each_fold() -> None:
    y = TARGETS["regression"][:, 0]

    outputs = fit("mean", "regression")

    for train, held, loss, predicted in zip(
        fold_rows(), held_rows(), outputs.fold_losses, outputs.held_outputs, strict=True
    ):
        np.testing.assert_allclose(predicted, y[train].mean(), rtol=1e-5)
        assert loss == pytest.approx(np.mean((y[held] - y[train].mean()) ** 2), rel=1e-5)


@pytest.mark.parametrize("name", ["mean", "linear", "boosted_trees"])
def test_every_quantile_has_its_own_model(name) -> None:
    y, quantiles = TARGETS["regression"][:, 0], (0.2, 0.7)
    task = make_task("quantile", {"quantiles": quantiles})
    model = next(model for model in REFERENCES if model.name == name)

    outputs = fit_reference(model, task, rows_of("regression"), X_TEST, 0).test_outputs

    def make(quantile: float) -> list[Any]:
        if name == "mean":
            return [DummyRegressor(strategy="quantile", quantile=quantile)]
        if name == "linear":
            return [QuantileRegressor(quantile=quantile, alpha=10.0**exponent) for exponent in range(-4, 1)]
        return [HistGradientBoostingRegressor(loss="quantile", quantile=quantile, **TREES)]

    models = zip(*(make(quantile) for quantile in quantiles), strict=True)
    expected = [np.sort([each.fit(X, y).predict(X_TEST) for each in of_setting], axis=0).T for of_setting in models]
    assert min(np.abs(outputs - each).max() for each in expected) < 1e-5


def test_class_frequencies() -> None:
    y = TARGETS["multiclass"]

    outputs = fit("mean", "multiclass")

    frequencies = np.bincount(y[fold_rows()[0]]) / len(fold_rows()[0])
    odds = np.exp(outputs.held_outputs[0])
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), np.tile(frequencies, (FOLD, 1)), rtol=1e-6)
    assert outputs.fold_losses[0] == pytest.approx(
        log_loss(y[held_rows()[0]], np.tile(frequencies, (FOLD, 1)), labels=[0, 1, 2]), rel=1e-6
    )
    binary = fit("mean", "binary")
    share = TARGETS["binary"][fold_rows()[0]].mean()
    np.testing.assert_allclose(binary.held_outputs[0], np.log(share / (1 - share)), rtol=1e-5)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_ridge_with_the_strength_of_the_lowest_held_out_loss(is_weighted) -> None:
    weight = np.random.default_rng(1).uniform(0.5, 2.0, ROWS).astype("float32") if is_weighted else None
    weights = np.ones(ROWS) if weight is None else weight.astype("float64")
    y = TARGETS["regression"][:, 0]

    def losses(alpha: float) -> list[float]:
        found = []
        for train, held in zip(fold_rows(), held_rows(), strict=True):
            model = Ridge(alpha * weights[train].sum()).fit(X[train].astype("float64"), y[train], weights[train])
            found.append(mean_squared_error(y[held], model.predict(X[held]), sample_weight=weights[held]))
        return found

    outputs = fit("linear", "regression", weight)

    best = min(ALPHAS, key=lambda alpha: np.mean(losses(alpha)))
    np.testing.assert_allclose(outputs.fold_losses, losses(best), rtol=1e-5)
    whole = Ridge(best * weights.sum()).fit(X.astype("float64"), y, weights)
    np.testing.assert_allclose(outputs.test_outputs[:, 0], whole.predict(X_TEST), rtol=1e-5, atol=1e-6)


def test_logistic_regression() -> None:
    y = TARGETS["multiclass"]
    train, held = fold_rows()[0], held_rows()[0]
    models = [LogisticRegression(C=1 / (alpha * len(train)), max_iter=300).fit(X[train], y[train]) for alpha in ALPHAS]

    outputs = fit("linear", "multiclass")

    losses = [log_loss(y[held], model.predict_proba(X[held])) for model in models]
    assert min(abs(outputs.fold_losses[0] - loss) for loss in losses) < 1e-4
    binary = fit("linear", "binary")
    assert binary.fold_losses.mean() < fit("mean", "binary").fold_losses.mean()
    assert binary.test_outputs.shape == (30, 1)


LOG_LINKS: dict[str, Any] = {
    "counts": (lambda alpha: PoissonRegressor(alpha=alpha, max_iter=300), "poisson"),
    "gamma": (lambda alpha: GammaRegressor(alpha=alpha, max_iter=300), "gamma"),
    "tweedie": (lambda alpha: TweedieRegressor(power=1.5, alpha=alpha, link="log", max_iter=300), "poisson"),
}


@pytest.mark.parametrize("task", LOG_LINKS)
def test_linear_models_and_trees_with_a_log_link(task) -> None:
    make, loss = LOG_LINKS[task]
    y = TARGETS[task][:, 0]

    outputs, trees = fit("linear", task), fit("boosted_trees", task)

    expected = HistGradientBoostingRegressor(loss=loss, **TREES).fit(X, y)
    np.testing.assert_allclose(trees.test_outputs[:, 0], expected.predict(X_TEST), rtol=1e-5)
    models = [make(alpha).fit(X.astype("float64"), y) for alpha in ALPHAS]
    distances = [np.abs(model.predict(X_TEST) - outputs.test_outputs[:, 0]).max() for model in models]
    assert min(distances) < 1e-5


def test_a_setting_without_a_finite_loss_is_not_chosen() -> None:
    class Diverged(Ridge):
        def predict(self, X: Any) -> Any:
            return np.full(len(X), np.nan)

    linear = next(model for model in REFERENCES if model.name == "linear")
    settings = [lambda total: Diverged(), lambda total: Ridge(0.1 * total), lambda total: Diverged()]
    model = replace(linear, makers=lambda task, inputs: settings)

    outputs = fit_reference(model, make_task("regression"), rows_of("regression"), X_TEST, 0)

    assert np.isfinite(outputs.fold_losses).all()
    assert np.isfinite(outputs.test_outputs).all()


def test_counts_that_grow_without_bound_are_cut() -> None:
    rows = rows_of("counts")

    outputs = fit_reference(
        next(model for model in REFERENCES if model.name == "linear"), make_task("counts"), rows, X_TEST * 1e6, 0
    )

    assert np.isfinite(outputs.test_outputs).all()


def test_boosted_trees() -> None:
    train, held = fold_rows()[0], held_rows()[0]
    y = TARGETS["regression"][:, 0]
    trees = HistGradientBoostingRegressor(random_state=0).fit(X[train], y[train])
    np.testing.assert_allclose(
        fit("boosted_trees", "regression").held_outputs[0][:, 0], trees.predict(X[held]), rtol=1e-6
    )

    y = TARGETS["binary"][:, 0]
    classifier = HistGradientBoostingClassifier(random_state=0).fit(X[train], y[train])
    logits = fit("boosted_trees", "binary").held_outputs[0][:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), classifier.predict_proba(X[held])[:, 1], rtol=1e-6)


@pytest.mark.parametrize(("inputs", "bins"), [(1000, 255), (1001, 63)])
def test_trees_of_wide_tables_have_fewer_bins(inputs, bins) -> None:
    (trees,) = (model for model in REFERENCES if model.name == "boosted_trees")

    for task in TARGETS:
        (make,) = trees.makers(make_task(task), inputs)
        assert make(1.0).max_bins == bins
