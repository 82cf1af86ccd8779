"""`cross_val`: `cross_val_score(PathRegressor(), X, y, cv=5)` on diabetes in one process, without a cache.

It is compared with the time that it would take if only the first of the five fits compiled, and with a nested grid
search over `alpha` of scikit-learn's network.

The time of a fit that compiles nothing is that of a second fit, on other rows, minus the time during which anything was
traced or compiled in it. Training that goes on in the meantime is subtracted as well, so the bound is never too large.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from .contenders import load_table
from .harness import CACHE_OFF, Numbers, Options, Row, measure

MOST_RATIO = 1.5
FITS = 5
COMPILATION = "/jax/core/compile/"


def run(options: Options) -> Iterator[Row]:
    ours_settings = {"strengths": 3, "cv": 2, "max_iter": 20} if options.quick else {}
    alphas, max_iter, folds = (2, 20, 2) if options.quick else (12, 800, 4)
    ours = measure(score_path, options, environment=CACHE_OFF, settings=ours_settings)["seconds"]
    fits = measure(fit_twice, options, environment=CACHE_OFF, settings=ours_settings)
    bound = fits["first"] + (FITS - 1) * fits["trained"]
    note = f"first fit {fits['first']:.1f} s, second {fits['second']:.1f} s, {fits['compiled']:.1f} s of it compilation"
    yield Row("cross_val_score / one fit and four without compilation", ours, bound, most_ratio=MOST_RATIO, note=note)
    search = measure(score_search, options, alphas=alphas, max_iter=max_iter, folds=folds)["seconds"]
    yield Row(f"cross_val_score / GridSearchCV over {alphas} alphas, nested", ours, search, most_ratio=1.0)


def score_path(settings: dict[str, Any]) -> Numbers:
    from sklearn.model_selection import cross_val_score

    import poise

    x, y = load_table("diabetes")
    start = time.perf_counter()
    scores = cross_val_score(poise.PathRegressor(**settings), x, y, cv=FITS)
    return {"seconds": time.perf_counter() - start, "r2": float(scores.mean())}


def score_search(alphas: int, max_iter: int, folds: int) -> Numbers:
    import numpy as np
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    warnings.simplefilter("ignore")  # many of the networks do not converge in max_iter epochs
    x, y = load_table("diabetes")
    network = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(64,), max_iter=max_iter, random_state=0))
    search = GridSearchCV(network, {"mlpregressor__alpha": np.logspace(-4, 2, alphas)}, cv=folds)
    start = time.perf_counter()
    scores = cross_val_score(search, x, y, cv=FITS)
    return {"seconds": time.perf_counter() - start, "r2": float(scores.mean())}


def fit_twice(settings: dict[str, Any]) -> Numbers:
    """Fit to the training rows of the first two folds, which are equally many.

    Returns:
        The seconds of both fits, those of the second in which anything compiled, and those in which nothing did.
    """
    import jax
    from sklearn.model_selection import KFold

    import poise

    intervals = []

    def record(event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith(COMPILATION):
            end = time.perf_counter()
            intervals.append((end - duration_secs, end))

    jax.monitoring.register_event_duration_secs_listener(record)
    x, y = load_table("diabetes")
    training = [rows for rows, _ in KFold(FITS).split(x)][:2]
    seconds = []
    for rows in training:
        intervals.clear()
        start = time.perf_counter()
        poise.PathRegressor(**settings).fit(x[rows], y[rows])
        seconds.append(time.perf_counter() - start)
    compiled = union_length(intervals)
    return {"first": seconds[0], "second": seconds[1], "compiled": compiled, "trained": seconds[1] - compiled}


def union_length(intervals: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals, which can overlap."""
    total, last = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, last), 0.0)
        last = max(last, end)
    return total
