"""Training and scoring of the models of `poise.shrink`."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from poise._keras_internals import compile_settings
from poise.path.models import first_learning_rate
from poise.shrinking.data import Rows

NOT_COPIED = ("use_ema", "ema_momentum", "ema_overwrite_frequency")
"""Settings of the optimizer that average weights, which then are not exactly zero."""
ACCURACIES = ("accuracy", "acc")
"""The names of metrics that are an accuracy; also as the end of a name."""


class Trainer:
    """Trains and scores models with the loss, the metrics and the optimizer of a compiled model.

    Args:
        model: Compiled model.
        training: Training rows.
        validation: Validation rows.
        learning_rate: The learning rate at the start of a training. `None`: that of the model's optimizer; if it
            follows a schedule, its first value.
        verbose: Verbosity of `fit`.

    Raises:
        ValueError: If the model is not compiled with a loss.
    """

    def __init__(
        self, model: keras.Model, training: Rows, validation: Rows, learning_rate: float | None, verbose: int
    ) -> None:
        self._settings = compile_settings(model)
        if not self._settings or self._settings.get("loss") is None:
            raise ValueError(
                f"The model {model.name!r} is not compiled with a loss. Call model.compile(optimizer, loss, "
                'metrics=["accuracy"]) before poise.shrink.'
            )
        optimizer = model.optimizer
        while hasattr(optimizer, "inner_optimizer"):  # of penalties, or of scaled losses
            optimizer = optimizer.inner_optimizer
        self._optimizer = optimizer
        self.learning_rate = first_learning_rate(optimizer) if learning_rate is None else float(learning_rate)
        self.training, self.validation, self._verbose = training, validation, verbose

    def make_optimizer(self, epochs: int | None = None, *, has_decay: bool = True) -> keras.optimizers.Optimizer:
        """Return an optimizer like the model's.

        Args:
            epochs: Epochs over which the learning rate falls to 0 along a cosine. Default: `None`, for a constant rate.
            has_decay: Whether to keep the weight decay of the model's optimizer. Default: `True`.
        """
        config = {name: value for name, value in self._optimizer.get_config().items() if name not in NOT_COPIED}
        if not has_decay and config.get("weight_decay"):
            config["weight_decay"] = 0.0
        rate: Any = self.learning_rate
        if epochs is not None:
            rate = keras.optimizers.schedules.CosineDecay(rate, epochs * self.training.batches)
        return type(self._optimizer).from_config({**config, "learning_rate": rate})

    def compile(self, model: keras.Model, optimizer: Any) -> None:
        """Compile a model like the original one, with an optimizer and with metrics that hold no values yet."""
        metrics = {
            name: tree.map_structure(_copy_metric, self._settings.get(name)) for name in ("metrics", "weighted_metrics")
        }
        model.compile(**{**self._settings, **metrics, "optimizer": optimizer})

    def fit(
        self,
        model: keras.Model,
        optimizer: Any,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Train a model on the training rows. Callbacks see every batch."""
        self.compile(model, optimizer)
        model.steps_per_execution = 1
        model.fit(**self.training.arguments, epochs=epochs, verbose=self._verbose, callbacks=[*callbacks])

    def fine_tune(self, model: keras.Model, epochs: int) -> None:
        """Train a model without penalties, with a falling learning rate."""
        if epochs:
            self.fit(model, self.make_optimizer(epochs), epochs)

    def score(self, model: keras.Model) -> dict[str, float]:
        """Return the loss and the metrics of a model on the validation rows."""
        self.compile(model, self.make_optimizer())
        scores: Any = model.evaluate(**self.validation.arguments, verbose=self._verbose, return_dict=True)
        return {name: float(score) for name, score in scores.items()}


def find_accuracy(scores: dict[str, float]) -> str | None:
    """Return the name of the first metric that is an accuracy, or None."""
    return next((name for name in scores if name in ACCURACIES or name.endswith("_accuracy")), None)


def _copy_metric(metric: Any) -> Any:
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric
