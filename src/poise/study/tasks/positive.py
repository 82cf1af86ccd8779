"""Gamma: positive numbers. Tweedie: nonnegative numbers, of which many may be zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from poise.study.tasks.base import MOST_STEPS
from poise.study.tasks.log_link import LogLink

if TYPE_CHECKING:
    import keras


class Gamma(LogLink):
    """Positive numbers whose standard deviation is proportional to their mean."""

    name = "gamma"
    loss_title = "gamma loss"
    loss_code = "table.task.make_loss()"
    coefficient_meaning = "the change of the logarithm of the mean"
    trees_loss = "gamma"
    power = 2.0
    allows_zero = False

    def make_loss(self) -> "keras.losses.Loss":
        from poise._losses import GammaLoss

        return GammaLoss()

    def deviance_part(self, y: np.ndarray, mean: np.ndarray) -> np.ndarray:
        return np.log(mean) + y / mean

    def make_linear_model(self, alpha: float) -> Any:
        from sklearn.linear_model import GammaRegressor

        return GammaRegressor(alpha=alpha, max_iter=MOST_STEPS)


@dataclass(frozen=True)
class Tweedie(LogLink):
    """Nonnegative numbers, such as claims per policy: zeros, and positive numbers with a long tail.

    Args:
        power: The power of the variance function, between 1 (Poisson) and 2 (gamma).
    """

    power: float = 1.5

    name = "tweedie"
    loss_title = "Tweedie loss"
    loss_code = "table.task.make_loss()"
    coefficient_meaning = "the change of the logarithm of the mean"
    trees_loss = "poisson"
    """The closest loss of scikit-learn's boosted trees."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        return cls(settings.get("tweedie_power", cls.power))

    def script_options(self) -> dict[str, Any]:
        return {"tweedie_power": self.power}

    @property
    def title(self) -> str:
        return f"{self.name} with power {self.power:g}"

    def make_loss(self) -> "keras.losses.Loss":
        from poise._losses import TweedieLoss

        return TweedieLoss(self.power)

    def deviance_part(self, y: np.ndarray, mean: np.ndarray) -> np.ndarray:
        p = self.power
        # y · y^(1−p) is 0 at 0; the smallest positive base avoids 0 · ∞.
        base = np.maximum(mean, np.finfo("float64").tiny)
        return base ** (2.0 - p) / (2.0 - p) - y * base ** (1.0 - p) / (1.0 - p)

    def make_linear_model(self, alpha: float) -> Any:
        from sklearn.linear_model import TweedieRegressor

        return TweedieRegressor(power=self.power, alpha=alpha, link="log", max_iter=MOST_STEPS)
