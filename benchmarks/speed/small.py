"""`small`: 100 strengths x 5 folds of a 10-64-1 network on diabetes, against one stock TensorFlow fit.

R² is the median over the repeats, each of which tests other rows.
"""

import importlib
import time
from collections.abc import Iterator
from typing import Any

from .contenders import build_network, fit_stock_model, load_diabetes_split
from .harness import Numbers, Options, Row, measure, note_missing

SIZES, BATCH_SIZE, EPOCHS = (10, 64, 1), 32, 100
STRENGTHS, FOLDS = 100, 5
# The penalty, the settling steps, and the target relative to one fit
CASES = {
    "L2": ("L2", None, 0.5),
    "L1 without settling": ("L1", 0, 0.5),
    "L1 with settling": ("L1", None, 1.5),
}


def run(options: Options) -> Iterator[Row]:
    strengths, folds, epochs = (3, 2, 2) if options.quick else (STRENGTHS, FOLDS, EPOCHS)
    fit = measure(
        fit_stock_model, options, backend="tensorflow", needs=("tensorflow",),
        data="diabetes", rows=None, sizes=SIZES, batch_size=BATCH_SIZE, epochs=epochs,
    )  # fmt: skip
    path = {}
    for name, (penalty, settle, most_ratio) in CASES.items():
        if options.quick and name == "L1 with settling":
            settle = 20
        training = {"epochs": epochs, "batch_size": BATCH_SIZE, "settle": settle}
        path = measure(fit_path, options, penalty=penalty, strengths=strengths, folds=folds, training=training)
        yield Row(
            f"{strengths} x {folds} fits, {name} / one TensorFlow fit", path["seconds"], fit.get("seconds"),
            most_ratio=most_ratio, note=note_missing("tensorflow") or f"R² {path['r2']:.3f}",
        )  # fmt: skip
    quick_path = {"n_iters": [5, 1], "path_multiplier": 2.0, "cv": 2} if options.quick else {}
    lassonet = measure(fit_lassonet, options, needs=("lassonet",), settings=quick_path)
    note = note_missing("lassonet") or f"R² of LassoNet {lassonet['r2']:.3f}"
    yield Row("L1 with settling / LassoNetRegressorCV", path["seconds"], lassonet.get("seconds"), note=note)


def fit_path(penalty: str, strengths: int, folds: int, training: dict[str, Any]) -> Numbers:
    import poise

    x, y, x_test, y_test = load_diabetes_split()
    start = time.perf_counter()
    path = poise.fit_path(
        build_network(SIZES), x, y, getattr(poise, penalty)(), strengths=strengths, cv=folds,
        training=poise.Training(**training), progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    error = path.predict(path.best_strength, x_test) - y_test
    return {"seconds": seconds, "r2": float(1 - (error**2).sum() / ((y_test - y_test.mean()) ** 2).sum())}


def fit_lassonet(settings: dict[str, Any]) -> Numbers:
    lassonet = importlib.import_module("lassonet")  # no import: it is missing where types are checked
    x, y, x_test, y_test = load_diabetes_split()
    start = time.perf_counter()
    model = lassonet.LassoNetRegressorCV(hidden_dims=(64,), random_state=0, torch_seed=0, verbose=0, **settings)
    model.path(x, y)
    return {"seconds": time.perf_counter() - start, "r2": float(model.score(x_test, y_test))}
