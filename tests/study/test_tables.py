"""Messy tables: each is read correctly, or refused in a message that says why and what to do."""

import io
import os
import sys
from pathlib import Path
from typing import Any, Never

import numpy as np
import pandas as pd
import pytest

from poise.study.columns.reading import convert_rows
from poise.study.errors import DataError
from poise.study.sources import load
from poise.study.tables import Table, read

ROWS = 40
RANDOM = np.random.default_rng(0)
SIZE, PRICE = RANDOM.normal(size=ROWS), RANDOM.normal(size=ROWS)
COLOR = RANDOM.choice(["red", "green"], ROWS)


def table(**columns) -> pd.DataFrame:
    """Forty rows with a number, a text and a target; `columns` add or replace some."""
    return pd.DataFrame({"size": SIZE, "color": COLOR, "price": PRICE} | columns)


def write(folder: Path, content: str | bytes | pd.DataFrame, name: str = "sales.csv") -> Path:
    path = folder / name
    content = content.to_csv(index=False) if isinstance(content, pd.DataFrame) else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(header: str, row: str, times: int = ROWS) -> str:
    """`row` with {n} for 0, 1, 2, … below `header`."""
    return "\n".join([header, *(row.format(n=n, m=n % 4) for n in range(times))]) + "\n"


def kinds(result: Table) -> dict[str, str]:
    return {column.name: column.kind for column in result.columns}


def note(result: Table, name: str) -> str:
    return next(column.note for column in result.columns if column.name == name)


def refused(*arguments, **keywords) -> str:
    with pytest.raises(DataError) as error:
        read(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize(
    ("name", "task", "classes", "columns"),
    [
        ("diabetes", "regression", 0, 10),
        ("breast_cancer", "binary", 2, 30),
        ("wine", "multiclass", 3, 13),
    ],
)
def test_built_in_tables(name, task, classes, columns) -> None:
    result = read(name)

    assert (result.name, result.source, result.task.name) == (name, name, task)
    assert (len(result.classes), result.features.shape[1]) == (classes, columns)
    assert result.notes == ()


def test_constant_pixels_of_digits_are_set_aside() -> None:
    result = read("digits")

    assert (result.task.name, len(result.classes), result.features.shape) == ("multiclass", 10, (1797, 61))


def test_california_is_read_only_from_the_disk(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))

    assert refused("california").startswith("The built-in table 'california' is not on this disk. Download it once")


READABLE = {
    "comma": ("a,b,y\n", "{n}.5,x{m},{n}\n", {}),
    "semicolon": ("a;b;y\n", "{n}.5;x{m};{n}\n", {}),
    "tab": ("a\tb\ty\n", "{n}.5\tx{m}\t{n}\n", {}),
    "pipe": ("a|b|y\n", "{n}.5|x{m}|{n}\n", {}),
    "decimal comma": ("a;b;y\n", "{n},5;x{m};{n}\n", {}),
    "decimal comma between tabs": ("a\tb\ty\n", "{n},5\tx{m}\t{n}\n", {}),
    "decimal comma in quotes": ("a,b,y\n", '"{n},5",x{m},{n}\n', {}),
    "decimal comma and groups": ("a;b;y\n", "{n},5;x{m};{n}\n", {"decimal": ","}),
    "unusual delimiter": ("a!b!y\n", "{n}.5!x{m}!{n}\n", {"delimiter": "!"}),
    "tab by name": ("a\tb\ty\n", "{n}.5\tx{m}\t{n}\n", {"delimiter": "tab"}),
    "spaces after commas": ("a, b, y\n", "{n}.5, x{m}, {n}\n", {}),
    "Windows lines": ("a,b,y\r\n", "{n}.5,x{m},{n}\r\n", {}),
    "fields without a value": ("a\tempty\tb\ty\n", "{n}.5\t\tx{m}\t{n}\n", {}),
    "blank lines": ("\n\na,b,y\n\n", "{n}.5,x{m},{n}\n", {}),
}


@pytest.mark.parametrize("case", READABLE)
def test_a_text_file_is_read_as_it_was_written(tmp_path, case) -> None:
    header, row, options = READABLE[case]
    text = header + "".join(row.format(n=n, m=n % 4) for n in range(ROWS))

    result = read(write(tmp_path, text, "sales.txt"), "y", **options)

    assert result.features["a"].tolist() == [n + 0.5 for n in range(ROWS)]
    assert result.features["b"].tolist() == [f"x{n % 4}" for n in range(ROWS)]
    assert (result.name, result.task.name, result.target.to_numpy().tolist()) == (
        "sales",
        "regression",
        list(range(ROWS)),
    )


