"""Checks of arguments. Each returns the argument in one type, or says what it must be."""

import math
import numbers
from typing import Any, TypeGuard

import numpy as np

LARGEST = float(np.finfo("float32").max)


def validate_number(name: str, value: Any, least: float = 0.0, inclusive: bool = True) -> float:
    """Return `value` as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite or below `least`.
    """
    message = f"{name} must be a finite number {'>=' if inclusive else '>'} {least:g}, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(message)
    value = float(value)
    check_range(name, value)
    above = value >= least if inclusive else value > least
    if not (above and math.isfinite(value)):
        raise ValueError(message)
    return value


def validate_share(name: str, value: Any) -> float:
    """Return `value` as a float, or raise TypeError if it is not a number, ValueError if not from 0 to 1."""
    message = f"{name} must be a number from 0 to 1, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(message)
    if not 0 <= float(value) <= 1:
        raise ValueError(message)
    return float(value)


def validate_count(name: str, value: Any, least: int) -> int:
    """Return `value` as an int, or raise TypeError if it is not an int, ValueError if it is below `least`."""
    message = f"{name} must be an int >= {least}, got {value!r}."
    if not is_integer(value):
        raise TypeError(message)
    if value < least:
        raise ValueError(message)
    return int(value)


def validate_axis(name: str, axis: Any) -> Any:
    """Return the name of a side or the number of an axis, or raise ValueError."""
    if isinstance(axis, str) and axis in ("inputs", "outputs"):
        return axis
    if not is_integer(axis):
        others = "an axis as an int, or lists of indices" if name == "groups" else "or an axis as an int"
        raise ValueError(f"{name} must be 'outputs', 'inputs', {others}, got {axis!r}.")
    return int(axis)


def validate_array(name: str, values: Any) -> np.ndarray:
    """Return a number or an array of numbers as float64, or raise TypeError."""
    try:
        return np.asarray(values, "float64")
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or an array of numbers, got {values!r}.") from None


def validate_factors(factors: Any) -> np.ndarray | None:
    """Return factors as an array, or raise TypeError or ValueError if one is not a number, negative or NaN."""
    if factors is None:
        return None
    factors = validate_array("factors", factors)
    wrong = factors[np.isnan(factors) | (factors < 0)]
    if wrong.size:
        raise ValueError(f"factors must be >= 0, got {float(wrong[0])!r} (0: not penalized, inf: held at zero).")
    check_range("factors", float(factors[np.isfinite(factors)].max(initial=0.0)))
    return factors


def check_range(name: str, value: float) -> None:
    """Raise ValueError for a finite number that would be infinite in float32."""
    if LARGEST < value < math.inf:
        raise ValueError(f"{name} must be at most {LARGEST:.2g}, the largest float32, got {value!r}.")


def is_integer(value: Any) -> TypeGuard[numbers.Integral]:
    """Whether a value is an int, of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
