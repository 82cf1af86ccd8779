"""Features of the input stay, unless they are to be dropped: then the positions that are still read come along."""

import keras
import numpy as np
import pytest
from keras import layers

import poise
from poise.compaction.inputs import input_kernels, read_inputs

from .networks import UNITS, dense_net
from .zeroing import assert_same, cut, inputs_of, outputs, randomized, unread

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike


def test_input_features_stay_unless_asked() -> None:
    model = dense_net("first")
    unread(model.get_layer("first"), (0, 3))

    smaller = poise.compact(model)

    assert smaller.input_shape == (None, 5)
    assert_same(model, smaller)


def test_features_that_nobody_reads_are_dropped_when_asked() -> None:
    model = dense_net("first")
    unread(model.get_layer("first"), (0, 3))

    smaller, needed = poise.compact(model, drop_inputs=True)

    (x,) = inputs_of(model)
    assert needed.tolist() == [1, 2, 4]
    np.testing.assert_allclose(outputs(smaller, [x[:, needed]])[0], outputs(model, [x])[0], rtol=1e-5, atol=1e-6)


def test_features_that_only_dead_units_read_are_dropped() -> None:
    model = dense_net("first")
    cut(model.get_layer("first").kernel, [2], [0, 1, 2, 3])
    unread(model.get_layer("last"), (4, 5))

    smaller, needed = poise.compact(model, drop_inputs=True)

    (x,) = inputs_of(model)
    assert needed.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(outputs(smaller, [x[:, needed]])[0], outputs(model, [x])[0], rtol=1e-5, atol=1e-6)


def test_all_features_are_needed_where_all_are_read() -> None:
    smaller, needed = poise.compact(dense_net("first"), drop_inputs=True)

    assert needed.tolist() == [0, 1, 2, 3, 4]
    assert smaller.input_shape == (None, 5)


def test_several_inputs_lose_their_features_apart() -> None:
    image, table = keras.Input((4, 4, 3)), keras.Input((5,))
    x = layers.Flatten()(layers.Conv2D(UNITS, 3, name="conv")(image))
    y = layers.BatchNormalization()(table)
    joined = layers.Concatenate()([x, layers.Dense(UNITS, name="table")(y)])
    model = randomized(keras.Model([image, table], layers.Dense(3)(joined)))
    unread(model.get_layer("conv"), (1,))
    unread(model.get_layer("table"), (0, 4))

    smaller, needed = poise.compact(model, drop_inputs=True)

    arguments = inputs_of(model)
    assert [positions.tolist() for positions in needed] == [[0, 2], [1, 2, 3]]
    chosen = [x[..., positions] for x, positions in zip(arguments, needed, strict=True)]
    np.testing.assert_allclose(outputs(smaller, chosen)[0], outputs(model, arguments)[0], rtol=1e-5, atol=1e-6)


def flat_sequence() -> keras.Model:
    inputs = keras.Input((2, 6))
    return keras.Model(inputs, layers.Dense(2, name="first")(layers.Flatten()(inputs)))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(3)], name="inner")
    return keras.Sequential([keras.Input((6,)), layers.Rescaling(0.5), layers.Dense(6, name="first"), inner])


def image() -> keras.Model:
    inputs = keras.Input((5, 5, 6))
    return keras.Model(inputs, layers.Conv2D(2, 3, name="first")(layers.Permute((2, 1, 3))(inputs)))


@pytest.mark.parametrize(
    ("make", "zeros", "expected"),
    [(flat_sequence, (1, 3, 9), [0, 1, 2, 4, 5]), (nested, (1, 5), [0, 2, 3, 4]), (image, (0,), [1, 2, 3, 4, 5])],
)
def test_features_are_followed_from_the_input_to_who_reads_them(make, zeros, expected) -> None:
    """A feature of a sequence is read by somebody if it is read at one of the steps."""
    model = randomized(make())
    unread(model.get_layer("first"), zeros)

    smaller, needed = poise.compact(model, drop_inputs=True)

    (x,) = inputs_of(model)
    assert needed.tolist() == expected
    expected = outputs(model, [x])[0]
    np.testing.assert_allclose(outputs(smaller, [x[..., needed]])[0], expected, rtol=1e-5, atol=1e-6)


def test_tokens_are_not_features() -> None:
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Flatten()(layers.Embedding(9, 3)(inputs))))
    randomized(model)
    unread(model.get_layer("last"), range(3))

    smaller, needed = poise.compact(model, drop_inputs=True)

    assert needed.tolist() == [0, 1, 2, 3]
    assert_same(model, smaller)


