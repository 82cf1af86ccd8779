"""poise.adopt_regularizers: the same training as before, with the penalty out of the loss."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, regularizers
from oracles.models import assert_same_weights, batches, compiled, fitted, net, table

import poise

REGULARIZERS = {
    "L1": (lambda: regularizers.L1(0.01), "L1(strength=0.01)"),
    "L2": (lambda: regularizers.L2(0.02), "L2(strength=0.02)"),
    "L1L2": (lambda: regularizers.L1L2(0.01, 0.02), "ElasticNet(l1=0.01, l2=0.02, strength=1.0)"),
    "L1L2 without L1": (lambda: regularizers.L1L2(0.0, 0.02), "L2(strength=0.02)"),
    "rows": (lambda: regularizers.OrthogonalRegularizer(0.1), "MutualCoherence(mode='rows', strength=0.1)"),
    "columns": (
        lambda: regularizers.OrthogonalRegularizer(0.1, "columns"),
        "MutualCoherence(mode='columns', strength=0.1)",
    ),
}


@keras.saving.register_keras_serializable("tests")
class Cubes(regularizers.Regularizer):
    """A regularizer that poise does not know."""

    def __call__(self, w) -> Any:
        return 0.01 * keras.ops.sum(keras.ops.abs(w) ** 3)

    def get_config(self) -> dict[str, Any]:
        return {}


def _carrying(make) -> Any:
    return net(kernel_regularizer={"features": make(), "head": None})


@pytest.mark.parametrize("name", REGULARIZERS)
def test_adopted_training_is_the_untouched_one(name) -> None:
    make, _ = REGULARIZERS[name]
    untouched, adopted = (fitted(compiled("adam", _carrying(make)), epochs=5) for _ in range(2))

    poise.adopt_regularizers(adopted)

    assert_same_weights(fitted(adopted, epochs=10), fitted(untouched, epochs=10))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_becomes_its_penalty(name) -> None:
    make, penalty = REGULARIZERS[name]

    [rule] = poise.adopt_regularizers(_carrying(make))

    assert repr(rule.penalty) == rule.name == penalty
    assert rule.select == ["features/kernel"]


def test_the_loss_becomes_the_prediction_loss() -> None:
    model = compiled("adam", net(kernel_regularizer=regularizers.L2(0.1)))
    plain = compiled("adam", net())
    x, y = table(40)

    poise.adopt_regularizers(model)

    assert model.losses == []
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), plain.evaluate(x, y, verbose=0), rtol=1e-6)
    assert poise.get_penalized_optimizer(model).update == "coupled"


def test_one_rule_for_each_different_regularizer_biases_included() -> None:
    model = net(kernel_regularizer=regularizers.L2(0.1), bias_regularizer=regularizers.L1(0.2))

    rules = {repr(rule.penalty): rule for rule in poise.adopt_regularizers(model)}

    assert sorted(rules) == ["L1(strength=0.2)", "L2(strength=0.1)"]
    assert all(path.endswith("/bias") for path in rules["L1(strength=0.2)"].select)


def test_rules_of_a_model_that_is_not_compiled_go_into_penalized() -> None:
    model = net(kernel_regularizer=regularizers.L2(0.1))
    reference = fitted(compiled("adam", net(kernel_regularizer=regularizers.L2(0.1))))

    rules = poise.adopt_regularizers(model)

    assert_same_weights(fitted(compiled(poise.PenalizedOptimizer("adam", rules), model)), reference)


def test_regularizers_do_not_come_back_by_saving_loading_or_cloning(tmp_path) -> None:
    model = fitted(compiled("adam", net(kernel_regularizer=regularizers.L2(0.1), bias_regularizer="l1")), epochs=1)
    poise.adopt_regularizers(model)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.losses == keras.models.clone_model(model).losses == []
    assert {rule.name for rule in loaded.optimizer.rules} == {rule.name for rule in model.optimizer.rules}


def test_a_loaded_model_continues_like_the_original(tmp_path) -> None:
    untouched = fitted(compiled("adam", net(kernel_regularizer=regularizers.L1(0.01))), epochs=5)
    untouched.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    poise.adopt_regularizers(loaded)

    assert_same_weights(fitted(loaded, epochs=5), fitted(untouched, epochs=5))


def test_layers_inside_layers_are_found() -> None:
    inner = keras.Sequential([layers.Dense(4, kernel_regularizer="l2", name="deep")], name="inner")
    lstm = layers.LSTM(3, kernel_regularizer="l2", recurrent_regularizer="l1", name="lstm")
    model = keras.Sequential([keras.Input((5, 6)), layers.TimeDistributed(inner), lstm, layers.Dense(1)], name="net")

    rules = poise.adopt_regularizers(model)

    assert sorted(path.split("/")[-1] for rule in rules for path in rule.select) == [
        *("kernel", "kernel", "recurrent_kernel")
    ]
    assert keras.models.clone_model(model).losses == []


def test_what_poise_does_not_know_stays_in_the_loss_and_is_named() -> None:
    each = {"features": Cubes(), "head": regularizers.L2(0.1)}
    model = net(kernel_regularizer=each, activity_regularizer={"head": "l2", "features": None})
    twin = net(kernel_regularizer={**each, "head": None})

    with pytest.warns(UserWarning, match=r"Cubes on 'net/features/kernel'; the activity regularizer of 'head'"):
        [rule] = poise.adopt_regularizers(model)

    assert rule.select == ["head/kernel"]
    ours, theirs = (keras.ops.convert_to_numpy(m.losses[0]) for m in (model, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_poise_penalty_that_serves_as_a_regularizer_is_moved_as_it_is() -> None:
    model = net(kernel_regularizer=poise.GroupLasso(0.1, "inputs"))

    [rule] = poise.adopt_regularizers(model)

    assert (rule.penalty.strength, rule.penalty.groups) == (0.1, "inputs")


def test_rules_join_those_of_a_model_that_has_some() -> None:
    model = net(kernel_regularizer={"head": regularizers.L2(0.1), "features": None})
    model = compiled(
        poise.PenalizedOptimizer("adam", poise.Rule("features/kernel", poise.L1(0.2)), observe_every=3), model
    )

    poise.adopt_regularizers(model)

    optimizer = fitted(model).optimizer
    assert [rule.name for rule in optimizer.rules] == ["features/kernel", "L2(strength=0.1)"]
    assert optimizer.observe_every == 3


def test_loss_scaling_stays_around_the_penalty() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled("adam", net(kernel_regularizer=regularizers.L2(0.1)))
        poise.adopt_regularizers(model)
    finally:
        keras.config.set_dtype_policy("float32")

    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(model.optimizer.inner_optimizer, poise.PenalizedOptimizer)
    fitted(model, epochs=1)


def test_frozen_variables_give_theirs_away_too() -> None:
    model = net(kernel_regularizer=regularizers.L2(0.1))
    model.get_layer("features").trainable = False

    [rule] = poise.adopt_regularizers(model)

    assert len(rule.select) == 2


def test_nothing_to_adopt_leaves_the_model_as_it_is() -> None:
    model = compiled("adam")
    optimizer = model.optimizer

    with pytest.warns(UserWarning, match="'net' has no weight regularizers to move, so it is not changed"):
        assert poise.adopt_regularizers(model) == []

    assert model.optimizer is optimizer


def test_nothing_to_adopt_beside_an_activity_regularizer_says_both() -> None:
    model = net(activity_regularizer={"head": "l2", "features": None})

    with pytest.warns(
        UserWarning, match="no weight regularizers .* stay in the loss: the activity regularizer of 'head'"
    ):
        assert poise.adopt_regularizers(model) == []


def test_a_model_that_is_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match="not built"):
        poise.adopt_regularizers(keras.Sequential([layers.Dense(1, kernel_regularizer="l2")]))


def test_an_average_of_the_weights_continues() -> None:
    def trained() -> Any:
        inner = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
        model = compiled(inner, net(kernel_regularizer=regularizers.L2(0.01)))
        return _stepped(model)

    untouched, adopted = trained(), trained()
    poise.adopt_regularizers(adopted)

    for model in (_stepped(untouched), _stepped(adopted)):
        model.optimizer.finalize_variable_values(model.trainable_variables)
    assert_same_weights(adopted, untouched)


def _stepped(model) -> Any:
    for x, y in batches(epochs=2):
        model.train_on_batch(x, y)
    return model


def test_the_strengths_that_a_model_has_are_kept() -> None:
    def trained() -> Any:
        each = {"head": regularizers.L2(0.1), "features": None}
        rule = poise.Rule("features/kernel", poise.L1(0.2))
        model = compiled(poise.PenalizedOptimizer("adam", rule), net(kernel_regularizer=each))
        model.optimizer.strength["features/kernel"] = 0.05
        fitted(model, epochs=2)
        model.optimizer.strength["features/kernel"] = 0.1
        return model

    untouched, adopted = trained(), trained()
    poise.adopt_regularizers(adopted)

    assert adopted.optimizer.strength["features/kernel"] == 0.1
    assert_same_weights(fitted(adopted, epochs=3), fitted(untouched, epochs=3))


def test_a_regularizer_of_frozen_layers_sleeps_in_a_trained_model() -> None:
    each = {"features": regularizers.L1(0.1), "head": regularizers.L2(0.1)}
    untouched, adopted = net(kernel_regularizer=each), net(kernel_regularizer=each)
    for model in (untouched, adopted):
        model.get_layer("features").trainable = False
        fitted(compiled("adam", model), epochs=2)

    with pytest.warns(UserWarning, match=r"Rule 'L1\(strength=0\.1\)' has no effect"):
        poise.adopt_regularizers(adopted)

    assert_same_weights(fitted(adopted, epochs=3), fitted(untouched, epochs=3))


@keras.saving.register_keras_serializable("tests")
class OwnName(layers.Layer):
    """A user's layer that calls its regularizer by another name than Keras' layers do."""

    def __init__(self, shrink=None, **settings) -> None:
        super().__init__(**settings)
        self.shrink = regularizers.get(shrink)

    def build(self, shape) -> None:
        self.w = self.add_weight(shape=(shape[-1], 1), regularizer=self.shrink, name="w")

    def call(self, x) -> Any:
        return x @ self.w

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shrink": regularizers.serialize(self.shrink)}


def test_a_layer_that_calls_its_regularizer_otherwise_forgets_it_too() -> None:
    model = keras.Sequential([keras.Input((3,)), OwnName("l2")])

    poise.adopt_regularizers(model)

    assert keras.models.clone_model(model).losses == []


def _penalized(inner, rule, **settings) -> Any:
    """A trained model with a rule for its features and a Keras regularizer on its head."""
    each = {"head": regularizers.L2(0.01), "features": None}
    return _stepped(compiled(poise.PenalizedOptimizer(inner, rule, **settings), net(kernel_regularizer=each)))


@pytest.mark.parametrize("what", ["average", "anchor"])
def test_the_state_of_a_model_that_has_rules_is_kept(what) -> None:
    average = {"use_ema": True, "ema_momentum": 0.9} if what == "average" else {}
    penalty = poise.Anchored(poise.L2(0.5)) if what == "anchor" else poise.L1(0.1)
    untouched, adopted = (
        _penalized(keras.optimizers.SGD(0.05, **average), poise.Rule("features/kernel", penalty)) for _ in range(2)
    )

    poise.adopt_regularizers(adopted)

    for model in (_stepped(untouched), _stepped(adopted)):
        model.optimizer.finalize_variable_values(model.trainable_variables)
    assert_same_weights(adopted, untouched)


def test_the_momentum_of_the_proximal_steps_is_kept() -> None:
    """The adopted regularizer has the strength zero, so that nothing but the old rule acts."""

    def trained() -> Any:
        each = {"head": regularizers.L2(0.0), "features": None}
        rule = poise.Rule("features/kernel", poise.L1(0.1))
        optimizer = poise.PenalizedOptimizer(keras.optimizers.SGD(0.05, 0.9), rule, update="proximal")
        return _stepped(compiled(optimizer, net(kernel_regularizer=each)))

    untouched, adopted = trained(), trained()

    poise.adopt_regularizers(adopted)

    assert_same_weights(_stepped(adopted), _stepped(untouched))


def test_a_rule_with_the_name_of_an_adopted_one_is_renamed() -> None:
    model = _penalized("sgd", poise.Rule("features/kernel", poise.L1(0.1), name="L2(strength=0.01)"))

    poise.adopt_regularizers(model)

    assert dict(model.optimizer.strength) == {"L2(strength=0.01)": 0.1, "L2(strength=0.01) (2)": 0.01}


@pytest.mark.parametrize("why", ["decoupled", "two non-smooth penalties"])
def test_a_refusal_leaves_the_model_as_it_was(why) -> None:
    update, old = ("decoupled", poise.L2(0.1)) if why == "decoupled" else ("proximal", poise.GroupLasso(0.1))
    each = {"head": regularizers.L1(0.01), "features": None}
    model = net(kernel_regularizer=each)
    model = compiled(poise.PenalizedOptimizer("adam", poise.Rule("features/kernel", old), update=update), model)
    fitted(model, epochs=1)
    if why != "decoupled":
        model.get_layer("features").kernel.regularizer = regularizers.L1(0.01)
    optimizer, before = model.optimizer, [keras.ops.convert_to_numpy(loss) for loss in model.losses]

    with pytest.raises(
        ValueError, match="would change the solution" if why == "decoupled" else "2 non-smooth penalties"
    ):
        poise.adopt_regularizers(model)

    np.testing.assert_array_equal([keras.ops.convert_to_numpy(loss) for loss in model.losses], before)
    assert model.optimizer is optimizer
    assert model.get_layer("head").kernel_regularizer is not None
    assert fitted(model, epochs=1)


def test_a_second_adoption_joins_the_first() -> None:
    model = compiled("adam", net(kernel_regularizer={"features": regularizers.L2(0.1), "head": None}))
    poise.adopt_regularizers(model)
    model.get_layer("head").kernel.regularizer = regularizers.L2(0.1)

    poise.adopt_regularizers(model)

    assert [rule.name for rule in model.optimizer.rules] == ["L2(strength=0.1)", "L2(strength=0.1) (2)"]


# ---------------------------------------------------------------- what stays as it was


@pytest.mark.filterwarnings("ignore:The loss of .* is not only the prediction loss")
@pytest.mark.parametrize("shared", [True, False])
def test_an_activity_regularizer_stays_also_where_it_is_the_same_object(shared) -> None:
    def trained(adopts) -> Any:
        regularizer = regularizers.L2(0.1)
        activity = regularizer if shared else regularizers.L2(0.1)
        model = compiled("sgd", net(kernel_regularizer=regularizer, activity_regularizer=activity))
        if adopts:
            poise.adopt_regularizers(model)
            assert model.get_layer("head").activity_regularizer is activity
            assert model.get_layer("head").get_config()["kernel_regularizer"] is None
        return fitted(model, epochs=3)

    assert_same_weights(trained(True), trained(False))


@keras.saving.register_keras_serializable("tests")
class CallsItsOwn(layers.Layer):
    """A layer that puts its regularizer on a variable and on its output."""

    def __init__(self, reg="l2", **settings) -> None:
        super().__init__(**settings)
        self.reg = regularizers.get(reg)

    def build(self, shape) -> None:
        self.w = self.add_weight(shape=(shape[-1], 4), name="w", regularizer=self.reg)

    def call(self, x) -> Any:
        h = x @ self.w
        self.add_loss(self.reg(h))
        return h

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reg": regularizers.serialize(self.reg)}


def test_a_layer_that_calls_its_regularizer_keeps_it() -> None:
    def trained(adopts) -> Any:
        keras.utils.set_random_seed(0)
        model = compiled("sgd", keras.Sequential([keras.Input((6,)), CallsItsOwn(name="own"), layers.Dense(1)]))
        if adopts:
            with pytest.warns(
                UserWarning, match=r"The code of the layer 'own' \(CallsItsOwn\) creates its regularizer"
            ):
                poise.adopt_regularizers(model)
        return fitted(model, epochs=3)

    assert_same_weights(trained(True), trained(False))


def test_everything_that_was_compiled_stays() -> None:
    def make() -> keras.Model:
        x = keras.Input((6,))
        hidden = layers.Dense(4, kernel_regularizer="l2")(x)
        return keras.Model(x, [layers.Dense(1, name="a")(hidden), layers.Dense(1, name="b")(hidden)])

    def trained(adopts) -> Any:
        keras.utils.set_random_seed(0)
        model = make()
        model.compile(
            keras.optimizers.Adam(0.01, use_ema=True),
            loss=["mse", "mae"],
            loss_weights=[1.0, 3.0],
            metrics=[["mae"], ["mse"]],
            weighted_metrics=[["mse"], []],
            steps_per_execution=1 if keras.backend.backend() == "torch" else 2,
            jit_compile=False,
        )
        x, y = table(40)
        fit = {"batch_size": 8, "shuffle": False, "verbose": 0, "sample_weight": [np.linspace(0.5, 2.0, 40)] * 2}
        model.fit(x, [y, -y], **fit)
        if adopts:
            before = model.metrics, model.steps_per_execution, model.jit_compile, model.run_eagerly, model.loss
            poise.adopt_regularizers(model)
            assert (
                model.metrics,
                model.steps_per_execution,
                model.jit_compile,
                model.run_eagerly,
                model.loss,
            ) == before
            assert isinstance(model.get_compile_config()["optimizer"]["config"], dict)
            assert "PenalizedOptimizer" in model.get_compile_config()["optimizer"]["class_name"]
        return model, model.fit(x, [y, -y], epochs=2, **fit).history

    (adopted, ours), (untouched, theirs) = trained(True), trained(False)

    assert_same_weights(adopted, untouched)
    assert set(ours) == set(theirs)
    for key in set(ours) - {"loss"}:  # the loss of Keras has the penalty in it
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("scales", [True, False])
def test_loss_scaling_is_as_it_was_compiled(scales) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled("adam", net(kernel_regularizer=regularizers.L2(0.1)), auto_scale_loss=scales)
        poise.adopt_regularizers(model)
    finally:
        keras.config.set_dtype_policy("float32")

    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer if scales else poise.PenalizedOptimizer)
    assert "PenalizedOptimizer" in model.get_compile_config()["optimizer"]["class_name"]
    fitted(model, epochs=1)


class Custom(keras.Model):
    """A model with a compile of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1, kernel_regularizer="l2")
        self.built = True
        self.dense.build((None, 6))

    def call(self, x) -> Any:
        return self.dense(x)

    def compile(self, optimizer, temperature, second=None) -> None:
        super().compile(optimizer, loss="mse")
        self.temperature, self.same, self.second_optimizer = temperature, self.optimizer, second


