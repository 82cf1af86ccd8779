"""Sample weights on a relative scale: only their ratios matter."""

import numpy as np
import pandas as pd

from poise.path.training import Replica


def relative_weights(weight: pd.Series | None, rows: np.ndarray) -> np.ndarray | None:
    """Return the weights of some rows, with mean 1.

    Args:
        weight: The positive weights of a table, or `None`.
        rows: Positions of the rows.

    Returns:
        (rows,) float64; `None` if there are no weights or all are equal, so that constant weights change nothing.
    """
    if weight is None:
        return None
    relative = weight.to_numpy("float64")[rows]
    relative = relative / relative.max()  # keeps sums finite
    return None if (relative == 1.0).all() else relative / relative.mean()


def scale_to_mean_one(weight: np.ndarray, replica: Replica) -> np.ndarray:
    """Return float32 weights with mean 1 over training rows and over held-out rows: losses are weighted means.

    Args:
        weight: (rows,) weights >= 0, not all 0 in either part.
        replica: Its `train` and `held` are positions in `weight`.
    """
    scaled = weight.copy()
    for rows in filter(len, (replica.train, replica.held)):
        scaled[rows] /= weight[rows].mean()
    return scaled.astype("float32")
