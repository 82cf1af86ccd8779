"""Compare the columns that poise selects with the truth, with those of other methods, and with published figures.

    python benchmarks/truth.py --out truth.jsonl                        # all tables, which takes many hours
    python benchmarks/truth.py "pairs 14" "nested 300" --runs 10        # some tables
    python benchmarks/truth.py --methods poise lasso_cv --out truth.jsonl

With `--out`, the same command resumes an interrupted run. Every method gets the same rows. Measures: `exact`, the share
of runs that select exactly the relevant columns; `top`, the share of the k relevant columns among the k highest-ranked
ones; `true` and `false`, the mean numbers of relevant and irrelevant columns selected. Real tables show `nuisance`, the
share of nuisance columns selected, and `score`, R² or accuracy on the 20% of rows held out.

`poise` is `PathRegressor` or `PathClassifier` with the adaptive group lasso and `encoding="auto"`: the held-out loss
chooses between standardized numbers and the piecewise-linear encoding. `poise_standard` has `encoding="standard"`. The
tables `friedman1` to `friedman3`, `steps`, `sums`, and the real ones without nuisance show only `score`. The other
methods choose by cross-validation, except Boruta, which uses its default significance level. Boruta and XGBoost are not
dependencies: `pip install xgboost-cpu boruta`. A method that is not installed is left out.
"""

import argparse
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import json_lines
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LassoCV, LogisticRegressionCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from truth_tables import KINDS, Kind, Table

os.environ["KERAS_BACKEND"] = "jax"

TITLES = {
    "poise": "poise",
    "poise_standard": "poise, standard encoding",
    "lasso_cv": "LassoCV",
    "adaptive_lasso": "adaptive lasso",
    "xgboost_boruta": "XGBoost + Boruta",
    "forest_boruta": "random forest + Boruta",
    "lassonet": "LassoNetCV",
}


@dataclass(frozen=True, eq=False)
class Selection:
    """What a method selects.

    Args:
        kept: The positions of the selected columns.
        importance: (columns,) how important a column is; equal ones are ranked at random.
        predict: Predicts the target of rows; `None` for methods that only select.
    """

    kept: list[int]
    importance: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray] | None


def select_by_poise(table: Table, seed: int, encoding: str = "auto") -> Selection:
    import poise

    estimator = poise.PathClassifier if table.is_class else poise.PathRegressor
    fitted: Any = estimator("adaptive", encoding=encoding, random_state=seed).fit(table.x, table.y)
    path = fitted.selection_path_
    # Columns are ranked by the largest strength at which the network of all rows still reads them, then by the share of
    # training runs that read them.
    owners, features = fitted.encoder_.owners, path.lanes.features.astype(bool)
    is_read = np.stack([features[..., owners == column].any(axis=-1) for column in range(table.x.shape[1])])
    largest = (is_read[:, -1] * path.strengths).max(axis=1)
    return Selection(
        np.flatnonzero(fitted.support_).tolist(), largest + 1e-9 * is_read.mean(axis=(1, 2)), fitted.predict
    )


def select_by_lasso(table: Table, seed: int) -> Selection:
    x = StandardScaler().fit(table.x)
    model = _fit_lasso(x.transform(table.x), table, seed)
    size = np.abs(np.atleast_2d(model.coef_)).max(axis=0)
    return Selection(np.flatnonzero(size).tolist(), size, lambda new: model.predict(x.transform(new)))


def select_by_adaptive_lasso(table: Table, seed: int) -> Selection:
    """Zou 2006: the lasso with columns scaled by the coefficients of a first one."""
    scaler = StandardScaler().fit(table.x)
    x = scaler.transform(table.x)
    first = np.abs(np.atleast_2d(_fit_lasso(x, table, seed).coef_)).max(axis=0)
    scale = first + 1e-3 * first.max() + 1e-12
    model = _fit_lasso(x * scale, table, seed)
    size = np.abs(np.atleast_2d(model.coef_)).max(axis=0) * scale
    return Selection(np.flatnonzero(size).tolist(), size, lambda new: model.predict(scaler.transform(new) * scale))


