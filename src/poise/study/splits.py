"""Split rows into training rows and test rows, and training rows into folds."""

import warnings

import numpy as np
import pandas as pd
from sklearn import model_selection

from poise.study.errors import DataError
from poise.study.tables import Table

Pairs = list[tuple[np.ndarray, np.ndarray]]


def split_test_rows(table: Table, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of a table.

    Args:
        table: With a column of time the test rows are the latest ones; with groups, each group is on one side.
        share: The share of test rows.
        seed: Decides which rows.

    Returns:
        The positions of the training rows and of the test rows, both sorted.

    Raises:
        DataError: If there are too few rows.
    """
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
                f"{len(every)} rows cannot be split into training and test rows: {error} Add rows, or change the share "
                "of test rows.",
                "test",
            ) from None
    if len(np.unique(table.target.iloc[training])) < 2:
        raise DataError(
            "The target has only one value in the training rows. Add rows, or use another seed.", "seed"
        )  # fmt: skip
    return np.sort(training), np.sort(testing)


def split_folds(table: Table, training: np.ndarray, count: int, seed: int) -> Pairs:
    """Split the training rows into folds.

    Args:
        table: With a column of time no fold trains on the future; with groups, each group is on one side.
        training: Positions of the training rows in the table.
        count: How many folds; fewer if a class has fewer rows.
        seed: Decides which rows.

    Returns:
        For each fold its training rows and its held-out rows, as positions within `training`.

    Raises:
        DataError: If there are too few rows or groups.
    """
    groups = None if table.groups is None else table.groups.iloc[training].to_numpy()
    target = table.target.iloc[training].to_numpy()
    if table.time is not None:
        order = np.argsort(table.time.iloc[training].to_numpy(), kind="stable")
        pairs = [(order[a], order[b]) for a, b in model_selection.TimeSeriesSplit(count).split(order)]
    else:
        pairs = _split_shuffled(target, groups, bool(table.classes), count, seed)
    for number, (train, _) in enumerate(pairs):
        missing = sorted(set(table.classes) - set(target[train]))
        if missing:
            raise DataError(
                f"Fold {number} has no training row of class {missing[0]!r}. Use fewer folds, or remove rare classes.",
                "cv",
            )
    return pairs


def _split_shuffled(
    target: np.ndarray, groups: np.ndarray | None, is_stratified: bool, count: int, seed: int
) -> Pairs:  # fmt: skip
    if groups is not None and len(np.unique(groups)) < count:
        raise DataError(
            f"{count} folds need at least {count} groups; the training rows have {len(np.unique(groups))}. Use fewer "
            "folds, or another column of groups.",
            "cv",
        )
    if is_stratified:
        fewest = pd.Series(target).value_counts().min()
        if groups is None and fewest < count:
            count = max(int(fewest), 2)
        splitter = model_selection.StratifiedKFold if groups is None else model_selection.StratifiedGroupKFold
    else:
        splitter = model_selection.KFold if groups is None else model_selection.GroupKFold
    shuffling = {} if splitter is model_selection.GroupKFold else {"shuffle": True, "random_state": seed}
    try:
        with warnings.catch_warnings():
            # A fold may hold out no row of a rare class; the caller checks that each fold trains on every class.
            warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
            return [*splitter(count, **shuffling).split(target, target if is_stratified else None, groups)]
    except ValueError as error:
        raise DataError(
            f"The rows cannot be split into {count} folds: {error} Use fewer folds.", "cv"
        ) from None  # fmt: skip
