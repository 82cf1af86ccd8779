"""Compare early stopping with training for all 800 steps.

    python benchmarks/training_length.py                 # six tables, four penalties, three splits

The table shows means over the splits: the held-out loss of the chosen network with its standard error, the test score
(R² or accuracy), the number of columns that the network reads, and the time of a fit in seconds, without compilation.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_classification,
    make_friedman1,
)
from sklearn.model_selection import train_test_split

import poise

TABLES: dict[str, Any] = {
    "diabetes": load_diabetes,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
    "friedman": lambda return_X_y: make_friedman1(400, 20, noise=1.0, random_state=0),
    "noisy classes": lambda return_X_y: make_classification(400, 30, n_informative=5, flip_y=0.1, random_state=0),
}
PENALTIES = ("l2", "l1", "group", "adaptive")


def measure(X: Any, y: Any, penalty: str, early_stopping: bool, split: int) -> dict[str, float]:
    """Fit an estimator on a split and return what is printed about it."""
    classes = y if len(np.unique(y)) < 20 else None
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=split, stratify=classes)
    kind = poise.PathRegressor if classes is None else poise.PathClassifier
    start = time.perf_counter()
    estimator = kind(penalty, early_stopping=early_stopping, random_state=split).fit(X, y)
    seconds = time.perf_counter() - start
    table: Any = estimator.path_.table.set_index("strength")
    row = table.loc[estimator.strength_]
    mask = estimator.feature_mask_
    return {
        "loss": float(row["val_loss"]),
        "error": float(row["val_se"]),
        "score": float(estimator.score(X_test, y_test)),
        "columns": float(X.shape[1] if mask is None else mask.sum()),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", default=[*TABLES], choices=[*TABLES])
    parser.add_argument("--splits", type=int, default=3)
    arguments = parser.parse_args()
    names = f"{'table':<14} {'penalty':<9} {'held-out loss ± SE':>20} {'800 steps':>10}"
    print(f"{names} {'score':>7} {'800':>7} columns  seconds")
    increases, scores = [], []
    for name in arguments.tables:
        X, y = TABLES[name](return_X_y=True)
        for penalty in PENALTIES:
            measure(X, y, penalty, True, 0)  # compiles
            runs = [
                [measure(X, y, penalty, early, split) for split in range(arguments.splits)] for early in (True, False)
            ]
            early, whole = ({key: statistics.mean(run[key] for run in part) for key in part[0]} for part in runs)
            increases.append((early["loss"] - whole["loss"]) / whole["error"])
            scores.append(early["score"] - whole["score"])
            print(
                f"{name:<14} {penalty:<9} {early['loss']:>11.4f} ± {early['error']:.4f} {whole['loss']:>10.4f} "
                f"{early['score']:>7.3f} {whole['score']:>7.3f} {early['columns']:>3.0f}/{whole['columns']:<3.0f} "
                f"{early['seconds']:>5.1f}/{whole['seconds']:<5.1f}",
                flush=True,
            )
    print(f"largest increase in held-out loss with early stopping: {max(increases):+.2f} standard errors")
    print(f"mean change in test score with early stopping: {statistics.mean(scores):+.4f}")


if __name__ == "__main__":
    main()
