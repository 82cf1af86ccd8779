"""Piecewise-linear encodings of numbers, as a scikit-learn transformer."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from poise.validation import validate_count

N_PIECES = 8
FLOATS = ["float64", "float32"]
LARGE = 1e100
TIE = 1e-9
"""Relative tolerance for rounding when cumulative weights are compared with quantile levels."""


class PiecewiseLinearEncoder(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Encode each number as its position in every quantile interval of its column.

    The training values of a column are divided at their quantiles b_0 < b_1 < … < b_T. A value x becomes T numbers,

        e_t(x) = clip((x − b_{t−1}) / (b_t − b_{t−1}), 0, 1),

    except that e_1 is not clipped below and e_T not above, so that values outside the training range continue the line.
    A linear model of e is a curve of x that is linear between the quantiles: with a group lasso over the pieces of each
    column (`groups_`) it is a sparse additive model.

    Args:
        n_pieces: The number of pieces per column, an int ≥ 1. A column with few distinct values has one piece
            fewer than distinct values, and equal quantiles are merged. Default: 8.

    Attributes:
        edges_: For each feature the edges b_0, …, b_T, an array. A constant feature has a single edge, and one piece
            that is always 0.
        groups_: For each feature the list of the positions of its pieces in the output, as `poise.GroupLasso` and
            `poise.input_sparsity` take them.
        n_features_in_, feature_names_in_: As in scikit-learn.

    References:
        Gorishniy, Rubachev and Babenko 2022, "On embeddings for numerical features in tabular deep learning";
        Ravikumar, Lafferty, Liu and Wasserman 2009, "Sparse additive models".

    Examples:
        >>> import numpy as np, poise
        >>> encoder = poise.PiecewiseLinearEncoder(n_pieces=2).fit(np.array([[0.0], [1.0], [2.0], [6.0], [10.0]]))
        >>> encoder.edges_[0].tolist()
        [0.0, 2.0, 10.0]
        >>> encoder.transform([[1.0], [6.0], [14.0]]).tolist()
        [[0.5, 0.0], [1.0, 0.5], [1.0, 1.5]]
    """

    def __init__(self, n_pieces: int = N_PIECES) -> None:
        self.n_pieces = n_pieces

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the quantiles of every column.

        Args:
            X: (rows, features) finite numbers, or a DataFrame of them.
            y: Not used.
            sample_weight: (rows,) weights ≥ 0; a row of weight 2 counts as two rows. Default: `None`.

        Returns:
            The encoder.

        Raises:
            TypeError: If `n_pieces` is not an int.
            ValueError: If `n_pieces` is below 1, or if the data or the weights are not valid.
        """
        validate_count("n_pieces", self.n_pieces, 1)
        X = np.asarray(validate_data(self, X, dtype=FLOATS))
        if sample_weight is not None:
            sample_weight = column_or_1d(check_array(sample_weight, ensure_2d=False, dtype="float64"))
            check_consistent_length(X, sample_weight)
            if (sample_weight < 0).any() or not sample_weight.any():
                least, most = sample_weight.min(), sample_weight.max()
                raise ValueError(
                    f"sample_weight must be >= 0, and not zero in all rows, got values from {least:g} to {most:g}."
                )
        self.edges_ = [_find_edges(values, sample_weight, int(self.n_pieces)) for values in X.T]
        ends = np.cumsum([_count_pieces(edges) for edges in self.edges_]).tolist()
        self.groups_ = [[*range(start, end)] for start, end in zip([0, *ends], ends, strict=False)]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode rows.

        Args:
            X: (rows, features) finite numbers.

        Returns:
            (rows, pieces of all features): the pieces of the first feature, then those of the second, and so on.
        """
        check_is_fitted(self)
        X = np.asarray(validate_data(self, X, dtype=FLOATS, reset=False))
        encoded = np.empty((len(X), sum(map(len, self.groups_))), X.dtype)
        for values, edges, group in zip(X.T, self.edges_, self.groups_, strict=True):
            encoded[:, group] = _encode(values, edges)
        return encoded

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the pieces, such as `"age_piece1"`.

        Args:
            input_features: The names of the features. Default: `None`, for those seen in `fit`, or `"x0"`, `"x1"`, ….
        """
        names = np.asarray(super().get_feature_names_out(input_features))
        return np.array(
            [
                f"{name}_piece{number}"
                for name, group in zip(names, self.groups_, strict=True)
                for number in range(1, len(group) + 1)
            ],
            dtype=object,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [*FLOATS]
        return tags


def _find_edges(values: np.ndarray, weight: np.ndarray | None, pieces: int) -> np.ndarray:
    """Return the distinct quantiles of values, ascending; all distinct values if there are few."""
    if weight is not None:
        values, weight = values[weight > 0], weight[weight > 0]
    distinct, place = np.unique(values, return_inverse=True)
    if len(distinct) <= pieces + 1:
        return distinct
    sums = np.cumsum(np.bincount(place, weight))
    shares = sums / sums[-1]
    # The smallest observed value whose cumulative share reaches the level. Repeating rows does not change it.
    at = np.searchsorted(shares, np.linspace(0.0, 1.0, pieces + 1) - TIE)
    return distinct[np.unique(np.minimum(at, len(distinct) - 1))]


def _count_pieces(edges: np.ndarray) -> int:
    return max(len(edges) - 1, 1)


def _encode(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return (rows, pieces) of the values of a column."""
    pieces = _count_pieces(edges)
    if len(edges) == 1:
        return np.zeros((len(values), 1), values.dtype)
    largest = float(np.abs(edges).max())
    unit = largest if largest > LARGE else 1.0
    # Larger differences might overflow.
    values, edges = values.astype("float64") / unit, edges.astype("float64") / unit
    low, high = np.zeros(pieces), np.ones(pieces)
    low[0], high[-1] = -np.inf, np.inf
    return np.clip((values[:, None] - edges[:-1]) / np.diff(edges), low, high)
