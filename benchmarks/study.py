"""Compare the test scores of a study with those of other methods on the same rows.

    python benchmarks/study.py                    # diabetes, breast_cancer, wine, digits, with LassoNet
    python benchmarks/study.py wine --seeds 5
    python benchmarks/study.py planted            # which columns of planted tables a study selects
    python benchmarks/study.py --without-lassonet

Every seed has its own test rows, the same for all methods. The study has all default penalties; two more have only L2
(for prediction) and only the adaptive group lasso (which selects columns, as LassoNet does). The table shows means over
the seeds on the test rows: R² or accuracy, and squared error or cross-entropy; and the mean of the paired differences
in score with its standard error over the seeds. How long the methods take is measured by benchmarks/speed.py.
"""

import argparse
import importlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import selection

os.environ["KERAS_BACKEND"] = "jax"
TABLES = ("diabetes", "breast_cancer", "wine", "digits")
Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training x and y, test x and y."""
Scores = tuple[float, float]
"""R² and squared error, or accuracy and cross-entropy."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Test scores of a study and of other methods.")
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)} and planted; default: the first four")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without-lassonet", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        if name == "planted":
            report_planted(arguments.seeds)
        else:
            report_table(name, arguments.seeds, not arguments.without_lassonet)


def report_table(name: str, seeds: int, with_lassonet: bool) -> None:
    """Print the scores of all methods on a table."""
    methods: dict[str, Callable[[str, Rows, int], Scores]] = {
        "an untuned Keras network": fit_keras,
        "MLP, alpha by grid search": search_alpha,
        "a linear model": fit_linear,
    }
    if with_lassonet:
        methods["LassoNetCV"] = fit_lassonet
    results: dict[str, list[Scores]] = {}
    for seed in range(seeds):
        study, rows = run_on_rows(name, seed)
        results.setdefault("poise study", []).append(score_candidate(study.best))
        results.setdefault("  no penalty", []).append(score_candidate(study.baseline))
        for penalty in ("l2", "adaptive"):
            single, _ = run_on_rows(name, seed, penalties=[penalty])
            results.setdefault(f"  {penalty} only", []).append(score_candidate(single.best))
        for method, fit in methods.items():
            results.setdefault(method, []).append(fit(study.table.task, rows, seed))
    print(f"{name}, {seeds} seeds: score and loss on the test rows; the study's score minus theirs")
    study_scores = np.array(results["poise study"])[:, 0]
    for method, scores in results.items():
        mean_score, mean_loss = np.mean(scores, axis=0)
        difference = study_scores - np.array(scores)[:, 0]
        error = difference.std(ddof=1) / seeds**0.5 if seeds > 1 else np.nan
        print(
            f"  {method:<28} {mean_score:>7.4f}  {mean_loss:>7.4f}   {difference.mean():>+8.4f} ± {error:.4f}",
            flush=True,
        )


def run_on_rows(name: str | Path, seed: int, **options: Any) -> tuple[Any, Rows]:
    """Return the findings of a study, and its rows as arrays."""
    import poise
    from poise.study.splits import split_test_rows

    findings = poise.run_study(name, seed=seed, **options).findings
    table = findings.table
    training, testing = split_test_rows(table, findings.settings.test, seed)
    x = findings.encoder.transform(table.features)
    if table.classes:
        y = table.target.map({label: number for number, label in enumerate(table.classes)}).to_numpy()
    else:
        y = ((table.target - findings.center) / findings.scale).to_numpy()
    return findings, (x[training], y[training], x[testing], y[testing])


def score_candidate(candidate: Any) -> Scores:
    """Return the scores of a candidate of a study on the test rows."""
    return candidate.score.value, candidate.test_loss.value


