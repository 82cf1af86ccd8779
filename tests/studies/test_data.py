"""Reading and splitting tables: what is inferred, what is encoded, and every sentence that refuses one."""

import numpy as np
import pandas as pd
import pytest

from poise.studies import DataError, read, split

ROWS = 40


def table(**columns) -> pd.DataFrame:
    """Forty rows with a number, a text and a target; `columns` add or replace some."""
    random = np.random.default_rng(0)
    frame = {"size": random.normal(size=ROWS), "colour": random.choice(["red", "green"], ROWS)}
    return pd.DataFrame(frame | {"price": random.normal(size=ROWS)} | columns)


def write(folder, frame: pd.DataFrame | str):
    path = folder / "sales.csv"
    path.write_text(frame if isinstance(frame, str) else frame.to_csv(index=False), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "task", "classes", "columns"),
    [
        ("diabetes", "regression", 0, 10),
        ("breast_cancer", "binary", 2, 30),
        ("digits", "multiclass", 10, 64),
        ("wine", "multiclass", 3, 13),
    ],
)
def test_built_in_tables(name, task, classes, columns):
    found = read(name)

    assert (found.task, len(found.classes), found.features.shape[1]) == (task, classes, columns)


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (np.linspace(0.0, 1.0, ROWS), "regression", ()),
        (np.arange(ROWS) % 9, "regression", ()),
        (np.arange(ROWS) % 3, "multiclass", ("0", "1", "2")),
        (np.arange(ROWS) % 2 == 0, "binary", ("False", "True")),
        (np.where(np.arange(ROWS) % 2, 10.0, 9.5), "binary", ("9.5", "10")),
        (["no", "yes"] * 20, "binary", ("no", "yes")),
        (pd.Categorical(["c", "a", "b", "a"] * 10), "multiclass", ("a", "b", "c")),
    ],
)
def test_the_task_is_inferred(target, task, classes):
    found = read(table(price=target), "price")

    assert (found.task, found.classes) == (task, classes)


def test_the_task_can_be_chosen():
    found = read(table(price=np.arange(ROWS) % 3), "price", task="regression")

    assert found.task == "regression"
    assert found.target.dtype == "float64"


def test_a_file_and_its_frame_are_the_same_table(tmp_path):
    frame = table()

    from_file, from_frame = read(write(tmp_path, frame), "price"), read(frame, "price")

    pd.testing.assert_frame_equal(from_file.features, from_frame.features)
    assert from_file.name == "sales"


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text(table().to_csv(index=False), encoding="utf-8-sig")

    assert list(read(path, "price").features.columns) == ["size", "colour"]


def test_encoders_see_training_rows_alone():
    found = read(table(size=np.arange(ROWS, dtype=float)), "price")
    rows = split(found, seed=3)
    other = split(found, seed=4)

    np.testing.assert_allclose(rows.x_train[:, 0].mean(), 0.0, atol=1e-6)
    np.testing.assert_allclose(rows.x_train[:, 0].std(), 1.0, rtol=1e-6)
    np.testing.assert_allclose([rows.y_train.mean(), rows.y_train.std()], [0.0, 1.0], atol=1e-6)
    assert abs(rows.x_validation[:, 0].mean()) > 1e-3
    assert rows.centre != other.centre


def test_inputs_are_named_after_columns_and_categories():
    rows = split(read(table(), "price"))

    assert rows.inputs == ("size", "colour=green", "colour=red")
    assert rows.owners == ("size", "colour", "colour")
    assert set(np.unique(rows.x_train[:, 1:])) == {0.0, 1.0}


def test_a_category_that_only_validation_rows_have_is_ignored():
    colour = ["red"] * ROWS
    for row in range(ROWS):
        colour[row] = "blue"
        rows = split(read(table(colour=colour), "price"), seed=0)
        if rows.inputs == ("size", "colour=red"):
            break
        colour[row] = "red"

    assert 0.0 in rows.x_validation[:, 1]


def test_classes_are_split_in_proportion():
    rows = split(read(table(price=["rare"] * 10 + ["common"] * 30), "price"), validation=0.5)

    assert rows.y_train.dtype == "float32"
    assert rows.y_train.sum() == rows.y_validation.sum() == 5
    assert rows.table.classes == ("common", "rare")


