"""Gradient accumulation: k small batches are one large batch, in the weights and in what is recorded.

Adam in every update, its schedule by real updates, and SGD with momentum in the proximal one are in test_optimizer.py.
"""

from typing import Any

import keras
import numpy as np
import pytest
from keras import optimizers
from oracles import by_hand
from oracles.by_hand import ByHand
from oracles.models import assert_same_weights, compiled, fitted, net

import poise

EPOCHS, ROWS, SMALL, K = 4, 48, 8, 3
GIVEN = {"l1": 0.25, "l2": 0.5, "rate": 0.125, "momentum": 0.5}
every_update = pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])


def mixed_rules() -> list[poise.Rule]:
    return [
        poise.Rule("features/kernel", poise.GroupLasso(0.01)),
        poise.Rule("features/kernel", poise.L2(0.02)),
        poise.Rule("head/kernel", poise.L1(0.01)),
    ]


def by_hand_model(update: str, **of_inner: Any) -> keras.Model:
    inner = optimizers.SGD(GIVEN["rate"], GIVEN["momentum"], gradient_accumulation_steps=K, **of_inner)
    optimizer = poise.PenalizedOptimizer(inner, by_hand.rules(GIVEN["l1"], GIVEN["l2"]), update=update, observe_every=2)
    return compiled(optimizer, by_hand.side_by_side(), loss=by_hand.product)


def small_batches() -> list[list[np.ndarray]]:
    """The prediction gradients of the small batches of an epoch."""
    x, y = by_hand.rows(ROWS)
    return [by_hand.gradients(x[i : i + SMALL], y[i : i + SMALL]) for i in range(0, ROWS, SMALL)]


def mean(gradients: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.mean(same, axis=0) for same in zip(*gradients, strict=True)]


def nesterov(**accumulation: Any) -> Any:
    return optimizers.SGD(0.05, 0.9, nesterov=True, **accumulation)


def root_mean_square(**accumulation: Any) -> Any:
    return optimizers.RMSprop(0.01, momentum=0.5, **accumulation)


@pytest.mark.parametrize(
    ("make", "update"),
    [(nesterov, "coupled"), (nesterov, "decoupled"), (nesterov, "proximal"), (root_mean_square, "proximal")],
)
def test_small_batches_are_one_large_batch(make: Any, update: str) -> None:
    def trained(batch_size: int, **accumulation: int) -> keras.Model:
        optimizer = poise.PenalizedOptimizer(make(**accumulation), mixed_rules(), update=update)
        return fitted(compiled(optimizer), EPOCHS, ROWS, batch_size)

    assert_same_weights(trained(SMALL, gradient_accumulation_steps=K), trained(SMALL * K))


@every_update
def test_penalty_acts_once_per_real_update_and_every_batch_is_recorded(update: str) -> None:
    """Every second update is observed, each of its batches with its own gradient; the values are those of all batches."""
    by_numpy, per_epoch = ByHand(update, **GIVEN), []
    forces, samples = np.zeros((2, 3)), 0
    for epoch in range(EPOCHS):
        values, epoch_batches = [], small_batches()
        for first in range(0, len(epoch_batches), K):
            together = epoch_batches[first : first + K]
            if (epoch * len(epoch_batches) + first) // K % 2 == 0:
                forces += sum(by_numpy.measured(prediction) for prediction in together)
                samples += K
            values += [by_numpy.values().sum()] * K
            by_numpy.step(mean(together))
        per_epoch.append(np.mean(values))
    model = by_hand_model(update)

    x, y = by_hand.rows(ROWS)
    watch = [poise.PenaltyLogger()]
    history = model.fit(x, y, SMALL, EPOCHS, verbose=0, shuffle=False, callbacks=watch).history

    assert_same_weights(model, by_numpy.weights)
    np.testing.assert_allclose(history["penalty"], per_epoch, rtol=1e-5)
    recorded, count = model.optimizer.force_record().total, model.optimizer.force_record().samples
    np.testing.assert_allclose(recorded[:, :3], forces, rtol=1e-4)
    assert count == samples


def test_short_rest_of_an_epoch_is_carried_into_the_next() -> None:
    """5 batches an epoch and 3 to an update."""
    by_numpy = ByHand("proximal", **GIVEN)
    x, y = by_hand.rows(5 * SMALL)
    batches = [by_hand.gradients(x[i : i + SMALL], y[i : i + SMALL]) for i in range(0, len(x), SMALL)] * EPOCHS
    for first in range(0, len(batches) - K + 1, K):
        by_numpy.step(mean(batches[first : first + K]))
    model = by_hand_model("proximal")

    model.fit(x, y, SMALL, EPOCHS, verbose=0, shuffle=False)

    assert_same_weights(model, by_numpy.weights)


def test_strength_of_a_schedule_is_that_of_the_real_update() -> None:
    strength = optimizers.schedules.ExponentialDecay(0.4, 5, 0.5)

    def trained(batch_size: int, **accumulation: int) -> keras.Model:
        inner = optimizers.SGD(0.05, **accumulation)
        return fitted(
            compiled(poise.PenalizedOptimizer(inner, poise.L1(strength), "proximal")), EPOCHS, ROWS, batch_size
        )

    assert_same_weights(trained(SMALL, gradient_accumulation_steps=K), trained(SMALL * K))


def test_average_is_that_of_keras_which_counts_every_batch() -> None:
    def trained(optimizer: Any, model: keras.Model) -> keras.Model:
        return fitted(compiled(optimizer, model), EPOCHS, ROWS, SMALL)

    def inner() -> Any:
        return optimizers.SGD(0.05, gradient_accumulation_steps=K, use_ema=True, ema_momentum=0.8)

    stock = trained(inner(), net(kernel_regularizer="l2"))
    ours = trained(poise.PenalizedOptimizer(inner(), poise.L2(0.01)), net())

    assert_same_weights(ours, stock)


def test_average_sees_the_weights_after_the_prox_of_the_real_update() -> None:
    by_numpy, batches = ByHand("proximal", **GIVEN), small_batches() * EPOCHS
    average: list = []
    for number in range(len(batches)):
        if (number + 1) % K == 0:
            by_numpy.step(mean(batches[number + 1 - K : number + 1]))
        now = by_numpy.weights
        average = now if number < K else [0.8 * a + 0.2 * w for a, w in zip(average, now, strict=True)]
    model = by_hand_model("proximal", use_ema=True, ema_momentum=0.8)

    x, y = by_hand.rows(ROWS)
    model.fit(x, y, SMALL, EPOCHS, verbose=0, shuffle=False)

    assert_same_weights(model, average)
