"""Least squares under constraints, the fused lasso and SLOPE, by solvers that are not poise's.

The loss is mean((Xw − y)²).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear, minimize, nnls
from skglm.penalties import SLOPE

import poise

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 8)).astype("float32")
Y = (X @ [2.0, -1.0, 0.0, 1.5, 0.0, 0.25, -0.5, 0.75] + 0.25 * RANDOM.normal(size=40)).astype("float32")


def mean_square(w: np.ndarray) -> float:
    return float(np.mean((X.astype("float64") @ w - Y) ** 2))


def solve_nonnegative() -> np.ndarray:
    return nnls(X.astype("float64"), Y)[0]


def solve_box() -> np.ndarray:
    return lsq_linear(X.astype("float64"), Y, bounds=(-0.25, 1.0), tol=1e-14).x


def solve_max_norm() -> np.ndarray:
    ball = {"type": "ineq", "fun": lambda w: 1.0 - w @ w}
    return minimize(mean_square, np.zeros(8), method="SLSQP", constraints=[ball], options={"ftol": 1e-14}).x


def solve_simplex() -> np.ndarray:
    total = {"type": "eq", "fun": lambda w: w.sum() - 2.0}
    settings = {"method": "SLSQP", "bounds": [(0, None)] * 8, "options": {"ftol": 1e-14, "maxiter": 500}}
    return minimize(mean_square, np.full(8, 0.25), constraints=[total], **settings).x


def solve_fused_lasso() -> np.ndarray:
    """w = start + Σ rises − Σ falls, which makes the penalty linear in variables with bounds."""
    steps = np.tril(np.ones((8, 8)))
    basis = np.concatenate([steps, -steps[:, 1:]], axis=1)
    prices = np.r_[0.0, np.ones(14)]
    bounds = [(None, None), *[(0, None)] * 14]
    settings: dict[str, Any] = {"method": "L-BFGS-B", "bounds": bounds, "options": {"ftol": 1e-15, "gtol": 1e-9}}

    def cost(z: np.ndarray) -> tuple[float, np.ndarray]:
        error = X.astype("float64") @ (basis @ z) - Y
        return np.mean(error**2) + prices @ z, 2 / len(X) * basis.T @ (X.T @ error) + prices

    return basis @ minimize(cost, np.zeros(15), jac=True, **settings).x


def solve_slope() -> np.ndarray:
    """Proximal gradient steps with the prox of skglm."""
    peer, w = SLOPE(ALPHAS), np.zeros(8)
    step = len(X) / (2 * np.linalg.norm(X, 2) ** 2)
    for _ in range(3000):
        w = peer.prox_vec(w - step * 2 / len(X) * X.T @ (X @ w - Y), step)
    return w


def solve_on(kept: np.ndarray) -> np.ndarray:
    """Least squares of some columns, zero elsewhere."""
    w = np.zeros(8)
    w[kept] = np.linalg.lstsq(X[:, kept].astype("float64"), Y, rcond=None)[0]
    return w


ALPHAS = np.arange(8, 0, -1) / 4.0
"""The sequence of SLOPE."""

PENALTIES: dict[str, poise.Penalty] = {
    "non-negative": poise.NonNegative(),
    "box": poise.Box(-0.25, 1.0),
    "max-norm": poise.MaxNorm(1.0),
    "simplex": poise.Simplex(2.0),
    "top-k": poise.TopK(0.5),
    "n-of-m": poise.NofM(),
    "fused-lasso": poise.TotalVariation(),
    "slope": poise.Slope(alphas=ALPHAS),
}
"""The penalties of the problems, for a kernel of shape (8, 1)."""

SOLVERS: dict[str, Callable[[], np.ndarray]] = {
    "non-negative": solve_nonnegative,
    "box": solve_box,
    "max-norm": solve_max_norm,
    "simplex": solve_simplex,
    "fused-lasso": solve_fused_lasso,
    "slope": solve_slope,
}
HOLDS: dict[str, Callable[[np.ndarray], Any]] = {
    "non-negative": lambda w: w.min() >= 0,
    "box": lambda w: w.min() >= -0.25 and w.max() <= 1.0,
    "max-norm": lambda w: np.linalg.norm(w) <= 1.0 + 1e-6,
    "simplex": lambda w: w.min() >= 0 and abs(w.sum() - 2.0) <= 1e-6,
    "top-k": lambda w: np.count_nonzero(w) == 4,
    "n-of-m": lambda w: np.count_nonzero(w[:4]) == 2 and np.count_nonzero(w[4:]) == 2,
}
"""Whether the constraint of this name holds, up to rounding errors of float32."""


def solution(name: str, w: np.ndarray) -> np.ndarray:
    """The weights at which training with a penalty ends; those of a sparse one depend on which weights it keeps."""
    return SOLVERS[name]() if name in SOLVERS else solve_on(np.flatnonzero(w))
