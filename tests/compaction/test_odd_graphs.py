"""Legal uses of Keras that a careless walk through the graph gets wrong."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import poise

from .zeroing import assert_same, constant, randomized, unread

pytestmark = pytest.mark.backends("jax")  # which units go follows from the graph and the zeros, on every backend alike


def masked_mean() -> keras.Model:
    rows, arguments = layers.Input((5, 3)), layers.Input((5,))
    mask = 1.0 + ops.round(layers.Dense(5, activation="sigmoid")(arguments))
    return keras.Model(
        [rows, arguments], layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Dense(4)(rows), mask=mask))
    )


def masked_attention() -> keras.Model:
    rows, arguments = layers.Input((5, 3)), layers.Input((5, 5))
    mask = ops.round(layers.Dense(5, activation="sigmoid")(arguments))
    attended = layers.MultiHeadAttention(2, 3)(rows, rows, attention_mask=mask)
    return keras.Model([rows, arguments], layers.Dense(2)(attended))


def masked_recurrence() -> keras.Model:
    rows, arguments = layers.Input((5, 3)), layers.Input((5,))
    mask = ops.round(layers.Dense(5, activation="sigmoid")(arguments))
    return keras.Model([rows, arguments], layers.Dense(2)(layers.LSTM(4)(rows, mask=mask)))


def sums_of_other_ranks() -> keras.Model:
    rows, vector = layers.Input((5, 3)), layers.Input((3,))
    turned = layers.Permute((2, 1))(layers.Dense(4)(rows))
    return keras.Model([rows, vector], layers.Dense(2)(layers.Add()([turned, layers.Dense(5)(vector)])))


def reshapes_of_two_shapes() -> keras.Model:
    each, other = layers.Input((4, 3)), layers.Input((2, 3))
    shared = layers.Reshape((8,))
    return keras.Model(
        [each, other], layers.Dense(2)(layers.Add()([shared(layers.Dense(2)(each)), shared(layers.Dense(4)(other))]))
    )


def attentions_of_two_forms() -> keras.Model:
    each, other = layers.Input((4, 3)), layers.Input((4, 3))
    shared = layers.MultiHeadAttention(2, 3)
    wide = layers.Dense(3)(other)
    return keras.Model([each, other], layers.Dense(2)(layers.Add()([shared(each, wide), shared(each, wide, each)])))


@pytest.mark.parametrize(
    "make",
    [
        masked_mean,
        masked_attention,
        masked_recurrence,
        sums_of_other_ranks,
        reshapes_of_two_shapes,
        attentions_of_two_forms,
    ],
)
def test_outputs_stay(make) -> None:
    model = randomized(make())
    for layer in model.layers:
        if isinstance(layer, layers.Dense) and layer.units > 2:
            constant(layer, [1])

    assert_same(model, poise.compact(model))


def test_masks_among_the_inputs_are_needed() -> None:
    rows, mask = layers.Input((5, 3)), layers.Input((5,), dtype="bool")
    model = keras.Model([rows, mask], layers.Dense(2)(layers.GlobalAveragePooling1D()(rows, mask=mask)))

    _, needed = poise.compact(randomized(model), drop_inputs=True)

    assert [positions.tolist() for positions in needed] == [[0, 1, 2], [0, 1, 2, 3, 4]]


def test_a_sum_without_the_kernel_is_unchanged() -> None:
    rows = layers.Input((3, 4))
    product = layers.EinsumDense("abc,cd->ad", output_shape=(5,), bias_axes="d")
    model = randomized(keras.Model(rows, layers.Dense(2)(product(layers.Dense(4, name="below")(rows)))))
    constant(model.get_layer("below"), [1])

    assert_same(model, poise.compact(model))


def test_a_nested_model_called_by_names_gets_its_own_inputs() -> None:
    each, other = layers.Input((2,), name="z"), layers.Input((3,), name="a")
    inside = keras.Model([each, other], layers.Add()([layers.Dense(4)(each), layers.Dense(4)(other)]))
    rows = layers.Input((3,))
    below, beside = layers.Dense(2, name="below"), layers.Dense(3, name="beside")
    model = randomized(keras.Model(rows, layers.Dense(2)(inside({"z": below(rows), "a": beside(rows)}))))
    constant(below, [1])
    constant(beside, [1])

    smaller = poise.compact(model)

    assert smaller.get_layer("below").units == 1
    assert smaller.get_layer("beside").units == 2
    assert_same(model, smaller)


class Doubling(keras.Model):
    """A model with a graph, and a call that is more than that."""

    def __init__(self, name="doubling") -> None:
        rows = layers.Input((3,))
        super().__init__(rows, layers.Dense(3)(rows), name=name)

    def call(self, inputs, training=None, mask=None) -> Any:
        return 2.0 * super().call(inputs)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config) -> Any:
        return cls(**config)


def test_a_model_with_a_custom_call_is_not_a_graph() -> None:
    with pytest.raises(TypeError, match="custom call method"):
        poise.compact(Doubling())


def test_inside_another_it_is_a_wall() -> None:
    rows = layers.Input((3,))
    model = randomized(keras.Model(rows, layers.Dense(2)(Doubling()(layers.Dense(3, name="below")(rows)))))
    constant(model.get_layer("below"), [1])

    smaller = poise.compact(model)

    assert smaller.get_layer("below").units == 3
    assert_same(model, smaller)


def doubled(x) -> Any:
    return 2.0 * x


class Squares(keras.regularizers.Regularizer):
    """Nobody has told Keras about it."""

    def __call__(self, w) -> Any:
        return ops.sum(ops.square(w))

    def get_config(self) -> dict[str, Any]:
        return {}


def test_functions_and_objects_that_keras_does_not_know_come_along() -> None:
    rows = layers.Input((3,))
    hidden = layers.Dense(4, activation=doubled, kernel_regularizer=Squares(), name="hidden")(rows)
    model = randomized(keras.Model(rows, layers.Dense(2, name="head")(layers.Dense(4, name="next")(hidden))))
    unread(model.get_layer("head"), [1])

    smaller = poise.compact(model)

    assert smaller.get_layer("next").units == 3
    assert smaller.get_layer("hidden").kernel_regularizer is model.get_layer("hidden").kernel_regularizer
    assert_same(model, smaller)


class Unknown(layers.Layer):
    """It cannot be made from a configuration."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def call(self, inputs) -> Any:
        return self.function(inputs)


