"""Concave penalties of single entries: less bias on large weights than L1, but not convex.

Each prox is the global minimizer for any step, also for steps so long that the one-dimensional problem has two local
minima (MCP: step ≥ γ, SCAD: step ≥ γ − 1); an adaptive optimizer takes such steps.
"""

from typing import Any

import keras
from keras import ops

from poise.penalties.base import PACKAGE, Separable, soft_threshold
from poise.validation import validate_number


@keras.saving.register_keras_serializable(PACKAGE)
class MCP(Separable):
    """Penalize Σ c_i ρ(w_i), the minimax concave penalty: ρ(x) = s|x| − x²/(2γ) up to |x| = γs, then γs²/2.

    The prox is the firm threshold for step < γ and a hard threshold at s·√(γ·step) beyond.

    Args:
        strength: s ≥ 0 or a schedule; the penalty is not linear in it. Default: 1.0.
        gamma: γ > 1. The slope of the penalty falls to zero at |w| = γ·s, beyond which the penalty is constant.
            Default: 3.0.
        factors: Factors c per entry, broadcast to the shape of w. Default: None, for ones.

    References:
        Zhang 2010, "Nearly unbiased variable selection under minimax concave penalty", equation 2.1.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([0.5, 2.0, 5.0])
        >>> print(keras.ops.convert_to_numpy(poise.MCP(gamma=2.0).prox(w, step=1.0, strength=1.0)))
        [0. 2. 5.]
    """

    def __init__(self, strength: Any = 1.0, gamma: float = 3.0, factors: Any = None) -> None:
        super().__init__(strength, factors)
        self.gamma = validate_number("gamma", gamma, least=1.0, inclusive=False)

    def get_config(self) -> dict[str, Any]:
        return {"gamma": self.gamma, **super().get_config()}

    def _entries(self, w: Any, strength: Any) -> Any:
        x = ops.minimum(ops.abs(w), self.gamma * strength)
        return strength * x - ops.square(x) / (2.0 * self.gamma)

    def _slope(self, w: Any, strength: Any) -> Any:
        return ops.sign(w) * ops.maximum(strength - ops.abs(w) / self.gamma, 0.0)

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        x = ops.abs(w)
        is_short = step < self.gamma
        shrink = 1.0 - ops.where(is_short, step, 0.0) / self.gamma
        firm = ops.where(x <= self.gamma * strength, soft_threshold(w, step * strength) / shrink, w)
        hard = ops.where(x <= strength * ops.sqrt(self.gamma * step), 0.0, w)
        return ops.where(is_short, firm, hard)

    def _radius(self, strength: Any) -> Any:
        return strength


@keras.saving.register_keras_serializable(PACKAGE)
class SCAD(Separable):
    """Penalize Σ c_i ρ(w_i), the smoothly clipped absolute deviation.

    The slope of ρ is s up to |x| = s and falls to 0 at |x| = γs.

    Args:
        strength: s ≥ 0 or a schedule; the penalty is not linear in it. Default: 1.0.
        gamma: γ > 2. The slope falls to zero at |w| = γ·s. Default: 3.7, as in the paper.
        factors: Factors c per entry, broadcast to the shape of w. Default: None, for ones.

    References:
        Fan and Li 2001, "Variable selection via nonconcave penalized likelihood", equations 2.7 and 2.8.

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([1.5, 5.0])
        >>> print(keras.ops.convert_to_numpy(poise.SCAD().prox(w, step=1.0, strength=1.0)))
        [0.5 5. ]
    """

    def __init__(self, strength: Any = 1.0, gamma: float = 3.7, factors: Any = None) -> None:
        super().__init__(strength, factors)
        self.gamma = validate_number("gamma", gamma, least=2.0, inclusive=False)

    def get_config(self) -> dict[str, Any]:
        return {"gamma": self.gamma, **super().get_config()}

    def _entries(self, w: Any, strength: Any) -> Any:
        x = ops.minimum(ops.abs(w), self.gamma * strength)
        beyond = ops.maximum(x - strength, 0.0)
        return strength * x - ops.square(beyond) / (2.0 * (self.gamma - 1.0))

    def _slope(self, w: Any, strength: Any) -> Any:
        falling = ops.maximum(self.gamma * strength - ops.abs(w), 0.0) / (self.gamma - 1.0)
        return ops.sign(w) * ops.minimum(strength, falling)

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        x = ops.abs(w)
        is_short = step < self.gamma - 1.0
        soft = soft_threshold(w, step * strength)
        room = self.gamma - 1.0 - ops.where(is_short, step, 0.0)
        middle = ((self.gamma - 1.0) * w - ops.sign(w) * self.gamma * step * strength) / room
        outer = ops.where(x <= self.gamma * strength, middle, w)
        single = ops.where(x <= strength * (1.0 + step), soft, outer)
        # Two minima: the soft threshold and w itself; they cost the same at this |w|.
        tie = ops.where(
            step <= self.gamma + 1.0,
            strength * (self.gamma + 1.0 + step) / 2.0,
            strength * ops.sqrt(step * (self.gamma + 1.0)),
        )
        double = ops.where(x <= tie, soft, w)
        return ops.where(is_short, single, double)

    def _radius(self, strength: Any) -> Any:
        return strength


