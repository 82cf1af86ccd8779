"""Fit the steps of a scaling pipeline by weights: weighted medians, means and standard deviations."""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

TIE = 1e-9
"""The share of the weight by which two sums may differ through rounding."""


def weigh_scaler(pipeline: Pipeline, values: pd.DataFrame, weight: np.ndarray) -> None:
    """Fit a pipeline of `poise.study.columns.number_column.make_scaler` again, by the weights of the rows.

    A row of weight 2 counts as two rows.

    Args:
        pipeline: The pipeline, fitted to `values`. It may encode the values as pieces before it scales.
        values: (rows, columns).
        weight: (rows,) positive weights.
    """
    fill, scale = pipeline.named_steps["fill"], pipeline.named_steps["scale"]
    columns = values.to_numpy("float64")
    for place in np.flatnonzero(~np.isnan(columns).all(axis=0)):
        fill.statistics_[place] = weighted_median(columns[:, place], weight)
    filled = fill.transform(values)
    pieces = pipeline.named_steps.get("pieces")
    if pieces is not None:
        filled = pieces.fit(filled, sample_weight=weight).transform(filled)
    fit_scaler(scale, filled, weight)


def fit_scaler(scaler: StandardScaler, values: np.ndarray, weight: np.ndarray) -> None:
    """Fit a scaler by weights. With `sample_weight`, scikit-learn can round the variance of a constant below 0.

    Args:
        scaler: The scaler.
        values: (rows, columns), none missing.
        weight: (rows,) weights >= 0, not all 0.
    """
    values, weight = values[weight > 0], weight[weight > 0]
    scaler.fit(values)
    scale, variance = np.asarray(scaler.scale_), np.asarray(scaler.var_)
    is_constant = (scale == 1.0) & ~np.isclose(variance, 1.0)
    scaler.mean_ = np.average(values, axis=0, weights=weight)
    weighted = np.average((values - scaler.mean_) ** 2, axis=0, weights=weight)
    is_constant |= weighted == 0.0
    scaler.var_ = np.where(is_constant, 0.0, weighted)
    scaler.scale_ = np.where(is_constant, 1.0, np.sqrt(weighted))


def weighted_median(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the median of the values that are not NaN; between two values, their mean.

    Args:
        values: (rows,).
        weight: (rows,) positive weights.
    """
    present = np.flatnonzero(~np.isnan(values))
    order = present[np.argsort(values[present], kind="stable")]
    shares = np.cumsum(weight[order])
    shares /= shares[-1]
    low, high = np.searchsorted(shares, [0.5 - TIE, 0.5 + TIE], side="right")
    return float(values[order[low]] / 2 + values[order[high]] / 2)