@pytest.mark.parametrize(
    ("written", "kwargs"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-8-sig", "utf-8"),
        ("utf-8-sig", "UTF_8"),
        ("cp1252", None),
        ("utf-16", None),
        ("utf-32", None),
        ("latin-1", "latin-1"),
        ("cp437", "cp437"),
        ("utf-16-le", "utf-16-le"),
    ],
)
def test_encodings(tmp_path, written, kwargs) -> None:
    content = lines("größe,stadt,y", "{n}.5,Köln {m},{n}").encode(written)

    result = read(write(tmp_path, content), "y", text_encoding=kwargs)

    assert list(result.features.columns) == ["größe", "stadt"]
    assert set(result.features["stadt"]) == {"Köln 0", "Köln 1", "Köln 2", "Köln 3"}


def test_a_header_of_two_hundred_thousand_characters_is_a_header(tmp_path) -> None:
    names = [f"column number {number} {'x' * 80}" for number in range(2_000)]
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2_000)), columns=names).assign(y=range(20))

    result = read(write(tmp_path, frame), "y")

    assert result.features.shape == (20, 2_000)


def test_three_hundred_thousand_rows(tmp_path) -> None:
    random = np.random.default_rng(0)
    rows = 300_000
    columns = {f"number {n}": random.normal(size=rows) for n in range(15)}
    columns |= {f"category {n}": random.choice([f"v{m}" for m in range(10**n)], rows) for n in range(1, 4)}
    columns |= {
        "when": pd.date_range("2000-01-01", periods=rows, freq="min"),
        "free": (np.arange(rows) ** 2).astype(str),
    }
    path = tmp_path / "large.parquet"
    pd.DataFrame(columns | {"y": random.normal(size=rows)}).to_parquet(path)

    result = read(path, "y")

    assert result.features.shape == (rows, 20)
    assert kinds(result) == (
        {f"number {n}": "number" for n in range(15)}
        | {f"category {n}": "category" for n in range(1, 4)}
        | {"when": "date", "free": "number"}
    )


@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_a_file_and_its_frame_are_the_same_table(tmp_path, ending) -> None:
    frame = table(when=pd.date_range("2024-01-01", periods=ROWS))
    path = tmp_path / f"sales.{ending}"
    {"csv": frame.to_csv, "parquet": frame.to_parquet, "xlsx": frame.to_excel}[ending](path, index=False)

    from_file, from_frame = read(path, "price"), read(frame, "price")

    pd.testing.assert_frame_equal(from_file.features, from_frame.features)
    assert (from_file.name, from_file.source, from_frame.source) == ("sales", str(path), "")
    assert kinds(from_frame) == {"size": "number", "color": "category", "when": "date"}


X, Y = RANDOM.normal(size=(ROWS, 3)), RANDOM.normal(size=ROWS)


@pytest.mark.parametrize(
    ("arrays", "target", "columns"),
    [
        ({"x": X, "y": Y}, None, ["x0", "x1", "x2"]),
        ({"X": X.astype("float32"), "y": Y[:, None]}, None, ["x0", "x1", "x2"]),
        ({"data": X}, "data2", ["data0", "data1"]),
        ({"age": X[:, 0], "town": COLOR, "y": Y}, "y", ["age", "town"]),
    ],
)
def test_arrays_in_npz(tmp_path, arrays, target, columns) -> None:
    np.savez(tmp_path / "lab.npz", **arrays)

    result = read(tmp_path / "lab.npz", target)

    assert list(result.features.columns) == columns
    assert result.features.iloc[:, 0].to_numpy() == pytest.approx(X[:, 0], rel=1e-6)
    assert len(result.target) == ROWS


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"x": np.array([{}] * ROWS, dtype=object), "y": Y},
            "Array 'x' of 'lab.npz' holds pickled objects, which can",
        ),
        ({"x": X, "y": Y[:-1]}, "The arrays of 'lab.npz' must have the same number of rows, got {'x0': 40, 'y': 39}."),
        (
            {"x": X[None], "y": Y},
            "Array 'x' of 'lab.npz' has shape (1, 40, 3) and type float64. Save x with shape (rows, columns)",
        ),
        ({"x": X, "X": X, "y": Y}, "lab.npz has more than one column named 'x0', 'x1', 'x2'."),
        ({"x": X}, "lab.npz needs a target. Name the column to predict, one of: 'x0', 'x1', 'x2'."),
        ({}, "'lab.npz' holds no arrays."),
    ],
)
def test_arrays_in_npz_that_are_refused(tmp_path, arrays, sentence) -> None:
    np.savez(tmp_path / "lab.npz", **arrays)

    assert refused(tmp_path / "lab.npz").startswith(sentence)


def test_standard_input(monkeypatch) -> None:
    content = lines("a;y", "{n},5;{n}").encode("utf-8-sig")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    result = read("-", "y")

    assert (result.name, result.source, result.features["a"][1]) == ("standard input", "-", 1.5)


