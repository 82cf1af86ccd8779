"""Dropout whose rate is a variable, so that the lanes of a path can have different rates.

A path over dropout rates is a path of a model with `LaneDropout` layers: the values of its grid are rates instead of
strengths, and no penalty acts. The model of a rate, which the path returns, has Keras' own dropout layers.

References:
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, "Dropout: a simple way to prevent neural networks
    from overfitting".
"""

from typing import Any

import keras
from keras import ops

from poise._keras_internals import sublayers
from poise.compaction.elementwise import TrainingNoise
from poise.compaction.handlers import register
from poise.penalties.base import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class LaneDropout(keras.layers.Layer):
    """Inverted dropout, with the random numbers of `keras.layers.Dropout`, at a rate that is a variable.

    In training, an entry is zero with probability `rate`, and is divided by (1 − rate) otherwise. In inference, the
    layer is the identity. A rate of 0 is the identity in training as well.

    Args:
        seed: Seed of the random numbers.
        **kwargs: As for `keras.layers.Layer`.

    Attributes:
        rate: The rate, 0 until it is set. It is not trained.
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.rate = self.add_weight(shape=(), initializer="zeros", trainable=False, name="rate")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        kept_share = 1.0 - ops.convert_to_tensor(self.rate)
        is_kept = keras.random.uniform(ops.shape(inputs), seed=self.seed_generator) < kept_share
        return ops.where(is_kept, inputs / ops.cast(kept_share, inputs.dtype), ops.zeros_like(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


register(LaneDropout)(TrainingNoise())


def find_lane_dropouts(model: keras.Model) -> list[LaneDropout]:
    """Return the layers of a model whose rate is that of the lane."""
    return [layer for layer in sublayers(model) if isinstance(layer, LaneDropout)]


def replace_lane_dropout(model: keras.Model) -> keras.Model:
    """Return the model with `keras.layers.Dropout` instead of `LaneDropout`; the model itself if it has none."""
    if not find_lane_dropouts(model):
        return model

    def clone(layer: Any) -> Any:
        if isinstance(layer, LaneDropout):
            rate = float(ops.convert_to_numpy(layer.rate))
            return keras.layers.Dropout(rate, seed=layer.seed, name=layer.name)
        return type(layer).from_config(layer.get_config())

    plain: Any = keras.models.clone_model(model, clone_function=clone)
    rates = {id(layer.rate) for layer in find_lane_dropouts(model)}
    plain.set_weights([ops.convert_to_numpy(weight) for weight in model.weights if id(weight) not in rates])
    return plain
