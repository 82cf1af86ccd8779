"""What a JAX process is handed: written down and read again here, on every backend, without starting one."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from oracles.stateful import adapted_model, assert_same_model, rows_of

import poise
from poise.path.data.arrays import Data
from poise.path.executors.serialization import imported, pack, unpack
from poise.path.training import Replica, Training

PARTS = """
import keras

class Cubic(keras.losses.Loss):
    def __init__(self, by=1.0, name="cubic", reduction="sum_over_batch_size"):
        super().__init__(name, reduction)
        self.by = by

    def call(self, y, predicted):
        return self.by * keras.ops.abs(y - predicted) ** 3

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
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "parts_that_travel.py").write_text(PARTS)
    sys.path.append(str(folder))
    import parts_that_travel

    yield parts_that_travel
    sys.path.remove(str(folder))


def net(*more, loss="mse", optimizer="adam", **settings):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh", name="first"), *more, layers.Dense(1)])
    model.compile(optimizer, loss=loss, **settings)
    return model


def sent(folder, model, rules=None, x=None, y=None, weights=None, **changed):
    """The arguments of `solved` after they were written down and read again."""
    x = np.zeros((8, 3), "float32") if x is None else x
    y = np.zeros((8, 1), "float32") if y is None else y
    replicas = [Replica(0, 1, np.arange(4), np.arange(4, 8))]
    settings = {"strengths": 5, "adaptive": 0, "relax": False, "training": Training(), "checkpoint": None, **changed}
    pack(
        str(folder), model, rules or poise.rules.rule.as_rules(poise.L1()), Data(x, y, weights, 8), replicas, **settings
    )
    work = json.loads((folder / "work.json").read_text())
    with keras.saving.custom_object_scope(imported(work["places"])):
        return unpack(work, str(folder), ask=None)


def loss_of(model):
    y = np.array([[0.0], [1.0], [3.0]], "float32")
    predicted = np.array([[0.1], [0.2], [-2.0]], "float32")
    return float(model.compute_loss(None, keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(predicted)))


LOSSES = {
    "name": lambda parts: "mae",
    "Keras' function": lambda parts: keras.losses.mean_absolute_error,
    "object": lambda parts: keras.losses.Huber(0.3),
    "plain function": lambda parts: parts.plain,
    "registered function": lambda parts: parts.registered,
    "class of one's own": lambda parts: parts.Cubic(2.0),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_every_kind_of_loss_travels(kind, parts, tmp_path):
    model = net(loss=LOSSES[kind](parts))
    found = sent(tmp_path, model)["model"]
    assert loss_of(found) == pytest.approx(loss_of(model), rel=1e-6)


def test_losses_and_their_weights_travel_by_output(tmp_path):
    inputs = keras.Input((3,))
    outputs = {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(1, name="b")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"a": "mse", "b": keras.losses.Huber(0.3)}, {"a": 0.25, "b": 2.0})
    y = {"a": np.full((4, 1), 3.0, "float32"), "b": np.full((4, 1), -2.0, "float32")}
    predicted = {"a": keras.ops.zeros((4, 1)), "b": keras.ops.zeros((4, 1))}
    found = sent(tmp_path, model)["model"]
    assert float(found.compute_loss(None, y, predicted)) == pytest.approx(0.25 * 9 + 2 * 0.3 * (2 - 0.15), rel=1e-6)


def test_state_beside_the_weights_and_seeds_travel(tmp_path):
    rows = rows_of()
    model = adapted_model(rows)
    model.compile("adam", "mse")
    assert_same_model(model, sent(tmp_path, model)["model"], rows)


def test_values_flags_and_compilation_travel(parts, tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    inside = keras.Sequential([layers.Dense(4, activation=parts.bend), layers.Dense(4, name="frozen")])
    inner = keras.optimizers.Adam(schedule, beta_1=0.7, clipnorm=3.0)
    model = net(
        inside, layers.BatchNormalization(), layers.Dropout(0.5, seed=7), optimizer=poise.PenalizedOptimizer(inner, [])
    )
    inside.compile("sgd", "mse", metrics=[lambda y, predicted: 0.0])
    inside.layers[1].trainable = False
    model.set_weights([np.random.default_rng(0).uniform(1, 2, w.shape) for w in model.get_weights()])
    found = sent(tmp_path, model)["model"]
    for name in ("trainable_variables", "non_trainable_variables"):
        for mine, theirs in zip(getattr(model, name), getattr(found, name), strict=True):
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, theirs)))
    assert isinstance(found.optimizer, keras.optimizers.Adam)
    assert found.optimizer.get_config() == inner.get_config()


def test_regularizers_that_were_adopted_stay_away(tmp_path):
    model = net(layers.Dense(4, kernel_regularizer="l2"))
    rules = poise.adopt_regularizers(model)
    found = sent(tmp_path, model, list(rules))
    assert not found["model"].losses
    assert [repr(rule) for rule in found["rules"]] == [repr(rule) for rule in rules]


