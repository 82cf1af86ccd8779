"""How much each column matters to a network, and in which direction: both on test rows.

The importance of a column is the increase of the loss when its values are permuted among the rows (Breiman 2001,
"Random forests", section 10). Its direction is that of the mean prediction when every row has the same value in that
column (partial dependence; Friedman 2001, "Greedy function approximation: a gradient boosting machine").

scikit-learn permutes single inputs and returns one score per permutation. Here, all inputs of a column are permuted
together, and the standard error is one over rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from poise.compaction.inputs import input_kernels
from poise.study.columns.base import text_of
from poise.study.columns.encoding import Encoder
from poise.study.columns.kinds import kind_named
from poise.study.encoded_rows import EncodedRows
from poise.study.predictions import BATCH_SIZE, predict_outputs

PERMUTATIONS = 10
MOST_COLUMNS = 100
"""Columns that are measured; of wider tables those with the largest weights, and the selected ones."""
MOST_ROWS = 2000
"""Rows whose values are permuted; of more rows a random part is enough."""
CURVE_ROWS = 500
"""Rows over which a prediction is averaged."""
QUANTILES = 20
MOST_CATEGORIES = 50
MONOTONE = 0.9
"""The share of all changes along a curve that go in one direction, if it rises or falls."""
SMALLEST = 1e-6
"""A curve that changes by less, relative to the spread of the predictions, is flat."""


@dataclass(frozen=True, eq=False)
class PartialDependence:
    """The mean prediction when every row has the same value in a column.

    Args:
        values: The values: ascending quantiles, or categories, the most frequent one first.
        predictions: (values,) the mean prediction at each of them: an output, or a probability.
        label: The class or target that is predicted: the second of two classes; of more classes, or of several targets,
            the one whose mean prediction changes most. Otherwise `""`.
        is_ordered: Whether the values have an order.
    """

    values: pd.Series
    predictions: np.ndarray
    label: str
    is_ordered: bool


def measure_importance(
    model: keras.Model,
    rows: EncodedRows,
    encoder: Encoder,
    classes: Sequence[str],
    read: Collection[str] | None,
    selected: Collection[str],
    seed: int,
    permutations: int = PERMUTATIONS,
) -> tuple[pd.DataFrame, Mapping[str, PartialDependence]]:
    """Measure how much the loss of a network on test rows increases without the information of a column.

    Args:
        model: The network; it takes encoded rows.
        rows: The test rows.
        encoder: The encoder.
        classes: The classes; empty if the target has numbers.
        read: The columns that the network reads; `None` if they are unknown. The others have importance 0.
        selected: Columns that are measured in any case.
        seed: The seed of the permutations.
        permutations: The number of permutations of each column. Default: 10.

    Returns:
        Two results. First, one row per column: its `importance`, its standard error `error` over rows (or groups of
        rows), and its `direction`: `"up"`, `"down"`, `"mixed"` or `"flat"`, and for a column of categories those with
        the highest and the lowest mean prediction. Predictions are numbers, mean counts, or the probability of the
        second of two classes. Of more classes, or of several targets, it is the direction of the one that changes most,
        whose name comes first. NaN and
        `""` for columns that are not measured. Second, the partial dependence of the columns that are measured and have
        values.
    """
    kinds = {column.name: kind_named(column.kind) for column in encoder.columns}
    table = pd.DataFrame({"importance": np.nan, "error": np.nan, "direction": ""}, index=pd.Index(kinds, name="column"))
    task = rows.scorer.task
    used = [name for name in kinds if read is None or name in read]
    table.loc[~table.index.isin(used)] = [0.0, 0.0, "flat"]
    random = np.random.default_rng(seed)
    if rows.scorer.weight is not None:
        rows = rows.take(np.flatnonzero(rows.scorer.weight))
    rows = _draw_rows(rows, MOST_ROWS, random)
    orders = np.array([random.permutation(len(rows.x)) for _ in range(permutations)])
    losses, curve_rows = rows.score(model).losses, _draw_rows(rows, CURVE_ROWS, random)
    measured = _choose_columns(used, selected, model, encoder.owners)
    grids = {name: _make_grid(rows.features[name], kinds[name].is_ordered) for name in measured}
    encoded, curves = _encode_grids(grids, encoder), {}
    for name in measured:
        places = np.flatnonzero(np.asarray(encoder.owners) == name)
        permuted = _predict_with(model, rows.x, places, rows.x[:, places][orders])
        increase = (task.row_losses(rows.scorer.y, permuted, rows.scorer.weight) - losses).mean(axis=0)
        table.loc[name, ["importance", "error"]] = _mean_and_error(increase, rows)
        outputs = _predict_with(model, curve_rows.x, places, encoded[: len(grids[name]), None, places])
        table.loc[name, "direction"] = "flat"
        if len(grids[name]):
            labels, predictions = task.explain(outputs, classes)
            number = int(np.ptp(predictions.mean(axis=1), axis=0).argmax())
            predictions = predictions[..., number]
            curve = PartialDependence(grids[name], predictions.mean(axis=1), labels[number], kinds[name].is_ordered)
            curves[name] = curve
            table.loc[name, "direction"] = _describe_curve(curve, float(predictions.std()), len(labels) > 1)
    return table, curves


def _draw_rows(rows: EncodedRows, most: int, random: np.random.Generator) -> EncodedRows:
    count = len(rows.x)
    return rows if count <= most else rows.take(np.sort(random.choice(count, most, replace=False)))


def _choose_columns(
    used: list[str], selected: Collection[str], model: keras.Model, owners: Sequence[str]
) -> list[str]:  # fmt: skip
    """Return the columns to measure."""
    if len(used) <= MOST_COLUMNS:
        return used
    squares = np.zeros(len(owners))
    for kernel in input_kernels(model) or []:
        square = np.square(keras.ops.convert_to_numpy(model.weights[kernel.position]).astype("float64"))
        others = tuple(axis for axis in range(square.ndim) if axis != kernel.axis)
        np.add.at(squares, kernel.inputs, square.sum(axis=others))
    largest = pd.Series(squares).groupby([*owners], sort=False).sum()[used].nlargest(MOST_COLUMNS)
    return [name for name in used if name in largest.index or name in selected]


def _mean_and_error(increase: np.ndarray, rows: EncodedRows) -> tuple[float, float]:
    """Return the weighted mean over rows, and its standard error over rows or groups of rows."""
    scorer = rows.scorer
    weight = np.ones(len(increase)) if scorer.weight is None else scorer.weight
    mean = float(np.average(increase, weights=weight))
    deviations = weight * (increase - mean)
    if scorer.groups is not None:
        deviations = np.bincount(np.unique(scorer.groups, return_inverse=True)[1], deviations)
    units = len(deviations)
    if units < 2:
        return mean, float("nan")
    return mean, float(np.sqrt(units / (units - 1) * np.square(deviations).sum()) / weight.sum())


def _predict_with(model: keras.Model, x: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return (variants, rows, outputs) of rows with other values of some inputs.

    Args:
        model: The network.
        x: (rows, inputs).
        places: The inputs.
        values: (variants, rows or 1, places) their values.
    """
    count = max(BATCH_SIZE // len(x), 1)
    parts = []
    for start in range(0, len(values), count):
        block = values[start : start + count]
        changed = np.repeat(x[None], len(block), axis=0)
        changed[:, :, places] = block
        parts.append(predict_outputs(model, changed.reshape(-1, x.shape[1])).reshape(*changed.shape[:2], -1))
    return np.concatenate(parts) if parts else np.zeros((0, len(x), 1))


def _make_grid(values: pd.Series, is_ordered: bool) -> pd.Series:
    """Return values of a column, ascending quantiles or the most frequent categories; none if all are missing."""
    present = values.dropna().reset_index(drop=True)
    if is_ordered:
        ranks = np.linspace(0.0, 1.0, QUANTILES + 2)[1:-1]
        positions = np.unique(np.round(ranks * (len(present) - 1)).astype(int)) if len(present) else []
        return present.sort_values(ignore_index=True).iloc[positions].drop_duplicates()
    frequent = present.value_counts().index[:MOST_CATEGORIES]
    return pd.Series([*frequent], dtype=values.dtype)


def _encode_grids(grids: dict[str, pd.Series], encoder: Encoder) -> np.ndarray:
    """Return (most values, inputs) the grids of all columns, encoded next to each other."""
    count = max((len(grid) for grid in grids.values()), default=0) or 1
    frame = {}
    for column in encoder.columns:
        grid = grids.get(column.name, ())
        repeated = np.arange(count) % max(len(grid), 1)
        frame[column.name] = (
            grid.iloc[repeated].reset_index(drop=True)
            if isinstance(grid, pd.Series) and len(grid)
            else kind_named(column.kind).missing_values(count)
        )
    return encoder.transform(pd.DataFrame(frame))


def _describe_curve(curve: PartialDependence, spread: float, is_named: bool) -> str:
    """Return the direction of the mean prediction; `spread` is that of the single predictions."""
    if len(curve.values) < 2 or np.ptp(curve.predictions) <= SMALLEST * spread:
        return "flat"
    prefix = f"{curve.label}: " if is_named else ""
    if curve.is_ordered:
        return prefix + _name_shape(curve.predictions)
    highest, lowest = (
        text_of(curve.values.iloc[int(at)]) for at in (curve.predictions.argmax(), curve.predictions.argmin())
    )
    return f"{prefix}highest at {highest}, lowest at {lowest}"


def _name_shape(curve: np.ndarray) -> str:
    changes = np.diff(curve)
    share = changes.clip(min=0.0).sum() / np.abs(changes).sum()
    return "up" if share >= MONOTONE else "down" if share <= 1.0 - MONOTONE else "mixed"
