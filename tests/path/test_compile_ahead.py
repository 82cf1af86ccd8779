"""Programs that are compiled in a thread are those that are called."""

import gc
import logging
import re
from typing import Any

import jax
import keras
import numpy as np
import pytest
from keras import layers

import poise
from poise.path.lanes.trainer import COMPILED, LaneTrainer
from poise.path.training import Replica, Training

from .runners import runner_of

ROWS = np.random.default_rng(1).permutation(50)
FOLDS = [Replica(fold, 0, np.delete(ROWS, slice(10 * fold, 10 * fold + 10)), ROWS[10 * fold :][:10]) for fold in (0, 1)]
WHOLE = Replica(-1, 0, ROWS, ROWS[:0])
PROGRAMS = re.compile(
    r"Finished XLA compilation of jit\((train_epoch|settle_segment|evaluate_rows|evaluate_penalties)\)"
)


def compiled_here(penalty, factors=None, **training) -> Any:
    """The names of a path's programs that the calling thread had to compile."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.BatchNormalization(), layers.Dense(1)])
    model.compile("adam", "mse")
    draw = np.random.default_rng(0)
    data = (draw.normal(size=(50, 4)).astype("float32"), draw.normal(size=(50, 1)).astype("float32"), None)
    training = Training(**{"epochs": 2, "batch_size": 16, **training})
    runner = runner_of(model, penalty, data, [*FOLDS, WHOLE], training)
    names = []

    class Listener(logging.Handler):
        def emit(self, record) -> None:
            names.extend(PROGRAMS.findall(record.getMessage()))

    logger, listener = logging.getLogger("jax._src.dispatch"), Listener()
    logger.addHandler(listener)
    try:
        with jax.log_compiles():  # which holds for this thread
            runner.run(np.array([0.01, 0.1]), factors)
    finally:
        logger.removeHandler(listener)
        runner.close()
    return names


@pytest.mark.parametrize(
    ("penalty", "arguments"),
    [
        (poise.L2(), {"settle": 0}),
        (poise.L1(), {"settle": 100}),
        (poise.L1(), {"settle": 100, "epochs": 0}),
        (poise.L1(), {"settle": 150, "tolerance": 1e-12}),
        (poise.L2(), {"settle": 0, "patience": 1}),
        (poise.L1(), {"settle": 100, "factors": {(0, 0): np.full((3, 2, 4, 3), 0.5)}}),
    ],
    ids=["smooth", "settled", "settled only", "last steps", "patient", "with factors"],
)
def test_called_programs_were_compiled_in_the_thread(penalty, arguments, monkeypatch) -> None:
    assert compiled_here(penalty, **arguments) == []

    monkeypatch.setattr(LaneTrainer, "prepare", lambda *_, **__: None)

    assert compiled_here(penalty, **arguments)


def test_a_finished_path_leaves_nothing_that_was_compiled() -> None:
    def left() -> Any:
        gc.collect()
        modules = [each.hlo_modules()[0].name for each in jax.devices()[0].client.live_executables()]
        names = {function.__name__ for function in COMPILED}
        return sum(module.removeprefix("jit_") in names for module in modules)

    before = left()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    training = poise.Training(epochs=2, settle=20)
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    path = poise.fit_path(model, x, x[:, :1], poise.L1(), strengths=[0.1, 0.2], cv=2, training=training, progress=False)
    assert len(path.table) == 2
    assert left() <= before
