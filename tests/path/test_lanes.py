"""A lane is what Keras trains alone on the same batches, whatever runs beside it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from oracles.models import assert_same_weights, table, weights

import poise
from poise.path import chunks, runner
from poise.path.data import batches as batching
from poise.path.data.batches import batches_of
from poise.path.executors.in_process import InProcessExecutor
from poise.path.lanes import sources, trainer
from poise.path.lanes.sources import ArraySource
from poise.path.training import Replica, Training

from .runners import runner_of

ROWS = np.random.default_rng(1).permutation(23)
REPLICA = Replica(0, 0, ROWS[:19], ROWS[19:])
EVEN = Replica(0, 0, ROWS[:16], ROWS[16:])
STRENGTHS = np.array([0.0, 0.03, 0.2])
TRAINING = Training(epochs=2, batch_size=8, settle=0)


def net(inputs=6, **of_kernels) -> keras.Model:
    """The same weights at every call."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(5, "tanh", bias_initializer="normal", **of_kernels),
            layers.Dense(1, **of_kernels),
        ]
    )


def compiled(model, optimizer: Any = "adam", loss: Any = "mse", **settings) -> Any:
    model.compile(optimizer, loss, **settings)
    return model


def in_lanes(
    model, data, penalty, training=TRAINING, strengths: Any = STRENGTHS, replicas=(REPLICA,), **arguments
) -> Any:
    """The lanes of some replicas; all of them are kept."""
    return runner_of(model, penalty, data, replicas, training).run(np.asarray(strengths), **arguments)


def of_lane(found, position, replica=0) -> Any:
    return [weight[replica, position] for weight in found.weights]


def at(structure, rows) -> Any:
    return keras.tree.map_structure(lambda a: None if a is None else a[rows], structure)


def batches(data, replica=REPLICA, training=TRAINING) -> Iterator[Any]:
    """Those that a lane sees, without the rows that only fill up; the last one of an epoch is short."""
    for epoch in range(training.epochs):
        rows, counted = batches_of([replica], training.batch_size, epoch)
        for here, counts in zip(rows[0], counted[0], strict=True):
            yield at(data, here[counts])


def by_keras(model, data, after=None, **which) -> Any:
    """A compiled model after Keras has trained it, with something done to it after every step."""
    model.run_eagerly = True  # a few steps: faster than compiling them
    for x, y, sample_weight in batches(data, **which):
        model.train_on_batch(x, y, sample_weight)
        if after:
            after(model)
    return model


# ---------------------------------------------------------------- optimizers and updates

OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "Adam": lambda: optimizers.Adam(0.02),
    "RMSprop": lambda: optimizers.RMSprop(0.02),
}


def soft(w, threshold) -> Any:
    return np.sign(w) * np.maximum(np.abs(w) - threshold, 0.0)


class ByHand:
    """L1 after a plain Keras step, in the step that the optimizer took: its formulas once more, in NumPy."""

    def __init__(self, kind, strength) -> None:
        self.kind, self.strength, self.trace = kind, strength, 0.0

    def steps(self, optimizer) -> Any:
        rate = float(optimizer.learning_rate)
        if self.kind in ("SGD", "momentum"):
            self.trace = float(optimizer.momentum) * self.trace + rate
            return [self.trace] * 4
        velocities = [np.asarray(v.value) for v in optimizer._velocities]
        if self.kind == "RMSprop":
            return [rate / np.sqrt(v + optimizer.epsilon) for v in velocities]
        # Where Adam rests, m = (1 − β₁ᵗ)·g cancels its other correction.
        rate *= np.sqrt(1 - optimizer.beta_2 ** int(optimizer.iterations))
        return [rate / (np.sqrt(v) + optimizer.epsilon) for v in velocities]

    def __call__(self, model) -> None:
        steps = self.steps(model.optimizer)
        pairs = zip(model.get_weights(), steps, strict=True)
        model.set_weights([soft(w, self.strength * h) if w.ndim == 2 else w for w, h in pairs])


