"""Convex penalties of single entries: L1, L2 and their sum.

The scale is the one of Keras: L2(s) is s·Σw² with the gradient 2s·w, without a half. The constructors `from_...`
translate the scales of other libraries; docs/explanation/scales.md has the full table.
"""

from typing import Any

import keras
from keras import ops

from poise.penalties.base import PACKAGE, Separable, soft_threshold
from poise.validation import validate_number, validate_share


@keras.saving.register_keras_serializable(PACKAGE)
class L1(Separable):
    """Penalize strength · Σ c_i |w_i|, the lasso. Its prox is the soft threshold, which gives exact zeros.

    Args:
        strength: s ≥ 0 or a schedule. With the loss "mse", s = 2α for `sklearn.linear_model.Lasso(alpha=α)`.
            Default: 1.0.
        factors: Factors c per entry, broadcast to the shape of w. Default: None, for ones.

    References:
        Tibshirani 1996, "Regression shrinkage and selection via the lasso".

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([3.0, -0.5, 1.0])
        >>> print(keras.ops.convert_to_numpy(poise.L1().prox(w, step=1.0, strength=1.0)))
        [2. 0. 0.]
    """

    @classmethod
    def from_sklearn(cls, alpha: float, loss: str = "mse") -> "L1":
        """Return the L1 of scikit-learn's `Lasso(alpha)` (loss "mse") or `SGDClassifier(alpha)` (loss "log_loss").

        Lasso minimizes ‖y − Xw‖²/(2n) + α‖w‖₁, half of Keras' mean squared error: s = 2α. A mean log loss has no
        such half: s = α. (`LogisticRegression(C)` minimizes a sum: s = 1/(C·n).)

        Args:
            alpha: α ≥ 0.
            loss: `"mse"` (default) or `"log_loss"`.
        """
        return cls(_scale_of_sklearn(loss) * validate_number("alpha", alpha))

    def _entries(self, w: Any, strength: Any) -> Any:
        return strength * ops.abs(w)

    def _slope(self, w: Any, strength: Any) -> Any:
        return strength * ops.sign(w)

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        return soft_threshold(w, step * strength)

    def _radius(self, strength: Any) -> Any:
        return strength


@keras.saving.register_keras_serializable(PACKAGE)
class L2(Separable):
    """Penalize strength · Σ c_i w_i², ridge. Its gradient is 2s·c·w, its prox w / (1 + 2·step·s·c).

    Args:
        strength: s ≥ 0 or a schedule. With update="decoupled", 2s is the weight_decay of AdamW. Default: 1.0.
        factors: Factors c per entry, broadcast to the shape of w. Default: None, for ones.

    References:
        Hoerl and Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems".

    Examples:
        >>> import poise
        >>> poise.L2.from_weight_decay(0.004).strength
        0.002
    """

    smooth = True

    @classmethod
    def from_weight_decay(cls, weight_decay: float) -> Any:
        """Return the L2 that with update="decoupled" is `AdamW(weight_decay)`: s = weight_decay / 2.

        Args:
            weight_decay: The weight decay ≥ 0 (Loshchilov and Hutter 2019).
        """
        return cls(validate_number("weight_decay", weight_decay) / 2)

    def _entries(self, w: Any, strength: Any) -> Any:
        return strength * w * w

    def _slope(self, w: Any, strength: Any) -> Any:
        return 2.0 * strength * w

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        return w / (1.0 + 2.0 * step * strength)

    def _radius(self, strength: Any) -> Any:
        return 0.0 * strength

    def _critical_strength(self, gradient: Any) -> Any:
        return None


@keras.saving.register_keras_serializable(PACKAGE)
class ElasticNet(Separable):
    """Penalize strength · Σ c_i (l1·|w_i| + l2·w_i²), the elastic net, as Keras' `L1L2(l1, l2)` does.

    Args:
        l1: Coefficient ≥ 0 of the absolute values. Default: 0.01.
        l2: Coefficient ≥ 0 of the squares. Default: 0.01.
        strength: A factor on both coefficients, ≥ 0 or a schedule; a regularization path varies only this factor.
            Default: 1.0.
        factors: Factors c per entry, broadcast to the shape of w. Default: None, for ones.

    References:
        Zou and Hastie 2005, "Regularization and variable selection via the elastic net".

    Examples:
        >>> import poise
        >>> poise.ElasticNet.from_sklearn(alpha=0.5, l1_ratio=0.8)
        ElasticNet(l1=0.8, l2=0.1, strength=1.0)
    """

    def __init__(self, l1: float = 0.01, l2: float = 0.01, strength: Any = 1.0, factors: Any = None) -> None:
        super().__init__(strength, factors)
        self.l1 = validate_number("l1", l1)
        self.l2 = validate_number("l2", l2)
        self.smooth = self.l1 == 0

    @classmethod
    def from_sklearn(cls, alpha: float, l1_ratio: float = 0.5, loss: str = "mse") -> Any:
        """Return the penalty of `sklearn.linear_model.ElasticNet(alpha, l1_ratio)`, α·ρ‖w‖₁ + ½α(1 − ρ)‖w‖².

        Args:
            alpha: α ≥ 0.
            l1_ratio: ρ in [0, 1]. Default: 0.5.
            loss: As in `L1.from_sklearn`: with `"mse"` (default) both coefficients are doubled, with `"log_loss"` not.
        """
        scale = _scale_of_sklearn(loss) * validate_number("alpha", alpha)
        l1_ratio = validate_share("l1_ratio", l1_ratio)
        return cls(l1=scale * l1_ratio, l2=round(scale * (1 - l1_ratio) / 2, 15))

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2, **super().get_config()}

    def _entries(self, w: Any, strength: Any) -> Any:
        return strength * self.l1 * ops.abs(w) + strength * self.l2 * w * w

    def _slope(self, w: Any, strength: Any) -> Any:
        return strength * (self.l1 * ops.sign(w) + 2.0 * self.l2 * w)

    def _step(self, w: Any, step: Any, strength: Any) -> Any:
        return soft_threshold(w, step * strength * self.l1) / (1.0 + 2.0 * step * strength * self.l2)

    def _radius(self, strength: Any) -> Any:
        return strength * self.l1

    def _critical_strength(self, gradient: Any) -> Any:
        return None if self.smooth else super()._critical_strength(gradient)


def _scale_of_sklearn(loss: str) -> float:
    scales = {"mse": 2.0, "log_loss": 1.0}
    if loss not in scales:
        raise ValueError(f"loss must be 'mse' (Lasso) or 'log_loss' (SGDClassifier), got {loss!r}.")
    return scales[loss]
