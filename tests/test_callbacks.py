"""The losses told apart, epoch by epoch, and what other callbacks see of them."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras import callbacks, layers, ops, optimizers
from oracles.models import assert_same_weights, batches, compiled, fitted, net, table, weights

import poise

RULES = [poise.Rule("features/kernel", poise.L1(0.05)), poise.Rule("head/kernel", poise.L2(0.2))]
NAMES = ["features/kernel", "head/kernel"]


def model_of(update: str = "proximal", **arguments: Any) -> keras.Model:
    return compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, update=update), **arguments)


def worth(model: keras.Model) -> np.ndarray:
    features, _, head, _ = (w.astype("float64") for w in weights(model))
    return np.array([0.05 * np.abs(features).sum(), 0.2 * (head**2).sum()])


def split(model: keras.Model, epochs: int = 3, per_rule: bool = False, **arguments: Any) -> dict[str, list[float]]:
    """The history of a training with PenaltyLogger and a validation table."""
    x, y = table(40)
    settings = {
        "batch_size": 16,
        "epochs": epochs,
        "shuffle": False,
        "verbose": 0,
        "validation_data": table(20, seed=7),
    }
    watch = [poise.PenaltyLogger(per_rule), *arguments.pop("callbacks", [])]
    return model.fit(x, y, callbacks=watch, **{**settings, **arguments}).history


def replayed(model: keras.Model, epochs: int = 3, rows: int = 40, batch_size: int = 16) -> pd.DataFrame:
    """Per epoch what the split must show, from weights noted before every batch and after every epoch."""
    plain, table_of_epochs = compiled("sgd"), []
    for _ in range(epochs):
        penalties, losses, sizes = [], [], []
        for x, y in batches(1, rows, batch_size):
            plain.set_weights(model.get_weights())
            losses.append(plain.evaluate(x, y, batch_size=len(x), verbose=0))
            penalties.append(worth(model))
            sizes.append(len(x))
            model.train_on_batch(x, y)
        plain.set_weights(model.get_weights())
        validation = plain.evaluate(*table(20, seed=7), verbose=0)
        means = np.average(penalties, axis=0, weights=sizes)
        table_of_epochs.append(
            {
                "loss": np.average(losses, weights=sizes),
                "penalty": means.sum(),
                "val_loss": validation,
                "val_total_loss": validation + worth(model).sum(),
                **{f"penalty/{name}": mean for name, mean in zip(NAMES, means, strict=True)},
            }
        )
    return pd.DataFrame(table_of_epochs).assign(total_loss=lambda t: t["loss"] + t["penalty"])


# ---------------------------------------------------------------- PenaltyLogger


@pytest.mark.parametrize("update", ["coupled", "proximal"])
def test_every_figure_is_that_of_a_replay_with_a_short_last_batch(update: str) -> None:
    expected = replayed(model_of(update))

    history = pd.DataFrame(split(model_of(update), per_rule=True))

    assert set(history.columns) == set(expected.columns)
    for column in expected:
        np.testing.assert_allclose(history[column], expected[column], rtol=2e-5, err_msg=column)


@pytest.mark.parametrize(("rows", "batch_size"), [(40, 1000), (17, 16), (32, 16), (5, 1)], ids=lambda size: str(size))
def test_penalty_is_weighted_by_rows_for_every_size_of_the_last_batch(rows: int, batch_size: int) -> None:
    expected = replayed(model_of(), 2, rows, batch_size)

    history = fit_of(rows, batch_size)

    for column in ("loss", "penalty", "total_loss"):
        np.testing.assert_allclose(history[column], expected[column], rtol=2e-5, err_msg=column)


def fit_of(rows: int, batch_size: int) -> dict[str, list[float]]:
    model = model_of()
    settings = {"verbose": 0, "shuffle": False, "callbacks": [poise.PenaltyLogger()]}
    return model.fit(*table(rows), batch_size, 2, **settings).history


def test_total_is_loss_and_penalty_in_every_epoch() -> None:
    history = split(model_of(), epochs=5)

    np.testing.assert_allclose(history["total_loss"], np.add(history["loss"], history["penalty"]), rtol=1e-7, atol=0.0)
    assert "penalty/features/kernel" not in history


def test_loss_and_val_loss_are_those_of_a_model_without_penalty() -> None:
    model, stock = model_of(), compiled("sgd")
    history = split(model)
    stock.set_weights(model.get_weights())

    expected = stock.evaluate(*table(20, seed=7), verbose=0)

    assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-6)
    assert model.evaluate(*table(20, seed=7), verbose=0) == pytest.approx(expected, rel=1e-6)
    assert history["val_total_loss"][-1] == pytest.approx(expected + worth(model).sum(), rel=1e-6)


def test_training_is_the_same_with_and_without_it() -> None:
    watched, alone = model_of(), model_of()
    split(watched)

    alone.fit(*table(40), 16, 3, verbose=0, shuffle=False)

    assert_same_weights(watched, alone, relative=0.0)


def test_no_validation_has_no_val_total_loss() -> None:
    history = split(model_of(), validation_data=None)

    assert set(history) == {"loss", "penalty", "total_loss"}


def test_validation_at_some_epochs_only() -> None:
    history = split(model_of(), epochs=4, validation_freq=2)

    assert [len(history[key]) for key in ("total_loss", "val_total_loss")] == [4, 2]
    np.testing.assert_allclose(history["penalty"], replayed(model_of(), 4)["penalty"], rtol=2e-5)


def test_a_second_fit_restarts_its_means() -> None:
    model = model_of()
    both = [split(model, epochs=1)["penalty"][0] for _ in range(2)]

    np.testing.assert_allclose(both, replayed(model_of(), 2)["penalty"], rtol=2e-5)


def test_metrics_and_sample_weights_leave_the_weighting_by_rows() -> None:
    """Keras weights the loss of a batch by its rows whatever their sample weights are."""
    share = np.random.default_rng(0).uniform(size=40).astype("float32")
    expected = []
    twin = model_of(metrics=["mae"])
    for i in range(0, 40, 16):
        expected.append(worth(twin).sum())
        x, y = (a[i : i + 16] for a in table(40))
        twin.train_on_batch(x, y, sample_weight=share[i : i + 16])

    history = split(model_of(metrics=["mae"]), epochs=1, sample_weight=share)

    assert history["penalty"][0] == pytest.approx(np.average(expected, weights=[16, 16, 8]), rel=2e-5)


@pytest.mark.backends("jax", "tensorflow")
@pytest.mark.parametrize("steps", [2, 3])
def test_several_steps_per_execution_give_the_same_figures(steps: int) -> None:
    """6 batches, the last one short."""
    expected = replayed(model_of(), 2, 90)
    model = model_of(steps_per_execution=steps)

    history = model.fit(*table(90), 16, 2, verbose=0, shuffle=False, callbacks=[poise.PenaltyLogger()]).history

    for column in ("loss", "penalty", "total_loss"):
        np.testing.assert_allclose(history[column], expected[column], rtol=2e-5, err_msg=column)


@pytest.mark.backends("tensorflow", "torch")
def test_running_eagerly_gives_the_same_figures() -> None:
    model = model_of(run_eagerly=True, jit_compile=False)

    history = split(model, epochs=1)

    for column in ("loss", "penalty", "total_loss", "val_total_loss"):
        np.testing.assert_allclose(history[column], replayed(model_of(), 1)[column], rtol=2e-5, err_msg=column)


def test_model_without_rules_has_a_penalty_of_zero() -> None:
    history = split(compiled(poise.PenalizedOptimizer("sgd", [])))

    assert history["penalty"] == [0.0] * 3
    assert history["total_loss"] == history["loss"]


def test_strength_raised_between_epochs_shows_in_the_next() -> None:
    class Raise(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.strength["head/kernel"] *= 10.0

    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.0), RULES))
    first, second = worth(model) @ [1.0, 1.0], worth(model) @ [1.0, 10.0]

    history = split(model, epochs=2, callbacks=[Raise()])

    np.testing.assert_allclose(history["penalty"], [first, second], rtol=1e-5)


def test_model_without_penalized_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is not compiled with poise\.PenalizedOptimizer"):
        split(compiled("sgd"))


def half_model(initial_scale: float, observe_every: int = 0) -> keras.Model:
    """A model of half-precision layers, its loss scaled by `initial_scale` at first."""
    optimizer = poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, observe_every=observe_every)
    scaled = optimizers.LossScaleOptimizer(optimizer, initial_scale=initial_scale)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return compiled(scaled)
    finally:
        keras.config.set_dtype_policy("float32")


def test_mixed_precision_has_its_figures() -> None:
    expected = replayed(model_of("coupled"))

    history = split(half_model(16.0))

    for column in ("loss", "penalty", "total_loss", "val_total_loss"):
        np.testing.assert_allclose(history[column], expected[column], rtol=1e-2, err_msg=column)


def test_epoch_whose_steps_all_overflowed_shows_the_penalty_of_its_weights() -> None:
    """Loss scaling skips a step with infinite gradients: nothing is recorded, and the weights stay."""
    model = half_model(1e30)
    start = worth(model).sum()

    history = split(model, epochs=1)

    assert history["penalty"][0] == pytest.approx(start, rel=1e-5)


# ---------------------------------------------------------------- seen by others


def test_progress_bar_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    split(model_of(), epochs=1, verbose=2)

    shown = capsys.readouterr().out

    for key in ("loss: ", "penalty: ", "total_loss: ", "val_loss: ", "val_total_loss: "):
        assert f" - {key}" in shown


def test_csv_logger_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"

    history = split(model_of(), per_rule=True, callbacks=[callbacks.CSVLogger(str(file))])

    written = pd.read_csv(file)
    assert set(written.columns) == {"epoch", *history}
    np.testing.assert_allclose(written["val_total_loss"], history["val_total_loss"], rtol=1e-6)
    np.testing.assert_allclose(written["penalty/head/kernel"], history["penalty/head/kernel"], rtol=1e-6)


def test_early_stopping_watches_the_total() -> None:
    """With a rate of zero the prediction loss stands still, and the strength alone moves the total."""

    class Change(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.strength["head/kernel"] = {0: 0.1, 1: 3.0}.get(epoch, 0.0)

    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.0), RULES))
    stop = callbacks.EarlyStopping(monitor="val_total_loss", mode="min", patience=1)

    history = split(model, epochs=20, callbacks=[stop, Change()])

    assert len(history["val_total_loss"]) == 3
    assert stop.best == min(history["val_total_loss"]) == history["val_total_loss"][1]


def test_checkpoint_keeps_the_best_total(tmp_path: Path) -> None:
    file = str(tmp_path / "best.keras")
    keep = callbacks.ModelCheckpoint(file, monitor="val_total_loss", mode="min", save_best_only=True)
    history = split(model_of(), epochs=3, callbacks=[keep])

    best = keras.saving.load_model(file)

    loss = best.evaluate(*table(20, seed=7), verbose=0)
    assert loss + worth(best).sum() == pytest.approx(min(history["val_total_loss"]), rel=1e-5)
    assert isinstance(best.optimizer, poise.PenalizedOptimizer)


def test_plateau_lowers_the_rate_by_the_total() -> None:
    lower = callbacks.ReduceLROnPlateau(monitor="total_loss", mode="min", patience=1, factor=0.5, min_delta=1e3)
    model = model_of()

    split(model, epochs=3, callbacks=[lower])

    assert float(model.optimizer.learning_rate) == pytest.approx(0.05 * 0.25)


@pytest.mark.backends("tensorflow")
def test_tensorboard_gets_them(tmp_path: Path) -> None:
    from tensorflow.core.util import event_pb2
    from tensorflow.data import TFRecordDataset

    split(model_of(), callbacks=[callbacks.TensorBoard(str(tmp_path))])

    events: Any = event_pb2  # its classes are made when it is imported
    tags = set()
    for file in tmp_path.rglob("events*"):
        for record in TFRecordDataset(str(file)):
            event = events.Event.FromString(record.numpy())
            tags |= {value.tag for value in event.summary.value}
    assert {"epoch_loss", "epoch_penalty", "epoch_total_loss"} <= tags


# ---------------------------------------------------------------- ForceHistory


def test_force_history_has_a_row_for_every_variable_and_epoch() -> None:
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, observe_every=1))
    remembered = poise.ForceHistory()
    twin = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, observe_every=1))
    expected = []
    for epoch in range(3):
        twin.optimizer.reset_forces()
        for x, y in batches(1):
            twin.train_on_batch(x, y)
        expected.append(poise.forces(twin).assign(epoch=epoch))

    split(model, callbacks=[remembered])

    assert remembered.table.columns[0] == "epoch"
    expected = pd.concat(expected, ignore_index=True)[remembered.table.columns.tolist()]
    pd.testing.assert_frame_equal(remembered.table, expected, rtol=1e-4)


def test_force_history_leaves_out_epochs_without_a_sample() -> None:
    model = compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, observe_every=6))
    remembered = poise.ForceHistory()
    assert remembered.table.empty

    split(model, epochs=4, callbacks=[remembered])

    assert remembered.table["epoch"].tolist() == [0, 0, 2, 2]


def test_force_history_restarts_with_every_fit() -> None:
    model, remembered = compiled(poise.PenalizedOptimizer("sgd", RULES, observe_every=1)), poise.ForceHistory()

    for _ in range(2):
        split(model, epochs=1, callbacks=[remembered])

    assert remembered.table["epoch"].tolist() == [0, 0]


def test_force_history_needs_something_to_remember() -> None:
    with pytest.raises(
        ValueError,
        match=r"needs an optimizer that records forces. Compile with poise\.PenalizedOptimizer\(\.\.\., observe_every=10\)",
    ):
        split(model_of(), callbacks=[poise.ForceHistory()])
    with pytest.raises(ValueError, match=r"is not compiled with poise\.PenalizedOptimizer"):
        compiled("sgd", net()).fit(*table(8), verbose=0, callbacks=[poise.ForceHistory()])


def test_force_history_under_loss_scaling() -> None:
    model, plain = (
        half_model(16.0, observe_every=1),
        compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, observe_every=1)),
    )
    half, full = poise.ForceHistory(), poise.ForceHistory()

    fitted(model, epochs=1, callbacks=[half])
    fitted(plain, epochs=1, callbacks=[full])

    np.testing.assert_allclose(half.table["prediction"], full.table["prediction"], rtol=1e-2)
    np.testing.assert_allclose(half.table["penalty"], full.table["penalty"], rtol=1e-2)


def test_a_model_that_was_trained_without_it_is_split_from_then_on() -> None:
    """The step that was compiled then records no values."""
    model, twin = (compiled(poise.PenalizedOptimizer("adam", poise.L2(0.1))) for _ in range(2))
    fitted(model, epochs=2)
    fitted(twin, epochs=2, callbacks=[poise.PenaltyLogger()])
    x, y = table(40)

    both = [
        m.fit(x, y, epochs=2, shuffle=False, verbose=0, callbacks=[poise.PenaltyLogger()]).history
        for m in (model, twin)
    ]

    np.testing.assert_allclose(both[0]["penalty"], both[1]["penalty"], rtol=1e-6)
    np.testing.assert_allclose(both[0]["total_loss"], np.add(both[0]["loss"], both[0]["penalty"]), rtol=1e-6)


# ---------------------------------------------------------------- train steps and evaluations of others


def renamed(keep: bool) -> type[keras.Model]:
    """A model whose train_step logs its loss by another name, beside or instead of `loss`."""

    class Renamed(keras.Sequential):
        def train_step(self, *arguments: Any) -> Any:
            out = super().train_step(*arguments)
            logs, *state = out if isinstance(out, tuple) else (out,)
            logs = {**(logs if keep else {}), "error": logs["loss"]}
            return (logs, *state) if state else logs

    return Renamed


@pytest.mark.parametrize("keep", [True, False])
def test_train_step_that_logs_other_keys(keep: bool) -> None:
    expected = replayed(model_of())
    model = renamed(keep)(net().layers, name="net")
    model.build((None, 6))
    model.set_weights(net().get_weights())
    compiled(poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, update="proximal"), model)

    if keep:
        history = split(model)
        np.testing.assert_allclose(history["total_loss"], expected["total_loss"], rtol=2e-5)
    else:
        with pytest.warns(UserWarning, match=r"does not log 'loss' \(it logs 'error'.*cannot log total_loss") as warned:
            history = split(model)
        assert sum("cannot log total_loss" in str(warning.message) for warning in warned) == 1
        assert "total_loss" not in history
    np.testing.assert_allclose(history["penalty"], expected["penalty"], rtol=2e-5)
    np.testing.assert_allclose(history["error"], expected["loss"], rtol=2e-5)
    np.testing.assert_allclose(history["val_total_loss"], expected["val_total_loss"], rtol=2e-5)


class Evaluate(callbacks.Callback):
    """Evaluates on 33 other rows, which resets Keras' count of rows."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.when == "batch" and batch == 0:
            self.model.evaluate(*table(33), verbose=0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.when == "epoch":
            self.model.evaluate(*table(33), verbose=0)


def test_evaluation_by_a_callback_before_it_leaves_the_penalty() -> None:
    model = model_of()
    watch = [Evaluate("epoch"), poise.PenaltyLogger()]

    history = model.fit(*table(40), 16, 2, verbose=0, shuffle=False, callbacks=watch).history

    np.testing.assert_allclose(history["penalty"], replayed(model_of(), 2)["penalty"], rtol=2e-5)


def test_evaluation_in_the_middle_of_an_epoch_weights_the_batches_alike() -> None:
    """Keras' own mean of the loss is then not that of the epoch."""
    expected = []
    twin = model_of()
    for x, y in batches(1):
        expected.append(worth(twin).sum())
        twin.train_on_batch(x, y)

    history = split(model_of(), epochs=1, callbacks=[Evaluate("batch")])

    assert history["penalty"][0] == pytest.approx(np.mean(expected), rel=2e-5)


def test_class_weights_leave_the_weighting_by_rows() -> None:
    x, y = table(40)
    labels, shares = (y > 0).astype("float32"), {0: 1.0, 1: 5.0}
    model, twin, expected = model_of(), model_of(), []
    for i in range(0, 40, 16):
        expected.append(worth(twin).sum())
        twin.train_on_batch(x[i : i + 16], labels[i : i + 16], class_weight=shares)

    watch = [poise.PenaltyLogger()]
    history = model.fit(x, labels, 16, verbose=0, shuffle=False, class_weight=shares, callbacks=watch).history

    assert history["penalty"][0] == pytest.approx(np.average(expected, weights=[16, 16, 8]), rel=2e-5)


def test_callbacks_take_an_optimizer() -> None:
    """One that is not the model's, but steps on its variables, as in a custom train_step."""
    other = poise.PenalizedOptimizer(optimizers.SGD(0.05), RULES, observe_every=1)
    other.build(net().trainable_variables)
    remembered = poise.ForceHistory(optimizer=other)
    watch = [poise.PenaltyLogger(True, optimizer=other), remembered, poise.TargetSparsity("features/kernel", 0.5)]
    watch[-1].optimizer = "sgd"

    with pytest.raises(TypeError, match=r"optimizer must be a poise\.PenalizedOptimizer"):
        compiled("sgd").fit(*table(40), verbose=0, callbacks=watch)
    history = compiled("sgd").fit(*table(40), verbose=0, callbacks=watch[:-1]).history

    assert history["penalty"][0] == pytest.approx(worth(net()).sum(), rel=1e-5)
    assert {f"penalty/{name}" for name in NAMES} < set(history)
    assert remembered.table.empty


# ---------------------------------------------------------------- RestoreZeros


class Raise(callbacks.Callback):
    """Makes every epoch from the fourth on worse, by a stronger penalty."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.strength["kernels"] *= 1.0 if epoch < 3 else 3.0


class Note(callbacks.Callback):
    """The weights and their averages after the last step of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.averages = [], []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        [target] = optimizer.targets
        for kept, variables in ((self.weights, optimizer.variables_of), (self.averages, optimizer.averages_of)):
            kept.append(np.array(ops.convert_to_numpy(variables(target)[0])))


def best_epoch(order: str) -> tuple[np.ndarray, Note, callbacks.EarlyStopping | None]:
    """The kernel after a training with these callbacks (by a letter each), one step per epoch."""
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = (x @ np.array([1, 0.6, 0.3, 0.1, 0, 0, 0, 0])[:, None]).astype("float32")
    dense = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((8,)), dense])
    inner = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    model.compile(poise.PenalizedOptimizer(inner, poise.L1(0.3), "proximal"), loss="mse", jit_compile=False)
    stop = callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    note = Note()
    of = {"K": poise.RestoreZeros(), "E": stop, "S": callbacks.SwapEMAWeights(swap_on_epoch=True)}
    watch = [note, Raise(), *(of[letter] for letter in order)]
    model.fit(x, y, 64, 12, verbose=0, validation_data=(x, y), callbacks=watch)
    return ops.convert_to_numpy(dense.kernel), note, stop if "E" in order else None


