"""What holds for every penalty, whatever the numbers (Hypothesis, derandomized)."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from oracles import autodiff
from oracles.compare import ABSOLUTE, EPSILON, array, assert_close, sample, spread_steps, tensor
from oracles.penalties import CASES, CONVEX, MATRIX, ONE_EACH, WITH_PROX, Case

import poise

SEVERAL = [*ONE_EACH, *(case for case in CASES if "lists" in case.name)]
LARGEST = float(np.finfo("float32").max)

few = settings(derandomize=True, deadline=None, max_examples=8, database=None)

numbers = st.floats(-16.0, 16.0, width=32, allow_subnormal=False)
matrices = arrays(np.float64, MATRIX, elements=numbers)
strengths = st.sampled_from([0.03125, 0.25, 1.0, 3.5])
steps = st.sampled_from([0.015625, 0.5, 1.0, 6.0])
extremes = [0.0, -0.0, 1e-45, -1e-40, 1e-38, -1e-30, 1e-20, -1e-10, 1.0, -1.0, 3.5, 1e4, -1e10, 1e19, 1e30]
wide = arrays(np.float64, MATRIX, elements=st.sampled_from(extremes))


def over(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def step_for(case: Case, number: float, seed: int = 0) -> np.ndarray:
    """A diagonal metric where the penalty has one, else the number."""
    return spread_steps(MATRIX, seed, number / 4, number * 4) if case.metric == "diagonal" else np.asarray(number)


@over(CONVEX)
@given(x=matrices, y=matrices, strength=strengths, number=steps)
@few
def test_prox_of_a_convex_penalty_is_firmly_non_expansive(
    case: Case, x: np.ndarray, y: np.ndarray, strength: float, number: float
) -> None:
    """⟨P(x) − P(y), x − y⟩ >= ‖P(x) − P(y)‖² in the metric 1/step (Moreau 1965)."""
    step, penalty = step_for(case, number), case.make(strength)
    images = [array(penalty.prox(tensor(point), tensor(step), strength)) for point in (x, y)]

    moved, apart = images[0] - images[1], x - y

    scale = np.sum((np.abs(x) + np.abs(y)) * (np.abs(apart) + np.abs(moved)) / step)
    assert np.sum(moved * apart / step) >= np.sum(moved**2 / step) - 16 * EPSILON * scale


@over(WITH_PROX)
@given(w=matrices, number=steps)
@few
def test_prox_of_strength_zero_is_the_identity(case: Case, w: np.ndarray, number: float) -> None:
    w = np.where(case.held(MATRIX), 0.0, w)
    found = array(case.make(0.0).prox(tensor(w), tensor(step_for(case, number)), 0.0))
    np.testing.assert_allclose(found, w, rtol=4 * EPSILON, atol=32 * EPSILON * np.abs(w).max())


@over(WITH_PROX)
@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e30])
def test_prox_of_strength_zero_is_the_identity_at_every_size(case: Case, size: float) -> None:
    """To the digits of the largest number that takes part: an anchor, or the 1 that Orthogonal pulls to."""
    w = np.where(case.held(MATRIX), 0.0, sample(MATRIX, 1)) * size
    w = w.astype("float32").astype("float64")
    taking_part = max(np.abs(case.start).max(), size if case.metric == "scalar" else 0.0, float(case.pulls_to_one))

    found = array(case.make(0.0).prox(tensor(w, "float32"), 0.5, 0.0))

    subnormal = 2e-38  # flushed to zero on some machines
    np.testing.assert_allclose(found, w, rtol=1e-6, atol=2e-6 * taking_part + subnormal)


@over(CASES)
@given(w=wide, strength=st.sampled_from([0.0, 1e-30, 0.5, 1e6]))
@few
def test_value_and_forces_are_finite_where_float32_can_hold_them(case: Case, w: np.ndarray, strength: float) -> None:
    """Nothing overflows or turns NaN on the way. (Orthogonal is a quartic: 1e8 is its end.)"""
    w = np.clip(w, -1e8, 1e8) if case.pulls_to_one else w
    penalty, single = case.make(strength), tensor(w, "float32")

    value = array(penalty.value(single, strength))
    gradient = array(penalty.gradient(single, strength))
    residual = array(penalty.residual(single, ops.ones_like(single), strength))

    for found in (value, gradient, residual):
        assert not np.isnan(found).any()
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
@given(w=wide, strength=st.sampled_from([0.0, 1e-30, 0.5, 1e6]), number=steps)
@few
def test_prox_of_finite_weights_is_finite(case: Case, w: np.ndarray, strength: float, number: float) -> None:
    penalty, single = case.make(strength), tensor(w, "float32")
    assert np.isfinite(array(penalty.prox(single, number, strength))).all()
    if case.metric == "diagonal":
        spread = tensor(spread_steps(MATRIX, 2, 1e-6, 1e2), "float32")
        assert np.isfinite(array(penalty.prox(single, spread, strength))).all()


@over([case for case in SEVERAL if case.metric is not None])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_prox_and_gradient_keep_the_dtype_and_compute_in_float32_at_least(case: Case, dtype: str) -> None:
    narrow = "float32" if dtype == "float64" else dtype
    rounded = array(tensor(sample(MATRIX, 3, scale=2.0), narrow))
    w = tensor(rounded, narrow) if dtype != "float64" else ops.convert_to_tensor(rounded)  # float32 on JAX
    kept, penalty = keras.backend.standardize_dtype(w.dtype), case.make(0.5)
    precise = {side: array(found) for side, found in results(penalty, tensor(rounded), 0.5).items()}

    found = results(penalty, w, 0.5)

    resolution = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(kept, 1e-5)
    for side in ("prox", "gradient"):
        assert keras.backend.standardize_dtype(found[side].dtype) == kept, side
        scale = np.abs(precise[side]).max()
        np.testing.assert_allclose(array(found[side]), precise[side], rtol=resolution, atol=1e-6 * max(1.0, scale))
    for side in ("value", "residual"):
        assert keras.backend.standardize_dtype(found[side].dtype) in ("float32", "float64"), side
        np.testing.assert_allclose(array(found[side]), precise[side], rtol=1e-5, atol=1e-5)


def results(penalty: object, w: object, strength: float) -> dict:
    return {
        "value": penalty.value(w, strength),
        "gradient": penalty.gradient(w, strength),
        "prox": penalty.prox(w, 0.5, strength),
        "residual": penalty.residual(w, tensor(np.ones(w.shape), "float32"), strength),
    }


@over(WITH_PROX)
def test_half_precision_does_not_overflow_on_the_way(case: Case) -> None:
    """L2(1e-4) of a 300 x 300 float16 tensor of tens is infinite in half precision; here it is 0.0001·Σ."""
    w = np.where(case.held(MATRIX), 0.0, np.full(MATRIX, 300.0))
    value = array(case.make(1e-4).value(tensor(w, "float16"), 1e-4))
    np.testing.assert_allclose(value, case.value(w, np.float64(np.float32(1e-4))), rtol=1e-4)


@over([case for case in CASES if case.homogeneous])
@given(w=matrices, exponent=st.sampled_from([-100, -40, -3, 5, 40, 90]), number=steps)
@few
def test_scaling_weights_and_strength_scales_a_homogeneous_prox(
    case: Case, w: np.ndarray, exponent: int, number: float
) -> None:
    """prox of t·s at t·w is t times prox of s at w, for R(t·w) = t·R(w); powers of two change no digit."""
    factor, penalty, step = 2.0**exponent, case.make(0.5), tensor(step_for(case, number))

    plain = array(penalty.prox(tensor(w), step, 0.5))
    scaled = array(penalty.prox(tensor(w * factor), step, 0.5 * factor)) / factor

    tolerance = 1e-5 if EPSILON > 1e-10 else 1e-11
    np.testing.assert_allclose(scaled, plain, rtol=tolerance, atol=tolerance * max(1e-6, np.abs(w).max()))


@over([case for case in CASES if case.homogeneous])
@pytest.mark.parametrize("exponent", [-100, -40, 40, 90])
def test_scaling_weights_scales_a_homogeneous_value_and_keeps_its_gradient(case: Case, exponent: int) -> None:
    w, factor, penalty = sample(MATRIX, 4), 2.0**exponent, case.make(0.5)
    assert_close(array(penalty.value(tensor(w * factor), 0.5)) / factor, array(penalty.value(tensor(w), 0.5)))
    assert_close(penalty.gradient(tensor(w * factor), 0.5), array(penalty.gradient(tensor(w), 0.5)))


@over([case for case in CASES if case.exchangeable])
@given(w=matrices, strength=strengths, number=steps, order=st.permutations(range(12)))
@few
def test_entrywise_penalties_ignore_sign_and_order(
    case: Case, w: np.ndarray, strength: float, number: float, order: list
) -> None:
    penalty = case.make(strength)

    def everything(point: np.ndarray) -> list[np.ndarray]:
        given = tensor(point)
        return [array(penalty.gradient(given, strength)), array(penalty.prox(given, number, strength))]

    def shuffled(point: np.ndarray) -> np.ndarray:
        return point.reshape(-1)[order].reshape(MATRIX)

    for plain, mirrored, moved in zip(everything(w), everything(-w), everything(shuffled(w)), strict=True):
        np.testing.assert_array_equal(mirrored, -plain)
        np.testing.assert_array_equal(moved, shuffled(plain))
    assert_close(penalty.value(tensor(-shuffled(w)), strength), array(penalty.value(tensor(w), strength)))


@over([case for case in CASES if case.entries is not None and np.ndim(case.start) == 0])
@given(w=matrices, part=arrays(bool, MATRIX), strength=strengths)
@few
def test_value_of_an_entrywise_penalty_adds_up_over_entries(
    case: Case, w: np.ndarray, part: np.ndarray, strength: float
) -> None:
    penalty = case.make(strength)
    pieces = [array(penalty.value(tensor(np.where(mask, w, 0.0)), strength)) for mask in (part, ~part)]
    assert_close(penalty.value(tensor(w), strength), sum(pieces))


@over(WITH_PROX)
@given(w=matrices, strength=strengths, number=steps)
@few
def test_prox_never_raises_what_it_minimizes(case: Case, w: np.ndarray, strength: float, number: float) -> None:
    """Not above the objective of staying at w, which is the penalty's value there."""
    w = np.where(case.held(MATRIX), 0.0, w)
    penalty = case.make(strength)
    found = array(penalty.prox(tensor(w), number, strength))

    reached = np.sum((found - w) ** 2) / (2 * number) + case.value(found, strength)

    stay = case.value(w, strength)
    assert reached <= stay + 64 * EPSILON * (stay + np.sum(w**2) / number * EPSILON)


