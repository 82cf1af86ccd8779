"""Choose a stage and a strength by their held-out losses."""

import numpy as np
import pandas as pd

from poise.path.result import RegularizationPath


def best_stage(path: RegularizationPath) -> RegularizationPath:
    """Return the stage with the lowest held-out loss, of a path and its earlier adaptive stages.

    Raises:
        ValueError: If training diverged at every strength of a stage.
    """
    stages = [*path.stages, path]
    return stages[int(np.argmin([row_at(stage, stage.best_strength)["val_loss"] for stage in stages]))]


def row_at(path: RegularizationPath, strength: float) -> pd.Series:
    """Return the row of a path's table that is nearest to a strength."""
    table = path.table
    return table.iloc[int((table["strength"] - strength).abs().argmin())]
