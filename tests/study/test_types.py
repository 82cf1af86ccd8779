"""What a user says about the type of a column holds, and columns that are set aside are listed by reason."""

import numpy as np
import pandas as pd
import pytest

from poise.study.columns.kinds import TYPES
from poise.study.columns.reading import convert_rows
from poise.study.errors import DataError
from poise.study.tables import Table, read

ROWS = 40
RANDOM = np.random.default_rng(0)
SIZE, PRICE = RANDOM.normal(size=ROWS), RANDOM.normal(size=ROWS)


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame({"size": SIZE, "price": PRICE} | columns)


def read_as(values, requested: str, name: str = "it") -> Table:
    return read(table(**{name: values}), "price", types={name: requested})


def refused(values, requested, name: str = "it") -> str:
    with pytest.raises(DataError) as error:
        read_as(values, requested, name)
    assert error.value.argument == "types"
    return str(error.value)


CASES = {
    "codes as categories": ([1, 2] * 20, "categorical", "category", ["1", "2"]),
    "many codes as categories": (range(ROWS), "categorical", "category", ["0", "1"]),
    "numbers that are missing as categories": ([1, None] * 20, "categorical", "category", ["1", None]),
    "truth values as categories": ([True, False] * 20, "categorical", "category", ["True", "False"]),
    "free text as categories": ([f"t{n}" for n in range(ROWS)], "categorical", "category", ["t0", "t1"]),
    "numbers as text": (["007", "010"] * 20, "text", "category", ["007", "010"]),
    "dates as text": (["2024-01-01", "2024-01-02"] * 20, "text", "category", ["2024-01-01", "2024-01-02"]),
    "categories as numbers": (pd.Categorical([7, 5] * 20), "numeric", "number", [7.0, 5.0]),
    "text as numbers": (["7", "5"] * 20, "numeric", "number", [7.0, 5.0]),
    "dates": (["2024-01-01", "2024-01-02"] * 20, "date", "date", [*pd.to_datetime(["2024-01-01", "2024-01-02"])]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_column_is_what_the_user_says(case) -> None:
    values, requested, kind, first = CASES[case]

    result = read_as(values, requested)

    column = result.columns[1]
    assert (column.name, column.kind) == ("it", kind)
    assert result.features["it"].astype(object).where(result.features["it"].notna(), None).tolist()[:2] == first


@pytest.mark.parametrize("case", CASES)
def test_new_rows_are_of_the_same_type(case) -> None:
    values, requested, *_ = CASES[case]
    result = read_as(values, requested)

    converted = convert_rows(table(it=values).tail(5), result.columns, "new.csv")

    pd.testing.assert_frame_equal(converted, result.features.tail(5).reset_index(drop=True))


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_texts_in_a_file_stay_as_they_are(tmp_path, ending) -> None:
    frame = table(zip=["01234", "1234", None, "00120"] * 10)
    path = tmp_path / f"sales.{ending}"
    {"csv": frame.to_csv, "xlsx": frame.to_excel}[ending](path, index=False)

    result = read(path, "price", types={"zip": "text"})

    assert result.features["zip"].tolist()[:4] == ["01234", "1234", None, "00120"]


def test_an_identifier_is_used_if_the_user_says_that_it_is_a_number() -> None:
    assert [column.kind for column in read(table(id=range(ROWS)), "price").columns] == ["number", "set aside"]
    assert [column.kind for column in read_as(range(ROWS), "numeric", "id").columns] == ["number", "number"]


@pytest.mark.parametrize("requested", TYPES)
def test_no_type_makes_a_constant_useful(requested) -> None:
    values = {"numeric": 7, "date": "2024-01-01"}.get(requested, "a")
    reason = "dropped by request" if requested == "drop" else "the same value in every row"

    assert read_as(values, requested).notes == (f"Set aside: 'it' ({reason}).",)
    if requested != "drop":
        assert read_as(None, requested).notes == ("Set aside: 'it' (no value in any row).",)


def test_free_text_stays_free_text() -> None:
    result = read_as([f"so {n} said" for n in range(ROWS)], "text")

    assert result.notes == ("Set aside: 'it' (free text or an identifier: nearly every row differs).",)


@pytest.mark.parametrize(
    ("values", "requested", "sentence"),
    [
        (["7", "many"] * 20, "numeric", "Column 'it' cannot be read as numbers, because of values such as 'many'."),
        (["2024-01-01", "soon"] * 20, "date", "Column 'it' cannot be read as dates, because of values such as 'soon'."),
        ([[1]] * ROWS, "categorical", "Column 'it' cannot be read as categories. Choose another type for it, or omit"),
        (
            [1, 2] * 20,
            "int",
            "The type of column 'it' must be one of categorical, numeric, date, text, drop, got 'int'.",
        ),
    ],
)
def test_types_that_cannot_be(values, requested, sentence) -> None:
    assert refused(values, requested).startswith(sentence)


def test_columns_that_have_no_type() -> None:
    frame = table(shop=["a", "b"] * 20)
    for types, sentence in (
        ({"prize": "numeric"}, "The table has no column 'prize'. Did you mean 'price', 'size'?"),
        (
            {"price": "categorical"},
            "Column 'price' is the target column, so its type cannot be set. Choose the task instead.",
        ),
        ({"shop": "numeric"}, "Column 'shop' is the group column, so its type cannot be set. Request no type for it."),
    ):
        with pytest.raises(DataError) as error:
            read(frame, "price", groups="shop", types=types)  # type: ignore[arg-type]
        assert str(error.value).startswith(sentence)


def test_columns_that_are_set_aside_are_listed_by_reason() -> None:
    constants = {f"c{n}": 1 for n in range(20)}

    result = read(table(**constants, id=range(ROWS), empty=None), "price", drop=["c3"])

    listed = ", ".join(f"'c{n}'" for n in (0, 1, 2, 4, 5, 6, 7, 8))
    assert result.notes == (
        f"Set aside: 19 columns (the same value in every row): {listed} and 11 more.",
        "Set aside: 'c3' (dropped by request).",
        "Set aside: 'id' (an identifier: whole numbers that increase from row to row).",
        "Set aside: 'empty' (no value in any row).",
    )


def test_texts_with_too_many_values_are_listed_together() -> None:
    texts = {name: [f"{name}{n % (600 + place)}" for n in range(1000)] for place, name in enumerate("abc")}
    frame = pd.DataFrame(texts | {"x": RANDOM.normal(size=1000), "y": RANDOM.normal(size=1000)})

    assert read(frame, "y").notes == (
        "Set aside: 3 columns (text with too many different values to learn from): 'a', 'b', 'c'.",
    )  # fmt: skip
