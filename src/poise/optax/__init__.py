"""Penalties in optax optimizers, for JAX without Keras models: Flax, Equinox, Haiku, or any tree of arrays.

The formulas of the penalties run on `keras.ops`, so importing this module imports Keras on JAX.
"""

import importlib.util

from poise._backend import require_backend

if importlib.util.find_spec("optax") is None:
    raise ModuleNotFoundError(
        'poise.optax needs optax, which is not installed. Run `pip install "poise[optax]"`.', name="optax"
    )
require_backend("jax", "poise.optax")

from poise.optax.transformation import PenalizedState, penalized, penalty_values  # noqa: E402

__all__ = ["PenalizedState", "penalized", "penalty_values"]