UNREADABLE = {
    "an empty file": (b"", {}, "'sales.csv' is empty. A table needs a header line and rows."),
    "blank lines alone": (b"\n \n\n", {}, "'sales.csv' is empty. A table needs a header line and rows."),
    "a byte order mark alone": (b"\xff\xfe", {}, "'sales.csv' is empty. A table needs a header line and rows."),
    "a header alone": (b"a,y\n", {}, "sales.csv is empty: it has a header but no rows."),
    "one row": (b"a,y\n1,2\n", {}, "sales.csv has 1 row; a study needs at least 20. Add rows."),
    "one column": (
        lines("y", "{n}").encode(),
        {},
        "sales.csv has no column besides its target 'y'. Add at least one to predict it from.",
    ),
    "duplicate names": (
        lines("a,b,a,b,y", "1,2,3,4,{n}").encode(),
        {},
        "sales.csv has more than one column named 'a', 'b'. Give each column a unique name.",
    ),
    "rows longer than the header": (b"a,y\n1,2,3\n4,5,6\n", {}, "'sales.csv' cannot be read as CSV: "),
    "a row longer than others": (b"a,y\n1,2\n3,4,5\n", {}, "'sales.csv' cannot be read as CSV: "),
    "a quote without an end": (b'a,y\n1,"2\n', {}, "'sales.csv' cannot be read as CSV: "),
    "zero bytes": (
        b"a,y\n\0\0\0\n",
        {},
        "'sales.csv' is not text, because it contains NUL bytes (value 0). Save it as",
    ),
    "bytes of no encoding": (b"a,y\n\x81\x8d,1\n", {}, "'sales.csv' is not text in utf-8 or cp1252. Save it as CSV"),
    "another encoding than given": (
        "größe,y\n1,2\n".encode("cp1252"),
        {"text_encoding": "utf-8"},
        "'sales.csv' is not text in utf-8. Save it as CSV in UTF-8, or give its encoding, such as 'utf-16'.",
    ),
    "an unknown encoding": (
        b"a,y\n1,2\n",
        {"text_encoding": "utf-9"},
        "The encoding 'utf-9' is unknown. Use one such as",
    ),
    "an encoding that is none of text": (
        b"a,y\n1,2\n",
        {"text_encoding": "base64"},
        "The encoding 'base64' is unknown.",
    ),
    "another delimiter than given": (
        lines("a;y", "1;{n}").encode(),
        {"delimiter": ","},
        "'sales.csv' does not use the delimiter ',': the header 'a;y' was read as one column. Use the delimiter ';', or",
    ),
    "a delimiter of two characters": (
        b"a::y\n",
        {"delimiter": "::"},
        "delimiter must be one character or 'tab', got '::'. Omit it to detect the delimiter.",
    ),
    "a delimiter that cannot be one": (
        b"a,y\n",
        {"delimiter": "\n"},
        "delimiter must be one character or 'tab', got '\\n'.",
    ),
    "an unknown decimal mark": (
        b"a,y\n1,2\n",
        {"decimal": "'"},
        "The decimal mark must be '.' or ',', got \"'\". Omit it to detect it.",
    ),
    "an unusual delimiter": (
        lines("a!y", "1!{n}").encode(),
        {},
        "sales.csv has no column 'y'. Its columns are 'a!y'. It has only one column. If it is a CSV file with an unusual delimiter",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_text_file_that_cannot_be_read(tmp_path, case) -> None:
    content, options, sentence = UNREADABLE[case]

    assert refused(write(tmp_path, content), "y", **options).startswith(sentence)


def test_a_missing_file_with_a_near_miss(tmp_path) -> None:
    write(tmp_path, table())

    assert refused(tmp_path / "sale.csv", "price") == (
        f"The file '{tmp_path}/sale.csv' does not exist. Did you mean '{tmp_path}/sales.csv'? Give the path of a CSV, Parquet, "
        "Excel or NPZ file, or the name of a built-in table: diabetes, breast_cancer, digits, wine, california."
    )
    assert "Did you mean 'diabetes'?" in refused("diabtes")
    assert "Did you mean" not in refused(tmp_path / "nowhere" / "at all.csv", "price")


def test_a_folder(tmp_path) -> None:
    assert (
        refused(tmp_path, "price") == f"'{tmp_path}' is a folder. Give the path of a CSV, Parquet, Excel or NPZ file."
    )


def denied(path) -> Never:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch) -> None:
    path = write(tmp_path, table())
    path.chmod(0)
    if os.geteuid() == 0:  # root may read everything
        monkeypatch.setattr(Path, "read_bytes", denied)

    assert refused(path, "price") == f"'{path}' cannot be read: permission denied. Change its permissions, or copy it."


def test_truncated_parquet(tmp_path) -> None:
    whole = tmp_path / "whole.parquet"
    table().to_parquet(whole)
    path = write(tmp_path, whole.read_bytes()[:-100], "sales.parquet")

    assert refused(path, "price").startswith("'sales.parquet' cannot be read as Parquet: ")


@pytest.mark.parametrize(
    ("name", "kind"), [("sales.parquet", "Parquet"), ("sales.xlsx", "Excel"), ("sales.npz", "NPZ")]
)
def test_a_file_that_does_not_match_its_name(tmp_path, name, kind) -> None:
    message = refused(write(tmp_path, "a,y\n1,2\n", name), "y")

    assert message.startswith(f"'{name}' cannot be read as {kind}: ")
    assert message.endswith("It may be damaged or in another format; write it again, or save it as CSV.")


@pytest.mark.parametrize(
    ("name", "module", "kind", "requirement"),
    [("sales.parquet", "pyarrow", "Parquet", "pyarrow"), ("sales.xlsx", "openpyxl", "Excel", "poise[excel]")],
)
def test_packages_that_are_not_installed_are_named(tmp_path, monkeypatch, name, module, kind, requirement) -> None:
    path = write(tmp_path, "", name)

    def without(*arguments, **keywords) -> Never:
        raise ImportError(module)

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(pd, "ExcelFile", without)
    monkeypatch.setattr(pd, "read_parquet", without)

    assert refused(path, "y") == (
        f"'{name}' is a file in {kind} format, and the package that reads it is not installed. Run `pip install \"{requirement}\"`."
    )


@pytest.mark.parametrize("ending", ["xls", "json", "npy", "feather", "pkl", "gz"])
def test_another_kind_of_file(tmp_path, ending) -> None:
    assert refused(write(tmp_path, "", f"sales.{ending}"), "price") == (
        f"The format of 'sales.{ending}' is not supported. Save it as CSV, Parquet, Excel (.xlsx) or NPZ, or pass a "
        "DataFrame."
    )


def test_objects_that_are_not_tables() -> None:
    assert (
        refused(3, "price")
        == "The data must be the path of a file, the name of a built-in table, a DataFrame or an Arrow table, got an object of type int."
    )


def test_excel_with_two_equal_names(tmp_path) -> None:
    frame = pd.DataFrame([[1, 2, 3]] * ROWS, columns=["a", "a", "y"])
    frame.to_excel(tmp_path / "sales.xlsx", index=False)

    assert "more than one column named 'a'" in refused(tmp_path / "sales.xlsx", "y")


def test_names_in_excel_are_those_of_its_cells(tmp_path) -> None:
    frame = pd.DataFrame({name: np.random.default_rng(0).normal(size=ROWS) for name in ("NA", 2024, "007", "y")})
    frame.to_excel(tmp_path / "sales.xlsx", index=False)

    names = [column.name for column in read(tmp_path / "sales.xlsx", "y").columns]

    assert names == ["NA", "2024", "007"]


def test_an_empty_sheet(tmp_path) -> None:
    pd.DataFrame().to_excel(tmp_path / "sales.xlsx", index=False)

    assert refused(tmp_path / "sales.xlsx", "y") == "'sales.xlsx' is empty. A table needs a header line and rows."


# ---------------------------------------------------------------- names and roles

ODD_NAMES = [
    "<script>alert(1)</script>",
    "\"quotes\" & 'more'",
    "naïve ümlaut 数",
    "line\nbreak",
    "{{ 7 * 7 }}",
    "a,b",
    "a b",
]


def test_odd_column_names_are_unchanged(tmp_path) -> None:
    frame = table(**{name: SIZE + n for n, name in enumerate(ODD_NAMES)})

    assert list(read(write(tmp_path, frame), "price").features.columns) == ["size", "color", *ODD_NAMES]


def test_names_that_are_numbers() -> None:
    frame = pd.DataFrame({0: SIZE, 1: PRICE, (2, "b"): SIZE**2})

    assert list(read(frame, "1").features.columns) == ["0", "(2, 'b')"]


ROLES = [
    ({}, "The table needs a target. Name the column to predict, one of: 'size', 'color', 'price'."),
    (
        {"target": "prize"},
        "The table has no column 'prize'. Did you mean 'price', 'size'? Its columns are 'size', 'color', 'price'.",
    ),
    ({"target": "price", "groups": "colour"}, "The table has no column 'colour'. Did you mean 'color'?"),
    ({"target": "price", "drop": ["colors"]}, "The table has no column 'colors'. Did you mean 'color'?"),
    (
        {"target": "price", "drop": ["price"]},
        "Column 'price' is the target column and cannot be dropped. Do not drop it, or choose another target column.",
    ),
    ({"target": "price", "time": "size", "drop": ["size"]}, "Column 'size' is the time column and cannot be dropped."),
    (
        {"target": "price", "weight": "price"},
        "Column 'price' cannot be both the target column and the weight column. Give each its own column.",
    ),
    ({"target": "price", "groups": "color", "time": "color"}, "Column 'color' cannot be both the group column and"),
    (
        {"target": "price", "task": "ranking"},
        "task must be one of regression, binary, multiclass, counts, gamma, tweedie, quantile, multioutput, survival, got 'ranking'.",
    ),
    ({"target": "price", "weight": "color"}, "The weight column 'color' must contain numbers >= 0."),
    ({"target": "price", "time": "color"}, "The time column 'color' contains neither numbers nor dates, so the rows"),
    (
        {"target": "price", "drop": ["size", "color"]},
        "No column is left to predict 'price' from. Set aside: 2 columns (dropped by request): 'size', 'color'. Add",
    ),
]


@pytest.mark.parametrize(("asked", "sentence"), ROLES)
def test_roles_that_cannot_be(asked, sentence) -> None:
    assert refused(table(), **asked).startswith(sentence)


def test_roles_are_not_features() -> None:
    frame = table(
        shop=[f"s{n // 4}" for n in range(ROWS)],
        when=[f"{n % 28 + 1}.{n % 12 + 1}.2024" for n in range(ROWS)],
        times=pd.array([2] * (ROWS - 1) + [0], dtype="Int64"),
    )

    result = read(frame, "price", groups="shop", time="when", weight="times", drop=["color"])

    assert kinds(result) == {"size": "number", "color": "set aside"}
    assert result.groups is not None
    assert result.time is not None
    assert result.weight is not None
    assert result.groups.tolist() == frame["shop"].tolist()[:-1]
    assert result.time[:2].tolist() == [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-02-02")]
    assert (result.weight.dtype, result.weight.tolist()) == ("float64", [2.0] * (ROWS - 1))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (
            [1.0, None],
            "The weight column 'w' has no value in 1 of 40 rows. Fill in the values, or remove these rows.",
        ),
        ([1.0, np.inf], "The weight column 'w' has no value in 1 of 40 rows."),
        ([1.0, -0.5], "The weight column 'w' must contain numbers >= 0, got -0.5. Correct or remove"),
        ([0.0, 0.0], "The weight column 'w' is 0 in every row, and at least one weight must be positive."),
    ],
)
def test_weights_that_cannot_be(weights, sentence) -> None:
    assert refused(table(w=[*weights, *weights[:1] * 38]), "price", weight="w").startswith(sentence)