def test_a_custom_compile_is_not_called_again() -> None:
    def trained(adopts) -> Any:
        keras.utils.set_random_seed(0)
        model = Custom()
        model.compile(keras.optimizers.Adam(0.01), temperature=3.0)
        if adopts:
            poise.adopt_regularizers(model)
            assert (model.temperature, model.same) == (3.0, model.optimizer)
        model.fit(*table(40), verbose=0, shuffle=False)
        return model

    assert_same_weights(trained(True), trained(False))


def test_a_model_with_several_optimizers_is_refused() -> None:
    model = Custom()
    model.compile("sgd", temperature=3.0, second=keras.optimizers.Adam())

    with pytest.raises(ValueError, match=r"other optimizers besides model\.optimizer \(second_optimizer\)"):
        poise.adopt_regularizers(model)

    assert model.dense.kernel.regularizer is not None
    assert model.dense.kernel_regularizer is not None


# ---------------------------------------------------------------- layers of all kinds


def _heads(x) -> Any:
    return layers.MultiHeadAttention(2, 3, kernel_regularizer="l2", bias_regularizer=regularizers.L2(0.03))(x, x)


SEQUENCES = {
    "dense": layers.Dense(4, name="first", kernel_regularizer="l2", bias_regularizer=regularizers.L2(0.03)),
    "bidirectional": layers.Bidirectional(
        layers.LSTM(3, kernel_regularizer="l2", recurrent_regularizer=regularizers.L2(0.03))
    ),
    "GRU": layers.GRU(3, kernel_regularizer="l2", bias_regularizer=regularizers.L2(0.03), return_sequences=True),
    "stacked cells": layers.RNN([layers.SimpleRNNCell(3, kernel_regularizer="l2"), layers.SimpleRNNCell(2)]),
    "heads": _heads,
    "einsum": layers.EinsumDense("abc,cd->abd", (5, 4), kernel_regularizer="l2"),
    "convolution": layers.Conv1D(3, 2, kernel_regularizer="l2"),
    "transposed": layers.Conv1DTranspose(3, 2, kernel_regularizer="l2"),
    "separable": layers.SeparableConv1D(3, 2, depthwise_regularizer="l2", pointwise_regularizer=regularizers.L2(0.03)),
    "normalization": layers.BatchNormalization(gamma_regularizer="l2", beta_regularizer=regularizers.L2(0.03)),
    "slopes": layers.PReLU(alpha_regularizer="l2"),
    "distributed": layers.TimeDistributed(layers.Dense(2, kernel_regularizer="l2", name="inside")),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_layers_of_every_kind_train_alike_and_forget_theirs(name) -> None:
    def trained(adopts) -> keras.Model:
        keras.utils.set_random_seed(0)
        x = keras.Input((5, 6))
        layer = SEQUENCES[name]
        layer = type(layer).from_config(layer.get_config()) if isinstance(layer, layers.Layer) else layer
        model = keras.Model(x, layers.Dense(1)(layers.Flatten()(layer(x))), name="net")
        model.compile(keras.optimizers.SGD(0.05), loss="mse", jit_compile=False)
        if adopts:
            assert len(poise.adopt_regularizers(model)) > 0
            assert model.losses == keras.models.clone_model(model).losses == []
        model.train_on_batch(np.random.default_rng(0).normal(size=(4, 5, 6)), np.ones((4, 1)))
        return model

    assert_same_weights(trained(True), trained(False))


def test_weights_that_spectral_normalization_changes_keep_their_regularizer() -> None:
    """On JAX the loss sees them after the change, the optimizer before."""
    same = regularizers.L2(0.01)
    spectral = layers.SpectralNormalization(layers.Dense(2, kernel_regularizer=same, name="inside"))
    head = layers.Dense(1, kernel_regularizer=same, name="head")
    model = keras.Sequential([keras.Input((6,)), spectral, head])

    with pytest.warns(UserWarning, match=r"L2 on '.*inside/kernel', which SpectralNormalization changes in the step"):
        [rule] = poise.adopt_regularizers(model)

    assert rule.select == ["head/kernel"]
    assert len(model.losses) == 1
    assert spectral.layer.get_config()["kernel_regularizer"] is not None
    assert head.get_config()["kernel_regularizer"] is None


def test_low_rank_adapters_train_alike() -> None:
    def trained(adopts) -> Any:
        model = net(kernel_regularizer=regularizers.L2(0.1))
        model.get_layer("features").enable_lora(2)
        keras.utils.set_random_seed(0)
        for variable in model.trainable_variables:
            variable.assign(0.3 * np.random.default_rng(0).normal(size=variable.shape))
        compiled("sgd", model)
        if adopts:
            poise.adopt_regularizers(model)
        return fitted(model, epochs=3)

    assert_same_weights(trained(True), trained(False))


def test_layers_frozen_after_training_began() -> None:
    def trained(adopts) -> Any:
        model = fitted(compiled("sgd", net(kernel_regularizer=regularizers.L2(0.1))), epochs=1)
        model.get_layer("features").trainable = False
        compiled("sgd", model)
        if adopts:
            poise.adopt_regularizers(model)
        return fitted(model, epochs=2)

    assert_same_weights(trained(True), trained(False))


# ---------------------------------------------------------------- layers of several models


def test_layers_shared_with_another_model_are_reported() -> None:
    trunk = layers.Dense(4, kernel_regularizer="l2", name="trunk")
    models = []
    for name in ("left", "right"):
        x = keras.Input((6,))
        models.append(keras.Model(x, layers.Dense(1, name=f"{name}_head")(trunk(x)), name=name))

    with pytest.warns(UserWarning, match="'right' shares layers with 'left' and loses .*: 'trunk'. To keep them"):
        poise.adopt_regularizers(models[0])

    assert models[1].losses == []


def test_a_compiled_view_of_the_model_is_reported_and_others_are_not() -> None:
    model = net(kernel_regularizer={"features": "l2", "head": None})
    view = keras.Model(model.inputs, model.get_layer("features").output, name="view")
    twin = net(kernel_regularizer={"features": "l2", "head": None})
    part = keras.Model(twin.inputs, twin.get_layer("features").output, name="part")
    view.compile("sgd", "mse")

    poise.adopt_regularizers(twin)
    with pytest.warns(UserWarning, match="'view' shares layers with 'net'"):
        poise.adopt_regularizers(model)

    assert part.losses == []


def test_a_model_around_it_is_reported() -> None:
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(3, kernel_regularizer="l2", name="deep")], name="inner")
    outer = keras.Sequential([keras.Input((6,)), inner, layers.Dense(1)], name="outer")

    with pytest.warns(UserWarning, match="'outer' shares layers with 'inner'") as warned:
        poise.adopt_regularizers(inner)

    assert sum("shares layers" in str(warning.message) for warning in warned) == 1
    assert outer.losses == []


def test_regularizers_come_back_with_a_layer_that_makes_them_and_this_is_said() -> None:
    class Makes(layers.Layer):
        def build(self, shape) -> None:
            self.w = self.add_weight(shape=(shape[-1], 1), regularizer=regularizers.L2(0.1), name="w")

        def call(self, x) -> Any:
            return ops.matmul(x, self.w)

    model = keras.Sequential([keras.Input((6,)), Makes(name="makes")])

    with pytest.warns(UserWarning, match=r"The code of the layer 'makes' \(Makes\) creates its regularizer"):
        poise.adopt_regularizers(model)

    assert model.losses == []
