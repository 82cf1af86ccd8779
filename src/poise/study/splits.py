"""Which rows train, which are held out in which fold, and which test."""

import warnings

import numpy as np
import pandas as pd
from sklearn import model_selection

from poise.study.sources import DataError
from poise.study.tables import Table

Pairs = list[tuple[np.ndarray, np.ndarray]]


def put_aside(table: Table, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the rows that train and of those that test."""
    every = np.arange(len(table.target))
    if table.time is not None:
        order = np.argsort(table.time.to_numpy(), kind="stable")
        cut = len(every) - max(round(share * len(every)), 1)
        return np.sort(order[:cut]), np.sort(order[cut:])
    if table.groups is not None:
        shuffle = model_selection.GroupShuffleSplit(1, test_size=share, random_state=seed)
        training, testing = next(shuffle.split(every, groups=table.groups))
    else:
        strata = table.target if table.classes else None
        try:
            training, testing = model_selection.train_test_split(
                every, test_size=share, random_state=seed, stratify=strata
            )
        except ValueError as error:
            raise DataError(
                f"{len(every)} rows cannot be split into rows that train and rows that test: {error} Bring more rows, "
                "or another share of test rows."
            ) from None
    if len(np.unique(table.target.iloc[training])) < 2:
        raise DataError("The rows that train have one value of the target alone. Bring more rows, or another seed.")
    return np.sort(training), np.sort(testing)


def fold_pairs(table: Table, training: np.ndarray, count: int, seed: int) -> Pairs:
    """Which of the training rows train and are held out in every fold, as positions among them."""
    groups = None if table.groups is None else table.groups.iloc[training].to_numpy()
    target = table.target.iloc[training].to_numpy()
    if table.time is not None:
        order = np.argsort(table.time.iloc[training].to_numpy(), kind="stable")
        pairs = [(order[a], order[b]) for a, b in model_selection.TimeSeriesSplit(count).split(order)]
    else:
        if groups is not None and len(np.unique(groups)) < count:
            raise DataError(
                f"The training rows have {len(np.unique(groups))} groups, fewer than the {count} folds. Use fewer "
                "folds, or another column of groups."
            )
        if table.classes:
            fewest = pd.Series(target).value_counts().min()
            if groups is None and fewest < count:
                count = max(int(fewest), 2)
            kind = model_selection.StratifiedKFold if groups is None else model_selection.StratifiedGroupKFold
        else:
            kind = model_selection.KFold if groups is None else model_selection.GroupKFold
        given = {} if kind is model_selection.GroupKFold else {"shuffle": True, "random_state": seed}
        try:
            with warnings.catch_warnings():
                # A fold may hold out no row of a rare class; that every class trains in every fold is checked below.
                warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
                pairs = [*kind(count, **given).split(target, target if table.classes else None, groups)]
        except ValueError as error:
            raise DataError(f"The rows cannot be split into {count} folds: {error} Use fewer folds.") from None
    for number, (train, _) in enumerate(pairs):
        missing = sorted(set(table.classes) - set(target[train]))
        if missing:
            raise DataError(
                f"Fold {number} trains on no row of class {missing[0]!r}, which others hold. Use fewer folds, or leave "
                "rare classes out."
            )
    return pairs
