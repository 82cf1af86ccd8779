"""Compare which columns of planted tables an adaptive path selects, and its predictions, with other methods.

    python benchmarks/selection.py                     # all tables
    python benchmarks/selection.py mixed --n-init 10    # one table
    python benchmarks/selection.py --methods poise        # one method

Every table has as many training rows as test rows, and standardized, correlated neighboring columns. "True" and
"false" count selected columns that matter and that do not. The loss is the squared error on the test rows, in units of
the variance of the target, or the cross-entropy. "poise" is `fit_path` as its documentation shows it, and selects at
`best_strength`; "poise study" is a study with the penalty `"adaptive"`, which has the same recipe; LassoNet and the
adaptive lasso use their own cross-validation.
"""

import argparse
import functools
import os
import time

import numpy as np
import pandas as pd

os.environ["KERAS_BACKEND"] = "jax"
WIDTH = 64


def correlated(generator, rows, columns):
    """Normal columns of which neighbors have the correlation 0.5."""
    x = generator.normal(size=(rows, columns))
    for j in range(1, columns):
        x[:, j] = 0.5 * x[:, j - 1] + np.sqrt(0.75) * x[:, j]
    return x


def noisy(generator, signal, share):
    """The standardized signal with noise of `share` of its standard deviation."""
    signal = (signal - signal.mean()) / signal.std()
    return signal + share * generator.normal(size=len(signal))


def mixed(x):
    """Each sine has 7% of the variance, each square 12%, the product 24%."""
    waves = sum(1.5 * np.sin(1.5 * x[:, j]) for j in range(1, 8, 2))
    return waves + sum(x[:, j] ** 2 for j in range(0, 8, 2)) + 2 * x[:, 8] * x[:, 9]


def additive(x):
    return sum(1.5 * np.sin(1.5 * x[:, j]) if j % 2 else x[:, j] ** 2 for j in range(10))


def weak(x):
    """As mixed, but a sine has 4% of the variance, and little of it is a straight line."""
    return sum(np.sin(2 * x[:, j]) if j % 2 else x[:, j] ** 2 for j in range(8)) + 2 * x[:, 8] * x[:, 9]


def products(x):
    return x[:, 0] * x[:, 1] + x[:, 1] * x[:, 2] + x[:, 0] * x[:, 2]


def linear(x):
    return x[:, :10] @ np.linspace(1.0, 2.0, 10)


def nothing(x):
    return np.zeros(len(x))


# rows, columns, useful columns, signal, noise, classes
TABLES = {
    "mixed": (600, 200, 10, mixed, 0.3, None),
    "weak sines": (600, 200, 10, weak, 0.3, None),
    "additive": (600, 200, 10, additive, 0.3, None),
    "products": (600, 200, 3, products, 0.3, None),
    "linear": (200, 2000, 10, linear, 0.3, None),
    "many rows": (3000, 20, 10, additive, 0.3, None),
    "two classes": (600, 50, 10, linear, 0.3, 2),
    "four classes": (600, 50, 10, mixed, 0.3, 4),
    "high noise": (600, 200, 10, mixed, 1.5, None),
    "no signal": (600, 200, 0, nothing, 1.0, None),
}


def table(kind, seed):
    """x, y to train on, x, y to test on; the useful columns come first and are then shuffled into `order`."""
    rows, columns, useful, signal, noise, classes = TABLES[kind]
    generator = np.random.default_rng(seed)
    order = generator.permutation(columns)
    x = correlated(generator, 2 * rows, columns)
    inner = x[:, order]
    true = signal(inner)
    y = noisy(generator, true, noise) if true.std() else generator.normal(size=2 * rows)
    if classes:
        y = np.digitize(y, np.quantile(y[:rows], np.linspace(0, 1, classes + 1)[1:-1]))
    else:
        y = (y - y[:rows].mean()) / y[:rows].std()
    x = (x - x[:rows].mean(0)) / x[:rows].std(0)
    x = x.astype("float32")
    y = y.astype("int32" if classes else "float32")
    return x[:rows], y[:rows], x[rows:], y[rows:], set(order[:useful].tolist())


