"""What `poise.compact` and `poise.shrink` return is a plain Keras model: it exports, loads and quantizes like any other."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

import poise

from .zeroing import Array, assert_same, inputs_of, outputs, randomized, silent, unread, width, zero_slice

UNITS = 6
BACKEND = keras.backend.backend()
# The exporters warn about their own code: options and functions that JAX, NumPy and PyTorch will remove.
of_the_exporters = pytest.mark.filterwarnings("ignore")
# Keras lists the layers that have no int8 version, such as Input and Add.
of_layers_that_stay_float = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")


def _mlp() -> keras.Model:
    hidden = [layers.Dense(UNITS, activation=name, name=name) for name in ("relu", "tanh")]
    model = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(3, activation="softmax", name="last")])
    silent(randomized(model).get_layer("relu"), (1, 4))
    unread(model.get_layer("last"), (0, 2))
    return model


def _residual_cnn() -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(UNITS, 3, padding="same", name="first")(inputs)
    y = layers.Conv2D(UNITS, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    y = layers.Conv2D(UNITS, 3, padding="same", name="second")(y)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    silent(model.get_layer("norm"), (1, 4))
    for name in ("first", "second"):  # the two ends of the skip connection lose the same filters
        silent(model.get_layer(name), (0, 2))
    return model


def _transformer() -> keras.Model:
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, UNITS)(tokens)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(4, 3, name="attention")(x, x)]))
    y = layers.Dense(UNITS)(layers.Dense(8, activation="relu", name="hidden")(x))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(layers.Add()([x, y])))
    model = randomized(keras.Model(tokens, layers.Dense(3)(x)))
    zero_slice(model.get_layer("attention").output_dense.kernel, 0, (0, 2))
    silent(model.get_layer("hidden"), (1,))
    return model


def _gru() -> keras.Model:
    recurrent = [layers.GRU(UNITS, return_sequences=True, name="first"), layers.GRU(UNITS, name="second")]
    model = randomized(keras.Sequential([keras.Input((5, 3)), *recurrent, layers.Dense(3, name="last")]))
    for layer in recurrent:
        silent(layer, (0, 2))
    return model


MODELS = {"MLP": _mlp, "residual CNN": _residual_cnn, "transformer": _transformer, "GRU": _gru}
FORMATS = {"jax": ["tf_saved_model"], "tensorflow": ["tf_saved_model", "onnx", "litert"], "torch": ["onnx"]}
INT8_LAYERS = {"MLP": 3, "residual CNN": 1, "transformer": 8, "GRU": 1}
"""Keras quantizes Dense, EinsumDense and Embedding layers; an attention has four EinsumDense layers."""
FIXED_SHAPES = [("tensorflow", "litert", "GRU"), ("torch", "onnx", "transformer")]
"""Keras 3.15 exports these only for inputs of a fixed shape: a loop of LiteRT, a LayerNormalization of PyTorch."""


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.backends("jax")
def test_the_models_of_this_file_become_smaller() -> None:
    smaller = {name: poise.compact(make()) for name, make in MODELS.items()}

    assert [width(smaller["MLP"].get_layer(name)) for name in ("relu", "tanh")] == [4, 4]
    assert [width(smaller["residual CNN"].get_layer(name)) for name in ("first", "norm", "second")] == [4, 4, 4]
    assert smaller["transformer"].get_layer("attention").num_heads == 2
    assert width(smaller["transformer"].get_layer("hidden")) == 7
    assert [width(smaller["GRU"].get_layer(name)) for name in ("first", "second")] == [4, 4]


# ---------------------------------------------------------------- exports


@of_the_exporters
@pytest.mark.parametrize("format", FORMATS[BACKEND])
def test_an_export_predicts_like_both_models(format: str, name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    smaller = poise.compact(model)
    inputs = _typed_inputs(model)
    is_fixed = (BACKEND, format, name) in FIXED_SHAPES

    exported = _export(smaller, format, tmp_path, inputs if is_fixed else None)

    _assert_close(exported(inputs), outputs(smaller, inputs))
    _assert_close(exported(inputs), outputs(model, inputs))


@pytest.mark.backends("jax")
def test_smaller_models_load_where_poise_is_not_installed(tmp_path: Path) -> None:
    models = {name: make() for name, make in MODELS.items()}
    for name, model in models.items():
        poise.compact(model).save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", _typed_inputs(model)[0])
    program = """
import sys
sys.modules["poise"] = None
import pathlib
import keras
import numpy as np
for path in pathlib.Path().glob("*.keras"):
    model = keras.saving.load_model(path)
    np.save(f"{path.stem} outputs.npy", keras.ops.convert_to_numpy(model(np.load(f"{path.stem}.npy"))))
