"""Files whose first line does not hold the names of the columns, and files that say how they are written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poise.study.errors import DataError
from poise.study.file_options import FileOptions
from poise.study.first_line import Line, check_first_line
from poise.study.sources import load
from poise.study.tables import read

RANDOM = np.random.default_rng(0)
NUMBERS = [f"{value:.3f}" for value in RANDOM.normal(size=40)]


def write(folder: Path, head: str, rows: str = "{x},{n}", name: str = "sales.csv") -> Path:
    """A file with `head`, and below it 40 rows in which {x} is a number, {n} a row number and {c} a category."""
    lines = [rows.format(x=x, n=n, c="ab"[n % 2]) for n, x in enumerate(NUMBERS)]
    path = folder / name
    path.write_text("\n".join([*([head] if head else []), *lines]) + "\n", newline="")
    return path


def refused(source, **options) -> str:
    with pytest.raises(DataError) as error:
        load(source, FileOptions(**options))
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- titles

TITLES = {
    "with delimiters": ("Report of sales,,\n\nx,y,z", "'Report of sales', but the table has 3", 2),
    "on its own": ("Report of sales\nx,y,z", "'Report of sales', but the table has 3", 1),
    "of several lines": ("Report of sales\nMay 2024\n\nx,y,z", "'Report of sales', but the table has 3", 3),
    "with a unit": ("Report,in dollars,,,\na,b,c,x,y", "'Report', 'in dollars', but the table has 5", 1),
}


@pytest.mark.parametrize("case", TITLES)
def test_a_title_is_refused_with_the_line_of_the_names(tmp_path, case) -> None:
    head, what, skip_rows = TITLES[case]
    names = head.splitlines()[-1].split(",")
    path = write(tmp_path, head, ",".join(["{x}"] * len(names)))

    listed = ", ".join(map(repr, names))
    assert refused(path) == (
        f"Line 1 of 'sales.csv' contains only {what} columns. If the names are in line {skip_rows + 1} ({listed}), use "
        f"skip_rows={skip_rows}."
    )
    assert list(load(path, FileOptions(skip_rows=skip_rows))[2].columns) == names


def test_a_title_in_excel(tmp_path) -> None:
    path = tmp_path / "sales.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"x": range(40), "y": range(40)}).to_excel(book, sheet_name="May", index=False, startrow=2)
        book.sheets["May"]["A1"] = "Report of sales"

    assert refused(path).startswith(
        "Line 1 of 'sales.xlsx' contains only 'Report of sales', but the table has 2 columns. If the names are in line 3"
    )
    assert load(path, FileOptions(skip_rows=2))[2].to_numpy().tolist() == [[n, n] for n in range(40)]


@pytest.mark.parametrize("head", ["a,b", "x", "a,b,c", "name,y\nred,1", ",y", "a, ", "y,2019,2020", "0,1,2,3"])
def test_other_first_lines_are_names(head) -> None:
    first, *more = head.splitlines()
    width = len(first.split(","))
    rows = [line.split(",") for line in more] or [["red"] + ["1.5"] * (width - 1), ["blue"] + ["2.5"] * (width - 1)]
    check_first_line([Line(n, fields) for n, fields in enumerate([first.split(","), *rows], start=1)], "sales.csv")


# ---------------------------------------------------------------- no names at all

HEADERLESS = {
    "numbers": ("", "{x},{n}.5,{n}"),
    "numbers and a class": ("", "{x},{c}"),
    "numbers and several classes": ("", "{c},{n}.5,{c},{x}"),
    "numbers and a date": ("", "2024-01-01,{x}"),
    "equal numbers": ("", "{x},0.0,0.0,{n}"),
    "only classes": ("", "{c},{c},{c}"),
    "decimal commas": ("", "{n},5;{n},25"),
}


@pytest.mark.parametrize("case", HEADERLESS)
def test_a_file_without_names_is_refused(tmp_path, case) -> None:
    head, rows = HEADERLESS[case]
    path = write(tmp_path, head, rows)

    message = refused(path)

    assert message.startswith("Line 1 of 'sales.csv' looks like data, not like column names: '")
    assert message.endswith("'. Add a line with the column names above it.")


def test_a_sheet_without_names_is_refused(tmp_path) -> None:
    path = tmp_path / "sales.xlsx"
    pd.DataFrame({"x": RANDOM.normal(size=40), "c": ["a", "b"] * 20}).to_excel(path, index=False, header=False)

    assert refused(path).startswith("Line 1 of 'sales.xlsx' looks like data, not like column names: '")


NAMES = {
    "positions": "0,1,2",
    "years": "2015,2020,2024",
    "wavelengths": "1100.5,1102,1103.5,1105,1106.5",
    "a name among numbers": "0.5,0.25,y",
}


@pytest.mark.parametrize("case", NAMES)
def test_names_may_be_numbers(tmp_path, case) -> None:
    names = NAMES[case].split(",")

    frame = load(write(tmp_path, NAMES[case], ",".join(["{x}"] * len(names))))[2]

    assert list(frame.columns) == names
    assert len(frame) == 40


# ---------------------------------------------------------------- what a file says about itself


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "sep=;\r"])
def test_a_first_line_may_name_the_delimiter(tmp_path, line) -> None:
    result = read(write(tmp_path, f"{line}\nx;y", "{x};{n}"), "y")

    assert result.features["x"].tolist() == [float(x) for x in NUMBERS]


def test_a_delimiter_that_no_other_file_uses(tmp_path) -> None:
    path = write(tmp_path, "sep=!\nx!y", "{x}!{n}")

    assert list(load(path)[2].columns) == ["x", "y"]
    assert list(load(path, FileOptions(skip_rows=1))[2].columns) == ["x", "y"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_are_skipped_in_every_encoding(tmp_path, encoding) -> None:
    path = write(tmp_path, 'Länge in 5"\n\nx,y')
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))

    frame = load(path, FileOptions(skip_rows=2))[2]

    assert frame["x"].tolist() == [str(x) for x in NUMBERS]


def test_comments(tmp_path) -> None:
    path = write(tmp_path, "# Report\nx,y  # in dollars\n# no value", "{x},{n}# row {n}, checked")

    frame = load(path, FileOptions(comment="#"))[2]

    assert [name.strip() for name in frame.columns] == ["x", "y"]
    assert frame.iloc[:, 1].tolist() == [str(n) for n in range(40)]


def test_a_row_that_is_too_long_has_its_number_in_the_file(tmp_path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("Report\nx,y\n1,2\n3,4,5\n")

    assert "line 4" in refused(path, skip_rows=1)


def test_nothing_is_left_after_lines_that_are_skipped(tmp_path) -> None:
    assert refused(write(tmp_path, "x,y"), skip_rows=99) == (
        "'sales.csv' has no lines after the 99 lines that are skipped."
    )


# ---------------------------------------------------------------- sheets


@pytest.fixture
def book(tmp_path) -> Path:
    path = tmp_path / "sales.xlsx"
    with pd.ExcelWriter(path) as writer:
        for number, sheet in enumerate(["Jan", "Feb", "2024"]):
            pd.DataFrame({"x": [number] * 3}).to_excel(writer, sheet_name=sheet, index=False)
    return path


@pytest.mark.parametrize(("sheet", "place"), [(None, 0), ("Feb", 1), (1, 0), (2, 1), ("3", 2), ("2024", 2), (2024, 2)])
def test_a_sheet_by_name_or_number(book, sheet, place) -> None:
    assert load(book, FileOptions(sheet=sheet))[2]["x"].tolist() == [place] * 3


@pytest.mark.parametrize("sheet", ["Mar", 0, 4])
def test_a_sheet_that_does_not_exist(book, sheet) -> None:
    assert refused(book, sheet=sheet) == (
        f"'sales.xlsx' has no sheet {sheet!r}. Its sheets are 'Jan', 'Feb', '2024'; a number counts from 1."
    )


# ---------------------------------------------------------------- options that cannot be


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"skip_rows": -1}, "skip_rows must be at least 0, got -1."),
        ({"comment": "//"}, "comment must be one character, such as '#', got '//'."),
        ({"comment": ";", "delimiter": ";"}, "comment must differ from the delimiter, got ';' for both."),
        ({"sheet": 1}, "sheet does not apply to 'sales.csv', which is read as CSV. Remove this argument."),
    ],
)
def test_options_that_are_refused(tmp_path, options, sentence) -> None:
    assert refused(write(tmp_path, "x,y"), **options) == sentence


@pytest.mark.parametrize(("source", "what"), [("wine", "a built-in table"), (pd.DataFrame(), "a table in memory")])
def test_tables_that_have_no_options(source, what) -> None:
    assert refused(source, skip_rows=1) == f"skip_rows does not apply to {what}. Remove this argument."


def test_recorded_options_hold_where_they_apply(tmp_path, book) -> None:
    recorded = FileOptions(sheet="Feb", skip_rows=1)
    path = write(tmp_path, "Report\nx,y")

    assert load(path, recorded=recorded)[2].shape == (40, 2)
    assert load(book, FileOptions(skip_rows=0), recorded)[2]["x"].tolist() == [1] * 3
    assert load("wine", recorded=recorded)[2].shape == (178, 14)
