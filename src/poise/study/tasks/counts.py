"""Counts: whole numbers from 0, by the Poisson loss of their mean."""

from typing import TYPE_CHECKING, Any

import numpy as np

from poise.study.scores import RowScores
from poise.study.tasks.base import MOST_STEPS
from poise.study.tasks.checks import check_counts
from poise.study.tasks.log_link import LogLink

if TYPE_CHECKING:
    import keras

    from poise.study.targets import Target

SMALLEST_COUNT = 1e-7
"""What Keras' Poisson loss adds to a predicted mean, so that its logarithm is finite."""


class Counts(LogLink):
    """Counts, and their mean."""

    name = "counts"
    loss_title = "Poisson loss"
    loss_code = "keras.losses.Poisson()"
    coefficient_meaning = "the change of the logarithm of the mean count"
    residual_note = " The residuals of counts become wider for larger predictions."
    trees_loss = "poisson"
    power = 1.0

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        return check_counts(target), ()

    def name_prediction(self) -> str:
        return "mean count"

    def find_problem(self, values: np.ndarray) -> str:
        return "" if values.any() else "have the count 0, from which no count can be predicted"

    def make_loss(self) -> "keras.losses.Loss":
        import keras

        return keras.losses.Poisson()

    def deviance_part(self, y: np.ndarray, mean: np.ndarray) -> np.ndarray:
        from scipy.special import xlogy

        return mean - xlogy(y, mean)

    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        y, outputs = np.asarray(y, "float64"), np.asarray(outputs, "float64")
        return (outputs - y * np.log(outputs + SMALLEST_COUNT))[..., 0]

    def score_rows(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> RowScores:
        """Return the losses and the deviances."""
        count, mean = np.asarray(y, "float64")[:, 0], np.asarray(outputs, "float64")[..., 0] + SMALLEST_COUNT
        excess = count - mean
        # y log(y / mean) - (y - mean), without the cancellation of large counts
        ratio = np.where(count > 0, excess / mean, 0.0)
        return RowScores(self.row_losses(y, outputs), 2.0 * (count * np.log1p(ratio) - excess))

    def make_linear_model(self, alpha: float) -> Any:
        from sklearn.linear_model import PoissonRegressor

        return PoissonRegressor(alpha=alpha, max_iter=MOST_STEPS)
