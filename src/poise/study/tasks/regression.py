"""Regression: numbers, by the squared error."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from poise.study.scores import StatisticOfSums
from poise.study.tasks.base import ALPHAS, Maker, Task
from poise.study.tasks.checks import check_numbers

if TYPE_CHECKING:
    import keras

    from poise.study.targets import Target


class Regression(Task):
    """Numbers. The network takes and returns standardized ones."""

    name = "regression"
    score = "R²"
    loss_title = "mean squared error"
    loss_code = "keras.losses.MeanSquaredError()"
    loss_unit = ", in units of the target's variance"
    standardizes = True
    takes_offset = True
    constant_note = "always predicting the mean has a loss of about 1"
    coefficient_meaning = "the change of the prediction, in units of the target"

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        return check_numbers(target, self.name), ()

    def encode(self, values: np.ndarray) -> np.ndarray:
        return values.astype("float32").reshape(len(values), -1)

    def make_loss(self) -> "keras.losses.Loss":
        import keras

        return keras.losses.MeanSquaredError()

    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        return np.square(np.asarray(y, "float64") - np.asarray(outputs, "float64")).mean(axis=-1)

    def score_of_sums(
        self, y: np.ndarray, terms: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], StatisticOfSums]:
        y = y[:, 0] - y.mean()
        return [terms, y, y * y], lambda w, error, y, yy: 1.0 - error / (yy - y * y / w)

    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        return measure_errors(actual, predictions, weight)

    def constant_models(self) -> Sequence[Maker]:
        from sklearn.dummy import DummyRegressor

        return [lambda total: DummyRegressor()]

    def linear_models(self) -> Sequence[Maker]:
        """Return linear models with L2. Ridge minimizes a sum over rows."""
        from sklearn.linear_model import Ridge

        def make(alpha: float) -> Maker:
            return lambda total: Ridge(alpha=alpha * total)

        return [make(alpha) for alpha in ALPHAS]

    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return [lambda total: HistGradientBoostingRegressor(loss="squared_error", **options)]

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        return np.asarray(model.predict(x), "float64").reshape(-1, 1)


def measure_errors(actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
    """Return `RMSE` and `MAE`, in units of the target."""
    from sklearn import metrics

    return {
        "RMSE": float(metrics.root_mean_squared_error(actual, predictions, sample_weight=weight)),
        "MAE": float(metrics.mean_absolute_error(actual, predictions, sample_weight=weight)),
    }