@pytest.mark.parametrize("order", ["KE", "EK", "E"])
def test_restored_best_weights_are_those_of_the_best_epoch(order: str) -> None:
    kernel, note, stop = best_epoch(order)

    assert stop is not None
    best = note.weights[stop.best_epoch]
    np.testing.assert_array_equal(kernel, best)
    assert np.count_nonzero(note.weights[-1]) < np.count_nonzero(best) < 8


@pytest.mark.parametrize("order", ["SEK", "KS", "SK", "K"])
def test_averages_get_the_zeros_of_their_epoch(order: str) -> None:
    kernel, note, stop = best_epoch(order)

    epoch = -1 if stop is None else stop.best_epoch
    zeros = note.weights[epoch] == 0
    np.testing.assert_allclose(kernel, np.where(zeros, 0.0, note.averages[epoch]), rtol=1e-6)
    assert np.count_nonzero(note.averages[epoch][zeros]) > 0


def test_weights_of_no_epoch_get_no_zeros() -> None:
    class Ones(callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            self.model.set_weights([np.ones((6, 1)), np.zeros(1)])

    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    inner = optimizers.SGD(0.1, use_ema=True)
    compiled(poise.PenalizedOptimizer(inner, poise.L1(5.0), "proximal"), model)

    with pytest.warns(UserWarning, match="cannot restore zeros: the weights at the end of training"):
        model.fit(*table(40), verbose=0, callbacks=[Ones(), poise.RestoreZeros()])

    np.testing.assert_array_equal(ops.convert_to_numpy(model.layers[0].kernel), np.ones((6, 1)))