"""

    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, cwd=tmp_path, env=os.environ)

    for name, model in models.items():
        _assert_close([np.load(tmp_path / f"{name} outputs.npy")], outputs(model, _typed_inputs(model)))


# ---------------------------------------------------------------- int8


@of_layers_that_stay_float
def test_int8_after_compact_predicts_about_the_same(name: str) -> None:
    model = MODELS[name]()
    smaller = poise.compact(model)

    smaller.quantize("int8")

    inputs = _typed_inputs(model)
    assert _int8_layers(smaller) == INT8_LAYERS[name]
    assert_same(model, smaller, inputs, relative=0.02)
    assert (outputs(model, inputs)[0] != outputs(smaller, inputs)[0]).any()


@pytest.mark.backends("jax")
@of_layers_that_stay_float
def test_int8_keeps_the_accuracy_of_a_shrunk_classifier() -> None:
    digits: Any = load_digits()
    x, y = digits.data / 16, digits.target
    random_start = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.15)}
    hidden = [layers.Dense(32, activation="relu", **random_start) for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, activation="softmax", **random_start)])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:1200], y[:1200], batch_size=100, epochs=10, verbose=0)
    settings = {"parameters": 0.65, "batch_size": 100, "epochs_per_stage": 4, "fine_tuning_epochs": 6}
    shrunk = poise.shrink(model, x[:1200], y[:1200], **settings).model
    assert shrunk.count_params() <= 0.65 * model.count_params()
    before = _accuracy(shrunk, x[1200:], y[1200:])

    shrunk.quantize("int8")

    assert _int8_layers(shrunk) == 3
    assert before > 0.9
    assert _accuracy(shrunk, x[1200:], y[1200:]) == pytest.approx(before, abs=0.01)


@pytest.mark.backends("tensorflow")
@of_the_exporters
def test_an_int8_model_exports_to_onnx(tmp_path: Path) -> None:
    smaller = poise.compact(_mlp())
    smaller.quantize("int8")
    inputs = _typed_inputs(smaller)

    exported = _export(smaller, "onnx", tmp_path)

    _assert_close(exported(inputs), outputs(smaller, inputs))


@pytest.mark.backends("tensorflow")
@of_the_exporters
def test_litert_quantizes_a_smaller_model(tmp_path: Path) -> None:
    import tensorflow as tf

    hidden = layers.Dense(40, activation="relu", name="hidden")
    model = randomized(keras.Sequential([keras.Input((64,)), hidden, layers.Dense(3, name="last")]))
    unread(model.get_layer("last"), range(8))
    smaller = poise.compact(model)
    inputs = _typed_inputs(model)
    sizes = {}
    for name, options in {"float": {}, "int8": {"optimizations": [tf.lite.Optimize.DEFAULT]}}.items():
        (tmp_path / name).mkdir()

        exported = _export(smaller, "litert", tmp_path / name, **options)

        sizes[name] = (tmp_path / name / "model.tflite").stat().st_size
        _assert_close(exported(inputs), outputs(model, inputs), relative=1e-5 if name == "float" else 0.02)
    assert width(smaller.get_layer("hidden")) == 32
    assert sizes["float"] - sizes["int8"] > 0.9 * 3 * 64 * 32  # three of the four bytes of every weight


def _int8_layers(model: keras.Model) -> int:
    return sum(getattr(layer, "quantization_mode", None) == "int8" for layer in model._flatten_layers())


def _accuracy(model: keras.Model, x: Array, y: Array) -> float:
    return float(np.mean(model.predict(x, verbose=0).argmax(axis=-1) == y))


# ---------------------------------------------------------------- export and run


def _typed_inputs(model: keras.Model) -> list[Array]:
    """Random rows in the data type that an exported model takes."""
    return [
        values.astype(keras.backend.standardize_dtype(tensor.dtype))
        for values, tensor in zip(inputs_of(model), model.inputs, strict=True)
    ]


def _assert_close(actual: list[Array], expected: list[Array], relative: float = 1e-5) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=relative * float(np.abs(theirs).max()))


def _export(
    model: keras.Model, format: str, folder: Path, fixed: list[Array] | None = None, **options: Any
) -> Callable[[list[Array]], list[Array]]:
    """Export the model, for inputs of the shapes of `fixed` if given, and return a function that runs the export."""
    path = str(folder / {"onnx": "model.onnx", "litert": "model.tflite"}.get(format, "model"))
    if fixed:
        options["input_signature"] = [keras.InputSpec(shape=x.shape, dtype=x.dtype.name) for x in fixed]
    outputs(model, _typed_inputs(model))  # Keras exports to ONNX only a model that was called
    model.export(path, format=format, verbose=False, **options)
    return RUNTIMES[format](path)


def _open_saved_model(path: str) -> Callable[[list[Array]], list[Array]]:
    import tensorflow as tf

    model: Any = tf.saved_model.load(path)
    return lambda inputs: [np.array(y) for y in keras.tree.flatten(model.serve(*map(tf.constant, inputs)))]


def _open_onnx(path: str) -> Callable[[list[Array]], list[Array]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [symbol.name for symbol in session.get_inputs()]
    return lambda inputs: [np.array(y) for y in session.run(None, dict(zip(names, inputs, strict=True)))]


def _open_litert(path: str) -> Callable[[list[Array]], list[Array]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)

    def run(inputs: list[Array]) -> list[Array]:
        details = interpreter.get_input_details()
        for detail, values in zip(details, inputs, strict=True):
            interpreter.resize_tensor_input(detail["index"], values.shape)
        interpreter.allocate_tensors()
        for detail, values in zip(details, inputs, strict=True):
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]

    return run


RUNTIMES = {"tf_saved_model": _open_saved_model, "onnx": _open_onnx, "litert": _open_litert}
