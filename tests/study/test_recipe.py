"""A path with adaptive stages, a study and the estimators select columns in the same way by default."""

import inspect

import keras
import numpy as np
import pandas as pd
import pytest

import poise
from poise.path.training import FULL_BATCH_STEPS
from poise.study.splits import split_test_rows

USEFUL = ["x3", "x7", "x12", "x20"]


def make_planted(rows: int = 250, columns: int = 30, seed: int = 0) -> pd.DataFrame:
    """Return a table whose target depends on four columns, on two of them only through their product."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, columns))
    first, second, third, fourth = (x[:, int(name[1:])] for name in USEFUL)
    y = first + np.sin(1.5 * second) + third * fourth + 0.3 * random.normal(size=rows)
    return pd.DataFrame(x, columns=[f"x{number}" for number in range(columns)]).assign(y=(y - y.mean()) / y.std())


def test_a_path_called_as_documented_selects_the_columns_that_a_study_selects() -> None:
    frame = make_planted(rows=400)  # with 250, some initial weights and rounding errors select one false column
    settings = {"strengths": 7, "cv": 3, "encoding": "standard", "hidden_layer_sizes": (32,)}
    study = poise.run_study(frame, "y", penalties=["adaptive"], **settings)
    training, _ = split_test_rows(study.findings.table, 0.2, 0)
    x, y = frame.drop(columns="y").iloc[training], frame["y"].iloc[training]
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(32, activation="relu")
    model = keras.Sequential([keras.Input((x.shape[1],)), hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), loss="mse")

    rules = poise.input_sparsity(model)
    path = poise.fit_path(model, x, y, rules, strengths=7, cv=3, adaptive=2, progress=False)

    assert [*x.columns[path.features(path.selection_strength)]] == USEFUL
    assert study["adaptive"].selected == tuple(USEFUL)


@pytest.mark.parametrize("made", [poise.run_study, poise.PathRegressor, poise.PathClassifier])
def test_studies_and_estimators_take_as_many_steps_as_paths_with_adaptive_stages(made) -> None:
    assert inspect.signature(made).parameters["max_iter"].default == FULL_BATCH_STEPS
