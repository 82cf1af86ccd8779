"""Rows with equal features are found, said, and kept together; leaks are judged without them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from poise.study.splits import split_folds, split_test_rows
from poise.study.tables import Table, read

TOGETHER = "Rows with the same features are kept together, in the test rows or in one fold."


def noise(rows: int = 80) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(random.normal(size=(rows, 4)), columns=list("abcy"))


def repeated(times: int = 5, **columns) -> pd.DataFrame:
    """Noise with every row several times, in random order."""
    frame = noise().assign(**columns)
    return pd.concat([frame] * times).sample(frac=1.0, random_state=0)


def parts(table: Table, count: int = 4, share: float = 0.2) -> list[tuple[set, set]]:
    """The rows, as tuples of features, on both sides of the test split and of every fold."""
    training, testing = split_test_rows(table, share, 0)
    pairs = [(training, testing)]
    pairs += [(training[train], training[held]) for train, held in split_folds(table, training, count, 0)]
    rows = [tuple(row) for row in table.features.to_numpy()]
    return [({rows[n] for n in one}, {rows[n] for n in other}) for one, other in pairs]


def test_exact_copies_are_noted_and_tell_no_leak() -> None:
    assert read(repeated(), "y").notes == (
        f"320 of 400 rows have the same features as an earlier row. All of these have the same target as well. {TOGETHER}",
    )
    assert read(noise(), "y").notes == ()


def test_rows_with_equal_features_and_other_targets_are_noted() -> None:
    frame = repeated(2)
    frame.iloc[:30, 3] += 1.0

    [sentence] = read(frame, "y").notes

    assert sentence.startswith("80 of 160 rows have the same features as an earlier row. Of these, ")
    assert sentence.endswith(f" have the same target as well. {TOGETHER}")


@pytest.mark.parametrize(
    "frame", [repeated(), repeated(2), repeated(3, y=np.arange(80) % 2)], ids=["5", "2", "classes"]
)
def test_copies_are_on_one_side_of_every_split(frame: pd.DataFrame) -> None:
    table = read(frame, "y")
    _, testing = split_test_rows(table, 0.2, 0)

    assert len(testing) == 0.2 * len(frame)
    for one, other in parts(table):
        assert one
        assert other
        assert not one & other


def test_copies_of_missing_values_and_text_are_copies() -> None:
    colors = ["red" if number % 3 else None for number in range(80)]
    frame = repeated(2, color=colors, a=np.where(np.arange(80) % 4, np.nan, 1.5))

    assert read(frame, "y").notes[0].startswith("80 of 160 rows have the same features")


def test_a_leak_is_found_among_copies() -> None:
    table = read(repeated().assign(copy=lambda frame: 3.0 * frame["y"]), "y")

    assert [note for note in table.notes if "determines" in note] == [
        "Column 'copy' determines the target 'y' almost exactly. This looks like a leak; consider dropping the column."
    ]


def test_columns_with_few_values_do_not_hold_rows_together() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"town": random.choice(list("abcdefgh"), 200), "y": random.normal(size=200)})

    table = read(frame, "y")

    assert table.copies is None
    assert table.notes == (
        "192 of 200 rows have the same features as an earlier row. They do not stay together, because the columns have "
        "few values.",
    )


def test_copies_join_groups() -> None:
    frame = noise().assign(group=np.arange(80) // 2)
    frame = pd.concat([frame, frame.iloc[:4].assign(group=lambda rows: rows["group"] + 20)])

    table = read(frame, "y", groups="group")

    units: Any = table.units
    groups = np.asarray(table.groups)
    assert units.max() + 1 == 40 - 2
    assert all(len(set(units[groups == group])) == 1 for group in set(groups))
    assert all(not one & other for one, other in parts(table))


def test_copies_in_many_groups_do_not_join_them() -> None:
    frame = pd.concat([noise(40).assign(group=n) for n in range(6)])

    table = read(frame, "y", groups="group")

    assert table.copies is None
    assert table.notes[0].endswith("They do not stay together, because that would merge too many groups.")


def test_copies_are_split_by_time() -> None:
    frame = pd.concat([noise().assign(day=n) for n in range(3)])

    table = read(frame, "y", time="day")

    assert table.copies is None
    assert [note.rpartition(". ")[2] for note in table.notes] == [
        "They do not stay together, because rows are split by time."
    ]
