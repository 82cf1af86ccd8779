"""What tasks with a log link share: the network returns a mean, the exponential of its last layer.

With the power p of the variance function, V(μ) = μ^p, the loss is half of the part of the unit deviance that depends on
the mean μ of the target y:

    p = 1 (Poisson):      ℓ(y, μ) = μ − y log μ
    1 < p < 2 (Tweedie):  ℓ(y, μ) = μ^(2−p) / (2−p) − y μ^(1−p) / (1−p)
    p = 2 (gamma):        ℓ(y, μ) = log μ + y / μ

The unit deviance is d(y, μ) = 2 (ℓ(y, μ) − ℓ(y, y)). ℓ is linear in y, so the mean of y is the best constant.

An offset o is added to the logarithm of the mean: the mean is E·μ with the exposure E = exp(o). Since
ℓ(y, E·μ) = E^(2−p) ℓ(y/E, μ) + a constant, the network has the loss of the rate y/E, with the weight E^(2−p). The unit
of E is chosen such that these weights have mean 1. The rates are then about as large as the target, and the loss is
that of the target, whatever the unit of the exposure.

References:
    Jørgensen 1987, "Exponential dispersion models".
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poise.study.scores import RowScores, StatisticOfSums
from poise.study.tasks.base import ALPHAS, Maker, Task
from poise.study.tasks.checks import check_nonnegative, check_positive
from poise.study.tasks.regression import measure_errors

if TYPE_CHECKING:
    from poise.study.targets import Target

SMALLEST, LARGEST = 1e-12, 1e30
"""The range of the means that a reference model predicts."""
SMALLEST_MEAN = 1e-30
"""Smaller outputs of a network count as this mean, so that the loss is finite."""


class LogLink(Task):
    """A target that is not negative, and its mean.

    Attributes:
        trees_loss: The loss of boosted trees in scikit-learn.
        power: The power of the variance function.
        allows_zero: Whether the target may be 0. Default: `True`.
    """

    score = "explained deviance"
    activation = "exponential"
    activation_code = '"exponential"'
    residual_note = " The residuals become wider for larger predictions."
    takes_offset = True
    takes_exposure = True
    largest_offset = 50.0
    trees_loss: ClassVar[str]
    power: float
    allows_zero: ClassVar[bool] = True

    @abstractmethod
    def deviance_part(self, y: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return ℓ(y, mean)."""

    @abstractmethod
    def make_linear_model(self, alpha: float) -> Any:
        """Return a linear model of scikit-learn, which minimizes half of the mean deviance plus the penalty."""

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        return (check_nonnegative if self.allows_zero else check_positive)(target, self.name), ()

    def find_problem(self, values: np.ndarray) -> str:
        return "" if values.any() else "have the target 0, from which no mean can be predicted"

    def encode(self, values: np.ndarray) -> np.ndarray:
        return values.astype("float32")[:, None]

    def initial_bias(self, y: np.ndarray, outputs: int, weight: np.ndarray | None = None) -> np.ndarray:
        """Return the logarithm of the mean."""
        return np.log([max(float(np.average(y[:, 0].astype("float64"), weights=weight)), SMALLEST)])

    def unstandardize(
        self, kernel: np.ndarray, bias: np.ndarray, center: float | np.ndarray, scale: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return kernel, bias + np.log(scale)

    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        mean = np.maximum(np.asarray(outputs, "float64"), SMALLEST_MEAN)
        return self.deviance_part(np.asarray(y, "float64"), mean)[..., 0]

    def score_rows(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> RowScores:
        """Return the losses and the deviances."""
        losses, y = self.row_losses(y, outputs), np.asarray(y, "float64")[:, 0]
        return RowScores(losses, 2.0 * (losses - self.deviance_part(y, y)))

    def score_of_sums(
        self, y: np.ndarray, terms: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], StatisticOfSums]:
        y = y[:, 0].astype("float64")

        def explain(w: np.ndarray, deviance: np.ndarray, y: np.ndarray, best: np.ndarray) -> np.ndarray:
            mean = y / w
            return 1.0 - deviance / (2.0 * (w * self.deviance_part(mean, mean) - best))

        return [terms, y, self.deviance_part(y, y)], explain

    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Return `RMSE`, `MAE` and `deviance`."""
        terms = self.score_rows(actual[:, None], predictions[:, None]).score_terms
        return {**measure_errors(actual, predictions, weight), "deviance": float(np.average(terms, weights=weight))}

    # ------------------------------------------------------------ offsets

    def center_offset(self, offset: np.ndarray, weight: np.ndarray | None) -> float:
        """Return the log exposure at which the weight is 1.

        For p = 2, where all weights are 1, return the mean log exposure.
        """
        slope = 2.0 - self.power
        if not slope:
            return float(np.average(offset, weights=weight))
        return float(np.log(np.average(np.exp(slope * offset), weights=weight)) / slope)

    def remove_offset(self, values: np.ndarray, offset: np.ndarray) -> np.ndarray:
        return values / np.exp(offset)

    def offset_weight(self, offset: np.ndarray) -> np.ndarray:
        return np.exp((2.0 - self.power) * offset)

    def add_offset(self, predictions: np.ndarray, offset: np.ndarray) -> np.ndarray:
        return predictions * np.exp(offset)

    # ------------------------------------------------------------ reference models

    def constant_models(self) -> Sequence[Maker]:
        from sklearn.dummy import DummyRegressor

        return [lambda total: DummyRegressor()]

    def linear_models(self) -> Sequence[Maker]:
        def make(alpha: float) -> Maker:
            return lambda total: self.make_linear_model(alpha)

        return [make(alpha) for alpha in ALPHAS]

    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return [lambda total: HistGradientBoostingRegressor(loss=self.trees_loss, **options)]

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.clip(np.asarray(model.predict(x), "float64"), SMALLEST, LARGEST).reshape(-1, 1)
