"""Networks that people use, a third of their channels zeroed: the same outputs from far fewer weights."""

import keras
import numpy as np
import pytest
from keras import applications, layers

import poise

from .zeroing import Array, assert_same, inputs_of, randomized, silent, width, zero_slice

SMALL = {"weights": None, "input_shape": (32, 32, 3), "classes": 5, "classifier_activation": None}
MODELS = {
    "MobileNetV2": lambda: applications.MobileNetV2(alpha=0.35, **SMALL),
    "ResNet50V2": lambda: applications.ResNet50V2(**SMALL),
    "DenseNet121": lambda: applications.DenseNet121(**SMALL),
    "EfficientNetB0": lambda: applications.EfficientNetB0(**SMALL),
}
FORGETFUL = {"MobileNetV2", "EfficientNetB0"}


def normalizations(model: keras.Model) -> list[layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def every_third_is_silent(model: keras.Model, seed: int = 0) -> None:
    """Of every normalization every third channel, so that sums lose it as well, and three at random besides."""
    random = np.random.default_rng(seed)
    for layer in normalizations(model):
        channels = width(layer)
        silent(layer, np.unique([*range(0, channels, 3), *random.choice(channels, size=3)]).tolist())


def calibrate(model: keras.Model, images: Array, seed: int = 0) -> None:
    """Statistics near those of these images: with others the outputs of some networks do not depend on their inputs."""
    random = np.random.default_rng(seed)
    for layer in normalizations(model):
        layer.momentum = 0.0
    if keras.backend.backend() == "jax":
        _statistics_in_jax(model, images)
    else:
        model(images, training=True)
    for layer in normalizations(model):
        layer.momentum = 0.99
        mean, variance = (keras.ops.convert_to_numpy(v) for v in (layer.moving_mean, layer.moving_variance))
        layer.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * random.normal(size=mean.shape))
        layer.moving_variance.assign(variance * random.uniform(0.9, 2.0, size=mean.shape) + 1e-6)


def _statistics_in_jax(model: keras.Model, images: Array) -> None:
    import jax

    trained, others = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    passed = jax.jit(lambda trained, others, x: model.stateless_call(trained, others, x, training=True)[1])
    for variable, value in zip(model.non_trainable_variables, passed(trained, others, images), strict=True):
        variable.assign(value)


@pytest.mark.parametrize("name", MODELS)
def test_an_application_gives_the_same_outputs_from_fewer_weights(name) -> None:
    model = randomized(MODELS[name]())
    every_third_is_silent(model)
    images = 64.0 * inputs_of(model, rows=8)[0]
    if name in FORGETFUL:
        calibrate(model, images)
    else:
        for layer in normalizations(model):
            layer.moving_variance.assign(layer.moving_variance / 4.0)

    smaller = poise.compact(model)

    expected, actual = (m.predict_on_batch(images) for m in (model, smaller))
    assert expected.std(axis=0).max() > 0.005 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=1e-5 * np.abs(expected).max())
    assert smaller.count_params() < 0.75 * model.count_params()


def transformer(heads: int = 4, units: int = 8, blocks: int = 2) -> keras.Model:
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, units, name="embedding")(tokens)
    for block in range(blocks):
        attended = layers.MultiHeadAttention(heads, 3, name=f"attention_{block}")(x, x, use_causal_mask=True)
        x = layers.LayerNormalization(epsilon=1e-3)(layers.Add()([x, layers.Dropout(0.1)(attended)]))
        hidden = layers.Dense(4 * units, activation="gelu", name=f"hidden_{block}")(x)
        narrowed = layers.Dense(units, name=f"narrowed_{block}")(hidden)
        x = layers.LayerNormalization(epsilon=1e-3)(layers.Add()([x, narrowed]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(5, name="classes")(x))


def test_a_transformer_loses_heads_and_hidden_units_and_keeps_its_trunk() -> None:
    model = randomized(transformer())
    zero_slice(model.get_layer("attention_0").output_dense.kernel, 0, (0, 3))
    zero_slice(model.get_layer("attention_1").value_dense.kernel, 1, (2,))
    silent(model.get_layer("hidden_0"), range(0, 32, 3))
    zero_slice(model.get_layer("narrowed_1").kernel, 0, range(8))

    smaller = poise.compact(model)

    assert_same(model, smaller)
    assert [smaller.get_layer(f"attention_{block}").get_config()["num_heads"] for block in range(2)] == [2, 3]
    assert [width(smaller.get_layer(f"hidden_{block}")) for block in range(2)] == [21, 24]
    assert width(smaller.get_layer("embedding")) == 8
