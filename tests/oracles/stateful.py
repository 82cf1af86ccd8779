"""A layer with state in every place where a Keras layer can have some, and random layers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable("stateful_in_tests")
class Stateful(layers.Layer):
    """x · scale + shift + word: a variable that a constant is derived from, an entry of the store, and an asset."""

    def build(self, shape: Any) -> Any:
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", trainable=False)
        self.shift, self.word = np.zeros(shape[-1], "float32"), "0"
        self.derive()

    def derive(self) -> Any:
        self.derived = np.array(ops.convert_to_numpy(self.scale))

    def call(self, x: Any) -> Any:
        scale, shift = (ops.convert_to_tensor(value) for value in (self.derived, self.shift))
        return x * scale + shift + float(self.word)

    def save_own_variables(self, store: Any) -> Any:
        super().save_own_variables(store)
        store["shift"] = self.shift

    def load_own_variables(self, store: Any) -> Any:
        self.scale.assign(store["0"])
        self.shift = np.array(store["shift"])
        self.derive()

    def save_assets(self, folder: Any) -> Any:
        Path(folder, "inside").mkdir()
        Path(folder, "inside", "word.txt").write_text(self.word)

    def load_assets(self, folder: Any) -> Any:
        self.word = Path(folder, "inside", "word.txt").read_text()


def adapted_model(rows: Any, *more: Any) -> Any:
    """An adapted Normalization, the layer above, a dropout that has drawn, and two dense layers."""
    normalization = layers.Normalization()
    normalization.adapt(rows)
    stateful, dropout = Stateful(name="stateful"), layers.Dropout(0.5, seed=7)
    hidden = [layers.Dense(4, "relu"), *more, dropout, layers.Dense(1)]
    model = keras.Sequential([keras.Input(rows.shape[1:]), normalization, stateful, *hidden])
    random, width = np.random.default_rng(1), rows.shape[-1]
    for variable in model.trainable_variables:
        variable.assign(random.uniform(0.3, 1.0, variable.shape))
    stateful.scale.assign(np.linspace(0.5, 2.0, width))
    stateful.derive()
    stateful.shift, stateful.word = np.linspace(-1.0, 1.0, width).astype("float32"), "0.25"
    model(rows[:2], training=True)  # the seed of the dropout moves on
    return model


def rows_of(count: Any = 64, width: Any = 3) -> Any:
    return np.random.default_rng(0).normal(50.0, 10.0, size=(count, width)).astype("float32")


def predicted(model: Any, rows: Any, training: Any = False) -> Any:
    return np.array(ops.convert_to_numpy(model(ops.convert_to_tensor(rows), training=training)))


def assert_same_model(model: Any, other: Any, rows: Any) -> Any:
    """Equal outputs, with dropout off and on, by which the seeds are compared; they move on in both."""
    np.testing.assert_allclose(predicted(other, rows), predicted(model, rows), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predicted(other, rows, True), predicted(model, rows, True), rtol=1e-5, atol=1e-5)
