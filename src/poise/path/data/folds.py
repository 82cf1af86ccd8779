"""Which rows every replica trains on, and which it holds out.

Folds are a number, a scikit-learn splitter, pairs of positions, or validation rows. Whatever would spoil a path is
refused here, before anything is trained: a part without rows, without weight or with one class, a row on both sides.
"""

import numbers
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from sklearn import model_selection

from poise.path.data.arrays import leaves
from poise.path.training import Replica
from poise.validation import validate_count

MOST_CLASSES_GUESSED = 20
HOW_TO_PASS = (
    "Pass an int >= 2, a scikit-learn splitter, or a list of pairs (train, held) of positions or masks of rows; "
    "validation rows are validation_data=(x, y)."
)


@runtime_checkable
class Splitter(Protocol):
    """What scikit-learn's splitters share."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterable: ...


def split_rows(
    rows: int,
    y: Any,
    cv: Any,
    n_init: int = 1,
    groups: Any = None,
    *,
    validation_rows: int = 0,
    sample_weight: Any = None,
    are_classes: bool | None = None,
    checks_classes: bool = True,
) -> list[Replica]:
    """Return for every seed a replica per fold, then one, fold -1, that trains on all rows.

    Args:
        rows: number of training rows.
        y: targets of `Data`. If they are classes of one output, a number of folds is stratified by them.
        cv: an int >= 2 (always the same shuffle; whole groups if there are groups), a scikit-learn splitter (its X are
            the positions of the rows), or an iterable of pairs (train, held) of positions or masks.
        n_init: number of random initializations, >= 1; all have the same folds. Default: 1.
        groups: (rows,) group of every row, for a number or a splitter. Default: None.
        validation_rows: number of validation rows after the training rows. If there are any, `cv` is not used: fold 0
            trains on all training rows, and there is no fold -1. Default: 0.
        sample_weight: sample weights as in `Data`. Default: None.
        are_classes: whether y holds classes, as labels or one-hot rows. Rows that are neither, such as probabilities or
            several labels, are never stratified. Default: None, which guesses: integers, booleans, zeros and ones, or
            one-hot rows, with at most 20 different values and two rows or more of each.
        checks_classes: whether to check that every fold trains on several classes. Pass False if the labels only
            stratify the folds, such as whether a row has an event. Default: True.

    Raises:
        TypeError: If cv, n_init or positions have another type.
        ValueError: If folds cannot be made, or a part is empty, overlaps, repeats a row, reaches beyond the rows, has
            no weight, trains on one class only or, if y is known to hold classes, lacks a class.

    Examples:
        >>> import numpy as np
        >>> from poise.path.data.folds import split_rows
        >>> replicas = split_rows(6, np.linspace(0, 1, 6), 3)
        >>> [(replica.fold, len(replica.train), len(replica.held)) for replica in replicas]
        [(0, 4, 2), (1, 4, 2), (2, 4, 2), (-1, 6, 0)]
    """
    validate_count("n_init", n_init, 1)
    classes = None if are_classes is False else _classes(y, bool(are_classes))
    if validation_rows:
        if groups is not None:
            raise ValueError("groups assigns rows to folds, and validation_data replaces the folds. Leave groups out.")
        pairs = [(np.arange(rows), rows + np.arange(validation_rows))]
    else:
        pairs = _pairs(rows, y, cv, groups, classes)
    parts = [(fold, *pair) for fold, pair in enumerate(pairs)]
    if classes is not None and checks_classes:
        _check_classes(parts, classes)
    _check_weights(parts, sample_weight)
    if not validation_rows:
        parts.append((-1, np.arange(rows), np.arange(0)))
    return [Replica(fold, seed, train, held) for seed in range(n_init) for fold, train, held in parts]


def full_replicas(replicas: Sequence[Replica]) -> list[int]:
    """Return the positions of the replicas that train on all rows, one per seed: a path keeps their weights."""
    return [n for n, replica in enumerate(replicas) if replica.fold < 0] or list(range(len(replicas)))


class _Classes(NamedTuple):
    """The class of every row as a number, the names of the classes, and whether they are known to be classes."""

    numbers: np.ndarray
    names: np.ndarray
    are_known: bool


def _target(y: Any) -> np.ndarray | None:
    """Return the targets if there is one output, a single column without its axis."""
    outputs = leaves(y)
    if len(outputs) != 1:
        return None
    return outputs[0][:, 0] if outputs[0].shape[1:] == (1,) else outputs[0]


def _classes(y: Any, are_known: bool) -> _Classes | None:
    target = _target(y)
    if target is None or target.ndim > 2:
        return None
    if target.ndim == 2:
        is_one_hot = ((target == 0) | (target == 1)).all() and (target.sum(axis=1) == 1).all()
        if not is_one_hot:
            return None
        target = target.argmax(axis=1)
    elif target.dtype.kind == "f":
        is_labels = (target % 1 == 0).all() if are_known else set(np.unique(target)) == {0, 1}
        if not is_labels:
            return None
    names, labels, counts = np.unique(target, return_inverse=True, return_counts=True)
    if not are_known and (len(names) > MOST_CLASSES_GUESSED or counts.min() < 2):
        return None
    return _Classes(labels, names, are_known)


def _pairs(rows: int, y: Any, cv: Any, groups: Any, classes: _Classes | None) -> list[tuple[np.ndarray, np.ndarray]]:
    if isinstance(cv, tuple):
        raise TypeError(f"cv must not be a tuple, got one of {len(cv)} elements. {HOW_TO_PASS}")
    if isinstance(cv, (str, bytes)) or not isinstance(cv, (numbers.Integral, Splitter, Iterable)):
        raise TypeError(f"cv is of type {type(cv).__name__}. {HOW_TO_PASS}")
    if groups is not None and not isinstance(cv, (numbers.Integral, Splitter)):
        raise ValueError(
            "groups assigns rows to folds, and the pairs in cv have done so already. Leave groups out, or pass a "
            "number or a splitter as cv."
        )
    group_numbers = None if groups is None else _group_numbers(groups, rows)
    if isinstance(cv, numbers.Integral):
        validate_count("cv", cv, 2)
        pairs = _folds(int(cv), rows, classes, group_numbers)
    elif isinstance(cv, Splitter):
        target = _target(y) if classes is None else classes.names[classes.numbers]
        pairs = cv.split(np.arange(rows)[:, None], target, None if groups is None else np.asarray(groups))
    else:
        pairs = cv
    pairs = [_check_pair(pair, rows, fold) for fold, pair in enumerate(pairs)]
    if not pairs:
        raise ValueError(f"cv={cv!r} has no pair (train, held). Pass at least one.")
    return pairs


def _folds(folds: int, rows: int, classes: _Classes | None, groups: np.ndarray | None) -> Iterable:
    units, what = (rows, "rows") if groups is None else (groups.max() + 1, "groups")
    if units < folds:
        remedy = _suggest_folds(units, what)
        raise ValueError(f"cv={folds} needs at least {folds} {what}, got {units}. {remedy}")
    largest = 0 if classes is None else np.bincount(classes.numbers).max()
    if classes is not None and classes.are_known and largest < folds:
        remedy = _suggest_folds(largest, "rows")
        raise ValueError(
            f"cv={folds} needs a class with at least {folds} rows, and the largest class has {largest}. {remedy}"
        )
    is_stratified = largest >= folds  # scikit-learn cannot stratify classes that are all smaller
    if groups is None:
        splitter_class = model_selection.StratifiedKFold if is_stratified else model_selection.KFold
        splitter = splitter_class(folds, shuffle=True, random_state=0)
    elif is_stratified:
        splitter = model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    else:
        splitter = model_selection.GroupKFold(folds)
    with warnings.catch_warnings():
        # A fold may hold out no row of a rare class; _check_classes looks at the training rows.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        target = classes.numbers if classes is not None and is_stratified else None
        return list(splitter.split(np.arange(rows), target, groups))


def _suggest_folds(most: int, what: str) -> str:
    """Return what to do if there can be at most `most` folds: a single fold is not allowed."""
    return f"Add {what}." if most < 2 else f"Pass a smaller cv, or add {what}."


def _group_numbers(groups: Any, rows: int) -> np.ndarray:
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise ValueError(f"groups has shape {groups.shape}. Pass one group for each of the {rows} rows.")
    labels, _ = pd.factorize(groups, sort=True)
    if (labels < 0).any():
        raise ValueError(f"groups is missing for {(labels < 0).sum()} rows. Fill it in, or drop these rows.")
    return labels


def _check_pair(pair: Any, rows: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"Fold {fold} is of type {type(pair).__name__}, not a pair (train, held). {HOW_TO_PASS}")
    train = _positions(pair[0], rows, fold, "training")
    held = _positions(pair[1], rows, fold, "held-out")
    both = np.intersect1d(train, held)
    if len(both):
        raise ValueError(
            f"In fold {fold}, {len(both)} rows are both training and held-out rows, for example row {both[0]}. Remove "
            "them from one of the two."
        )
    return train, held


def _positions(part: Any, rows: int, fold: int, role: str) -> np.ndarray:
    positions = np.asarray(part)
    if positions.ndim != 1 or (len(positions) and positions.dtype.kind not in "iub"):
        raise TypeError(
            f"The {role} rows of fold {fold} must be a 1-D array of positions or a boolean mask, got shape "
            f"{positions.shape} and dtype {positions.dtype}. {HOW_TO_PASS}"
        )
    if positions.dtype == bool:
        if len(positions) != rows:
            raise ValueError(
                f"The mask of the {role} rows of fold {fold} has {len(positions)} entries, but x has {rows} rows. Pass "
                "one value per row."
            )
        positions = np.flatnonzero(positions)
    if not len(positions):
        raise ValueError(f"Fold {fold} has no {role} rows. Pass a smaller cv, or another split.")
    if positions.min() < 0 or positions.max() >= rows:
        outside = positions[(positions < 0) | (positions >= rows)]
        raise ValueError(
            f"Fold {fold} contains the {role} row {outside[0]}, but x has rows 0 to {rows - 1}. Pass positions in that "
            "range."
        )
    values, counts = np.unique(positions, return_counts=True)
    if counts.max() > 1:
        raise ValueError(
            f"Fold {fold} contains {(counts > 1).sum()} {role} rows more than once, for example row "
            f"{values[counts > 1][0]}. Use sample_weight to make a row count more."
        )
    return positions.astype(np.intp)


def _check_classes(parts: list[tuple[int, np.ndarray, np.ndarray]], classes: _Classes) -> None:
    for fold, train, _ in parts:
        present = np.unique(classes.numbers[train])
        if len(present) == 1:
            raise ValueError(
                f"Fold {fold} trains on class {classes.names[present[0]]} only. Pass a smaller cv or other folds, and "
                "rows of at least two classes."
            )
        missing = np.setdiff1d(np.arange(len(classes.names)), present)
        if classes.are_known and len(missing):
            raise ValueError(
                f"Fold {fold} has no training row of class {classes.names[missing[0]]}. Pass a smaller cv or other "
                "folds, or drop classes with few rows."
            )


def _check_weights(parts: list[tuple[int, np.ndarray, np.ndarray]], sample_weight: Any) -> None:
    for weights in leaves(sample_weight):
        total = np.asarray(weights).reshape(len(weights), -1).sum(axis=1)
        for fold, train, held in parts:
            for rows, role in ((train, "training"), (held, "held-out")):
                if not total[rows].any():
                    raise ValueError(
                        f"All {len(rows)} {role} rows of fold {fold} have sample_weight 0. Pass a smaller cv or other "
                        "folds, or drop the rows of weight 0."
                    )
