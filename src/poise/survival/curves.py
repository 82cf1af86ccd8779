"""Step functions of time: the baseline hazard of a Cox model, and the Kaplan-Meier curve of a group of rows."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from poise.survival.targets import check_numbers, check_targets, check_weights


@dataclass(frozen=True, eq=False)
class BaselineHazard:
    """The cumulative hazard of a row whose log hazard ratio is 0, and the survival curves that follow from it.

    Estimate it from the training rows by `BaselineHazard.fit`.

    Attributes:
        times: (events,) the distinct times at which events happened, ascending.
        cumulative: (events,) the cumulative hazard from each of these times on.

    References:
        Breslow 1972, discussion of Cox 1972, "Regression models and life-tables".

    Examples:
        >>> import numpy as np, poise
        >>> y = [[1.0, 1], [2.0, 0], [3.0, 1]]
        >>> baseline = poise.BaselineHazard.fit(y, np.zeros(3))
        >>> baseline.cumulative.round(3).tolist()
        [0.333, 1.333]
        >>> baseline.survival([1.0, 3.0], [0.0]).round(3).tolist()
        [[0.717, 0.264]]
    """

    times: np.ndarray
    cumulative: np.ndarray

    @classmethod
    def fit(cls, y: Any, log_hazard: Any, sample_weight: Any = None) -> Self:
        """Return the estimate of Breslow: at each time, the events divided by the hazard of all rows at risk.

        Args:
            y: (rows, 2) time and event (1: event, 0: censored) of the training rows.
            log_hazard: (rows,) or (rows, 1) predictions of the model for them.
            sample_weight: (rows,) weights >= 0. Default: None, for ones.

        Raises:
            TypeError: If an argument is not numbers.
            ValueError: If y is not times and events, the other arguments do not fit it, or no row has an event.
        """
        times, deaths, at_risk = _count_risk_sets(y, log_hazard, sample_weight)
        return cls(times, np.cumsum(deaths / at_risk))

    def cumulative_hazard(self, times: Any, log_hazard: Any) -> np.ndarray:
        """Return the cumulative hazard of every row at every time, (rows, times).

        It is 0 before the first event, and constant after the last one.

        Args:
            times: (times,).
            log_hazard: (rows,) or (rows, 1) predictions.
        """
        hazards = np.exp(check_numbers(log_hazard, "log_hazard"))[:, None]
        return hazards * _step(self.times, self.cumulative, times, 0.0)

    def survival(self, times: Any, log_hazard: Any) -> np.ndarray:
        """Return the probability that the event comes after a time, exp(-cumulative hazard), (rows, times).

        Args:
            times: (times,).
            log_hazard: (rows,) or (rows, 1) predictions.
        """
        return np.exp(-self.cumulative_hazard(times, log_hazard))


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """The survival curve of a group of rows, without a model.

    Attributes:
        times: (events,) the distinct times at which events happened, ascending.
        probabilities: (events,) the share that survives each of these times.

    References:
        Kaplan and Meier 1958, "Nonparametric estimation from incomplete observations".
    """

    times: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def fit(cls, y: Any, sample_weight: Any = None) -> Self:
        """Return the product over times of (1 - events / rows at risk).

        Args:
            y: (rows, 2) time and event (1: event, 0: censored).
            sample_weight: (rows,) weights >= 0. Default: None, for ones.

        Raises:
            TypeError: If an argument is not numbers.
            ValueError: If y is not times and events, the other arguments do not fit it, or no row has an event.
        """
        times, deaths, at_risk = _count_risk_sets(y, None, sample_weight)
        return cls(times, np.cumprod(1.0 - deaths / at_risk))

    def survival(self, times: Any) -> np.ndarray:
        """Return the share that survives each time, (times,)."""
        return _step(self.times, self.probabilities, times, 1.0)


def _count_risk_sets(y: Any, log_hazard: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct times of events, the weight of the events then, and the hazard of the rows at risk."""
    times, events = check_targets(y)
    hazards = 1.0 if log_hazard is None else np.exp(check_numbers(log_hazard, "log_hazard", len(times)))
    weights = check_weights(sample_weight, len(times))
    events = events & (weights > 0)
    if not events.any():
        raise ValueError(f"All {len(times)} rows are censored. Pass rows with events.")
    distinct, positions = np.unique(times, return_inverse=True)
    deaths = np.bincount(positions, weights * events)
    at_risk = np.cumsum(np.bincount(positions, weights * hazards)[::-1])[::-1]
    happened = np.bincount(positions, events) > 0
    return distinct[happened], deaths[happened], at_risk[happened]


def _step(starts: np.ndarray, values: np.ndarray, times: Any, first: float) -> np.ndarray:
    """Return the last value that has started at each time; `first` before all of them."""
    return np.append(first, values)[np.searchsorted(starts, check_numbers(times, "times"), side="right")]
