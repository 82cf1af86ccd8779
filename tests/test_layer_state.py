"""Copies of models have all of their state: on every backend their outputs are those of Keras' own save and load."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from oracles.stateful import adapted_model, assert_same_model, predicted, rows_of

from poise.layer_state import State, copy_state, state_of


def called(layer, rows) -> Any:
    return np.array(keras.ops.convert_to_numpy(layer(rows)))


def cloned(model) -> keras.Model:
    clone = keras.models.clone_model(model)
    copy_state(model, clone)
    return clone


def test_a_copy_computes_what_the_model_and_what_a_saved_and_loaded_one_compute(tmp_path) -> None:
    rows = rows_of()
    model = adapted_model(rows)
    model.save(tmp_path / "model.keras")

    copy = cloned(model)

    np.testing.assert_allclose(
        predicted(copy, rows), predicted(keras.models.load_model(tmp_path / "model.keras"), rows), rtol=1e-6, atol=1e-6
    )
    assert_same_model(model, copy, rows)


def test_statistics_that_were_set_and_are_not_used_yet_are_not_used_by_the_copy_either() -> None:
    rows = rows_of()
    model = adapted_model(rows)
    model.set_weights([0.5 + weight for weight in model.get_weights()])

    copy = cloned(model)

    for mine, theirs in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(called(copy.layers[0], rows), called(model.layers[0], rows), rtol=1e-6)


def test_a_copy_shares_nothing_with_the_model() -> None:
    rows = rows_of()
    model = adapted_model(rows)
    copy = cloned(model)
    before = predicted(model, rows)

    copy.compile("sgd", loss="mse")
    copy.fit(rows, rows[:, :1], epochs=1, verbose=0)

    np.testing.assert_array_equal(predicted(model, rows), before)


def test_the_state_goes_through_json_and_arrays() -> None:
    rows, arrays = rows_of(), []
    model = adapted_model(rows)

    def keep(array) -> Any:
        arrays.append(array)
        return len(arrays) - 1

    text = json.dumps(state_of(model).to_record(keep))
    copy = keras.models.clone_model(model)
    State.from_record(json.loads(text), arrays.__getitem__).load_into(copy)

    assert_same_model(model, copy, rows)


LOOKUPS = {
    "tf-idf of texts": lambda: layers.TextVectorization(max_tokens=8, output_mode="tf_idf"),
    "texts as numbers": lambda: layers.TextVectorization(output_sequence_length=3),
    "tf-idf of words": lambda: layers.StringLookup(output_mode="tf_idf"),
    "words, multi-hot": lambda: layers.StringLookup(output_mode="multi_hot"),
}


@pytest.mark.parametrize("kind", LOOKUPS)
@pytest.mark.backends("tensorflow")
def test_vocabularies_are_copied(kind) -> None:
    import tensorflow as tf

    layer = LOOKUPS[kind]()
    layer.adapt([["the cat sat"], ["a dog ran fast"], ["cat and dog"], ["cat"]])
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, layer(inputs))
    clone = keras.Model(inputs, type(layer).from_config(layer.get_config())(inputs))

    copy_state(model, clone)

    words = tf.constant([["cat"], ["a dog ran fast"], ["dog and cat"], ["bird"]])
    np.testing.assert_array_equal(clone(words), model(words))


@pytest.mark.backends("tensorflow")
def test_whole_numbers_and_bins_are_copied() -> None:
    numbers, rows = np.array([[3], [7], [7], [12], [3], [7]]), np.random.default_rng(0).normal(size=(90, 1))
    lookup, bins = layers.IntegerLookup(output_mode="tf_idf"), layers.Discretization(num_bins=4, output_mode="one_hot")
    lookup.adapt(numbers)
    bins.adapt(rows)
    for layer, values in ((lookup, numbers), (bins, rows)):
        inputs = keras.Input((1,), dtype="int64" if layer is lookup else "float32")
        model = keras.Model(inputs, layer(inputs))
        copy = keras.Model(inputs, type(layer).from_config(layer.get_config())(inputs))
        copy_state(model, copy)
        np.testing.assert_array_equal(copy(values), model(values))


def test_a_model_of_another_structure_is_refused() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="two")], name="net")
    other = keras.Sequential([keras.Input((3,)), layers.Dense(4)], name="other")
    with pytest.raises(ValueError, match=r"The state of 'other' cannot be restored.*\(3, 2\).*\(3, 4\)"):
        copy_state(model, other)


def test_files_stay_inside_their_folder() -> None:
    rows = rows_of()
    model = adapted_model(rows)
    state = state_of(model)
    (stateful,) = (each for each in state.layers if each.kind == "Stateful")
    stateful.assets["../elsewhere"] = b"1"
    with pytest.raises(ValueError, match="has a file '../elsewhere' outside of its folder"):
        state.load_into(model)
