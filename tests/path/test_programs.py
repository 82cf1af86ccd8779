"""Compiled programs are shared by everything in a process that computes the same."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
import pytest
from keras import layers, optimizers
from sklearn.model_selection import GridSearchCV, cross_val_score

import poise
from poise.path.lanes.problem_key import network_key, optimizer_key
from poise.path.lanes.programs import PROGRAMS, Programs

compiled_names: list[str] = []


def note(event: str, duration_secs: float, **kwargs: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        compiled_names.append(event)


jax.monitoring.register_event_duration_secs_listener(note)


def count_compilations(function: Callable[[], Any]) -> int:
    before = len(compiled_names)
    function()
    return len(compiled_names) - before


DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(60, 4)).astype("float32")
Y = X[:, :1] - X[:, 1:2] + 0.1 * DRAW.normal(size=(60, 1)).astype("float32")


def net(units: int = 3, activation: Any = "relu", optimizer: Any = None, loss: Any = "mse") -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation), layers.Dense(1)])
    model.compile(optimizer or optimizers.Adam(0.01), loss)
    return model


def fit(model: keras.Model | None = None, x: np.ndarray = X, penalty: Any = None, **changed: Any) -> Any:
    arguments = {"strengths": 3, "cv": 3, "training": poise.Training(epochs=2, settle=20), "progress": False, **changed}
    return poise.fit_path(model or net(), x, Y, penalty or poise.L1(), **arguments)


def regress(**arguments: Any) -> poise.PathRegressor:
    return poise.PathRegressor(strengths=3, cv=2, max_iter=20, hidden_layer_sizes=(3,), **arguments)


class TestSharing:
    def test_a_second_path_compiles_nothing(self) -> None:
        model = net()
        fit(model)
        assert count_compilations(lambda: fit(model)) == 0
        assert count_compilations(lambda: fit(model, 2.0 * X, poise.L1(0.5), strengths=3)) == 0

    def test_names_of_layers_do_not_count(self) -> None:
        fit()
        fresh = net()  # its weights are drawn by programs of Keras
        assert count_compilations(lambda: fit(fresh)) == 0

    def test_the_grid_its_extension_and_adaptive_stages_share_one_program(self) -> None:
        PROGRAMS.clear()
        fit(penalty=poise.GroupLasso(groups="inputs"), adaptive=2, training=poise.Training(epochs=0, settle=20))
        assert len(PROGRAMS) == 5  # steps, two measurements, and two of a loss for is_mean_loss

    def test_a_second_estimator_compiles_nothing(self) -> None:
        regress().fit(X, Y[:, 0])
        assert count_compilations(lambda: regress().fit(X + 1.0, -Y[:, 0])) == 0

    def test_cross_validation_compiles_for_one_fold_only(self) -> None:
        cross_val_score(regress(), X, Y[:, 0], cv=3)
        assert count_compilations(lambda: cross_val_score(regress(), X, Y[:, 0], cv=3)) == 0
        search = GridSearchCV(regress(), {"max_iter": [10, 30]}, cv=3)
        assert count_compilations(lambda: search.fit(X, Y[:, 0])) <= 1  # the refit has other numbers of rows

    def test_a_second_study_compiles_nothing(self) -> None:
        def run() -> None:
            poise.run_study("wine", penalties=["l2", "adaptive"], strengths=3, cv=2, max_iter=20)

        run()
        assert count_compilations(run) == 0

    def test_threads_share_programs(self) -> None:
        expected = fit()
        models = [keras.models.clone_model(net()) for _ in range(2)]
        paths: dict[int, Any] = {}

        def train(number: int) -> None:
            models[number].compile(optimizers.Adam(0.01), "mse")
            models[number].set_weights(expected.model(expected.strengths[0]).get_weights())
            paths[number] = fit(models[number])

        threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(paths[0].table["val_loss"], paths[1].table["val_loss"])


class TestKeys:
    """What computes something else never shares a program."""

    @pytest.mark.parametrize(
        "other",
        [
            lambda: net(units=2),
            lambda: net(activation="tanh"),
            lambda: net(loss=keras.losses.Huber(1.0)),
            lambda: net(loss=keras.losses.Huber(2.0)),
            lambda: net(loss="mae"),
            lambda: net(activation=lambda x: x),
            lambda: net(loss=lambda y, p: (y - p) ** 2),
        ],
        ids=["units", "activation", "Huber 1", "Huber 2", "loss", "own activation", "own loss"],
    )
    def test_networks_that_differ(self, other: Callable[[], keras.Model]) -> None:
        models = [net(), net(loss=keras.losses.Huber(1.5)), other()]
        assert len({network_key(model) for model in models}) == 3

    def test_custom_code_is_compiled_again_because_it_may_have_changed(self) -> None:
        factor = [1.0]
        model = net(loss=lambda y, predicted: factor[0] * (y - predicted) ** 2)
        untrained = {"penalty": poise.L2(), "strengths": [0.1], "training": poise.Training(epochs=0, settle=0)}
        first = fit(model, **untrained)
        factor[0] = 3.0
        assert fit(model, **untrained).table["loss"][0] == pytest.approx(3.0 * first.table["loss"][0], rel=1e-5)

    def test_custom_penalties_differ(self) -> None:
        class Scaled(poise.L2):
            scale = 1.0

            def _value(self, w: Any, strength: Any) -> Any:
                return self.scale * super()._value(w, strength)

        model, other = net(), Scaled()
        other.scale = 10.0
        penalties = [fit(model, penalty=each, strengths=[0.1]).table["penalty"][0] for each in (Scaled(), other)]
        assert penalties[1] == pytest.approx(10.0 * penalties[0], rel=1e-4)

    def test_anchors_at_other_weights_differ(self) -> None:
        training = poise.Training(epochs=0, settle=0)
        for seed in range(2):
            keras.utils.set_random_seed(seed)
            path = fit(net(), penalty=poise.Anchored(poise.L2()), strengths=[1.0], training=training)
            assert path.table["penalty"][0] == 0.0  # at its own weights

    def test_constraints_differ(self) -> None:
        def constrained(constraint: Any) -> keras.Model:
            model = net()
            model.layers[0].kernel.constraint = constraint
            return model

        kinds = [None, keras.constraints.NonNeg(), keras.constraints.MaxNorm(1.0), keras.constraints.MaxNorm(2.0)]
        assert len({network_key(constrained(kind)) for kind in kinds}) == 4

    def test_frozen_layers_differ(self) -> None:
        frozen = net()
        frozen.layers[0].trainable = False
        assert network_key(net()) != network_key(frozen)

    def test_statistics_of_a_normalization_differ(self) -> None:
        def normalized(factor: float) -> keras.Model:
            layer = layers.Normalization()
            layer.adapt(factor * X)
            model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(1)])
            model.compile("adam", "mse")
            return model

        assert network_key(normalized(1.0)) == network_key(normalized(1.0))
        assert network_key(normalized(1.0)) != network_key(normalized(2.0))

    def test_optimizers_that_differ(self) -> None:
        def key(inner: Any, penalty: Any, update: str = "auto") -> Any:
            optimizer = poise.PenalizedOptimizer(inner, [poise.Rule("*", penalty)], update)
            optimizer.build(model.trainable_variables, model)
            return optimizer_key(optimizer)

        model, first = net(), poise.L1(0.1)
        assert key(optimizers.Adam(0.01), first) == key(optimizers.Adam(0.01), poise.L1(0.7))
        others = [
            key(optimizers.Adam(0.01, beta_1=0.8), first),
            key(optimizers.SGD(0.01), first),
            key(optimizers.Adam(0.01), poise.L1(0.1, factors=2.0)),
            key(optimizers.Adam(0.01), poise.L2(0.1)),
            key(optimizers.Adam(0.01), first, "coupled"),
        ]
        assert len({key(optimizers.Adam(0.01), first), *others}) == 6


def test_a_finished_path_leaves_its_model_to_the_garbage_collector() -> None:
    def train() -> weakref.ref:  # a function, whose frame ends with it
        model = net()
        fit(model)
        return weakref.ref(model)

    reference = train()
    gc.unfreeze()
    for _ in range(20):  # the threads of the path may still be ending
        if reference() is not None:
            time.sleep(0.05)
            gc.collect()
    assert reference() is None


def test_the_least_recently_used_program_is_released() -> None:
    class Constant:
        def __init__(self, key: int) -> None:
            self.key = key

    programs = Programs(largest_count=2)
    one = np.ones(3, "float32")

    def times(constant: Constant, x: Any) -> Any:
        return constant.key * x

    for key in (1, 2, 1, 3):
        np.testing.assert_array_equal(programs.call(times, Constant(key), one), key * one)
    assert count_compilations(lambda: programs.call(times, Constant(1), one)) == 0
    assert count_compilations(lambda: programs.call(times, Constant(2), one)) == 1
    assert len(programs) == 2
