"""Penalties in `torch.optim` optimizers, for PyTorch without Keras models.

The formulas of the penalties run on `keras.ops`, so importing this module imports Keras on PyTorch. Neither JAX nor
TensorFlow is needed.
"""

from poise._backend import require_backend

require_backend("torch", "poise.torch")

from poise.torch.compaction import compact, dead_units  # noqa: E402
from poise.torch.handle import PenaltyHandle  # noqa: E402
from poise.torch.penalize import handle_of, penalize  # noqa: E402

__all__ = ["PenaltyHandle", "compact", "dead_units", "handle_of", "penalize"]
