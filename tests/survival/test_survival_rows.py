"""The parts of rows in the partial likelihood and the concordance index: their sums, and what a row contributes."""

import numpy as np
import pytest
from oracles.survival import draw_survival, negative_partial_log_likelihood

import poise
from poise.survival import rows
from poise.survival.rows import row_losses, wrong_pairs

x, y, _ = draw_survival(80)
times, events = y[:, 0], y[:, 1] == 1
eta = x[:, 0]
ones = np.ones(80)
STEP = 1e-5


def test_losses_add_up_to_the_partial_likelihood() -> None:
    several = np.stack([eta, 3 * eta, 0 * eta])[:, None]
    losses = row_losses(times, events, several)
    assert losses.shape == (3, 1, 80)
    for number in range(3):
        expected = negative_partial_log_likelihood(y, several[number, 0], ones, "breslow")
        assert losses[number, 0].sum() == pytest.approx(expected, rel=1e-12)


def test_weighted_losses_add_up_to_the_weighted_partial_likelihood() -> None:
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 80)
    weight /= weight.mean()
    expected = negative_partial_log_likelihood(y, eta, weight, "breslow")
    assert weight @ row_losses(times, events, eta, weight) == pytest.approx(expected, rel=1e-12)


def test_loss_of_a_row_is_its_influence_on_the_partial_likelihood() -> None:
    """It is the derivative by the weight of the row, minus 1 for an event."""

    def negative(weights: np.ndarray) -> float:
        # The definition divides the weights of risk sets by their mean.
        shift = (weights * events).sum() * np.log(weights.mean())
        return negative_partial_log_likelihood(y, eta, weights, "breslow") + shift

    for row in (0, 7, 33):
        move = STEP * (np.arange(80) == row)
        slope = (negative(ones + move) - negative(ones - move)) / (2 * STEP)
        assert row_losses(times, events, eta)[row] == pytest.approx(slope - events[row], abs=1e-6)


def test_wrong_pairs_add_up_to_those_of_the_concordance_index() -> None:
    rounded = np.round(eta, 1)
    wrong, half = wrong_pairs(times, events, np.stack([rounded, np.zeros(80)]))
    assert 1 - 0.5 * wrong.sum() / half.sum() == pytest.approx(poise.concordance_index(y, rounded), rel=1e-12)


def test_weighted_wrong_pairs_add_up_to_those_of_the_weighted_index() -> None:
    rounded, weight = np.round(eta, 1), np.random.default_rng(0).uniform(0.5, 2.0, 80)
    wrong, half = (weight @ wrong_pairs(times, events, each, weight) for each in (rounded, np.zeros(80)))
    assert 1 - 0.5 * wrong / half == pytest.approx(poise.concordance_index(y, rounded, weight), rel=1e-12)


def test_wrong_pairs_of_a_row_are_its_influence() -> None:
    """Without a row, its wrong pairs are missing."""
    wrong = wrong_pairs(times, events, eta)
    total = wrong.sum()
    for row in (0, 7, 33):
        left = np.arange(80) != row
        missing = total - wrong_pairs(times[left], events[left], eta[left]).sum()
        assert wrong[row] + total / 80 == pytest.approx(missing, rel=1e-12)


def test_sampled_pairs_are_close_to_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = draw_survival(600)
    arguments = y[:, 0], y[:, 1] == 1, x[:, 0]
    expected = wrong_pairs(*arguments).sum()
    monkeypatch.setattr(rows, "BLOCK", 600 * 50)
    assert wrong_pairs(*arguments).sum() == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(rows, "MOST_PAIRS", 600 * 300)
    assert wrong_pairs(*arguments).sum() == pytest.approx(expected, rel=0.1)


def test_bootstrap_of_parts_has_the_spread_of_the_index() -> None:
    """The spread over new samples is that of the bootstrap of one sample, in the mean over samples."""
    values, spreads = [], []
    for seed in range(200):
        x, y, _ = draw_survival(100, seed=seed)
        wrong, half = wrong_pairs(y[:, 0], y[:, 1] == 1, np.stack([x[:, 0], np.zeros(100)]))
        values.append(1 - 0.5 * wrong.sum() / half.sum())
        counts = np.random.default_rng(seed).multinomial(100, np.full(100, 0.01), size=100)
        spreads.append((1 - 0.5 * (counts @ wrong) / (counts @ half)).std())
    assert np.mean(spreads) == pytest.approx(np.std(values), rel=0.15)