def by_poise(x, y, xt, yt, classes, seed, width=WIDTH, depth=1, max_iter=800):
    import keras

    import poise

    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(width, activation="relu", kernel_initializer="glorot_normal") for _ in range(depth)]
    head = keras.layers.Dense(classes or 1, kernel_initializer="glorot_normal")
    model = keras.Sequential([keras.Input((x.shape[1],)), *hidden, head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if classes else "mse"
    model.compile(keras.optimizers.Adam(0.01), loss)
    training = poise.Training.full_batch(max_iter)
    rules = poise.input_sparsity(model)
    path = poise.fit_path(model, x, y, rules, strengths=13, cv=4, adaptive=2, training=training, progress=False)
    kept = set(path.features(path.best_strength).tolist())
    return kept, _loss(path, xt, yt, classes)


def _loss(path, xt, yt, classes):
    from sklearn.metrics import log_loss

    # The stage with the lowest held-out loss predicts; the last one selects columns.
    stage = min([*path.stages, path], key=lambda one: one.table["val_loss"].min())
    predicted = stage.predict(stage.best_strength, xt)
    if classes:
        odds = np.exp(predicted - predicted.max(axis=1, keepdims=True))
        return log_loss(yt, odds / odds.sum(axis=1, keepdims=True), labels=range(classes))
    return float(np.mean((predicted[:, 0] - yt) ** 2))


def by_study(x, y, xt, yt, classes, seed):
    """A study holds out test rows itself, so it gets a quarter more rows and trains on as many as the others."""
    import poise
    from poise.study.predictions import predict_outputs
    from poise.study.scores import row_losses

    more = len(x) // 4
    names = [f"x{number}" for number in range(x.shape[1])]
    frame = pd.DataFrame(np.concatenate([x, xt[:more]]), columns=names).assign(y=np.concatenate([y, yt[:more]]))
    findings = poise.run_study(frame, "y", penalties=["adaptive"], seed=seed).findings
    outputs = predict_outputs(
        findings["adaptive"].model, findings.encoder.transform(pd.DataFrame(xt[more:], columns=names))
    )
    task = findings.table.task
    true = (yt[more:] - findings.center) / findings.scale
    losses = row_losses(task, true if task == "multiclass" else true[:, None], outputs)
    return {int(column[1:]) for column in findings["adaptive"].selected}, losses.mean() * findings.scale**2


def by_lassonet(x, y, xt, yt, classes, seed):
    from lassonet import LassoNetClassifierCV, LassoNetRegressorCV
    from sklearn.metrics import log_loss

    kind = LassoNetClassifierCV if classes else LassoNetRegressorCV
    model = kind(hidden_dims=(WIDTH,), random_state=seed, torch_seed=seed, verbose=0, cv=4)
    model.path(x, y if classes else y[:, None])
    kept = set(np.flatnonzero(model.best_selected_.numpy()).tolist())
    if classes:
        return kept, log_loss(yt, model.predict_proba(xt), labels=range(classes))
    return kept, float(np.mean((np.ravel(model.predict(xt)) - yt) ** 2))


def by_adaptive_lasso(x, y, xt, yt, classes, seed):
    from sklearn.linear_model import LassoCV

    if classes:
        return set(), float("nan")
    first = LassoCV(cv=4, random_state=seed).fit(x, y)
    scale = np.abs(first.coef_) + 1e-3 * np.abs(first.coef_).max() + 1e-12
    second = LassoCV(cv=4, random_state=seed).fit(x * scale, y)
    kept = set(np.flatnonzero(second.coef_).tolist())
    return kept, float(np.mean((second.predict(xt * scale) - yt) ** 2))


METHODS = {
    "poise": by_poise,
    "poise study": by_study,
    "poise, width 256": functools.partial(by_poise, width=256),
    "poise, two layers": functools.partial(by_poise, depth=2),
    "poise, 2,400 steps": functools.partial(by_poise, max_iter=2400),
    "adaptive Lasso": by_adaptive_lasso,
    "LassoNet": by_lassonet,
}


def main():
    parser = argparse.ArgumentParser(description="Columns found and test loss on planted tables.")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(TABLES)}; all without one")
    parser.add_argument("--n-init", type=int, default=10)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=["poise", "adaptive Lasso", "LassoNet"])
    arguments = parser.parse_args()
    for kind in arguments.kinds or TABLES:
        rows, columns, useful, _, _, classes = TABLES[kind]
        print(f"{kind}: {rows} rows, {columns} columns, {useful} useful, {arguments.n_init} seeds")
        for name in arguments.methods:
            results = []
            for seed in range(arguments.n_init):
                x, y, xt, yt, true = table(kind, seed)
                start = time.perf_counter()
                kept, loss = METHODS[name](x, y, xt, yt, classes, seed)
                results.append((len(kept & true), len(kept - true), loss, time.perf_counter() - start))
            mean = pd.DataFrame(results, columns=["found", "false", "loss", "seconds"])
            empty = int(((mean["found"] + mean["false"]) == 0).sum())
            print(
                f"  {name:<18} true {mean['found'].mean():>5.1f} (least {mean['found'].min():.0f})"
                f"   false {mean['false'].mean():>6.1f}   test loss {mean['loss'].mean():>6.3f}"
                f"   nothing selected {empty:>2} times   {mean['seconds'].median():>6.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