def test_groups_need_values_and_two_of_them() -> None:
    assert "The group column 'g' has no value in 1 of 40" in refused(
        table(g=[None] + ["a", "b", "c"] * 13), "price", groups="g"
    )
    assert "at least two are needed." in refused(table(g="a"), "price", groups="g")


# ---------------------------------------------------------------- the target


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (np.linspace(0.0, 1.0, ROWS), "regression", ()),
        (np.arange(ROWS) % 9, "regression", ()),
        (np.arange(ROWS) % 3, "multiclass", ("0", "1", "2")),
        (np.arange(ROWS) % 3 + 9, "multiclass", ("9", "10", "11")),
        (np.arange(ROWS) % 2 == 0, "binary", ("False", "True")),
        (pd.array([True, False] * 20, dtype="boolean"), "binary", ("False", "True")),
        (np.where(np.arange(ROWS) % 2, 10.0, 9.5), "binary", ("9.5", "10")),
        ([" no", "yes "] * 20, "binary", ("no", "yes")),
        (pd.Categorical(["c", "a", "b", "a"] * 10), "multiclass", ("a", "b", "c")),
        ([f"{n},5" for n in range(ROWS)], "regression", ()),
        (["1,234.5", "2,000"] * 20, "binary", ("1,234.5", "2,000")),
    ],
)
def test_the_task_is_inferred(target, task, classes) -> None:
    result = read(table(price=target), "price")

    assert (result.task.name, result.classes) == (task, classes)
    assert result.target.to_numpy().dtype == ("float64" if task == "regression" else object)


