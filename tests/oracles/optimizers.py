"""Tables of inner optimizers: those whose step poise.optimizer.metrics knows, with rates that settle, and those it refuses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import optimizers

Make = Callable[[Any], keras.optimizers.Optimizer]


@dataclass(frozen=True)
class Inner:
    """An optimizer, made from a learning rate, and the rates by which it settles on the Lasso of the diabetes table.

    Attributes:
        make: takes a learning rate or a schedule.
        rate: the first learning rate; it falls exponentially to `rate * fall`.
        steps: after so many steps it has settled.
    """

    make: Make
    rate: float
    fall: float
    steps: int

    def settling(self) -> keras.optimizers.Optimizer:
        return self.make(optimizers.schedules.ExponentialDecay(self.rate, self.steps, self.fall))


SETTLING: dict[str, Inner] = {
    "SGD": Inner(optimizers.SGD, 0.1, 0.5, 300),
    "SGD-momentum": Inner(lambda rate: optimizers.SGD(rate, momentum=0.9), 0.02, 0.1, 400),
    "SGD-nesterov": Inner(lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True), 0.02, 0.1, 400),
    "RMSprop": Inner(optimizers.RMSprop, 0.02, 1e-2, 800),
    "RMSprop-momentum": Inner(lambda rate: optimizers.RMSprop(rate, momentum=0.5), 0.02, 1e-2, 800),
    "Adagrad": Inner(optimizers.Adagrad, 0.5, 0.5, 800),
    "Adadelta": Inner(optimizers.Adadelta, 10.0, 0.1, 800),
    "Adam": Inner(optimizers.Adam, 0.05, 1e-2, 800),
    "Adam-amsgrad": Inner(lambda rate: optimizers.Adam(rate, amsgrad=True), 0.1, 1e-2, 800),
    "AdamW": Inner(lambda rate: optimizers.AdamW(rate, weight_decay=0.0), 0.05, 1e-2, 800),
    "Adamax": Inner(optimizers.Adamax, 0.1, 1e-2, 800),
    "Nadam": Inner(optimizers.Nadam, 0.05, 1e-2, 800),
    "Lamb": Inner(optimizers.Lamb, 0.1, 1e-2, 1000),
    "Adafactor": Inner(optimizers.Adafactor, 0.1, 1e-1, 1000),
}
"""Every optimizer with a step in poise.optimizer.metrics, and its variations."""

PLAIN: dict[str, Make] = {
    "SGD-nesterov": lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "AdamW": lambda rate: optimizers.AdamW(rate, weight_decay=0.01),
    "RMSprop-clipvalue": lambda rate: optimizers.RMSprop(rate, clipvalue=0.2),
    "Adamax-clipnorm": lambda rate: optimizers.Adamax(rate, clipnorm=0.1),
    "Nadam-global_clipnorm": lambda rate: optimizers.Nadam(rate, global_clipnorm=0.3),
    "Lion-accumulation": lambda rate: optimizers.Lion(rate / 10, gradient_accumulation_steps=2),
}
"""Optimizers in which a coupled penalty must be what a Keras regularizer is."""


@keras.saving.register_keras_serializable("poise-tests")
class SignOfMomentum(optimizers.SGD):
    """A user's optimizer with a step of its own."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * keras.ops.sign(gradient))


class HalfSGD(optimizers.SGD):
    """A user's optimizer that moves by half of the learning rate."""

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable, learning_rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_sub(variable, 0.5 * keras.ops.cast(learning_rate, variable.dtype) * gradient)


class RenamedAdam(optimizers.Adam):
    """A user's optimizer that steps as Adam does."""


def without_step() -> dict[str, tuple[Callable[[], Any], str]]:
    """Optimizers that the proximal update refuses, and what the message must say."""
    rows: dict[str, tuple[Callable[[], Any], str]] = {
        "Lion": (optimizers.Lion, r"Lion: it moves by the sign.*Adam.*update='decoupled'"),
        "Ftrl": (optimizers.Ftrl, r"Ftrl: it is itself a proximal method.*Adam"),
        "RMSprop-centered": (
            lambda: optimizers.RMSprop(centered=True),
            r"RMSprop\(centered=True\).*Use centered=False, or use update='decoupled'",
        ),
        "own-step": (
            SignOfMomentum,
            r"SignOfMomentum: it overrides update_step, which changes the step.*register.*Use one of.*Adam",
        ),
        "clipnorm": (
            lambda: optimizers.Adam(clipnorm=0.5),
            r"Adam\(clipnorm=0\.5\).*moves the fixed point.*Remove the clipping",
        ),
        "clipvalue": (lambda: optimizers.SGD(clipvalue=0.5), r"clipvalue=0\.5.*Remove the clipping"),
        "global_clipnorm": (lambda: optimizers.SGD(global_clipnorm=0.5), r"global_clipnorm=0\.5.*Remove the clipping"),
        "weight_decay": (
            lambda: optimizers.AdamW(weight_decay=0.004),
            r"AdamW\(weight_decay=0\.004\).*weight_decay=0 and a rule with poise\.L2\(0\.002\)",
        ),
        "Adafactor-accumulation": (
            lambda: optimizers.Adafactor(gradient_accumulation_steps=2),
            r"Adafactor\(gradient_accumulation_steps=.*Use Adam or larger batches",
        ),
    }
    for name, reason in {"Muon": "orthogonalizes the update", "ScheduleFreeAdamW": "trains at one point"}.items():
        if hasattr(optimizers, name):
            rows[name] = getattr(optimizers, name), rf"{name}: it {reason}.*Use one of.*Adam.*update='decoupled'"
    return rows


def multi_optimizer() -> Any:
    """Keras' MultiOptimizer of two, as `MultiOptimizer` itself takes them."""
    return optimizers.MultiOptimizer([optimizers.SGD(), optimizers.Adam()])
