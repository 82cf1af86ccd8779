"""Penalties of a whole matrix: its rank, its orthogonality, the angles between its rows.

A variable is read as the matrix (all other axes, outputs), so that the filters of a convolution are columns. The type
of the layer decides which axes hold the outputs (see docs/explanation/penalties.md). Outside an optimizer it is the
last axis.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties.axes import Axes, Sides
from poise.penalties.base import PACKAGE, Penalty
from poise.penalties.precision import machine_epsilon, smallest_normal

NEWTON_STEPS = 16


@keras.saving.register_keras_serializable(PACKAGE)
class NuclearNorm(Penalty):
    """Penalize strength · c · ‖W‖_*, the sum of singular values. Its prox thresholds them and so lowers the rank.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        factors: One finite factor c for the matrix. Default: None, for 1.

    References:
        Cai, Candès and Shen 2010, "A singular value thresholding algorithm", theorem 2.1.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([[3.0, 0.0], [0.0, 0.5]])
        >>> print(keras.ops.convert_to_numpy(poise.NuclearNorm().prox(w, step=1.0, strength=1.0)))
        [[2. 0.]
         [0. 0.]]
    """

    metric = "scalar"
    handles_nan = False

    def check(self, shape: Sequence[int]) -> None:
        _check_matrix(self, shape)

    def _value(self, w: Any, strength: Any) -> Any:
        sizes = ops.linalg.svd(_as_matrix(self, w), compute_uv=False)
        return _factor(self) * strength * ops.sum(sizes)

    def _gradient(self, w: Any, strength: Any) -> Any:
        u, sizes, v = _singular(_as_matrix(self, w))
        sign = ops.matmul(u * _is_live(sizes, w), v)
        return _factor(self) * strength * _as_tensor(self, sign, w.shape)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        u, sizes, v = _singular(_as_matrix(self, w))
        shrunk = ops.maximum(sizes - step * _factor(self) * strength, 0.0)
        return _as_tensor(self, ops.matmul(u * shrunk, v), w.shape)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        """‖−G − sUVᵀ − M‖_F, a scalar, for the nearest M with UᵀM = 0, MV = 0 and ‖M‖₂ ≤ s (Watson 1992)."""
        threshold = _factor(self) * strength
        u, sizes, v = _singular(_as_matrix(self, w))
        live = _is_live(sizes, w)
        u, v = u * live, ops.transpose(v) * live
        g = _as_matrix(self, gradient)
        without_u = g - ops.matmul(u, ops.matmul(ops.transpose(u), g))
        across = without_u - ops.matmul(ops.matmul(without_u, v), ops.transpose(v))
        tangent = g - across + threshold * ops.matmul(u, ops.transpose(v))
        excess = ops.maximum(ops.linalg.svd(across, compute_uv=False) - threshold, 0.0)
        return ops.sqrt(ops.sum(ops.square(tangent)) + ops.sum(ops.square(excess)))

    def _critical_strength(self, gradient: Any) -> Any:
        """The largest singular value of the gradient."""
        return ops.max(ops.linalg.svd(_as_matrix(self, gradient), compute_uv=False)) / _factor(self)


@keras.saving.register_keras_serializable(PACKAGE)
class Orthogonal(Penalty):
    """Penalize strength · c · Σ_i (σ_i² − 1)²: ‖WᵀW − I‖²_F for a tall W and ‖WWᵀ − I‖²_F for a wide one.

    The prox keeps the singular vectors and moves each singular value to the positive root u of
    u − σ + 4·step·s·u(u² − 1) = 0. Keras' `OrthogonalRegularizer`, which penalizes only the angles, is
    `MutualCoherence`.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        factors: One finite factor c for the matrix. Default: None, for 1.

    References:
        Bansal, Chen and Wang 2018, "Can we gain more from orthogonality regularizations in training deep CNNs?",
        equation 1.

    Examples:
        >>> import poise, keras
        >>> float(poise.Orthogonal().value(keras.ops.eye(3), strength=1.0))
        0.0
    """

    smooth = True
    metric = "scalar"
    handles_nan = False

    def check(self, shape: Sequence[int]) -> None:
        _check_matrix(self, shape)

    def _value(self, w: Any, strength: Any) -> Any:
        excess, _ = _gram_excess(_as_matrix(self, w))
        return _factor(self) * strength * ops.sum(ops.square(excess))

    def _gradient(self, w: Any, strength: Any) -> Any:
        matrix = _as_matrix(self, w)
        excess, is_tall = _gram_excess(matrix)
        product = ops.matmul(matrix, excess) if is_tall else ops.matmul(excess, matrix)
        return 4.0 * _factor(self) * strength * _as_tensor(self, product, w.shape)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        u, sizes, v = _singular(_as_matrix(self, w))
        moved = _toward_one(sizes, 4.0 * step * _factor(self) * strength)
        return _as_tensor(self, ops.matmul(u * moved, v), w.shape)


@keras.saving.register_keras_serializable(PACKAGE)
class MutualCoherence(Penalty):
    """Penalize strength · c · the mean of |cos(w_i, w_j)| over pairs of rows, as Keras' `OrthogonalRegularizer` does.

    Only the angles count, not the lengths. The penalty is not smooth where a pair is orthogonal, and it has no proximal
    operator: it acts by its gradient (update "auto" or "coupled"). `Orthogonal` has a proximal operator.

    Args:
        strength: s ≥ 0 or a schedule (Keras' `factor`). Default: 1.0.
        mode: `"rows"` (default) or `"columns"` of a variable with two axes, as it is stored: the rows of a `Dense`
            kernel belong to inputs; the rows of a PyTorch `Linear` weight belong to outputs.
        factors: One finite factor c for the matrix. Default: None, for 1.

    Examples:
        >>> import poise, keras
        >>> float(poise.MutualCoherence().value(keras.ops.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]), strength=3.0))
        1.0
    """

    metric = None

    def __init__(self, strength: Any = 1.0, mode: str = "rows", factors: Any = None) -> None:
        super().__init__(strength, factors)
        if mode not in ("rows", "columns"):
            raise ValueError(f"mode must be 'rows' or 'columns', got {mode!r}.")
        self.mode = mode

    def get_config(self) -> dict[str, Any]:
        return {"mode": self.mode, **super().get_config()}

    def check(self, shape: Sequence[int]) -> None:
        _check_matrix(self, shape)
        if len(shape) != 2 or shape[0 if self.mode == "rows" else 1] < 2:
            raise ValueError(
                f"MutualCoherence needs a matrix with at least two {self.mode}, got the shape {tuple(shape)}. Exclude "
                "the variable from the rule."
            )

    def _value(self, w: Any, strength: Any) -> Any:
        cosines, _, _ = self._cosines(w)
        return self._price(strength, cosines) * ops.sum(ops.abs(cosines))

    def _gradient(self, w: Any, strength: Any) -> Any:
        """Row i: Σ_j sign(cos_ij)(n_j − cos_ij n_i)/‖w_i‖, twice, since every pair counts from both sides."""
        cosines, directions, lengths = self._cosines(w)
        signs = ops.sign(cosines)
        pull = ops.matmul(signs, directions) - ops.sum(ops.abs(cosines), axis=1, keepdims=True) * directions
        pull = 2.0 * self._price(strength, cosines) * pull / lengths
        return pull if self.mode == "rows" else ops.transpose(pull)

    def _cosines(self, w: Any) -> Any:
        """The cosines between rows with a diagonal of zeros, the rows' directions, and their lengths."""
        self.check(w.shape)
        rows = w if self.mode == "rows" else ops.transpose(w)
        lengths = ops.sqrt(ops.sum(ops.square(rows), axis=1, keepdims=True))
        lengths = ops.where(lengths > 0, lengths, 1.0)
        directions = rows / lengths
        count = rows.shape[0]
        cosines = ops.matmul(directions, ops.transpose(directions)) * (1.0 - ops.eye(count, dtype=w.dtype))
        return cosines, directions, lengths

    def _price(self, strength: Any, cosines: Any) -> Any:
        count = cosines.shape[0]
        return _factor(self) * strength / (count * (count - 1.0))

    def why_no_prox(self) -> Any:
        return "MutualCoherence has no proximal operator. Use update='coupled', or poise.Orthogonal, which has one."