@pytest.mark.parametrize("task", ["regression", "counts"])
def test_a_task_can_be_chosen(task) -> None:
    result = read(table(price=np.arange(ROWS) % 3), "price", task=task)

    assert (result.task.name, result.target.dtype, result.classes) == (task, "float64", ())


WRONG_TARGETS = {
    "constant": (
        7,
        None,
        "Target 'price' is constant: every row has '7'. Choose another",
    ),
    "text in regression": (
        ["a", "b"] * 20,
        "regression",
        "The task regression needs numbers, and target 'price' is text, such as 'a', 'b'.",
    ),
    "one odd value in regression": (
        [*map(str, range(ROWS - 1)), "n/k"],
        "regression",
        "The task regression needs numbers, and target 'price' is text, such as '0', '1', '10'. It holds numbers except for values "
        "such as 'n/k'. Choose another target, or the task binary or multiclass.",
    ),
    "three classes in binary": (
        ["a", "b", "c", "a"] * 10,
        "binary",
        "A binary task needs two distinct values of 'price', got 3. Choose the task multiclass or regression.",
    ),
    "a class with one member": (
        ["single"] + ["other", "more"] * 19 + ["more"],
        None,
        "Target 'price' has classes with a single row: 'single'. Each class needs at least two. Merge or remove these classes.",
    ),
    "halves that are counted": (
        np.arange(ROWS) / 2,
        "counts",
        "Counts must be whole numbers >= 0, and target 'price' holds 0.5.",
    ),
    "negative counts": (
        np.arange(ROWS) - 1,
        "counts",
        "Counts must be whole numbers >= 0, and target 'price' holds -1.",
    ),
    "dates": (pd.date_range("2024", periods=ROWS), None, "Target 'price' holds dates; a study predicts numbers or"),
    "all missing": (None, None, "The table has 0 rows with a value for 'price'; a study needs at least 20."),
    "lists": ([[1]] * ROWS, None, "Target 'price' holds values that are neither numbers, text nor dates; a study"),
}


