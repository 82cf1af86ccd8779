"""A path from end to end: the Lasso's and the elastic net's, what stops early, and what is refused."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from celer import celer_path
from keras import layers, ops, optimizers
from oracles.models import assert_same_weights, breast_cancer, diabetes, linear, table
from oracles.stateful import adapted_model, assert_same_model, predicted, rows_of
from sklearn.linear_model import Lasso, LassoCV, LogisticRegression, enet_path, lasso_path
from sklearn.model_selection import KFold

import poise
from poise.path import runner, solve
from poise.path.arguments import complete_training
from poise.path.data.batches import batches_of
from poise.path.grid import decade_below
from poise.path.lanes.length import checkpoints
from poise.path.lanes.trainer import LaneTrainer
from poise.path.result import RegularizationPath
from poise.path.training import Replica, Training

x, y = diabetes()
SETTLED = Training(epochs=0, batch_size=None, settle=2000, tolerance=1e-4)
SHORT = Training(epochs=2, batch_size=8, settle=0)
ALPHAS: Any = np.geomspace(0.002, 0.6, 20)
FOLDS = list(KFold(5).split(x))


def path_of(model, optimizer=None, data: Any = (x, y[:, None]), rules=None, loss="mse", **arguments) -> Any:
    model.compile(optimizer or optimizers.Adam(0.1), loss)
    rows, targets = data
    return poise.fit_path(
        model, rows, targets, rules or poise.L1(), **{"progress": False, "training": SHORT, **arguments}
    )


def net(inputs=6, *inside) -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(5, "tanh"), *inside, layers.Dense(1)])


def assert_same_path(path, expected) -> None:
    """`expected`: (strengths, inputs), coefficients by ascending strength."""
    assert (path.table["relative_residual"] <= 1e-3).all()
    assert not path.table["diverged"].any()
    for strength, coefficients in zip(path.strengths, expected, strict=True):
        kernel = path.weights(strength)[0][:, 0]
        np.testing.assert_allclose(kernel, coefficients, atol=1e-3)
        assert path.features(strength).tolist() == np.flatnonzero(coefficients).tolist()


# ---------------------------------------------------------------- linear models


@pytest.fixture(scope="module")
def lasso() -> Any:
    return path_of(linear(10), strengths=2 * ALPHAS, cv=FOLDS, training=SETTLED)


def test_path_is_the_lasso_s(lasso) -> None:
    _, coefficients, _ = lasso_path(x.astype("float64"), y.astype("float64"), alphas=ALPHAS, tol=1e-10)
    assert_same_path(lasso, coefficients.T[::-1])


def test_path_is_celer_s(lasso) -> None:
    _, coefficients, _ = celer_path(np.asfortranarray(x, "float64"), y.astype("float64"), "lasso", alphas=ALPHAS[::-1], tol=1e-9)  # fmt: skip
    assert_same_path(lasso, coefficients.T[::-1])


def test_choice_is_that_of_lasso_cv(lasso) -> None:
    peer = LassoCV(alphas=ALPHAS, cv=FOLDS, tol=1e-8).fit(x.astype("float64"), y.astype("float64"))
    np.testing.assert_allclose(lasso.best_strength, 2 * peer.alpha_, rtol=1e-6)
    np.testing.assert_allclose(lasso.table["val_loss"], peer.mse_path_.mean(axis=1)[::-1], rtol=1e-3)


def test_path_is_the_elastic_net_s() -> None:
    penalty = poise.ElasticNet(l1=2 * 0.7, l2=0.3)
    result = path_of(linear(10), rules=penalty, strengths=ALPHAS, cv=2, training=SETTLED)
    _, coefficients, _ = enet_path(x.astype("float64"), y.astype("float64"), l1_ratio=0.7, alphas=ALPHAS, tol=1e-10)
    assert_same_path(result, coefficients.T[::-1])


def test_path_is_that_of_logistic_regression() -> None:
    inputs, classes = breast_cancer()
    strengths = np.geomspace(0.02, 0.4, 8)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    training = replace(SETTLED, tolerance=1e-6)
    result = path_of(
        linear(30),
        optimizers.SGD(0.3, momentum=0.97),  # Adam has not come to the end of a flat direction in 2000 steps
        (inputs, classes),
        loss=loss,
        strengths=strengths,
        cv=2,
        training=training,
    )
    expected = []
    for strength in strengths:
        peer = LogisticRegression(
            l1_ratio=1.0, C=1 / (len(classes) * strength), solver="saga", tol=1e-8, max_iter=20000
        )
        expected.append(peer.fit(inputs.astype("float64"), classes).coef_[0])
    assert_same_path(result, expected)


# ---------------------------------------------------------------- how a lane is trained


def noisy() -> Any:
    inputs, targets = table(30)
    return inputs, targets + 2 * np.random.default_rng(4).normal(size=(30, 1)).astype("float32")


def test_early_stopping_takes_the_epochs_with_the_lowest_mean_loss_of_the_folds() -> None:
    data, training = noisy(), Training(epochs=60, batch_size=8, settle=0, early_stopping=True)
    arguments = {"strengths": [0.0, 0.1], "cv": 3}
    stopped = path_of(net(), optimizers.Adam(0.05), data, poise.L2(), training=training, **arguments)
    moments = checkpoints(60)
    losses = {}
    for epochs in moments:
        fixed = replace(training, epochs=epochs, early_stopping=False)
        losses[epochs] = path_of(net(), optimizers.Adam(0.05), data, poise.L2(), training=fixed, **arguments)
    for position, strength in enumerate(stopped.strengths):
        lanes = stopped.lanes.table.query("strength == @strength")
        epochs = lanes["epochs"].unique()
        assert len(epochs) == 1  # all folds, and the network on all rows
        assert epochs[0] < 60
        by_length = [losses[moment].table["val_loss"][position] for moment in moments]
        assert min(by_length) <= stopped.table["val_loss"][position] <= min(by_length) + 0.01 * stopped.table["val_se"][position]  # fmt: skip
        assert_same_weights(stopped.weights(strength), losses[epochs[0]].weights(strength), 1e-4)


def test_dense_start_trains_without_the_penalty_first() -> None:
    data = table(30)
    training = Training(epochs=2, batch_size=8, settle=0, start="dense")
    result = path_of(net(), optimizers.SGD(0.05), data, strengths=[0.05, 0.2], cv=2, training=training)
    alone = net()
    for strength in (0.0, 0.2):
        alone.compile(
            poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(strength), "proximal"), "mse", run_eagerly=True
        )
        for epoch in range(2):
            rows, counted = batches_of([Replica(-1, 0, np.arange(30), np.arange(0))], 8, epoch)
            for here, counts in zip(rows[0], counted[0], strict=True):
                alone.train_on_batch(data[0][here[counts]], data[1][here[counts]])
    assert_same_weights(result.weights(0.2), alone.get_weights())


def test_seeds_draw_other_weights_and_the_first_are_the_model_s_own() -> None:
    untrained = Training(epochs=0, settle=0)
    model = net()
    first, again = (path_of(model, data=table(30), strengths=[0.1], cv=2, n_init=3, training=untrained) for _ in "ab")
    own = first.weights(0.1, seed=0)
    assert_same_weights(own, model.get_weights())
    kernels = [first.weights(0.1, seed=seed)[0] for seed in range(3)]
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    np.testing.assert_array_equal(kernels[2], again.weights(0.1, seed=2)[0])
    assert len(first.lanes.table) == 9


def test_every_initialization_is_anchored_at_its_own_weights() -> None:
    arguments = {"data": table(30), "cv": 2, "n_init": 2}
    initial = path_of(net(), strengths=[0.1], training=Training(epochs=0, settle=0), **arguments)
    training = replace(SHORT, update="proximal")
    held = path_of(net(), rules=poise.Anchored(poise.L2()), strengths=[1e-6, 1e6], training=training, **arguments)
    for seed in range(2):
        kernel, free, anchored = (path.weights(s, seed)[0] for path, s in ((initial, 0.1), (held, 1e-6), (held, 1e6)))
        np.testing.assert_allclose(anchored, kernel, atol=1e-5)
        assert np.abs(free - kernel).max() > 0.1
    (rule,) = held.rules_at(1e6)
    assert isinstance(rule.penalty, poise.Anchored)
    assert (rule.penalty.strength, rule.penalty.penalty.strength) == (1e6, 1e6)


def test_a_diverging_strength_is_reported_and_never_chosen() -> None:
    training = Training(epochs=8, batch_size=8, update="coupled", settle=0)
    result = path_of(net(), optimizers.SGD(0.1), table(30), poise.L2(), strengths=[0.01, 0.1, 1e6], cv=2, training=training)  # fmt: skip
    assert result.table["diverged"].tolist() == [0, 0, 3]
    assert result.best_strength < 1
    assert np.isfinite(result.table[["val_loss", "loss", "residual"]][:2]).all(axis=None)


def test_diverged_everywhere_is_reported() -> None:
    training = Training(epochs=8, batch_size=8, update="coupled", settle=0)
    result = path_of(net(), optimizers.SGD(0.1), table(30), poise.L2(), strengths=[1e6, 2e6], cv=2, training=training)
    assert result.table["diverged"].tolist() == [3, 3]
    with pytest.raises(ValueError, match="^At each of the 2 strengths, at least one training diverged"):
        _ = result.best_strength


# ---------------------------------------------------------------- arguments


def test_an_automatic_grid_extends_below_while_its_lowest_loss_is_at_its_end(monkeypatch) -> None:
    inputs = table(30)[0]
    exact = inputs @ np.array([[2.0], [1.0], [-1.0], [0.5], [1.0], [-2.0]], "float32")  # the less penalty the better
    arguments = {"data": (inputs, exact), "strengths": 5, "cv": 2, "training": replace(SETTLED, settle=300)}
    longer = path_of(linear(6), **arguments).strengths
    monkeypatch.setattr(solve, "EXTENSIONS", 0)
    result = path_of(linear(6), **arguments).strengths
    assert len(result) == 5
    more = decade_below(result)
    np.testing.assert_allclose(longer, [*decade_below(more), *more, *result], rtol=1e-6)


def test_a_found_grid_with_its_lowest_loss_inside_stays_as_it_is() -> None:
    noise = np.random.default_rng(5).normal(size=(30, 1)).astype("float32")
    assert len(path_of(linear(6), data=(table(30)[0], noise), strengths=5, cv=2).strengths) == 5


def test_diverged_lanes_of_an_automatic_grid_are_in_the_table(monkeypatch) -> None:
    def nothing(engine, strengths, *arguments, run=runner.LaneRunner.run, **others) -> Any:
        result = run(engine, strengths, *arguments, **others)
        if len(strengths) == 5:
            result.table["diverged"] = True
        return result

    monkeypatch.setattr(runner.LaneRunner, "run", nothing)
    result = path_of(linear(6), data=table(30), strengths=5, cv=2)
    assert (result.table["diverged"] > 0).all()


def test_strengths_are_sorted_and_made_unique() -> None:
    result = path_of(net(), data=table(30), strengths=[0.1, 0.0, 1.0, 0.1], cv=2)
    assert result.strengths.tolist() == [0.0, 0.1, 1.0]


def test_one_input_and_many_more_inputs_than_rows() -> None:
    each = path_of(linear(1), data=(x[:, :1], y), strengths=[0.01, 10.0], cv=2, training=SETTLED)
    assert [each.features(strength).tolist() for strength in each.strengths] == [[0], []]
    wide = np.random.default_rng(0).normal(size=(100, 10_000)).astype("float32")
    result = path_of(linear(10_000), optimizers.Adam(0.001), (wide, wide[:, :1]), strengths=[0.5, 5.0], cv=2, training=Training(epochs=1, settle=200))  # fmt: skip
    assert 0 in result.features(0.5)
    assert result.features(5.0).size == 0


@pytest.mark.parametrize("update", ["coupled", "decoupled", "proximal"])
def test_the_update_is_that_of_the_compiled_optimizer(update) -> None:
    model = net()
    model.compile(poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(), update), "mse")
    assert complete_training(model, [poise.Rule("*", poise.L1())], None, 30).update == update
    assert complete_training(model, [poise.Rule("*", poise.L1())], Training(update="auto"), 30).update == "auto"


def test_the_update_is_auto_without_a_penalized_optimizer() -> None:
    training = complete_training(compiled(), [poise.Rule("*", poise.L1())], None, 30)
    assert (training.update, training.settle) == ("auto", 400)
    assert complete_training(compiled(), [poise.Rule("*", poise.L2())], None, 30).settle == 0


def test_with_adaptive_stages_rows_in_memory_are_trained_by_full_batch_steps() -> None:
    rules = [poise.Rule("*", poise.L1())]
    assert complete_training(compiled(), rules, None, 30, adaptive=1) == Training.full_batch(update="auto")
    assert complete_training(compiled(), rules, None, None, adaptive=1).epochs == 100
    assert complete_training(compiled(), rules, Training(epochs=3), 30, adaptive=1).epochs == 3


def test_rules_of_the_compiled_optimizer_are_the_default() -> None:
    model = net()
    model.compile(poise.PenalizedOptimizer("adam", poise.L1(0.5), "coupled"), "mse")
    result = poise.fit_path(model, *table(30), strengths=[0.1], cv=2, training=SHORT, progress=False)
    coupled = replace(SHORT, update="coupled")
    expected = path_of(net(), optimizers.Adam(), table(30), poise.L1(), strengths=[0.1], cv=2, training=coupled)
    assert_same_weights(result.weights(0.1), expected.weights(0.1))


class OwnStep(keras.Sequential):
    def train_step(self, *arguments) -> Any:
        return super().train_step(*arguments)


def whole_batch(y, predicted) -> Any:
    return ops.sqrt(ops.mean(ops.square(y - predicted)))


def compiled(model=None, optimizer: Any = "adam", loss: Any = "mse") -> Any:
    model = net() if model is None else model
    model.compile(optimizer, loss)
    return model


def own_step() -> Any:
    return compiled(OwnStep([keras.Input((6,)), layers.Dense(1)]))


def in_float16() -> Any:
    return compiled(keras.Sequential([keras.Input((6,)), layers.Dense(1, dtype="mixed_float16")]), optimizers.LossScaleOptimizer(optimizers.Adam()))  # fmt: skip


def regularized() -> Any:
    return compiled(keras.Sequential([keras.Input((6,)), layers.Dense(1, kernel_regularizer="l2", name="head")]))


def falling() -> Any:
    return poise.L1(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))


L1 = poise.L1()
REFUSED = {
    "not compiled": (net, L1, {}, r"^The model is not compiled\. Call model\.compile"),
    "not built": (lambda: compiled(keras.Sequential([layers.Dense(1)])), L1, {}, "^The model 'sequential.*' is not built yet"),
    "own train_step": (own_step, L1, {}, "^OwnStep has a custom train_step, which poise.fit_path would not run"),
    "use_ema": (lambda: compiled(optimizer=optimizers.Adam(use_ema=True)), L1, {}, r"^An average of weights \(use_ema=True\)"),
    "use_ema inside": (lambda: compiled(optimizer=poise.PenalizedOptimizer(optimizers.Adam(use_ema=True), L1)), L1, {}, r"^An average of weights \(use_ema=True\)"),
    "float16": (in_float16, L1, {}, "^poise.fit_path does not scale the loss, which float16 needs"),
    "regularizer": (regularized, L1, {}, "^'sequential.*/head/kernel' has a Keras regularizer"),
    "Lion": (lambda: compiled(optimizer="lion"), L1, {}, "which does not work with Lion.* use update='coupled'"),
    "scheduled": (compiled, falling(), {}, "^Rule 'kernels' has a scheduled strength"),
    "strength of zero": (compiled, poise.L1(0.0), {}, "^Rule 'kernels' has the strength 0"),
    "empty rules": (compiled, [], {}, "^rules is empty"),
    "no rules": (compiled, None, {}, "^rules is None, and the model was not compiled with poise.PenalizedOptimizer"),
    "rule for nothing": (compiled, poise.Rule("nowhere", L1), {}, "^Rule 'nowhere' matches none of the"),
    "negative": (compiled, L1, {"strengths": [0.1, -1.0]}, r"^strengths must be finite numbers >= 0, got -1\.0"),
    "NaN": (compiled, L1, {"strengths": [0.1, np.nan]}, "^strengths must be finite numbers >= 0, got nan"),
    "in two dimensions": (compiled, L1, {"strengths": [[0.1]]}, r"^strengths must be an int or one row of numbers, got an array of shape \(1, 1\)"),
    "no strengths": (compiled, L1, {"strengths": []}, r"^strengths must be an int or one row of numbers, got an array of shape \(0,\)"),
    "zero strengths": (compiled, L1, {"strengths": 0}, "^strengths must be an int >= 1, got 0"),
    "text": (compiled, L1, {"strengths": "many"}, "^strengths must be an int or an array of numbers >= 0, got 'many'"),
    "adaptive": (compiled, L1, {"adaptive": -1}, "^adaptive must be an int >= 0, got -1"),
    "adaptive with L2": (compiled, poise.L2(), {"adaptive": 1}, "^adaptive needs exact zeros"),
    "relax coupled": (compiled, L1, {"relax": True, "training": Training(update="coupled")}, "^relax=True needs exact zeros"),
    "loss of the batch": (lambda: compiled(loss=whole_batch), L1, {}, "^The loss must be a mean or a sum over the rows"),
    "executor": (compiled, L1, {"executor": "dask"}, "^executor must be one of .auto., .in_process., .subprocess., .ray. or a poise.RayCluster, got .dask."),
    "cv as a tuple": (compiled, L1, {"cv": table(30)}, r"^cv must not be a tuple\. Pass validation rows as validation_data=\(x, y\)"),
    "validation rows as a list": (compiled, L1, {"validation_data": [*table(30)]}, "^validation_data must be a tuple .* got of type list"),
    "cv": (compiled, L1, {"cv": 31}, "^cv=31 needs at least 31 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_trained(case, monkeypatch) -> None:
    monkeypatch.setattr(LaneTrainer, "run", lambda *_, **__: pytest.fail("trained"))
    build, rules, arguments, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        poise.fit_path(build(), *table(30), rules, progress=False, **arguments)


class OwnModel(keras.Model):
    def __init__(self, units) -> None:
        super().__init__()
        self.dense = layers.Dense(int(units[0]))

    def call(self, inputs) -> Any:
        return self.dense(inputs)


def test_model_that_could_not_be_given_back_is_refused_before_anything_is_trained(monkeypatch) -> None:
    monkeypatch.setattr(LaneTrainer, "run", lambda *_, **__: pytest.fail("trained"))
    model = OwnModel(np.ones(1, int))
    model(np.ones((1, 6)))
    with pytest.raises(NotImplementedError, match="get_config"):
        poise.fit_path(compiled(model), *table(30), L1, progress=False)


@pytest.fixture(scope="module")
def adapted() -> Any:
    """A model with an adapted layer and others with state beside their weights, and its path with two draws."""
    rows = rows_of(40)
    model = adapted_model(rows)
    model.layers[-1].kernel.trainable = False  # by itself, of which a clone knows nothing
    target = (rows[:, :1] - 50.0) / 10.0
    model.compile(keras.optimizers.Adam(0.05), "mse")
    training = poise.Training(epochs=20, batch_size=None, settle=0)
    arguments = {"strengths": [0.01, 0.1], "cv": 2, "n_init": 2, "training": training, "progress": False}
    return model, rows, target, poise.fit_path(model, rows, target, poise.L2(), **arguments)


def loss_of_all_rows(path, seed) -> Any:
    table = path.lanes.table
    return table[(table["fold"] == -1) & (table["seed"] == seed)]["loss"].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_models_of_a_path_have_the_state_with_which_its_lanes_were_trained(adapted, seed, tmp_path) -> None:
    _, rows, target, path = adapted
    path.save(tmp_path / "path")
    for other in (path, RegularizationPath.load(tmp_path / "path")):
        losses = [np.mean((predicted(other.model(s, seed), rows) - target) ** 2) for s in other.strengths]
        np.testing.assert_allclose(losses, loss_of_all_rows(path, seed), rtol=1e-4)
    loss = np.mean((RegularizationPath.load(tmp_path / "path").predict(0.1, rows) - target) ** 2)
    np.testing.assert_allclose(loss, loss_of_all_rows(path, 0)[1], rtol=1e-4)


def test_the_seeds_of_random_layers_are_those_of_the_model(adapted) -> None:
    model, rows, _, path = adapted
    copy = path.model(0.1)
    copy.set_weights(model.get_weights())
    assert_same_model(model, copy, rows)


def test_a_weight_frozen_separately_stays_frozen_in_another_initialization(adapted) -> None:
    model, _, _, path = adapted
    frozen = [position for position, weight in enumerate(model.weights) if not weight.trainable]
    for position in frozen:
        expected = keras.ops.convert_to_numpy(model.weights[position])
        np.testing.assert_array_equal(path.weights(0.1, 1)[position], expected)


def test_more_rows_than_are_padded_give_the_lasso() -> None:
    """Full batches without early stopping: the folds and all rows are in one chunk, and no row is left out."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1200, 6)).astype("float32")
    y = x[:, :1] - 0.5 * x[:, 1:2] + random.normal(size=(1200, 1)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    training = poise.Training(epochs=0, settle=2000, tolerance=1e-6, batch_size=None)

    path = poise.fit_path(
        model, x, y, [poise.Rule("*kernel", poise.L1())], strengths=[0.02, 0.2], cv=3, training=training, progress=False
    )

    for strength in (0.02, 0.2):
        lasso = Lasso(alpha=strength / 2, tol=1e-8).fit(x.astype("float64"), y[:, 0].astype("float64"))
        np.testing.assert_allclose(path.model(strength).get_weights()[0][:, 0], lasso.coef_, atol=1e-5)
