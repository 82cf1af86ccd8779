"""poise.forces(model, x, y) is the gradient of the loss of all rows at once: what one step of stock Keras takes."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, losses, ops
from oracles.models import BACKEND, compiled, table

import poise

Array = np.ndarray
ROWS = 23
REDUCTIONS = ["sum", "sum_over_batch_size", "mean", "mean_with_sample_weight"]


def norms_of_a_keras_step(make: Callable[[], keras.Model], compile_as: dict, *data: Any, **arguments: Any) -> Array:
    """The norms of the gradients of all kernels: how far one step of SGD(1) on all rows moves them."""
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(keras.optimizers.SGD(1.0), **compile_as)
    before = [np.array(v) for v in kernels(model)]
    model.train_on_batch(*data, **arguments)
    return np.array([np.linalg.norm(old - np.array(new)) for old, new in zip(before, kernels(model), strict=True)])


def penalized(make: Callable[[], keras.Model], compile_as: dict) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.1)), **compile_as)
    return model


def kernels(model: keras.Model) -> list:
    return [v for v in model.trainable_variables if v.name in ("kernel", "recurrent_kernel", "embeddings", "w")]


def assert_forces(
    make: Any, compile_as: dict, data: Any, sizes: Any = (None, 10), relative: float = 2e-4, **arguments: Any
) -> None:
    expected = norms_of_a_keras_step(make, compile_as, *data, **arguments)
    for size in sizes:
        result = poise.forces(penalized(make, compile_as), *data, batch_size=size, **arguments)["prediction"]
        np.testing.assert_allclose(result, expected, rtol=relative, err_msg=f"batch_size={size}")


def dense() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), layers.Dense(3, "tanh"), layers.Dense(1)])


def two_outputs() -> keras.Model:
    x = keras.Input((6,))
    hidden = layers.Dense(3, "tanh")(x)
    return keras.Model(x, {"a": layers.Dense(1, name="a")(hidden), "b": layers.Dense(2, name="b")(hidden)})


def sequences() -> keras.Model:
    """A prediction per time step, masked where the token is 0."""
    return keras.Sequential(
        [keras.Input((5,)), layers.Embedding(9, 4, mask_zero=True), layers.Dense(3, "tanh"), layers.Dense(1)]
    )


def tokens(rows: int = ROWS) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    lengths = random.integers(0, 6, size=(rows, 1))
    lengths[:3] = 0  # parts of one row have nothing but padding
    x = random.integers(1, 9, size=(rows, 5)) * (np.arange(5) < lengths)
    return x, random.normal(size=(rows, 5, 1)).astype("float32")


def share(*shape: int) -> Array:
    return np.random.default_rng(5).uniform(size=shape or (ROWS,)).astype("float32")


# ---------------------------------------------------------------- reductions


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_reduction_is_that_of_all_rows(reduction: str, weighted: bool) -> None:
    data = (*table(ROWS), *([share()] if weighted else []))
    assert_forces(dense, {"loss": losses.MeanSquaredError(reduction=reduction)}, data, [10])


@pytest.mark.parametrize("reduction", [None, "none"])
def test_loss_that_is_not_reduced_is_summed(reduction: Any) -> None:
    """As TensorFlow does; Keras on JAX and PyTorch trains no such loss."""
    data = table(ROWS)
    expected = norms_of_a_keras_step(dense, {"loss": losses.MeanSquaredError(reduction="sum")}, *data)

    model = penalized(dense, {"loss": losses.MeanSquaredError(reduction=reduction)})

    for size in (None, 10):
        np.testing.assert_allclose(poise.forces(model, *data, batch_size=size)["prediction"], expected, rtol=2e-4)


def test_sum_in_numpy() -> None:
    x, y = table(700)
    model = compiled(
        poise.PenalizedOptimizer("sgd", poise.L2(0.1)),
        keras.Sequential([keras.Input((6,)), layers.Dense(1)]),
        loss=losses.MeanSquaredError(reduction="sum"),
    )
    w, b = (np.array(v, "float64") for v in model.get_weights())

    result = poise.forces(model, x, y)["prediction"].item()

    assert result == pytest.approx(np.linalg.norm((2.0 * (x @ w + b - y) * x).sum(0)), rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_masked_sequences(reduction: str, weighted: bool) -> None:
    data = (*tokens(), *([share(ROWS, 5)] if weighted else []))
    assert_forces(sequences, {"loss": losses.MeanSquaredError(reduction=reduction)}, data, [10])


def test_masking_layer_before_a_recurrent_one() -> None:
    def make() -> keras.Model:
        stack = [layers.Masking(), layers.SimpleRNN(3, return_sequences=True), layers.Dense(1)]
        return keras.Sequential([keras.Input((5, 2)), *stack])

    x, y = tokens()
    inputs = np.repeat(x[:, :, None], 2, axis=2).astype("float32") * np.array([0.1, -0.2], "float32")
    assert_forces(make, {"loss": "mse"}, (inputs, y), [10])


def test_outputs_with_separate_reductions_and_weights() -> None:
    x, y = table(ROWS)
    targets = {"a": y, "b": np.concatenate([y, -2 * y], axis=1)}
    compile_as = {
        "loss": {"a": losses.MeanSquaredError(reduction="sum"), "b": "mae"},
        "loss_weights": {"a": 0.25, "b": 3.0},
    }
    for sample_weight in ([], [share()], [{"a": share(), "b": share()[::-1].copy()}]):
        assert_forces(two_outputs, compile_as, (x, targets, *sample_weight), [10])


def test_losses_that_are_not_a_mean_over_rows() -> None:
    def root(y: Any, predicted: Any) -> Any:
        return ops.sqrt(ops.mean((y - predicted) ** 2))

    class Pairs(losses.Loss):
        """Every row against the one before it."""

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return ops.square(y_true - ops.roll(y_true, 1, axis=0) - y_pred + ops.roll(y_pred, 1, axis=0))

    x, y = table(ROWS)
    for loss in (root, Pairs(), losses.Dice(), losses.LogCosh(reduction="sum")):
        assert_forces(dense, {"loss": loss}, (x, np.abs(y)), [10])


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights(one_hot: bool) -> None:
    def make() -> keras.Model:
        return keras.Sequential([keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(3, "softmax")])

    x, y = table(ROWS)
    classes = np.digitize(y[:, 0], [-0.5, 0.5])
    data = x, np.eye(3, dtype="float32")[classes] if one_hot else classes
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    assert_forces(make, {"loss": loss}, data, [10], class_weight={0: 2.0, 1: 0.1})


# ---------------------------------------------------------------- losses from elsewhere


class Energy(layers.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(ops.mean(x**2))
        self.add_loss(ops.sqrt(ops.mean(x) ** 2 + 1.0))
        return x


def with_energy() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), layers.Dense(3, "tanh"), Energy(), layers.Dense(1)])


class Own(keras.Model):
    """A model that computes its loss itself, with and without the argument `training`."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
        return ops.sqrt(ops.mean((y - y_pred) ** 2)) + ops.sum(ops.mean(x * self.dense.kernel[:, 0], axis=0) ** 2)