@pytest.mark.parametrize("case", WRONG_TARGETS)
def test_a_target_that_cannot_be_predicted(case) -> None:
    target, task, sentence = WRONG_TARGETS[case]

    assert refused(table(price=target), "price", task=task).startswith(sentence)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, None])
def test_rows_without_a_target_are_left_out(nothing) -> None:
    frame = table()
    frame.loc[[0, 5], "price"] = nothing

    result = read(frame, "price")

    assert result.notes == ("2 of 40 rows have no value for 'price' and are left out.",)
    assert result.features["size"].tolist() == np.delete(SIZE, [0, 5]).tolist()
    assert result.features.index.equals(result.target.index)
    assert result.features.index.equals(pd.RangeIndex(38))


def test_one_in_a_thousand_is_a_class() -> None:
    target = ["rare"] * 10 + ["common"] * 10_000
    result = read(pd.DataFrame({"size": np.random.default_rng(0).normal(size=10_010), "y": target}), "y")

    assert (result.task.name, result.classes, result.notes) == ("binary", ("common", "rare"), ())


def test_a_rare_class_is_noted() -> None:
    result = read(table(price=["rare"] * 2 + ["common"] * 38), "price")

    assert result.notes == ("Classes with fewer than 5 rows: 'rare' (2). Results for them are unreliable.",)


# ---------------------------------------------------------------- columns

