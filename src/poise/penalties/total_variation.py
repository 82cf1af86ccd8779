"""The total variation along an axis (fused lasso): weights that are constant in pieces."""

from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties.base import PACKAGE
from poise.penalties.chains import FAR, SMALLEST_STEP, fit_chain
from poise.penalties.shapes import AlongAxis

SMALLEST = float(np.finfo("float32").tiny)


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
        """The subgradient of minimum norm: what is left of the rest, once the equal neighbors balance it best."""
        return self._balance(w, ops.zeros_like(w), strength)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        prices = strength * self._factors(w) * ops.ones_like(self._differences(w))
        h = ops.broadcast_to(step, w.shape)
        return ops.where(h > 0, self._denoise(w, h, prices), w)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        return ops.abs(self._balance(w, gradient, strength))

    def _critical_strength(self, gradient: Any) -> Any:
        """max |Σ_{j≤i} g_j| / c_i: the flow over each difference that balances the gradient.

        The penalty does not change with the mean along the axis, so the mean of the gradient is left out: this is the
        smallest strength for which weights that are constant along the axis stay constant.
        """
        along = ops.moveaxis(gradient, self.axis, 0)
        flow = ops.moveaxis(ops.cumsum(along - ops.mean(along, axis=0), axis=0)[:-1], 0, self.axis)
        needed = ops.where(flow == 0, 0.0, ops.abs(flow) / self._factors(gradient))
        return ops.max(needed) if needed.shape[self.axis] else ops.zeros((), gradient.dtype)

    def _balance(self, w: Any, gradient: Any, strength: Any) -> Any:
        """gradient + the subgradient that brings it closest to zero.

        Where neighbors differ the subgradient is known; where they are equal it is free between −s·c and s·c, and the
        closest one is a prox (by Moreau's decomposition) of the rest.
        """
        differences, prices = self._differences(w), strength * self._factors(w)
        flow = prices * ops.sign(differences)
        known = self._shifted(flow, back=True) - self._shifted(flow, back=False)
        free = ops.where(differences == 0, prices, 0.0)
        return self._denoise(gradient + known, ops.ones_like(w), free)

    def _denoise(self, w: Any, h: Any, prices: Any) -> Any:
        """argmin_u Σ (u − w)²/(2h) + Σ prices·|u_{i+1} − u_i|, with all lines as one chain, at any scale."""
        size, largest = ops.max(ops.abs(w)), ops.max(h)
        size, largest = ops.where(size > SMALLEST, size, 1.0), ops.where(largest > SMALLEST, largest, 1.0)
        prices = ops.minimum(prices * (largest / size), FAR)
        lines = [
            self._last(x) for x in (w / size, ops.maximum(h / largest, SMALLEST_STEP), self._shifted(prices, False))
        ]
        flat_w, flat_h, flat_prices = (ops.reshape(line, (-1,)) for line in lines)
        u = ops.reshape(fit_chain(flat_w, flat_h, flat_prices[:-1], flat_prices[:-1]), lines[0].shape)
        return size * ops.moveaxis(u, -1, self.axis)

    def _last(self, x: Any) -> Any:
        return ops.moveaxis(x, self.axis, -1)
