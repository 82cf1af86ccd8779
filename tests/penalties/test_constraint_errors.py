"""Settings of constraints, the fused lasso and SLOPE that cannot be: the message names what was given."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from oracles.compare import tensor
from oracles.penalties import MATRIX

import poise

WRONG_SETTINGS: dict[str, tuple[Any, type[Exception], str]] = {
    "box: no bound": (partial(poise.Box), ValueError, "Box needs lower or upper, got None for both"),
    "box: crossed": (partial(poise.Box, 1.0, [2.0, 0.5]), ValueError, "lower must be <= upper, got 1 and 0.5"),
    "box: NaN": (partial(poise.Box, float("nan")), ValueError, "lower must not be NaN"),
    "box: text": (partial(poise.Box, upper="a"), TypeError, "upper must be a number or an array of numbers, got 'a'"),
    "box: too large": (partial(poise.Box, upper=1e39), ValueError, "upper must be at most .* the largest float32"),
    "box: infinite": (partial(poise.Box, float("inf")), ValueError, "lower must be < inf and upper > -inf"),
    "top-k: percent": (partial(poise.TopK, 80), ValueError, "sparsity must be a number from 0 to 1, got 80"),
    "top-k: negative": (partial(poise.TopK, -0.5), ValueError, "sparsity must be a number from 0 to 1, got -0.5"),
    "top-k: text": (
        partial(poise.TopK, "all"),
        TypeError,
        "sparsity must be a number from 0 to 1 or .*Schedule, got 'all'",
    ),
    "top-k: an axis alone": (partial(poise.TopK, 0.5, axis=0), ValueError, "axis must be None without groups, got"),
    "n-of-m: all": (partial(poise.NofM, 4, 4), ValueError, "n must be smaller than m, got n=4 and m=4"),
    "n-of-m: none": (partial(poise.NofM, 0), ValueError, "n must be an int >= 1, got 0"),
    "n-of-m: a share": (partial(poise.NofM, 0.5), TypeError, "n must be an int >= 1, got 0.5"),
    "n-of-m: an axis": (partial(poise.NofM, axis="rows"), ValueError, "axis must be 'outputs', .* got 'rows'"),
    "max-norm: zero": (partial(poise.MaxNorm, 0.0), ValueError, "max_value must be a finite number > 0"),
    "max-norm: groups": (partial(poise.MaxNorm, groups="rows"), ValueError, "groups must be .* got 'rows'"),
    "max-norm: text": (partial(poise.MaxNorm, "big"), TypeError, "max_value must be a finite number > 0, got 'big'"),
    "simplex: zero": (partial(poise.Simplex, 0.0), ValueError, "radius must be a finite number > 0"),
    "simplex: an axis": (partial(poise.Simplex, axis="rows"), ValueError, "axis must be .* got 'rows'"),
    "slope: q": (partial(poise.Slope, q=1.0), ValueError, r"q must be between 0 and 1 \(exclusive\), got 1.0"),
    "slope: both": (partial(poise.Slope, q=0.1, alphas=[1.0]), ValueError, "q and alphas both define the sequence"),
    "slope: rising": (partial(poise.Slope, alphas=[1.0, 2.0]), ValueError, "alphas must be a row .* in descending"),
    "slope: text": (partial(poise.Slope, alphas="a"), TypeError, "alphas must be .* array of numbers, got 'a'"),
    "slope: zeros": (partial(poise.Slope, alphas=[0.0, 0.0]), ValueError, "alphas must be .* not all 0"),
    "schedule: percent": (
        partial(poise.PolynomialSparsity, 80, 9),
        ValueError,
        "final_sparsity must be a number from 0 to 1",
    ),
    "schedule: text": (
        partial(poise.PolynomialSparsity, "a", 9),
        TypeError,
        "final_sparsity must be a number from .*'a'",
    ),
    "schedule: backward": (partial(poise.PolynomialSparsity, 0.5, 9, 9), ValueError, "end_step must be an int >= 10"),
    "schedule: power": (
        partial(poise.PolynomialSparsity, 0.5, 9, power=0),
        ValueError,
        "power must be a finite number",
    ),
    "schedule: frequency": (partial(poise.PolynomialSparsity, 0.5, 9, frequency=0), ValueError, "frequency must be an"),
}
WRONG_SHAPES: dict[str, tuple[poise.Penalty, str]] = {
    "box": (poise.Box(upper=[1.0, 2.0]), r"Box has upper of shape \(2,\), which does not broadcast to .* \(4, 3\)"),
    "n-of-m": (poise.NofM(1, 3), "NofM needs a multiple of m=3 weights along axis='inputs', got 4"),
    "total variation": (
        poise.TotalVariation(axis=2),
        r"TotalVariation acts along axis 2, which a variable of shape \(4, 3\) lacks. Use an axis from -2 to 1,",
    ),
    "simplex": (
        poise.Simplex(axis=-3),
        r"Simplex acts along axis -3, which a variable of shape \(4, 3\) lacks. Use an axis from -2 to 1,",
    ),
    "slope": (poise.Slope(alphas=[2.0, 1.0]), r"Slope has 2 alphas for a variable of shape \(4, 3\)"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_wrong_settings_are_named(case: str) -> None:
    make, error, message = WRONG_SETTINGS[case]
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_shapes_that_do_not_fit_are_named(case: str) -> None:
    penalty, message = WRONG_SHAPES[case]
    with pytest.raises(ValueError, match=message):
        penalty.prox(tensor(np.ones(MATRIX)), 1.0, 1.0)
