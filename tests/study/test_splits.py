"""No row is in two places, rows of a group stay together, and nothing trains on the future."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import model_selection

from poise.study.errors import DataError
from poise.study.splits import note_split, split_folds, split_halves, split_test_rows
from poise.study.tables import Table
from poise.study.tasks.table import make_task

ROWS = 100
random = np.random.default_rng(0)


def table(target=None, classes=(), groups=None, time=None) -> Any:
    target = random.normal(size=ROWS) if target is None else target
    return Table(
        name="made", source="made", features=pd.DataFrame({"a": np.arange(ROWS, dtype="float64")}), columns=(),
        target=pd.Series(target), task=make_task("multiclass" if classes else "regression"), classes=tuple(classes),
        groups=None if groups is None else pd.Series(groups), time=None if time is None else pd.Series(time),
        weight=None, notes=(),
    )  # fmt: skip


def split(made, count=4, seed=0, share=0.2) -> Any:
    training, testing = split_test_rows(made, share, seed)
    return training, testing, split_folds(made, training, count, seed)


LABELS = np.where(np.arange(ROWS) < 20, "rare", "common")
CASES = {
    "numbers": table(),
    "classes": table(LABELS, ("common", "rare")),
    "groups": table(groups=np.arange(ROWS) % 17),
    "groups of classes": table(LABELS, ("common", "rare"), groups=np.arange(ROWS) % 17),
    "time": table(time=random.permutation(ROWS)),
}


@pytest.mark.parametrize("case", CASES)
def test_test_rows_and_training_rows_are_all_rows(case) -> None:
    training, testing, pairs = split(CASES[case])

    assert sorted([*training, *testing]) == list(range(ROWS))
    assert len(testing) == pytest.approx(20, abs=6)
    for train, held in pairs:
        assert not set(train) & set(held)
        assert len(held) > 0
        assert max(train.max(), held.max()) < len(training)


@pytest.mark.parametrize("case", ["numbers", "classes", "groups", "groups of classes"])
def test_every_training_row_is_held_out_once(case) -> None:
    training, _, pairs = split(CASES[case])

    assert sorted(np.concatenate([held for _, held in pairs])) == list(range(len(training)))


def test_classes_are_spread_evenly() -> None:
    training, testing, pairs = split(CASES["classes"])

    for rows in (training, testing, *(training[held] for _, held in pairs)):
        assert np.mean(LABELS[rows] == "rare") == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("case", ["groups", "groups of classes"])
def test_rows_of_a_group_stay_together(case) -> None:
    groups = np.asarray(CASES[case].groups)
    training, testing, pairs = split(CASES[case])

    assert not set(groups[training]) & set(groups[testing])
    for train, held in pairs:
        assert not set(groups[training[train]]) & set(groups[training[held]])


def test_nothing_trains_on_the_future() -> None:
    time = np.asarray(CASES["time"].time)
    training, testing, pairs = split(CASES["time"])

    assert time[training].max() < time[testing].min()
    for train, held in pairs:
        assert time[training[train]].max() < time[training[held]].min()


def test_the_seed_decides() -> None:
    first, again, other = (split(CASES["numbers"], seed=seed) for seed in (0, 0, 1))

    np.testing.assert_array_equal(first[1], again[1])
    assert set(first[1]) != set(other[1])


def test_fewer_groups_than_folds_are_refused() -> None:
    with pytest.raises(DataError, match="4 folds need at least 4 groups; the training rows have 2. Use fewer folds"):
        split(table(groups=np.arange(ROWS) % 3))


def test_a_class_that_a_fold_lacks_is_named() -> None:
    labels = np.where(np.arange(ROWS) < 3, "odd", "common")
    groups = np.where(np.arange(ROWS) < 3, 0, np.arange(ROWS))

    with pytest.raises(DataError, match="has no training row of class 'odd'"):
        split(table(labels, ("common", "odd"), groups=groups))


def test_a_fold_that_trains_on_zeros_only_is_named() -> None:
    counts = replace(table(np.arange(ROWS) // 70), task=make_task("counts"))
    counts = replace(counts, groups=pd.Series(np.where(np.arange(ROWS) < 70, np.arange(ROWS), -1)))

    with pytest.raises(DataError, match="All training rows of fold 0 have the count 0, from which no count can be"):
        split_folds(counts, np.arange(ROWS), 2, 0)


@pytest.mark.parametrize(("name", "folds"), [("survival", 4), ("binary", 3)])
def test_only_classes_need_a_row_in_every_fold(name, folds) -> None:
    """Three of a hundred rows are censored, or of the rare class."""
    is_rare = np.arange(ROWS) < 3
    labels = np.where(is_rare, "rare", "common")
    made = (
        table(labels, ("common", "rare"))
        if name == "binary"
        else table(np.where(is_rare, -1.0, 1.0) * (np.arange(ROWS) + 1.0))
    )
    made = replace(made, task=make_task(name))

    pairs = split_folds(made, np.arange(ROWS), 4, 0)

    assert len(pairs) == folds
    assert sorted(np.concatenate([held for _, held in pairs])) == list(range(ROWS))
    assert sorted(int(is_rare[held].sum()) for _, held in pairs) == [0, 1, 1, 1][-folds:]


# ---------------------------------------------------------------- ties, groups in time, unequal groups


def test_rows_of_the_same_time_are_on_one_side() -> None:
    time = np.sort(np.random.default_rng(1).integers(0, 12, ROWS))
    training, testing, pairs = split(table(time=time))

    assert len(testing) == pytest.approx(20, abs=6)
    assert time[training].max() < time[testing].min()
    for train, held in pairs:
        assert time[training[train]].max() < time[training[held]].min()


def test_without_ties_folds_in_time_are_those_of_scikit_learn() -> None:
    training, _, pairs = split(table(time=np.arange(ROWS)))

    expected = [*model_selection.TimeSeriesSplit(4).split(training)]
    for number in range(4):
        np.testing.assert_array_equal(pairs[number][0], expected[number][0])
        np.testing.assert_array_equal(pairs[number][1], expected[number][1])


def test_too_few_times_are_refused() -> None:
    with pytest.raises(DataError, match="needs at least 5 distinct values in these rows, got 2"):
        split(table(time=np.arange(ROWS) // 34))


def test_groups_and_time_both_hold() -> None:
    time = np.arange(ROWS)
    groups = (time + np.random.default_rng(0).integers(0, 8, ROWS)) // 8
    made = table(groups=groups, time=time)
    training, testing, pairs = split(made)

    parts = [(training, testing), *((training[train], training[held]) for train, held in pairs)]
    for earlier, later in parts:
        assert time[earlier].max() < time[later].min()
        assert not set(groups[earlier]) & set(groups[later])
    left_out = ROWS - len(training) - len(testing)
    assert 0 < left_out < 15
    assert note_split(made, training, testing, 0.2) == [
        f"{left_out} of 100 rows are left out, because their groups have rows both before and after the first test row."
    ]


def test_groups_that_last_as_long_as_the_table_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"cannot be combined here: 80 of 80 earlier rows belong to groups that also have"
    ):
        split(table(groups=np.arange(ROWS) % 10, time=np.arange(ROWS)))


def test_unequal_groups_come_near_the_share() -> None:
    sizes = [40, 20, 10, 8, 6, 5, 4, 3, 2, 2]
    groups = np.repeat(np.arange(10), sizes)
    for seed in range(10):
        training, testing = split_test_rows(table(groups=groups), 0.2, seed)

        assert len(testing) == pytest.approx(20, abs=5)
        assert len(set(groups[training])) >= 2
        assert note_split(table(groups=groups), training, testing, 0.2) == []


def test_a_share_that_groups_do_not_allow_is_noted() -> None:
    made = table(groups=np.repeat([0, 1, 2], [34, 33, 33]))
    training, testing = split_test_rows(made, 0.6, 0)

    [sentence] = note_split(made, training, testing, 0.6)

    assert sentence.startswith(f"The share of test rows is {len(testing)}% instead of 60%, because rows of the same")


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_two_groups_are_refused(share) -> None:
    with pytest.raises(
        DataError, match="has 2 groups, and a study needs at least 3: one for the test rows and two for"
    ):
        split(table(groups=np.arange(ROWS) % 2), share=share)


@pytest.mark.parametrize("case", ["numbers", "classes", "groups", "groups of classes"])
def test_halves_are_complementary_and_keep_units_together(case) -> None:
    table, training = CASES[case], np.arange(0, ROWS, 2)

    pairs = split_halves(table, training, 6, seed=3)

    assert len(pairs) == 12
    assert len({tuple(half) for half, _ in pairs}) == 12
    for (half, other), (again, reverse) in zip(pairs[::2], pairs[1::2], strict=True):
        np.testing.assert_array_equal([*half, *other], [*reverse, *again])
        assert sorted([*half, *other]) == list(range(50))
        if table.groups is None:
            assert len(half) == 25
        else:
            groups = table.groups.to_numpy()[training]
            assert not set(groups[half]) & set(groups[other])
        if case == "classes":
            assert abs(int((LABELS[training][half] == "rare").sum()) - 5) <= 1
