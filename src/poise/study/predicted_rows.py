"""The targets of the test rows and the predictions of the saved network, in the units of the target."""

from dataclasses import dataclass

import numpy as np

from poise.study.scores import Scorer


@dataclass(frozen=True, eq=False)
class PredictedRows:
    """The targets of the test rows, and the predictions of the saved network.

    Args:
        actual: (rows,) the target in its own units, or class numbers; for survival (rows, 2) time and event.
        predictions: (rows,) the predictions in the same units, or (rows, quantiles), or (rows, classes) probabilities.
        weight: (rows,) sample weights, or `None`.
    """

    actual: np.ndarray
    predictions: np.ndarray
    weight: np.ndarray | None

    def count_confusions(self) -> np.ndarray:
        """Return (classes, classes) the number of rows of each class, by actual and predicted class."""
        classes = self.predictions.shape[1]
        counts = np.zeros((classes, classes), int)
        np.add.at(counts, (self.actual, self.predictions.argmax(axis=1)), 1)
        return counts


def make_predicted_rows(
    scorer: Scorer,
    outputs: np.ndarray,
    center: float | np.ndarray,
    scale: float | np.ndarray,
    weight: np.ndarray | None,
    offset: np.ndarray | None = None,
) -> PredictedRows:
    """Return the test rows with predictions of them.

    Args:
        scorer: The test rows.
        outputs: (rows, outputs) of the network.
        center, scale: A prediction in units of the target is output · scale + center.
        weight: (rows,) sample weights, or `None`. Those of the scorer also weigh classes and exposures.
        offset: (rows,) what is added to the linear predictor. Default: `None`.
    """
    predictions = scorer.task.predict(outputs)
    if scorer.task.has_classes:
        return PredictedRows(np.asarray(scorer.y).reshape(-1).astype(int), predictions, weight)
    predictions = predictions[:, 0] if predictions.shape[1] == 1 else predictions
    actual, predictions = (values * scale + center for values in (scorer.task.actual_values(scorer.y), predictions))
    if offset is not None:
        actual, predictions = (scorer.task.add_offset(values, offset) for values in (actual, predictions))
    return PredictedRows(actual, predictions, weight)
