"""Encode the training rows once for every fold, so that no fold sees its held-out rows.

Every block of the result is encoded by an encoder that was fitted on the training rows of one fold only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poise.path.training import Replica
from poise.study.columns.base import Key
from poise.study.columns.encoding import STANDARD, Encoder
from poise.study.errors import DataError
from poise.study.tables import Table
from poise.study.weights import relative_weights, scale_to_mean_one


@dataclass(frozen=True, eq=False)
class Folds:
    """The training rows, encoded once per fold.

    All arrays are stacked: block b holds every row as the encoder of fold b sees it, the last block as the encoder of
    all rows does.

    Args:
        x: (blocks * rows, inputs) float32.
        y: (blocks * rows, ...) as `Task.encode` returns it; numbers that the task standardizes are standardized by
            the training rows of the block.
        weight: (blocks * rows,) float32, the weights of the loss, with mean 1 over the training rows and over the
            held-out rows of each block; `None` if there are no weights, or all are equal.
        replicas: One per block; `train` and `held` are positions in `x`, all within the block. The last has fold −1
            and trains on all rows.
        encoder: The encoder of all rows, whose inputs are the columns of `x`.
        center, scale: A prediction in units of the target, without an offset, is output · scale + center. If the task
            standardizes, they are the mean and the standard deviation of the target over all rows, weighted if there
            are weights; otherwise 0 and 1, or with an offset exp(−`Table.offset_center`). Arrays (targets,) if the
            table has several targets.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    replicas: list[Replica]
    encoder: Encoder
    center: float | np.ndarray
    scale: float | np.ndarray

    def weight_of(self, positions: np.ndarray) -> np.ndarray:
        """Return the weights of stacked rows as float64, with mean 1 over all training rows."""
        if self.weight is None:
            return np.ones(len(positions))
        size = len(self.replicas[-1].train)
        return self.weight[-size:][positions % size].astype("float64")


def encode_folds(
    table: Table, rows: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]], encoding: str = STANDARD
) -> Folds:
    """Encode the training rows, once for every fold and once for all rows.

    Args:
        table: The table, as `poise.study.tables.read` returns it.
        rows: Positions in the table of the training rows; no other row is read.
        pairs: For each fold, positions within `rows`: the training rows and the held-out rows of the fold.
        encoding: As for `Encoder`. Default: `"standard"`.

    Returns:
        The encoded rows.

    Raises:
        DataError: If numbers are too large for float32.

    Examples:
        >>> import numpy as np
        >>> from poise.study.columns.folds import encode_folds
        >>> from poise.study.tables import read
        >>> folds = encode_folds(read("diabetes"), np.arange(400), [(np.arange(300), np.arange(300, 400))])
        >>> folds.x.shape, [(replica.fold, len(replica.train), len(replica.held)) for replica in folds.replicas]
        ((800, 10), [(0, 300, 100), (-1, 400, 0)])
    """
    size = len(rows)
    features = table.features.iloc[rows].reset_index(drop=True)
    weight, loss_weight = relative_weights(table.weight, rows), relative_weights(table.loss_weight, rows)
    encoder = Encoder(table.columns, encoding).fit(features, weight)
    parts = [(fold, np.asarray(train), np.asarray(held)) for fold, (train, held) in enumerate(pairs)]
    parts.append((-1, np.arange(size), np.arange(0)))
    x = np.zeros((len(parts) * size, len(encoder.inputs)), "float32")
    replicas, weights = [], []
    for block, (fold, train, held) in enumerate(parts):
        fold_weight = None if weight is None else weight[train]
        fold_encoder = encoder if fold < 0 else Encoder(table.columns, encoding).fit(features.iloc[train], fold_weight)
        start = block * size
        _encode_into(x[start : start + size], fold_encoder, features, encoder.keys)
        if loss_weight is not None:
            weights.append(scale_to_mean_one(loss_weight, Replica(fold, 0, train, held)))
        replicas.append(Replica(fold, 0, start + train, start + held))
    y, center, scale = _stack_targets(table, rows, [train for _, train, _ in parts], weight)
    return Folds(x, y, np.concatenate(weights) if weights else None, replicas, encoder, center, scale)


def _encode_into(x: np.ndarray, encoder: Encoder, features: pd.DataFrame, keys: tuple[Key, ...]) -> None:
    """Write what a fold's encoder returns into the columns of the encoder of all rows; what it lacks stays 0."""
    column = {key: place for place, key in enumerate(keys)}
    encoded = encoder.transform(features)
    known = [place for place, key in enumerate(encoder.keys) if key in column]
    x[:, [column[encoder.keys[place]] for place in known]] = encoded[:, known]
    for place, key in enumerate(encoder.keys):
        if key not in column:  # such as a category that is rare among all rows, but not in this fold
            fallback = encoder.kind_of(key).fallback(key)
            if fallback is not None:
                x[:, column[fallback]] += encoded[:, place]


def _stack_targets(
    table: Table, rows: np.ndarray, training: list[np.ndarray], weight: np.ndarray | None
) -> tuple[np.ndarray, float | np.ndarray, float | np.ndarray]:
    if table.classes:
        return table.task.encode(np.tile(table.class_numbers[rows], len(training))), 0.0, 1.0
    values = table.network_target.to_numpy()[rows]
    if not table.task.standardizes:
        y = table.task.encode(_check_float32(np.tile(values, len(training)), table.targets))
        return y, 0.0, float(np.exp(-table.offset_center))
    blocks, center, scale = [], 0.0, 1.0
    for train in training:
        y, center, scale = standardize(values, train, None if weight is None else weight[train])
        blocks.append(y)
    return table.task.encode(_check_float32(np.concatenate(blocks), table.targets)), center, scale


def standardize(
    values: np.ndarray, train: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, float | np.ndarray, float | np.ndarray]:
    """Standardize values by the mean and standard deviation of the training rows.

    Args:
        values: (rows,) or (rows, targets).
        train: The positions of the training rows.
        weight: (training rows,) their weights, or `None`.

    Returns:
        The standardized values, the mean, and the standard deviation, both numbers or (targets,).
    """
    if weight is not None:
        train, weight = train[weight > 0], weight[weight > 0] / weight.max()
    largest = np.abs(values[train]).max(axis=0)
    unit = np.where(largest > 0.0, largest, 1.0)  # keeps squares finite
    with np.errstate(over="ignore", invalid="ignore"):
        y = values / unit
        mean = np.average(y[train], axis=0, weights=weight)
        spread = np.sqrt(np.average((y[train] - mean) ** 2, axis=0, weights=weight))
        spread = np.where(spread > 1e-14, spread, 1.0 / unit)
        y, center, scale = (y - mean) / spread, mean * unit, spread * unit
    return (y, float(center), float(scale)) if values.ndim == 1 else (y, center, scale)


def _check_float32(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the values, or raise DataError if they are not finite in float32."""
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(values.astype("float32")).all(axis=0)
    if not is_finite.all():
        name = names[int(np.argmin(is_finite))]
        raise DataError(
            f"The numbers in column {name!r} are too large for float32. Use a larger unit, such as millions."
        )
    return values
