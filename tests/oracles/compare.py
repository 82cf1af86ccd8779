"""Numbers in, numbers out, and how close two of them must be in the backend's precision."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from .autodiff import PRECISE

EPSILON = float(np.finfo(PRECISE).eps)
RELATIVE, ABSOLUTE = (1e-5, 2e-6) if PRECISE == "float32" else (1e-10, 1e-11)


def tensor(values: Any, dtype: str = PRECISE) -> Any:
    return ops.convert_to_tensor(values, dtype=dtype)


def array(values: Any) -> np.ndarray:
    return ops.convert_to_numpy(values).astype(np.float64)


def assert_close(actual: Any, expected: Any, factor: float = 1.0) -> None:
    """actual (tensor) equals expected (float64 oracle) to the backend's precision, in the same shape."""
    actual, expected = array(actual), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, the oracle's is {expected.shape}"
    finite = expected[np.isfinite(expected)]
    scale = max(1.0, float(np.abs(finite).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=factor * RELATIVE, atol=factor * ABSOLUTE * scale)


def sample(shape: Sequence[int], seed: int, scale: float = 1.0) -> np.ndarray:
    """Normal draws on a grid of 2⁻¹², none zero: exact in float32, so that no input is rounded on its way."""
    drawn = np.round(np.random.default_rng(seed).normal(size=shape) * scale * 4096.0) / 4096.0
    return np.where(drawn == 0.0, 0.125, drawn)


def spread_steps(shape: Sequence[int], seed: int, low: float, high: float) -> np.ndarray:
    """Positive steps, log-uniform between low and high, exact in float32."""
    drawn = np.exp(np.random.default_rng(seed).uniform(np.log(low), np.log(high), size=shape))
    return drawn.astype(np.float32).astype(np.float64)
