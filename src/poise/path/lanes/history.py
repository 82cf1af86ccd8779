"""What was measured of lanes at the checkpoints of their training."""

import numpy as np

from poise.path.lanes.evaluate import Measures
from poise.path.lanes.length import COUNT
from poise.path.lanes.parts import Part

LARGEST_COUNT = 2 * COUNT
"""Checkpoints that are kept: those of a training, and some where residuals are measured."""
SCALARS = ("loss", "held_loss", "penalty")


class History:
    """Measures of the lanes at the checkpoints; NaN where nothing was measured. A lane is measured until all strengths
    of its part have stopped.

    Args:
        shape: (replicas, strengths).
        targets: Number of targets of the penalties.
        predictions: Numbers of predicted rows and of outputs; None if nothing is predicted. Default: `None`.

    Attributes:
        arrays: By the names `history_length`, `history_loss`, `history_held_loss` and `history_penalty` (replicas,
            strengths, checkpoints); by `history_squares` (replicas, strengths, checkpoints, targets, 4), the sums of
            `poise.optimizer.targets.measure`; and by `history_predictions` (replicas, strengths, checkpoints, rows,
            outputs).
    """

    def __init__(self, shape: tuple[int, int], targets: int, predictions: tuple[int, int] | None = None) -> None:
        lead = (*shape, LARGEST_COUNT)
        self.arrays: dict[str, np.ndarray] = {
            f"history_{name}": np.full(lead, np.nan, "float32") for name in ("length", *SCALARS)
        }
        self.arrays["history_squares"] = np.full((*lead, targets, 4), np.nan, "float32")
        if predictions is not None:
            self.arrays["history_predictions"] = np.full((*lead, *predictions), np.nan, "float32")
        self._lengths: list[int] = []

    def note(self, length: int, part: Part, measures: Measures) -> None:
        """Note the measures of a part after a training of some length."""
        if length not in self._lengths:
            self._lengths.append(length)
        number = self._lengths.index(length)
        if number >= LARGEST_COUNT:
            return
        at = (*part.lanes, number)
        self.arrays["history_length"][at] = length
        for name in (*SCALARS, "squares", "predictions"):
            if name in measures:
                self.arrays[f"history_{name}"][at] = measures[name]