def test_a_layer_that_cannot_be_rebuilt_is_named() -> None:
    rows = layers.Input((3,))

    with pytest.raises(TypeError, match="Unknown.*get_config"):
        poise.compact(keras.Model(rows, layers.Dense(2)(Unknown(ops.square)(rows))))


def test_an_activation_with_weights_is_refused() -> None:
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=layers.PReLU()), layers.Dense(2)])
    model(np.zeros((1, 3), "float32"))

    with pytest.raises(ValueError, match="a separate layer after this one"):
        poise.compact(model)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_mask_for_a_model_inside_is_refused() -> None:
    inner = layers.Input((5, 3))
    inside = keras.Model(inner, layers.GlobalAveragePooling1D()(inner))
    rows, mask = layers.Input((5, 3)), layers.Input((5,), dtype="bool")

    with pytest.raises(ValueError, match="called with a mask"):
        poise.compact(keras.Model([rows, mask], layers.Dense(2)(inside(rows, mask=mask))))


def test_optional_inputs_stay_optional() -> None:
    rows = keras.Input((3,), optional=True)

    assert poise.compact(keras.Model(rows, layers.Dense(2)(rows))).inputs[0]._keras_history.operation.optional


@pytest.mark.backends("tensorflow", "torch")  # Keras' IntegerLookup has 64 bits, and warns on JAX
def test_a_vocabulary_comes_along() -> None:
    lookup = layers.IntegerLookup(vocabulary=[3, 5, 7])
    model = keras.Sequential([layers.Input((2,), dtype="int64"), lookup, layers.Embedding(5, 4), layers.Dense(2)])
    rows = np.array([[3, 7], [5, 9]])

    smaller = poise.compact(randomized(model))

    np.testing.assert_allclose(smaller.predict(rows, verbose=0), model.predict(rows, verbose=0), rtol=1e-5)


def test_what_one_call_of_a_shared_layer_reads_is_alive() -> None:
    rows, other = layers.Input((3,)), layers.Input((3,))
    shared, first, second = layers.Dense(3, name="shared"), layers.Dense(2), layers.Dense(2)
    model = randomized(keras.Model([rows, other], [first(shared(rows)), second(shared(other))]))
    unread(first, [1])

    reported: Any = poise.dead_units(model).set_index("layer").loc["shared"]

    assert reported["dead"] == 0
    assert reported["why"] == ""
