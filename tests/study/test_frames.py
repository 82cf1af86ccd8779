"""Tables in memory and Parquet files of other libraries are the same tables as those of pandas."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
from pyarrow import parquet

from poise.study.columns.reading import convert_rows
from poise.study.errors import DataError
from poise.study.frames import to_frame
from poise.study.sources import take_frame
from poise.study.tables import read

ROWS = 40
RANDOM = np.random.default_rng(0)
DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(ROWS)]
PLAIN: dict[str, list] = {
    "size": RANDOM.normal(size=ROWS).tolist(),
    "count": [None, 2, 5, 7] * 10,
    "paid": [True, False, None, True] * 10,
    "color": ["red", "green", None, "red"] * 10,
    "day": [None, *DAYS[1:]],
    "price": RANDOM.normal(size=ROWS).tolist(),
}
NESTED: dict[str, list] = {"tags": [[1, 2], [], None, [3]] * 10, "place": [{"a": n, "b": "x"} for n in range(ROWS)]}
KINDS = {"size": "number", "count": "number", "paid": "number", "color": "category", "day": "date"}


def polars_frame(columns: dict[str, list]) -> Any:
    return polars.DataFrame(columns)


SOURCES: dict[str, Any] = {
    "pandas": pd.DataFrame,
    "pandas with types of Arrow": lambda columns: pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype),
    "Arrow": pa.table,
    "polars": polars_frame,
    "lazy polars": lambda columns: polars_frame(columns).lazy(),
}


@pytest.mark.parametrize("library", SOURCES)
def test_tables_of_every_library_are_the_same(library) -> None:
    result, plain = read(SOURCES[library](PLAIN), "price"), read(pd.DataFrame(PLAIN), "price")

    assert {column.name: column.kind for column in result.columns} == KINDS
    assert (result.name, result.source) == (plain.name, "")
    pd.testing.assert_frame_equal(result.features, plain.features)
    assert (result.target.to_numpy() == plain.target.to_numpy()).all()


@pytest.mark.parametrize("library", SOURCES)
def test_lists_and_structs_are_set_aside(library) -> None:
    result = read(SOURCES[library](PLAIN | NESTED), "price")

    assert {column.name: column.kind for column in result.columns} == KINDS | dict.fromkeys(NESTED, "set aside")
    assert result.notes == (
        "Set aside: 2 columns (values that are neither numbers, text nor dates): 'tags', 'place'.",
    )  # fmt: skip


@pytest.mark.parametrize("library", SOURCES)
@pytest.mark.parametrize("role", ["target", "groups", "time", "weight"])
@pytest.mark.parametrize("column", NESTED)
def test_lists_and_structs_have_no_role(library, role, column) -> None:
    columns = PLAIN | {name: [value or [0] for value in values] for name, values in NESTED.items()}
    roles: dict[str, Any] = {"target": "price"} | {role: column}

    with pytest.raises(DataError, match=f"(?i){role.removesuffix('s')}.* '{column}'") as error:
        read(SOURCES[library](columns), **roles)

    assert error.value.argument == role


@pytest.mark.parametrize("library", SOURCES)
def test_new_rows(library) -> None:
    result = read(pd.DataFrame(PLAIN), "price")
    new = {name: values[1:3] for name, values in (PLAIN | NESTED).items()}

    converted = convert_rows(take_frame(SOURCES[library](new)), result.columns, "The table of new rows")

    pd.testing.assert_frame_equal(converted, result.features.iloc[1:3].reset_index(drop=True))


@pytest.mark.parametrize("stored_types", [False, True])
def test_parquet(tmp_path, stored_types) -> None:
    table = pa.table(PLAIN | NESTED)
    if stored_types:  # in its metadata, as pandas does
        table = pa.Table.from_pandas(table.to_pandas(types_mapper=pd.ArrowDtype))
        assert b"list<" in table.schema.metadata[b"pandas"]
    parquet.write_table(table, tmp_path / "sales.parquet")

    result = read(tmp_path / "sales.parquet", "price")

    assert {column.name: column.kind for column in result.columns} == KINDS | dict.fromkeys(NESTED, "set aside")
    assert result.features["day"].tolist()[1] == pd.Timestamp("2024-01-02")
    pd.testing.assert_frame_equal(result.features, read(pd.DataFrame(PLAIN), "price").features)


@pytest.mark.parametrize("index", [pd.RangeIndex(ROWS), pd.Index(DAYS, name="when"), pd.Index(range(1, ROWS + 1))])
def test_the_index_of_pandas_is_no_column(tmp_path, index) -> None:
    frame = pd.DataFrame(PLAIN).set_index(index)
    frame.to_parquet(tmp_path / "sales.parquet")

    for source in (tmp_path / "sales.parquet", frame, pa.Table.from_pandas(frame)):
        assert {column.name for column in read(source, "price").columns} == {*KINDS}


def test_a_frame_keeps_its_index_and_its_types() -> None:
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="int64[pyarrow]"), "b": [1, 2]}, index=[7, 7])

    converted = to_frame(frame)

    assert converted is not None
    assert converted.index.tolist() == [7, 7]
    assert [str(dtype) for dtype in converted.dtypes] == ["float64", "int64"]
    assert [str(dtype) for dtype in frame.dtypes] == ["int64[pyarrow]", "int64"]


def test_equal_names_are_refused() -> None:
    for source in (pa.table([[1], [2]], names=["a", "a"]), pd.DataFrame([[1, 2]], columns=["a", "a"])):
        with pytest.raises(DataError, match="Give each column a unique name."):
            read(source, "a")


@pytest.mark.parametrize("thing", [3, None, [1, 2], {"a": [1]}, np.zeros((2, 2))])
def test_what_is_no_table(thing) -> None:
    with pytest.raises(DataError, match=f"a DataFrame or an Arrow table, got an object of type {type(thing).__name__}"):
        read(thing, "price")