def weighted_table(is_weighted) -> Any:
    x, y = table(23)
    return x, y, np.random.default_rng(2).uniform(0, 2, 23).astype("float32") if is_weighted else None


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_coupled_lane_is_keras_with_a_kernel_regularizer(kind) -> None:
    data = weighted_table(kind in ("SGD", "Adam"))
    training = replace(TRAINING, update="coupled")
    found = in_lanes(compiled(net(), OPTIMIZERS[kind]()), data, poise.L2(), training)
    for position in (0, 2):
        regularizer = keras.regularizers.L2(float(STRENGTHS[position]))
        alone = by_keras(compiled(net(kernel_regularizer=regularizer), OPTIMIZERS[kind]()), data)
        assert_same_weights(of_lane(found, position), weights(alone))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_proximal_lane_is_keras_and_a_soft_threshold_in_its_own_step(kind) -> None:
    data = weighted_table(kind in ("momentum", "RMSprop"))
    found = in_lanes(compiled(net(), OPTIMIZERS[kind]()), data, poise.L1())
    alone = by_keras(compiled(net(), OPTIMIZERS[kind]()), data, after=ByHand(kind, STRENGTHS[2]))
    assert_same_weights(of_lane(found, 2), weights(alone))
    assert (of_lane(found, 2)[0] == 0).any()


DECAYING = {
    "SGD": lambda: optimizers.SGD(0.1, weight_decay=0.4),
    "Adam": lambda: optimizers.AdamW(0.02, weight_decay=0.4),
}


@pytest.mark.parametrize("kind", DECAYING)
def test_decoupled_lane_is_keras_with_weight_decay(kind) -> None:
    data = weighted_table(True)
    found = in_lanes(compiled(net(), OPTIMIZERS[kind]()), data, poise.L2(), replace(TRAINING, update="decoupled"))
    decaying = DECAYING[kind]()
    decaying.exclude_from_weight_decay(var_names=["bias"])
    assert_same_weights(of_lane(found, 2), weights(by_keras(compiled(net(), decaying), data)))


@pytest.mark.parametrize("kind", ["momentum", "Adam"])
def test_decoupled_lane_is_keras_and_a_soft_threshold_in_the_learning_rate(kind) -> None:
    data = weighted_table(True)
    found = in_lanes(compiled(net(), OPTIMIZERS[kind]()), data, poise.L1(), replace(TRAINING, update="decoupled"))

    def thresholded(model) -> None:
        rate = float(model.optimizer.learning_rate)
        model.set_weights([soft(w, 0.2 * rate) if w.ndim == 2 else w for w in model.get_weights()])

    alone = by_keras(compiled(net(), OPTIMIZERS[kind]()), data, after=thresholded)
    assert_same_weights(of_lane(found, 2), weights(alone))


def test_rules_keep_their_ratio() -> None:
    data = weighted_table(False)
    rules = [poise.Rule("dense*/kernel", poise.L1(2.0)), poise.Rule("*bias", poise.L2(0.5))]
    keras.backend.clear_session()
    found = in_lanes(compiled(net()), data, rules)
    keras.backend.clear_session()
    own = [poise.Rule("dense*/kernel", poise.L1(0.2)), poise.Rule("*bias", poise.L2(0.05))]
    alone = by_keras(compiled(net(), poise.PenalizedOptimizer("adam", own)), data)
    assert_same_weights(of_lane(found, 2), weights(alone))


# ---------------------------------------------------------------- layers


def normalized() -> keras.Model:
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, use_bias=False), layers.BatchNormalization(), layers.Dense(1)]
    )


def without_dropout() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu"), layers.Dropout(0.0), layers.Dense(1)])


def convolutional() -> keras.Model:
    layers_of = [layers.Conv2D(3, 2, activation="tanh"), layers.GlobalAveragePooling2D(), layers.Dense(1)]
    return keras.Sequential([keras.Input((5, 4, 2)), *layers_of])