class OwnWithTraining(Own):
    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return super().compute_loss(x, y, y_pred)


def called(kind: type) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        model = kind()
        model(np.zeros((1, 6), "float32"))
        return model

    return make


def regularized() -> keras.Model:
    """The second kernel has a Keras regularizer, which stays in the loss, the activities of the first one as well."""
    hidden = layers.Dense(3, "tanh", activity_regularizer=keras.regularizers.L2(0.3))
    return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(1)])


@pytest.mark.parametrize("make", [with_energy, called(Own), called(OwnWithTraining), regularized])
def test_losses_of_layers_and_models_are_those_of_all_rows(make: Any) -> None:
    compile_as = {} if isinstance(make(), Own) else {"loss": "mse"}
    assert_forces(make, compile_as, table(ROWS), [None])
    with pytest.warns(UserWarning, match=r"batch_size=10 is not used: .* All 23 rows went through the model at once"):
        assert_forces(make, compile_as, table(ROWS), [10])


def test_model_without_a_loss_is_refused() -> None:
    model = dense()
    model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.1)))
    for size in (None, 10):
        with pytest.raises(ValueError, match=r"has no loss to differentiate.*compile\(loss=\.\.\.\)"):
            poise.forces(model, *table(ROWS), batch_size=size)


# ---------------------------------------------------------------- forms of data


def as_batches(*arrays: Any) -> list:
    return [tuple(a[i : i + 10] for a in arrays) for i in range(0, ROWS, 10)]


class Numbered(keras.utils.PyDataset):
    """Without IndexError after its end."""

    def __init__(self, batches: list) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Any:
        return self.batches[number % len(self.batches)]