def _fit_lasso(x: np.ndarray, table: Table, seed: int) -> Any:
    if not table.is_class:
        return LassoCV(cv=4, random_state=seed).fit(x, table.y)
    model = LogisticRegressionCV(
        Cs=13, cv=4, l1_ratios=(1.0,), solver="saga", scoring="neg_log_loss", max_iter=500, random_state=seed,
        use_legacy_attributes=False,
    )  # fmt: skip
    return model.fit(x, table.y)


def select_by_xgboost(table: Table, seed: int) -> Selection:
    from xgboost import XGBClassifier, XGBRegressor

    kind = XGBClassifier if table.is_class else XGBRegressor
    return _run_boruta(kind(n_jobs=1, max_depth=5, random_state=seed), table, seed)


def select_by_forest(table: Table, seed: int) -> Selection:
    kind = RandomForestClassifier if table.is_class else RandomForestRegressor
    return _run_boruta(kind(n_jobs=1, max_depth=5, random_state=seed), table, seed)


def _run_boruta(model: Any, table: Table, seed: int) -> Selection:
    from boruta import BorutaPy

    y = table.y.astype("int64") if table.is_class else table.y
    boruta = BorutaPy(model, n_estimators=100, random_state=seed).fit(table.x, y)
    model.fit(table.x, y)
    importance = model.feature_importances_ - boruta.ranking_
    return Selection(np.flatnonzero(boruta.support_).tolist(), importance, model.predict)


def select_by_lassonet(table: Table, seed: int) -> Selection:
    from lassonet import LassoNetClassifierCV, LassoNetRegressorCV

    scaler = StandardScaler().fit(table.x)
    x = scaler.transform(table.x).astype("float32")
    kind = LassoNetClassifierCV if table.is_class else LassoNetRegressorCV
    model = kind(hidden_dims=(64,), random_state=seed, torch_seed=seed, verbose=0, cv=4)
    model.path(x, table.y.astype("int64") if table.is_class else table.y[:, None].astype("float32"))
    kept = np.flatnonzero(model.best_selected_.numpy()).tolist()
    importance = model.feature_importances_.numpy()
    return Selection(kept, importance, lambda new: np.ravel(model.predict(scaler.transform(new).astype("float32"))))


METHODS: dict[str, tuple[Callable[[Table, int], Selection], tuple[str, ...]]] = {
    "poise": (select_by_poise, ()),
    "poise_standard": (partial(select_by_poise, encoding="standard"), ()),
    "lasso_cv": (select_by_lasso, ()),
    "adaptive_lasso": (select_by_adaptive_lasso, ()),
    "xgboost_boruta": (select_by_xgboost, ("xgboost", "boruta")),
    "forest_boruta": (select_by_forest, ("boruta",)),
    "lassonet": (select_by_lassonet, ("lassonet",)),
}
"""A dict from the name of a method to its function and the packages that it needs."""
DEFAULT_METHODS = ("poise", "lasso_cv", "adaptive_lasso", "xgboost_boruta")


