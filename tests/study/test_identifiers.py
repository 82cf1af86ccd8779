"""Columns that count or name the rows are set aside, and measurements are not."""

import numpy as np
import pandas as pd
import pytest

from poise.study.errors import DataError
from poise.study.report.script import write_script
from poise.study.result import Study
from poise.study.run import run_study
from poise.study.tables import read

ROWS = 60
RANDOM = np.random.default_rng(0)
SIZE, PRICE = RANDOM.normal(size=ROWS), RANDOM.normal(size=ROWS)
EVERY = np.arange(ROWS)
SHUFFLED = RANDOM.permutation(ROWS)
LETTERS = [f"{n:x}-{n * 7919 % 65536:x}" for n in EVERY]


def kind(values, name: str = "it", **keywords) -> str:
    frame = pd.DataFrame({name: values, "size": SIZE, "price": PRICE})
    return next(column.kind for column in read(frame, "price", **keywords).columns if column.name == name)


IDENTIFIERS = {
    "rows from 0": ("it", EVERY),
    "rows from 1": ("it", EVERY + 1),
    "rows from the last": ("it", EVERY[::-1]),
    "rows in steps of ten": ("it", 1000 + 10 * EVERY),
    "rows as text": ("it", [str(n) for n in EVERY]),
    "rows as nullable integers": ("it", pd.array([*EVERY], dtype="Int64")),
    "an index that pandas wrote": ("Unnamed: 0", SHUFFLED),
    "an index that pandas wrote twice": ("Unnamed: 0.1", SHUFFLED),
    "an index without a name": ("", SHUFFLED),
    "an index of R": ("rownames", SHUFFLED + 1),
    "an index of R with an underscore": ("row_names", SHUFFLED + 1),
    "row names as text": ("row_names", LETTERS),
    "index": ("index", SHUFFLED),
    "id": ("id", SHUFFLED),
    "ID": ("ID", SHUFFLED * 17 + 5),
    "customer_id": ("customer_id", SHUFFLED),
    "PassengerId": ("PassengerId", SHUFFLED),
    "an id with a repeat": ("customer_id", [*SHUFFLED[:-1], SHUFFLED[0]]),
    "an id with a gap": ("customer_id", [None, *SHUFFLED[1:]]),
    "uuid": ("uuid", LETTERS),
    "a key as text": ("it", LETTERS),
}
MEASUREMENTS = {
    "a sorted measurement": ("it", np.sort(SIZE)),
    "equal steps of a measurement": ("it", EVERY / 10),
    "equal steps of whole numbers stored as floats": ("it", EVERY.astype("float64")),
    "equal steps of whole numbers with decimals in text": ("it", [f"{n}.0" for n in EVERY]),
    "sorted years with repeats": ("year", 1990 + EVERY // 3),
    "sorted whole numbers in unequal steps": ("it", EVERY**2),
    "whole numbers, each once": ("amount", SHUFFLED),
    "dates": ("day", pd.date_range("2024-01-01", periods=ROWS)),
    "durations": ("it", pd.to_timedelta(EVERY, unit="min")),
    "ids of a few customers": ("customer_id", EVERY % 7),
    "an index that is a measurement": ("body_mass_index", 20 + EVERY % 15),
    "a word that ends like an identifier": ("paid", SHUFFLED),
    "an id with fractions": ("id", SIZE),
}


@pytest.mark.parametrize("case", IDENTIFIERS)
def test_identifiers_are_set_aside_unless_they_are_kept(case) -> None:
    name, values = IDENTIFIERS[case]
    label = name or "Unnamed: 0"
    frame = pd.DataFrame({name: values, "size": SIZE, "price": PRICE})

    result, kept = read(frame, "price"), read(frame, "price", keep=[label])

    assert list(result.features) == ["size"]
    assert result.notes[0].startswith(f"Set aside: '{label}' (")
    assert list(kept.features) == [label, "size"]
    assert kept.notes == ()


@pytest.mark.parametrize("case", MEASUREMENTS)
def test_measurements_are_used(case) -> None:
    name, values = MEASUREMENTS[case]

    assert kind(values, name) != "set aside"


def sorted_by_class() -> pd.DataFrame:
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"row": range(90), "x": random.normal(size=90), "kind": np.repeat(["a", "b", "c"], 30)})
    return frame.rename(columns={"row": "position"})


def test_the_row_number_of_a_table_sorted_by_class_is_set_aside() -> None:
    result = read(sorted_by_class(), "kind")

    assert list(result.features) == ["x"]
    assert result.notes == ("Set aside: 'position' (a row number: whole numbers in equal steps from row to row).",)


def test_rows_that_are_left_out_hide_no_row_number() -> None:
    frame = sorted_by_class().assign(w=1.0)
    frame.loc[[3, 4, 50], "kind"] = None
    frame.loc[[7, 80], "w"] = 0.0

    result = read(frame, "kind", weight="w")

    assert len(result.target) == 85
    assert list(result.features) == ["x"]


def test_a_file_with_an_index(tmp_path) -> None:
    for ending, write in [("csv", pd.DataFrame.to_csv), ("xlsx", pd.DataFrame.to_excel)]:
        path = tmp_path / f"sales.{ending}"
        write(pd.DataFrame({"size": SIZE, "price": PRICE}).sample(frac=1.0, random_state=0), path)

        result = read(path, "price")

        assert [(column.name, column.is_used) for column in result.columns] == [("Unnamed: 0", False), ("size", True)]


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"keep": ["ids"]}, "The table has no column 'ids'. Did you mean 'id'?"),
        ({"keep": ["id"], "drop": ["id"]}, "Column 'id' cannot be both dropped and kept. Choose one of the two."),
        (
            {"keep": ["price"]},
            "Column 'price' is the target column and cannot be kept as a feature. Do not keep it, or choose",
        ),
        (
            {"keep": ["id"], "groups": "id"},
            "Column 'id' is the group column and cannot be kept as a feature. Do not keep it,",
        ),
    ],
)
def test_columns_that_cannot_be_kept(keywords, sentence) -> None:
    frame = pd.DataFrame({"id": EVERY, "size": SIZE, "price": PRICE})

    with pytest.raises(DataError) as error:
        read(frame, "price", **keywords)

    assert str(error.value).startswith(sentence)
    assert error.value.argument == "keep"


def test_a_constant_cannot_be_kept() -> None:
    frame = pd.DataFrame({"same": 1.0, "size": SIZE, "price": PRICE})

    assert list(read(frame, "price", keep=["same"]).features) == ["size"]


def test_kept_columns_are_recorded_and_needed_for_predictions(tmp_path) -> None:
    frame = pd.DataFrame({"nr": EVERY, "size": SIZE, "price": PRICE})

    study = run_study(frame, "price", keep=["nr"], penalties=[], cv=2, max_iter=2, hidden_layer_sizes=(2,))
    study.save(tmp_path / "run")

    loaded = Study.load(tmp_path / "run")
    assert loaded.description["settings"]["keep"] == ["nr"]
    assert loaded.description["inputs"] == ["nr", "size"]
    assert 'keep=["nr"]' in write_script(study.findings)
    with pytest.raises(DataError, match="has no column 'nr'"):
        loaded.predict(frame.drop(columns="nr"))