def _toward_one(sigma: Any, t: Any) -> Any:
    """Return argmin_{u ≥ 0} ½(u − σ)² + ¼t(u² − 1)²: the positive root of t·u³ + (1 − t)·u − σ.

    The cubic is convex for u > 0 and has one positive root, so Newton from above falls to it. √(1 − 1/t)₊ + ∛(σ/t)
    and max(σ, 1) both lie above it.
    """
    divisor = ops.maximum(t, smallest_normal(t))
    above = ops.sqrt(ops.maximum(1.0 - 1.0 / divisor, 0.0)) + ops.power(sigma / divisor, 1.0 / 3.0)
    u = ops.minimum(above, ops.maximum(sigma, 1.0))
    for _ in range(NEWTON_STEPS):
        slope = 3.0 * t * u * u + 1.0 - t
        fall = (t * u * u * u + (1.0 - t) * u - sigma) / ops.where(slope > 0, slope, 1.0)
        u = ops.maximum(u - ops.maximum(fall, 0.0), 0.0)
    return u


def _gram_excess(matrix: Any) -> Any:
    """(the smaller of WᵀW and WWᵀ) − I, and whether it is WᵀW."""
    rows, columns = matrix.shape
    is_tall = rows >= columns
    other = ops.transpose(matrix)
    gram = ops.matmul(other, matrix) if is_tall else ops.matmul(matrix, other)
    return gram - ops.eye(min(rows, columns), dtype=matrix.dtype), is_tall


def _singular(matrix: Any) -> Any:
    return ops.linalg.svd(matrix, full_matrices=False)


def _is_live(sizes: Any, w: Any) -> Any:
    """Which singular values are not zero to the precision of w, as numbers."""
    return ops.cast(sizes > machine_epsilon(w) * max(w.shape) * ops.max(sizes), w.dtype)


def _as_matrix(penalty: Any, w: Any) -> Any:
    penalty.check(w.shape)
    return _columns(penalty, w.shape).matrix(w)


def _as_tensor(penalty: Any, matrix: Any, shape: Sequence[int]) -> Any:
    """The inverse of `_as_matrix`."""
    return _columns(penalty, shape).from_matrix(matrix)


def _columns(penalty: Any, shape: Sequence[int]) -> Axes:
    sides = penalty.sides or Sides()
    return sides.columns or sides.outputs or Axes.along(tuple(shape), -1)


def _factor(penalty: Any) -> float:
    return 1.0 if penalty.factors is None else float(penalty.factors.reshape(()))


def _check_matrix(penalty: Any, shape: Sequence[int]) -> None:
    name = type(penalty).__name__
    if len(shape) < 2:
        raise ValueError(f"{name} needs a matrix, got the shape {tuple(shape)}. Exclude the variable from the rule.")
    if penalty.factors is not None and (penalty.factors.size != 1 or not np.isfinite(penalty.factors).all()):
        raise ValueError(
            f"{name} takes one finite factor for the whole matrix, got factors={penalty.factors.tolist()!r}."
        )
