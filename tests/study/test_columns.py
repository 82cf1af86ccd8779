"""Every kind of column keeps the same promises. A new kind adds one row to `CASES`."""

import io
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import skops.io

from poise.study.columns.base import RawColumn
from poise.study.columns.encoding import Encoder
from poise.study.columns.kinds import KINDS, kind_named
from poise.study.columns.reading import convert_rows, read_columns
from poise.study.columns.text_rules import TextRules
from poise.study.errors import DataError
from poise.study.loading import TRUSTED

DATES = ["2024-01-31", "2024-02-29", None, "2025-12-01"]


class Case(NamedTuple):
    """A column of a kind.

    Args:
        values: Values of four rows, one of them missing.
        unexpected: A value that new rows must not hold.
        inputs: The names of its inputs if the column is named "it".
    """

    values: list[Any]
    unexpected: object
    inputs: tuple[str, ...]


CASES = {
    "number": Case([1.5, 2.5, None, 4.0], "large", ("it", "it missing")),
    "date": Case(DATES, "never", (*(f"it {part}" for part in ("year", "month", "day", "weekday", "days", "missing")),)),
    "category": Case(["red", "green", None, "red"], [1], ("it=green", "it=red", "it=(missing)")),
}


def read_frame(values: list[Any]) -> tuple[pd.DataFrame, Any, pd.DataFrame]:
    """The frame of a case, its column, and its features."""
    frame = pd.DataFrame({"it": pd.Series(values * 10, dtype=object)})
    columns, features, _ = read_columns(frame, ["it"], set(), TextRules())
    return frame, columns[0], pd.DataFrame(features)


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == {kind.name for kind in KINDS}
    assert all(kind_named(kind.name) is kind for kind in KINDS)


@pytest.mark.parametrize("name", CASES)
class TestKind:
    def test_it_is_detected_and_counts_missing_values(self, name) -> None:
        _, column, features = read_frame(CASES[name].values)

        assert (column.kind, column.is_used, column.missing) == (name, True, 10)
        assert features["it"].isna().sum() == 10

    def test_new_rows_are_read_the_same_way_after_csv(self, name) -> None:
        frame, column, features = read_frame(CASES[name].values)

        again = pd.read_csv(io.StringIO(frame.to_csv(index=False)))

        pd.testing.assert_frame_equal(convert_rows(again, [column], "new.csv"), features)
        pd.testing.assert_frame_equal(
            convert_rows(frame.tail(3), [column], "new.csv"), features.tail(3).set_axis(range(3))
        )

    def test_unexpected_values_are_refused(self, name) -> None:
        _, column, _ = read_frame(CASES[name].values)
        frame = pd.DataFrame({"it": pd.Series([CASES[name].unexpected], dtype=object)})

        with pytest.raises(DataError, match=f"'it' must hold {kind_named(name).plural}, as in the training data, got"):
            convert_rows(frame, [column], "new.csv")

    def test_it_becomes_finite_inputs_that_are_named(self, name) -> None:
        _, column, features = read_frame(CASES[name].values)
        encoder = Encoder([column]).fit(features)

        missing = pd.DataFrame({"it": kind_named(name).missing_values(2).astype(features["it"].dtype)})
        x = encoder.transform(pd.concat([features, missing]))

        assert encoder.inputs == CASES[name].inputs
        assert encoder.owners == ("it",) * len(encoder.inputs)
        assert x.shape == (42, len(encoder.inputs))
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x[2], x[-1])

    def test_a_constant_is_set_aside(self, name) -> None:
        assert read_frame(CASES[name].values[:1] * 4)[1].note == "the same value in every row"

    def test_it_is_saved_without_pickles(self, name) -> None:
        _, column, features = read_frame(CASES[name].values)
        encoder = Encoder([column]).fit(features)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of skops itself
            saved = skops.io.dumps(encoder)
            loaded = skops.io.loads(saved, trusted=list(TRUSTED))

        np.testing.assert_array_equal(loaded.transform(features), encoder.transform(features))


def test_lists_are_not_text() -> None:
    assert RawColumn(pd.Series([[1], [2]])).texts is None
