"""The parts of single rows in the partial likelihood and in the concordance index, for the bootstrap over rows.

Both measures compare rows with each other. The part of a row is chosen such that the parts add up to the measure, and
that leaving a row out changes the measure by about its part. A bootstrap that adds up the parts of drawn rows then has
the right spread.
"""

import numpy as np

from poise.survival.targets import BLOCK

MOST_PAIRS = 200_000_000
"""Pairs of rows that are compared for the concordance index; of more, those with a random sample of rows."""


def row_losses(
    times: np.ndarray, events: np.ndarray, log_hazard: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return the loss of every row, (..., rows), whose sum is the negative log partial likelihood (Breslow).

    It is the negative log likelihood of the row under the baseline hazard that Breslow estimates from these rows, minus
    1 for an event: with η the log hazard, S(t) the hazard of all rows at risk, and H(t) the sum of 1/S over the events
    until t,

        δ_i (log S(t_i) − η_i) + exp(η_i) H(t_i) − δ_i

    The last two terms add up to 0. They are the effect of the row on the events of others while it is at risk. With
    weights, the hazards in S(t) and the events in H(t) are weighted, and the weighted sum of the losses is the weighted
    negative log partial likelihood.

    Args:
        times, events: (rows,).
        log_hazard: (..., rows).
        weight: (rows,) positive weights. Default: `None`.

    References:
        Breslow 1972, discussion of Cox 1972; Reid and Crépeau 1985, "Influence functions for proportional hazards
        regression".
    """
    order = np.argsort(times, kind="stable")
    times, is_event = times[order], events[order]
    eta = np.asarray(log_hazard, "float64")[..., order]
    first, after = np.searchsorted(times, times), np.searchsorted(times, times, side="right")
    log_weight = np.zeros(len(times)) if weight is None else np.log(np.asarray(weight, "float64")[order])
    at_risk = np.logaddexp.accumulate((eta + log_weight)[..., ::-1], axis=-1)[..., ::-1][..., first]
    increments = np.where(is_event, log_weight - at_risk, -np.inf)
    hazard = np.logaddexp.accumulate(increments, axis=-1)[..., after - 1]
    losses = np.where(is_event, at_risk - eta - 1.0, 0.0) + np.exp(eta + hazard)
    return losses[..., np.argsort(order)]


def wrong_pairs(
    times: np.ndarray, events: np.ndarray, log_hazard: np.ndarray, weight: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Return the part of every row in the number of wrong pairs, (..., rows), whose sum is that number.

    A pair is comparable and wrong as in `poise.concordance_index`; equal predictions count one half. The part of a row
    is the number of its wrong pairs, minus half of the mean of this number over the rows, so that no pair counts twice.
    For equal predictions, the sum is half of the number of comparable pairs. With weights, a pair counts as the product
    of the weights of its rows, and the number of pairs is the weighted sum of the parts.

    Args:
        times, events: (rows,).
        log_hazard: (..., rows).
        weight: (rows,) positive weights. Default: `None`.
        seed: Seed of the random sample of comparison rows, which is used if there are too many pairs.

    References:
        Hoeffding 1948, "A class of statistics with asymptotically normal distribution" (the projection on rows).
    """
    eta = np.asarray(log_hazard, "float64")
    flat, rows = eta.reshape(-1, eta.shape[-1]), eta.shape[-1]
    # Rows are ordered by time, events before censored rows. An event can be compared with all rows in later groups.
    group = np.unique(np.stack([times, ~events]), axis=1, return_inverse=True)[1].reshape(-1)
    others, weights = np.arange(rows), np.ones(rows) if weight is None else np.asarray(weight, "float64")
    if flat.size * rows > MOST_PAIRS:
        count = max(MOST_PAIRS // flat.size, min(rows, 100))
        others = np.random.default_rng(seed).permutation(rows)[:count]
    wrong = np.zeros(flat.shape)
    size = max(BLOCK // flat.size, 1)
    for start in range(0, len(others), size):
        block = others[start : start + size]
        is_first = events[:, None] & (group[:, None] < group[block])
        is_second = events[block] & (group[block] < group[:, None])
        # 1 if the row must have the higher hazard of the pair, -1 if the lower one, 0 if they are not comparable
        rank = is_first.astype("int8") - is_second.astype("int8")
        sign = np.sign(flat[:, :, None] - flat[:, None, block]).astype("int8")
        wrong += 0.5 * ((np.abs(rank) - rank * sign) @ weights[block])
    wrong *= weights.sum() / weights[others].sum()
    return (wrong - 0.5 * np.average(wrong, axis=-1, weights=weights)[:, None]).reshape(eta.shape)
