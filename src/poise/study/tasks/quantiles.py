"""Quantiles of numbers: several at once, by the pinball loss.

The loss of a quantile τ with the prediction q of a target y is τ (y − q) if y ≥ q, and (1 − τ) (q − y) otherwise. Its
mean is lowest at the quantile τ. The loss of a network is the mean over its quantiles. The last layer adds a positive
increment to each quantile to get the next one, so quantiles do not cross.

References:
    Koenker and Bassett 1978, "Regression quantiles".
    Chernozhukov, Fernández-Val and Galichon 2010, "Quantile and probability curves without crossing": sorting
    predictions that cross never increases their loss.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from poise.study.scores import StatisticOfSums
from poise.study.tasks.base import Maker, Task
from poise.study.tasks.checks import check_numbers

if TYPE_CHECKING:
    import keras

    from poise.study.targets import Target

QUANTILES = (0.1, 0.5, 0.9)
ALPHAS = tuple(10.0**exponent for exponent in range(-4, 1))
"""Strengths of L1 in the linear reference model."""
MOST_ROWS = 2000
"""Rows that the linear reference model is fitted to; of more rows, a random part. Linear programs are slow."""
SMALLEST_STEP = 1e-3
"""The smallest initial increment between two quantiles, in standard deviations."""


@dataclass(frozen=True)
class Quantiles(Task):
    """Quantiles. The network takes standardized numbers, and returns their quantiles in ascending order.

    Args:
        quantiles: The quantiles, ascending, each between 0 and 1.
    """

    quantiles: tuple[float, ...] = QUANTILES

    name = "quantile"
    score = "explained pinball loss"
    loss_title = "pinball loss, the mean over the quantiles"
    loss_code = "table.task.make_loss()"
    loss_unit = ", in units of the target's standard deviation"
    activation_code = "table.task.make_activation()"
    standardizes = True
    coefficient_meaning = ""
    constant_title = "Constant quantiles"
    constant_name = "constant quantiles"
    view = "quantiles"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        return cls(tuple(settings.get("quantiles", QUANTILES)))

    @property
    def title(self) -> str:
        return f"{self.name} {', '.join(f'{quantile:g}' for quantile in self.quantiles)}"

    @property
    def middle(self) -> int:
        """The number of the quantile nearest to the median."""
        return int(np.abs(np.subtract(self.quantiles, 0.5)).argmin())

    def script_options(self) -> dict[str, Any]:
        return {"quantiles": list(self.quantiles)}

    def name_prediction(self) -> str:
        return f"quantile {self.quantiles[self.middle]:g}"

    # ------------------------------------------------------------ the target and the network

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        return check_numbers(target, self.name), ()

    def encode(self, values: np.ndarray) -> np.ndarray:
        return values.astype("float32")[:, None]

    def count_outputs(self, classes: int) -> int:
        return len(self.quantiles)

    def make_activation(self) -> Callable:
        from poise._losses import accumulate

        return accumulate

    def make_loss(self) -> "keras.losses.Loss":
        from poise._losses import PinballLoss

        return PinballLoss(self.quantiles)

    def initial_bias(self, y: np.ndarray, outputs: int, weight: np.ndarray | None = None) -> np.ndarray:
        """Return the bias with which the outputs are the quantiles of y."""
        levels = find_quantiles(y[:, 0].astype("float64"), self.quantiles, weight)
        steps = np.maximum(np.diff(levels), SMALLEST_STEP)
        return np.concatenate([levels[:1], np.log(np.expm1(steps))])

    # ------------------------------------------------------------ losses and scores

    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        error = np.asarray(y, "float64") - np.asarray(outputs, "float64")
        levels = np.asarray(self.quantiles)
        return np.maximum(levels * error, (levels - 1.0) * error).mean(axis=-1)

    def score_of_sums(
        self, y: np.ndarray, terms: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], StatisticOfSums]:
        """Return the share of the loss of the constant quantiles that is explained, D² (see `Task.score_of_sums`)."""
        levels = find_quantiles(y[:, 0].astype("float64"), self.quantiles, weight)
        null = self.row_losses(y, np.tile(levels, (len(y), 1)))
        return [terms, null], lambda w, loss, null: 1.0 - loss / null

    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Return `pinball loss`, in units of the target, and coverages, such as `10% quantile coverage`.

        The coverage of a quantile is the share of rows at or below it. With several quantiles, `10% to 90% coverage` is
        the share of rows from the lowest to the highest one.
        """
        values = actual[:, None]
        scores = {"pinball loss": float(np.average(self.row_losses(values, predictions), weights=weight))}
        for number, quantile in enumerate(self.quantiles):
            below = actual <= predictions[:, number]
            scores[f"{100 * quantile:g}% quantile coverage"] = float(np.average(below, weights=weight))
        if len(self.quantiles) > 1:
            inside = (actual >= predictions[:, 0]) & (actual <= predictions[:, -1])
            name = f"{100 * self.quantiles[0]:g}% to {100 * self.quantiles[-1]:g}% coverage"
            scores[name] = float(np.average(inside, weights=weight))
        return scores

    # ------------------------------------------------------------ reference models

    def constant_models(self) -> Sequence[Maker]:
        from sklearn.dummy import DummyRegressor

        return [lambda total: OnePerQuantile(self.quantiles, lambda q: DummyRegressor(strategy="quantile", quantile=q))]

    def linear_models(self) -> Sequence[Maker]:
        """Return linear models with L1, the penalty of scikit-learn's `QuantileRegressor`."""
        from sklearn.linear_model import QuantileRegressor

        def make(alpha: float) -> Maker:
            return lambda total: OnePerQuantile(
                self.quantiles, lambda q: QuantileRegressor(quantile=q, alpha=alpha, solver="highs"), MOST_ROWS
            )

        return [make(alpha) for alpha in ALPHAS]

    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        from sklearn.ensemble import HistGradientBoostingRegressor

        def make(quantile: float) -> Any:
            return HistGradientBoostingRegressor(loss="quantile", quantile=quantile, **options)

        return [lambda total: OnePerQuantile(self.quantiles, make)]

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        return model.predict(x)

    # ------------------------------------------------------------ predictions

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return the quantiles sorted: a custom network may return them out of order."""
        return np.sort(outputs, axis=-1)

    def explain(self, outputs: np.ndarray, classes: Sequence[str]) -> tuple[Sequence[str], np.ndarray]:
        """Return the quantile nearest to the median."""
        return [""], self.predict(outputs)[..., self.middle : self.middle + 1]

    def tabulate(
        self, outputs: np.ndarray, target: str, classes: Sequence[str], center: Any, scale: Any
    ) -> dict[str, np.ndarray]:
        """Return one column per quantile."""
        values = self.predict(outputs) * scale + center
        return {f"quantile {level:g} of {target}": values[:, number] for number, level in enumerate(self.quantiles)}


class OnePerQuantile:
    """Models of single quantiles, with sorted predictions.

    Args:
        quantiles: The quantiles.
        make: Returns the model of a quantile.
        most_rows: The number of rows to fit. Default: `None`, all.
    """

    def __init__(self, quantiles: Sequence[float], make: Callable[[float], Any], most_rows: int | None = None) -> None:
        self.models = [make(quantile) for quantile in quantiles]
        self.most_rows = most_rows

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Self:
        """Fit every model."""
        if self.most_rows is not None and len(x) > self.most_rows:
            rows = np.random.default_rng(0).choice(len(x), self.most_rows, replace=False)
            x, y, sample_weight = x[rows], y[rows], None if sample_weight is None else sample_weight[rows]
        for model in self.models:
            model.fit(x, y, sample_weight=sample_weight)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return (rows, quantiles)."""
        return np.sort(np.column_stack([model.predict(x) for model in self.models]), axis=1)


def find_quantiles(values: np.ndarray, quantiles: Sequence[float], weight: np.ndarray | None = None) -> np.ndarray:
    """Return the smallest values whose cumulative share of the weight reaches each quantile."""
    order = np.argsort(values)
    shares = np.cumsum(np.ones(len(values)) if weight is None else np.asarray(weight, "float64")[order])
    at = np.searchsorted(shares, np.asarray(quantiles) * shares[-1])
    return values[order][np.minimum(at, len(values) - 1)]


def are_quantiles(values: Sequence[Any]) -> bool:
    """Return whether values are one or more ascending numbers between 0 and 1."""
    inner = [0.0, *values, 1.0]
    return len(inner) > 2 and all(
        isinstance(high, Real) and low < high for low, high in itertools.pairwise(inner)
    )  # fmt: skip
