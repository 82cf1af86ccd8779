"""Value, gradient, prox, residual, critical strength and configuration agree with one another and the oracles.

Every test runs over the rows of oracles.penalties.CASES, on the backend of the process, and goes through the shapes of
the row. A penalty without a row, an export or a line in the docs fails the last test.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from oracles import autodiff, prox, subdifferential
from oracles.compare import ABSOLUTE, EPSILON, array, assert_close, sample, spread_steps, tensor
from oracles.penalties import CASES, MATRIX, WITH_PROX, Case

import poise
from poise import penalties

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "explanation" / "penalties.md", DOCS / "reference" / "penalties.md"]
STEPS = (0.0625, 0.75, 8.0)
STRENGTHS = (0.25, 1.5)
TOLERANCE = max(1e-8, 10 * ABSOLUTE)
ROUNDED = np.dtype(autodiff.PRECISE).type
DIAGONAL = [case for case in WITH_PROX if case.metric == "diagonal"]


def over(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def generic(case: Case, shape: tuple, strength: float, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    """Weights away from every kink and knot (by more than the finite differences reach)."""
    from_start = sample(shape, seed, scale)
    for knot in case.knots:
        close = np.abs(np.abs(from_start) - knot * strength) < 0.0625
        from_start = np.where(close, np.sign(from_start) * (knot * strength + 0.125), from_start)
    return from_start + case.start


def with_zeros(case: Case, shape: tuple, strength: float, seed: int = 1) -> np.ndarray:
    """Weights of which some are exactly zero (or at the start), also a whole output and a whole input."""
    from_start = generic(case, shape, strength, seed) - case.start
    from_start[..., 0] = 0.0
    from_start.reshape(-1)[::4] = 0.0
    if len(shape) > 1:
        from_start[..., 1, :] = 0.0
    return from_start + case.start


def feasible(case: Case, w: np.ndarray, strength: float) -> np.ndarray:
    """w with what is held at zero at zero, or the nearest point at which a constraint holds."""
    if case.constrains and case.prox is not None:
        nearest, _ = case.prox(w, np.ones(w.shape), strength)
        return nearest.astype(np.float32).astype(np.float64)
    return np.where(case.held(w.shape), 0.0, w)


# ---------------------------------------------------------------- value and gradient


@over(CASES)
def test_value_is_the_formula(case: Case) -> None:
    for shape in case.shapes:
        for strength in STRENGTHS:
            somewhere = generic(case, shape, strength)
            for w in (
                somewhere,
                with_zeros(case, shape, strength),
                np.zeros(shape),
                feasible(case, somewhere, strength),
            ):
                assert_close(case.make(strength).value(tensor(w), strength), case.value(w, strength))
    # 0.1 is not a binary fraction; in float64 it keeps all its digits.
    w = generic(case, MATRIX, 0.1)
    assert_close(case.make(0.1).value(tensor(w), 0.1), case.value(w, float(ROUNDED(0.1))))


@over([case for case in CASES if not case.constrains])
def test_gradient_is_the_derivative_of_the_formula_and_of_the_value(case: Case) -> None:
    """By finite differences of the oracle, and by autodiff of the value; zero where nothing pulls."""
    for shape in case.shapes:
        strength = STRENGTHS[len(shape) % 2]
        w = generic(case, shape, strength)
        gradient = array(case.make(strength).gradient(tensor(w), strength))
        expected = subdifferential.finite_difference(lambda u: case.value(u, strength), w)  # noqa: B023
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))
    strength = STRENGTHS[0]
    w, penalty = generic(case, MATRIX, strength), case.make(strength)
    expected = autodiff.gradient(lambda u: penalty.value(u, strength), w)
    assert_close(penalty.gradient(tensor(w), strength), expected, factor=10)
    assert not array(penalty.gradient(tensor(np.zeros(MATRIX) + case.start), strength)).any()


@over([case for case in CASES if case.metric is not None and not case.smooth])
def test_gradient_has_the_smallest_norm_of_all_subgradients(case: Case) -> None:
    """The distance of zero from the subdifferential, by the oracle, is the size of the gradient."""
    strength = STRENGTHS[0]
    w = feasible(case, with_zeros(case, MATRIX, strength), strength)
    smallest = case.distance(w, np.zeros(MATRIX), strength)

    sizes = np.abs(array(case.make(strength).gradient(tensor(w), strength)))

    if case.entries is None:  # one distance per group or matrix
        sizes, smallest = np.linalg.norm(sizes), np.linalg.norm(smallest)
    np.testing.assert_allclose(sizes, smallest, rtol=TOLERANCE, atol=TOLERANCE)


# ---------------------------------------------------------------- prox


def assert_prox(case: Case, w: np.ndarray, step: np.ndarray, arguments: object, strength: float) -> None:
    """No worse than brute force in what it minimizes, and where the minimizer is beyond doubt, the same."""
    assert case.prox is not None
    expected, decided = case.prox(w, step, strength)
    decided = np.broadcast_to(decided, w.shape)
    result = case.make(strength).prox(tensor(w), arguments, strength)

    assert_close(ops.where(decided, result, tensor(expected)), expected, factor=2)
    free = ~case.held(w.shape)
    reached, least = (
        prox.objective(case.value, np.where(free, u, 0.0), np.where(free, w, 0.0), step, strength)
        for u in (array(result), expected)
    )
    moved = (step > 0) & free
    rounding = 64 * EPSILON * abs(least) + np.sum((16 * EPSILON * w[moved]) ** 2 / step[moved])
    assert reached <= least + rounding


@over(WITH_PROX)
def test_prox_minimizes_by_brute_force_with_a_scalar_step(case: Case) -> None:
    for shape in case.shapes:
        strength = STRENGTHS[len(shape) % 2]
        w = generic(case, shape, strength, seed=2)
        for step in STEPS if shape == MATRIX else STEPS[1:2]:
            assert_prox(case, w, np.full(shape, step), step, strength)
    w = feasible(case, with_zeros(case, MATRIX, 0.25, seed=5), 0.25)
    assert_close(case.make(0.25).prox(tensor(w), 0.0, 0.25), w)
    # 0.1 and 0.3 are not binary fractions; in float64 they keep all their digits.
    w = generic(case, MATRIX, 0.1)
    assert case.prox is not None
    expected, _ = case.prox(w, np.full(MATRIX, float(ROUNDED(0.3))), float(ROUNDED(0.1)))
    assert_close(case.make(0.1).prox(tensor(w), 0.3, 0.1), expected)


@over(DIAGONAL)
def test_prox_minimizes_by_brute_force_with_a_step_per_entry(case: Case) -> None:
    """Also with steps that differ by eight decades within a group, as Adam's do, and with steps of zero."""
    for shape in case.shapes:
        strength = STRENGTHS[len(shape) % 2]
        w, step = with_zeros(case, shape, strength, seed=3), spread_steps(shape, seed=4, low=0.05, high=8.0)
        assert_prox(case, w, step, tensor(step), strength)
    for seed, strength in enumerate(STRENGTHS):
        w, step = generic(case, MATRIX, strength, seed), spread_steps(MATRIX, seed, low=1e-6, high=1e2)
        assert_prox(case, w, step, tensor(step), strength)
    w = feasible(case, with_zeros(case, MATRIX, 0.25, seed=5), 0.25)
    np.testing.assert_array_equal(array(case.make(0.25).prox(tensor(w), tensor(np.zeros(MATRIX)), 0.25)), w)
    step = spread_steps(MATRIX, seed=6, low=0.1, high=2.0)
    step[::2, ::2] = 0.0
    step[0, 0] = step[1, 1] = 0.0
    assert_prox(case, w, step, tensor(step), 0.25)


