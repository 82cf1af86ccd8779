"""The references themselves: a brute-force prox that nothing nearby beats, and group values by hand."""

import numpy as np
import pytest
from oracles import prox, values
from oracles.compare import sample, spread_steps
from oracles.penalties import MATRIX, WITH_PROX, Case
from scipy.optimize import minimize

over_cases = pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in WITH_PROX])


def problem(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    is_scalar = case.metric == "scalar" or case.ignores_steps
    step = np.full(MATRIX, 0.75) if is_scalar else spread_steps(MATRIX, seed, 1e-2, 1e1)
    return np.where(case.held(MATRIX), 0.0, sample(MATRIX, seed)), step


@over_cases
def test_no_point_nearby_or_far_beats_the_brute_force_prox(case: Case) -> None:
    for seed in range(3):
        check_brute_force(case, seed)


def check_brute_force(case: Case, seed: int) -> None:
    w, step = problem(case, seed)
    assert case.prox is not None
    best, _ = case.prox(w, step, 0.5)
    least = prox.objective(case.value, best, w, step, 0.5)

    rng = np.random.default_rng(seed)
    for width in (1e-6, 1e-4, 1e-2, 1.0):
        for _ in range(50):
            direction = rng.normal(size=MATRIX) * (rng.random(MATRIX) < rng.random())
            other = best + np.where(case.held(MATRIX), 0.0, width * direction)
            if case.constrains:
                other = case.prox(other, np.ones(MATRIX), 0.5)[0]  # a point nearby where it holds
            assert prox.objective(case.value, other, w, step, 0.5) >= least - 1e-14 * abs(least)


EXACT = ("GroupLasso-lists", "SparseGroupLasso-held-and-free", "NuclearNorm", "Orthogonal", "Smoothness-weights")


@pytest.mark.parametrize("case", [case for case in WITH_PROX if case.name in EXACT], ids=EXACT)
def test_scipy_finds_nothing_better_from_many_starts(case: Case) -> None:
    """One row for each reference that is an exact method and not a search over the value alone."""
    w, step = problem(case, seed=4)
    free = ~case.held(MATRIX)
    assert case.prox is not None
    best, _ = case.prox(w, step, 0.5)
    least = prox.objective(case.value, best, w, step, 0.5)

    def cost(u: np.ndarray) -> float:
        return prox.objective(case.value, np.where(free, u.reshape(MATRIX), 0.0), w, step, 0.5)

    starts = [w, sample(MATRIX, 5), sample(MATRIX, 6)]
    result = [minimize(cost, u.reshape(-1), method="L-BFGS-B", options={"maxiter": 100}).fun for u in starts]

    assert min(result) >= least - 1e-12 * abs(least)
    assert min(result) <= least * (1 + 1e-3) + 1e-3


def test_groups_by_hand() -> None:
    w = np.array([[3.0, 0.0], [4.0, 2.0], [0.0, 1.0]])
    root = np.sqrt
    assert values.grouped(w, 2.0, "outputs") == pytest.approx(2 * root(3) * (5 + root(5)))
    assert values.grouped(w, 1.0, "inputs") == pytest.approx(root(2) * (3 + root(20) + 1))
    assert values.grouped(w, 1.0, [[0, 2]], weights=[1.0]) == pytest.approx(root(10))
    assert values.grouped(w, 1.0, "outputs", weights=[np.inf, 1.0], l1_ratio=0.5) == pytest.approx(0.5 * (3 + root(5)))


def test_concave_values_by_hand() -> None:
    """MCP is flat at γs²/2 beyond γs, SCAD at s²(γ + 1)/2."""
    u = np.array([0.5, 2.0, 100.0])
    np.testing.assert_allclose(values.mcp(u, 1.0, gamma=3.0), [0.5 - 0.25 / 6, 2.0 - 4.0 / 6, 1.5])
    np.testing.assert_allclose(values.scad(u, 1.0, gamma=3.0), [0.5, (12.0 - 4.0 - 1.0) / 4.0, 2.0])
