"""Counts: whole numbers from 0, by the Poisson loss of their mean."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from poise.study.scores import RowScores, StatisticOfSums
from poise.study.tasks.base import ALPHAS, MOST_STEPS, Maker, Task
from poise.study.tasks.checks import check_counts
from poise.study.tasks.regression import measure_errors

if TYPE_CHECKING:
    import keras

    from poise.study.targets import Target

SMALLEST_COUNT = 1e-7
"""What Keras' Poisson loss adds to a predicted mean, so that its logarithm is finite."""
SMALLEST, LARGEST = 1e-12, 1e30
"""The range of the means that a reference model predicts."""


class Counts(Task):
    """Counts. The network returns the mean count: the exponential of its last layer."""

    name = "counts"
    score_name = "explained deviance"
    loss_title = "Poisson loss"
    loss_code = "keras.losses.Poisson()"
    activation = "exponential"
    coefficient_meaning = "the change of the logarithm of the mean count"
    prediction_title = "mean count"
    residual_note = " The residuals of counts become wider for larger predictions."

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        return check_counts(target), ()

    def find_problem(self, values: np.ndarray) -> str:
        return "" if values.any() else "have the count 0, from which no count can be predicted"

    def encode(self, values: np.ndarray) -> np.ndarray:
        return values.astype("float32")[:, None]

    def make_loss(self) -> "keras.losses.Loss":
        import keras

        return keras.losses.Poisson()

    def initial_bias(self, y: np.ndarray, outputs: int, weight: np.ndarray | None = None) -> np.ndarray:
        """Return the logarithm of the mean."""
        return np.log([max(float(np.average(y[:, 0], weights=weight)), 1e-6)])

    def row_losses(self, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        y, outputs = np.asarray(y, "float64"), np.asarray(outputs, "float64")
        return (outputs - y * np.log(outputs + SMALLEST_COUNT))[..., 0]

    def score_rows(self, y: np.ndarray, outputs: np.ndarray) -> RowScores:
        """Return the losses and the deviances."""
        count, mean = np.asarray(y, "float64")[:, 0], np.asarray(outputs, "float64")[..., 0] + SMALLEST_COUNT
        excess = count - mean
        # y log(y / mean) - (y - mean), without the cancellation of large counts
        ratio = np.where(count > 0, excess / mean, 0.0)
        return RowScores(self.row_losses(y, outputs), 2.0 * (count * np.log1p(ratio) - excess))

    def score_of_sums(self, y: np.ndarray, terms: np.ndarray) -> tuple[list[np.ndarray], StatisticOfSums]:
        y = y[:, 0].astype("float64")
        log = np.where(y > 0, y * np.log(np.maximum(y, 1e-12)), 0.0)

        def explained(w: np.ndarray, deviance: np.ndarray, y: np.ndarray, log: np.ndarray) -> np.ndarray:
            return 1.0 - deviance / (2.0 * (log - y * np.log(np.maximum(y / w, 1e-12))))

        return [terms, y, log], explained

    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Return `RMSE`, `MAE` and `deviance`."""
        terms = self.score_rows(actual[:, None], predictions[:, None]).score_terms
        return {**measure_errors(actual, predictions, weight), "deviance": float(np.average(terms, weights=weight))}

    def constant_models(self) -> Sequence[Maker]:
        from sklearn.dummy import DummyRegressor

        return [lambda total: DummyRegressor()]

    def linear_models(self) -> Sequence[Maker]:
        """Return linear models with L2. PoissonRegressor minimizes a mean over rows."""
        from sklearn.linear_model import PoissonRegressor

        def make(alpha: float) -> Maker:
            return lambda total: PoissonRegressor(alpha=alpha, max_iter=MOST_STEPS)

        return [make(alpha) for alpha in ALPHAS]

    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return [lambda total: HistGradientBoostingRegressor(loss="poisson", **options)]

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.clip(np.asarray(model.predict(x), "float64"), SMALLEST, LARGEST).reshape(-1, 1)
