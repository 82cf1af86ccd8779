"""A found grid spans from where the penalty begins to matter to where nothing is left."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, optimizers
from oracles.models import diabetes, linear

import poise
from poise.path.grid import SPANS, decade_below, find_grid
from poise.path.training import Lanes, Replica, Training

from .runners import runner_of

x, y = diabetes()
ROWS = np.arange(len(y))
CRITICAL = 2 * np.abs(x.T @ y).max() / len(y)
FULL = Training(epochs=0, batch_size=None, settle=100)


def runner_for(model, rules, data=(x, y[:, None]), update: Any = "proximal", optimizer=None) -> Any:
    model.compile(optimizer or optimizers.Adam(0.05), "mse")
    training = Training(epochs=0, batch_size=None, settle=100, update=update)
    return runner_of(model, rules, (*data, None), [Replica(-1, 0, ROWS, ROWS[:0])], training)


def assert_geometric(grid, count) -> None:
    assert grid.shape == (count,)
    assert (np.diff(grid) > 0).all()
    np.testing.assert_allclose(grid[1:] / grid[:-1], grid[1] / grid[0], rtol=1e-9)


def test_top_of_the_lasso_is_a_little_above_the_critical_strength() -> None:
    grid = find_grid(runner_for(linear(10), poise.L1()), 20)
    assert_geometric(grid, 20)
    assert CRITICAL <= grid[-1] <= 4 * CRITICAL
    assert SPANS[0] - 1e-9 <= np.log10(grid[-1] / grid[0]) <= SPANS[1] + 1e-9


def test_top_counts_in_units_of_the_first_rule() -> None:
    net = keras.Sequential([keras.Input((10,)), layers.Dense(4, name="hidden"), layers.Dense(1, name="head")])
    rules = [poise.Rule("hidden/kernel", poise.L1(2.0)), poise.Rule("head/kernel", poise.L1(0.2))]
    grid = find_grid(runner_for(net, rules), 5)
    strong = runner_for(net, rules).run(grid[-1:], training=Training(epochs=0, batch_size=None, settle=400))
    assert strong.table["is_empty"].tolist() == [True]


@pytest.mark.parametrize("update", ["proximal", "coupled"])
def test_grid_of_a_smooth_penalty_ends_where_the_loss_is_that_of_nothing(update) -> None:
    grid = find_grid(runner_for(linear(10), poise.L2(), update=update, optimizer=optimizers.Adam(0.02)), 7)
    assert_geometric(grid, 7)
    # mean squares + s‖w‖²: with s as large as the largest eigenvalue half of the weight is gone.
    largest = np.linalg.eigvalsh(x.T @ x / len(y)).max()
    assert largest < grid[-1] < 1e3 * largest
    assert SPANS[0] - 1e-9 <= np.log10(grid[-1] / grid[0]) <= SPANS[1] + 1e-9


def test_one_strength_is_the_top() -> None:
    several, each = (find_grid(runner_for(linear(10), poise.L1()), count) for count in (3, 1))
    np.testing.assert_allclose(each, several[-1:])


def test_everything_diverged_is_an_error() -> None:
    far = optimizers.SGD(1e6)
    with pytest.raises(ValueError, match=r"^Training diverged at every strength from 1e-06 to 1000\. Lower the"):
        find_grid(runner_for(linear(10), poise.L2(), update="coupled", optimizer=far), 5)


def scanned(**columns) -> Any:
    """A runner whose scan finds these columns at its strengths."""

    def run(strengths, factors, **_) -> Any:
        table = pd.DataFrame({"loss": 1.0, "diverged": False, "is_empty": False}, index=range(len(strengths)))
        for name, of in columns.items():
            table[name] = of(strengths)
        return Lanes(table)

    return SimpleNamespace(run=run, replicas=[Replica(-1, 0, ROWS, ROWS[:0])], training=FULL)


def test_bottom_is_where_the_penalty_starts_to_matter() -> None:
    grid = find_grid(
        scanned(loss=lambda s: np.where(s < 0.02, 1.0, np.where(s < 5, 1.5, 2.0)), is_empty=lambda s: s > 5), 9
    )
    assert 5 < grid[-1] < 5 * 10**0.5 * 1.3
    assert 0.02 / 10**0.5 < grid[0] < 0.02


def test_spans_are_bounded() -> None:
    narrow = find_grid(scanned(loss=lambda s: 1.0 + (s > 1), is_empty=lambda s: s > 1), 9)
    wide = find_grid(scanned(loss=lambda s: np.log10(s) + 7, is_empty=lambda s: s > 100), 9)
    np.testing.assert_allclose([narrow[-1] / narrow[0], wide[-1] / wide[0]], [10 ** SPANS[0], 10 ** SPANS[1]])


def test_lanes_that_diverged_are_left_out() -> None:
    result = scanned(
        loss=lambda s: np.where(s > 10, np.nan, 1.0 + (s > 1)), is_empty=lambda s: s > 1, diverged=lambda s: s > 10
    )
    assert 1 < find_grid(result, 3)[-1] < 10


def test_a_penalty_that_does_nothing_has_a_grid_still() -> None:
    assert_geometric(find_grid(scanned(), 4), 4)


def test_below_is_a_decade_of_the_same_spacing() -> None:
    grid = np.geomspace(0.1, 10.0, 9)
    more = decade_below(grid)
    assert_geometric(np.concatenate([more, grid]), 13)
    np.testing.assert_allclose(more[0], 0.01)
    assert_geometric(np.concatenate([decade_below(np.array([1.0, 1000.0])), [1.0]]), 2)
