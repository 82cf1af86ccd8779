"""Survival: the time until an event, which some rows have not had yet, by the Cox partial likelihood.

The target of a table has one number per row: the time, with a minus sign if the row is censored (also -0.0). It is the
form in which a study splits, stacks and saves targets; `encode` makes two columns of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from poise.study.scores import RowScores, StatisticOfSums
from poise.study.tasks.base import Maker, Task
from poise.survival.curves import BaselineHazard
from poise.survival.rows import row_losses, wrong_pairs

if TYPE_CHECKING:
    import keras

    from poise.study.targets import Target

QUANTILES = (0.25, 0.5, 0.75)
"""Quantiles of the times of events of the training rows, at which survival is predicted."""


@dataclass(frozen=True)
class Survival(Task):
    """Times until an event, some of them censored. The network returns the logarithm of the hazard ratio.

    Args:
        times: The times at which survival is predicted. Default: (), before the baseline hazard is estimated.
        cumulative_hazards: The baseline cumulative hazards at these times. Default: ().
    """

    times: tuple[float, ...] = ()
    cumulative_hazards: tuple[float, ...] = ()

    name: ClassVar[str] = "survival"
    score: ClassVar[str] = "concordance index"
    loss_title: ClassVar[str] = "negative log partial likelihood (Cox) per row"
    loss_code: ClassVar[str] = "poise.CoxPartialLikelihood()"
    compares_rows: ClassVar[bool] = True
    constant_score: ClassVar[float] = 0.5
    constant_title: ClassVar[str] = "No columns"
    constant_name: ClassVar[str] = "a model without columns"
    loss_unit: ClassVar[str] = (
        "; they depend on how many rows are compared, so held-out and test losses are not comparable"
    )
    coefficient_meaning: ClassVar[str] = "the change of the log hazard ratio"
    view: ClassVar[str] = "survival"

    def name_prediction(self) -> str:
        return "log hazard ratio"

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        return target.values, ()

    def find_problem(self, values: np.ndarray) -> str:
        return "are censored" if np.signbit(values).all() else ""

    def list_targets(self, values: np.ndarray) -> Sequence[np.ndarray]:
        """Return the times, and whether there is an event."""
        return [np.abs(values), 1.0 - np.signbit(values)]

    def find_strata(self, values: np.ndarray) -> np.ndarray | None:
        """Return whether there is an event, if both kinds of rows have at least two rows."""
        is_censored = np.signbit(values.astype("float64"))
        return is_censored if min(is_censored.sum(), (~is_censored).sum()) >= 2 else None

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return (rows, 2), the time and the event (1 or 0), in float64, so that close times stay distinct."""
        return np.stack([np.abs(values), 1.0 - np.signbit(values)], axis=-1).astype("float64")

    def make_loss(self) -> "keras.losses.Loss":
        from poise.survival.loss import CoxPartialLikelihood

        return CoxPartialLikelihood()

    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        """Return the parts of the rows in the loss, with risk sets of these rows (see `poise.survival.rows`)."""
        return row_losses(*_split(y), np.asarray(outputs)[..., 0], weight)

    def score_rows(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> RowScores:
        pairs = wrong_pairs(*_split(y), np.asarray(outputs)[..., 0], weight)
        return RowScores(self.row_losses(y, outputs, weight), pairs)

    def score_of_sums(
        self, y: np.ndarray, terms: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], StatisticOfSums]:
        """Return the parts in the wrong pairs, and those of equal predictions: half of the comparable pairs."""
        half = wrong_pairs(*_split(y), np.zeros(len(y)), weight)
        return [terms, half], lambda w, wrong, half: 1.0 - 0.5 * wrong / half

    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Return `events`, the number of rows with an event."""
        return {"events": float(_split(actual)[1].sum())}

    def constant_models(self) -> Sequence[Maker]:
        from sklearn.dummy import DummyRegressor

        return [lambda total: DummyRegressor()]

    def linear_models(self) -> Sequence[Maker]:
        """Return none: scikit-learn has no Cox model. The reference is a path of poise."""
        return []

    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        """Return none: those of scikit-learn do not support censored rows."""
        return []

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        """Return equal predictions, those of the constant model."""
        return np.zeros((len(x), 1))

    def actual_values(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(y, "float64")

    def estimate(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None) -> dict[str, Any]:
        """Return `times`, quartiles of the times of events, and the baseline `cumulative_hazards` there."""
        baseline = BaselineHazard.fit(y, outputs, weight)
        times, events = _split(y)
        at = np.quantile(times[events], QUANTILES, method="inverted_cdf")
        return {"times": at.tolist(), "cumulative_hazards": baseline.cumulative_hazard(at, [0.0])[0].tolist()}

    def with_estimates(self, estimates: Mapping[str, Any]) -> Self:
        return type(self)(tuple(estimates["times"]), tuple(estimates["cumulative_hazards"]))

    def tabulate(
        self, outputs: np.ndarray, target: str, classes: Sequence[str], center: Any, scale: Any
    ) -> dict[str, np.ndarray]:
        """Return the log hazard ratio, and the probability that the event comes after each of `times`."""
        baseline = BaselineHazard(np.asarray(self.times), np.asarray(self.cumulative_hazards))
        survival = baseline.survival(self.times, outputs[:, 0])
        columns = {f"P({target} > {time:.6g})": survival[:, at] for at, time in enumerate(self.times)}
        return {"log hazard ratio": outputs[:, 0], **columns}


def _split(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the times, and whether there is an event."""
    return np.asarray(y[:, 0], "float64"), np.asarray(y[:, 1]) == 1
