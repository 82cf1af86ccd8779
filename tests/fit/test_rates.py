"""Learning rates that callbacks and schedules change: the penalty's step follows, without compiling anew.

Schedules with Adam, and the step of every other optimizer, are in test_optimizer.py and test_metric.py.
"""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import callbacks, optimizers
from oracles import by_hand
from oracles.autodiff import BACKEND
from oracles.by_hand import ByHand
from oracles.models import assert_same_weights, compiled, counted_traces, weights

import poise

EPOCHS, ROWS, BATCH = 4, 24, 8
GIVEN = {"l1": 0.5, "l2": 0.5, "rate": 0.0625, "momentum": 0.5}


def plateau() -> callbacks.Callback:
    """Nothing is an improvement: the rate is halved after the second epoch and all that follow."""
    return callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)


def scheduler() -> callbacks.Callback:
    return callbacks.LearningRateScheduler(lambda epoch, rate: 0.0625 * [1.0, 1.0, 0.5, 0.25][epoch])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("make", [plateau, scheduler])
@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
def test_penalty_steps_by_the_rate_that_a_callback_sets(
    update: str, make: Callable[[], callbacks.Callback], policy: str
) -> None:
    by_numpy = ByHand(update, **GIVEN)
    x, y = by_hand.rows(ROWS)
    for share in (1.0, 1.0, 0.5, 0.25):
        by_numpy.rate = share * GIVEN["rate"]
        for i in range(0, ROWS, BATCH):
            by_numpy.step(by_hand.gradients(x[i : i + BATCH], y[i : i + BATCH]))
    optimizer = poise.PenalizedOptimizer(
        optimizers.SGD(GIVEN["rate"], GIVEN["momentum"]), by_hand.rules(GIVEN["l1"], GIVEN["l2"]), update=update
    )
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(optimizer, by_hand.side_by_side(), loss=by_hand.product)
    finally:
        keras.config.set_dtype_policy("float32")
    traces = counted_traces(model)

    model.fit(x, y, BATCH, EPOCHS, verbose=0, shuffle=False, callbacks=[make()])

    assert_same_weights(model, by_numpy.weights)
    assert np.any(weights(model)[0] == 0) == (update != "coupled")
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    if BACKEND != "torch":
        assert len(traces) == 1


def test_rate_that_follows_a_schedule_cannot_be_set_by_a_callback() -> None:
    """As in stock Keras."""
    rate = optimizers.schedules.ExponentialDecay(0.05, 10, 0.5)
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(rate), by_hand.rules(0.1, 0.1)), by_hand.side_by_side())

    with pytest.raises(TypeError, match="created with a `LearningRateSchedule`"):
        model.fit(*by_hand.rows(ROWS), verbose=0, callbacks=[scheduler()])