def test_several_classes_become_numbers():
    rows = split(read(table(price=["c", "a", "b", "a"] * 10), "price"))

    assert rows.y_train.dtype == "int32"
    assert rows.y_train.ndim == 1
    assert set(rows.y_train) == {0, 1, 2}


def test_the_seed_decides_the_rows():
    found = read("diabetes")

    np.testing.assert_array_equal(split(found, seed=1).x_train, split(found, seed=1).x_train)
    assert not np.array_equal(split(found, seed=1).x_train, split(found, seed=2).x_train)


def test_truth_values_and_nullable_numbers_are_numbers():
    flags = pd.array([True, False] * 20, dtype="boolean")
    found = read(table(colour=flags, size=pd.array(range(ROWS), dtype="Int64")), "price")

    assert set(found.features.dtypes) == {np.dtype("float64")}


def test_columns_can_be_dropped():
    assert list(read(table(), "price", drop=["colour"]).features.columns) == ["size"]


HOSTILE = ["<script>alert(1)</script>", "\"quotes\" & 'more'", "naïve ümlaut 数", "line\nbreak", "{{ 7 * 7 }}", "a,b"]


def test_odd_column_names_are_kept_as_they_are(tmp_path):
    frame = table(**{name: np.arange(ROWS) for name in HOSTILE})

    assert list(read(write(tmp_path, frame), "price").features.columns) == ["size", "colour", *HOSTILE]


def refused(*arguments, **keywords) -> str:
    with pytest.raises(DataError) as error:
        split(read(*arguments, **keywords))
    return str(error.value)


def test_a_missing_file(tmp_path):
    assert refused(tmp_path / "none.csv", "price") == (
        f"There is no file '{tmp_path}/none.csv'. Give the path of a CSV file, or a built-in table: "
        "diabetes, breast_cancer, digits, wine."
    )
    assert "Did you mean 'diabetes'?" in refused("diabtes")


def test_a_folder(tmp_path):
    assert refused(tmp_path, "price") == f"'{tmp_path}' is a folder. Give the path of a CSV file."


def test_another_kind_of_file(tmp_path):
    path = tmp_path / "sales.parquet"
    path.write_bytes(b"PAR1")

    assert "'sales.parquet' is not a CSV file" in refused(path, "price")


def test_an_empty_file(tmp_path):
    assert refused(write(tmp_path, ""), "price") == "'sales.csv' is empty. A table needs a header line and rows."
    assert refused(write(tmp_path, "\n\n"), "price") == "'sales.csv' is empty. A table needs a header line and rows."
    assert refused(write(tmp_path, "a,b\n"), "b") == "'sales.csv' is empty: it has a header and no rows."


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_bytes("größe,price\n1,2\n".encode("latin-1"))

    assert refused(path, "price") == "'sales.csv' is not text in UTF-8. Save it as CSV in UTF-8."


@pytest.mark.parametrize("text", ["a,b\n1,2\n3,4,5\n", "a,b\n1,2,3\n4,5,6\n", 'a,b\n1,"2\n'])
def test_ragged_rows(tmp_path, text):
    assert refused(write(tmp_path, text), "b").startswith("'sales.csv' cannot be read as CSV: ")


def test_no_such_target():
    assert refused(table(), "prize") == (
        "The table has no column 'prize'. Nearest: 'price', 'size'. Its columns are: 'size', 'colour', 'price'."
    )
    assert refused("wine", "colour_intensity").startswith(
        "wine has no column 'colour_intensity'. Nearest: 'color_intensity'"
    )


def test_no_target_given():
    assert refused(table()) == (
        "The table needs a target. Name the column to predict, one of: 'size', 'colour', 'price'."
    )


def test_another_delimiter(tmp_path):
    assert "separated by something other than commas" in refused(write(tmp_path, table().to_csv(sep=";")), "price")


def test_dropping_what_is_not_there_or_is_the_target():
    assert "has no column 'colors'. Nearest: 'colour'" in refused(table(), "price", drop=["colors"])
    assert "is the target and cannot be dropped" in refused(table(), "price", drop=["price"])


def test_a_constant_target():
    assert refused(table(price=7), "price") == (
        "Target 'price' is constant: every row has '7', so there is nothing to predict. Choose another target."
    )


