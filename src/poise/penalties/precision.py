"""The small numbers of the dtype in which a formula computes, float32 or float64."""

from typing import Any

import keras
import numpy as np


def machine_epsilon(w: Any) -> float:
    """Return the machine epsilon of the dtype of a tensor: the gap between 1 and the next number."""
    return float(_limits(w).eps)


def smallest_normal(w: Any) -> float:
    """Return the smallest positive normal number of the dtype of a tensor, a divisor in place of zero."""
    return float(_limits(w).tiny)


def smallest_step(w: Any) -> float:
    """Return the smallest step as a share of the largest. Below it, entries move by less than rounding errors."""
    return machine_epsilon(w) ** 1.5


def _limits(w: Any) -> Any:
    return np.finfo(keras.backend.standardize_dtype(w.dtype))