def test_forms_of_batches_give_the_same_forces() -> None:
    x, y = table(ROWS)
    compile_as = {"loss": losses.MeanSquaredError(reduction="mean_with_sample_weight")}
    model = penalized(dense, compile_as)
    plain, weighted = (poise.forces(model, x, y, w)["prediction"] for w in (None, share()))
    forms = {
        "list": (as_batches(x, y), plain),
        "generator": (iter(as_batches(x, y)), plain),
        "lists in a list": ([list(batch) for batch in as_batches(x, y)], plain),
        "weighted": (iter(as_batches(x, y, share())), weighted),
        "PyDataset": (Numbered(as_batches(x, y, share())), weighted),
    }
    for name, (arguments, expected) in forms.items():
        np.testing.assert_allclose(poise.forces(model, arguments)["prediction"], expected, rtol=1e-5, err_msg=name)


@pytest.mark.backends("tensorflow")
def test_tf_dataset() -> None:
    import tensorflow as tf

    x, y = table(ROWS)
    model = penalized(dense, {"loss": "mse"})
    dataset = tf.data.Dataset.from_tensor_slices((x.astype("float64"), y)).shuffle(ROWS).batch(10)

    result = poise.forces(model, dataset)["prediction"]

    np.testing.assert_allclose(result, poise.forces(model, x, y)["prediction"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"repeats without end.*take\(10\)"):
        poise.forces(model, dataset.repeat())


@pytest.mark.backends("torch")
def test_torch_data_loader() -> None:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = table(ROWS)
    model = penalized(dense, {"loss": "mse"})
    loader = DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=10)

    result = poise.forces(model, loader)["prediction"]

    np.testing.assert_allclose(result, poise.forces(model, x, y)["prediction"], rtol=1e-5)


def test_inputs_without_targets_in_every_form() -> None:
    """A model whose loss comes from its layers only."""

    def make() -> keras.Model:
        return keras.Sequential([keras.Input((6,)), layers.Dense(3, "tanh"), Energy()])

    x, _ = table(ROWS)
    expected = norms_of_a_keras_step(make, {}, x)
    for arguments in (x, [(x,)], [(x, None)], [(x[:10],), (x[10:],)], iter([x[:10], x[10:]])):
        result = poise.forces(penalized(make, {}), arguments)["prediction"]
        np.testing.assert_allclose(result, expected, rtol=2e-4)


def test_several_inputs_in_a_list_without_targets() -> None:
    def make() -> keras.Model:
        a, b = keras.Input((6,)), keras.Input((6,))
        return keras.Model([a, b], Energy()(layers.Dense(2)(layers.Subtract()([a, b]))))

    x, _ = table(ROWS)
    expected = norms_of_a_keras_step(make, {}, [x, 0.5 * x])
    np.testing.assert_allclose(poise.forces(penalized(make, {}), [x, 0.5 * x])["prediction"], expected, rtol=2e-4)


def test_dictionaries_of_inputs_in_batches() -> None:
    def make() -> keras.Model:
        a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
        return keras.Model({"a": a, "b": b}, layers.Dense(1)(layers.Subtract()([a, b])))

    x, y = table(ROWS)
    model = penalized(make, {"loss": "mse"})
    batches = [({"a": a, "b": 0.5 * a}, b) for a, b in as_batches(x, y)]
    expected = norms_of_a_keras_step(make, {"loss": "mse"}, {"a": x, "b": 0.5 * x}, y)

    np.testing.assert_allclose(poise.forces(model, batches)["prediction"], expected, rtol=2e-4)


def test_batches_of_sequences_of_different_lengths() -> None:
    """One prediction per sequence: the padding changes nothing, so that the padded table is the oracle."""

    def make() -> keras.Model:
        stack = [layers.Embedding(9, 4, mask_zero=True), layers.GlobalAveragePooling1D(), layers.Dense(1)]
        return keras.Sequential([keras.Input((None,)), *stack])

    random = np.random.default_rng(0)
    short, long = (random.integers(1, 9, size=(rows, length)) for rows, length in ((10, 3), (13, 5)))
    y = table(ROWS)[1]
    padded = np.concatenate([np.pad(short, ((0, 0), (0, 2))), long])
    compile_as = {"loss": losses.MeanSquaredError(reduction="sum")}
    expected = norms_of_a_keras_step(make, compile_as, padded, y)

    result = poise.forces(penalized(make, compile_as), [(short, y[:10]), (long, y[10:])])["prediction"]

    np.testing.assert_allclose(result, expected, rtol=2e-4)


