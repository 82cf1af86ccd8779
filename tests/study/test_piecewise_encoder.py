"""Piecewise-linear encodings: the formula, the quantiles, weights, and the checks of scikit-learn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import SplineTransformer
from sklearn.utils.estimator_checks import check_estimator

import poise


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_it() -> None:
    check_estimator(poise.PiecewiseLinearEncoder())


def skewed(rows=203, seed=0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.column_stack([random.gamma(0.5, size=rows), random.normal(size=rows) * 1e6, random.integers(0, 40, rows)])


def encode_by_hand(x: float, edges: np.ndarray) -> list[float]:
    """The formula of the paper, one value and one piece at a time."""
    pieces = []
    for t in range(1, len(edges)):
        e = (x - edges[t - 1]) / (edges[t] - edges[t - 1])
        if t > 1:
            e = max(e, 0.0)
        if t < len(edges) - 1:
            e = min(e, 1.0)
        pieces.append(e)
    return pieces


def test_every_value_is_encoded_by_the_formula() -> None:
    x = skewed()
    encoder = poise.PiecewiseLinearEncoder(5).fit(x)
    new = np.concatenate([x[:20], x.min(axis=0, keepdims=True) - 3.0, x.max(axis=0, keepdims=True) + 3.0])

    encoded = encoder.transform(new)

    for row, values in zip(encoded, new, strict=True):
        expected = [encode_by_hand(value, edges) for value, edges in zip(values, encoder.edges_, strict=True)]
        np.testing.assert_allclose(row, np.concatenate(expected), rtol=1e-12)


def test_the_edges_are_the_quantiles() -> None:
    x = skewed()
    edges = poise.PiecewiseLinearEncoder(5).fit(x).edges_

    for values, found in zip(x.T, edges, strict=True):
        quantiles = np.quantile(values, np.linspace(0.0, 1.0, 6), method="inverted_cdf")
        np.testing.assert_array_equal(found, np.unique(quantiles))


def test_a_piece_is_the_sum_of_the_splines_of_degree_one_to_its_right() -> None:
    """Hat functions with the same knots have the same span: scikit-learn computes them."""
    x = np.random.default_rng(0).normal(size=(150, 2))
    encoder = poise.PiecewiseLinearEncoder(6).fit(x)
    knots = np.column_stack(encoder.edges_)
    arguments: dict[str, Any] = {"knots": knots}  # its annotation says str
    splines = SplineTransformer(degree=1, extrapolation="continue", **arguments).fit(x)
    new = np.concatenate([x, 1.5 * x])

    hats = splines.transform(new).reshape(len(new), 2, 7)

    expected = np.cumsum(hats[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:]
    np.testing.assert_allclose(encoder.transform(new), expected.reshape(len(new), 12), atol=1e-9)


def test_the_pieces_add_up_to_the_value() -> None:
    x = skewed()
    encoder = poise.PiecewiseLinearEncoder(4).fit(x)

    encoded = encoder.transform(x * 2.0)

    for values, edges, group in zip(2.0 * x.T, encoder.edges_, encoder.groups_, strict=True):
        np.testing.assert_allclose(encoded[:, group] @ np.diff(edges) + edges[0], values, rtol=1e-9)


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    x = skewed()
    times = np.random.default_rng(1).integers(0, 4, len(x))

    weighted = poise.PiecewiseLinearEncoder(6).fit(x, sample_weight=0.1 * times)
    repeated = poise.PiecewiseLinearEncoder(6).fit(np.repeat(x, times, axis=0))

    for ours, theirs in zip(weighted.edges_, repeated.edges_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("pieces", "values", "edges"),
    [
        (8, [3.0, 3.0, 3.0], [3.0]),
        (8, [0.0, 1.0, 1.0, 0.0], [0.0, 1.0]),
        (8, [2.0, 5.0, 9.0, 5.0], [2.0, 5.0, 9.0]),
        (3, [0.0] * 8 + [1.0, 2.0, 3.0, 4.0], [0.0, 4.0]),
    ],
    ids=["constant", "two values", "few values", "mostly zero"],
)
def test_few_distinct_values_have_few_pieces(pieces, values, edges) -> None:
    encoder = poise.PiecewiseLinearEncoder(pieces).fit(np.array(values)[:, None])

    assert encoder.edges_[0].tolist() == edges
    assert len(encoder.groups_[0]) == max(len(edges) - 1, 1)


def test_a_constant_column_is_zero() -> None:
    encoder = poise.PiecewiseLinearEncoder().fit([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])

    assert encoder.groups_ == [[0, 1], [2]]
    assert encoder.transform([[2.5, 9.0]]).tolist() == [[1.0, 0.5, 0.0]]


def test_very_large_numbers_stay_finite() -> None:
    x = np.array([[-1.7e308], [0.0], [1e308], [1.7e308]])
    encoded = poise.PiecewiseLinearEncoder(3).fit(x).transform(x)

    np.testing.assert_allclose(encoded, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], atol=1e-12)


def test_names_groups_and_dtype() -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0, 3.0], "bmi": [0.0, 1.0, 0.0]})
    encoder = poise.PiecewiseLinearEncoder(2).fit(frame)

    assert encoder.get_feature_names_out().tolist() == ["age_piece1", "age_piece2", "bmi_piece1"]
    assert encoder.set_output(transform="pandas").transform(frame).columns.tolist() == [
        "age_piece1", "age_piece2", "bmi_piece1",
    ]  # fmt: skip
    assert poise.PiecewiseLinearEncoder().fit_transform(frame.to_numpy("float32")).dtype == "float32"


@pytest.mark.parametrize(("pieces", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)])
def test_a_bad_number_of_pieces_is_refused(pieces, error) -> None:
    with pytest.raises(error, match=f"n_pieces must be an int >= 1, got {pieces}"):
        poise.PiecewiseLinearEncoder(pieces).fit([[1.0], [2.0]])


@pytest.mark.parametrize("weight", [[-1.0, 1.0], [0.0, 0.0]])
def test_bad_weights_are_refused(weight) -> None:
    with pytest.raises(ValueError, match="sample_weight must be >= 0, and not zero in all rows"):
        poise.PiecewiseLinearEncoder().fit([[1.0], [2.0]], sample_weight=weight)


def test_an_additive_model_recovers_the_curve_of_a_column() -> None:
    """|x| is a curve of two lines, so that the fit is exact if one edge is at 0."""
    random = np.random.default_rng(0)
    x = random.uniform(-1.0, 1.0, (300, 5))
    x[:, 0] = np.sort(x[:, 0])
    x[149, 0] = 0.0
    regressor = poise.PathRegressor(
        "adaptive", hidden_layer_sizes=(), encoding="piecewise", learning_rate=0.05, max_iter=1500
    ).fit(x, np.abs(x[:, 0]))

    assert np.asarray(regressor.support_).tolist() == [True, False, False, False, False]
    assert regressor.score(x, np.abs(x[:, 0])) > 0.99
