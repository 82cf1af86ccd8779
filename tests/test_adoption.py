"""poise.adopt: the same training as before, with the penalty out of the loss."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers
from oracles.models import assert_same_weights, batches, compiled, fitted, net, table

import poise

REGULARIZERS = {
    "L1": (lambda: regularizers.L1(0.01), "L1(strength=0.01)"),
    "L2": (lambda: regularizers.L2(0.02), "L2(strength=0.02)"),
    "L1L2": (lambda: regularizers.L1L2(0.01, 0.02), "ElasticNet(l1=0.01, l2=0.02, strength=1.0)"),
    "L1L2 without L1": (lambda: regularizers.L1L2(0.0, 0.02), "L2(strength=0.02)"),
    "rows": (lambda: regularizers.OrthogonalRegularizer(0.1), "Coherence(mode='rows', strength=0.1)"),
    "columns": (lambda: regularizers.OrthogonalRegularizer(0.1, "columns"), "Coherence(mode='columns', strength=0.1)"),
}


@keras.saving.register_keras_serializable("tests")
class Cubes(regularizers.Regularizer):
    """A regularizer that poise does not know."""

    def __call__(self, w):
        return 0.01 * keras.ops.sum(keras.ops.abs(w) ** 3)

    def get_config(self):
        return {}


def _carrying(make):
    return net(kernel_regularizer={"features": make(), "head": None})


@pytest.mark.parametrize("name", REGULARIZERS)
def test_adopted_training_is_the_untouched_one(name):
    make, _ = REGULARIZERS[name]
    untouched, adopted = (fitted(compiled("adam", _carrying(make)), epochs=5) for _ in range(2))

    poise.adopt(adopted)

    assert_same_weights(fitted(adopted, epochs=10), fitted(untouched, epochs=10))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_becomes_its_penalty(name):
    make, penalty = REGULARIZERS[name]

    [rule] = poise.adopt(_carrying(make))

    assert repr(rule.penalty) == rule.name == penalty
    assert rule.select == ["features/kernel"]


def test_the_loss_becomes_the_prediction_loss():
    model = compiled("adam", net(kernel_regularizer=regularizers.L2(0.1)))
    plain = compiled("adam", net())
    x, y = table(40)

    poise.adopt(model)

    assert model.losses == []
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), plain.evaluate(x, y, verbose=0), rtol=1e-6)
    assert poise.find_penalized(model).update == "coupled"


def test_one_rule_for_each_different_regularizer_biases_included():
    model = net(kernel_regularizer=regularizers.L2(0.1), bias_regularizer=regularizers.L1(0.2))

    rules = {repr(rule.penalty): rule for rule in poise.adopt(model)}

    assert sorted(rules) == ["L1(strength=0.2)", "L2(strength=0.1)"]
    assert all(path.endswith("/bias") for path in rules["L1(strength=0.2)"].select)


def test_rules_of_a_model_that_is_not_compiled_go_into_penalized():
    model = net(kernel_regularizer=regularizers.L2(0.1))
    reference = fitted(compiled("adam", net(kernel_regularizer=regularizers.L2(0.1))))

    rules = poise.adopt(model)

    assert_same_weights(fitted(compiled(poise.Penalized("adam", rules), model)), reference)


def test_regularizers_do_not_come_back_by_saving_loading_or_cloning(tmp_path):
    model = fitted(compiled("adam", net(kernel_regularizer=regularizers.L2(0.1), bias_regularizer="l1")), epochs=1)
    poise.adopt(model)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.losses == keras.models.clone_model(model).losses == []
    assert {rule.name for rule in loaded.optimizer.rules} == {rule.name for rule in model.optimizer.rules}


def test_a_loaded_model_goes_on_as_the_untouched_one(tmp_path):
    untouched = fitted(compiled("adam", net(kernel_regularizer=regularizers.L1(0.01))), epochs=5)
    untouched.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    poise.adopt(loaded)

    assert_same_weights(fitted(loaded, epochs=5), fitted(untouched, epochs=5))


def test_layers_inside_layers_are_found():
    inner = keras.Sequential([layers.Dense(4, kernel_regularizer="l2", name="deep")], name="inner")
    lstm = layers.LSTM(3, kernel_regularizer="l2", recurrent_regularizer="l1", name="lstm")
    model = keras.Sequential([keras.Input((5, 6)), layers.TimeDistributed(inner), lstm, layers.Dense(1)], name="net")

    rules = poise.adopt(model)

    assert sorted(path.split("/")[-1] for rule in rules for path in rule.select) == [
        *("kernel", "kernel", "recurrent_kernel")
    ]
    assert keras.models.clone_model(model).losses == []


def test_what_poise_does_not_know_stays_in_the_loss_and_is_named():
    each = {"features": Cubes(), "head": regularizers.L2(0.1)}
    model = net(kernel_regularizer=each, activity_regularizer={"head": "l2", "features": None})
    twin = net(kernel_regularizer={**each, "head": None})

    with pytest.warns(UserWarning, match=r"Cubes on 'net/features/kernel'; the activity regularizer of 'head'"):
        [rule] = poise.adopt(model)

    assert rule.select == ["head/kernel"]
    ours, theirs = (keras.ops.convert_to_numpy(m.losses[0]) for m in (model, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_poise_penalty_that_serves_as_a_regularizer_is_moved_as_it_is():
    model = net(kernel_regularizer=poise.GroupLasso(0.1, "inputs"))

    [rule] = poise.adopt(model)

    assert (rule.penalty.strength, rule.penalty.groups) == (0.1, "inputs")


def test_rules_join_those_of_a_model_that_has_some():
    model = net(kernel_regularizer={"head": regularizers.L2(0.1), "features": None})
    model = compiled(poise.Penalized("adam", poise.Rule("features/kernel", poise.L1(0.2)), observe=3), model)

    poise.adopt(model)

    optimizer = fitted(model).optimizer
    assert [rule.name for rule in optimizer.rules] == ["features/kernel", "L2(strength=0.1)"]
    assert optimizer.observe == 3


def test_loss_scaling_stays_around_the_penalty():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled("adam", net(kernel_regularizer=regularizers.L2(0.1)))
        poise.adopt(model)
    finally:
        keras.config.set_dtype_policy("float32")

    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(model.optimizer.inner_optimizer, poise.Penalized)
    fitted(model, epochs=1)


def test_frozen_variables_give_theirs_away_too():
    model = net(kernel_regularizer=regularizers.L2(0.1))
    model.get_layer("features").trainable = False

    [rule] = poise.adopt(model)

    assert len(rule.select) == 2


def test_nothing_to_adopt_leaves_the_model_as_it_is():
    model = compiled("adam")
    optimizer = model.optimizer

    assert poise.adopt(model) == []
    assert model.optimizer is optimizer


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="not built"):
        poise.adopt(keras.Sequential([layers.Dense(1, kernel_regularizer="l2")]))


def test_an_average_of_the_weights_goes_on():
    def trained():
        inner = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
        model = compiled(inner, net(kernel_regularizer=regularizers.L2(0.01)))
        return _stepped(model)

    untouched, adopted = trained(), trained()
    poise.adopt(adopted)

    for model in (_stepped(untouched), _stepped(adopted)):
        model.optimizer.finalize_variable_values(model.trainable_variables)
    assert_same_weights(adopted, untouched)


def _stepped(model):
    for x, y in batches(epochs=2):
        model.train_on_batch(x, y)
    return model


def test_the_strengths_that_a_model_has_are_kept():
    def trained():
        each = {"head": regularizers.L2(0.1), "features": None}
        rule = poise.Rule("features/kernel", poise.L1(0.2))
        model = compiled(poise.Penalized("adam", rule), net(kernel_regularizer=each))
        model.optimizer.strength["features/kernel"] = 0.05
        fitted(model, epochs=2)
        model.optimizer.strength["features/kernel"] = 0.1
        return model

    untouched, adopted = trained(), trained()
    poise.adopt(adopted)

    assert adopted.optimizer.strength["features/kernel"] == 0.1
    assert_same_weights(fitted(adopted, epochs=3), fitted(untouched, epochs=3))


def test_a_regularizer_of_frozen_layers_sleeps_in_a_trained_model():
    each = {"features": regularizers.L1(0.1), "head": regularizers.L2(0.1)}
    untouched, adopted = net(kernel_regularizer=each), net(kernel_regularizer=each)
    for model in (untouched, adopted):
        model.get_layer("features").trainable = False
        fitted(compiled("adam", model), epochs=2)

    with pytest.warns(UserWarning, match=r"Rule 'L1\(strength=0\.1\)' sleeps"):
        poise.adopt(adopted)

    assert_same_weights(fitted(adopted, epochs=3), fitted(untouched, epochs=3))


@keras.saving.register_keras_serializable("tests")
class OwnName(layers.Layer):
    """A user's layer that calls its regularizer by another name than Keras' layers do."""

    def __init__(self, shrink=None, **settings):
        super().__init__(**settings)
        self.shrink = regularizers.get(shrink)

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 1), regularizer=self.shrink, name="w")

    def call(self, x):
        return x @ self.w

    def get_config(self):
        return {**super().get_config(), "shrink": regularizers.serialize(self.shrink)}


def test_a_layer_that_calls_its_regularizer_otherwise_forgets_it_too():
    model = keras.Sequential([keras.Input((3,)), OwnName("l2")])

    poise.adopt(model)

    assert keras.models.clone_model(model).losses == []


def _penalised(inner, rule, **settings):
    """A trained model with a rule for its features and a Keras regularizer on its head."""
    each = {"head": regularizers.L2(0.01), "features": None}
    return _stepped(compiled(poise.Penalized(inner, rule, **settings), net(kernel_regularizer=each)))


@pytest.mark.parametrize("what", ["average", "anchor"])
def test_the_state_of_a_model_that_has_rules_is_kept(what):
    average = {"use_ema": True, "ema_momentum": 0.9} if what == "average" else {}
    penalty = poise.Anchored(poise.L2(0.5)) if what == "anchor" else poise.L1(0.1)
    untouched, adopted = (
        _penalised(keras.optimizers.SGD(0.05, **average), poise.Rule("features/kernel", penalty)) for _ in range(2)
    )

    poise.adopt(adopted)

    for model in (_stepped(untouched), _stepped(adopted)):
        model.optimizer.finalize_variable_values(model.trainable_variables)
    assert_same_weights(adopted, untouched)


def test_the_momentum_of_the_proximal_steps_is_kept():
    """The adopted regularizer has the strength zero, so that nothing but the old rule acts."""

    def trained():
        each = {"head": regularizers.L2(0.0), "features": None}
        rule = poise.Rule("features/kernel", poise.L1(0.1))
        optimizer = poise.Penalized(keras.optimizers.SGD(0.05, 0.9), rule, update="proximal")
        return _stepped(compiled(optimizer, net(kernel_regularizer=each)))

    untouched, adopted = trained(), trained()

    poise.adopt(adopted)

    assert_same_weights(_stepped(adopted), _stepped(untouched))


def test_a_rule_that_has_the_name_of_an_adopted_one_is_told_apart():
    model = _penalised("sgd", poise.Rule("features/kernel", poise.L1(0.1), name="L2(strength=0.01)"))

    poise.adopt(model)

    assert dict(model.optimizer.strength) == {"L2(strength=0.01)": 0.1, "L2(strength=0.01) (2)": 0.01}


@pytest.mark.parametrize("why", ["decoupled", "two non-smooth penalties"])
def test_a_refusal_leaves_the_model_as_it_was(why):
    update, old = ("decoupled", poise.L2(0.1)) if why == "decoupled" else ("proximal", poise.GroupLasso(0.1))
    each = {"head": regularizers.L1(0.01), "features": None}
    model = net(kernel_regularizer=each)
    model = compiled(poise.Penalized("adam", poise.Rule("features/kernel", old), update=update), model)
    fitted(model, epochs=1)
    if why != "decoupled":
        model.get_layer("features").kernel.regularizer = regularizers.L1(0.01)
    optimizer, before = model.optimizer, [keras.ops.convert_to_numpy(loss) for loss in model.losses]

    with pytest.raises(ValueError, match="another minimum" if why == "decoupled" else "2 non-smooth penalties"):
        poise.adopt(model)

    np.testing.assert_array_equal([keras.ops.convert_to_numpy(loss) for loss in model.losses], before)
    assert model.optimizer is optimizer
    assert model.get_layer("head").kernel_regularizer is not None
    assert fitted(model, epochs=1)


def test_a_second_adoption_joins_the_first():
    model = compiled("adam", net(kernel_regularizer={"features": regularizers.L2(0.1), "head": None}))
    poise.adopt(model)
    model.get_layer("head").kernel.regularizer = regularizers.L2(0.1)

    poise.adopt(model)

    assert [rule.name for rule in model.optimizer.rules] == ["L2(strength=0.1)", "L2(strength=0.1) (2)"]
