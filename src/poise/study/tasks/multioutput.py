"""Regression of several targets at once, by the mean of their squared errors, each in units of its variance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from poise.study.scores import StatisticOfSums
from poise.study.tasks.base import Maker
from poise.study.tasks.regression import Regression, measure_errors


@dataclass(frozen=True)
class MultiOutput(Regression):
    """Several numbers. The network takes and returns standardized ones; its last layer has one output for each.

    Args:
        targets: The names of the targets.
    """

    targets: tuple[str, ...] = ()

    name: ClassVar[str] = "multioutput"
    loss_title: ClassVar[str] = "mean squared error, the mean over the targets"
    loss_unit: ClassVar[str] = ", each target in units of its variance"
    coefficient_meaning: ClassVar[str] = "the change of the prediction, in units of its target"
    takes_offset: ClassVar[bool] = False
    constant_title: ClassVar[str] = "Means"
    constant_name: ClassVar[str] = "the means"
    constant_note: ClassVar[str] = "always predicting the means has a loss of about 1"
    view: ClassVar[str] = "several_numbers"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        return cls(tuple(settings.get("targets", ())))

    @property
    def title(self) -> str:
        return f"{self.name} of {len(self.targets)} targets"

    def name_prediction(self) -> str:
        return "standardized prediction"

    # ------------------------------------------------------------ the target and the network

    def list_targets(self, values: np.ndarray) -> Sequence[np.ndarray]:
        return list(values.T)

    def count_outputs(self, classes: int) -> int:
        return len(self.targets)

    # ------------------------------------------------------------ losses and scores

    def score_of_sums(
        self, y: np.ndarray, terms: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], StatisticOfSums]:
        """Return R² of all targets together: 1 minus the ratio of the squared errors to the squared deviations.

        Both are means over the targets, each in units of its variance in the training rows (see `Task.score_of_sums`).
        This is `sklearn.metrics.r2_score` with `multioutput="variance_weighted"` on standardized targets.
        """
        values = np.asarray(y, "float64")

        def explain(w: np.ndarray, error: np.ndarray, squares: np.ndarray, *sums: np.ndarray) -> np.ndarray:
            means = sum(np.square(each) for each in sums) / (w * len(sums))
            return 1.0 - error / (squares - means)

        return [terms, np.square(values).mean(axis=1), *values.T], explain

    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Return for each target its R², RMSE and MAE, the last two in its units."""
        from sklearn.metrics import r2_score

        scores = {}
        for number, target in enumerate(self.targets):
            of_target = actual[:, number], predictions[:, number]
            found = {"R²": float(r2_score(*of_target, sample_weight=weight)), **measure_errors(*of_target, weight)}
            scores |= {f"{name} of {target}": value for name, value in found.items()}
        return scores

    # ------------------------------------------------------------ reference models

    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        """Return boosted trees, as many models as targets."""
        from sklearn.multioutput import MultiOutputRegressor

        return [lambda total, make=make: MultiOutputRegressor(make(total)) for make in super().boosted_trees(options)]

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        return np.asarray(model.predict(x), "float64")

    # ------------------------------------------------------------ predictions

    def actual_values(self, y: np.ndarray) -> np.ndarray:
        """Return (rows, targets)."""
        return np.asarray(y, "float64")

    def explain(self, outputs: np.ndarray, classes: Sequence[str]) -> tuple[Sequence[str], np.ndarray]:
        return self.targets, outputs

    def tabulate(
        self, outputs: np.ndarray, target: str, classes: Sequence[str], center: Any, scale: Any
    ) -> dict[str, np.ndarray]:
        """Return one column per target."""
        return dict(zip(self.targets, (outputs * np.asarray(scale) + np.asarray(center)).T, strict=True))
