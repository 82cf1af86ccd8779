"""Survival data with ties and weights, and the partial likelihood by its definition, event by event."""

import numpy as np


def draw_survival(
    rows: int, columns: int = 3, ties: bool = True, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y (time and event) and weights, of which a tenth are 0."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, columns))
    effect = x @ np.linspace(1.0, -0.5, columns)
    event_times, censoring = draw.exponential(np.exp(-effect)), draw.exponential(1.5, rows)
    times = np.minimum(event_times, censoring)
    times = np.ceil(5 * times) / 5 if ties else times
    weights = draw.uniform(0.5, 2.0, rows) * (draw.uniform(size=rows) > 0.1)
    return x, np.stack([times, event_times <= censoring], axis=1), weights


def negative_partial_log_likelihood(y: np.ndarray, eta: np.ndarray, weights: np.ndarray, ties: str) -> float:
    """Return −l of Therneau and Grambsch 2000, section 3.3, with the weights of a risk set divided by their mean."""
    times, events = y[:, 0], (y[:, 1] == 1) & (weights > 0)
    hazards = weights / weights[weights > 0].mean() * np.exp(eta)
    total = 0.0
    for time in np.unique(times[events]):
        dying = np.flatnonzero(events & (times == time))
        at_risk = hazards[times >= time].sum()
        for rank, row in enumerate(dying):
            total -= weights[row] * eta[row]
            if ties == "breslow":
                total += weights[row] * np.log(at_risk)
            else:
                total += weights[dying].mean() * np.log(at_risk - rank / len(dying) * hazards[dying].sum())
    return total