def test_data_and_settings_travel(tmp_path):
    one, two = np.arange(8, dtype="int64"), np.arange(16.0, dtype="float32").reshape(8, 2)
    settings = {"strengths": np.array([0.1, 1 / 3]), "adaptive": 2, "relax": True, "training": Training(epochs=3)}
    found = sent(tmp_path, net(), x={"a": one, "b": [two, None]}, y=(one, two), weights=[two[:, 0]], **settings)
    data, replica = found["data"], found["replicas"][0]
    keras.tree.assert_same_structure((data.x, data.y, data.sample_weight), ({"a": 0, "b": [0, None]}, (0, 0), [0]))
    for theirs, mine in (
        (data.x["a"], one),
        (data.x["b"][0], two),
        (data.y[0], one),
        (data.sample_weight[0], two[:, 0]),
    ):
        np.testing.assert_array_equal(theirs, mine)
        assert theirs.dtype == mine.dtype
    assert (replica.fold, replica.seed, replica.held.tolist()) == (0, 1, [4, 5, 6, 7])
    assert found["strengths"].tolist() == [0.1, 1 / 3]
    assert (found["adaptive"], found["relax"], found["training"]) == (2, True, Training(epochs=3))


def test_a_lambda_travels_where_keras_allows_it(tmp_path):
    code = """
import os, sys, keras, numpy as np
keras.config.enable_unsafe_deserialization()
tests = os.path.dirname(sys.argv[1])
sys.path[:0] = [tests, os.path.dirname(tests)]
from test_serialization import layers, net, sent
from pathlib import Path
model = net(layers.Lambda(lambda x: 2 * x))
found = sent(Path(sys.argv[2]), model)["model"]
np.testing.assert_array_equal(found.predict(np.ones((2, 3)), verbose=0), model.predict(np.ones((2, 3)), verbose=0))
"""
    subprocess.run([sys.executable, "-c", code, __file__, str(tmp_path)], check=True)


# ---------------------------------------------------------------- what cannot travel


@keras.saving.register_keras_serializable("tests")
class Notebook(layers.Layer):
    pass


class Subclassed(keras.Model):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def call(self, x):
        return self.head(x)


def local_loss():
    def loss(y, predicted):
        return y - predicted

    return loss


def from_the_notebook():
    Notebook.__module__ = "__main__"
    return net(Notebook())


def subclassed():
    model = Subclassed(lambda x: x)
    model.compile("adam", "mse")
    model(np.zeros((2, 3)))
    return model


def stray_loss():
    def stray(y, predicted):
        return y - predicted

    stray.__module__ = "a_module_in_no_folder"
    return stray


REFUSED = {
    "a lambda in a layer": (
        lambda parts: net(layers.Lambda(lambda x: 2 * x, name="twice")),
        "The model holds a Python lambda \\(in 'twice'\\), .* Make it a function in a module, and decorate that",
    ),
    "an unregistered layer": (
        lambda parts: net(parts.Unregistered()),
        "The model cannot be rebuilt: .*'Unregistered'.* Decorate its classes",
    ),
    "a layer of the notebook": (
        lambda parts: from_the_notebook(),
        "The model needs 'Notebook', which is defined in the script or notebook itself, .* Put it at the top level of a module",
    ),
    "a layer that forgets": (
        lambda parts: net(parts.Forgetful(4, use_bias=False)),
        "does not restore itself from its get_config",
    ),
    "a subclassed model": (lambda parts: subclassed(), "The model .* Decorate|The model .* get_config"),
    "a lambda as loss": (lambda parts: net(loss=lambda y, predicted: y - predicted), "The loss is a Python lambda"),
    "a loss inside a function": (
        lambda parts: net(loss=local_loss()),
        "The loss needs 'loss', which is defined inside a function of .*Put it at the top level",
    ),
    "a loss of no module": (
        lambda parts: net(loss=stray_loss()),
        "The loss needs 'stray', which belongs to the module 'a_module_in_no_folder', which is in no folder of sys.path",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_travel_is_refused(what, parts, tmp_path):
    make, message = REFUSED[what]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        sent(tmp_path, make(parts))


def test_a_rule_that_cannot_travel_is_refused(tmp_path):
    rules = [poise.Rule(lambda variable: True, poise.L1(), name="all")]
    with pytest.raises(ValueError, match="Rule 'all' "):
        sent(tmp_path, net(), rules)


def test_the_cluster_travels(tmp_path):
    for number, cluster in enumerate([None, poise.RayCluster("10.0.0.1:6379", num_gpus=0.5)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert sent(folder, net(), cluster=cluster)["cluster"] == cluster
