"""Compare the concordance of poise with that of a cross-validated lasso Cox model of scikit-survival.

    python benchmarks/survival.py                                     # two tables, 10 splits: about 40 minutes
    python benchmarks/survival.py --tables whas500 --splits 3
    python benchmarks/survival.py --out results.jsonl                 # keep the results; the same command resumes

The tables are those that scikit-survival ships. Every split has its own test rows (20%, stratified by events), the same
for all methods. All methods get the inputs that the study makes, and choose their settings on the training rows by
the same four folds:

- `lasso Cox`: `CoxnetSurvivalAnalysis` at the strength with the highest mean concordance over the folds, as its user
  guide shows, or with the highest cross-validated partial likelihood, as in `cv.glmnet` (`lasso Cox, deviance`).
- `poise, linear lasso`: the linear reference model of the study, a path of `poise.L1`.
- `poise study`: the network that `poise.run_study` chooses, with its default settings.

The table shows the mean concordance on the test rows with its standard error over the splits, and the mean of the
paired differences to `lasso Cox` with its standard error.
"""

import argparse
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import json_lines
import numpy as np
import pandas as pd

os.environ["KERAS_BACKEND"] = "jax"
BASELINE = "lasso Cox"
TABLES = ("whas500", "gbsg2")
STRENGTHS = 50
FOLDS = 4
TEST = 0.2


@dataclass(frozen=True)
class Result:
    """The concordance of a method on a split: a line of the file of results."""

    table: str
    split: int
    method: str
    score: float


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a split, encoded as in the study.

    Args:
        frame: The source, with the columns `time` and `event`.
        x, y: The training rows once per fold, and then once more, each block by its own encoder.
        folds: Training and held-out rows of each fold, as positions in x.
        training: Positions in x of all training rows, by the encoder of all of them.
        x_test, y_test: The test rows.
        seed: The number of the split.
    """

    frame: pd.DataFrame
    x: np.ndarray
    y: np.ndarray
    folds: list[tuple[np.ndarray, np.ndarray]]
    training: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    seed: int


def load_frame(name: str) -> pd.DataFrame:
    """Return a table of scikit-survival with the columns `time` and `event`."""
    from sksurv import datasets

    x, y = getattr(datasets, f"load_{name}")()
    event, time = y.dtype.names
    return x.assign(time=y[time].astype(float), event=y[event])


def make_rows(name: str, seed: int) -> Rows:
    from poise.study.columns.folds import encode_folds
    from poise.study.splits import split_folds, split_test_rows
    from poise.study.tables import read

    frame = load_frame(name)
    table = read(frame, "time", task="survival", event="event")
    training, testing = split_test_rows(table, TEST, seed)
    encoded = encode_folds(table, training, split_folds(table, training, FOLDS, seed))
    x_test = encoded.encoder.transform(table.features.iloc[testing])
    y_test = table.task.encode(table.target.to_numpy()[testing])
    folds = [(replica.train, replica.held) for replica in encoded.replicas[:-1]]
    return Rows(frame, encoded.x, encoded.y, folds, encoded.replicas[-1].train, x_test, y_test, seed)


def predict_coxnet(rows: Rows, by_deviance: bool) -> np.ndarray:
    """Return the log hazards of the test rows."""
    from sksurv.linear_model import CoxnetSurvivalAnalysis
    from sksurv.util import Surv

    import poise
    from poise.survival.rows import row_losses

    def fit(positions: np.ndarray, **options: Any) -> Any:
        x, y = rows.x[positions].astype("float64"), rows.y[positions]
        model = CoxnetSurvivalAnalysis(l1_ratio=1.0, fit_baseline_model=False, max_iter=1_000_000, **options)
        with warnings.catch_warnings(action="ignore"):  # all coefficients are zero at the largest strength
            return model.fit(x, Surv.from_arrays(y[:, 1] == 1, y[:, 0]))

    def loss(positions: np.ndarray, w: np.ndarray) -> float:
        y = rows.y[positions].astype("float64")
        return row_losses(y[:, 0], y[:, 1] == 1, rows.x[positions] @ w).sum()

    alphas = fit(rows.training, n_alphas=STRENGTHS, alpha_min_ratio=0.001).alphas_
    scores = np.full((len(rows.folds), len(alphas)), np.nan)  # Coxnet may stop before the last strength
    for fold, (train, held) in enumerate(rows.folds):
        for number, w in enumerate(fit(train, alphas=alphas).coef_.T):
            if by_deviance:
                scores[fold, number] = loss(train, w) - loss(np.concatenate([train, held]), w)
            else:
                scores[fold, number] = poise.concordance_index(rows.y[held], rows.x[held] @ w)
    w = fit(rows.training, alphas=alphas).coef_[:, np.nanargmax(scores.mean(axis=0))]
    return rows.x_test @ w


def run_split(name: str, seed: int) -> list[Result]:
    """Return the results of all methods on a split."""
    import poise

    rows = make_rows(name, seed)
    scores = {
        BASELINE: poise.concordance_index(rows.y_test, predict_coxnet(rows, by_deviance=False)),
        f"{BASELINE}, deviance": poise.concordance_index(rows.y_test, predict_coxnet(rows, by_deviance=True)),
    }
    study = poise.run_study(rows.frame, time_to_event="time", event="event", test=TEST, cv=FOLDS, seed=seed)
    scores["poise, linear lasso"] = float(study.references["score"]["linear"])
    scores["poise study"] = float(study.results.loc[study.description["saved"], "score"])
    return [Result(name, seed, method, score) for method, score in scores.items()]


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Return one row per table and method: mean concordance, and mean difference to the baseline, with errors."""
    lines = []
    for name, table in results.groupby("table", sort=False):
        scores = table.pivot_table(index="split", columns="method", values="score", sort=False)
        for method in scores:
            gain = scores[method] - scores[BASELINE]
            cells = [f"{values.mean():.4f} ± {values.sem():.4f}" for values in (scores[method], gain)]
            lines.append({"table": name, "method": method, "concordance": cells[0], "difference": cells[1]})
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--out", type=Path, help="file of results, to which the same command adds what is missing")
    arguments = parser.parse_args()
    lines = json_lines.read(arguments.out)
    for name in arguments.tables:
        for seed in range(arguments.splits):
            if any((line["table"], line["split"]) == (name, seed) for line in lines):
                continue
            fresh = [asdict(result) for result in run_split(name, seed)]
            print(
                *(f"{line['table']} {line['split']} {line['method']}: {line['score']:.4f}" for line in fresh), sep="\n"
            )
            lines += fresh
            json_lines.append(arguments.out, fresh)
    print(summarize(pd.DataFrame(lines)).to_string(index=False))


if __name__ == "__main__":
    main()
