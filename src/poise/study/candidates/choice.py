"""Choose a stage and a strength by their held-out losses."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from poise.path.result import RegularizationPath

STABLE = 0.8
"""The share of lanes that must read a stable column."""


def best_stage(path: RegularizationPath) -> RegularizationPath:
    """Return the stage with the lowest held-out loss, of a path and its earlier adaptive stages.

    Raises:
        ValueError: If training diverged at every strength of a stage.
    """
    stages = [*path.stages, path]
    return stages[int(np.argmin([row_at(stage, stage.best_strength)["val_loss"] for stage in stages]))]


def read_columns(path: RegularizationPath, owners: Sequence[str]) -> pd.DataFrame | None:
    """Return which lanes read which columns: rows (fold, seed, strength), as in `Lanes.table`, one column for each.

    Args:
        path: The path.
        owners: The column that each input comes from.

    Returns:
        `None` if it is unknown which inputs are read.
    """
    features = path.lanes.features
    if features is None:
        return None
    is_read = np.asarray(features).astype(bool).reshape(-1, features.shape[-1])
    by_column = pd.DataFrame(is_read.T, index=[*owners]).groupby(level=0, sort=False).any().T
    return by_column.set_index(pd.MultiIndex.from_frame(path.lanes.table[["fold", "seed", "strength"]]))


def stable_strength(path: RegularizationPath, owners: Sequence[str]) -> float:
    """Return the smallest strength, from `selection_strength` on, at which all selected columns are stable.

    A column is stable if at least `STABLE` of the lanes of the strength read it; it is selected if the network of all
    rows reads it.

    Args:
        path, owners: As for `read_columns`.
    """
    least, is_read = path.selection_strength, read_columns(path, owners)
    if is_read is None:
        return least
    of_lanes = is_read.index.get_level_values("strength").to_numpy()
    for strength in path.strengths[path.strengths >= least]:
        lanes = is_read[np.isclose(of_lanes, strength, rtol=1e-6, atol=0.0)]
        selected = lanes[lanes.index.get_level_values("fold") < 0].iloc[0]
        if (lanes.mean(axis=0)[selected] >= STABLE).all():
            return float(strength)
    return float(path.strengths[-1])


def row_at(path: RegularizationPath, strength: float) -> pd.Series:
    """Return the row of a path's table that is nearest to a strength."""
    table = path.table
    return table.iloc[int((table["strength"] - strength).abs().argmin())]
