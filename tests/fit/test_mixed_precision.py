"""Half-precision computation: the penalty is that of the float32 weights, and knows nothing of the loss scale."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops, optimizers
from oracles import by_hand
from oracles.by_hand import ByHand
from oracles.models import assert_same_weights, compiled

import poise

STEPS, ROWS = 8, 4
OVERFLOWING = (0, 5)
"""The steps whose gradients are infinite in float16 at any loss scale."""
MODERATE = {"l1": 0.25, "l2": 0.5, "rate": 0.125, "momentum": 0.5}
HUGE = {"l1": 1e6, "l2": 1e6, "rate": 2e-8, "momentum": 0.5}
"""Forces far beyond 65504, the largest float16."""
every_update = pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
both_sizes = pytest.mark.parametrize(
    ("arguments", "scale"), [(MODERATE, 1.0), (HUGE, 2.0**14)], ids=["moderate", "huge"]
)


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


half = pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
brain = pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)


def penalized(update: str, arguments: dict, **of_inner: Any) -> poise.PenalizedOptimizer:
    inner = optimizers.SGD(arguments["rate"], arguments["momentum"], **of_inner)
    optimizer = poise.PenalizedOptimizer(
        inner, by_hand.rules(arguments["l1"], arguments["l2"]), update=update, observe_every=1
    )
    optimizer.keep_values()
    return optimizer


def trained(optimizer: Any, x: Any, y: Any) -> keras.Model:
    """One epoch of `STEPS` batches."""
    model = compiled(optimizer, by_hand.side_by_side(), loss=by_hand.product)
    model.fit(x, y, batch_size=ROWS, verbose=0, shuffle=False)
    return model


def with_overflows(x: Any, y: Any) -> Any:
    y = y.copy()
    for step in OVERFLOWING:
        y[step * ROWS] = 1e9
    return x, y


def finite_steps(x: Any, y: Any, skipped: Any = ()) -> list[list[np.ndarray]]:
    """The prediction gradients of the steps that are not skipped."""
    return [
        by_hand.gradients(x[ROWS * i : ROWS * (i + 1)], y[ROWS * i : ROWS * (i + 1)])
        for i in range(STEPS)
        if i not in skipped
    ]


def assert_recorded(optimizer: poise.PenalizedOptimizer, values: Any, forces: Any, count: int) -> None:
    recorded, samples = optimizer.force_record().total, optimizer.force_record().samples
    np.testing.assert_allclose(optimizer.penalty_record().total, values, rtol=1e-5)
    np.testing.assert_allclose(recorded[:, :3], forces, rtol=1e-5)
    assert samples == count


@half
@both_sizes
@every_update
def test_step_that_overflows_is_skipped_whole_and_the_loss_scale_multiplies_no_penalty(
    policy: Any, update: str, arguments: Any, scale: Any
) -> None:
    """The loss scale doubles after two finite steps and halves after an infinite one."""
    x, y = with_overflows(*by_hand.rows(STEPS * ROWS, scale))
    by_numpy = ByHand(update, **arguments)
    values, forces = np.zeros(2), np.zeros((2, 3))
    for prediction in finite_steps(x, y, OVERFLOWING):
        values += by_numpy.values()
        forces += by_numpy.measured(prediction)
        by_numpy.step(prediction)

    scaled = optimizers.LossScaleOptimizer(penalized(update, arguments), 1024.0 / scale, dynamic_growth_steps=2)
    model = trained(scaled, x, y)

    assert_same_weights(model, by_numpy.weights)
    assert_recorded(poise.get_penalized_optimizer(model), values, forces, STEPS - len(OVERFLOWING))
    assert int(ops.convert_to_numpy(scaled.iterations)) == STEPS - len(OVERFLOWING)
    if update == "proximal":
        assert (model.get_layer("left").kernel.numpy() == 0.0).any()


@half
@every_update
def test_skipped_step_is_not_averaged(policy: Any, update: str) -> None:
    x, y = with_overflows(*by_hand.rows(STEPS * ROWS))
    by_numpy, mean = ByHand(update, **MODERATE), None
    for prediction in finite_steps(x, y, OVERFLOWING):
        by_numpy.step(prediction)
        now = by_numpy.weights
        mean = list(now) if mean is None else [0.75 * m + 0.25 * w for m, w in zip(mean, now, strict=True)]

    averaged = penalized(update, MODERATE, use_ema=True, ema_momentum=0.75)
    model = trained(optimizers.LossScaleOptimizer(averaged, 1024.0), x, y)

    assert_same_weights(model, mean)


@half
@every_update
def test_accumulation_waits_for_finite_batches(policy: Any, update: str) -> None:
    x, y = with_overflows(*by_hand.rows(STEPS * ROWS))
    by_numpy = ByHand(update, **MODERATE)
    finite = finite_steps(x, y, OVERFLOWING)
    for first, second in zip(finite[::2], finite[1::2], strict=True):
        by_numpy.step([0.5 * (a + b) for a, b in zip(first, second, strict=True)])

    accumulating = penalized(update, MODERATE, gradient_accumulation_steps=2)
    model = trained(optimizers.LossScaleOptimizer(accumulating, 1024.0), x, y)

    assert_same_weights(model, by_numpy.weights)


@brain
@both_sizes
@every_update
def test_bfloat16_computation_leaves_the_penalty_in_float32(
    policy: Any, update: str, arguments: Any, scale: Any
) -> None:
    x, y = by_hand.rows(STEPS * ROWS, scale)
    by_numpy = ByHand(update, **arguments)
    values, forces = np.zeros(2), np.zeros((2, 3))
    for prediction in finite_steps(x, y):
        values += by_numpy.values()
        forces += by_numpy.measured(prediction)
        by_numpy.step(prediction)

    model = trained(penalized(update, arguments), x, y)

    assert isinstance(model.optimizer, poise.PenalizedOptimizer)
    assert_same_weights(model, by_numpy.weights)
    assert_recorded(model.optimizer, values, forces, STEPS)


@half
def test_compile_puts_the_loss_scale_around_it(policy: Any) -> None:
    model = compiled(penalized("proximal", MODERATE), by_hand.side_by_side())

    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    assert isinstance(model.optimizer.inner_optimizer, poise.PenalizedOptimizer)