@over([case for case in WITH_PROX if (case.held(MATRIX) | case.free(MATRIX)).any()])
def test_prox_holds_entries_of_infinite_factor_at_zero_and_keeps_unpenalized_ones(case: Case) -> None:
    w, held, free = sample(MATRIX, 7), case.held(MATRIX), case.free(MATRIX)
    for strength, step in ((1.5, 0.5), (0.25, 1e-6), (1e-8, 1e-6), (1.5, 2.0)):
        moved = array(case.make(strength).prox(tensor(w), step, strength))
        assert not moved[held].any()
        np.testing.assert_array_equal(moved[free], w[free])


@pytest.mark.parametrize("decades", [(-2, 2), (-6, 2), (-8, 4)])
def test_group_prox_keeps_its_digits_up_to_its_threshold(decades: tuple) -> None:
    """Entry by entry, for a group of 40 of which weights and steps differ by decades, to the problem's condition."""
    w, shape = sample((40, 1), 20) * spread_steps((40, 1), 21, 1e-3, 1e3), (40, 1)
    w = w.astype(np.float32).astype(np.float64)
    step = spread_steps(shape, 22, *(10.0**decade for decade in decades))
    for share in (1e-8, 1e-4, 0.1, 0.5, 0.9, 0.99, 0.9999, 1.0001):
        strength = float(np.float32(share * np.linalg.norm(w / step)))  # at share 1 the whole group becomes zero
        expected = prox.grouped(w, step, strength, np.zeros(shape, dtype=int), np.ones(1))

        shrunk = array(poise.GroupLasso(factors=1.0).prox(tensor(w), tensor(step), strength))

        assert np.all((shrunk == 0) == (share > 1)), share
        np.testing.assert_allclose(shrunk, expected, rtol=16 * EPSILON / abs(1 - share), atol=0, err_msg=str(share))


