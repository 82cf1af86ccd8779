"""`tables`: the whole command `poise study TABLE` with all default penalties, against LassoNet alone.

LassoNet gets the standardized training rows of the study and as many folds. Its time has no imports and no reading; the
time of the command has both, with an empty cache.
"""

import importlib
import time
from collections.abc import Iterator
from typing import Any

from .harness import QUICK_STUDY, Numbers, Options, Row, measure, measure_command, note_missing

MOST_RATIO = {"digits": 1 / 3, "wine": 1 / 10, "breast_cancer": 1 / 10, "diabetes": 1 / 10}
FOLDS = 4


def run(options: Options) -> Iterator[Row]:
    quick_path = {"n_iters": [5, 1], "path_multiplier": 2.0} if options.quick else {}
    for table, most_ratio in MOST_RATIO.items():
        study = measure_command(["study", table, *(QUICK_STUDY if options.quick else ())], options)
        lassonet = measure(fit_lassonet, options, needs=("lassonet",), table=table, settings=quick_path)
        yield Row(
            f"poise study {table} / LassoNet*CV", study["seconds"], lassonet.get("seconds"), most_ratio=most_ratio,
            note=note_missing("lassonet"),
        )  # fmt: skip


def fit_lassonet(table: str, settings: dict[str, Any]) -> Numbers:
    """Train LassoNet's path on the rows on which a study of a table trains."""
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    from poise.study.splits import split_test_rows
    from poise.study.tables import read

    lassonet = importlib.import_module("lassonet")  # no import: it is missing where types are checked
    rows = read(table)
    training, _ = split_test_rows(rows, 0.2, 0)
    x = StandardScaler().fit_transform(rows.features.iloc[training].to_numpy("float64")).astype("float32")
    target = rows.target.iloc[training].to_numpy()
    if rows.classes:
        kind, y = lassonet.LassoNetClassifierCV, np.unique(target, return_inverse=True)[1].astype("int64")
    else:
        kind, y = lassonet.LassoNetRegressorCV, StandardScaler().fit_transform(target[:, None]).astype("float32")
    start = time.perf_counter()
    kind(hidden_dims=(64,), cv=FOLDS, random_state=0, torch_seed=0, verbose=0, **settings).path(x, y)
    return {"seconds": time.perf_counter() - start}
