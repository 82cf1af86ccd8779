"""Find the strengths of a path by a coarse scan.

They range from the largest strength with no effect to the smallest one at which all penalized weights are zero.
"""

from dataclasses import replace

import numpy as np

from poise.path.data.folds import full_replicas
from poise.path.runner import LaneRunner
from poise.path.stages import Factors, repeat_factors
from poise.path.training import Lanes

DECADES = (-6.0, 3.0)
"""Range of the scan, in powers of ten of the first rule's strength."""
PER_DECADE = 3
STEPS = 100
MATTERS = 0.01
"""A penalty matters at a strength if it changes the training loss by more than this share of the largest change."""
SPANS = (2.0, 4.0)
"""Fewest and most decades of a grid."""


def find_grid(runner: LaneRunner, count: int, factors: Factors | None = None) -> np.ndarray:
    """Return `count` strengths, ascending and geometric.

    The scan trains one lane per strength, on all rows, for a few full-batch steps. The top is 1.3 times the smallest
    strength above the last one at which a non-smooth penalty leaves nonzero weights, or, if all penalties are smooth,
    the smallest one at which the training loss equals the loss at the largest strength. The bottom is
    the largest strength at which the penalty does not matter yet, and 2 to 4 decades below the top.

    Args:
        runner: Trains the lanes.
        count: Number of strengths.
        factors: The factors of the first stage, (replicas, 1, groups or *shape). Default: None.

    Raises:
        ValueError: If every lane of the scan diverged.
    """
    low, high = DECADES
    strengths = np.logspace(low, high, round((high - low) * PER_DECADE) + 1)
    training = replace(runner.training, epochs=0, start="fresh", settle=STEPS, early_stopping=False, tolerance=1e-12)
    row = full_replicas(runner.replicas)[0]
    of_row = None if factors is None else {key: value[[row]] for key, value in factors.items()}
    lanes = runner.run(
        strengths, repeat_factors(of_row, len(strengths)), replicas=[runner.replicas[row]], training=training
    )
    top, bottom = _find_range(strengths, lanes)
    return np.geomspace(bottom, top, count) if count > 1 else np.array([top])


def decade_below(strengths: np.ndarray) -> np.ndarray:
    """Return the strengths of the decade below a grid, with its spacing."""
    ratio = min(strengths[1] / strengths[0], 10.0)
    count = max(round(np.log(10.0) / np.log(ratio)), 1)
    return strengths[0] / ratio ** np.arange(count, 0, -1)


def _find_range(strengths: np.ndarray, lanes: Lanes) -> tuple[float, float]:
    """Return the top and the bottom of the grid."""
    table = lanes.table
    is_fine = ~table["diverged"].to_numpy(bool)
    if not is_fine.any():
        raise ValueError(
            f"Training diverged at every strength from {strengths[0]:g} to {strengths[-1]:g}. Lower the learning rate, "
            "scale the inputs, or pass strengths."
        )
    loss = np.where(is_fine, table["loss"].to_numpy(), np.nan)
    least, most = loss[is_fine][0], loss[is_fine][-1]
    moved = (loss - least) / (most - least) if most > least else np.zeros(len(loss))
    unmoved = np.flatnonzero(is_fine & (np.nan_to_num(moved, nan=1.0) <= MATTERS))
    bottom = strengths[unmoved.max()] if len(unmoved) else strengths[0]
    is_empty = table["is_empty"].to_numpy(bool)
    if is_empty[is_fine].any():
        last = np.flatnonzero(is_fine & ~is_empty).max(initial=-1)
        top = 1.3 * strengths[min(last + 1, len(strengths) - 1)]
    else:
        fully_moved = np.flatnonzero(is_fine & (np.nan_to_num(moved, nan=0.0) >= 1.0 - MATTERS))
        top = strengths[fully_moved.min()] if len(fully_moved) else strengths[is_fine][-1]
    least_span, most_span = SPANS
    return float(top), float(min(max(bottom, top / 10**most_span), top / 10**least_span))
