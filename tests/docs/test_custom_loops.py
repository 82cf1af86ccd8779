"""The scripts of docs/custom-loops.md: each is run on its backend and compared with `model.fit`."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import poise

PAGE = Path(__file__).parents[2] / "docs" / "custom-loops.md"


@pytest.fixture
def loop(capsys):
    """What the script of this backend leaves behind, and the lines that it printed."""
    text = PAGE.read_text()
    scripts = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (script,) = [s for s in scripts if f'"KERAS_BACKEND"] = "{keras.backend.backend()}"' in s[1]]
    lines_before = text[: script.start(1)].count("\n")
    namespace = {"__name__": "custom_loop"}
    exec(compile("\n" * lines_before + script[1], str(PAGE), "exec"), namespace)
    namespace["printed"] = capsys.readouterr().out.splitlines()
    return namespace


def test_a_loop_of_ones_own_equals_fit(loop):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((10,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    twin = keras.Sequential(layers)
    twin.compile(poise.PenalizedOptimizer(keras.optimizers.Adam(0.01), poise.L1(0.01), update="proximal"), loss="mse")

    history = twin.fit(
        loop["x"], loop["y"], batch_size=32, epochs=5, shuffle=False, verbose=0, callbacks=[poise.PenaltyLogger()]
    )

    for own, theirs in zip(loop["model"].get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(own == 0, theirs == 0)
    assert sum(int(np.sum(w == 0)) for w in loop["model"].get_weights()[::2]) > 100
    sums = loop["optimizer"].penalty_record().total
    assert sums[0] / sums[1] == pytest.approx(np.mean(history.history["penalty"]), rel=1e-4)


def test_a_loop_of_ones_own_prints_each_epoch(loop):
    assert len(loop["printed"]) == 5
    assert all(re.fullmatch(r"epoch \d: loss \d\.\d{3} - penalty \d\.\d{3}", line) for line in loop["printed"])


def test_forces_can_be_read_after_a_loop_of_ones_own(loop):
    loop["model"].compile(loop["optimizer"], loss=loop["prediction_loss"])

    table = poise.forces(loop["model"], loop["x"], loop["y"])

    assert len(table) == 2
    assert np.isfinite(table["residual"]).all()
