"""Fine-tuning in two phases: layers frozen, then thawed and the model compiled again.

An inactive rule, and the messages about it, are in test_optimizer_errors.py and test_inventory.py.
"""

from typing import Any

import keras
import numpy as np
import pytest
from keras import optimizers
from oracles.by_hand import soft_threshold
from oracles.models import assert_same_weights, batches, compiled, fitted, net, weights

import poise

RULES = [
    poise.Rule("features/kernel", poise.L2(0.02), name="base"),
    poise.Rule("head/kernel", poise.L2(0.05), name="head"),
]
inactive = pytest.mark.filterwarnings("ignore:Rule 'base' has no effect:UserWarning")


def half_frozen(**of_layers: Any) -> keras.Model:
    model = net(**of_layers)
    model.get_layer("features").trainable = False
    return model


def thawed(model: keras.Model, rate: float) -> keras.Model:
    """The model with all layers thawed, compiled as docs/explanation/updates.md says."""
    model.get_layer("features").trainable = True
    optimizer = poise.PenalizedOptimizer.from_config(poise.get_penalized_optimizer(model).get_config())
    optimizer.learning_rate = rate
    return compiled(optimizer, model)


def notes(model: keras.Model) -> dict[str, str]:
    table = poise.summary(model).table
    return dict(zip(table["variable"], table["note"], strict=True))


@inactive
def test_two_phases_are_those_of_keras_regularizers_and_strengths_survive() -> None:
    regularizers = {"features": keras.regularizers.L2(0.02), "head": keras.regularizers.L2(0.05)}
    stock = half_frozen(kernel_regularizer=regularizers)
    fitted(compiled(optimizers.SGD(0.05, 0.9), stock), 3)
    regularizers["features"].l2, regularizers["head"].l2 = 0.3, 0.1
    stock.get_layer("features").trainable = True
    fitted(compiled(optimizers.SGD(0.01, 0.9), stock), 3)

    model = fitted(compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05, 0.9), RULES), half_frozen()), 3)
    assert notes(model)["net/features/kernel"] == "frozen; rule 'base' (inactive) would apply if it were trained"
    model.optimizer.strength["base"] = 0.3
    model.optimizer.strength["head"] = 0.1
    fitted(thawed(model, 0.01), 3)

    assert_same_weights(model, stock)
    assert dict(model.optimizer.strength) == {"base": 0.3, "head": 0.1}
    assert notes(model)["net/features/kernel"] == "rule 'base'"


def test_prox_leaves_frozen_weights_and_acts_on_thawed_ones() -> None:
    stock = half_frozen()
    for rate, is_frozen in ((0.05, True), (0.02, False)):
        stock.get_layer("features").trainable = not is_frozen
        compiled(optimizers.SGD(rate), stock)
        for x, y in batches(3):
            stock.train_on_batch(x, y)
            for layer in stock.layers[int(is_frozen) :]:
                layer.kernel.assign(soft_threshold(np.array(layer.kernel), rate * 0.5))

    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.5), update="proximal"), half_frozen())
    before = weights(model)
    fitted(model, 3)
    np.testing.assert_array_equal(weights(model)[0], before[0])
    fitted(thawed(model, 0.02), 3)

    assert_same_weights(model, stock)
    assert np.any(weights(model)[0] == 0)


@inactive
def test_strengths_survive_under_a_loss_scale() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = fitted(compiled(poise.PenalizedOptimizer("sgd", RULES), half_frozen()), 1)
        poise.get_penalized_optimizer(model).strength["head"] = 0.75
        fitted(thawed(model, 0.01), 1)
    finally:
        keras.config.set_dtype_policy("float32")

    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    assert poise.get_penalized_optimizer(model).strength["head"] == 0.75
    assert notes(model)["net/features/kernel"] == "rule 'base'"


@inactive
def test_forces_are_observed_again_for_all_trained_variables() -> None:
    model = fitted(compiled(poise.PenalizedOptimizer("sgd", RULES, observe_every=1), half_frozen()), 1)
    first_phase = poise.forces(model)

    thawed(model, 0.01)
    with pytest.raises(ValueError, match="No forces were recorded"):
        poise.forces(model)
    fitted(model, 1)

    assert first_phase["variable"].tolist() == ["net/head/kernel"]
    assert poise.forces(model)["variable"].tolist() == ["net/features/kernel", "net/head/kernel"]
    assert model.optimizer.force_record().samples == 3


@inactive
def test_the_same_optimizer_refuses_unfrozen_variables_and_explains_what_to_do() -> None:
    optimizer = poise.PenalizedOptimizer("sgd", RULES)
    model = fitted(compiled(optimizer, half_frozen()), 1)
    model.get_layer("features").trainable = True

    with pytest.raises(
        ValueError, match=r"built for 2 variables.*unfrozen after.*poise\.PenalizedOptimizer\.from_config\("
    ):
        fitted(compiled(optimizer, model), 1)


@inactive
def test_anchor_of_thawed_weights_is_where_they_were_frozen() -> None:
    rules = [poise.Rule("features/kernel", poise.Anchored(poise.L1(100.0)), name="base"), RULES[1]]
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), rules, update="proximal"), half_frozen())
    pretrained = weights(model)

    fitted(thawed(fitted(model, 2), 0.05), 2)

    np.testing.assert_array_equal(weights(model)[0], pretrained[0])
    assert np.all(weights(model)[2] != pretrained[2])


def test_the_same_optimizer_continues_after_compiling_with_another_loss() -> None:
    def two_losses(optimizer: Any, model: keras.Model) -> keras.Model:
        fitted(compiled(optimizer, model), 2)
        return fitted(compiled(optimizer, model, loss="mae"), 2)

    stock = two_losses(optimizers.Adam(0.01), net(kernel_regularizer=keras.regularizers.L2(0.02)))
    model = two_losses(poise.PenalizedOptimizer(optimizers.Adam(0.01), poise.L2(0.02), observe_every=1), net())

    assert_same_weights(model, stock)
    assert model.optimizer.force_record().samples == 12
