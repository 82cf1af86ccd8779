"""Compare the test scores of a study with those of other methods on the same rows.

    python benchmarks/study.py                                  # four tables, 10 splits, with LassoNet: hours
    python benchmarks/study.py --tables wine --splits 5 --without lassonet mlp
    python benchmarks/study.py --out results.jsonl              # keep the results; the same command resumes

Every split has its own test rows, the same for all methods. All methods get the inputs that the study makes, and choose
their settings on the training rows by four folds. The table shows the mean score (R² or accuracy) on the test rows with
its standard error over the splits, the mean of the paired differences to the study's choice with its standard error,
the mean loss (squared error or cross-entropy), and the median time in seconds. The study trains its baseline, the
reference models and all penalties at once, so only its total time is shown.
"""

import argparse
import importlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import json_lines
import numpy as np
import pandas as pd

os.environ["KERAS_BACKEND"] = "jax"
TABLES = ("wine", "diabetes", "breast_cancer", "digits")
STUDY = "study"


@dataclass(frozen=True)
class Result:
    """What is known about one method on one split: a line of the file of results."""

    table: str
    split: int
    method: str
    title: str
    score: float
    loss: float
    seconds: float | None


@dataclass(frozen=True)
class Split:
    """A table with the test rows of a seed."""

    name: str
    seed: int

    @cached_property
    def table(self) -> Any:
        from poise.study.tables import read

        return read(self.name)

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Training x and y, test x and y, encoded and standardized as in the study."""
        from poise.study.columns.folds import encode_folds
        from poise.study.splits import split_folds, split_test_rows

        table = self.table
        training, testing = split_test_rows(table, 0.2, self.seed)
        folds = encode_folds(table, training, split_folds(table, training, 4, self.seed))
        x = folds.encoder.transform(table.features)
        if table.classes:
            y = pd.Categorical(table.target, categories=list(table.classes)).codes.astype("int64")
        else:
            y = ((table.target - folds.center) / folds.scale).to_numpy()
        return x[training], y[training], x[testing], y[testing]

    @property
    def has_classes(self) -> bool:
        return bool(self.table.classes)

    def result(self, method: str, title: str, score: float, loss: float, seconds: float | None) -> Result:
        return Result(self.name, self.seed, method, title, score, loss, seconds)

    def score_model(self, method: str, title: str, fit: Callable[[np.ndarray, np.ndarray], Any]) -> list[Result]:
        """Fit an estimator of scikit-learn on the training rows, and score it on the test rows."""
        from sklearn.metrics import accuracy_score, log_loss, r2_score
        from threadpoolctl import threadpool_limits

        x, y, x_test, y_test = self.rows
        start = time.perf_counter()
        with threadpool_limits(1):  # several threads per small matrix make LassoNet ten times slower
            model = fit(x, y)
        seconds = time.perf_counter() - start
        if self.has_classes:
            shares = model.predict_proba(x_test)
            score = float(accuracy_score(y_test, shares.argmax(axis=1)))
            loss = float(log_loss(y_test, shares, labels=range(shares.shape[1])))
        else:
            predictions = np.ravel(model.predict(x_test))
            score, loss = float(r2_score(y_test, predictions)), float(np.mean((y_test - predictions) ** 2))
        return [self.result(method, title, score, loss, seconds)]


def run_study(split: Split) -> list[Result]:
    """Return the scores of the study's choice, of its baseline, and of the reference models."""
    import poise

    start = time.perf_counter()
    findings = poise.run_study(split.name, seed=split.seed).findings
    seconds = time.perf_counter() - start
    parts = [(STUDY, "poise study", findings.best), ("baseline", "  early stopping, no penalty", findings.baseline)]
    parts += [(reference.name, f"  {reference.title}", reference) for reference in findings.references]
    return [
        split.result(name, title, part.score.value, part.test_loss.value, seconds if name == STUDY else None)
        for name, title, part in parts
    ]


