"""Encode arrays of numbers as inputs of a network, for the estimators."""

import numpy as np
from sklearn.preprocessing import StandardScaler

from poise.study.columns.encoding import LARGEST, PIECEWISE
from poise.study.columns.number_column import set_constants_to_zero
from poise.study.columns.piecewise_encoder import PiecewiseLinearEncoder
from poise.study.columns.weighting import fit_scaler


class ArrayEncoder:
    """Encode features as network inputs: the features, and with `"piecewise"` their standardized pieces.

    Args:
        encoding: `"standard"` or `"piecewise"`.
        standardize: Whether features are standardized; pieces always are.

    Attributes:
        scaler: The fitted scaler of the features; `None` if they are not standardized.
        pieces: The fitted encoder of features with more than two values; `None` without such features.
        owners: (inputs,) the position of the feature that each input comes from.
        is_piece: (inputs,) whether an input is a piece.
    """

    def __init__(self, encoding: str, standardize: bool) -> None:
        self.encoding, self._standardize = encoding, standardize

    def fit(self, X: np.ndarray, weight: np.ndarray | None) -> "ArrayEncoder":
        """Fit to (rows, features) numbers with weights >= 0, or `None`."""
        features = X.shape[1]
        self.scaler = _fit_scaler(X, weight) if self._standardize else None
        self._encoded = np.zeros(0, int)
        if self.encoding == PIECEWISE:
            present = X if weight is None else X[weight > 0]
            self._encoded = np.flatnonzero([len(np.unique(column)) > 2 for column in present.T])
        self.pieces, groups = None, list[list[int]]()
        if len(self._encoded):
            self.pieces = PiecewiseLinearEncoder().fit(X[:, self._encoded], sample_weight=weight)
            self._piece_scaler = _fit_scaler(self.pieces.transform(X[:, self._encoded]), weight)
            groups = self.pieces.groups_
        of_pieces = np.repeat(self._encoded, [len(group) for group in groups])
        self._numbers = np.concatenate([np.arange(len(group)) for group in [[], *groups]]).astype(int)
        self.owners = np.concatenate([np.arange(features), of_pieces])
        self.is_piece = np.arange(len(self.owners)) >= features
        return self

    def transform(self, X: np.ndarray, layout: "ArrayEncoder | None" = None) -> np.ndarray:
        """Return (rows, inputs) float32.

        Args:
            X: (rows, features).
            layout: The encoder that defines the columns of the output. Pieces that `layout` does not have are dropped,
                and pieces that only `layout` has are 0. Default: `None`, for the layout of this encoder.
        """
        x = X if self.scaler is None else self.scaler.transform(X)
        if self.pieces is not None:
            x = np.concatenate([x, self._piece_scaler.transform(self.pieces.transform(X[:, self._encoded]))], axis=1)
        x = np.clip(x, -LARGEST, LARGEST).astype("float32")
        if layout is None or layout is self:
            return x
        place = {key: number for number, key in enumerate(layout._keys())}
        pairs = [(place[key], number) for number, key in enumerate(self._keys()) if key in place]
        arranged = np.zeros((len(x), len(place)), "float32")
        arranged[:, [to for to, _ in pairs]] = x[:, [number for _, number in pairs]]
        return arranged

    def _keys(self) -> list[tuple[int, int]]:
        """What each input is: the feature, and the number of the piece, or −1."""
        values = int((~self.is_piece).sum())
        return [*((feature, -1) for feature in range(values)), *zip(self.owners[values:], self._numbers, strict=True)]


def _fit_scaler(values: np.ndarray, weight: np.ndarray | None) -> StandardScaler:
    scaler = StandardScaler().fit(values)
    if weight is not None:
        fit_scaler(scaler, values, weight)
    set_constants_to_zero(scaler)
    return scaler
