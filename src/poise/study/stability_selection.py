"""Select columns so that the expected number of false ones is bounded: stability selection on halves of the rows.

The training rows are divided at random into halves, 25 times. On each half, the penalty on whole columns is trained at
12 strengths, the same for all halves, without adaptive stages. From the largest strength down, a half selects the
columns that its networks read first, at most q of them. The columns that at least 90% of the 50 halves select are
selected; q is the largest number for which the bound (`poise.study.error_bound`) is at most `max_false`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poise._keras_internals import without_tensorflow
from poise.path.data.arrays import Data
from poise.path.executors.ray_cluster import RayCluster
from poise.path.result import RegularizationPath
from poise.path.solve import solve_path
from poise.path.training import Training
from poise.study.candidates.choice import read_columns
from poise.study.candidates.encodings import EncodedNetwork, EncodedNetworks
from poise.study.candidates.penalties import make_rules
from poise.study.candidates.screening import hold_hidden_columns
from poise.study.error_bound import bound_false_columns, most_per_half
from poise.study.errors import DataError
from poise.study.settings import Settings
from poise.study.splits import split_halves
from poise.study.tables import Table

PAIRS = 25
"""B, the number of times the rows are divided."""
THRESHOLD = 0.9
"""τ, the share of the halves that must select a column."""
STRENGTHS = 12
MOST_BYTES = 4 * 2**30
"""The largest size of the encoded halves."""
MARGIN = 1.5
"""The largest strength of the halves, relative to the smallest one at which no network reads a column.

