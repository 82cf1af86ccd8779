"""Batches that pass by: every lane trains on each as it passes."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from oracles.models import assert_same_weights

import poise
from poise.path.data.streams import Stream, split_by_hash

ROWS = 150


def table(rows=ROWS) -> Any:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 5)).astype("float32")
    return x, (np.sin(x[:, :1]) - x[:, 1:2]).astype("float32")


class Batches:
    """A source that can be passed through again and again; counts how often."""

    def __init__(self, rows=ROWS, size=32) -> None:
        self.x, self.y = table(rows)
        self.size = size
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        for first in range(0, len(self.x), self.size):
            yield self.x[first : first + self.size], self.y[first : first + self.size]


class Dataset(keras.utils.PyDataset):
    def __len__(self) -> int:
        return -(-ROWS // 32)

    def __getitem__(self, number) -> Any:
        return [part[32 * number : 32 * number + 32] for part in table()]


def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(6, activation="tanh", name="features"), keras.layers.Dense(1)]
    )


def compiled(optimizer="adam") -> Any:
    model = net()
    model.compile(optimizer, "mse")
    return model


def passed(source, strengths=(0.01, 0.1), rules=None, **arguments) -> Any:
    training = poise.Training(**{"epochs": 4, "settle": 0, **arguments.pop("training", {})})
    rules = poise.L1() if rules is None else rules
    return poise.fit_path(
        compiled(), source, rules=rules, strengths=strengths, cv=3, training=training, progress=False, **arguments
    )


@pytest.fixture(scope="module")
def path() -> Any:
    return passed(Batches())


def test_the_lane_of_all_rows_is_keras_training_on_the_batches(path) -> None:
    for strength in path.strengths:
        model = net()
        model.compile(poise.PenalizedOptimizer("adam", poise.L1(float(strength)), update="proximal"), "mse")
        for _ in range(4):
            for x, y in Batches():
                model.train_on_batch(x, y)
        assert_same_weights(path.weights(strength), model.get_weights())


def test_the_lane_of_a_fold_is_keras_training_on_the_rows_that_it_keeps(path) -> None:
    x, y = table()
    replica = split_by_hash(ROWS, 3, 1)[1]
    model = net()
    model.compile(poise.PenalizedOptimizer("adam", poise.L1(0.1), update="proximal"), "mse")
    for _ in range(4):
        for first in range(0, ROWS, 32):
            rows = replica.train[(replica.train >= first) & (replica.train < first + 32)]
            model.train_on_batch(x[rows], y[rows])

    lanes = path.lanes.table
    [lane] = lanes[(lanes["fold"] == 1) & (lanes["strength"] == 0.1)].to_dict("records")

    loss = model.evaluate(x[replica.train], y[replica.train], verbose=0)
    held = model.evaluate(x[replica.held], y[replica.held], verbose=0)
    assert lane["loss"] == pytest.approx(loss, rel=1e-4)
    assert lane["held_loss"] == pytest.approx(held, rel=1e-4)


def test_a_pydataset_and_a_tf_dataset_are_streams_too(path) -> None:
    import tensorflow as tf

    sources = Dataset(), tf.data.Dataset.from_tensor_slices(table()).batch(32)

    for source in sources:
        np.testing.assert_allclose(passed(source).table["val_loss"], path.table["val_loss"], rtol=1e-6)


def test_settling_and_early_stopping_pass_through_the_batches() -> None:
    path = passed(Batches(), strengths=[0.05], training={"settle": 200, "early_stopping": True, "epochs": 6})

    lanes = path.lanes.table
    assert (lanes["settled"] > 0).all()
    assert lanes["epochs"].between(1, 6).all()
    assert path.table["zeros"].item() > 0


def test_batches_pass_to_another_process(path) -> None:
    result = passed(Batches(), executor="subprocess")

    columns = ["val_loss", "loss", "penalty", "zeros"]
    np.testing.assert_allclose(result.table[columns], path.table[columns], rtol=1e-6)


def test_an_error_in_the_batches_is_raised_whichever_process_asks_for_them() -> None:
    class Failing(Batches):
        def __iter__(self) -> Iterator[Any]:
            for number, batch in enumerate(super().__iter__()):
                if self.passes == 3 and number == 2:
                    raise OSError("the disk is gone")
                yield batch

    for engine in ("auto", "subprocess"):
        with pytest.raises(OSError, match="the disk is gone"):
            passed(Failing(), executor=engine)


@pytest.mark.parametrize(
    ("other", "message"), [(100, "x yields 2 batches, and 3 in the previous pass"), (200, "Batch 3 of x has other")]
)
def test_a_pass_of_another_length_is_refused(other, message) -> None:
    class Changing(Batches):
        def __iter__(self) -> Iterator[Any]:
            self.x, self.y = (part[: ROWS if self.passes < 2 else other] for part in table(200))
            yield from super().__iter__()

    with pytest.raises(ValueError, match=message):
        passed(Changing(size=50))


def test_every_epoch_is_one_pass() -> None:
    source = Batches()

    passed(source, strengths=[0.1], training={"epochs": 5})

    # One to count the rows, a look at the first batch, an epoch each, and one to measure.
    assert source.passes == 1 + 1 + 5 + 1


def test_folds_by_hash_are_disjoint_complete_and_about_equal() -> None:
    replicas = split_by_hash(3000, 5, 2)

    held = np.concatenate([replica.held for replica in replicas[:5]])
    assert sorted(held) == list(range(3000))
    assert all(500 < len(replica.held) < 700 for replica in replicas[:5])
    assert [(replica.fold, replica.seed) for replica in replicas[5:7]] == [(-1, 0), (0, 1)]
    assert all(not set(replica.held) & set(replica.train) for replica in replicas)


def test_the_digest_follows_the_rows() -> None:
    other = Batches()
    other.x[7, 3] += 1.0

    assert Stream(Batches()).digest == Stream(Batches()).digest != Stream(other).digest


def _broken() -> Any:
    source = Batches()
    source.x[40, 2] = np.nan
    return source


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": (batch for batch in Batches())}, TypeError, "can be read only once"),
        ({"source": _broken()}, ValueError, "Batch 1 of x has NaN or infinite values"),
        ({"source": Batches(), "y": table()[1]}, ValueError, "y must be None if x is a stream"),
        ({"source": Batches(rows=2)}, ValueError, "holds out none of the 2 rows"),
    ],
)
def test_what_cannot_pass_is_refused(arguments, error, message) -> None:
    source = arguments.pop("source")

    with pytest.raises(error, match=message):
        passed(source, **arguments)


def test_rows_that_are_shuffled_between_passes_are_refused() -> None:
    class Shuffled(Batches):
        def __iter__(self) -> Iterator[Any]:
            order = np.random.default_rng(self.passes).permutation(ROWS)
            self.x, self.y = self.x[order], self.y[order]
            yield from super().__iter__()

    with pytest.raises(ValueError, match="Batch 0 of x has other rows than in the previous pass"):
        passed(Shuffled())


def test_folds_of_a_stream_are_a_number() -> None:
    with pytest.raises(ValueError, match="cv must be an int >= 2 if x is a stream"):
        poise.fit_path(compiled(), Batches(), rules=poise.L1(), cv=[([0], [1])], progress=False)