@over(SEVERAL)
def test_strength_may_be_traced(case: Case) -> None:
    """One compiled program for every strength (jax.jit, tf.function, a plain tensor on PyTorch)."""
    penalty, w, g = case.make(1.0), sample(MATRIX, 5), sample(MATRIX, 6)
    w = np.where(case.held(MATRIX), 0.0, w)

    def everything(point: object, force: object, strength: object) -> list:
        found = [penalty.value(point, strength), penalty.gradient(point, strength)]
        found.append(penalty.residual(point, force, strength))
        return found if case.metric is None else [*found, penalty.prox(point, 0.5, strength)]

    traced = autodiff.compiled(everything)
    for strength in (0.0, 0.25, 1.5):
        eager = everything(tensor(w), tensor(g), strength)
        for one, other in zip(traced(tensor(w), tensor(g), tensor(strength)), eager, strict=True):
            assert_close(one, array(other))


@over(SEVERAL)
def test_strengths_and_weights_may_be_a_batch_under_vmap(case: Case) -> None:
    penalty, w = case.make(1.0), tensor(sample(MATRIX, 7))
    several = [0.0, 0.25, 1.5]

    if case.metric is None:
        found = autodiff.batched(lambda s: penalty.gradient(w * (1 + s), s), several)
        expected = [array(penalty.gradient(w * (1 + s), s)) for s in several]
    else:
        found = autodiff.batched(lambda s: penalty.prox(w * (1 + s), 0.5, s), several)
        expected = [array(penalty.prox(w * (1 + s), 0.5, s)) for s in several]

    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=10 * ABSOLUTE)