def test_predictions_of_different_lengths_are_refused() -> None:
    def make() -> keras.Model:
        return keras.Sequential([keras.Input((None, 2)), layers.Dense(1)])

    batches = [(np.ones((2, n, 2), "float32"), np.ones((2, n, 1), "float32")) for n in (3, 5)]
    with pytest.raises(ValueError, match=r"differ in the shape of a row of y .*Pad them to one shape"):
        poise.forces(penalized(make, {"loss": "mse"}), batches)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be an int >= 1, got 0\."),
        ({"sample_weight": share(5)}, r"same number of rows: x has 23, y has 23, sample_weight has 5"),
        ({"class_weight": {0: 1.0}, "sample_weight": share()}, "class_weight and sample_weight cannot be combined"),
        ({"x": [(1, 2)]}, "must be arrays or structures of arrays"),
        ({"x": 3, "y": None}, "must be arrays or an iterable of batches, got int"),
        ({"x": [(1, 2, 3, 4)], "y": None}, "got 4 elements"),
        ({"x": [], "y": None}, "no rows"),
        ({"optimizer": "adam"}, r"optimizer must be a poise\.PenalizedOptimizer, .*got str"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    x, y = table(ROWS)
    with pytest.raises((TypeError, ValueError), match=message):
        poise.forces(penalized(dense, {"loss": "mse"}), **{"x": x, "y": y, **arguments})


# ---------------------------------------------------------------- nothing is changed


def stateful() -> keras.Model:
    """Dropout that is always on, moving statistics, and a recurrent state."""
    x = keras.Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(4)(layers.Dropout(0.5)(x, training=True)))
    return keras.Model(x, {"a": layers.Dense(1, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)})


@pytest.mark.parametrize("size", [None, 10])
def test_no_state_and_no_metric_is_changed(size: Any) -> None:
    x, y = table(ROWS)
    targets = {"a": y, "b": -y}
    model = penalized(stateful, {"loss": "mse", "metrics": {"a": "mae"}})
    model.train_on_batch(x, targets)
    everything = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    before = [np.array(ops.convert_to_numpy(v)) for v in everything]

    first = poise.forces(model, x, targets, batch_size=size)
    second = poise.forces(model, x, targets, batch_size=size)

    assert len(everything) > 15
    for then, variable in zip(before, everything, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), then, err_msg=variable.path)
    np.testing.assert_array_equal(first["prediction"], second["prediction"])


def test_a_look_before_training_changes_nothing_of_it() -> None:
    """The losses of the outputs have metrics, which Keras creates with the first data."""
    x, y = table(ROWS)
    histories = []
    for looks in (False, True):
        model = penalized(stateful, {"loss": "mse"})
        if looks:
            poise.forces(model, x, {"a": y, "b": -y}, batch_size=10)
            assert not model.optimizer.built
        model.evaluate(x, {"a": y, "b": -y}, verbose=0)
        keras.utils.set_random_seed(1)  # on PyTorch Keras draws numbers when it first prepares the metrics
        fit = model.fit(x, {"a": y, "b": -y}, 10, 2, verbose=0, shuffle=False)
        histories.append(fit.history)

    assert histories[0] == histories[1]


def test_a_look_during_an_epoch_leaves_its_losses() -> None:
    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            tables.append(poise.forces(self.model, 5 * x, {"a": y, "b": np.c_[y, y]}, batch_size=10))

    x, y = table(ROWS)
    tables, histories = [], []
    for callbacks in ([], [Look()]):
        model = penalized(two_outputs, {"loss": "mse"})
        fit = model.fit(x, {"a": y, "b": np.c_[y, y]}, 10, verbose=0, shuffle=False, callbacks=callbacks)
        histories.append(fit.history)

    assert histories[0] == histories[1]
    assert len(tables) == 3
    assert not np.isclose(tables[0]["prediction"], tables[1]["prediction"]).any()


@pytest.mark.backends("torch")
def test_wrapped_torch_module_keeps_its_mode_and_is_differentiated() -> None:
    import torch

    def make() -> keras.Model:
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        return keras.Sequential([keras.Input((6,)), layers.TorchModuleWrapper(module)])

    x, y = table(ROWS)
    model = make()
    model.compile(poise.PenalizedOptimizer("sgd", poise.Rule(poise.Role.ALL, poise.L2(0.1))), loss="mse")
    module = model.layers[0].module
    module.train()
    module[2].eval()
    twin = make()
    loss = torch.mean((twin.layers[0].module(torch.tensor(x)) - torch.tensor(y)) ** 2)
    loss.backward()
    expected = [float(torch.linalg.norm(p.grad)) for p in twin.layers[0].module.parameters()]

    for size in (None, 10):
        result = poise.forces(model, x, y, batch_size=size)["prediction"]
        np.testing.assert_allclose(sorted(result), sorted(expected), rtol=1e-4)
    assert [module.training, module[0].training, module[2].training] == [True, True, False]