def test_a_text_target_in_regression():
    message = refused(table(), "colour", task="regression")

    assert message.startswith("Target 'colour' is text, such as 'green', 'red', and regression needs numbers.")


def test_numbers_with_one_odd_value_in_regression():
    price = [str(number) for number in range(ROWS - 1)] + ["n/k"]

    assert "would be numbers but for values such as 'n/k'" in refused(table(price=price), "price", task="regression")


def test_a_binary_task_with_three_classes():
    message = refused(table(price=["a", "b", "c", "a"] * 10), "price", task="binary")

    assert message == (
        "Target 'price' has 3 different values and a binary task two. Choose the task multiclass or regression."
    )


def test_an_unknown_task():
    assert refused(table(), "price", task="ranking").startswith("Task 'ranking' is unknown. Use one of regression,")


def test_missing_and_infinite_values_name_columns_and_rows():
    frame = table()
    frame.loc[[1, 2], "size"] = [np.nan, np.inf]
    frame.loc[2, "colour"] = None
    frame.loc[5, "price"] = np.nan

    assert refused(frame, "price") == (
        "Missing or infinite values in 'size' (2), 'colour' (1), 'price' (1): 3 of 40 rows have one, and a network "
        "cannot read them. Fill them in, remove these rows, or drop the columns."
    )


def test_many_columns_with_missing_values_are_counted():
    frame = table(**{f"column {number}": np.nan for number in range(30)})

    assert "'column 4' (40) and 25 more columns: 40 of 40 rows" in refused(frame, "price")


def test_dropped_columns_may_miss_values():
    assert read(table(size=np.nan), "price", drop=["size"]).features.shape == (ROWS, 1)


def test_infinite_values_in_a_file(tmp_path):
    assert "in 'size' (40)" in refused(write(tmp_path, table(size=-np.inf)), "price")


def test_duplicate_names_in_a_file_and_in_a_frame(tmp_path):
    text = "a,b,a,b,c\n" + "1,2,3,4,5\n" * 30

    assert refused(write(tmp_path, text), "c") == (
        "sales.csv has more than one column named 'a', 'b'. Give each column its own name."
    )
    assert "The table has more than one column named 'a'" in refused(pd.DataFrame([[1, 2]], columns=["a", "a"]), "a")


def test_a_column_without_a_name(tmp_path):
    message = refused(write(tmp_path, table().to_csv()), "price")

    assert message.startswith("sales.csv has no name for column 1. Name it, or leave it out")


def test_too_few_rows():
    assert refused(table().head(19), "price") == (
        "The table has 19 rows, and a study needs at least 20 to train on some and validate on others. Bring more rows."
    )


def test_no_features():
    assert "has no column beside its target 'price'" in refused(table()[["price"]], "price")


def test_a_class_with_one_member():
    message = refused(table(price=["single"] + ["other", "more"] * 19 + ["more"]), "price")

    assert message.startswith("Target 'price' has classes with one member: 'single'.")


def test_a_share_that_leaves_too_little():
    found = read(table(), "price")

    for share, reason in [(0.0, "must lie between 0 and 1"), (1.5, "must lie between"), (0.001, "fewer than 2 rows")]:
        with pytest.raises(DataError, match=reason):
            split(found, validation=share)


def test_identifiers_and_free_text():
    names = [f"customer {number}" for number in range(ROWS)]

    assert refused(table(customer=names), "price") == (
        "Column 'customer' is text with 40 different values in 40 rows: an identifier or free text (at most 50). "
        "Drop it, or group its values."
    )


def test_too_many_categories():
    frame = pd.concat([table()] * 6, ignore_index=True)
    frame["town"] = [f"town {number % 60}" for number in range(len(frame))]

    assert "60 different values in 240 rows: too many to give each an input" in refused(frame, "price")


def test_numbers_with_odd_values_in_a_feature():
    size = [str(number) for number in range(ROWS - 1)] + ["unknown"]

    assert "would be numbers but for values such as 'unknown'" in refused(table(size=size), "price")


def test_numbers_beyond_float32():
    size = np.full(ROWS, 1.0)
    size[0] = 1e300

    message = refused(table(size=size), "price")

    assert message == "The numbers in 'size' are too large to standardise. Use other units."
