"""The guide to custom training loops: each script runs on its backend and is compared with `model.fit`."""

import re
from typing import Any

import keras
import numpy as np
import pytest
from code_blocks import DOCS, blocks_of

import poise

PAGE = DOCS / "how-to" / "custom-training-loops.md"


@pytest.fixture
def loop(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The names that the script of this backend defines, and the lines that it prints."""
    (script,) = [b for b in blocks_of(PAGE) if f'"KERAS_BACKEND"] = "{keras.backend.backend()}"' in b.code]
    namespace: dict[str, Any] = {"__name__": "custom_loop"}
    exec(compile("\n" * script.line + script.code, str(PAGE), "exec"), namespace)
    namespace["printed"] = capsys.readouterr().out.splitlines()
    return namespace


def test_a_custom_loop_equals_fit(loop: dict[str, Any]) -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((10,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    twin = keras.Sequential(layers)
    twin.compile(poise.PenalizedOptimizer(keras.optimizers.Adam(0.01), poise.L1(0.01)), loss="mse")

    history = twin.fit(
        loop["x"], loop["y"], batch_size=32, epochs=5, shuffle=False, verbose=0, callbacks=[poise.PenaltyLogger()]
    )

    for weights, expected in zip(loop["model"].get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(weights == 0, expected == 0)
    assert sum(int(np.sum(w == 0)) for w in loop["model"].get_weights()[::2]) > 100
    record = loop["optimizer"].penalty_record()
    assert record.total[0] / record.steps == pytest.approx(np.mean(history.history["penalty"]), rel=1e-4)


def test_a_custom_loop_prints_every_epoch(loop: dict[str, Any]) -> None:
    assert len(loop["printed"]) == 5
    assert all(re.fullmatch(r"epoch \d: loss \d\.\d{3} - penalty \d\.\d{3}", line) for line in loop["printed"])


def test_forces_can_be_computed_after_a_custom_loop(loop: dict[str, Any]) -> None:
    loop["model"].compile(loop["optimizer"], loss=loop["prediction_loss"])

    table = poise.forces(loop["model"], loop["x"], loop["y"])

    assert len(table) == 2
    assert np.isfinite(table["residual"]).all()
