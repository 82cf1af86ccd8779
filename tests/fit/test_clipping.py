"""Gradient clipping: coupled clips the sum, as Keras does; decoupled the prediction gradient alone, as AdamW does.

The proximal update refuses it: test_metric.py.
"""

from collections.abc import Callable
from functools import cache

import keras
import numpy as np
import pytest
from keras import optimizers
from oracles.by_hand import soft_threshold
from oracles.models import assert_same_weights, batches, compiled, fitted, net, weights

import poise

EPOCHS = 5
"""15 steps."""
every_clip = pytest.mark.parametrize(
    "clip", [{"clipnorm": 0.2}, {"global_clipnorm": 0.3}, {"clipvalue": 0.1}], ids=lambda clip: next(iter(clip))
)


def coupled_l2(**clip: float) -> poise.PenalizedOptimizer:
    return poise.PenalizedOptimizer(optimizers.SGD(0.05, 0.9, **clip), poise.L2(0.5))


def decoupled_l2(**clip: float) -> poise.PenalizedOptimizer:
    return poise.PenalizedOptimizer(optimizers.Adam(0.05, **clip), poise.L2(0.5), update="decoupled")


def decoupled_l1(**clip: float) -> poise.PenalizedOptimizer:
    return poise.PenalizedOptimizer(optimizers.SGD(0.05, **clip), poise.L1(0.1), update="decoupled")


@cache
def trained_without_clip(make: Callable[..., poise.PenalizedOptimizer]) -> list[np.ndarray]:
    return weights(fitted(compiled(make()), EPOCHS))


def trained(make: Callable[..., poise.PenalizedOptimizer], clip: dict) -> keras.Model:
    """A model that the clip has led elsewhere than it would have come without."""
    model = fitted(compiled(make(**clip)), EPOCHS)
    apart = [np.abs(w - other).max() for w, other in zip(weights(model), trained_without_clip(make), strict=True)]
    assert min(apart) > 1e-3
    return model


@every_clip
def test_coupled_clips_the_sum_of_both_gradients(clip: dict) -> None:
    stock = net(kernel_regularizer=keras.regularizers.L2(0.5))
    fitted(compiled(optimizers.SGD(0.05, 0.9, **clip), stock), EPOCHS)

    assert_same_weights(trained(coupled_l2, clip), stock)


@every_clip
def test_decoupled_l2_clips_only_the_prediction_gradient(clip: dict) -> None:
    decaying = optimizers.AdamW(0.05, weight_decay=1.0, **clip)
    decaying.exclude_from_weight_decay(var_names=["bias"])

    assert_same_weights(trained(decoupled_l2, clip), fitted(compiled(decaying), EPOCHS))


@every_clip
def test_decoupled_l1_clips_only_the_prediction_gradient(clip: dict) -> None:
    stock = compiled(optimizers.SGD(0.05, **clip))
    for x, y in batches(EPOCHS):
        stock.train_on_batch(x, y)
        stock.set_weights([soft_threshold(w, 0.05 * 0.1) if w.ndim == 2 else w for w in stock.get_weights()])

    model = trained(decoupled_l1, clip)

    assert_same_weights(model, stock)
    assert any((w == 0.0).any() for w in weights(model))
