"""Which rows every replica trains on, and which it holds out.

The folds are a number, a scikit-learn splitter, pairs of positions, or rows given to validate on. Whatever would spoil
a path is refused here, before anything is trained: a part without rows, without weight or with one class, a row that
is on both sides.
"""

import numbers
import warnings
from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from sklearn import model_selection

from poise.path.data.arrays import HOW_TO_WRITE, leaves
from poise.path.training import Replica

MOST_CLASSES_GUESSED = 20


@runtime_checkable
class Splitter(Protocol):
    """What scikit-learn's splitters share."""

    def split(self, X, y=None, groups=None) -> Iterable: ...


def split(rows: int, y, cv, n_init: int = 1, groups=None, *, sample_weight=None, are_classes=None) -> list[Replica]:
    """Deals the rows out: for every seed a replica for each fold, then one, fold −1, that trains on all rows.

    Args:
        rows: how many rows train.
        y: the targets of `Data`. Where they are classes of one output, a number of folds is stratified by them.
        cv: a number ≥ 2 (always the same shuffle; whole groups where there are groups), a scikit-learn splitter
            (as X it sees the positions of the rows), an iterable of pairs (train, held) of positions or masks, or rows
            to validate on, (x, y) or (x, y, sample_weight): then fold 0 trains on all rows, and there is no fold −1.
        n_init: how many draws of initial weights, ≥ 1; all have the same folds.
        groups: (rows,) the group of every row, for a number or a splitter; None for none.
        sample_weight: that of `Data`.
        are_classes: whether y holds classes, as labels or one-hot rows (other rows, such as probabilities or several
            labels, are not stratified even so). None guesses: whole numbers, truth values, zeros and ones, or one-hot
            rows, with at most 20 different values and two rows or more of each.

    Raises:
        TypeError: for folds, seeds or positions of another kind.
        ValueError: for folds that cannot be made, and for parts that are empty, overlap, repeat a row, reach beyond
            the rows, weigh nothing, train on one class alone or, where y is known to hold classes, lack a class.

    Example:
        >>> import numpy as np
        >>> from poise.path.data.folds import split
        >>> [(replica.fold, len(replica.train), len(replica.held)) for replica in split(6, np.linspace(0, 1, 6), 3)]
        [(0, 4, 2), (1, 4, 2), (2, 4, 2), (-1, 6, 0)]
    """
    _check_whole("n_init", n_init, 1)
    classes = None if are_classes is False else _classes(y, bool(are_classes))
    parts = [(fold, *pair) for fold, pair in enumerate(_pairs(rows, y, cv, groups, classes))]
    if classes is not None:
        _check_classes(parts, classes)
    _check_weights(parts, sample_weight)
    if not isinstance(cv, tuple):
        parts.append((-1, np.arange(rows), np.arange(0)))
    return [Replica(fold, seed, train, held) for seed in range(n_init) for fold, train, held in parts]


def kept(replicas: list[Replica]) -> list[int]:
    """The positions of the replicas that train on all rows, one a seed: those whose weights a path keeps."""
    return [n for n, replica in enumerate(replicas) if replica.fold < 0] or list(range(len(replicas)))


def _check_whole(name: str, value, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}={value!r}: give a whole number ≥ {least}.")
    if value < least:
        raise ValueError(f"{name}={value!r}: give a whole number ≥ {least}.")


# ---------------------------------------------------------------- classes


class _Classes(NamedTuple):
    """The class of every row as a number, the names of the classes, and whether they are known to be classes."""

    numbers: np.ndarray
    names: np.ndarray
    are_known: bool


def _target(y) -> np.ndarray | None:
    """The targets where there is one output, a single column without its axis."""
    found = leaves(y)
    if len(found) != 1:
        return None
    return found[0][:, 0] if found[0].shape[1:] == (1,) else found[0]


def _classes(y, are_known: bool) -> _Classes | None:
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


# ---------------------------------------------------------------- pairs


def _pairs(rows: int, y, cv, groups, classes: _Classes | None) -> list[tuple[np.ndarray, np.ndarray]]:
    if isinstance(cv, (str, bytes)) or not isinstance(cv, (numbers.Integral, Splitter, Iterable)):
        raise TypeError(f"cv={cv!r}: give a number ≥ 2, a scikit-learn splitter, pairs or rows. {HOW_TO_WRITE}")
    if groups is not None and not isinstance(cv, (numbers.Integral, Splitter)):
        raise ValueError(
            "groups tell a number of folds or a splitter which rows belong together, and these folds say already which "
            "rows are held out. Leave groups out, or give a number or a splitter."
        )
    if isinstance(cv, tuple):
        return [(np.arange(rows), rows + np.arange(len(leaves(cv[1])[0])))]
    group_numbers = None if groups is None else _group_numbers(groups, rows)
    if isinstance(cv, numbers.Integral):
        _check_whole("cv", cv, 2)
        pairs = _numbered(int(cv), rows, classes, group_numbers)
    elif isinstance(cv, Splitter):
        target = _target(y) if classes is None else classes.names[classes.numbers]
        pairs = cv.split(np.arange(rows)[:, None], target, None if groups is None else np.asarray(groups))
    else:
        pairs = cv
    pairs = [_checked_pair(pair, rows, fold) for fold, pair in enumerate(pairs)]
    if not pairs:
        raise ValueError(f"cv={cv!r} has no pair (train, held), so nothing is held out. Give at least one.")
    return pairs


