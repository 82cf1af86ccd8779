"""The sorted L1 norm (SLOPE): the largest weights are penalized most, and correlated inputs share a coefficient."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from poise.penalties.base import PACKAGE, Penalty
from poise.penalties.chains import FAR, fit_chain
from poise.validation import validate_array, validate_number


@keras.saving.register_keras_serializable(PACKAGE)
class Slope(Penalty):
    """Penalize strength · Σ_i α_i |w|_(i), with |w|_(1) ≥ |w|_(2) ≥ … and α_1 ≥ α_2 ≥ … ≥ 0.

    The prox sorts the weights and is an isotonic regression of |w|_(i) − step·s·α_i, which makes weights exactly zero
    and exactly equal in size. It needs one step for all weights, because steps that differ change the order.

    Args:
        strength: s ≥ 0 or a schedule. Default: 1.0.
        q: In (0, 1). The sequence is α_i = Φ⁻¹(1 − iq/(2n)), under which SLOPE controls the false discovery rate at q
            in orthogonal designs (Φ is the normal distribution function, n the number of weights). Default: None, for
            0.1.
        alphas: The sequence itself, one number per weight in descending order. OSCAR is `c + d * np.arange(n)[::-1]`.
            Default: None, for the sequence of `q`.

    Raises:
        ValueError: If `q` is not between 0 and 1, `alphas` is not a descending row of numbers ≥ 0 or is all zero, or
            both are given.

    References:
        Bogdan, van den Berg, Sabatti, Su and Candès 2015, "SLOPE: adaptive variable selection via convex optimization".
        Bondell and Reich 2008, "Simultaneous regression shrinkage, variable selection, and supervised clustering of
        predictors with OSCAR".

    Examples:
        >>> import poise, keras
        >>> w = keras.ops.array([3.0, -2.75, 0.5])
        >>> slope = poise.Slope(alphas=[1.5, 1.0, 0.5])
        >>> print(keras.ops.convert_to_numpy(slope.prox(w, step=1.0, strength=1.0)))
        [ 1.625 -1.625  0.   ]
    """

    metric = "scalar"
    is_iterative = True
    handles_nan = False

    def __init__(self, strength: Any = 1.0, q: float | None = None, alphas: Any = None) -> None:
        super().__init__(strength)
        if q is not None and alphas is not None:
            raise ValueError("q and alphas both define the sequence. Give one of them.")
        self.q, self.alphas = None, None
        if alphas is None:
            self.q = validate_number("q", 0.1 if q is None else q, inclusive=False)
            if self.q >= 1:
                raise ValueError(f"q must be between 0 and 1 (exclusive), got {q!r}.")
        else:
            self.alphas = validate_array("alphas", alphas)
            is_row = self.alphas.ndim == 1 and self.alphas.size > 0 and bool(np.isfinite(self.alphas).all())
            if not is_row or (np.diff(self.alphas) > 0).any() or self.alphas[-1] < 0 or self.alphas[0] == 0:
                raise ValueError(
                    f"alphas must be a row of numbers >= 0 in descending order, not all 0, got {alphas!r}."
                )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["factors"]
        return {"q": self.q, "alphas": None if self.alphas is None else self.alphas.tolist(), **config}

    def check(self, shape: Sequence[int]) -> None:
        count = int(np.prod(shape))
        if self.alphas is not None and len(self.alphas) != count:
            raise ValueError(
                f"Slope has {len(self.alphas)} alphas for a variable of shape {tuple(shape)}. Give one per weight "
                f"({count}), or use q."
            )

    def sizes(self, w: Any) -> Any:
        return ops.reshape(ops.abs(w), (-1,))

    def _value(self, w: Any, strength: Any) -> Any:
        return strength * ops.sum(self._alphas(w) * -ops.sort(-self.sizes(w)))

    def _gradient(self, w: Any, strength: Any) -> Any:
        """Weights of equal size share the mean of their α, which gives the subgradient of minimum norm."""
        sizes = self.sizes(w)
        order = ops.argsort(-sizes)
        cluster = _clusters(ops.take(sizes, order))
        count = sizes.shape[0]
        alphas = self._alphas(w)
        total = ops.segment_sum(ops.stack([alphas, ops.ones_like(alphas)], axis=1), cluster, count)
        mean = ops.take(total[:, 0] / ops.maximum(total[:, 1], 1.0), cluster)
        return strength * ops.sign(w) * ops.reshape(_unsort(mean, order), w.shape)

    def _prox(self, w: Any, step: Any, strength: Any) -> Any:
        sizes = self.sizes(w)
        order = ops.argsort(-sizes)
        wanted = ops.take(sizes, order) - step * strength * self._alphas(w)
        size = _fit_descending(wanted, ops.full_like(wanted[1:], FAR))
        size = ops.reshape(_unsort(size, order), w.shape)
        return ops.where(size > 0, ops.sign(w) * size, 0.0)

    def _residual(self, w: Any, gradient: Any, strength: Any) -> Any:
        """x − its projection onto s∂R(w), for x = −gradient.

        s∂R(w) is a product over the clusters of weights of equal size, and the projection on each follows from a prox
        by Moreau's decomposition: an isotonic regression within the cluster, cut at zero for w_i = 0.
        """
        sizes, x = self.sizes(w), -ops.reshape(gradient, (-1,))
        x = ops.where(sizes > 0, ops.reshape(ops.sign(w), (-1,)) * x, ops.abs(x))
        order = ops.argsort(-x)
        order = ops.take(order, ops.argsort(-ops.take(sizes, order)))  # the sort is stable
        sizes = ops.take(sizes, order)
        is_together = sizes[1:] == sizes[:-1]
        wanted = ops.take(x, order) - strength * self._alphas(w)
        away = _fit_descending(wanted, FAR * ops.cast(is_together, w.dtype))
        away = ops.where(sizes > 0, ops.abs(away), ops.maximum(away, 0.0))
        return ops.reshape(_unsort(away, order), w.shape)

    def _critical_strength(self, gradient: Any) -> Any:
        """The dual norm: max_k Σ_{i≤k} |g|_(i) / Σ_{i≤k} α_i."""
        return ops.max(ops.cumsum(-ops.sort(-self.sizes(gradient))) / ops.cumsum(self._alphas(gradient)))

    def _alphas(self, w: Any) -> Any:
        self.check(w.shape)
        alphas = _quantiles(int(np.prod(w.shape)), self.q) if self.q is not None else self.alphas
        return ops.convert_to_tensor(alphas, w.dtype)


@functools.lru_cache(maxsize=32)
def _quantiles(count: int, q: float) -> np.ndarray:
    """Φ⁻¹(1 − iq/(2n)), without the rounding of 1 − iq/(2n)."""
    from scipy.special import ndtri  # its import would take time at the start of every program

    return -ndtri(np.arange(1, count + 1) * q / (2 * count))


def _clusters(descending: Any) -> Any:
    """The number of the run of equal entries that each entry is in."""
    is_new = ops.cast(descending[1:] != descending[:-1], "int32")
    return ops.concatenate([ops.zeros((1,), "int32"), ops.cumsum(is_new)])


def _fit_descending(wanted: Any, rise: Any) -> Any:
    """The isotonic regression that descends where `rise` is FAR, at any scale."""
    scale = ops.max(ops.abs(wanted))
    scale = ops.where(scale > 0, scale, 1.0)
    return scale * fit_chain(wanted / scale, ops.ones_like(wanted), ops.zeros_like(rise), rise, wanted.shape[0])


def _unsort(x: Any, order: Any) -> Any:
    return ops.take(x, ops.argsort(order))
