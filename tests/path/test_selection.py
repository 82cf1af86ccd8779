"""Which strength is taken, against tables worked by hand, a parabola fitted by NumPy, and glmnet's rule in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from poise.path.selection import at_most, minimum, one_standard_error, vertex

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        ([3.0, 2.0, 1.0, 2.0], 2),
        ([1.0, 2.0, 3.0], 0),
        ([3.0, 2.0, 1.0], 2),
        ([2.0, 1.0, 1.0, 2.0], 2),
        ([1.0, 1.0, 1.0], 2),
        ([NAN, 2.0, INF, 3.0], 1),
        ([-INF, 2.0, 1.0], 2),
        ([5.0], 0),
    ],
)
def test_minimum_is_the_lowest_finite_mean_and_of_equals_the_largest_strength(mean, expected):
    assert minimum(np.array(mean)) == expected


def test_no_strength_is_chosen_where_all_diverged():
    with pytest.raises(ValueError, match="At each of the 2 strengths, at least one training diverged") as caught:
        minimum(np.array([NAN, INF]))
    assert "learning rate" in str(caught.value)


# Worked by hand: the losses of five folds at five strengths, ascending, and their means and standard errors.
#   strength 0.1   1.0 1.2 1.4 1.6 1.8   mean 1.40   sd √0.10    se √0.02   = 0.1414
#   strength 0.2   0.8 1.0 1.2 1.4 1.6   mean 1.20   sd √0.10    se √0.02   = 0.1414   the lowest mean
#   strength 0.4   0.9 1.1 1.2 1.5 1.6   mean 1.26   sd √0.083   se √0.0166 = 0.1288
#   strength 0.8   1.0 1.3 1.3 1.4 1.7   mean 1.34   sd √0.063   se √0.0126 = 0.1122   1.34 ≤ 1.20 + 0.1414 = 1.3414
#   strength 1.6   1.1 1.3 1.3 1.4 1.7   mean 1.36                                     1.36 > 1.3414
FOLDS = np.array(
    [
        [1.0, 0.8, 0.9, 1.0, 1.1],
        [1.2, 1.0, 1.1, 1.3, 1.3],
        [1.4, 1.2, 1.2, 1.3, 1.3],
        [1.6, 1.4, 1.5, 1.4, 1.4],
        [1.8, 1.6, 1.6, 1.7, 1.7],
    ]
)


def test_one_standard_error_on_a_table_worked_by_hand():
    mean, error = FOLDS.mean(axis=0), FOLDS.std(axis=0, ddof=1) / np.sqrt(5)

    np.testing.assert_allclose(error[:4], [0.1414, 0.1414, 0.1288, 0.1122], atol=5e-5)
    assert minimum(mean) == 1
    assert one_standard_error(mean, error) == 3


@pytest.mark.parametrize(
    ("mean", "error", "expected"),
    [
        ([2.0, 1.0, 1.5, 1.4, 2.0], [0.1, 0.5, 0.1, 0.1, 9.0], 3),  # over a rise in between; only the minimum's error
        ([2.0, 1.0, 1.5], [0.1, 0.5, 0.1], 2),  # exactly one standard error above
        ([2.0, 1.0, 1.5], [0.1, 0.0, 0.1], 1),  # no error, no choice
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], 0),  # minimum at the lower end
        ([3.0, 2.0, 1.0], [0.1, 0.1, 0.1], 2),  # minimum at the upper end
        ([1.0, 1.0, 5.0], [9.0, 0.1, 0.1], 1),  # of equal minima the last one's error counts
        ([2.0, 1.0, NAN, 1.1, INF], [0.1, 0.2, NAN, 0.1, NAN], 3),  # beyond what diverged
        ([1.0], [0.3], 0),
    ],
)
def test_one_standard_error_is_the_largest_strength_within_it(mean, error, expected):
    assert one_standard_error(np.array(mean), np.array(error)) == expected


def test_one_standard_error_needs_two_folds():
    with pytest.raises(ValueError, match="needs at least two folds. Pass cv=5"):
        one_standard_error(np.array([2.0, 1.0]), np.array([NAN, NAN]))


@given(
    arrays(float, st.integers(1, 12), elements=st.floats(-1e6, 1e6)),
    st.floats(0.0, 1e6),
)
def test_one_standard_error_is_never_below_the_minimum_nor_out_of_reach(mean, width):
    chosen = one_standard_error(mean, np.full(len(mean), width))

    assert chosen >= minimum(mean)
    assert mean[chosen] <= mean.min() + width
    assert (mean[chosen + 1 :] > mean.min() + width).all()


@given(st.floats(-1.9, 1.9), st.floats(0.01, 100.0), st.floats(-5.0, 5.0))
def test_vertex_finds_the_lowest_point_of_a_parabola_in_log_strength(center, steepness, floor):
    strengths = np.array([0.01, 0.05, 0.3, 1.0, 7.0, 100.0])
    mean = floor + steepness * (np.log10(strengths) - center) ** 2

    at = minimum(mean)
    expected = 10.0**center if 0 < at < 5 else strengths[at]
    np.testing.assert_allclose(vertex(strengths, mean), expected, rtol=1e-6)


@given(arrays(float, 5, elements=st.floats(-10, 10)))
def test_vertex_lies_between_the_neighbors_where_numpy_puts_it(mean):
    strengths = np.array([0.001, 0.01, 0.02, 0.5, 1.0])
    at = minimum(mean)
    result = vertex(strengths, mean)

    if at in (0, 4):
        assert result == strengths[at]
        return
    assert strengths[at - 1] <= result <= strengths[at + 1]
    near, rises = slice(at - 1, at + 2), mean[at - 1 : at + 2] - mean[at]
    shares = rises / rises.max()  # as large as 1, or a subnormal rise would be lost in the fit
    if shares[2] > 1e-6:
        a, b, _ = np.polyfit(np.log(strengths[near]), shares, 2)
        np.testing.assert_allclose(np.log(result), -b / (2 * a), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("strengths", "mean", "expected"),
    [
        ([0.1, 1.0, 10.0], [1.0, 2.0, 3.0], 0.1),
        ([0.1, 1.0, 10.0], [3.0, 2.0, 1.0], 10.0),
        ([0.1, 1.0, 10.0], [NAN, 2.0, 3.0], 1.0),
        ([0.1, 1.0, 10.0], [3.0, 2.0, INF], 1.0),
        ([0.0, 1.0, 10.0], [3.0, 2.0, 3.0], 1.0),
        ([0.0, 1.0, 10.0], [1.0, 2.0, 3.0], 0.0),
        ([0.1, 1.0], [2.0, 1.0], 1.0),
        ([0.5], [1.0], 0.5),
        ([0.1, 1.0, 10.0], [2.0, 1.0, 2.0], 1.0),
        ([0.1, 1.0, 10.0], [1.0, 1.0, 2.0], np.sqrt(0.1)),  # two equal minima: halfway
    ],
)
def test_vertex_is_the_grid_point_where_no_parabola_fits(strengths, mean, expected):
    np.testing.assert_allclose(vertex(np.array(strengths), np.array(mean)), expected, rtol=1e-12)


MEAN, COUNTS = np.array([1.0, 2.0, 3.0, 2.5, NAN]), np.array([10.0, 6.0, 4.0, 4.0, 0.0])


@pytest.mark.parametrize(("most", "expected"), [(100, 0), (9, 1), (6, 1), (5, 3), (4, 3)])
def test_at_most_takes_the_lowest_mean_among_those_that_read_few_enough(most, expected):
    assert at_most(MEAN, COUNTS, most) == expected


def test_at_most_names_the_fewest_that_there_are():
    with pytest.raises(ValueError, match="No strength has at most 3 inputs; the smallest number is 4. Use a larger"):
        at_most(MEAN, COUNTS, 3)


def test_at_most_takes_nothing_where_all_diverged():
    with pytest.raises(ValueError, match="At each of the 5 strengths"):
        at_most(np.full(5, NAN), COUNTS, 3)