def test_anchor_of_an_optimizer_that_is_not_built_is_at_the_current_weights() -> None:
    x, y = table(ROWS)
    model = dense()
    model.compile(poise.PenalizedOptimizer(keras.optimizers.SGD(0.1), poise.Anchored(poise.L2(1.0))), loss="mse")
    assert not poise.forces(model, x, y)["penalty"].any()
    pretrained = [np.full(w.shape, 5.0) for w in model.get_weights()]

    model.set_weights(pretrained)

    assert not poise.forces(model, x, y)["penalty"].any()
    assert not model.optimizer.built
    model.fit(np.zeros((8, 6)), np.full(8, ops.convert_to_numpy(model(np.zeros((1, 6))))), verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], pretrained[0], rtol=1e-6)


def test_strength_schedule_of_an_optimizer_that_is_not_built() -> None:
    x, y = table(ROWS)
    falling = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    model = dense()
    model.compile(poise.PenalizedOptimizer("sgd", poise.L2(falling)), loss="mse")

    result = poise.forces(model, x, y)["penalty"]

    np.testing.assert_allclose(result, [np.linalg.norm(np.array(v)) for v in kernels(model)], rtol=1e-5)


@pytest.mark.parametrize("rows", [ROWS, 20_000])
def test_half_precision_keeps_the_small_gradients_of_a_mean(rows: int) -> None:
    x, y = table(rows)
    norms = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = penalized(dense, {"loss": "mse"})
        finally:
            keras.config.set_dtype_policy("float32")
        model.set_weights([np.full(w.shape, 0.2) for w in model.get_weights()])
        norms.append(poise.forces(model, x, y, batch_size=5_000)["prediction"])

    np.testing.assert_allclose(norms[1], norms[0], rtol=5e-3)


# ---------------------------------------------------------------- several optimizers


class Pair(keras.Model):
    """Two networks with an optimizer each, as in a GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.one = keras.Sequential([keras.Input((6,)), layers.Dense(1, name="one")], name="first")
        self.two = keras.Sequential([keras.Input((6,)), layers.Dense(1, name="two")], name="second")
        self.built = True

    def compile(self, each: Any, two: Any) -> None:
        super().compile(loss="mse")
        self.one_optimizer, self.two_optimizer = each, two

    def call(self, x: Any) -> Any:
        return self.one(x) + 2.0 * self.two(x)


def test_optimizer_of_a_part_of_the_model() -> None:
    x, y = table(ROWS)
    pair = Pair()
    pair.compile(
        poise.PenalizedOptimizer("sgd", poise.L2(0.3)), poise.PenalizedOptimizer("adam", poise.L1(0.2), observe_every=1)
    )
    pair.two_optimizer.build(pair.two.trainable_variables)
    away = np.array(pair(x)) - y if BACKEND != "torch" else ops.convert_to_numpy(pair(x)) - y
    kernel = ops.convert_to_numpy(pair.two.trainable_variables[0])

    [row] = poise.forces(pair, x, y, optimizer=pair.two_optimizer).to_dict("records")

    assert row["prediction"] == pytest.approx(2.0 * np.linalg.norm(2.0 * x.T @ away / ROWS), rel=1e-4)
    assert row["penalty"] == pytest.approx(np.linalg.norm(0.2 * np.sign(kernel)), rel=1e-5)
    assert poise.summary(pair.two, optimizer=pair.two_optimizer).table["penalty"].tolist() == ["L1", ""]
    with pytest.raises(ValueError, match=r"has model\.one_optimizer, model\.two_optimizer\. Pass one"):
        poise.forces(pair, x, y)
    pair.one.compile(loss="mse")
    with pytest.raises(ValueError, match=r"'.*two/kernel', which is not a variable of the model 'first'"):
        poise.forces(pair.one, x, y, optimizer=pair.two_optimizer)
    with pytest.raises(ValueError, match="No forces were recorded"):
        poise.forces(pair, optimizer=pair.one_optimizer)


def test_optimizer_of_a_custom_loop_shows_what_it_recorded() -> None:
    from oracles.models import batches, train_by_hand

    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    optimizer = poise.PenalizedOptimizer(keras.optimizers.SGD(0.05), poise.L2(0.1), observe_every=1)

    train_by_hand(model, optimizer, batches(1))

    assert poise.forces(model, optimizer=optimizer)["prediction"].item() > 0.0
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    assert poise.forces(model, optimizer=scaled).equals(poise.forces(model, optimizer=optimizer))


def test_wrong_models_are_refused() -> None:
    with pytest.raises(TypeError, match="model must be a Keras model, got PenalizedOptimizer"):
        poise.forces(poise.PenalizedOptimizer("sgd", poise.L2(0.1)), *table(ROWS))
