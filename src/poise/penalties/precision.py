"""The small numbers of the dtype in which a formula computes, float32 or float64."""

from typing import Any

import keras
import numpy as np


def rounding(w: Any) -> float:
    """Return the relative rounding of the dtype of a tensor: the gap between 1 and the next number."""
    return float(_limits(w).eps)


def smallest(w: Any) -> float:
    """Return the divisor in place of zero: the smallest number with all digits."""
    return float(_limits(w).tiny)


def smallest_step(w: Any) -> float:
    """Return the smallest step, as a share of the largest; entries with smaller steps move less than the rounding."""
    return rounding(w) ** 1.5


def _limits(w: Any) -> Any:
    return np.finfo(keras.backend.standardize_dtype(w.dtype))
