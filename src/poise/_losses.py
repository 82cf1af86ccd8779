"""Losses and activations of tasks that Keras does not have.

The formulas are in `poise.study.tasks.log_link` and `poise.study.tasks.quantiles`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

PACKAGE = "poise"
SMALLEST_MEAN = 1e-30
"""Smaller outputs of a network count as this mean, so that the loss is finite."""


@keras.saving.register_keras_serializable(PACKAGE)
class GammaLoss(keras.losses.Loss):
    """The mean of log μ + y/μ: half of the gamma deviance, up to a constant.

    Args:
        name: The name. Default: `"gamma"`.
        **kwargs: Other arguments of `keras.losses.Loss`.
    """

    def __init__(self, name: str = "gamma", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        mean = ops.maximum(y_pred, SMALLEST_MEAN)
        return ops.mean(ops.log(mean) + y_true / mean, axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class TweedieLoss(keras.losses.Loss):
    """The mean of μ^(2−p)/(2−p) − y μ^(1−p)/(1−p): half of the Tweedie deviance, up to a constant.

    Args:
        power: p, between 1 and 2. Default: 1.5.
        name: The name. Default: `"tweedie"`.
        **kwargs: Other arguments of `keras.losses.Loss`.
    """

    def __init__(self, power: float = 1.5, name: str = "tweedie", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.power = power

    def call(self, y_true: Any, y_pred: Any) -> Any:
        mean, p = ops.maximum(y_pred, SMALLEST_MEAN), self.power
        return ops.mean(mean ** (2.0 - p) / (2.0 - p) - y_true * mean ** (1.0 - p) / (1.0 - p), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable(PACKAGE)
class PinballLoss(keras.losses.Loss):
    """The mean of the pinball losses of several quantiles (see `poise.study.tasks.quantiles`).

    Args:
        quantiles: The quantiles, one per output.
        name: The name. Default: `"pinball"`.
        **kwargs: Other arguments of `keras.losses.Loss`.
    """

    def __init__(self, quantiles: Sequence[float] = (0.5,), name: str = "pinball", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.quantiles = tuple(quantiles)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error, levels = y_true - y_pred, ops.convert_to_tensor(self.quantiles, y_pred.dtype)
        return ops.mean(ops.maximum(levels * error, (levels - 1.0) * error), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantiles": self.quantiles}


@keras.saving.register_keras_serializable(PACKAGE)
def accumulate(x: Any) -> Any:
    """Return ascending outputs: the first one, and sums of it and of positive increments softplus(x_k)."""
    increments = ops.concatenate([x[..., :1], ops.softplus(x[..., 1:])], axis=-1)
    return ops.cumsum(increments, axis=-1)
