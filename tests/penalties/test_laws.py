"""What holds for every penalty, whatever the numbers (Hypothesis, derandomized). Formulas only: on one backend."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles.compare import EPSILON, array, assert_close, sample, spread_steps, tensor
from oracles.penalties import CASES, MATRIX, VARIED, Case

import poise

few = settings(derandomize=True, deadline=None, max_examples=8, database=None)

numbers = st.floats(-16.0, 16.0, width=32, allow_subnormal=False)
matrices = arrays(np.float64, MATRIX, elements=numbers)
strengths = st.sampled_from([0.03125, 0.25, 1.0, 3.5])
steps = st.sampled_from([0.015625, 0.5, 1.0, 6.0])


def over(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def step_for(case: Case, number: float, seed: int = 0) -> np.ndarray:
    """A diagonal metric where the penalty has one, else the number."""
    return spread_steps(MATRIX, seed, number / 4, number * 4) if case.metric == "diagonal" else np.asarray(number)


@over([case for case in VARIED if case.convex and case.prox])
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


@over([case for case in VARIED if case.prox and case.make(0.0).strength_argument])
@given(w=matrices, number=steps)
@few
def test_prox_of_strength_zero_is_the_identity(case: Case, w: np.ndarray, number: float) -> None:
    w = np.where(case.held(MATRIX), 0.0, w)
    result = array(case.make(0.0).prox(tensor(w), tensor(step_for(case, number)), 0.0))
    np.testing.assert_allclose(result, w, rtol=4 * EPSILON, atol=32 * EPSILON * np.abs(w).max())


@over([case for case in VARIED if case.homogeneous])
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


@over([case for case in VARIED if case.homogeneous])
def test_scaling_weights_scales_a_homogeneous_value_and_keeps_its_gradient(case: Case) -> None:
    w, penalty = sample(MATRIX, 4), case.make(0.5)
    value, gradient = array(penalty.value(tensor(w), 0.5)), array(penalty.gradient(tensor(w), 0.5))
    for factor in (2.0**-100, 2.0**-40, 2.0**40, 2.0**90):
        assert_close(array(penalty.value(tensor(w * factor), 0.5)) / factor, value)
        assert_close(penalty.gradient(tensor(w * factor), 0.5), gradient)


@over([case for case in VARIED if case.exchangeable])
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


@over([case for case in VARIED if case.entries is not None and np.ndim(case.start) == 0])
@given(w=matrices, part=arrays(bool, MATRIX), strength=strengths)
@few
def test_value_of_an_entrywise_penalty_adds_up_over_entries(
    case: Case, w: np.ndarray, part: np.ndarray, strength: float
) -> None:
    penalty = case.make(strength)
    pieces = [array(penalty.value(tensor(np.where(mask, w, 0.0)), strength)) for mask in (part, ~part)]
    assert_close(penalty.value(tensor(w), strength), sum(pieces))


@over([case for case in VARIED if case.prox])
@given(w=matrices, strength=strengths, number=steps)
@few
def test_prox_never_raises_what_it_minimizes(case: Case, w: np.ndarray, strength: float, number: float) -> None:
    """Not above the objective of staying at w, which is the penalty's value there."""
    w = np.where(case.held(MATRIX), 0.0, w)
    penalty = case.make(strength)
    result = array(penalty.prox(tensor(w), number, strength))

    reached = np.sum((result - w) ** 2) / (2 * number) + case.value(result, strength)

    stay = case.value(w, strength)
    assert reached <= stay + 64 * EPSILON * (stay + np.sum(w**2) / number * EPSILON)


@over(CASES)
def test_sizes_are_those_of_what_a_large_strength_brings_to_zero(case: Case) -> None:
    """Also of what is held at zero; nothing where a penalty brings nothing to zero. NofM keeps n of m weights."""
    penalty, w = case.make(1e6), tensor(sample(MATRIX, 3))
    sizes = penalty.sizes(w)
    if sizes is None:
        without = (poise.NuclearNorm, poise.MutualCoherence, poise.Anchored, poise.TotalVariation)
        assert case.smooth or case.constrains or isinstance(penalty, without)
        return
    assert not case.smooth
    assert np.all(array(sizes) > 0)

    vanished = penalty.sizes(penalty.prox(w, 1.0, 1e6))

    share = 1.0 - penalty.n / penalty.m if isinstance(penalty, poise.NofM) else 1.0
    assert np.mean(array(vanished) == 0) == pytest.approx(share)