@over([case for case in SEVERAL if case.has_critical])
def test_critical_strength_may_be_traced(case: Case) -> None:
    g = np.where(case.free(MATRIX), 0.0, sample(MATRIX, 8))
    penalty = case.make(1.0)
    assert_close(autodiff.compiled(penalty.critical_strength)(tensor(g)), array(penalty.critical_strength(tensor(g))))


@over(CASES)
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
    for side, found in results(case.make(0.5), variable, 0.5).items():
        np.testing.assert_allclose(array(found), array(expected[side]), rtol=1e-6, atol=1e-6, err_msg=side)


@pytest.mark.parametrize("kind", [poise.NuclearNorm, poise.Orthogonal, poise.MutualCoherence])
def test_a_weight_in_a_list_is_a_weight(kind: type) -> None:
    w = tensor(sample(MATRIX, 11))
    plain, weighted = array(kind(1.0, factors=2.5).value(w, 1.0)), kind(1.0, factors=[2.5]).value(w, 1.0)
    np.testing.assert_array_equal(array(weighted), plain)


@over(CASES)
def test_sizes_are_those_of_what_a_large_strength_brings_to_zero(case: Case) -> None:
    """Also of what is held at zero; nothing where a penalty brings nothing to zero."""
    penalty, w = case.make(1e6), tensor(sample(MATRIX, 3))
    sizes = penalty.sizes(w)
    if sizes is None:
        assert case.smooth or isinstance(penalty, (poise.NuclearNorm, poise.MutualCoherence, poise.Anchored))
        return
    assert not case.smooth
    assert np.all(array(sizes) > 0)

    vanished = penalty.sizes(penalty.prox(w, 1.0, 1e6))

    assert np.all(array(vanished) == 0)
