"""A problem that was pickled for a JAX process is loaded again here, on every backend, without starting one."""

import importlib
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from oracles.stateful import adapted_model, assert_same_model, rows_of

import poise
from poise.path.executors.base import Problem
from poise.path.executors.serialization import dump, dump_problem, load_problem
from poise.path.models import resolve_rules
from poise.rules.rule import as_rules

PARTS = """
import keras

class Cubic(keras.losses.Loss):
    def __init__(self, by=1.0, name="cubic", reduction="sum_over_batch_size"):
        super().__init__(name, reduction)
        self.by = by

    def call(self, y, predicted):
        return self.by * keras.ops.abs(y - predicted) ** 3

def double(x):
    return 2.0 * x

def plain(y, predicted):
    return keras.ops.abs(y - predicted)

@keras.saving.register_keras_serializable("parts_that_travel", "other name")
def registered(y, predicted):
    return keras.ops.abs(y - predicted)

@keras.saving.register_keras_serializable("parts_that_travel")
def bend(x):
    return x * keras.ops.sigmoid(x)

class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x

@keras.saving.register_keras_serializable("parts_that_travel")
class Forgetful(keras.layers.Dense):
    def __init__(self, units, use_bias=True, **others):
        super().__init__(units, use_bias=use_bias, **others)

    def get_config(self):
        config = super().get_config()
        del config["use_bias"]
        return config
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "parts_that_travel.py").write_text(PARTS)
    sys.path.append(str(folder))
    yield importlib.import_module("parts_that_travel")
    sys.path.remove(str(folder))


def net(*more, loss: Any = "mse", optimizer: Any = "adam", **settings) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh", name="first"), *more, layers.Dense(1)])
    model.compile(optimizer, loss=loss, **settings)
    return model


def sent(model, rules=None, data=None) -> Any:
    """A problem after it was pickled and loaded again."""
    rules = as_rules(poise.L1() if rules is None else rules)
    problem = Problem(model, rules, resolve_rules(model, rules), "auto", data)
    return load_problem(dump_problem(problem), data)


def loss_of(model) -> Any:
    y = np.array([[0.0], [1.0], [3.0]], "float32")
    predicted = np.array([[0.1], [0.2], [-2.0]], "float32")
    return float(model.compute_loss(None, keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(predicted)))


def nested_loss() -> Any:
    def loss(y, predicted) -> Any:
        return 2.0 * keras.ops.abs(y - predicted)

    return loss


LOSSES = {
    "name": lambda parts: "mae",
    "Keras' function": lambda parts: keras.losses.mean_absolute_error,
    "object": lambda parts: keras.losses.Huber(0.3),
    "plain function": lambda parts: parts.plain,
    "registered function": lambda parts: parts.registered,
    "custom class": lambda parts: parts.Cubic(2.0),
    "lambda": lambda parts: lambda y, predicted: 3.0 * keras.ops.abs(y - predicted),
    "function of a function": lambda parts: nested_loss(),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_every_kind_of_loss_is_sent(kind, parts) -> None:
    model = net(loss=LOSSES[kind](parts))
    result = sent(model).model
    assert loss_of(result) == pytest.approx(loss_of(model), rel=1e-6)


def test_losses_and_their_weights_are_sent_by_output() -> None:
    inputs = keras.Input((3,))
    outputs = {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(1, name="b")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"a": "mse", "b": keras.losses.Huber(0.3)}, {"a": 0.25, "b": 2.0})
    y = {"a": np.full((4, 1), 3.0, "float32"), "b": np.full((4, 1), -2.0, "float32")}
    predicted = {"a": keras.ops.zeros((4, 1)), "b": keras.ops.zeros((4, 1))}
    result = sent(model).model
    assert float(result.compute_loss(None, y, predicted)) == pytest.approx(0.25 * 9 + 2 * 0.3 * (2 - 0.15), rel=1e-6)


def test_state_beside_the_weights_and_seeds_is_sent() -> None:
    rows = rows_of()
    model = adapted_model(rows)
    model.compile("adam", "mse")
    assert_same_model(model, sent(model).model, rows)


def test_values_flags_and_compilation_are_sent(parts) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    inside = keras.Sequential([layers.Dense(4, activation=parts.bend), layers.Dense(4, name="frozen")])
    inner = keras.optimizers.Adam(schedule, beta_1=0.7, clipnorm=3.0)
    model = net(
        inside, layers.BatchNormalization(), layers.Dropout(0.5, seed=7), optimizer=poise.PenalizedOptimizer(inner, [])
    )
    inside.compile("sgd", "mse", metrics=[lambda y, predicted: 0.0])
    inside.layers[1].trainable = False
    model.set_weights([np.random.default_rng(0).uniform(1, 2, w.shape) for w in model.get_weights()])
    result = sent(model).model
    for name in ("trainable_variables", "non_trainable_variables"):
        for mine, theirs in zip(getattr(model, name), getattr(result, name), strict=True):
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, theirs)))
    assert isinstance(result.optimizer, keras.optimizers.Adam)
    assert result.optimizer.get_config() == inner.get_config()


def test_regularizers_that_were_adopted_stay_away() -> None:
    model = net(layers.Dense(4, kernel_regularizer="l2"))
    rules = poise.adopt_regularizers(model)
    result = sent(model, list(rules))
    assert not result.model.losses
    assert [repr(rule.penalty) for rule in result.rules] == [repr(rule.penalty) for rule in rules]


@keras.saving.register_keras_serializable("tests")
class Registered(layers.Layer):
    def call(self, x) -> Any:
        return 3.0 * x


def local_layer() -> Any:
    class Local(layers.Layer):
        def call(self, x) -> Any:
            return 2.0 * x

    return Local()


CUSTOM = {
    "a registered layer": lambda parts: Registered(),
    "a lambda": lambda parts: layers.Lambda(lambda x: 2 * x),
    "an unregistered layer": lambda parts: parts.Unregistered(),
    "a layer of a function": lambda parts: local_layer(),
    "an unregistered activation": lambda parts: layers.Dense(4, activation=parts.double),
}


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_layers_and_functions_are_sent(kind, parts) -> None:
    model = net(CUSTOM[kind](parts))
    x = keras.ops.ones((2, 3))
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (sent(model).model(x), model(x))), rtol=1e-6)


def test_rules_are_sent_with_what_they_resolve_to() -> None:
    rules = [poise.Rule(lambda variable: variable.name == "kernel", poise.L1(0.5), name="own")]
    model = net()
    problem = sent(model, rules)
    assert (problem.rules[0].name, problem.rules[0].penalty.strength) == ("own", 0.5)
    assert problem.resolved == resolve_rules(model, rules)


def test_a_layer_that_forgets_its_arguments_is_refused(parts) -> None:
    with pytest.raises(ValueError, match="Give every layer a get_config from which it is restored"):
        sent(net(parts.Forgetful(4, use_bias=False)))


def test_what_cannot_be_pickled_is_refused_by_its_name() -> None:
    lock = threading.Lock()

    def locked(y, predicted) -> Any:
        return lock and y - predicted

    with pytest.raises(ValueError, match="^The loss cannot be sent to the process that runs JAX"):
        sent(net(loss=locked))


def test_a_cluster_can_be_pickled() -> None:
    cluster = poise.RayCluster("10.0.0.1:6379", num_gpus=0.5)
    assert pickle.loads(dump(cluster)) == cluster
