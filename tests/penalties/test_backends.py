"""What may differ between backends: dtypes, extremes, tracing, batches, and what is taken as weights."""

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from oracles import autodiff
from oracles.autodiff import PRECISE
from oracles.compare import ABSOLUTE, array, assert_close, sample, spread_steps, tensor
from oracles.penalties import CASES, MATRIX, ONE_EACH, WITH_PROX, Case

import poise

SEVERAL = [*ONE_EACH, *(case for case in CASES if "lists" in case.name)]
LARGEST = float(np.finfo("float32").max)
EXTREMES = [0.0, -0.0, 1e-45, -1e-40, 1e-38, -1e-30, 1e-20, -1e-10, 1.0, -1.0, 3.5, 1e4, -1e10, 1e19, 1e30]


def over(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def extreme_weights() -> list[np.ndarray]:
    """Matrices of extreme entries, mixed at random; of one size; and with the largest and smallest side by side."""
    random = np.random.default_rng(0)
    mixed = [random.choice(EXTREMES, size=MATRIX) for _ in range(3)]
    return [*mixed, np.full(MATRIX, 1e-40), np.full(MATRIX, 1e30), np.zeros(MATRIX)]


@over(CASES)
def test_value_and_forces_are_finite_where_float32_can_hold_them(case: Case) -> None:
    """Nothing overflows or turns NaN on the way. (Orthogonal is a quartic: 1e8 is its end.)"""
    for w, strength in zip(extreme_weights(), (0.0, 1e-30, 0.5, 1e6, 0.5, 1e6), strict=True):
        w = np.clip(w, -1e8, 1e8) if case.pulls_to_one else w
        penalty, single = case.make(strength), tensor(w, "float32")

        value = array(penalty.value(single, strength))
        gradient = array(penalty.gradient(single, strength))
        residual = array(penalty.residual(single, ops.ones_like(single), strength))

        for result in (value, gradient, residual):
            assert not np.isnan(result).any()
        if abs(case.value(w, strength)) < 1e-3 * LARGEST:
            assert np.isfinite(value)
        if steepest(case, w, strength) < 1e-3 * LARGEST:
            assert np.isfinite(gradient).all()


def steepest(case: Case, w: np.ndarray, strength: float) -> float:
    """A bound of the gradient: the slopes of norms are bounded, a square's grows with w, a quartic's with w³."""
    if case.pulls_to_one:
        return 1e2 * strength * np.abs(w).max() ** 3
    return 1e2 * strength * max(1.0, np.abs(w).max() if case.grows else 0.0)


@over(WITH_PROX)
def test_prox_of_extreme_weights_is_finite_and_at_strength_zero_the_identity(case: Case) -> None:
    """The identity to the digits of the largest number that takes part: an anchor, or the 1 of Orthogonal."""
    spread = tensor(spread_steps(MATRIX, 2, 1e-6, 1e2), "float32")
    for w, strength in zip(extreme_weights(), (0.0, 1e-30, 0.5, 1e6, 0.5, 1e6), strict=True):
        penalty, single = case.make(strength), tensor(w, "float32")
        for number in (0.015625, 6.0):
            assert np.isfinite(array(penalty.prox(single, number, strength))).all()
        if case.metric == "diagonal":
            assert np.isfinite(array(penalty.prox(single, spread, strength))).all()
    for size in (1e-40, 1e-30, 1e30) if case.make(0.0).strength_argument else ():
        w = np.where(case.held(MATRIX), 0.0, sample(MATRIX, 1)) * size
        w = w.astype("float32").astype("float64")
        taking_part = max(np.abs(case.start).max(), size if case.metric == "scalar" else 0.0, float(case.pulls_to_one))

        result = array(case.make(0.0).prox(tensor(w, "float32"), 0.5, 0.0))

        subnormal = 2e-38  # flushed to zero on some machines
        np.testing.assert_allclose(result, w, rtol=1e-6, atol=2e-6 * taking_part + subnormal)


@over(WITH_PROX)
def test_a_nan_weight_stays_nan(case: Case) -> None:
    """Its step may be NaN too, as that of Adam is."""
    penalty, w = case.make(0.5), sample(MATRIX, 12)
    w[1, 1] = w[2, 0] = np.nan
    spread = spread_steps(MATRIX, 13, 0.1, 1.0)
    spread[1, 1] = np.nan
    for step in [np.asarray(0.5), spread] if case.metric == "diagonal" else [np.asarray(0.5)]:
        result = array(penalty.prox(tensor(w), tensor(step), 0.5))

        assert np.isnan(result[np.isnan(w)]).all()


@over([case for case in SEVERAL if case.metric is not None])
def test_prox_and_gradient_keep_the_dtype_and_compute_in_float32_at_least(case: Case) -> None:
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        check_dtype(case, dtype)


def check_dtype(case: Case, dtype: str) -> None:
    narrow = "float32" if dtype == "float64" else dtype
    rounded = array(tensor(sample(MATRIX, 3, scale=2.0), narrow))
    w = tensor(rounded, narrow) if dtype != "float64" else ops.convert_to_tensor(rounded)  # float32 on JAX
    kept, penalty = keras.backend.standardize_dtype(w.dtype), case.make(0.5)
    precise = {side: array(actual) for side, actual in results(penalty, tensor(rounded), 0.5).items()}

    actual = results(penalty, w, 0.5)

    resolution = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(kept, 1e-5)
    for side in ("prox", "gradient"):
        assert keras.backend.standardize_dtype(actual[side].dtype) == kept, side
        scale = np.abs(precise[side]).max()
        np.testing.assert_allclose(array(actual[side]), precise[side], rtol=resolution, atol=1e-6 * max(1.0, scale))
    for side in ("value", "residual"):
        assert keras.backend.standardize_dtype(actual[side].dtype) in ("float32", "float64"), side
        np.testing.assert_allclose(array(actual[side]), precise[side], rtol=1e-5, atol=1e-5)


def results(penalty: poise.Penalty, w: Any, strength: float) -> dict[str, Any]:
    return {
        "value": penalty.value(w, strength),
        "gradient": penalty.gradient(w, strength),
        "prox": penalty.prox(w, 0.5, strength),
        "residual": penalty.residual(w, tensor(np.ones(w.shape), "float32"), strength),
    }


@over([case for case in WITH_PROX if case.name in ("GroupLasso-outputs", "MaxNorm", "Simplex", "TotalVariation")])
def test_steps_that_differ_by_orders_of_magnitude_are_exact_in_every_precision(case: Case) -> None:
    """A weight with a small step still moves if it is large, by as much as the precision shows."""
    assert case.prox is not None
    decades = 6 if PRECISE == "float32" else 13
    w = sample(MATRIX, 14) * 10.0
    step = np.where(np.arange(4)[:, None] % 2, 1.0, 10.0**-decades) * np.ones(MATRIX)
    expected, _ = case.prox(w, step, 0.5)
    assert_close(case.make(0.5).prox(tensor(w), tensor(step), 0.5), expected)


@over([case for case in ONE_EACH if case.prox])
def test_half_precision_does_not_overflow_on_the_way(case: Case) -> None:
    """L2(1e-4) of a 300 x 300 float16 tensor of tens is infinite in half precision; here it is 0.0001·Σ."""
    w = np.where(case.held(MATRIX), 0.0, np.full(MATRIX, 300.0))
    value = array(case.make(1e-4).value(tensor(w, "float16"), 1e-4))
    np.testing.assert_allclose(value, case.value(w, np.float64(np.float32(1e-4))), rtol=1e-4)


@over(SEVERAL)
def test_strength_may_be_traced(case: Case) -> None:
    """One compiled program for every strength (jax.jit, tf.function, a plain tensor on PyTorch)."""
    penalty, w, g = case.make(1.0), sample(MATRIX, 5), sample(MATRIX, 6)
    w = np.where(case.held(MATRIX), 0.0, w)

    def everything(point: object, force: object, strength: object) -> list:
        actual = [penalty.value(point, strength), penalty.gradient(point, strength)]
        actual.append(penalty.residual(point, force, strength))
        return actual if case.metric is None else [*actual, penalty.prox(point, 0.5, strength)]

    traced = autodiff.compiled(everything)
    for strength in (0.0, 0.25, 1.5):
        eager = everything(tensor(w), tensor(g), strength)
        for each, other in zip(traced(tensor(w), tensor(g), tensor(strength)), eager, strict=True):
            assert_close(each, array(other))


@over(SEVERAL)
def test_strengths_and_weights_may_be_a_batch_under_vmap(case: Case) -> None:
    penalty, w = case.make(1.0), tensor(sample(MATRIX, 7))
    several = [0.0, 0.25, 1.5]

    if case.metric is None:
        actual = autodiff.batched(lambda s: penalty.gradient(w * (1 + s), s), several)
        expected = [array(penalty.gradient(w * (1 + s), s)) for s in several]
    else:
        actual = autodiff.batched(lambda s: penalty.prox(w * (1 + s), 0.5, s), several)
        expected = [array(penalty.prox(w * (1 + s), 0.5, s)) for s in several]

    np.testing.assert_allclose(actual, np.stack(expected), rtol=1e-5, atol=10 * ABSOLUTE)


@over([case for case in SEVERAL if case.has_critical])
def test_critical_strength_may_be_traced(case: Case) -> None:
    g = np.where(case.free(MATRIX), 0.0, sample(MATRIX, 8))
    penalty = case.make(1.0)
    assert_close(autodiff.compiled(penalty.critical_strength)(tensor(g)), array(penalty.critical_strength(tensor(g))))


@over(ONE_EACH)
def test_numpy_arrays_are_taken_as_weights(case: Case) -> None:
    """A float64 array is float32 on JAX, and nobody is warned."""
    w, penalty = sample(MATRIX, 9), case.make(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, gradient = penalty.value(w, 0.5), penalty.gradient(w, 0.5)
    assert_close(value, case.value(w, 0.5))
    assert gradient.dtype == ops.convert_to_tensor(w).dtype


@over([case for case in ONE_EACH if case.metric is not None])
def test_variables_are_taken_as_weights(case: Case) -> None:
    variable = keras.Variable(sample(MATRIX, 10), dtype="float32")
    expected = results(case.make(0.5), tensor(array(variable), "float32"), 0.5)
    for side, actual in results(case.make(0.5), variable, 0.5).items():
        np.testing.assert_allclose(array(actual), array(expected[side]), rtol=1e-6, atol=1e-6, err_msg=side)


@pytest.mark.parametrize("kind", [poise.NuclearNorm, poise.Orthogonal, poise.MutualCoherence])
def test_a_factor_in_a_list_is_a_factor(kind: type) -> None:
    w = tensor(sample(MATRIX, 11))
    plain, listed = array(kind(1.0, factors=2.5).value(w, 1.0)), kind(1.0, factors=[2.5]).value(w, 1.0)
    np.testing.assert_array_equal(array(listed), plain)
