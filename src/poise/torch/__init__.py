"""Penalties in `torch.optim` optimizers, for PyTorch without Keras models.

Formulas of the penalties run on `keras.ops`, so importing this module imports Keras on PyTorch. Neither JAX nor
TensorFlow is needed.
"""

from poise._backend import require_backend

require_backend("torch", "poise.torch")