def recurrent() -> keras.Model:
    return keras.Sequential([keras.Input((4, 3)), layers.LSTM(3), layers.Dense(1)])


def embedded() -> keras.Model:
    layers_of = [layers.Embedding(7, 3), layers.Flatten(), layers.Dense(1)]
    return keras.Sequential([keras.Input((2,), dtype="int32"), *layers_of])


def drawn(*shape) -> Any:
    return np.random.default_rng(5).normal(size=(23, *shape)).astype("float32")


LAYERS = {
    "BatchNormalization": (normalized, drawn(6), EVEN),
    "Dropout(0)": (without_dropout, drawn(6), REPLICA),
    "Conv2D": (convolutional, drawn(5, 4, 2), REPLICA),
    "LSTM": (recurrent, drawn(4, 3), REPLICA),
    "Embedding": (embedded, np.random.default_rng(6).integers(0, 7, (23, 2)), REPLICA),
}


@pytest.mark.parametrize("name", LAYERS)
def test_lane_of_other_layers(name) -> None:
    build, x, replica = LAYERS[name]
    data = (x, table(23)[1], None)
    keras.utils.set_random_seed(4)
    begun = build()
    alone = compiled(build(), poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.2), "proximal"))
    alone.set_weights(begun.get_weights())
    found = in_lanes(compiled(begun, optimizers.SGD(0.05)), data, poise.L1(), replicas=[replica])
    assert_same_weights(of_lane(found, 2), weights(by_keras(alone, data, replica=replica)))


def test_lane_of_two_inputs_and_two_outputs() -> None:
    def build() -> keras.Model:
        keras.utils.set_random_seed(4)
        first, second = keras.Input((6,), name="first"), keras.Input((2,), name="second")
        hidden = layers.Dense(4, "tanh")(layers.Concatenate()([first, second]))
        outputs = [layers.Dense(1, name="number")(hidden), layers.Dense(1, activation="sigmoid", name="chance")(hidden)]
        return keras.Model([first, second], outputs)

    x, y = table(23)
    labels = (y > 0).astype("int32")
    random = np.random.default_rng(2)
    w = [random.uniform(0, 2, 23).astype("float32") for _ in range(2)]
    settings = {"loss": ["mse", "binary_crossentropy"], "loss_weights": [1.0, 0.3]}
    for sample_weight in (w[0], w):
        data = ([x, drawn(2)], [y, labels], sample_weight)
        found = in_lanes(compiled(build(), optimizers.SGD(0.05), **settings), data, poise.L1())
        penalized = poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.2), "proximal")
        alone = by_keras(compiled(build(), penalized, **settings), data)
        assert_same_weights(of_lane(found, 2), weights(alone))


def every_step() -> keras.Model:
    return keras.Sequential([keras.Input((4, 3)), layers.SimpleRNN(3, return_sequences=True), layers.Dense(1)])


@pytest.mark.parametrize("shape", [None, (23, 4)])
def test_lane_with_a_loss_at_every_step_of_a_sequence(shape) -> None:
    keras.utils.set_random_seed(4)
    begun, alone = (
        every_step(),
        compiled(every_step(), poise.PenalizedOptimizer(optimizers.SGD(0.05), poise.L1(0.2), "proximal")),
    )
    alone.set_weights(begun.get_weights())
    sample_weight = None if shape is None else np.random.default_rng(2).uniform(0, 2, shape).astype("float32")
    data = (drawn(4, 3), drawn(4, 1), sample_weight)
    found = in_lanes(compiled(begun, optimizers.SGD(0.05)), data, poise.L1())
    assert_same_weights(of_lane(found, 2), weights(by_keras(alone, data)))


# ---------------------------------------------------------------- losses


def squares(y, predicted) -> Any:
    return ops.mean(ops.square(y - predicted), axis=-1)


