"""Find rows with equal features, and decide which rows stay together.

A copy of a training row among the test rows shows how well a network memorizes, not how well it predicts.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from poise.study.errors import count_noun

FEWEST_UNITS = 20
FEWEST_GROUPS = 0.9
"""The share of groups that must be left after copies have joined some of them."""
FEWEST_DISTINCT = 0.1
"""The share of rows that are distinct. Below it, rows are equal because the columns have few values, not as copies."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The rows with equal features.

    Args:
        copies: (rows,) the number of the distinct row that a row equals: rows with the same number stay together;
            `None` if there is nothing to keep together.
        distinct: Positions of the rows without further exact copies, of which the target is a copy too.
        notes: Sentences that a reader must know.
    """

    copies: np.ndarray | None
    distinct: np.ndarray
    notes: list[str]


def find_duplicates(
    features: pd.DataFrame, target: np.ndarray, groups: pd.Series | None = None, *, by_time: bool = False
) -> Duplicates:
    """Find the rows with equal features.

    They stay together if at least 20 rows are distinct, and either at least 10% of all rows are distinct or equal
    features always come with an equal target. Otherwise the columns have so few values that rows coincide.

    Args:
        features: The columns in use.
        target: (rows,) numbers or labels, or (rows, targets) numbers.
        groups: (rows,) the labels of groups that stay together. Default: `None`.
        by_time: Whether rows are split by time, and copies with them. Default: `False`.
    """
    copies = _number_equal_rows(features)
    pairs = _number_equal_rows(pd.DataFrame(target).assign(features=copies))
    count, kinds, exact = len(copies), int(copies.max()) + 1, int(pairs.max()) + 1
    if kinds == count:
        return Duplicates(None, np.arange(count), [])
    found = f"{count - kinds:,} of {count_noun(count, 'row')} have the same features as an earlier row."
    if exact < count:
        same = "All of these have" if exact == kinds else f"Of these, {count - exact:,} have"
        found += f" {same} the same target as well."
    if kinds < FEWEST_UNITS or (kinds < FEWEST_DISTINCT * count and exact > kinds):
        reason = "They do not stay together, because the columns have few values."
        return Duplicates(None, np.arange(count), [f"{found} {reason}"])
    reason = "Rows with the same features are kept together, in the test rows or in one fold."
    if by_time:
        copies, reason = None, "They do not stay together, because rows are split by time."
    elif groups is not None and _count_joined(groups, copies) < FEWEST_GROUPS * groups.nunique():
        copies, reason = None, "They do not stay together, because that would merge too many groups."
    return Duplicates(copies, np.unique(pairs, return_index=True)[1], [f"{found} {reason}"])


def join_units(groups: pd.Series | None, copies: np.ndarray | None) -> np.ndarray | None:
    """Return the units that stay together: rows of one group, and rows that are copies of each other.

    Args:
        groups: (rows,) labels, or `None`.
        copies: (rows,) numbers, or `None`.

    Returns:
        (rows,) the numbers of the units, from 0; `None` if every row is a unit.
    """
    if groups is None or copies is None:
        parts = groups if copies is None else copies
        return None if parts is None else np.unique(parts, return_inverse=True)[1]
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    labels = np.unique(groups, return_inverse=True)[1]
    size = labels.max() + 1
    edges = coo_array((np.ones(len(labels)), (labels, size + copies)), shape=(size + copies.max() + 1,) * 2)
    return np.unique(connected_components(edges, directed=False)[1][labels], return_inverse=True)[1]


def _count_joined(groups: pd.Series, copies: np.ndarray) -> int:
    units = join_units(groups, copies)
    return 0 if units is None else int(units.max()) + 1


def _number_equal_rows(frame: pd.DataFrame) -> np.ndarray:
    """Return (rows,) numbers that are equal where rows are equal; missing values are."""
    return pd.factorize(pd.util.hash_pandas_object(frame, index=False))[0]