@keras.saving.register_keras_serializable(PACKAGE)
class LogSum(Separable):
    """Penalize strength · Σ c_i log(1 + |w_i|/ε), which reweighted L1 minimizes.

    The prox solves a quadratic equation per entry and compares its root with zero.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        epsilon: ε > 0, the size below which a weight counts as small. Default: 1.0.
        factors: Factors c per entry, broadcast to the shape of w. Default: None, for ones.

    References:
        Candès, Wakin and Boyd 2008, "Enhancing sparsity by reweighted ℓ1 minimization", section 2.2.
        Gong et al. 2013, "A general iterative shrinkage and thresholding algorithm" (GIST).

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([0.5, 3.0])
        >>> print(keras.ops.convert_to_numpy(poise.LogSum().prox(w, step=1.0, strength=3.0)))
        [0. 2.]
    """

    def __init__(self, strength: Any = 1.0, epsilon: float = 1.0, factors: Any = None) -> None:
        super().__init__(strength, factors)
        self.epsilon = validate_number("epsilon", epsilon, inclusive=False)

    def get_config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, **super().get_config()}

    def _entries(self, w: Any, strength: Any) -> Any:
        return strength * ops.log1p(ops.abs(w) / self.epsilon)

    def _slope(self, w: Any, strength: Any) -> Any:
        return strength * ops.sign(w) / (ops.abs(w) + self.epsilon)

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        x, t = ops.abs(w), step * strength
        # Stationary where (x − u)(u + ε) = t: the smaller root for the drop x − u, written without cancellation.
        b = x + self.epsilon
        root = ops.sqrt(ops.maximum(1.0 - 4.0 * (t / b) / b, 0.0))
        drop = 2.0 * (t / b) / (1.0 + root)
        u = ops.maximum(x - drop, 0.0)
        is_dearer = 0.5 * ops.square(drop) + t * ops.log1p(u / self.epsilon) >= 0.5 * ops.square(x)
        has_one_minimum = ops.sqrt(t) <= self.epsilon
        is_zero = ops.where(has_one_minimum, t >= self.epsilon * x, ops.logical_or(is_dearer, 4.0 * (t / b) > b))
        return ops.where(is_zero, 0.0, ops.sign(w) * u)

    def _radius(self, strength: Any) -> Any:
        return strength / self.epsilon


@keras.saving.register_keras_serializable(PACKAGE)
class L0(Separable):
    """Penalize strength · Σ c_i [w_i ≠ 0], the number of weights. Its prox is the hard threshold at √(2·step·s·c).

    Its gradient is zero wherever it exists, so it acts only by its prox (any update except "coupled").

    Args:
        strength: The price of one weight, ≥ 0 or a schedule. Default: 1.0.
        factors: Factors c per entry, broadcast to the shape of w. Default: None, for ones.

    References:
        Blumensath and Davies 2008, "Iterative thresholding for sparse approximations".

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([1.0, 2.0])
        >>> print(keras.ops.convert_to_numpy(poise.L0().prox(w, step=1.0, strength=1.0)))
        [0. 2.]
    """

    has_force = False

    def _entries(self, w: Any, strength: Any) -> Any:
        return strength * ops.cast(w != 0, w.dtype)

    def _slope(self, w: Any, strength: Any) -> Any:
        return ops.zeros_like(w)

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        return ops.where(ops.abs(w) <= ops.sqrt(2.0 * step * strength), 0.0, w)

    def _radius(self, strength: Any) -> Any:
        return strength * float("inf")

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        """At zero every gradient is balanced; elsewhere the penalty has no gradient."""
        price, free = self._factors(w)
        at_zero = ops.where(price * strength > 0, 0.0, ops.abs(gradient))
        distance = ops.where(w == 0, at_zero, ops.abs(gradient))
        return ops.where(free, distance, ops.where(w == 0, 0.0, float("inf")))

    def _critical_strength(self, gradient: Any) -> Any:
        return None
