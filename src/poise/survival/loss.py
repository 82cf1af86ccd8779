"""The negative logarithm of the Cox partial likelihood, a loss of a whole batch.

It compares every row that has an event with all rows that are still at risk at that time. It is therefore not a mean of
losses of single rows.
"""

from typing import Any, Literal, get_args

import keras
from keras import ops

from poise.penalties.base import PACKAGE

Ties = Literal["breslow", "efron"]

LOWEST = -1e30
"""Logarithm of the hazard of a row with weight zero. It is finite, so that gradients are."""


@keras.saving.register_keras_serializable(PACKAGE)
class CoxPartialLikelihood(keras.losses.Loss):
    """Compute the negative logarithm of the Cox partial likelihood, divided by the number of rows.

    The model has one output η, the log hazard ratio. Without ties and sample weights, the loss of n rows is

        −1/n · Σ_{i: event} (η_i − log Σ_{j: t_j ≥ t_i} exp(η_j))

    which is the scale of glmnet: a strength λ of glmnet is a strength λ here. Sample weights multiply the term of
    each event and enter the sums over the rows at risk, where they are divided by their mean over the rows with a
    weight above 0. A row with weight 0 has no effect.

    The loss depends on which rows are in a batch together. Train with all rows in one batch:
    `model.fit(x, y, batch_size=len(x))`. `poise.fit_path` does this by default.

    Args:
        ties: How to treat events at the same time: `"breslow"` (as in glmnet) or `"efron"` (as in the R package
            survival, closer to the exact likelihood if there are many ties). Default: `"breslow"`.
        name: Name of the loss. Default: `"cox_partial_likelihood"`.
        dtype: Dtype in which to compute and to compare times. If distinct times are equal in this dtype, pass their
            ranks instead, as `poise.fit_path` does. Default: None, which is `keras.config.floatx()`.

    Raises:
        ValueError: If `ties` has another value, or the loss is called with targets that are not (rows, 2), or
            predictions that are not (rows, 1).

    References:
        Cox 1972, "Regression models and life-tables"; Breslow 1974, "Covariance analysis of censored survival data";
        Efron 1977, "The efficiency of Cox's likelihood function for censored data"; Simon, Friedman, Hastie and
        Tibshirani 2011, "Regularization paths for Cox's proportional hazards model via coordinate descent".

    Examples:
        >>> import numpy as np, poise
        >>> y = np.array([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])  # time, event
        >>> loss = poise.CoxPartialLikelihood()
        >>> round(float(loss(y, np.zeros((3, 1)))), 4)  # log(3) / 3
        0.3662
    """

    whole_batch = True
    """The loss compares the rows of a batch: `poise.fit_path` trains with full batches only."""

    def __init__(self, ties: Ties = "breslow", name: str = "cox_partial_likelihood", dtype: Any = None) -> None:
        if ties not in get_args(Ties):
            raise ValueError(f"ties must be one of 'breslow', 'efron', got {ties!r}.")
        super().__init__(name=name, reduction="sum_over_batch_size", dtype=dtype)
        self.ties: Ties = ties
        self._has_dtype = dtype is not None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss of a batch.

        Args:
            y_true: (rows, 2) time and event (1: event, 0: censored).
            y_pred: (rows, 1) log hazard ratio.
            sample_weight: (rows,) or (rows, 1) weights >= 0. Default: None, for weights of 1.
        """
        return ops.mean(self.call(y_true, y_pred, sample_weight))

    def call(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the contribution of every row, (rows,): 0 for a censored row.

        Events at the same time share their part equally.
        """
        y_true, y_pred = (ops.convert_to_tensor(a, dtype=self.dtype) for a in (y_true, y_pred))
        if tuple(y_true.shape)[1:] != (2,) or tuple(y_pred.shape)[1:] != (1,):
            raise ValueError(
                "CoxPartialLikelihood needs targets of shape (rows, 2), time and event, and predictions of shape "
                f"(rows, 1), got {tuple(y_true.shape)} and {tuple(y_pred.shape)}."
            )
        eta = y_pred[:, 0]
        weights = ops.ones_like(eta)
        if sample_weight is not None:
            weights = ops.reshape(ops.convert_to_tensor(sample_weight, dtype=self.dtype), (-1,))
        return partial_likelihood_terms(y_true[:, 0], y_true[:, 1], eta, weights, self.ties)

    def get_config(self) -> dict[str, Any]:
        config = {"ties": self.ties, "name": self.name}
        return {**config, "dtype": self.dtype} if self._has_dtype else config


def partial_likelihood_terms(times: Any, events: Any, eta: Any, weights: Any, ties: Ties) -> Any:
    """Return w_i (log Σ_{j at risk} w_j exp(η_j) − η_i) of every event, and 0 of every censored row.

    The sums over rows at risk are running sums from the last time to the first one, and computed as logarithms, so that
    they neither overflow nor vanish.

    Args:
        times, events, eta, weights: (rows,).
        ties: how to treat events at the same time.
    """
    order = ops.argsort(-times)
    times, events, eta, weights = (ops.take(a, order, axis=0) for a in (times, events, eta, weights))
    counts = ops.cast(weights > 0, weights.dtype)
    events = events * counts
    mean = ops.sum(weights) / ops.maximum(ops.sum(counts), 1.0)
    hazards = eta + ops.log(ops.where(weights > 0, weights / ops.where(mean > 0, mean, 1.0), 1.0))
    hazards = ops.where(weights > 0, hazards, LOWEST)
    last = ops.searchsorted(-times, -times, side="right") - 1  # the last row of the same time
    running = ops.associative_scan(_log_add_exp, hazards)
    running = ops.reshape(running, ops.shape(hazards))  # TensorFlow cannot pass a sparse gradient to the scan
    at_risk = ops.take(running, last, axis=0)
    if ties == "efron":
        at_risk = at_risk + _efron_correction(hazards, at_risk, events, last)
    terms = weights * events * (at_risk - eta)
    return ops.take(terms, ops.argsort(order), axis=0)


def _log_add_exp(a: Any, b: Any) -> Any:
    """Return log(exp(a) + exp(b)). `keras.ops.logaddexp` has a wrong gradient at a = b on TensorFlow."""
    largest = ops.stop_gradient(ops.maximum(a, b))
    return largest + ops.log(ops.exp(a - largest) + ops.exp(b - largest))


def _efron_correction(hazards: Any, at_risk: Any, events: Any, last: Any) -> Any:
    """Return the mean over k < d of log(1 − k/d · D/R) for the d events at each time, (rows,).

    R is the hazard of all rows at risk, and D that of the events. The sum over the events, each times its weight, is
    then the sum over k of log(R − k/d · D), times their mean weight, as in the R package survival.
    """
    rows = ops.shape(hazards)[0]

    def sum_of_ties(a: Any) -> Any:
        return ops.take(ops.segment_sum(a, last, num_segments=rows), last, axis=0)

    running = ops.cumsum(events)
    ties = ops.maximum(sum_of_ties(events), 1.0)  # d
    rank = ops.maximum(running - 1.0 - (ops.take(running, last, axis=0) - ties), 0.0)  # k
    share = sum_of_ties(events * ops.exp(hazards - at_risk))  # D/R
    return sum_of_ties(events * ops.log1p(-rank / ties * share)) / ties
