"""The test scores of a study, beside those of what one would use instead, on the same rows.

    python benchmarks/study.py                    # diabetes, breast_cancer, wine, digits, with LassoNet
    python benchmarks/study.py wine --n-init 5
    python benchmarks/study.py planted            # which columns of planted tables a study of a CSV file names
    python benchmarks/study.py --without-lassonet

Every seed puts other test rows aside, and all ways see the same. The study is that of all default penalties; beside it
stand one of L2 alone, which is for who wants to predict and not to select, and one of the adaptive group lasso alone,
which does what LassoNet does. Printed are means over the seeds: R² or accuracy, and the cross-entropy where there are
classes, on the test rows; the time is the median of one run, imports apart. Last comes the mean of the paired
differences in score, with its standard error over the seeds.
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
    given = parser.parse_args()
    for name in given.tables or TABLES:
        if name == "planted":
            planted(given.n_init)
        else:
            compared(name, given.n_init, not given.without_lassonet)


def compared(name, seeds, with_lassonet):
    ways = {"an untuned Keras network": untuned, "MLP, alpha by grid search": searched, "a linear model": linear}
    if with_lassonet:
        ways["LassoNetCV"] = lassonet
    found = {}
    for seed in range(seeds):
        start = time.perf_counter()
        study, rows = studied(name, seed)
        seconds = time.perf_counter() - start
        own = study.best
        found.setdefault("poise study", []).append((own.score.value, own.test_loss.value, seconds))
        alone = study.baseline
        found.setdefault("  of it, no penalty", []).append((alone.score.value, alone.test_loss.value, np.nan))
        for penalty in ("l2", "adaptive"):
            start = time.perf_counter()
            only = studied(name, seed, penalties=[penalty])[0].best
            quick = time.perf_counter() - start
            found.setdefault(f"  --penalty {penalty}", []).append((only.score.value, only.test_loss.value, quick))
        for way, run in ways.items():
            start = time.perf_counter()
            score, loss = run(study.table.task, *rows, seed)
            found.setdefault(way, []).append((score, loss, time.perf_counter() - start))
    print(f"{name}, {seeds} seeds: score, loss on the test rows, seconds; the study's score less theirs")
    own = np.array(found["poise study"])[:, 0]
    for way, results in found.items():
        score, loss, _ = np.mean(results, axis=0)
        more = own - np.array(results)[:, 0]
        print(
            f"  {way:<28} {score:>7.4f}  {loss:>7.4f}  {np.median(results, axis=0)[2]:>7.1f}"
            f"   {more.mean():>+8.4f} ± {more.std(ddof=1) / seeds**0.5 if seeds > 1 else np.nan:.4f}",
            flush=True,
        )


def studied(name, seed, **given):
    """A study, and its rows as arrays: x and y that train, x and y that test."""
    from poise.study import run_study
    from poise.study.splits import put_aside

    found = run_study(name, seed=seed, **given)
    training, testing = put_aside(found.table, found.settings.test, seed)
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
        return judged(yt, said[:, 0])
    odds = np.exp(said - said.max(axis=1, keepdims=True))
    return judged(yt, None, odds / odds.sum(axis=1, keepdims=True))


def searched(task, x, y, xt, yt, seed):
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPRegressor if task == "regression" else MLPClassifier
    grid = {"alpha": np.logspace(-4, 2, 7)}
    model = GridSearchCV(kind(hidden_layer_sizes=(64,), max_iter=500, random_state=seed), grid, cv=4).fit(x, y)
    return judged_model(task, model, xt, yt)


def linear(task, x, y, xt, yt, seed):
    from sklearn.linear_model import LassoCV, LogisticRegressionCV

    if task == "regression":
        return judged_model(task, LassoCV(cv=4, random_state=seed).fit(x, y), xt, yt)
    return judged_model(task, LogisticRegressionCV(cv=4, max_iter=2000).fit(x, y), xt, yt)


def lassonet(task, x, y, xt, yt, seed):
    from lassonet import LassoNetClassifierCV, LassoNetRegressorCV

    kind = LassoNetRegressorCV if task == "regression" else LassoNetClassifierCV
    model = kind(hidden_dims=(64,), random_state=seed, torch_seed=seed, verbose=0, cv=4)
    model.path(x, y[:, None].astype("float32") if task == "regression" else y)
    return judged_model(task, model, xt, yt)


def judged_model(task, model, xt, yt):
    return (
        judged(yt, np.ravel(model.predict(xt))) if task == "regression" else judged(yt, None, model.predict_proba(xt))
    )


def judged(y, said, odds=None):
    """R² and squared error, or accuracy and cross-entropy."""
    from sklearn.metrics import accuracy_score, log_loss, r2_score

    if odds is None:
        return r2_score(y, said), float(np.mean((y - said) ** 2))
    return accuracy_score(y, odds.argmax(axis=1)), log_loss(y, odds, labels=range(odds.shape[1]))


def planted(seeds):
    """What the study of a CSV file names, how stable true and false columns are, and LassoCV on the same rows."""
    selection.TABLES["straight lines"] = (600, 50, 10, selection.linear, 0.3, None)
    for kind in ("mixed", "straight lines"):
        results = []
        for seed in range(seeds):
            x, y, _, _, true = selection.table(kind, seed)
            frame = pd.DataFrame(x, columns=[f"x{number}" for number in range(x.shape[1])]).assign(y=y)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "planted.csv")
                frame.to_csv(file, index=False)
                found, rows = studied(file, seed, target="y", penalties=["adaptive"])
            kept = {int(column[1:]) for column in found.best.kept}
            stable = found.best.stability.to_numpy()
            is_true = np.array([int(column[1:]) in true for column in found.best.stability.index])
            results.append((
                len(kept & true), len(kept - true), stable[is_true].mean(), stable[~is_true].mean(),
                found.best.score.value, linear("regression", *rows, seed)[0],
            ))  # fmt: skip
        mean = np.mean(results, axis=0)
        print(
            f"planted, {kind}, {seeds} seeds: found {mean[0]:.1f}, false {mean[1]:.1f}; a true column is kept by "
            f"{mean[2]:.0%} of the lanes, a false one by {mean[3]:.1%}; R² on test rows {mean[4]:.4f}, LassoCV "
            f"{mean[5]:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
