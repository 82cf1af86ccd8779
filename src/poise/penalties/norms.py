"""Convex penalties of single entries: L1, L2 and their sum.

The scale is Keras': L2(s) is s·Σw² with the gradient 2s·w, without a half. The constructors `from_...` translate the
scales of others; docs/scales.md has the whole table.
"""

import keras
from keras import ops

from poise.penalties.base import PACKAGE, Separable, checked_number, soft_threshold


@keras.saving.register_keras_serializable(PACKAGE)
class L1(Separable):
    """strength · Σ c_i |w_i| (Tibshirani 1996). Its prox is the soft threshold, which leaves exact zeros.

    Args:
        strength: s ≥ 0 or a schedule. s = 2α of `sklearn.linear_model.Lasso(alpha=α)` with the loss "mse".
        factors: factors c per entry, or None for ones.

    Example:
        >>> import poise, keras
        >>> w = keras.ops.array([3.0, -0.5, 1.0])
        >>> print(keras.ops.convert_to_numpy(poise.L1().prox(w, step=1.0, strength=1.0)))
        [2. 0. 0.]
    """

    @classmethod
    def from_sklearn(cls, alpha, loss="mse"):
        """The L1 of scikit-learn's `Lasso(alpha)` (loss "mse") or of `SGDClassifier(alpha)` (loss "log_loss").

        Lasso minimizes ‖y − Xw‖²/(2n) + α‖w‖₁, half of Keras' mean squared error: s = 2α. A mean log loss has no
        such half: s = α. (`LogisticRegression(C)` minimizes a sum: s = 1/(C·n).)
        """
        return cls(_scale_of_sklearn(loss) * checked_number("alpha", alpha))

    def _entries(self, w, strength):
        return strength * ops.abs(w)

    def _slope(self, w, strength):
        return strength * ops.sign(w)

    def _step(self, w, step, strength):
        return soft_threshold(w, step * strength)

    def _radius(self, strength):
        return strength


@keras.saving.register_keras_serializable(PACKAGE)
class L2(Separable):
    """strength · Σ c_i w_i² (ridge; Hoerl and Kennard 1970), gradient 2s·c·w, prox w / (1 + 2·step·s·c).

    Args:
        strength: s ≥ 0 or a schedule. AdamW's weight_decay is 2s, in the update "decoupled".
        factors: factors c per entry, or None for ones.

    Example:
        >>> import poise
        >>> poise.L2.from_weight_decay(0.004).strength
        0.002
    """

    smooth = True

    @classmethod
    def from_weight_decay(cls, weight_decay):
        """The L2 that with update="decoupled" is `AdamW(weight_decay)` (Loshchilov and Hutter 2019): s = decay / 2."""
        return cls(checked_number("weight_decay", weight_decay) / 2)

    def _entries(self, w, strength):
        return strength * w * w

    def _slope(self, w, strength):
        return 2.0 * strength * w

    def _step(self, w, step, strength):
        return w / (1.0 + 2.0 * step * strength)

    def _radius(self, strength):
        return 0.0 * strength

    def _critical_strength(self, gradient):
        return None


@keras.saving.register_keras_serializable(PACKAGE)
class ElasticNet(Separable):
    """strength · Σ c_i (l1·|w_i| + l2·w_i²) (Zou and Hastie 2005), as Keras' `L1L2(l1, l2)`.

    Args:
        l1, l2: the two shares, each ≥ 0.
        strength: a factor on both, ≥ 0 or a schedule; a path of strengths keeps the shares.
        factors: factors c per entry, or None for ones.

    Example:
        >>> import poise
        >>> poise.ElasticNet.from_sklearn(alpha=0.5, l1_ratio=0.8)
        ElasticNet(l1=0.8, l2=0.1, strength=1.0)
    """

    def __init__(self, l1=0.01, l2=0.01, strength=1.0, factors=None):
        super().__init__(strength, factors)
        self.l1 = checked_number("l1", l1)
        self.l2 = checked_number("l2", l2)

    @property
    def smooth(self):
        return self.l1 == 0

    @classmethod
    def from_sklearn(cls, alpha, l1_ratio=0.5, loss="mse"):
        """The penalty of `sklearn.linear_model.ElasticNet(alpha, l1_ratio)`, α·ρ‖w‖₁ + ½α(1 − ρ)‖w‖².

        `loss` as in `L1.from_sklearn`: with "mse" both shares are doubled, with "log_loss" not.
        """
        scale = _scale_of_sklearn(loss) * checked_number("alpha", alpha)
        if not 0 <= l1_ratio <= 1:
            raise ValueError(f"l1_ratio={l1_ratio!r} is not allowed: it is the share of the L1, between 0 and 1.")
        return cls(l1=scale * l1_ratio, l2=round(scale * (1 - l1_ratio) / 2, 15))

    def get_config(self):
        return {"l1": self.l1, "l2": self.l2, **super().get_config()}

    def _entries(self, w, strength):
        return strength * self.l1 * ops.abs(w) + strength * self.l2 * w * w

    def _slope(self, w, strength):
        return strength * (self.l1 * ops.sign(w) + 2.0 * self.l2 * w)

    def _step(self, w, step, strength):
        return soft_threshold(w, step * strength * self.l1) / (1.0 + 2.0 * step * strength * self.l2)

    def _radius(self, strength):
        return strength * self.l1

    def _critical_strength(self, gradient):
        return None if self.smooth else super()._critical_strength(gradient)


def _scale_of_sklearn(loss):
    scales = {"mse": 2.0, "log_loss": 1.0}
    if loss not in scales:
        raise ValueError(f"loss={loss!r} has no known scale: use 'mse' (Lasso) or 'log_loss' (SGDClassifier).")
    return scales[loss]