def _numbered(folds: int, rows: int, classes: _Classes | None, groups: np.ndarray | None) -> Iterable:
    units, what = (rows, "rows") if groups is None else (groups.max() + 1, "groups")
    if units < folds:
        raise ValueError(f"cv={folds} needs at least as many {what}, and there are {units}. Give fewer folds.")
    largest = 0 if classes is None else np.bincount(classes.numbers).max()
    if classes is not None and classes.are_known and largest < folds:
        raise ValueError(f"cv={folds}, and no class has more than {largest} rows. Give at most {largest} folds.")
    is_stratified = largest >= folds  # scikit-learn stratifies no classes that are all smaller
    if groups is None:
        kind = model_selection.StratifiedKFold if is_stratified else model_selection.KFold
        splitter = kind(folds, shuffle=True, random_state=0)
    elif is_stratified:
        splitter = model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    else:
        splitter = model_selection.GroupKFold(folds)
    with warnings.catch_warnings():
        # A fold may hold out no row of a rare class; that every class trains in every fold is checked.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        target = classes.numbers if classes is not None and is_stratified else None
        return list(splitter.split(np.arange(rows), target, groups))


def _group_numbers(groups, rows: int) -> np.ndarray:
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise ValueError(f"groups has shape {groups.shape}. Give one group for each of the {rows} rows.")
    found, _ = pd.factorize(groups, sort=True)
    if (found < 0).any():
        raise ValueError(f"groups is missing for {(found < 0).sum()} rows. Give these rows a group, or leave them out.")
    return found


def _checked_pair(pair, rows: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"Fold {fold} is of type {type(pair).__name__}, not a pair (train, held). {HOW_TO_WRITE}")
    train = _positions(pair[0], rows, f"Fold {fold} trains on")
    held = _positions(pair[1], rows, f"Fold {fold} holds out")
    both = np.intersect1d(train, held)
    if len(both):
        raise ValueError(f"Fold {fold} trains on {len(both)} rows that it holds out, row {both[0]} first. Choose one.")
    return train, held


def _positions(part, rows: int, what: str) -> np.ndarray:
    found = np.asarray(part)
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iub"):
        raise TypeError(
            f"{what} an array of shape {found.shape} and dtype {found.dtype}. Give positions of rows, or a mask, in "
            f"one dimension. {HOW_TO_WRITE}"
        )
    if found.dtype == bool:
        if len(found) != rows:
            raise ValueError(f"{what} a mask of {len(found)} rows, and there are {rows}. Give a truth value for each.")
        found = np.flatnonzero(found)
    if not len(found):
        raise ValueError(f"{what} no rows. Give at least one, by fewer folds or another split.")
    if found.min() < 0 or found.max() >= rows:
        wrong = found[(found < 0) | (found >= rows)]
        raise ValueError(f"{what} row {wrong[0]}, and the rows are 0 to {rows - 1}. Give positions among these.")
    values, counts = np.unique(found, return_counts=True)
    if counts.max() > 1:
        raise ValueError(
            f"{what} {(counts > 1).sum()} rows more than once, row {values[counts > 1][0]} first. Name a row once; "
            "sample_weight makes it count more."
        )
    return found.astype(np.intp)


# ---------------------------------------------------------------- what a part must hold


def _check_classes(parts: list[tuple[int, np.ndarray, np.ndarray]], classes: _Classes) -> None:
    for fold, train, _ in parts:
        present = np.unique(classes.numbers[train])
        if len(present) == 1:
            raise ValueError(
                f"Fold {fold} trains on rows of class {classes.names[present[0]]} alone, so there is nothing to tell "
                "apart. Give fewer or other folds, and rows of two classes at least."
            )
        missing = np.setdiff1d(np.arange(len(classes.names)), present)
        if classes.are_known and len(missing):
            raise ValueError(
                f"Fold {fold} trains on no row of class {classes.names[missing[0]]}, which others hold. Give fewer or "
                "other folds, or leave classes out that have a row or two."
            )


def _check_weights(parts: list[tuple[int, np.ndarray, np.ndarray]], sample_weight) -> None:
    for weights in leaves(sample_weight):
        total = np.asarray(weights).reshape(len(weights), -1).sum(axis=1)
        for fold, train, held in parts:
            for rows, what in ((train, "trains on"), (held, "holds out")):
                if not total[rows].any():
                    raise ValueError(
                        f"Fold {fold} {what} {len(rows)} rows whose sample_weight is 0, so none counts. Give fewer or "
                        "other folds, or leave the rows of weight 0 out."
                    )