def classes(kinds, units) -> Any:
    y = table(23)[1][:, 0]
    return np.digitize(y, np.quantile(y, np.arange(1, units) / units)).astype(kinds) if units > 1 else (y > 0)[:, None]


LOSSES = {
    "function": (squares, 1, None),
    "object": (keras.losses.Huber(0.3), 1, None),
    "sum": (keras.losses.MeanSquaredError(reduction="sum"), 1, None),
    "bool labels": (keras.losses.BinaryCrossentropy(from_logits=True), 1, classes(bool, 1)),
    "int labels": (keras.losses.SparseCategoricalCrossentropy(from_logits=True), 3, classes("int64", 3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_lane_of_other_losses(name) -> None:
    loss, units, y = LOSSES[name]
    data = (table(23)[0], table(23)[1] if y is None else y, None)

    def build() -> keras.Model:
        keras.utils.set_random_seed(4)
        return keras.Sequential([keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(units)])

    found = in_lanes(compiled(build(), optimizers.SGD(0.02), loss), data, poise.L1())
    penalized = poise.PenalizedOptimizer(optimizers.SGD(0.02), poise.L1(0.2), "proximal")
    assert_same_weights(of_lane(found, 2), weights(by_keras(compiled(build(), penalized, loss), data)))


def test_a_sum_is_recognized_where_the_loss_starts_at_zero() -> None:
    data = (table(23)[0], np.zeros((23, 1), "float32"), None)
    data[1][4:] = table(23)[1][4:]

    def build() -> keras.Model:
        dense = layers.Dense(1, kernel_initializer="zeros")
        return keras.Sequential([keras.Input((6,)), dense])

    loss = keras.losses.MeanSquaredError(reduction="sum")
    found = in_lanes(compiled(build(), optimizers.SGD(0.002), loss), data, poise.L1())
    penalized = poise.PenalizedOptimizer(optimizers.SGD(0.002), poise.L1(0.2), "proximal")
    assert_same_weights(of_lane(found, 2), weights(by_keras(compiled(build(), penalized, loss), data)))


def test_losses_of_a_lane_are_what_keras_evaluates() -> None:
    data = weighted_table(True)
    found = in_lanes(compiled(net()), data, poise.L1())
    model = compiled(net())
    model.set_weights(of_lane(found, 1))
    for rows, name in ((REPLICA.train, "loss"), (REPLICA.held, "held_loss")):
        x, y, sample_weight = at(data, rows)
        expected = model.evaluate(x, y, sample_weight=sample_weight, verbose=0)
        np.testing.assert_allclose(found.table[name][1], expected, rtol=1e-5)


def test_losses_of_many_rows_are_summed_over_blocks(monkeypatch) -> None:
    data = weighted_table(True)
    whole = in_lanes(compiled(net()), data, poise.L1())
    monkeypatch.setattr(sources, "WHOLE", 5)
    monkeypatch.setattr(batching, "WHOLE", 5)
    monkeypatch.setattr(batching, "PART", 5)
    parts = in_lanes(compiled(net()), data, poise.L1())
    for name in ("loss", "held_loss", "residual", "gradient", "penalty"):
        np.testing.assert_allclose(parts.table[name], whole.table[name], rtol=1e-4, atol=1e-6)


def test_replicas_with_their_own_rows_are_evaluated_only_on_them(monkeypatch) -> None:
    data = weighted_table(True)
    expected = in_lanes(compiled(net()), data, poise.L1())
    stacked = keras.tree.map_structure(lambda a: np.concatenate([a + 1.0, a, a - 1.0]), data)
    count, sizes, block = len(ROWS), set(), ArraySource.blocks

    def noted(self, replicas) -> Iterator[Any]:
        for data, rows, masks in block(self, replicas):
            sizes.add(masks["loss"].shape[1])
            yield data, rows, masks

    monkeypatch.setattr(ArraySource, "blocks", noted)
    own = replace(REPLICA, train=count + REPLICA.train, held=count + REPLICA.held)
    found = in_lanes(compiled(net()), stacked, poise.L1(), replicas=[own])

    assert sizes == {count}
    for name in ("loss", "held_loss", "residual", "gradient", "penalty"):
        np.testing.assert_allclose(found.table[name], expected.table[name], rtol=1e-5)


# ---------------------------------------------------------------- alone and together

REPLICAS = [Replica(0, 0, ROWS[:16], ROWS[16:]), Replica(1, 0, ROWS[5:], ROWS[:5]), Replica(2, 0, ROWS, ROWS[:0])]
FIVE = np.array([0.0, 0.01, 0.05, 0.2, 0.5])


def assert_same_lanes(actual, expected, replicas, strengths: Any = range(5)) -> None:
    for replica in replicas:
        for position, strength in enumerate(strengths):
            assert_same_weights(of_lane(actual, position), of_lane(expected, strength, replica))


def with_steady_adam() -> keras.Model:
    """A model whose optimizer does not divide rounding errors by small gradients."""
    return compiled(net(), optimizers.Adam(0.05, epsilon=0.01))


@pytest.fixture(scope="module")
def together() -> Any:
    return in_lanes(with_steady_adam(), weighted_table(True), poise.L1(), strengths=FIVE, replicas=REPLICAS)


def test_lanes_do_not_depend_on_how_many_there_are(together) -> None:
    data = weighted_table(True)
    for number, replica in enumerate(REPLICAS):
        alone = in_lanes(with_steady_adam(), data, poise.L1(), strengths=FIVE[3:4], replicas=[replica])
        assert_same_lanes(alone, together, [number], [3])


def assert_equal_lanes(actual, expected) -> None:
    for a, b in zip(actual.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    columns = ["loss", "penalty", "residual", "zeros"]
    np.testing.assert_allclose(actual.table[columns], expected.table[columns], rtol=1e-4, atol=1e-5)
    assert actual.table[["fold", "strength"]].equals(expected.table[["fold", "strength"]])


@pytest.mark.parametrize("early_stopping", [False, True])
def test_lanes_do_not_depend_on_padding(early_stopping, monkeypatch) -> None:
    """With early stopping, the folds and the replica of all rows are separate chunks, and folds need no padding."""
    sizes, settle = set(), ArraySource.settle

    def note_size(self, problem, part, *args) -> Any:
        sizes.add(part.task.batch_rows)
        return settle(self, problem, part, *args)

    def train() -> Any:
        training = Training(epochs=0, settle=40, update="decoupled", early_stopping=early_stopping)
        return in_lanes(
            with_steady_adam(), weighted_table(True), poise.L1(), training, strengths=FIVE, replicas=REPLICAS
        )

    monkeypatch.setattr(ArraySource, "settle", note_size)
    padded = train()
    assert sizes == {23}
    monkeypatch.setattr(runner, "PADDED_WORK", 0)
    sizes.clear()
    assert_equal_lanes(train(), padded)
    assert sizes == ({18, 23} if early_stopping else {23})


@pytest.mark.parametrize("size", [2, 10])
def test_lanes_do_not_depend_on_chunks(size, together, monkeypatch) -> None:
    monkeypatch.setattr(chunks, "LARGE", 0)
    monkeypatch.setattr(InProcessExecutor, "fastest_size", lambda self, *_: size)
    parts = in_lanes(with_steady_adam(), weighted_table(True), poise.L1(), strengths=FIVE, replicas=REPLICAS)
    assert_equal_lanes(parts, together)


@pytest.mark.parametrize(
    "training", [TRAINING, Training(epochs=1, batch_size=8, settle=130)], ids=["epochs", "settled"]
)
@pytest.mark.parametrize("start", ["fresh", "dense"])
def test_lanes_do_not_depend_on_parts(training, start, monkeypatch) -> None:
    shapes, train = set(), ArraySource.train

    def noted(self, problem, part, *args) -> Any:
        shapes.add(part.state.trained[0].shape[:2])
        return train(self, problem, part, *args)

    def found(cached) -> Any:
        shapes.clear()
        monkeypatch.setattr(chunks, "CACHED", cached)
        keras.utils.set_random_seed(0)
        with_state = keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(5, use_bias=False),
                layers.BatchNormalization(),
                layers.Dropout(0.3),
                layers.Dense(1),
            ]
        )
        factors = {(0, 0): np.linspace(0.5, 2.0, 2 * 7 * 30).reshape(2, 7, 6, 5)}
        return in_lanes(
            compiled(with_state, optimizers.Adam(0.05, epsilon=0.01)), weighted_table(True), poise.L1(), replace(training, start=start),
            np.geomspace(0.01, 1.0, 7), [EVEN, replace(EVEN, fold=1)], factors=factors,
        )  # fmt: skip

    monkeypatch.setattr(ArraySource, "train", noted)
    many = found(10**9)
    assert shapes == {(1, 7)}  # from dense weights one strength comes first, which fills a part
    assert_equal_lanes(found(1), many)
    assert shapes == {(1, 1)}
    monkeypatch.setattr(trainer, "fills_device", lambda: True)
    assert_equal_lanes(found(1), many)
    assert shapes - {(2, 1)} == {(2, 7)}


def test_chunk_is_measured_where_lanes_are_large(together, monkeypatch) -> None:
    monkeypatch.setattr(chunks, "LARGE", 0)
    parts = in_lanes(with_steady_adam(), weighted_table(True), poise.L1(), strengths=FIVE, replicas=REPLICAS)
    assert_equal_lanes(parts, together)


def test_replicas_settle_on_different_numbers_of_blocks(monkeypatch) -> None:
    for name in ("WHOLE", "PART"):
        monkeypatch.setattr(batching, name, 18)
    training = Training(epochs=0, batch_size=None, settle=5)
    found = in_lanes(compiled(net()), weighted_table(False), poise.L1(), training, replicas=REPLICAS)
    assert (found.table["settled"] == 5).all()


DEVICES = """
import keras, numpy as np, jax, poise, sys
from poise.path.lanes.state import place_state
from poise.path.training import Replica, Training
from path.runners import runner_of
assert len(place_state([jax.numpy.zeros((1, 4))])[0].sharding.device_set) == len(jax.devices())
keras.utils.set_random_seed(3)
dense = [keras.layers.Dense(5, "tanh"), keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((6,)), *dense])
model.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(23, 6)).astype("float32")
rows = np.arange(23)
runner = runner_of(model, poise.L1(), (x, x[:, :1], None), [Replica(-1, 0, rows, rows[:0])], Training(epochs=3, settle=20))
found = runner.run(np.array([0.0, 0.01, 0.1, 0.5]))
"""


def test_lanes_do_not_depend_on_devices(tmp_path) -> None:
    here = {}
    exec(DEVICES, here)
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = DEVICES + "assert len(jax.devices()) == 2\nnp.savez(sys.argv[1], *found.weights)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "out.npz"], env=environment, check=True, timeout=120)
    with np.load(tmp_path / "out.npz") as stored:
        for name, expected in zip(stored.files, here["found"].weights, strict=True):
            np.testing.assert_allclose(stored[name], expected, rtol=1e-5, atol=1e-6)


TOLD = """
import sys
import keras
import poise
study = poise.run_study("wine", penalties=["l2", "dropout"], strengths=3, cv=2, max_iter=2)
study.save(sys.argv[1] + "/study")
poise.Study.load(sys.argv[1] + "/study").predict("wine")
study.best.path.save(sys.argv[1] + "/path")
poise.RegularizationPath.load(sys.argv[1] + "/path")
from poise._keras_internals import without_tensorflow
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
with without_tensorflow():
    told = keras.saving.serialize_keras_object(model)
assert "tensorflow" not in sys.modules
assert told == keras.saving.serialize_keras_object(model)
assert "tensorflow" in sys.modules
"""


def test_studies_and_paths_do_not_import_tensorflow(tmp_path) -> None:
    subprocess.run([sys.executable, "-c", TOLD, tmp_path], check=True, timeout=120)


def test_every_lane_has_its_own_dropout() -> None:
    def found() -> Any:
        keras.utils.set_random_seed(3)
        dense = [layers.Dense(5, "tanh"), layers.Dropout(0.5), layers.Dense(1)]
        model = compiled(keras.Sequential([keras.Input((6,)), *dense]), optimizers.SGD(0.1))
        return in_lanes(model, weighted_table(False), poise.L1(), strengths=[1e-12, 2e-12], replicas=REPLICAS[:2])

    first, again = found(), found()
    for a, b in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    kernel = first.weights[0]
    assert np.abs(kernel[0, 0] - kernel[0, 1]).max() > 1e-3
    assert np.abs(kernel[0, 0] - kernel[1, 0]).max() > 1e-3


def test_the_model_is_left_as_it_is() -> None:
    model = compiled(normalized())
    model.add(layers.Dropout(0.5))
    before = [np.array(v.value) for v in model.variables]
    in_lanes(compiled(model), (drawn(6), table(23)[1], None), poise.L1(), Training(epochs=1, settle=3))
    for a, b in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(a.value, b)


# ---------------------------------------------------------------- what diverges


def test_a_diverging_lane_leaves_the_others_exact() -> None:
    data = weighted_table(False)
    training = Training(epochs=8, batch_size=8, update="coupled", settle=0)
    found = in_lanes(compiled(net(), optimizers.SGD(0.1)), data, poise.L2(), training, [0.01, 0.1, 1e6])
    calm = in_lanes(compiled(net(), optimizers.SGD(0.1)), data, poise.L2(), training, [0.01, 0.1])
    assert found.table["diverged"].tolist() == [False, False, True]
    for weight, expected in zip(found.weights, calm.weights, strict=True):
        np.testing.assert_allclose(weight[:, :2], expected, rtol=1e-5, atol=1e-6)
    columns = ["loss", "held_loss", "penalty", "residual", "gradient"]
    np.testing.assert_allclose(found.table[columns][:2], calm.table[columns], rtol=1e-4)


def test_a_lane_that_diverges_ends_no_settling() -> None:
    data = weighted_table(False)
    training = Training(epochs=8, batch_size=8, update="coupled", settle=250, tolerance=1e-12, early_stopping=False)
    found = in_lanes(compiled(net(), optimizers.SGD(0.1)), data, poise.L2(), training, [0.01, 1e6])
    assert found.table["settled"].tolist() == [250, 100]
    assert np.isfinite(found.table["residual"][0])


# ---------------------------------------------------------------- batches


def test_batches_hold_every_row_once_and_fill_up_with_their_own() -> None:
    rows, counted = batches_of(REPLICAS[1:], 8, 4)
    assert rows.shape == counted.shape == (2, 3, 8)
    for replica, here, counts in zip(REPLICAS[1:], rows, counted, strict=True):
        assert sorted(here[counts]) == sorted(replica.train)
        assert set(here[~counts]) <= set(replica.train)
        assert counts[:-1].all()


def test_batches_differ_between_epochs_and_are_the_same_again() -> None:
    first, again, later = (batches_of([REPLICA], 8, epoch)[0] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != later).any()


def test_batches_of_different_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^All replicas must have the same number of batches per epoch, got \[2, 3\]"):
        batches_of(REPLICAS[:2], 8, 0)


def test_a_loss_of_the_whole_batch_is_refused() -> None:
    def whole(y, predicted) -> Any:
        return ops.sqrt(ops.mean(ops.square(y - predicted)))

    with pytest.raises(ValueError, match="^The loss must be a mean or a sum over the rows of a batch"):
        in_lanes(compiled(net(), loss=whole), weighted_table(False), poise.L1())
