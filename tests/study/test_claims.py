"""Every sentence of an answer is parsed, and each of its numbers and claims is compared with the results."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from oracles.claims import Claims

from poise.study.run import run_study

PENALTIES = ["l2", "l1", "group", "adaptive", "elasticnet", "sparse_group", "dropout"]


def planted(seed: int) -> dict[str, Any]:
    """A small table and the settings of its study; all have the same shapes, so that they share compiled programs."""
    random = np.random.default_rng(seed)
    rows, columns = 60, 4
    x = random.normal(size=(rows, columns))
    signal = random.choice([0.0, 1.0, 2.0]) * (x[:, 0] - 0.5 * x[:, 1])
    noisy = signal + random.normal(size=rows)
    targets = {
        "regression": 50 + 10 * noisy,
        "binary": np.where(noisy > random.choice([0.0, 0.7]), "yes", "no"),
        "multiclass": np.array([*"abc"])[np.digitize(noisy, [-0.4, 0.4])],
        "counts": random.poisson(np.exp(0.4 * signal)),
    }
    task = [*targets][seed % 4]
    frame = pd.DataFrame(x, columns=[f"c{number}" for number in range(columns)]).assign(y=targets[task])
    if seed % 5 == 0:
        frame["w"] = random.uniform(0.5, 2.0, rows)
    penalties = [*random.choice(PENALTIES, size=random.integers(0, 4), replace=False)]
    return {
        "data": frame,
        "target": "y",
        "task": task,
        "weight": "w" if seed % 5 == 0 else None,
        "penalties": penalties,
        "choose": str(penalties[0]) if penalties and seed % 3 == 0 else None,
        "max_iter": int(random.choice([20, 60])),
        "strengths": 4,
        "cv": 2,
        "hidden_layer_sizes": (4,),
        "seed": seed,
    }


@pytest.mark.parametrize("seed", range(30))
def test_every_sentence_is_true(seed) -> None:
    study = run_study(**planted(seed))
    claims = Claims(study)
    assert study.answer[0].startswith(study.headline)
    assert repr(study).splitlines()[1] == study.headline
    results: Any = study.results
    lowest = results["val_loss"].drop("full_training")

    claims.check_answer()
    claims.check_key_numbers()
    if study.description["settings"]["choose"] is None and len(lowest) > 2:
        # No penalty in front of the chosen one is as good as it.
        penalties = lowest.drop("none")
        assert penalties[claims.judged.name] <= penalties.min() + 3 * claims.judged.val_error + 1e-6
