"""Compare the test scores of a study with those of other methods on the same rows.

    python benchmarks/study.py                    # diabetes, breast_cancer, wine, digits, with LassoNet
    python benchmarks/study.py wine --n-init 5
    python benchmarks/study.py planted            # which columns of planted tables a study selects
    python benchmarks/study.py --without-lassonet

Every seed has its own test rows, the same for all methods. The study has all default penalties; two more have only L2
(for prediction) and only the adaptive group lasso (which selects columns, as LassoNet does). The table shows means over
the seeds on the test rows: R² or accuracy, and squared error or cross-entropy; the median time of one run without
imports; and the mean of the paired differences in score with its standard error over the seeds.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import selection

os.environ["KERAS_BACKEND"] = "jax"
TABLES = ("diabetes", "breast_cancer", "wine", "digits")


def main():
    parser = argparse.ArgumentParser(description="Test scores of a study and of others.")
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)} and planted; the first four without one")
    parser.add_argument("--n-init", type=int, default=3)
    parser.add_argument("--without-lassonet", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        if name == "planted":
            planted(arguments.n_init)
        else:
            compare(name, arguments.n_init, not arguments.without_lassonet)


def compare(name: str, seeds: int, with_lassonet: bool) -> None:
    methods = {"an untuned Keras network": untuned, "MLP, alpha by grid search": searched, "a linear model": linear}
    if with_lassonet:
        methods["LassoNetCV"] = lassonet
    results = {}
    for seed in range(seeds):
        start = time.perf_counter()
        study, rows = run_on_rows(name, seed)
        seconds = time.perf_counter() - start
        best, baseline = study.best, study.baseline
        results.setdefault("poise study", []).append((best.score.value, best.test_loss.value, seconds))
        results.setdefault("  no penalty", []).append((baseline.score.value, baseline.test_loss.value, np.nan))
        for penalty in ("l2", "adaptive"):
            start = time.perf_counter()
            single = run_on_rows(name, seed, penalties=[penalty])[0].best
            seconds = time.perf_counter() - start
            results.setdefault(f"  {penalty} only", []).append((single.score.value, single.test_loss.value, seconds))
        for method, run in methods.items():
            start = time.perf_counter()
            value, loss = run(study.table.task, *rows, seed)
            results.setdefault(method, []).append((value, loss, time.perf_counter() - start))
    print(f"{name}, {seeds} seeds: score, loss on the test rows, seconds; study's score minus theirs")
    study_scores = np.array(results["poise study"])[:, 0]
    for method, rows in results.items():
        mean_score, loss, _ = np.mean(rows, axis=0)
        more = study_scores - np.array(rows)[:, 0]
        print(
            f"  {method:<28} {mean_score:>7.4f}  {loss:>7.4f}  {np.median(rows, axis=0)[2]:>7.1f}"
            f"   {more.mean():>+8.4f} ± {more.std(ddof=1) / seeds**0.5 if seeds > 1 else np.nan:.4f}",
            flush=True,
        )


def run_on_rows(name: str | Path, seed: int, **options):
    """Return the findings of a study, and its rows as arrays: training x and y, test x and y."""
    import poise
    from poise.study.splits import split_test_rows

    found = poise.run_study(name, seed=seed, **options).findings
    training, testing = split_test_rows(found.table, found.settings.test, seed)
    x = found.encoder.transform(found.table.features)
    if found.table.classes:
        y = found.table.target.map({label: number for number, label in enumerate(found.table.classes)}).to_numpy()
    else:
        y = ((found.table.target - found.center) / found.scale).to_numpy()
    return found, (x[training], y[training], x[testing], y[testing])


def untuned(task, x, y, xt, yt, seed):
    import keras

    keras.utils.set_random_seed(seed)
    outputs = 1 if task == "regression" else len(np.unique(y))
    model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(outputs)])
    model.compile("adam", "mse" if outputs == 1 else keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=100, verbose=0)
    said = model.predict(xt, verbose=0)
    if outputs == 1:
        return score(yt, said[:, 0])
    odds = np.exp(said - said.max(axis=1, keepdims=True))
    return score(yt, None, odds / odds.sum(axis=1, keepdims=True))


def searched(task, x, y, xt, yt, seed):
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPRegressor if task == "regression" else MLPClassifier
    grid = {"alpha": np.logspace(-4, 2, 7)}
    model = GridSearchCV(kind(hidden_layer_sizes=(64,), max_iter=500, random_state=seed), grid, cv=4).fit(x, y)
    return score_model(task, model, xt, yt)


def linear(task, x, y, xt, yt, seed):
    from sklearn.linear_model import LassoCV, LogisticRegressionCV

    if task == "regression":
        return score_model(task, LassoCV(cv=4, random_state=seed).fit(x, y), xt, yt)
    return score_model(task, LogisticRegressionCV(cv=4, max_iter=2000).fit(x, y), xt, yt)


def lassonet(task, x, y, xt, yt, seed):
    from lassonet import LassoNetClassifierCV, LassoNetRegressorCV

    kind = LassoNetRegressorCV if task == "regression" else LassoNetClassifierCV
    model = kind(hidden_dims=(64,), random_state=seed, torch_seed=seed, verbose=0, cv=4)
    model.path(x, y[:, None].astype("float32") if task == "regression" else y)
    return score_model(task, model, xt, yt)


def score_model(task, model, xt, yt):
    return score(yt, np.ravel(model.predict(xt))) if task == "regression" else score(yt, None, model.predict_proba(xt))


def score(y, said, odds=None):
    """R² and squared error, or accuracy and cross-entropy."""
    from sklearn.metrics import accuracy_score, log_loss, r2_score

    if odds is None:
        return r2_score(y, said), float(np.mean((y - said) ** 2))
    return accuracy_score(y, odds.argmax(axis=1)), log_loss(y, odds, labels=range(odds.shape[1]))


def planted(seeds):
    """Print which columns a study of a CSV file selects, how stable they are, and LassoCV's score on the same rows."""
    selection.TABLES["straight lines"] = (600, 50, 10, selection.linear, 0.3, None)
    for kind in ("mixed", "straight lines"):
        results = []
        for seed in range(seeds):
            x, y, _, _, true = selection.table(kind, seed)
            frame = pd.DataFrame(x, columns=[f"x{number}" for number in range(x.shape[1])]).assign(y=y)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "planted.csv")
                frame.to_csv(file, index=False)
                found, rows = run_on_rows(file, seed, target="y", penalties=["adaptive"])
            best = found.best
            assert best.selected is not None
            assert best.stability is not None
            kept = {int(column[1:]) for column in best.selected}
            stable = best.stability.to_numpy()
            is_true = np.array([int(column[1:]) in true for column in best.stability.index])
            results.append((
                len(kept & true), len(kept - true), stable[is_true].mean(), stable[~is_true].mean(),
                best.score.value, linear("regression", *rows, seed)[0],
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