def run(kind: Kind, seed: int, method: str) -> dict[str, Any]:
    """Return what a method selects in the table of a seed, compared with the truth."""
    table, score = kind.make(seed), None
    testing = None
    if kind.measure in ("nuisance", "score"):
        training, testing = train_test_split(
            np.arange(len(table.y)), test_size=0.2, random_state=seed, stratify=table.y if table.is_class else None
        )
        whole, table = table, Table(table.x[training], table.y[training], table.relevant, table.is_class)
    start = time.perf_counter()
    selection = METHODS[method][0](table, seed)
    seconds = time.perf_counter() - start
    if testing is not None and selection.predict is not None:
        measure = accuracy_score if table.is_class else r2_score
        score = float(measure(whole.y[testing], selection.predict(whole.x[testing])))
    relevant, kept = table.relevant, {*selection.kept}
    ties = np.random.default_rng(seed).random(len(selection.importance))
    first = {*np.lexsort((ties, -selection.importance))[: len(relevant)].tolist()}
    return {
        "true": len(kept & relevant),
        "false": len(kept - relevant),
        "exact": float(kept == relevant),
        "top": len(first & relevant) / len(relevant) if relevant else float("nan"),
        "nuisance": len(kept - relevant) / max(table.x.shape[1] - len(relevant), 1),
        "score": score,
        "seconds": round(seconds, 1),
    }


def show(results: list[dict[str, Any]]) -> None:
    """Print one row per kind of table and method: means and standard errors over the runs."""
    frame = pd.DataFrame(results)
    for name, of_kind in frame.groupby("kind", sort=False):
        kind = KINDS[str(name)]
        published = ", ".join(f"{method} {value}" for method, value in kind.published.items())
        print(f"\n{name}" + (f"   published ({kind.source}): {published}" if published else ""))
        for method, runs in of_kind.groupby("method", sort=False):
            shown = {"nuisance": ["nuisance", "score"], "score": ["score"]}.get(kind.measure, ["exact", "top"])
            measures = "  ".join(f"{measure} {_mean_and_error(runs[measure])}" for measure in shown)
            if kind.measure != "score":
                measures += f"  true {runs['true'].mean():5.1f}  false {runs['false'].mean():6.1f}"
            print(f"  {TITLES[str(method)]:<24} {measures}  {runs['seconds'].median():6.1f} s  {len(runs)} runs")
    scores = frame[frame["kind"].map(lambda name: KINDS[name].measure == "score")]
    if {"poise", "poise_standard"} <= {*scores["method"]}:
        print("\nScore of poise minus that with the standard encoding, paired by seed")
        pairs = scores.pivot_table(index=["kind", "seed"], columns="method", values="score", sort=False).dropna()
        differences = (pairs["poise"] - pairs["poise_standard"]).groupby("kind", sort=False)
        for name, difference in differences:
            print(f"  {name!s:<24} {_mean_and_error(difference, 4)}  {len(difference)} runs")


def _mean_and_error(values: pd.Series, digits: int = 2) -> str:
    values = values.astype("float64")
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}" if len(values) > 1 else f"{values.mean():.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare selected columns with the truth.")
    parser.add_argument("kinds", nargs="*", help=f"kinds of tables, from: {', '.join(KINDS)}. Default: all")
    parser.add_argument("--runs", type=int, help="number of seeds per kind. Default: set per kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=[*DEFAULT_METHODS])
    parser.add_argument("--out", type=Path, help="a file for results, from which the same command resumes")
    parser.add_argument("--show", action="store_true", help="only print the results in the file")
    arguments = parser.parse_args()
    for name in {*arguments.kinds} - {*KINDS}:
        parser.error(f"unknown table {name!r}. Use one of {', '.join(KINDS)}.")
    results = json_lines.read(arguments.out)
    done = {(result["kind"], result["seed"], result["method"]) for result in results}
    for name in [] if arguments.show else arguments.kinds or KINDS:
        seeds = range(arguments.first, arguments.first + (arguments.runs or KINDS[name].runs))
        for method in arguments.methods:
            if missing := [package for package in METHODS[method][1] if importlib.util.find_spec(package) is None]:
                print(f"{TITLES[method]} is left out: {', '.join(missing)} is not installed.")
                continue
            for seed in seeds:
                if (name, seed, method) not in done:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        result = {"kind": name, "seed": seed, "method": method, **run(KINDS[name], seed, method)}
                    print(result, flush=True)
                    results.append(result)
                    json_lines.append(arguments.out, [result])
    show(results)


if __name__ == "__main__":
    main()