@pytest.mark.parametrize("pull", 10.0 ** np.arange(-6, 7, 2))
def test_orthogonal_prox_finds_the_root_at_every_scale(pull: float) -> None:
    """u − σ + 4·step·s·u(u² − 1) = 0, its largest root; measured by what is left of the terms of the equation."""
    for size in (*10.0 ** np.arange(-6, 5, 2), 0.5, 0.9375, 1.0, 1.0625, 2.0):
        size, strength = (float(np.float32(number)) for number in (size, pull / 4))
        t = 4.0 * strength
        u = array(poise.Orthogonal().prox(tensor([[size, 0.0], [0.0, 0.0]]), 1.0, strength))[0, 0]
        assert abs(t * u**3 + (1 - t) * u - size) <= 8 * EPSILON * (t * u**3 + abs(1 - t) * u + size)
        roots = np.roots([t, 0.0, 1.0 - t, -size])
        largest = roots[np.abs(roots.imag) < 1e-6 * np.abs(roots).max()].real.max()
        np.testing.assert_allclose(u, largest, rtol=1e-3)


@over([case for case in CASES if case.exchangeable])
def test_entrywise_prox_is_right_along_the_whole_line(case: Case) -> None:
    """Also for steps so long that a non-convex prox jumps, and at the thresholds themselves."""
    w = np.linspace(-1.0, 8.0, 73)
    for step in (0.0625, 0.75, 2.0, 2.9375, 4.0, 16.0):
        assert_prox(case, w, np.full(w.shape, step), step, 1.0)


@over([case for case in CASES if case.peer_prox])
def test_prox_is_that_of_pyproximal(case: Case) -> None:
    assert case.peer_prox is not None
    for shape in (case.peer_shapes or case.shapes)[:2]:
        for strength, step in ((0.25, 0.125), (0.25, 1.0), (0.75, 1.0)):
            w = generic(case, shape, strength, seed=9)
            assert_close(case.make(strength).prox(tensor(w), step, strength), case.peer_prox(w, step, strength))


# ---------------------------------------------------------------- residual and critical strength


