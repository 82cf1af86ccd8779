"""Which columns the hidden layers of a wide table read: those of the strongest columns and pairs, per fold."""

from typing import Any

import numpy as np
import pytest

from poise.path.training import Replica
from poise.study.candidates import screening
from poise.study.candidates.screening import MOST_COLUMNS, choose_hidden_columns, screen_columns

COLUMNS = 200
ONES = np.ones(800)


def values(rows=800, columns=COLUMNS, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype("float32")


def standardized(y: np.ndarray) -> np.ndarray:
    return ((y - y.mean()) / y.std())[:, None]


def test_a_pair_without_effects_of_its_columns_is_found() -> None:
    x = values(seed=3)
    y = np.sign(x[:, 70] * x[:, 150])

    kept = screen_columns(x, y[:, None], ONES, np.arange(COLUMNS), np.zeros(COLUMNS, bool))

    own = np.square(x.T @ standardized(y))[:, 0]
    assert (own > own[[70, 150]].max()).sum() > MOST_COLUMNS  # by themselves, they would not be among the best
    assert kept[[70, 150]].all()
    assert MOST_COLUMNS - 1 <= kept.sum() <= MOST_COLUMNS


def test_half_of_the_columns_are_those_with_the_largest_correlations() -> None:
    x = values(seed=1)
    y = x[:, :10].sum(axis=1) + x[:, 20] * x[:, 30]
    correlation = np.abs(np.corrcoef(x.T, y)[-1, :-1])

    kept = screen_columns(np.clip(x, -3, 3), y[:, None], ONES, np.arange(COLUMNS), np.zeros(COLUMNS, bool))

    assert kept[np.argsort(-correlation)[: MOST_COLUMNS // 2 - 4]].all()


def test_the_pairs_are_those_of_all_products(monkeypatch) -> None:
    monkeypatch.setattr(screening, "BLOCK", 7)
    x, y = values(columns=40), standardized(values(columns=1, seed=5)[:, 0])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    owners = np.arange(40)

    ranked = screening._rank_pairs(x, y, owners)

    scores = {(i, j): float(((x[:, i] * x[:, j]) @ y[:, 0]) ** 2) for i in range(40) for j in range(i + 1, 40)}
    expected = sorted(scores, key=lambda pair: -scores[pair])[:50]
    assert [tuple(pair.tolist()) for pair, _ in zip(ranked, range(50), strict=False)] == expected


def test_pieces_show_columns_whose_effect_is_symmetric() -> None:
    """The second value of a column with pieces is a square of its rank."""
    x = values(columns=100, seed=2)
    pieces = np.repeat(x[:, [99]], 2, axis=1)
    columns = np.concatenate([np.arange(100), [99, 99]])
    is_piece = np.arange(102) >= 100
    y = x[:, 99] ** 2 * x[:, 98]  # without the square of the rank, neither is correlated with y in a pair

    kept = screen_columns(np.concatenate([x, pieces], axis=1), y[:, None], ONES, columns, is_piece)

    assert kept[[98, 99]].all()


def test_every_replica_is_screened_by_its_own_training_rows() -> None:
    x = values()
    y = np.where(np.arange(len(x)) < 400, x[:, 3] * x[:, 4], x[:, 5] * x[:, 6])
    first, second = np.arange(400), np.arange(400, 800)
    replicas = [Replica(0, 0, first, second), Replica(-1, 0, second, second[:0])]
    names = [f"x{number}" for number in range(COLUMNS)]

    hidden = choose_hidden_columns(x, y[:, None], None, replicas, names, np.zeros(COLUMNS, bool), 0)

    place = {column: number for number, column in enumerate(hidden.inputs.tolist())}
    assert not hidden.held[0, [place[3], place[4]]].any()
    assert not hidden.held[1, [place[5], place[6]]].any()
    assert (~hidden.held).sum(axis=1).max() <= MOST_COLUMNS
    changed = y.copy()
    changed[second] = 0.0
    again = choose_hidden_columns(x, changed[:, None], None, replicas[:1], names, np.zeros(COLUMNS, bool), 0)
    assert set(again.inputs) == set(hidden.inputs[~hidden.held[0]])


def test_a_small_table_is_not_screened() -> None:
    x = values(columns=MOST_COLUMNS)
    replicas = [Replica(0, 0, np.arange(400), np.arange(400, 800))]
    hidden = choose_hidden_columns(x, x[:, :1], None, replicas, [*map(str, range(64))], np.zeros(64, bool), 0)

    assert hidden.inputs.tolist() == [*range(64)]
    assert not hidden.held.any()


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_targets(classes) -> None:
    x = values()
    score: Any = x[:, 10] * x[:, 20]
    y = np.digitize(score, np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]))
    y = y.astype("float32")[:, None] if classes == 2 else y.astype("int32")
    replicas = [Replica(0, 0, np.arange(600), np.arange(600, 800))]
    hidden = choose_hidden_columns(x, y, None, replicas, [*map(str, range(COLUMNS))], np.zeros(COLUMNS, bool), classes)

    assert {10, 20} <= set(hidden.inputs)


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    x = values(rows=300)
    y = x[:, 3] * x[:, 9] + x[:, 5] + np.random.default_rng(0).normal(size=300)
    times = np.random.default_rng(1).integers(1, 4, 300)
    columns, is_piece = np.arange(COLUMNS), np.zeros(COLUMNS, bool)

    weighted = screen_columns(x, y[:, None], 0.5 * times, columns, is_piece)
    rows = np.repeat(np.arange(300), times)
    repeated = screen_columns(x[rows], y[rows, None], np.ones(len(rows)), columns, is_piece)

    np.testing.assert_array_equal(weighted, repeated)


def test_a_penalty_that_drops_no_column_does_not_screen() -> None:
    x = values()
    replicas = [Replica(0, 0, np.arange(400), np.arange(400, 800))]
    names = [*map(str, range(COLUMNS))]
    hidden = choose_hidden_columns(x, x[:, :1], None, replicas, names, np.zeros(COLUMNS, bool), 0, is_screened=False)

    assert len(hidden.inputs) == COLUMNS
