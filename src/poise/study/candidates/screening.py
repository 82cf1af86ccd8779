"""In wide tables, choose the columns that the hidden layers read. Each fold chooses by its own training rows.

A skip connection reads all columns, so the hidden layers are needed for interactions only. With p columns there are
p²/2 pairs, and random initial weights rarely find the pair that matters. The screening scores each column by the
squared correlation of its values with the target, and each pair by that of the product of two values. The hidden layers
read the columns with the highest scores. This is sure independence screening of main effects and of interactions.

References:
    Fan and Lv 2008, "Sure independence screening for ultrahigh dimensional feature space";
    Fan, Kong, Li and Lv 2015, "Innovated interaction screening for high-dimensional nonlinear classification".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from poise.compaction.input_groups import INPUT_RULE_NAME
from poise.path.training import Replica
from poise.rules.members import path_of
from poise.rules.rule import Rule

MOST_COLUMNS = 64
"""Columns that the hidden layers read in a fold. Tables with no more columns are not screened."""
LARGEST = 3.0
"""Larger standardized values are clipped, so that no single row decides."""
BLOCK = 1024
"""Values whose products with all others are computed at once."""


@dataclass(frozen=True, eq=False)
class HiddenColumns:
    """The columns that the hidden layers read.

    Args:
        inputs: The positions of their inputs, without pieces, ascending.
        held: (replicas, columns) bool: where a path holds the hidden weights of a column at zero, because the replica
            did not choose the column. Only columns that at least one replica chose are listed.
    """

    inputs: np.ndarray
    held: np.ndarray


def choose_hidden_columns(
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    replicas: Sequence[Replica],
    owners: Sequence[str],
    is_piece: np.ndarray,
    classes: int,
    is_screened: bool = True,
) -> HiddenColumns:
    """Return the columns that the hidden layers read.

    Args:
        x: (stacked rows, inputs) as `Folds.x`.
        y: (stacked rows, 1) or (stacked rows,) as `Folds.y`.
        weight: (stacked rows,) as `Folds.weight`, or `None`.
        replicas: The replicas, without further initial weights.
        owners: The column of each input.
        is_piece: (inputs,) whether an input is a piece of a piecewise-linear encoding.
        classes: The number of classes; 0 if there are none.
        is_screened: Whether to choose columns of a wide table. Default: `True`; otherwise, all are read.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(owners))}
    columns = np.array([numbers[name] for name in owners])
    kept = np.ones((len(replicas), len(numbers)), bool)
    if is_screened and len(numbers) > MOST_COLUMNS:
        for row, replica in enumerate(replicas):
            rows = replica.train
            of_rows = np.ones(len(rows)) if weight is None else weight[rows]
            kept[row] = screen_columns(x[rows], _make_targets(y[rows], classes), of_rows, columns, is_piece)
    is_read = np.asarray(kept.any(axis=0))
    return HiddenColumns(np.flatnonzero(is_read[columns] & ~is_piece), ~kept[:, is_read])


def hold_hidden_columns(
    start: keras.Model, rules: Sequence[Rule], hidden: HiddenColumns, n_init: int
) -> dict[str, np.ndarray] | None:
    """Return which groups of the first hidden kernel a path holds at zero.

    Args:
        start: What `build_start` returned for the inputs of `hidden`.
        rules: The rules of the path.
        hidden: The columns that its hidden layers read.
        n_init: The number of random initializations per fold.

    Returns:
        As `solve_path` takes it; `None` if every replica reads the same columns, or no penalty drops columns.
    """
    kernel = start.get_layer("hidden_1").kernel
    drops_columns = any(str(rule.name).startswith(INPUT_RULE_NAME) and rule.applies_to(kernel) for rule in rules)
    return {path_of(kernel): np.tile(hidden.held, (n_init, 1))} if drops_columns and hidden.held.any() else None


def screen_columns(
    x: np.ndarray, targets: np.ndarray, weight: np.ndarray, columns: np.ndarray, is_piece: np.ndarray
) -> np.ndarray:
    """Return (columns,) whether a column is among the `MOST_COLUMNS` with the highest scores.

    Half of them are the columns with the highest scores of their own. The others come from the pairs with the highest
    scores.

    Args:
        x: (rows, inputs) encoded rows.
        targets: (rows, outputs) numbers.
        weight: (rows,) weights; a row of weight 2 counts as two rows.
        columns: (inputs,) the number of each input's column.
        is_piece: (inputs,) whether an input is a piece.
    """
    values, owners = _make_values(x, weight, columns, is_piece)
    weighted = weight[:, None] * _standardize(np.clip(_standardize(targets, weight), -LARGEST, LARGEST), weight)
    own = np.zeros(columns.max() + 1)
    np.maximum.at(own, owners, np.square(values.T @ weighted).max(axis=1))
    kept = np.zeros(len(own), bool)
    kept[np.argsort(-own, kind="stable")[: MOST_COLUMNS // 2]] = True
    for pair in _rank_pairs(values, weighted, owners):
        if kept.sum() + (~kept[pair]).sum() > MOST_COLUMNS:
            break
        kept[pair] = True
    return kept


def _make_values(
    x: np.ndarray, weight: np.ndarray, columns: np.ndarray, is_piece: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return standardized values (rows, values) and the column of each.

    The values are the inputs without pieces. Columns with pieces get a second value, so that symmetric effects are
    found: the square of the standardized sum of the pieces. (The sum is nearly the rank of the number.)
    """
    with_pieces = np.unique(columns[is_piece])
    parts, owners = [np.clip(x[:, ~is_piece], -LARGEST, LARGEST)], [columns[~is_piece], with_pieces]
    if len(with_pieces):
        order = np.argsort(columns[is_piece], kind="stable")
        starts = np.searchsorted(columns[is_piece][order], with_pieces)
        parts.append(np.square(_standardize(np.add.reduceat(x[:, is_piece][:, order], starts, axis=1), weight)))
    return _standardize(np.concatenate(parts, axis=1), weight), np.concatenate(owners)


def _standardize(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    values = values - np.average(values, axis=0, weights=weight)
    spread = np.sqrt(np.average(np.square(values), axis=0, weights=weight))
    return (values / np.where(spread > 0, spread, 1.0)).astype("float32")


def _make_targets(y: np.ndarray, classes: int) -> np.ndarray:
    """Return (rows, outputs): one target per class if there are more than two classes."""
    y = y.reshape(len(y), -1)
    return (y == np.arange(classes)).astype("float32") if classes > 2 else y


def _rank_pairs(values: np.ndarray, targets: np.ndarray, owners: np.ndarray) -> Iterator[np.ndarray]:
    """Yield pairs of columns, those with the highest scores first: the squared sum of target · value · value."""
    candidates: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    most = 8 * MOST_COLUMNS
    for start in range(0, values.shape[1], BLOCK):
        block = values[:, start : start + BLOCK]
        scores = np.max([np.square((block * y[:, None]).T @ values) for y in targets.T], axis=0)
        scores[owners[start : start + BLOCK][:, None] >= owners] = -1.0  # each pair once
        best = np.argpartition(scores, -min(most, scores.size), axis=None)[-most:]
        first, second = np.unravel_index(best, scores.shape)
        candidates.append((scores[first, second], first + start, second))
    scores, first, second = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
    for place in np.argsort(-scores, kind="stable"):
        if scores[place] >= 0:
            yield owners[[first[place], second[place]]]
