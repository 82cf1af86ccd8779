"""The values of messy tables: decimal marks, dates, missing values and labels mean the same in every file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poise.study.columns.base import Column
from poise.study.columns.number_text import parse_number, parse_plain_numbers
from poise.study.columns.reading import convert_rows
from poise.study.errors import DataError
from poise.study.result import Study
from poise.study.run import run_study
from poise.study.sources import load
from poise.study.tables import Table, read

ROWS = 40
NUMBERS = np.random.default_rng(0).normal(size=ROWS)
FAST: dict[str, Any] = {"penalties": ["l2"], "max_iter": 2, "strengths": 3, "cv": 2, "hidden_layer_sizes": ()}


def write(folder: Path, columns: dict[str, Any], delimiter: str = ";", name: str = "table.csv") -> Path:
    """Write columns as they are, repeated to forty rows."""
    repeated = {key: [values[n % len(values)] for n in range(ROWS)] for key, values in columns.items()}
    lines = [delimiter.join(map(str, row)) for row in zip(*repeated.values(), strict=True)]
    (folder / name).write_text("\n".join([delimiter.join(columns), *lines]) + "\n", encoding="utf-8")
    return folder / name


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"size": NUMBERS, "price": NUMBERS[::-1]} | columns)


def column(table: Table, name: str = "it") -> Column:
    return next(column for column in table.columns if column.name == name)


def first(table: Table, name: str = "it", count: int = 3) -> list[Any]:
    return table.features[name].head(count).tolist()


# ---------------------------------------------------------------- the decimal mark

GROUPED = ["250", "1.000", "12.500"]


def test_one_decimal_comma_makes_the_points_of_all_columns_thousands_marks(tmp_path) -> None:
    table = read(write(tmp_path, {"it": GROUPED, "x": ["0,13", "-0,5"], "y": ["3,5", "4,25", "7"]}), "y")

    assert first(table) == [250.0, 1000.0, 12500.0]
    assert first(table, "x", 2) == [0.13, -0.5]
    assert table.target.to_numpy()[:3].tolist() == [3.5, 4.25, 7.0]


def test_the_target_has_the_decimal_mark_of_the_table(tmp_path) -> None:
    table = read(write(tmp_path, {"x": ["0,13", "-0,5"], "y": GROUPED}), "y", task="regression")

    assert table.target.to_numpy()[:3].tolist() == [250.0, 1000.0, 12500.0]


def test_the_mark_is_found_although_it_comes_late(tmp_path) -> None:
    texts = [f"1.{n:03}" for n in range(400)] + ["0,5"]
    path = tmp_path / "table.csv"
    path.write_text("it;y\n" + "".join(f"{text};{n}\n" for n, text in enumerate(texts)))

    assert first(read(path, "y")) == [1000.0, 1001.0, 1002.0]


@pytest.mark.parametrize(("text", "number"), [("1.234", 1.234), ("1,234", 1234.0)])
def test_the_point_is_assumed_if_no_number_shows_the_mark(tmp_path, text, number) -> None:
    table = read(write(tmp_path, {"it": [text, "7", "12"], "y": [1, 2, 3, 4]}), "y")

    assert first(table, count=1) == [number]
    assert table.notes[0] == (
        "No number shows whether the decimal mark is a point or a comma. The point was assumed: "
        f"{text!r} is {number:.12g}."
    )


@pytest.mark.parametrize(("decimal", "number"), [(",", 1000.0), (".", 1.0)])
def test_a_given_mark_overrides(tmp_path, decimal, number) -> None:
    table = read(write(tmp_path, {"it": ["1.000", "2.000"], "y": [1, 2, 3, 4]}), "y", decimal=decimal)

    assert first(table, count=1) == [number]
    assert not any("decimal mark" in note for note in table.notes)


def test_a_column_that_only_the_other_mark_can_read(tmp_path) -> None:
    table = read(write(tmp_path, {"it": ["52.52", "1.250"], "x": ["0,5", "2,25", "1,75"], "y": [1, 2, 3]}), "y")

    assert first(table, count=2) == [52.52, 1.25]
    assert column(table).note == "numbers with a decimal point, unlike other columns"


def test_numbers_that_are_not_text_have_a_point() -> None:
    table = read(frame(it=pd.Series([1.125, "3,5"] * 20, dtype=object)), "price")

    assert first(table, count=2) == [1.125, 3.5]


def test_new_rows_have_the_mark_of_the_study(tmp_path) -> None:
    y = [f"{1 + n / 100:g}".replace(".", ",") for n in range(ROWS)]
    texts = [f"{1 + 7 * n % ROWS}.145,00" for n in range(ROWS)]
    study = run_study(write(tmp_path, {"sales": texts, "n": [3 * n % ROWS for n in range(ROWS)], "y": y}), "y", **FAST)
    study.save(tmp_path / "run")

    new = write(tmp_path, {"sales": ["4.000"], "n": [3]}, name="new.csv")
    same = pd.DataFrame({"sales": [4000.0] * ROWS, "n": [3] * ROWS})

    pd.testing.assert_frame_equal(Study.load(tmp_path / "run").predict(new), study.predict(same))
    assert study.description["data"]["columns"][0]["text_format"] == ","


def test_new_rows_with_another_mark_are_read_by_their_own(tmp_path) -> None:
    table = read(write(tmp_path, {"it": ["0,5", "1,25"], "x": ["1.000"], "y": [1, 2, 3]}), "y", drop=["x"])
    name, _, rows = load(write(tmp_path, {"it": ["0.5", "1.250"]}, name="new.csv"))

    assert convert_rows(rows, table.columns, name)["it"].tolist()[:2] == [0.5, 1.25]
    with pytest.raises(DataError, match="column 'it' must hold numbers, as in the training data, got '0,5'"):
        convert_rows(pd.DataFrame({"it": ["0,5", "0.5"]}), table.columns, name, decimal=".")


TEXTS = {
    ".": {
        "$1,234": 1234.0, "-$1,234.50": -1234.5, "$-5": -5.0, "12.5%": 12.5, "12.5 %": 12.5, "(1,234)": -1234.0,
        "($1,234.50)": -1234.5, "\u22123.5": -3.5, "1'234.5": 1234.5, "1’234": 1234.0, "1\u00a0234.5": 1234.5,
        "1\u202f234": 1234.0, "£ 5": 5.0, "+5": 5.0, ".5": 0.5, "5.": 5.0, "1e-3": 0.001, "1,234,567": 1234567.0,
        "007": 7.0,
    },
    ",": {"€ 1.234,50": 1234.5, "1.234,50\u00a0€": 1234.5, "12,5%": 12.5, "1\u202f234,5": 1234.5, "(1.234)": -1234.0},
}  # fmt: skip


@pytest.mark.parametrize(("decimal", "text"), [(mark, text) for mark, texts in TEXTS.items() for text in texts])
def test_numbers_in_text(decimal, text) -> None:
    assert parse_number(text, decimal) == TEXTS[decimal][text]


@pytest.mark.parametrize(
    "text", ["", "$", "%", "1,23", "12,34,5", "1,234'567", "(5", "5)", "--5", "(-5)", "1.2.3", "1_000", "0x10", "nan"]
)
def test_texts_that_are_not_numbers(text) -> None:
    assert parse_number(text, ".") is None


@pytest.mark.parametrize("dtype", ["str", object])
@pytest.mark.parametrize("decimal", [".", ","])
def test_plain_columns_are_read_as_one_text_at_a_time(dtype, decimal) -> None:
    texts = [*(f"{x:.17g}".replace(".", decimal) for x in 10.0**NUMBERS), "-7", "+1e5", f"{decimal}5", f"5{decimal}"]

    numbers = parse_plain_numbers(pd.Series([*texts, ""], dtype=dtype), decimal)

    assert numbers is not None
    assert numbers[:-1].tolist() == [parse_number(text, decimal) for text in texts]
    assert np.isnan(numbers[-1])
    for other in ("NA", "1 000", "1.000,5", "$5", 5):
        assert parse_plain_numbers(pd.Series([*texts, other], dtype=object), decimal) is None


def test_signs_of_units_are_noted() -> None:
    table = read(frame(it=[f"${n},000" for n in range(1, ROWS)] + ["free"]), "price")

    assert first(table) == [1000.0, 2000.0, 3000.0]
    assert column(table).note == (
        "currency and percent signs ignored; 1 value not a number, such as 'free', treated as missing"
    )


# ---------------------------------------------------------------- dates

DATES = {
    "AM and PM": (
        ["01/15/2020 12:00:00 AM", "01/15/2020 02:00:00 PM", "1/16/2020 7:05 a.m."],
        ["2020-01-15", "2020-01-15T14", "2020-01-16T07:05"],
    ),
    "ISO with AM": (["2020-01-15 12:30 AM", "2020-01-15 12:30 PM"], ["2020-01-15T00:30", "2020-01-15T12:30"]),
    "two-digit years": (["31.12.99", "01.02.20", "15.06.68"], ["1999-12-31", "2020-02-01", "2068-06-15"]),
    "two-digit years with fractions of a second": (
        ["15/01/24 10:30:00.123456", "16/01/24 10:30:00.5"],
        ["2024-01-15T10:30:00.123456", "2024-01-16T10:30:00.5"],
    ),
    "two-digit years with a time zone": (["15 Jan 24 10:00:00 +0100", "31 Jan 24"], ["2024-01-15T09", "2024-01-31"]),
    "short months": (["15-Jan-20", "1-feb-1999", "15JAN2020"], ["2020-01-15", "1999-02-01", "2020-01-15"]),
    "months in words": (
        ["January 3rd, 2024", "Mon, 15 Jan 2024 10:00:00 +0100", "Sept 2024", "Mon Jan 15 10:00:00 2024"],
        ["2024-01-03", "2024-01-15T09", "2024-09-01", "2024-01-15T10"],
    ),
    "time zones": (
        ["2024-01-01T00:00:00+09:00", "2024-01-01 12:00Z", "13/01/2024 12:00 -0500"],
        ["2023-12-31T15", "2024-01-01T12", "2024-01-13T17"],
    ),
}


@pytest.mark.parametrize("case", DATES)
@pytest.mark.parametrize("step", [1, -1])
def test_dates_in_text_whatever_their_order(case, step) -> None:
    texts, expected = (values[::step] for values in DATES[case])
    size = len(texts)

    table = read(frame(it=[texts[n % size] for n in range(ROWS)]), "price")

    assert column(table).kind == "date"
    assert first(table, count=size) == [pd.Timestamp(text) for text in expected]
    assert table.notes == ()


@pytest.mark.parametrize("dtype", ["date32[pyarrow]", "date64[pyarrow]", "timestamp[ms, tz=Asia/Tokyo][pyarrow]"])
def test_days_of_arrow(tmp_path, dtype) -> None:
    days = pd.Series(pd.date_range("2024-01-01", periods=ROWS))
    frame(it=days.astype(dtype)).to_parquet(tmp_path / "table.parquet")

    table = read(tmp_path / "table.parquet", "price")

    assert table.features["it"].tolist() == days.tolist()
    assert convert_rows(frame(it=days.astype(str)), table.columns, "new.csv")["it"].tolist() == days.tolist()


def test_a_few_bad_dates_are_missing() -> None:
    days = pd.date_range("2024-01-01", periods=ROWS - 2).strftime("%Y-%m-%d").tolist()

    table = read(frame(it=["TBD", "-", *days]), "price")

    assert (column(table).kind, column(table).missing) == ("date", 2)
    assert column(table).note == "1 value not a date, such as 'TBD', treated as missing; '-' treated as missing"
    rows = pd.DataFrame({"size": [1, 1], "it": ["TBD", "2024-05-06"]})
    assert convert_rows(rows, table.columns, "new.csv")["it"].isna().tolist() == [True, False]
    with pytest.raises(DataError, match="column 'it' must hold dates, as in the training data, got 'later'"):
        convert_rows(rows.assign(it="later"), table.columns, "new.csv")


def test_the_day_comes_first_if_any_date_of_the_column_shows_it() -> None:
    table = read(frame(it=["03/04/2024"] * (ROWS - 1) + ["31/12/2024"]), "price")

    assert first(table, count=1) == [pd.Timestamp("2024-04-03")]
    assert (column(table).note, table.notes) == ("dates read day first", ())
    rows = pd.DataFrame({"size": [1], "it": ["05/06/2024"]})
    assert convert_rows(rows, table.columns, "new.csv")["it"].tolist() == [pd.Timestamp("2024-06-05")]


@pytest.mark.parametrize(("separator", "order", "month"), [("/", "month first", 3), (".", "day first", 4)])
def test_an_order_that_no_date_shows_is_noted(separator, order, month) -> None:
    table = read(frame(it=[f"03{separator}04{separator}2024", f"05{separator}06{separator}2024"] * 20), "price")

    assert first(table, count=1)[0].month == month
    assert table.notes == (
        "No value of column 'it' shows whether the day or the month comes first, so dates were read "
        f"{order}. Write dates as 2024-12-31 to be certain.",
    )


def test_the_order_of_the_time_column_is_noted_too() -> None:
    times = [f"01/{1 + n % 12:02}/2024" for n in range(ROWS)]

    assert "No value of column 'it' shows whether" in read(frame(it=times), "price", time="it").notes[0]


@pytest.mark.parametrize("texts", [["1.2.3", "10.0.0.1"], ["may", "june"], ["10:30", "11:45"], ["31/12/2024 25:00"]])
def test_texts_that_are_not_dates(texts) -> None:
    assert column(read(frame(it=[texts[n % len(texts)] for n in range(ROWS)]), "price")).kind != "date"


# ---------------------------------------------------------------- missing values


@pytest.mark.parametrize("text", [".", "-", "?", "n/a", "N/A", "NA", "none", "NULL", "nan", "", "#N/A"])
def test_missing_numbers_and_dates(tmp_path, text) -> None:
    numbers = [text if n % 4 == 0 else f"{n}.5" for n in range(ROWS)]
    days = [text if n % 4 == 0 else f"2024-01-{1 + n % 28:02}" for n in range(ROWS)]

    for source in (
        write(tmp_path, {"it": numbers, "when": days, "y": [*range(ROWS)]}, ","),
        pd.DataFrame({"it": numbers, "when": days, "y": range(ROWS)}),
    ):
        table = read(source, "y")

        assert [(column.kind, column.missing) for column in table.columns] == [("number", 10), ("date", 10)]
        rows = pd.DataFrame({"it": [text, "2"], "when": ["2024-01-01", text]})
        assert convert_rows(rows, table.columns, "new.csv").isna().to_numpy().tolist() == [[True, False], [False, True]]


def test_minus_999_is_missing_only_on_request(tmp_path) -> None:
    numbers = [-999, *range(ROWS - 1)]
    path = write(tmp_path, {"it": numbers, "x": ["-999", "a", "b", "a"], "y": [*range(ROWS)]})
    as_read = pd.DataFrame({"it": numbers, "x": ["-999", "a", "b", "a"] * 10, "y": range(ROWS)})

    for source in (path, as_read):
        assert column(read(source, "y")).missing == 0
        table = read(source, "y", missing=["-999"])
        assert (column(table).missing, column(table, "x").missing) == (1, 10)
        rows = convert_rows(as_read, table.columns, "new.csv", missing=["-999"])
        pd.testing.assert_frame_equal(rows, table.features)


def test_missing_is_kept_with_the_study(tmp_path) -> None:
    path = write(tmp_path, {"it": [-999, *range(ROWS - 1)], "y": [*range(ROWS)]})
    study = run_study(path, "y", missing=["-999"], **FAST)
    study.save(tmp_path / "run")

    new = Study.load(tmp_path / "run").predict(pd.DataFrame({"it": ["-999", None, -999, 5]}))["y"]

    assert study.description["settings"]["missing"] == ["-999"]
    assert new[0] == new[1] == new[2] != new[3]


@pytest.mark.parametrize("missing", ["NA", [-999], 5])
def test_missing_must_be_a_list_of_texts(missing) -> None:
    with pytest.raises(DataError, match="missing must be a list of texts such as") as error:
        run_study(frame(), "price", missing=missing, **FAST)

    assert error.value.argument == "missing"


NA_TARGETS = {
    "as frequent as the other class": (["EU", "NA"] * 20, {}, ("EU", "NA"), True),
    "the only other value": (["EU"] * 35 + ["NA"] * 5, {}, ("EU", "NA"), True),
    "None": (["None", "mild", "severe", "None"] * 10, {}, ("None", "mild", "severe"), True),
    "rare": (["a", "b"] * 19 + ["NA"] * 2, {}, ("a", "b"), False),
    "with empty fields": (["a", "b", "NA", ""] * 10, {}, ("a", "b"), False),
    "with another text for missing values": (["a", "b", "NA", "-"] * 10, {}, ("a", "b"), False),
    "listed": (["a", "b", "NA", "NA"] * 10, {"missing": ["NA"]}, ("a", "b"), False),
    "with the usual texts off": (["a", "b"] * 19 + ["NA"] * 2, {"missing": []}, ("NA", "a", "b"), False),
}


@pytest.mark.parametrize("case", NA_TARGETS)
def test_whether_na_is_a_class(tmp_path, case) -> None:
    texts, options, classes, is_noted = NA_TARGETS[case]

    for source in (write(tmp_path, {"x": NUMBERS, "y": texts}, ","), pd.DataFrame({"x": NUMBERS, "y": texts})):
        table = read(source, "y", **options)

        assert table.classes == classes
        assert (
            any(" is a class of target 'y', because it is about as frequent" in note for note in table.notes)
            == is_noted
        )
        assert len(table.target) == ROWS if "NA" in classes or "None" in classes else len(table.target) < ROWS


# ---------------------------------------------------------------- labels

LABELS = ["None", "Brick", "NA", "007", "1.0", "n/a"]


def test_a_category_is_the_same_in_every_file(tmp_path) -> None:
    values = [LABELS[n % len(LABELS)] for n in range(ROWS)]
    table = frame(it=values)
    table.to_parquet(tmp_path / "table.parquet")
    table.to_csv(tmp_path / "table.csv", index=False)
    table.to_excel(tmp_path / "table.xlsx", index=False)
    studied = read(tmp_path / "table.parquet", "price")

    for source in (*(tmp_path / f"table.{ending}" for ending in ("parquet", "csv", "xlsx")), table):
        assert read(source, "price").features["it"].tolist() == values
        name, _, rows = load(source)
        assert convert_rows(rows, studied.columns, name)["it"].tolist() == values


def test_labels_keep_their_spelling(tmp_path) -> None:
    path = write(tmp_path, {"x": NUMBERS, "shop": ["07", "7"], "y": ["007", "010"]})

    table = read(path, "y", groups="shop")
    study = run_study(path, "y", **FAST)

    assert table.classes == ("007", "010")
    assert table.groups is not None
    assert table.groups[:2].tolist() == ["07", "7"]
    predicted = study.predict(path)
    assert set(predicted["y"]) <= {"007", "010"}
    again = pd.read_csv(io.StringIO(predicted.to_csv(index=False)), dtype=str)
    assert again["y"].tolist() == predicted["y"].tolist()


def test_labels_are_sorted_as_numbers_and_spelled_alike(tmp_path) -> None:
    path = write(tmp_path, {"x": NUMBERS, "y": ["9", "10", "11", "9", "9.0"]})

    assert read(path, "y").classes == ("9", "10", "11")


@pytest.mark.parametrize("texts", [["True", "False"], ["TRUE", "FALSE"], ["true", "false"]])
def test_truth_values_in_text(tmp_path, texts) -> None:
    path = write(tmp_path, {"it": [*texts, "NA", texts[0]], "x": NUMBERS, "y": texts})

    table = read(path, "y")

    assert column(table).kind == "number"
    np.testing.assert_array_equal(first(table, count=4), [1.0, 0.0, np.nan, 1.0])
    assert table.classes == tuple(sorted(texts))