Gradients on half of the rows are noisier, so columns are still read at larger strengths.
"""


@dataclass(frozen=True, eq=False)
class StabilitySelection:
    """The columns that most halves of the training rows select.

    Args:
        selected: Their names.
        share: For each column, the share of the halves that select it.
        per_half: q, the largest number of columns that a half may select.
        threshold: τ, the share of the halves that must select a column.
        halves: The number of halves.
        expected_false: A bound on the expected number of false columns in `selected` (see `poise.study.error_bound`).
    """

    selected: tuple[str, ...]
    share: pd.Series
    per_half: int
    threshold: float
    halves: int
    expected_false: float


def divide_rows(table: Table, training: np.ndarray, networks: EncodedNetworks, settings: Settings) -> EncodedNetworks:
    """Return the networks whose folds are halves of the training rows, after a check that these can be used.

    Args:
        table: The table.
        training: Positions of the training rows.
        networks: The networks of the study.
        settings: Its settings, with `max_false`.

    Raises:
        DataError: If there is a column of time, the bound cannot be met, or the halves are too large.
    """
    assert settings.max_false is not None
    if table.time is not None:
        raise DataError(
            f"max_false cannot be combined with the time column {table.time.name!r}, because it trains on random "
            "halves of the rows. Omit one of the two.",
            "max_false",
        )
    most_selected(settings.max_false, sum(column.is_used for column in table.columns))
    encodings = {each for name in settings.penalties for each in networks.encodings_of(name)}
    _check_size(len(training), max(len(networks.encode(each)[0].encoder.inputs) for each in encodings))
    return networks.with_folds(split_halves(table, training, PAIRS, settings.seed))


def _check_size(rows: int, inputs: int) -> None:
    size = (2 * PAIRS + 1) * rows * inputs * np.dtype("float32").itemsize
    if size > MOST_BYTES:
        raise DataError(
            f"max_false needs {size / 2**30:.1f} GiB of memory for the halves of {rows:,} rows with {inputs:,} inputs; "
            f"the limit is {MOST_BYTES / 2**30:.0f} GiB. Use encoding='standard', drop columns, or use a sample of the "
            "rows.",
            "max_false",
        )


def most_selected(most_false: float, columns: int) -> int:
    """Return q, the largest number of columns that a half may select.

    Args:
        most_false: The largest allowed bound on the expected number of false columns.
        columns: The number of columns.

    Raises:
        DataError: If no number is allowed.
    """
    per_half = most_per_half(most_false, columns, THRESHOLD, PAIRS)
    if not per_half:
        bound = bound_false_columns(1, columns, THRESHOLD, PAIRS)
        unit = 10.0 ** (np.floor(np.log10(bound)) - 1)
        raise DataError(
            f"max_false={most_false:g} is too small for {columns:,} columns. Even if each half of the rows selects "
            f"only one column, the bound on the expected number of false columns is {bound:.3g}. Use max_false >= "
            f"{np.ceil(bound / unit) * unit:.2g}.",
            "max_false",
        )
    return per_half


@without_tensorflow()
def select_on_halves(
    name: str,
    path: RegularizationPath,
    halves: EncodedNetwork,
    settings: Settings,
    executor: str | RayCluster,
    checkpoint: str | os.PathLike[str] | None,
    report: Callable[[float], None],
) -> StabilitySelection:
    """Train a penalty on halves of the training rows, and select the columns that most of them select.

    Args:
        name: The name of the penalty, which drops columns.
        path: Its path on all rows and in the folds.
        halves: The network, and the rows as `split_halves` divides them.
        settings: The settings of the study, with `max_false`.
        executor: Where to train, as `check_executor` returns it.
        checkpoint: A folder for the finished work of the study, or `None`.
        report: Called with the share of the work that is done.
    """
    assert settings.max_false is not None
    rows, start = halves.rows, halves.start
    columns = [*dict.fromkeys(rows.encoder.owners)]
    per_half = most_selected(settings.max_false, len(columns))
    rules = make_rules(name, start, rows.encoder.owners)
    of_halves = solve_path(
        start, rules, Data(rows.x, rows.y, rows.weight, len(rows.x), rows.encoder.inputs), rows.replicas,
        executor=executor,
        report=report,
        strengths=_choose_strengths([*path.stages, path][0], per_half, halves),
        adaptive=0,
        relax=False,
        training=Training.full_batch(settings.max_iter, update="proximal", early_stopping=False),
        checkpoint=None if checkpoint is None else os.path.join(checkpoint, "halves"),
        held_groups=None if halves.hidden is None else hold_hidden_columns(start, rules, halves.hidden, 1),
    )  # fmt: skip
    is_read = read_columns(of_halves, rows.encoder.owners)
    assert is_read is not None
    is_read = is_read[columns].to_numpy().reshape(len(rows.replicas), -1, len(columns))
    share = pd.Series(first_columns(is_read[:-1], per_half).mean(axis=0), index=columns)
    return StabilitySelection(
        tuple(share.index[share >= THRESHOLD]), share, per_half, THRESHOLD, 2 * PAIRS,
        bound_false_columns(per_half, len(columns), THRESHOLD, PAIRS),
    )  # fmt: skip


def first_columns(is_read: np.ndarray, most: int) -> np.ndarray:
    """Return which columns are read first as the strength falls, at most `most` of them: (halves, columns).

    Args:
        is_read: (halves, strengths, columns) whether a column is read, by ascending strengths.
        most: q.
    """
    so_far = np.logical_or.accumulate(is_read[:, ::-1], axis=1)
    is_allowed = so_far.sum(axis=2) <= most
    last = is_allowed.sum(axis=1) - 1  # the counts never fall, so the allowed strengths are the first ones
    first = np.take_along_axis(so_far, np.maximum(last, 0)[:, None, None], axis=1)[:, 0]
    return first & (last >= 0)[:, None]


def _choose_strengths(path: RegularizationPath, per_half: int, halves: EncodedNetwork) -> np.ndarray:
    """Return ascending strengths that cover the range in which the halves read their first q columns.

    They start where the network of all rows reads q columns, and end at `MARGIN` times the smallest strength at which
    no network reads a column.
    """
    is_read = read_columns(path, halves.rows.encoder.owners)
    assert is_read is not None
    counts = is_read.sum(axis=1).to_numpy().reshape(-1, len(path.strengths))
    is_empty, has_enough = (counts == 0).all(axis=0), counts[-1] >= min(per_half, is_read.shape[1])
    largest = path.strengths[is_empty].min() if is_empty.any() else path.strengths[-1]
    smallest = path.strengths[has_enough].max() if has_enough.any() else path.strengths[0]
    return np.geomspace(min(smallest, largest / 2), MARGIN * largest, STRENGTHS)
