"""Averages of the weights (`use_ema=True`): of what the prox left, shown by Keras' callbacks, ended with exact zeros.

Averages under accumulation and loss scaling are in test_accumulation.py and test_mixed_precision.py, those with
`ema_overwrite_frequency` in test_optimizer.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import callbacks, optimizers
from oracles import by_hand
from oracles.by_hand import ByHand
from oracles.models import assert_same_weights, compiled, fitted, net, weights

import poise

EPOCHS, ROWS, BATCH = 4, 24, 8
GIVEN = {"l1": 0.5, "l2": 0.5, "rate": 0.0625}
KEPT = 0.75


def averaged(update: str = "proximal", use_ema: bool = True, **arguments: Any) -> keras.Model:
    inner = optimizers.SGD(GIVEN["rate"], use_ema=use_ema, ema_momentum=KEPT)
    optimizer = poise.PenalizedOptimizer(inner, by_hand.rules(GIVEN["l1"], GIVEN["l2"]), update=update)
    return compiled(optimizer, by_hand.side_by_side(), loss=by_hand.product, **arguments)


def fit(
    model: keras.Model, *watch: callbacks.Callback, epochs: int = EPOCHS, **arguments: Any
) -> dict[str, list[float]]:
    settings = {"verbose": 0, "shuffle": False, "callbacks": list(watch)}
    return model.fit(*by_hand.rows(ROWS), BATCH, epochs, **settings, **arguments).history


def epochs_by_hand(update: str = "proximal", epochs: int = EPOCHS) -> Iterator[tuple[list, list]]:
    """The weights and their averages at the end of every epoch."""
    by_numpy = ByHand(update, **GIVEN)
    now, mean = [], []
    x, y = by_hand.rows(ROWS)
    for _ in range(epochs):
        for i in range(0, ROWS, BATCH):
            by_numpy.step(by_hand.gradients(x[i : i + BATCH], y[i : i + BATCH]))
            now = list(by_numpy.weights)
            mean = [KEPT * m + (1 - KEPT) * w for m, w in zip(mean, now, strict=True)] if mean else now
        yield now, mean


def with_zeros_of(iterate: list, mean: list) -> list:
    """The mean with the zeros of the iterate in the two kernels."""
    return [np.where(w == 0, 0.0, m) for w, m in zip(iterate[:2], mean, strict=False)] + mean[2:]


@pytest.mark.parametrize("update", ["decoupled", "proximal"])
def test_kept_zeros_are_those_of_the_last_step_and_all_else_is_averaged(update: str) -> None:
    *_, (iterate, mean) = epochs_by_hand(update)
    plain, kept = averaged(update), averaged(update)

    fit(plain)
    fit(kept, poise.RestoreZeros())

    assert_same_weights(plain, mean)
    assert_same_weights(kept, with_zeros_of(iterate, mean))
    np.testing.assert_array_equal(weights(kept)[0] == 0, iterate[0] == 0)
    assert 0 < np.sum(iterate[0] == 0) < 4
    assert np.all(weights(plain)[0] != 0)


def test_entry_that_was_zero_all_along_is_zero_in_the_average_too() -> None:
    model = averaged()
    model.get_layer("left").kernel.assign(np.zeros((4, 1)))
    model.optimizer.strength["left/kernel"] = 10.0

    fit(model)

    assert np.all(weights(model)[0] == 0)


def test_zeros_are_kept_where_training_is_stopped_early() -> None:
    *_, (iterate, mean) = epochs_by_hand(epochs=3)
    model = averaged()
    stop = callbacks.EarlyStopping("loss", min_delta=1e9, patience=2)

    history = fit(model, stop, poise.RestoreZeros(), epochs=20)

    assert len(history["loss"]) == 3
    assert_same_weights(model, with_zeros_of(iterate, mean))


def test_zeros_are_kept_under_a_loss_scale() -> None:
    *_, (iterate, mean) = epochs_by_hand()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = averaged()
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)

    fit(model, poise.RestoreZeros())

    assert_same_weights(model, with_zeros_of(iterate, mean))
    assert np.any(weights(model)[0] == 0)


def test_training_continues_after_zeros_were_restored() -> None:
    model = averaged()

    fit(model, poise.RestoreZeros())
    fit(model, poise.RestoreZeros())

    assert np.any(weights(model)[0] == 0)
    assert all(np.isfinite(w).all() for w in weights(model))


def test_checkpoint_has_the_weights_of_its_step_with_their_zeros(tmp_path: Path) -> None:
    file = str(tmp_path / "{epoch}.weights.h5")

    fit(averaged(), callbacks.ModelCheckpoint(file, save_weights_only=True))

    for number, (iterate, _) in enumerate(epochs_by_hand()):
        saved = averaged()
        saved.load_weights(file.format(epoch=number + 1))
        assert_same_weights(saved, iterate)
        np.testing.assert_array_equal(weights(saved)[0] == 0, iterate[0] == 0)


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swapped_averages_are_validated_and_saved(swap_on_epoch: bool, tmp_path: Path) -> None:
    file = str(tmp_path / "{epoch}.weights.h5")
    watch = [
        poise.RestoreZeros(),
        callbacks.SwapEMAWeights(swap_on_epoch),
        callbacks.ModelCheckpoint(file, save_weights_only=True),
    ]
    epochs = list(epochs_by_hand())
    model, plain = averaged(), averaged(use_ema=False)

    history = fit(model, *watch, validation_data=by_hand.rows(ROWS))

    for number, (iterate, mean) in enumerate(epochs):
        plain.set_weights(mean)
        expected = plain.evaluate(*by_hand.rows(ROWS), verbose=0)
        assert history["val_loss"][number] == pytest.approx(expected, rel=1e-5)
        saved = averaged()
        saved.load_weights(file.format(epoch=number + 1))
        assert_same_weights(saved, mean if swap_on_epoch else iterate)
    assert_same_weights(model, with_zeros_of(*epochs[-1]))


def test_average_of_a_multi_optimizer_is_that_of_keras() -> None:
    def several() -> Any:
        left = optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8)
        return optimizers.MultiOptimizer(optimizers.OptimizerMap(left, {"head/.*": optimizers.Adam(0.01)}))

    stock = fitted(compiled(several(), net(kernel_regularizer="l2")))
    ours = fitted(compiled(poise.PenalizedOptimizer(several(), poise.L2(0.01))))

    assert_same_weights(ours, stock)


def test_weights_without_an_average_have_nothing_to_keep() -> None:
    with pytest.raises(
        ValueError, match=r"RestoreZeros restores zeros in averaged weights, but.*use_ema=True.*keep their zeros"
    ):
        fit(averaged(use_ema=False), poise.RestoreZeros())
