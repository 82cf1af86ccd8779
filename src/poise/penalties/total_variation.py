"""The total variation along an axis (fused lasso): piecewise-constant weights."""

from typing import Any

import keras
from keras import ops

from poise.penalties.base import PACKAGE
from poise.penalties.chains import FAR, fit_chain
from poise.penalties.precision import smallest_normal, smallest_step
from poise.penalties.shapes import AlongAxis


@keras.saving.register_keras_serializable(PACKAGE)
class TotalVariation(AlongAxis):
    """Penalize strength · Σ c_i |w_{i+1} − w_i| along an axis: neighbors become exactly equal (the fused lasso).

    The prox is exact, also with a step per entry (see `poise.penalties.chains`).

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        axis: The axis along which neighbors are compared, an integer. Default: 0.
        factors: Finite factors c per difference, broadcast to the shape of w with `axis` shorter by one. Default:
            None, for ones.

    References:
        Rudin, Osher and Fatemi 1992, "Nonlinear total variation based noise removal algorithms".
        Tibshirani, Saunders, Rosset, Zhu and Knight 2005, "Sparsity and smoothness via the fused lasso".

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([0.0, 1.0, 7.0, 8.0])
        >>> print(keras.ops.convert_to_numpy(poise.TotalVariation().prox(w, step=1.0, strength=1.0)))
        [1. 1. 7. 7.]
    """

    is_iterative = True

    def _value(self, w: Any, strength: Any) -> Any:
        return ops.sum(strength * self._factors(w) * ops.abs(self._differences(w)))

    def _gradient(self, w: Any, strength: Any) -> Any:
        """The subgradient of minimum norm, over all choices for pairs of equal neighbors."""
        return self._balance(w, ops.zeros_like(w), strength)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        prices = strength * self._factors(w) * ops.ones_like(self._differences(w))
        h = ops.broadcast_to(step, w.shape)
        return ops.where(h > 0, self._denoise(w, h, prices), w)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        return ops.abs(self._balance(w, gradient, strength))

    def _critical_strength(self, gradient: Any) -> Any:
        """max |Σ_{j≤i} g_j| / c_i: the flow over each difference that balances the gradient.

        The penalty does not change with the mean along the axis (or the means of parts that factors of 0 separate), so
        the mean of the gradient is left out: this is the smallest strength for which weights that are constant along
        the axis stay constant.
        """
        if gradient.shape[self.axis] < 2:
            return ops.zeros((), gradient.dtype)
        factors = self._factors(gradient) * ops.ones_like(self._differences(gradient))
        means = self._denoise(gradient, ops.ones_like(gradient), FAR * ops.cast(factors > 0, gradient.dtype))
        flow = ops.cumsum(ops.moveaxis(gradient - means, self.axis, 0), axis=0)[:-1]
        flow = ops.abs(ops.moveaxis(flow, 0, self.axis))
        return ops.max(ops.where(factors > 0, flow / ops.where(factors > 0, factors, 1.0), 0.0))

    def _balance(self, w: Any, gradient: Any, strength: Any) -> Any:
        """gradient + the subgradient that brings it closest to zero.

        Where neighbors differ the subgradient is known; where they are equal it is free between −s·c and s·c, and the
        closest one is a prox (by Moreau's decomposition) of the rest.
        """
        differences, prices = self._differences(w), strength * self._factors(w)
        flow = prices * ops.sign(differences)
        known = self._pad_differences(flow, back=True) - self._pad_differences(flow, back=False)
        free = ops.where(differences == 0, prices, 0.0)
        return self._denoise(gradient + known, ops.ones_like(w), free)

    def _denoise(self, w: Any, h: Any, prices: Any) -> Any:
        """argmin_u Σ (u − w)²/(2h) + Σ prices·|u_{i+1} − u_i|, with all lines as one chain, at any scale."""
        size, largest = ops.max(ops.abs(w)), ops.max(h)
        least = smallest_normal(w)
        size, largest = ops.where(size > least, size, 1.0), ops.where(largest > least, largest, 1.0)
        prices = ops.minimum(prices * (largest / size), FAR)
        chain = [
            w / size,
            ops.maximum(h / largest, smallest_step(w)),
            self._pad_differences(prices, back=False),
        ]
        lines = ops.moveaxis(w, self.axis, -1).shape
        w, h, prices = (ops.reshape(ops.moveaxis(x, self.axis, -1), (-1,)) for x in chain)
        u = fit_chain(w, h, prices[:-1], prices[:-1], lines[-1])
        return size * ops.moveaxis(ops.reshape(u, lines), -1, self.axis)
