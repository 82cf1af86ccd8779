"""Optax optimizers with a usable step, with rates by which they settle, and training under JAX's `scan`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import poise.optax

penalized: Any = poise.optax.penalized
apply_updates: Any = optax.apply_updates
"""Without their types: optax declares its trees as unions, whose entries pyright does not know."""


@dataclass(frozen=True)
class Case:
    """An optimizer and the rates by which it settles on the Lasso of the diabetes table.

    Attributes:
        function: The optax function.
        rate: The first learning rate, which falls exponentially to `rate * fall`.
        fall: See `rate`.
        steps: After so many steps it has settled.
        settings: Further arguments of the function.
    """

    function: Callable[..., Any]
    rate: float
    fall: float = 1e-2
    steps: int = 800
    settings: Mapping[str, Any] = field(default_factory=dict)

    def schedule(self) -> Any:
        return optax.exponential_decay(self.rate, self.steps, self.fall)

    def penalized(self, rules: Any, update: str = "proximal") -> Any:
        """The optimizer with penalties, which settles."""
        return penalized(self.function, rules, update, learning_rate=self.schedule(), **self.settings)

    def plain(self) -> Any:
        """The optimizer without penalties."""
        return self.function(learning_rate=self.schedule(), **self.settings)


NO_DECAY = {"weight_decay": 0.0}
UNCORRECTED = {"bias_correction_mu": False, "bias_correction_nu": False}
CASES: dict[str, Case] = {
    "sgd": Case(optax.sgd, 0.1, 0.5, 600),
    "sgd-momentum": Case(optax.sgd, 0.02, 0.1, 500, {"momentum": 0.9}),
    "sgd-nesterov": Case(optax.sgd, 0.02, 0.1, 500, {"momentum": 0.9, "nesterov": True}),
    "adam": Case(optax.adam, 0.05),
    "adam-eps_root": Case(optax.adam, 0.05, settings={"eps": 1e-3, "eps_root": 1e-6}),
    "nadam": Case(optax.nadam, 0.05),
    "adamw": Case(optax.adamw, 0.05, settings=NO_DECAY),
    "nadamw": Case(optax.nadamw, 0.05, settings=NO_DECAY),
    "adamax": Case(optax.adamax, 0.1),
    "adamaxw": Case(optax.adamaxw, 0.1, settings=NO_DECAY),
    "adagrad": Case(optax.adagrad, 0.5, 0.5),
    "rmsprop": Case(optax.rmsprop, 0.02),
    "rmsprop-momentum": Case(optax.rmsprop, 0.02, settings={"momentum": 0.5}),
    "rmsprop-nesterov": Case(
        optax.rmsprop,
        0.02,
        settings={"momentum": 0.5, "nesterov": True, "eps_in_sqrt": False, "bias_correction": True},
    ),
    "adadelta": Case(optax.adadelta, 10.0, 0.1),
    "amsgrad": Case(optax.amsgrad, 0.1),
    "radam": Case(optax.radam, 0.05),
    "radam-nesterov": Case(optax.radam, 0.05, settings={"nesterov": True}),
    "adabelief": Case(optax.adabelief, 0.05),
    "adabelief-nesterov": Case(optax.adabelief, 0.05, settings={"nesterov": True}),
    "yogi": Case(optax.yogi, 0.05, steps=1500),
    "adan": Case(optax.adan, 0.05, steps=1500),
    "adafactor": Case(optax.adafactor, 0.1, 1e-1, 1000),
    "adafactor-factored": Case(
        optax.adafactor, 0.05, settings={"min_dim_size_to_factor": 1, "multiply_by_parameter_scale": False}
    ),
    "lamb": Case(optax.lamb, 0.1, steps=1000),
}
"""Every optimizer with a step in poise.optax.metrics, and its variations."""
if "bias_correction_mu" in inspect.signature(optax.amsgrad).parameters:  # not in optax 0.2.6
    CASES["amsgrad-uncorrected"] = Case(optax.amsgrad, 0.1, settings=UNCORRECTED)


def train(transformation: Any, loss: Callable[[Any], Any], params: Any, steps: int, state: Any = None) -> Any:
    """The parameters after full-batch training."""

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = transformation.update(jax.grad(loss)(params), state, params)
        return (apply_updates(params, updates), state), None

    state = transformation.init(params) if state is None else state
    return jax.lax.scan(step, (params, state), None, length=steps)[0][0]


def linear_start(columns: int) -> dict[str, Any]:
    """Parameters of a linear model with one output."""
    return {"kernel": jnp.full((columns, 1), 0.1), "bias": jnp.zeros(1)}


def half_mean_square(x: np.ndarray, y: np.ndarray) -> Callable[[Any], Any]:
    """Scikit-learn's loss of the Lasso, of the parameters of a linear model."""
    x, target = np.asarray(x, "float32"), np.asarray(y, "float32")[:, None]
    return lambda params: 0.5 * jnp.mean((x @ params["kernel"] + params["bias"] - target) ** 2)


def mean_log_loss(x: np.ndarray, y: np.ndarray) -> Callable[[Any], Any]:
    """The loss of a logistic regression, of the parameters of a linear model."""
    x, target = np.asarray(x, "float32"), np.asarray(y, "float32")[:, None]
    return lambda params: jnp.mean(optax.sigmoid_binary_cross_entropy(x @ params["kernel"] + params["bias"], target))


def assert_solution(params: Any, coefficients: np.ndarray, tolerance: float = 1e-5) -> None:
    """Assert that a linear model has these coefficients, and the same zeros."""
    kernel = np.asarray(params["kernel"])[:, 0]
    np.testing.assert_array_equal(kernel != 0.0, coefficients != 0.0)
    np.testing.assert_allclose(kernel, coefficients, rtol=0.0, atol=tolerance)