def test_one_feature_stays_where_none_is_read() -> None:
    model = dense_net("first")
    unread(model.get_layer("first"), range(5))

    smaller, needed = poise.compact(model, drop_inputs=True)

    (x,) = inputs_of(model)
    assert len(needed) == 1
    np.testing.assert_allclose(outputs(smaller, [x[:, needed]])[0], outputs(model, [x])[0], rtol=1e-5, atol=1e-6)


class TestTake:
    """Inputs at constant positions, by keras.ops.take."""

    @staticmethod
    def model(positions: list[int], size: int = 6) -> keras.Model:
        inputs = keras.Input((size,))
        hidden = keras.layers.Dense(4, activation="relu", name="hidden")(keras.ops.take(inputs, positions, axis=-1))
        skip = keras.layers.Dense(1, use_bias=False, name="skip")(inputs)
        return keras.Model(inputs, keras.layers.Add()([keras.layers.Dense(1, name="top")(hidden), skip]))

    def test_the_kernels_read_these_inputs(self) -> None:
        kernels = input_kernels(self.model([4, 0, -1]))
        assert kernels is not None
        assert [kernel.inputs.tolist() for kernel in kernels] == [[4, 0, 5], [0, 1, 2, 3, 4, 5]]

    @pytest.mark.parametrize(("hidden", "skip"), [([0, 1, 2], [3]), ([1], [1, 2]), ([], [0, 5]), ([2], []), ([], [])])
    def test_a_smaller_model_has_the_same_outputs(self, hidden, skip, tmp_path) -> None:
        random = np.random.default_rng(0)
        model = randomized(self.model([4, 0, 2]))
        rows, column = np.zeros((3, 4), "float32"), np.zeros((6, 1), "float32")
        rows[hidden], column[skip] = random.normal(size=(len(hidden), 4)), 1.0
        model.get_layer("hidden").kernel.assign(rows)
        model.get_layer("hidden").bias.assign(random.normal(size=4))
        model.get_layer("skip").kernel.assign(column)
        x = random.normal(size=(9, 6)).astype("float32")
        expected = {[4, 0, 2][place] for place in hidden} | {*skip}

        smaller, features = poise.compact(model, drop_inputs=True)
        smaller.save(tmp_path / "smaller.keras")
        again = keras.models.load_model(tmp_path / "smaller.keras")

        is_read = read_inputs(model, model.get_weights())
        assert is_read is not None
        assert is_read.nonzero()[0].tolist() == sorted(expected)
        assert expected <= {*features.tolist()}
        assert len(features) == max(len(expected), 1)
        for other in (smaller, again):
            outputs = keras.ops.convert_to_numpy(other(x[:, features]))
            np.testing.assert_allclose(outputs, keras.ops.convert_to_numpy(model(x)), atol=1e-6)

    @pytest.mark.parametrize("positions", [[0, 0], [6], [-7]])
    def test_positions_that_repeat_or_are_outside_are_not_followed(self, positions) -> None:
        inputs = keras.Input((6,))
        taken = keras.ops.take(inputs, positions, axis=1)
        assert input_kernels(keras.Model(inputs, keras.layers.Dense(1)(taken))) is None

    def test_positions_that_are_data_are_not_followed(self) -> None:
        table = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
        for axis in (0, 1):
            inputs = keras.Input((4,), dtype="int32")
            taken = keras.ops.take(table, inputs, axis=axis)
            model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(taken[0] if axis else taken)))
            assert [w.shape for w in poise.compact(model).get_weights()] == [w.shape for w in model.get_weights()]

    def test_calls_of_a_nested_model_agree(self) -> None:
        entry = keras.Input((6,))
        inner = keras.Model(entry, keras.ops.take(entry, [0, 2, 4], axis=1))
        inputs = keras.Input((3,))
        outputs = []
        for name in "ab":
            hidden = inner(keras.layers.Dense(6, name=f"hidden_{name}")(inputs))
            outputs.append(keras.layers.Dense(2, name=f"head_{name}")(hidden))
        model = randomized(keras.Model(inputs, outputs))
        for name, dead in (("a", 1), ("b", 0)):
            kernel = np.array(model.get_layer(f"head_{name}").kernel)
            kernel[dead] = 0.0
            model.get_layer(f"head_{name}").kernel.assign(kernel)

        smaller = poise.compact(model)

        assert_same(model, smaller)
        assert smaller.count_params() < model.count_params()