def search_mlp(split: Split) -> list[Result]:
    """Return the score of scikit-learn's MLP, whose alpha and early stopping a grid search chooses."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    grid = {"alpha": np.logspace(-5, 2, 12), "early_stopping": [False, True]}
    network = MLPClassifier if split.has_classes else MLPRegressor
    search = GridSearchCV(network(hidden_layer_sizes=(64,), max_iter=500, random_state=split.seed), grid, cv=4)
    return split.score_model("mlp", "MLP by grid search", search.fit)


def fit_lassonet(split: Split) -> list[Result]:
    """Return the score of LassoNet with cross-validation."""
    lassonet = importlib.import_module("lassonet")  # no import: it is missing where types are checked
    estimator = lassonet.LassoNetClassifierCV if split.has_classes else lassonet.LassoNetRegressorCV
    model = estimator(hidden_dims=(64,), random_state=split.seed, torch_seed=split.seed, verbose=0, cv=4)

    def fit(x: np.ndarray, y: np.ndarray) -> Any:
        model.path(x, y if split.has_classes else y[:, None].astype("float32"))
        return model

    return split.score_model("lassonet", "LassoNetCV", fit)


METHODS: dict[str, Callable[[Split], list[Result]]] = {STUDY: run_study, "lassonet": fit_lassonet, "mlp": search_mlp}


def run_split(split: Split, methods: list[str], results: list[Result], out: Path | None) -> None:
    """Append the results of the methods that are not there yet, also to the file."""
    finished = {result.method for result in results if (result.table, result.split) == (split.name, split.seed)}
    for method in methods:
        if method in finished:
            continue
        new = METHODS[method](split)
        results += new
        json_lines.append(out, map(asdict, new))


def print_table(name: str, results: pd.DataFrame) -> None:
    """Print a row per method, and whether the study's choice is as good as the best row."""
    scores = results.pivot(index="split", columns="method", values="score").dropna()
    rows = results[results["split"].isin(scores.index)].groupby("method", sort=False)
    print(f"\n{name}, {len(scores)} splits")
    print(f"  {'method':<30} {'score ± SE':>17} {'difference ± SE':>19} {'loss':>8} {'seconds':>8}")
    differences = {}
    for method, group in rows:
        difference = scores[method] - scores[STUDY]
        differences[method] = difference.mean(), standard_error(difference)
        seconds = group["seconds"].median()
        print(
            f"  {group['title'].iloc[0]:<30} {scores[method].mean():>8.4f} ± {standard_error(scores[method]):.4f} "
            + (" " * 19 if method == STUDY else "{:>+10.4f} ± {:.4f}".format(*differences[method]))
            + f" {group['loss'].mean():>8.4f} {'' if np.isnan(seconds) else f'{seconds:.1f}':>8}"
        )
    best = max(differences, key=lambda method: differences[method][0])
    lead, error = differences[best]
    if lead <= 0:
        print(f"{name}: the study's choice is the best row.", flush=True)
    else:
        title = results.loc[results["method"] == best, "title"].iloc[0].strip()
        verdict = "within" if lead <= error else "NOT within"
        print(
            f"{name}: the study's choice is {verdict} one standard error of the best row, {title} "
            f"(+{lead:.4f} ± {error:.4f}).",
            flush=True,
        )


def standard_error(values: pd.Series) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description="Test scores of a study and of other methods.")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=[*TABLES])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--without", nargs="*", choices=[name for name in METHODS if name != STUDY], default=[])
    parser.add_argument("--out", type=Path, help="JSON lines; finished work in this file is not repeated")
    arguments = parser.parse_args()
    methods = [name for name in METHODS if name not in arguments.without]
    results = [Result(**line) for line in json_lines.read(arguments.out)]
    for name in arguments.tables:
        for seed in range(arguments.splits):
            run_split(Split(name, seed), methods, results, arguments.out)
        frame = pd.DataFrame(map(asdict, results))
        is_shown = (frame["table"] == name) & (frame["split"] < arguments.splits)
        print_table(name, frame[is_shown & ~frame["method"].isin(arguments.without)])


if __name__ == "__main__":
    main()
