"""The lanes penalize the variables that the rules resolved to in the model that is passed in, wherever they run."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from oracles.models import Block, table

import poise

TRAINING = poise.Training(epochs=3, settle=0, batch_size=None, update="proximal")


def renamed(file: Any) -> keras.Model:
    """A model in which `dense` is another layer than before, as Keras counts on load, with a rule for the second one."""
    layers.Dense(2)  # an earlier cell of a notebook: the names start at dense_1
    model = keras.Sequential([keras.Input((6,)), Block(6), layers.Dense(1, name="head")])
    assert "/dense_2/" in model.weights[2].path
    rule = poise.Rule("dense_2/kernel", poise.L1(1.0))
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.05), rule, update="proximal"), loss="mse")
    x, y = table(32, 6)
    model.fit(x, y, verbose=0)
    model.save(file)
    keras.utils.clear_session(free_memory=False)
    return keras.models.load_model(file)


@pytest.mark.parametrize("engine", ["auto", "subprocess"])
def test_lanes_penalize_the_variables_that_the_rules_resolved_to(engine: str, tmp_path: Any) -> None:
    model = renamed(tmp_path / "m.keras")
    assert "/dense_1/" in model.weights[2].path

    path = poise.fit_path(
        model, *table(32, 6), strengths=[100.0], cv=2, training=TRAINING, executor=engine, progress=False
    )

    assert [np.all(w == 0) for w in path.weights(100.0)] == [False, False, True, False, False, False]
    path.save(tmp_path / "path")
    again = poise.RegularizationPath.load(tmp_path / "path")
    assert [np.all(w == 0) for w in again.weights(100.0)] == [False, False, True, False, False, False]
    assert again.table["zero_share"].tolist() == [1.0]
