"""Choose a stage, a strength and a candidate by their held-out losses."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from poise.path.result import RegularizationPath

WORSE = 0.05
"""The p-value below which the folds show that one penalty predicts worse than another."""


def best_stage(path: RegularizationPath) -> RegularizationPath:
    """Return the stage with the lowest held-out loss, of a path and the adaptive stages before it: the one to predict.

    Raises:
        ValueError: If training diverged at every strength of a stage.
    """
    stages = [*path.stages, path]
    return stages[int(np.argmin([row_at(stage, stage.best_strength)["val_loss"] for stage in stages]))]


def row_at(path: RegularizationPath, strength: float) -> pd.Series:
    """Return the row of a path's table that is nearest to a strength."""
    table = path.table
    return table.iloc[int((table["strength"] - strength).abs().argmin())]


def fold_losses(stage: RegularizationPath, strength: float) -> np.ndarray:
    """Return (folds,) the held-out losses at a strength, averaged over the initial weights."""
    lanes = stage.lanes.table
    held = lanes[(lanes["strength"] == strength) & (lanes["fold"] >= 0)]
    return held.groupby("fold")["held_loss"].mean().to_numpy()


def first_not_worse(losses: Sequence[np.ndarray], means: Sequence[float]) -> int:
    """Return the first candidate that is not significantly worse than the best one (paired t test over folds).

    The best one has the lowest held-out loss. A candidate is significantly worse if the one-sided paired t test of the
    losses by fold (Student 1908) has p < `WORSE`. The lowest of several noisy losses is often lowest by chance,
    and by more than one standard error if there are few folds.

    Args:
        losses: For each candidate, (folds,) held-out losses.
        means: The held-out loss of each candidate.

    Returns:
        Its position.
    """
    lowest = losses[int(np.argmin(means))]
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # about differences that are all the same
        p_values = [ttest_rel(loss, lowest, alternative="greater").pvalue for loss in losses]
    return next(position for position, p_value in enumerate(p_values) if not p_value < WORSE)