def fit_keras(task: str, rows: Rows, seed: int) -> Scores:
    import keras

    x, y, x_test, y_test = rows
    keras.utils.set_random_seed(seed)
    outputs = 1 if task == "regression" else len(np.unique(y))
    model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(outputs)])
    model.compile("adam", "mse" if outputs == 1 else keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=100, verbose=0)
    predictions = model.predict(x_test, verbose=0)
    if outputs == 1:
        return score_numbers(y_test, predictions[:, 0])
    odds = np.exp(predictions - predictions.max(axis=1, keepdims=True))
    return score_classes(y_test, odds / odds.sum(axis=1, keepdims=True))


def search_alpha(task: str, rows: Rows, seed: int) -> Scores:
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    x, y, x_test, y_test = rows
    network = MLPRegressor if task == "regression" else MLPClassifier
    grid = {"alpha": np.logspace(-4, 2, 7)}
    search = GridSearchCV(network(hidden_layer_sizes=(64,), max_iter=500, random_state=seed), grid, cv=4)
    return score_model(task, search.fit(x, y), x_test, y_test)


def fit_linear(task: str, rows: Rows, seed: int) -> Scores:
    from sklearn.linear_model import LassoCV, LogisticRegressionCV

    x, y, x_test, y_test = rows
    model = LassoCV(cv=4, random_state=seed) if task == "regression" else LogisticRegressionCV(cv=4, max_iter=2000)
    return score_model(task, model.fit(x, y), x_test, y_test)


def fit_lassonet(task: str, rows: Rows, seed: int) -> Scores:
    lassonet = importlib.import_module("lassonet")  # no import: it is missing where types are checked
    x, y, x_test, y_test = rows
    estimator = lassonet.LassoNetRegressorCV if task == "regression" else lassonet.LassoNetClassifierCV
    model = estimator(hidden_dims=(64,), random_state=seed, torch_seed=seed, verbose=0, cv=4)
    model.path(x, y[:, None].astype("float32") if task == "regression" else y)
    return score_model(task, model, x_test, y_test)


def score_model(task: str, model: Any, x: np.ndarray, y: np.ndarray) -> Scores:
    if task == "regression":
        return score_numbers(y, np.ravel(model.predict(x)))
    return score_classes(y, model.predict_proba(x))


def score_numbers(y: np.ndarray, predictions: np.ndarray) -> Scores:
    """Return R² and squared error."""
    from sklearn.metrics import r2_score

    return float(r2_score(y, predictions)), float(np.mean((y - predictions) ** 2))


def score_classes(y: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Return accuracy and cross-entropy."""
    from sklearn.metrics import accuracy_score, log_loss

    accuracy = accuracy_score(y, probabilities.argmax(axis=1))
    return float(accuracy), float(log_loss(y, probabilities, labels=range(probabilities.shape[1])))


def report_planted(seeds: int) -> None:
    """Print which columns a study of a CSV file selects, how stable they are, and LassoCV's score on the same rows."""
    selection.TABLES["straight lines"] = (600, 50, 10, selection.linear, 0.3, None)
    for kind in ("mixed", "straight lines"):
        results = []
        for seed in range(seeds):
            x, y, _, _, useful = selection.table(kind, seed)
            frame = pd.DataFrame(x, columns=[f"x{number}" for number in range(x.shape[1])]).assign(y=y)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "planted.csv")
                frame.to_csv(file, index=False)
                findings, rows = run_on_rows(file, seed, target="y", penalties=["adaptive"])
            best = findings.best
            selected = {int(column[1:]) for column in best.selected}
            stability = best.stability.to_numpy()
            is_useful = np.array([int(column[1:]) in useful for column in best.stability.index])
            results.append((
                len(selected & useful), len(selected - useful), stability[is_useful].mean(),
                stability[~is_useful].mean(), best.score.value, fit_linear("regression", rows, seed)[0],
            ))  # fmt: skip
        mean = np.mean(results, axis=0)
        print(
            f"planted, {kind}, {seeds} seeds: true columns {mean[0]:.1f}, false {mean[1]:.1f}; stability of true "
            f"columns {mean[2]:.0%}, of false ones {mean[3]:.1%}; R² on test rows {mean[4]:.4f}, LassoCV "
            f"{mean[5]:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