GROUPED = [f"{n + 1},234,567" for n in range(ROWS)]
COLUMNS = {
    "truth values": ([True, False] * 20, "number", [1.0, 0.0], ""),
    "truth values, one missing": ([True, False, *[True] * 37, None], "number", [1.0, 0.0], ""),
    "nullable truth values": (pd.array([True, None] * 20, dtype="boolean"), "number", [1.0, np.nan], ""),
    "nullable numbers": (pd.array([3, None] * 20, dtype="Int64"), "number", [3.0, np.nan], ""),
    "float32": (np.arange(ROWS, dtype="float32"), "number", [0.0, 1.0], ""),
    "infinite values": (
        [1.0, np.inf, -np.inf, *range(37)],
        "number",
        [1.0, np.nan],
        "2 infinite values treated as missing",
    ),
    "numbers as text": ([str(n) for n in range(ROWS)], "number", [0.0, 1.0], ""),
    "thousands": (GROUPED, "number", [1234567.0, 2234567.0], ""),
    "thousands by points": (
        [text.replace(",", ".") for text in GROUPED],
        "number",
        [1234567.0, 2234567.0],
        "numbers with a decimal comma",
    ),
    "thousands by spaces": (
        [f"{n + 1}\u00a0234" for n in range(ROWS)],
        "number",
        [1234.0, 2234.0],
        "",
    ),
    "decimal commas": (
        [f"1.{n + 100},5" for n in range(ROWS)],
        "number",
        [1100.5, 1101.5],
        "numbers with a decimal comma",
    ),
    "numbers and an odd value": (
        [0, 1, *range(37), "unknown"],
        "number",
        [0.0, 1.0],
        "1 value not a number, such as 'unknown', treated as missing",
    ),
    "numbers and question marks": (["7", "?"] * 20, "number", [7.0, np.nan], ""),
    "mixed types": ([1, "a", 2.5, None] * 10, "category", ["1", "a"], ""),
    "leading zeros and letters": (["007", "00A"] * 20, "category", ["007", "00A"], ""),
    "text with missing values": (["a", None] * 20, "category", ["a", None], ""),
    "text with spaces": ([" a", "b ", "", "  "] * 10, "category", ["a", "b"], ""),
    "categories that are numbers": (pd.Categorical([1, 2] * 20), "category", ["1", "2"], ""),
    "versions": (["1.2.3", "10.0.0.1"] * 20, "category", ["1.2.3", "10.0.0.1"], ""),
    "months": (["may", "june"] * 20, "category", ["may", "june"], ""),
    "dates": (pd.date_range("2024-01-01", periods=ROWS), "date", ["2024-01-01", "2024-01-02"], ""),
    "dates in a time zone": (
        pd.date_range("2024-01-01", periods=ROWS, tz="Asia/Tokyo"),
        "date",
        ["2023-12-31T15", "2024-01-01T15"],
        "",
    ),
    "dates as text": (["2024-01-31", "2024-02-01 12:30"] * 20, "date", ["2024-01-31", "2024-02-01T12:30"], ""),
    "dates with points": (
        ["01.02.2024", "31.12.2024"] * 20,
        "date",
        ["2024-02-01", "2024-12-31"],
        "dates read day first",
    ),
    "American dates": (
        ["01/02/2024", "12/31/2024"] * 20,
        "date",
        ["2024-01-02", "2024-12-31"],
        "dates read month first",
    ),
    "British dates": (
        ["01/02/2024", "31/12/2024"] * 20,
        "date",
        ["2024-02-01", "2024-12-31"],
        "dates read day first",
    ),
    "dates in words": (["3 Jan 2024", "14 Feb 2024"] * 20, "date", ["2024-01-03", "2024-02-14"], ""),
    "dates out of range as text": (
        ["2024-01-01", "9999-12-31", *["2024-01-02"] * 38],
        "date",
        ["2024-01-01", "NaT"],
        "1 date outside 1678 to 2261 treated as missing",
    ),
    "dates out of range": (
        np.array(["2024-01-01", "9999-12-31", *["2024-01-02"] * 38], dtype="datetime64[s]"),
        "date",
        ["2024-01-01", "NaT"],
        "1 date outside 1678 to 2261 treated as missing",
    ),
    "durations": (pd.to_timedelta(range(ROWS), unit="min"), "number", [0.0, 60.0], "durations in seconds"),
    "sparse numbers": (pd.arrays.SparseArray([0.0, 1.0] * 20), "number", [0.0, 1.0], ""),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_what_a_column_holds(case) -> None:
    values, kind, first, expected = COLUMNS[case]

    result = read(table(it=values), "price", keep=["it"])

    column = next(column for column in result.columns if column.name == "it")
    dtype = {"number": "float64", "category": object, "date": "datetime64[ns]"}[kind]
    wanted = pd.Series(np.array(first, dtype=dtype), dtype=dtype, name="it")
    assert (column.kind, column.note) == (kind, expected)
    assert column.missing == result.features["it"].isna().sum()
    pd.testing.assert_series_equal(result.features["it"].head(2), wanted)


@pytest.mark.parametrize(
    ("kind", "values"),
    [("number", [1.5, None] * 20), ("date", pd.date_range("2024", periods=ROWS)), ("category", ["a", "b"] * 20)],
)
def test_types_of_arrow(kind, values) -> None:
    types: dict[str, Any] = {
        "number": "double[pyarrow]",
        "date": "timestamp[us, tz=UTC][pyarrow]",
        "category": "string[pyarrow]",
    }
    arrow = pd.Series(values).astype(types[kind])

    result, plain = read(table(it=arrow), "price"), read(table(it=values), "price")

    assert kinds(result)["it"] == kind
    pd.testing.assert_frame_equal(result.features, plain.features)


ASIDE = {
    "free text": ("it", [f"so {n} said" for n in range(ROWS)], "free text or an identifier: nearly every row differs"),
    "an identifier": ("customer_id", np.arange(ROWS) * 3, "an identifier: whole numbers that increase from row to row"),
    "an identifier in one word": (
        "PassengerId",
        np.arange(ROWS),
        "an identifier: whole numbers that increase from row to row",
    ),
    "a constant number": ("it", 1.5, "the same value in every row"),
    "a constant text": ("it", "a", "the same value in every row"),
    "a constant date": ("it", pd.Timestamp("2024-01-01"), "the same value in every row"),
    "nothing": ("it", None, "no value in any row"),
    "infinite values alone": ("it", np.inf, "no value in any row"),
    "lists": ("it", [[n] for n in range(ROWS)], "values that are neither numbers, text nor dates"),
    "complex numbers": ("it", np.arange(ROWS) * 1j, "complex numbers"),
}


@pytest.mark.parametrize("case", ASIDE)
def test_columns_that_are_set_aside(case) -> None:
    name, values, reason = ASIDE[case]

    result = read(table(**{name: values}), "price")

    assert list(result.features.columns) == ["size", "color"]
    assert note(result, name) == reason
    assert result.notes == (f"Set aside: '{name}' ({reason}).",)


@pytest.mark.parametrize(("different", "kind"), [(5_000, "category"), (5_001, "set aside")])
def test_five_thousand_categories(different, kind) -> None:
    towns = [f"town {n % different}" for n in range(4 * different)]
    result = read(
        pd.DataFrame({"town": towns, "size": np.random.default_rng(0).normal(size=len(towns)), "y": range(len(towns))}),
        "y",
    )

    assert kinds(result)["town"] == kind


def test_nothing_is_left_to_predict_from() -> None:
    frame = pd.DataFrame({"id": range(ROWS), "same": 1, "price": PRICE})

    assert refused(frame, "price") == (
        "No column is left to predict 'price' from. Set aside: 'id' (an identifier: whole numbers that increase from row to row); "
        "'same' (the same value in every row). Add a column of numbers, dates or categories that repeat, or "
        "keep one of these."
    )


CLASSES = np.array(["a", "b", "c", "a"] * 10)
LEAKS = {
    "equal": (PRICE, PRICE, True),
    "in other units": (PRICE, -3 * PRICE + 1e6, True),
    "with missing values": (PRICE, np.where(np.arange(ROWS) < 5, np.nan, PRICE), True),
    "nearly": (PRICE, PRICE + 0.1 * SIZE, False),
    "classes renamed": (CLASSES, np.where(CLASSES == "a", 7, np.where(CLASSES == "b", 5, 6)), True),
    "classes renamed with missing values": (CLASSES, np.array([None] * 5 + [*CLASSES[5:]], object), True),
    "classes merged": (CLASSES, CLASSES == "a", False),
    "two classes as numbers": (CLASSES == "a", np.where(CLASSES == "a", 0.25, 4.0), True),
    "text that repeats with the number": (np.arange(ROWS) // 2, [f"v{n // 2}" for n in range(ROWS)], True),
    "large numbers": (PRICE * 1e300, PRICE, True),
}


@pytest.mark.parametrize("case", LEAKS)
def test_a_column_that_determines_the_target_is_noted(case) -> None:
    target, column, is_leak = LEAKS[case]

    result = read(table(price=target, copy=column), "price")

    sentence = "Column 'copy' determines the target 'price' almost exactly. This looks like a leak; consider dropping the column."
    assert "copy" in result.features
    assert (sentence in result.notes) == is_leak
    assert len(result.notes) == is_leak


def test_the_frame_given_is_left_as_it_was() -> None:
    frame = table(it=[np.inf, *range(39)], when="2024-01-01").set_index(pd.Index([0] * ROWS))
    before = frame.copy(deep=True)

    result = read(frame, "price")
    result.features.loc[0, "size"] = 99.0

    pd.testing.assert_frame_equal(frame, before)


# ---------------------------------------------------------------- new rows


def studied() -> pd.DataFrame:
    return table(
        when=["01/02/2024", "31/12/2024"] * 20,
        paid=[f"{n},5" for n in range(ROWS)],
        age=[*map(str, range(ROWS - 1)), "n/k"],
        flag=[True, False] * 20,
        id=range(ROWS),
    )


def test_the_rows_of_the_table_are_new_rows_too(tmp_path) -> None:
    path = write(tmp_path, studied())
    result = read(path, "price")
    name, _, rows = load(path)

    pd.testing.assert_frame_equal(convert_rows(rows, result.columns, name), result.features)


def test_new_rows_are_read_as_the_old_ones_were() -> None:
    result = read(studied(), "price")
    rows = pd.DataFrame(
        {"extra": [1, 2], "flag": ["True", None], "age": ["n/k", "5"], "paid": ["1,234", "7"]}
        | {"when": ["03/04/2024", None], "color": ["violet", None], "size": [np.inf, "1e3"]},
        index=[7, 7],
    )

    features = convert_rows(rows, result.columns, "new.csv")

    expected = {"size": [np.nan, 1000.0], "color": pd.Series(["violet", None], dtype=object)}
    expected |= {"when": pd.Series(["2024-04-03", None], dtype="datetime64[ns]"), "paid": [1.234, 7.0]}
    expected |= {"age": [np.nan, 5.0], "flag": [1.0, np.nan]}
    pd.testing.assert_frame_equal(features, pd.DataFrame(expected))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"size": "large"},
            "new.csv: column 'size' must hold numbers, as in the training data, got 'large'. Correct",
        ),
        (
            {"size": pd.Timestamp("2024-01-01")},
            "new.csv: column 'size' must hold numbers, as in the training data, got '2024-01-01",
        ),
        (
            {"when": "12/31/2024"},
            "new.csv: column 'when' must hold dates, as in the training data, got '12/31/",
        ),
        ({"when": 5}, "new.csv: column 'when' must hold dates, as in the training data, got '5'."),
        (
            {"color": [[1]] * ROWS},
            "new.csv: column 'color' must hold categories, as in the training data, got",
        ),
    ],
)
def test_new_rows_of_another_type(columns, sentence) -> None:
    result = read(studied(), "price")

    with pytest.raises(DataError) as error:
        convert_rows(studied().assign(**columns), result.columns, "new.csv")

    assert str(error.value).startswith(sentence)


def test_new_rows_without_a_column() -> None:
    result = read(studied(), "price")

    with pytest.raises(DataError, match="new.csv has no column 'size'. Did you mean 'sizes'"):
        convert_rows(studied().rename(columns={"size": "sizes"}), result.columns, "new.csv")


def test_new_rows_may_lack_unused_columns() -> None:
    result = read(studied(), "price", drop=["age"])

    features = convert_rows(studied().drop(columns=["age", "id", "price"]).head(1), result.columns, "new.csv")

    assert list(features.columns) == ["size", "color", "when", "paid", "flag"]
