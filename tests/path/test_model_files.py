"""A saved model loads as Keras loads it, unless it is larger than its file; random weights are not drawn."""

import io
import json
import zipfile
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from poise.path.model_files import load_model


def _archive(file, compression: Any = zipfile.ZIP_DEFLATED, **members) -> Any:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return file


@pytest.fixture
def model() -> keras.Model:
    dense = [keras.layers.Dense(4, "relu", name="first"), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((3,)), *dense])


def _changed(file, change) -> Any:
    """The file of a model with another configuration."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"]["layers"])
    return _archive(file, zipfile.ZIP_STORED, **{**members, "config.json": json.dumps(config)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_a_model_loads_as_keras_loads_it(name, model, tmp_path) -> None:
    model.save(tmp_path / name)
    x = np.ones((2, 3), "float32")

    loaded = load_model(tmp_path / name)

    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert keras.layers.Layer.add_weight.__qualname__ == "Layer.add_weight"


@keras.saving.register_keras_serializable("poise tests")
class Projection(keras.layers.Layer):
    """Multiplies by a random matrix that it does not save."""

    def build(self, input_shape: Any) -> None:
        self.matrix = self.add_weight(shape=(3, 2), initializer=keras.initializers.RandomNormal(seed=5))

    def call(self, x: Any) -> Any:
        return x @ self.matrix

    def save_own_variables(self, store: Any) -> None:
        pass

    def load_own_variables(self, store: Any) -> None:
        pass


def test_no_random_weights_are_drawn(model, tmp_path, monkeypatch) -> None:
    model.save(tmp_path / "a.keras")

    def draw(*_: Any, **__: Any) -> Any:
        raise AssertionError("a weight was drawn")

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", draw)
    loaded = load_model(tmp_path / "a.keras")

    for expected, weight in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_a_random_weight_that_is_not_in_the_file_is_drawn(tmp_path) -> None:
    model = keras.Sequential([keras.Input((3,)), Projection(), keras.layers.Dense(2)])
    model.save(tmp_path / "a.keras")

    loaded = load_model(tmp_path / "a.keras")

    for expected, weight in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision_load(dtype, tmp_path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=dtype)])
    model.save(tmp_path / "a.keras")

    loaded = load_model(tmp_path / "a.keras")

    assert [weight.dtype for weight in loaded.weights] == [dtype] * 2
    np.testing.assert_array_equal(np.asarray(loaded.get_weights()[0]), np.asarray(model.get_weights()[0]))


def test_layers_that_are_larger_than_the_file_are_refused_before_they_are_built(model, tmp_path) -> None:
    model.save(tmp_path / "a.keras")
    _changed(tmp_path / "a.keras", lambda layers: layers[1]["config"].update(units=10**9))

    with pytest.raises(
        ValueError, match=r"^its layers need at least 3,000,000,000 weights, but the file holds only \d"
    ):
        load_model(tmp_path / "a.keras")


@pytest.mark.filterwarnings("ignore")
def test_layers_of_the_old_format_too(model, tmp_path) -> None:
    model.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        config = json.loads(str(file.attrs["model_config"]))
        config["config"]["layers"][1]["config"]["units"] = 10**9
        file.attrs["model_config"] = json.dumps(config)

    with pytest.raises(ValueError, match=r"^its layers need at least 3,000,000,000 weights"):
        load_model(tmp_path / "a.h5")


def test_weights_that_declare_more_than_they_hold_are_refused(model, tmp_path) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        shape = {"shape": (30000, 30000), "chunks": (1000, 1000), "compression": "gzip", "dtype": "float32"}
        file.create_dataset("layers/dense/vars/0", **shape)
    model.save(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = archive.read("config.json")
    _archive(tmp_path / "a.keras", config__json=config, **{"model.weights.h5": content.getvalue()})

    with pytest.raises(ValueError, match=r"^it holds .* kB and unpacks to 3\.6 GB, which is not safe to read$"):
        load_model(tmp_path / "a.keras")


def test_a_layer_whose_output_fits_no_memory_is_refused(tmp_path) -> None:
    tall = [keras.layers.RepeatVector(10**12), keras.layers.GlobalAveragePooling1D()]
    keras.Sequential([keras.Input((3,)), *tall]).save(tmp_path / "a.keras")

    with pytest.raises(
        ValueError, match=r"^its layer 'repeat_vector\w*' returns 3,000,000,000,000 numbers per row, too many for "
    ):
        load_model(tmp_path / "a.keras")
