"""The penalty that grows until the chosen units are zero."""

import keras
import numpy as np
from keras import layers

from poise.optimizer.penalized import PenalizedOptimizer
from poise.shrinking.data import Rows
from poise.shrinking.importance import measure_gradients, norm_gradients
from poise.shrinking.removal import GrowingStrength, remove_units
from poise.shrinking.training import Trainer
from poise.shrinking.unit_sets import RemovableUnits

X = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
Y = np.sin(X[:, :1]) + X[:, 1:2] * X[:, 2:3]


def trained(optimizer="adam", epochs: int = 15) -> tuple[keras.Model, Trainer]:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(24, activation="relu"), layers.Dense(1)])
    model.compile(optimizer, "mse")
    model.fit(X, Y, epochs=epochs, verbose=0)
    rows = Rows({"x": X, "y": Y, "batch_size": 32}, 8)
    return model, Trainer(model, rows, rows, 0.01, 0)


def test_chosen_units_become_exactly_zero_and_the_others_stay() -> None:
    model, trainer = trained()
    units = RemovableUnits(model)
    norms = norm_gradients(units, measure_gradients(model, trainer))
    chosen = np.zeros(len(norms), bool)
    chosen[np.flatnonzero(units.is_removable)[:12]] = True
    rule = units.make_rule(chosen, norms)
    strengths = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            strengths.append(self.model.optimizer.strength[rule.name])

    trainer.fit(
        model, PenalizedOptimizer(trainer.make_optimizer(6), rule), 6, [GrowingStrength(units, chosen, 48), Record()]
    )

    kernel, bias, reading = (np.array(weight) for weight in model.get_weights()[:3])
    assert (kernel[:, :12] == 0).all()
    assert (bias[:12] == 0).all()
    assert (kernel[:, 12:] != 0).any(axis=0).all()
    assert (reading[12:] != 0).all()
    assert strengths == sorted(strengths)
    assert strengths[-1] > 1


def test_a_growing_penalty_hurts_less_than_a_cut() -> None:
    """The other units learn to replace the chosen ones while these go to zero."""
    losses = {}
    for epochs in (0, 6):
        keras.utils.set_random_seed(0)
        model, trainer = trained(epochs=40)
        units = RemovableUnits(model)
        norms = norm_gradients(units, measure_gradients(model, trainer))
        chosen = np.zeros(len(norms), bool)
        chosen[np.flatnonzero(units.is_removable)[:12]] = True
        smaller = remove_units(units, chosen, norms, trainer, epochs)
        assert smaller.layers[0].units == 12
        losses[epochs] = trainer.score(smaller)["loss"]
    assert losses[6] < 0.7 * losses[0]


def test_any_optimizer_with_a_known_step_moves_the_units_to_zero() -> None:
    model, trainer = trained(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True))
    units = RemovableUnits(model)
    norms = norm_gradients(units, measure_gradients(model, trainer))
    chosen = np.zeros(len(norms), bool)
    chosen[np.flatnonzero(units.is_removable)[::2]] = True
    cut = trainer.score(units.remove(chosen))["loss"]
    smaller = remove_units(units, chosen, norms, trainer, 8)
    assert smaller.layers[0].units == 12
    assert units.share_of_zeros(chosen) == 1
    assert trainer.score(smaller)["loss"] < 0.7 * cut