@over(CASES)
def test_residual_is_the_distance_from_the_subdifferential(case: Case) -> None:
    """Under a weak and a strong prediction gradient, with and without zeros among the weights."""
    for shape in case.shapes:
        strength = STRENGTHS[len(shape) % 2]
        penalty = case.make(strength)
        somewhere = generic(case, shape, strength)
        for w in (somewhere, with_zeros(case, shape, strength), feasible(case, somewhere, strength)):
            if case.metric is None and not w.all():
                continue  # a cosine has no derivative where a row is zero
            for scale in (0.25, 4.0):
                g = sample(shape, seed=10, scale=scale)
                residual = array(penalty.residual(tensor(w), tensor(g), strength))
                expected = case.distance(w, g, strength)
                assert residual.shape == expected.shape
                size = max(1.0, np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
                np.testing.assert_allclose(residual, expected, rtol=0, atol=max(1e-8, 5 * ABSOLUTE) * size)


@over([case for case in CASES if case.peer_distance])
def test_residual_is_that_of_skglm(case: Case) -> None:
    assert case.peer_distance is not None
    strength = STRENGTHS[0]
    for shape in case.shapes[:2]:
        w, g = with_zeros(case, shape, strength), sample(shape, seed=11)
        expected = case.peer_distance(w, g, strength)
        residual = case.make(strength).residual(tensor(w), tensor(g), strength)
        if expected.ndim == 1:
            residual = residual[: len(expected)]  # skglm knows no entries outside groups
        assert_close(residual, expected)


@over(WITH_PROX)
def test_residual_vanishes_where_the_proximal_gradient_method_ends(case: Case) -> None:
    """skglm's idea: zero at a fixed point only if prox and residual are of one mind."""
    strength = 0.25
    penalty, gradient_of = case.make(strength), quadratic(MATRIX)
    w = feasible(case, generic(case, MATRIX, strength), strength)
    step = np.float64(0.875) if case.metric == "scalar" else spread_steps(MATRIX, seed=12, low=0.7, high=0.9)
    arguments = tensor(step)

    for _ in range(120):
        before, w = w, array(penalty.prox(tensor(w - step * gradient_of(w)), arguments, strength))
        if np.abs(w - before).max() <= 2 * EPSILON * np.abs(w).max():
            break

    residual = array(penalty.residual(tensor(w), tensor(gradient_of(w)), strength))
    assert np.abs(residual).max() <= (1e-10 if EPSILON < 1e-10 else 1e-5)


def quadratic(shape: tuple) -> Callable[[np.ndarray], np.ndarray]:
    """The gradient of ½(u − b)ᵀA(u − b), A with its eigenvalues between 1 and 1.1 and not diagonal."""
    size, rng = int(np.prod(shape)), np.random.default_rng(13)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix, center = basis @ np.diag(np.linspace(1.0, 1.1, size)) @ basis.T, rng.normal(size=size)
    return lambda w: (matrix @ (w.reshape(-1) - center)).reshape(shape)


@over([case for case in CASES if case.has_critical])
def test_critical_strength_is_the_smallest_that_keeps_zero(case: Case) -> None:
    penalty = case.make(1.0)
    for shape in case.shapes:
        g, zero = penalized_gradient(case, shape), np.zeros(shape) + case.start
        expected = subdifferential.smallest_stationary(lambda s: np.max(case.distance(zero, g, s)))  # noqa: B023

        critical = penalty.critical_strength(tensor(g))

        assert_close(critical, expected)
        above, below = (float(array(critical)) * factor for factor in (1.0 + 8 * EPSILON, 1.0 - 1e-4))
        assert array(penalty.residual(tensor(zero), tensor(g), above)).max() <= 8 * EPSILON * np.abs(g).max()
        assert array(penalty.residual(tensor(zero), tensor(g), below)).max() > 0
    assert float(array(penalty.critical_strength(tensor(np.zeros(MATRIX))))) == 0.0


def penalized_gradient(case: Case, shape: tuple) -> np.ndarray:
    """A prediction gradient that is zero where nothing is penalized (no strength could balance it there)."""
    return case.balanced(np.where(case.free(shape), 0.0, sample(shape, seed=14)))


@over([case for case in CASES if case.peer_critical])
def test_critical_strength_is_that_of_skglm(case: Case) -> None:
    assert case.peer_critical is not None
    g = sample(MATRIX, seed=15)
    assert_close(case.make(1.0).critical_strength(tensor(g)), case.peer_critical(g))


@over([case for case in CASES if not case.has_critical])
def test_no_strength_is_critical_where_none_holds_zero(case: Case) -> None:
    assert case.make(1.0).critical_strength(tensor(sample(MATRIX, 16))) is None


# ---------------------------------------------------------------- Keras


@over([case for case in CASES if not case.constrains])
def test_penalty_is_a_plain_keras_regularizer(case: Case) -> None:
    strength = 0.375
    kernel = feasible(case, with_zeros(case, MATRIX, strength), strength)
    penalty = case.make(strength)
    layer = keras.layers.Dense(3, kernel_regularizer=penalty, dtype=autodiff.PRECISE)
    layer.build((None, 4))
    layer.kernel.assign(kernel)

    (loss,) = layer.losses
    gradient = autodiff.penalty_gradient(layer)

    assert_close(loss, case.value(kernel, strength))
    np.testing.assert_array_equal(gradient, array(penalty.gradient(tensor(kernel), strength)))


@over(
    [
        case
        for case in CASES
        if case.name in ("L2", "ElasticNet", "L1", "MutualCoherence-rows", "MutualCoherence-columns")
    ]
)
def test_value_and_gradient_are_those_of_keras_own_regularizer(case: Case) -> None:
    w = sample(MATRIX, 18)
    regularizer = {
        "L1": keras.regularizers.L1(0.5),
        "L2": keras.regularizers.L2(0.5),
        "ElasticNet": keras.regularizers.L1L2(l1=0.5, l2=0.25),
        "MutualCoherence-rows": keras.regularizers.OrthogonalRegularizer(0.5, mode="rows"),
        "MutualCoherence-columns": keras.regularizers.OrthogonalRegularizer(1.0, mode="columns"),
    }[case.name]

    single, penalty = tensor(w, "float32"), case.make(0.5)
    slope = autodiff.gradient(regularizer, w, "float32")
    np.testing.assert_allclose(array(penalty.value(single, 0.5)), array(regularizer(single)), rtol=1e-5)
    np.testing.assert_allclose(array(penalty.gradient(single, 0.5)), slope, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- scales of other libraries


def test_from_weight_decay_is_half_of_it() -> None:
    assert poise.L2.from_weight_decay(0.01).strength == 0.005


def test_from_sklearn_is_the_penalty_of_sklearn_times_the_scale_of_the_loss() -> None:
    """Lasso minimizes half of the mean squared error plus α‖w‖₁; log-loss has no half."""
    w = sample((6,), 19)
    lasso, both = 0.3 * np.abs(w).sum(), 0.3 * (0.25 * np.abs(w).sum() + 0.75 / 2 * (w**2).sum())
    for loss, scale in (("mse", 2.0), ("log_loss", 1.0)):
        l1 = poise.L1.from_sklearn(0.3, loss=loss)
        elastic_net = poise.ElasticNet.from_sklearn(0.3, 0.25, loss=loss)
        assert_close(l1.value(tensor(w), l1.strength), scale * lasso)
        assert_close(elastic_net.value(tensor(w), elastic_net.strength), scale * both)


# ---------------------------------------------------------------- completeness


def public_penalties() -> list[type]:
    exported = [getattr(penalties, name) for name in penalties.__all__ if name in poise.__all__]
    return [kind for kind in exported if inspect.isclass(kind) and issubclass(kind, poise.Penalty)
            and kind is not poise.Penalty]  # fmt: skip


def every_penalty() -> list[type]:
    """Also those that someone wrote and forgot to export."""
    actual, waiting = [], [poise.Penalty]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if (
            kind.__module__.startswith("poise.penalties.")
            and not kind.__subclasses__()
            and not inspect.isabstract(kind)
        ):
            actual.append(kind)
    return actual


@pytest.mark.parametrize("kind", every_penalty(), ids=lambda kind: kind.__name__)
def test_every_penalty_has_an_export_a_row_in_the_table_and_a_line_in_the_docs(kind: type) -> None:
    assert kind in public_penalties()
    assert any(type(case.make(1.0)) is kind for case in CASES), f"{kind.__name__} needs a row in oracles/penalties.py"
    for page in PAGES:
        assert re.search(rf"\b{kind.__name__}\b", page.read_text(encoding="utf-8")), f"{page} does not mention it"
