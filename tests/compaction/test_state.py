"""What layers keep beside their weights stays in a compacted model, on every backend."""

import keras
import numpy as np
import pytest
from keras import layers
from oracles.stateful import adapted_model, assert_same_model, predicted, rows_of

import poise

from .zeroing import randomized, silent, widths


@pytest.mark.parametrize("is_dead", [False, True])
def test_adapted_statistics_state_and_seeds_stay(is_dead, tmp_path) -> None:
    rows = rows_of()
    model = adapted_model(rows, layers.Dense(4, "relu", name="hidden"), layers.Dense(4, name="wide"))
    if is_dead:
        silent(model.get_layer("hidden"), [1, 3])

    smaller = poise.compact(model)

    assert widths(smaller, ["hidden"]) == [2 if is_dead else 4]
    assert_same_model(model, smaller, rows)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_allclose(predicted(loaded, rows), predicted(model, rows), rtol=1e-5, atol=1e-5)


def test_the_seeds_of_layers_whose_weights_are_cut_stay() -> None:
    inputs = keras.Input((5, 3))
    x = layers.MultiHeadAttention(2, 2, dropout=0.5, seed=1, name="attention")(inputs, inputs)
    x = layers.GRU(4, dropout=0.5, recurrent_dropout=0.5, seed=2, name="gru")(layers.GaussianNoise(0.5, seed=3)(x))
    model = randomized(keras.Model(inputs, layers.Dense(1)(x)))
    rows = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    model(rows, training=True)

    assert_same_model(model, poise.compact(model), rows)


@pytest.mark.parametrize("mode", ["tf_idf", "int"])
@pytest.mark.backends("tensorflow")
def test_an_adapted_text_vectorization_stays(mode) -> None:
    import tensorflow as tf

    texts = layers.TextVectorization(
        max_tokens=20, output_mode=mode, output_sequence_length=4 if mode == "int" else None
    )
    texts.adapt(["the cat sat", "a dog ran fast", "cat and dog"])
    inputs = keras.Input((1,), dtype="string")
    read = layers.Flatten()(layers.Embedding(20, 4)(texts(inputs))) if mode == "int" else texts(inputs)
    hidden = layers.Dense(8, "relu", name="hidden")
    model = randomized(keras.Model(inputs, layers.Dense(2)(hidden(read))))
    silent(hidden, [2, 3])

    smaller = poise.compact(model)

    x = tf.constant([["the cat"], ["a dog ran"], ["a bird"]])
    np.testing.assert_allclose(smaller(x), model(x), rtol=1e-6, atol=1e-6)
    assert widths(smaller, ["hidden"]) == [6]
