"""Split rows into training rows and test rows, and training rows into folds."""

import warnings

import numpy as np
import pandas as pd
from sklearn import model_selection

from poise.study.errors import DataError, count_noun
from poise.study.tables import Table
from poise.study.time_splits import Pairs, split_forward, split_latest

FEWEST_GROUPS = 3
"""One for the test rows, and two for the folds."""
DRAWS = 20
NEAR = 0.05
"""The difference between the requested and the actual share of test rows that goes without saying."""


def split_test_rows(table: Table, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of a table.

    Args:
        table: Rows of a unit are on one side. With a column of time the test rows are the latest ones; earlier rows of
            groups that also have test rows are on neither side.
        share: The share of test rows. It is met as far as units allow.
        seed: Decides which rows.

    Returns:
        The positions of the training rows and of the test rows, both sorted.

    Raises:
        DataError: If there are too few rows, groups or times.
    """
    if table.time is not None:
        training, testing = split_latest(table.time.to_numpy(), table.units, share)
    elif table.groups is not None:
        training, testing = _split_groups(table, share, seed)
    else:
        training, testing = _split_rows(table, share, seed)
    for name, values in pd.DataFrame(table.target).iloc[training].items():
        if values.nunique() < 2:
            raise DataError(
                f"The target {name!r} has only one value in the training rows. Add rows, or use another seed.", "seed"
            )
    return np.sort(training), np.sort(testing)


def note_split(table: Table, training: np.ndarray, testing: np.ndarray, share: float) -> list[str]:
    """Return sentences about what `split_test_rows` did that a reader would not expect."""
    notes, rows = [], len(table.target)
    left_out = rows - len(training) - len(testing)
    if left_out:
        notes.append(
            f"{left_out:,} of {count_noun(rows, 'row')} are left out, because their groups have rows both before and "
            "after the first test row."
        )
    actual = len(testing) / rows
    if abs(actual - share) > NEAR:
        notes.append(
            f"The share of test rows is {actual:.0%} instead of {share:.0%}, because rows of the same group or time, "
            "and rows with the same features, stay together."
        )
    return notes


def split_folds(table: Table, training: np.ndarray, count: int, seed: int) -> Pairs:
    """Split the training rows into folds.

    Args:
        table: Rows of a unit are on one side. With a column of time no fold trains on the future.
        training: Positions of the training rows in the table.
        count: How many folds; fewer if a class has fewer rows.
        seed: Decides which rows.

    Returns:
        For each fold its training rows and its held-out rows, as positions within `training`.

    Raises:
        DataError: If there are too few rows, groups or times.
    """
    units = None if table.units is None else table.units[training]
    target = table.target.iloc[training].to_numpy()
    if table.time is not None:
        pairs = split_forward(table.time.iloc[training].to_numpy(), units, count)
    else:
        pairs = _split_shuffled(
            len(target),
            units,
            table.groups is not None,
            table.task.find_strata(target),
            table.task.has_classes,
            count,
            seed,
        )
    for number, (train, held) in enumerate(pairs):
        missing = sorted(set(table.classes) - set(target[train])) if table.classes else []
        if missing:
            raise DataError(
                f"Fold {number} has no training row of class {missing[0]!r}. Use fewer folds, or remove rare classes.",
                "cv",
            )
        problem = table.task.find_problem(target[train])
        if problem:
            raise DataError(
                f"All training rows of fold {number} {problem}. Use fewer folds, or another column of time or groups.",
                "cv",
            )
        if not len(held):
            raise DataError(f"Fold {number} of {count} has no held-out rows. Use fewer folds.", "cv")
    return pairs


def split_halves(table: Table, training: np.ndarray, count: int, seed: int) -> Pairs:
    """Divide the training rows at random into two halves, several times.

    Args:
        table: Rows of a unit are in the same half. The classes of a target are divided evenly, except those of groups.
        training: Positions of the training rows in the table.
        count: How many times.
        seed: Decides which rows.

    Returns:
        Two pairs per division: the positions within `training` of one half and of the other, and in reverse.
    """
    unit_of, firsts = _number_units(None if table.units is None else table.units[training], len(training))
    strata = (
        None if table.groups is not None else table.task.find_strata(table.target.iloc[training].to_numpy()[firsts])
    )
    numbers = np.zeros(len(firsts)) if strata is None else np.unique(strata, return_inverse=True)[1]
    random, pairs = np.random.default_rng(seed), []
    for _ in range(count):
        order = np.lexsort((random.random(len(firsts)), numbers))
        is_first = np.isin(unit_of, order[::2])
        half, other = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        pairs += [(half, other), (other, half)]
    return pairs


def _split_rows(table: Table, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw test rows at random, stratified by class; copies count as one row."""
    unit_of, firsts = _number_units(table.units, len(table.target))
    strata = table.task.find_strata(table.target.iloc[firsts].to_numpy())
    try:
        training, testing = model_selection.train_test_split(
            np.arange(len(firsts)), test_size=share, random_state=seed, stratify=strata
        )
    except ValueError as error:
        raise DataError(
            f"{len(firsts)} rows cannot be split into training and test rows: {error} Add rows, or change the share "
            "of test rows.",
            "test",
        ) from None
    return np.flatnonzero(np.isin(unit_of, training)), np.flatnonzero(np.isin(unit_of, testing))


def _split_groups(table: Table, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw test groups at random: of several draws, the one nearest to the requested share of rows."""
    assert table.units is not None
    assert table.groups is not None
    sizes = np.bincount(table.units)
    if len(sizes) < FEWEST_GROUPS:
        raise DataError(
            f"The group column {table.groups.name!r} has {count_noun(len(sizes), 'group')}, and a study needs at least "
            f"{FEWEST_GROUPS}: one for the test rows and two for the folds. Choose a different column.",
            "groups",
        )
    random, wanted = np.random.default_rng(seed), share * len(table.units)
    draws = [_draw_groups(random.permutation(len(sizes)), sizes, wanted) for _ in range(DRAWS)]
    is_test = np.isin(table.units, min(draws, key=lambda groups: abs(sizes[groups].sum() - wanted)))
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _draw_groups(order: np.ndarray, sizes: np.ndarray, wanted: float) -> list[int]:
    """Take, in order, each group that brings the number of rows nearer to the wanted one; two groups are left."""
    chosen: list[int] = []
    taken = 0
    for group in order:
        if len(chosen) < len(sizes) - 2 and abs(taken + sizes[group] - wanted) < abs(taken - wanted):
            chosen.append(int(group))
            taken += sizes[group]
    return chosen or [int(order[sizes[order].argmin()])]


def _split_shuffled(
    rows: int,
    units: np.ndarray | None,
    are_groups: bool,
    strata: np.ndarray | None,
    has_classes: bool,
    count: int,
    seed: int,
) -> Pairs:
    unit_of, firsts = _number_units(units, rows)
    if are_groups and len(firsts) < count:
        raise DataError(
            f"{count} folds need at least {count} groups; the training rows have {len(firsts)}. Use fewer "
            "folds, or another column of groups.",
            "cv",
        )
    if strata is not None:
        fewest = pd.Series(strata[firsts]).value_counts().min()
        if has_classes and not are_groups and fewest < count:
            count = max(int(fewest), 2)
        splitter = model_selection.StratifiedGroupKFold if are_groups else model_selection.StratifiedKFold
    else:
        splitter = model_selection.GroupKFold if are_groups else model_selection.KFold
    shuffling = {} if splitter is model_selection.GroupKFold else {"shuffle": True, "random_state": seed}
    # Groups differ in size, so that their rows are balanced; copies count as one row.
    drawn, groups = (np.arange(rows), unit_of) if are_groups else (firsts, None)
    try:
        with warnings.catch_warnings():
            # A fold may hold out no row of a rare class; the caller checks that each fold trains on every class.
            warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
            splits = [*splitter(count, **shuffling).split(drawn, None if strata is None else strata[drawn], groups)]
    except ValueError as error:
        raise DataError(
            f"The rows cannot be split into {count} folds: {error} Use fewer folds.", "cv"
        ) from None  # fmt: skip
    if are_groups:
        return splits
    return [(np.flatnonzero(np.isin(unit_of, train)), np.flatnonzero(np.isin(unit_of, held))) for train, held in splits]


def _number_units(units: np.ndarray | None, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows,) the numbers of the units, from 0, and (units,) their first rows."""
    if units is None:
        return np.arange(rows), np.arange(rows)
    _, firsts, unit_of = np.unique(units, return_index=True, return_inverse=True)
    return unit_of, firsts
