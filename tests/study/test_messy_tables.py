"""Ten tables as people have them go through a study and `predict`: every sentence is true, new rows are read as meant."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
from oracles.claims import Claims

from poise.study.result import Study
from poise.study.run import run_study

FAST: dict[str, Any] = {
    "max_iter": 20, "strengths": 4, "cv": 2, "hidden_layer_sizes": (4,), "penalties": ["l2", "adaptive"]
}  # fmt: skip
ROWS, NEW = 80, 12


@dataclass
class Messy:
    """A table, and what a study must make of it.

    Args:
        data: What `run_study` reads.
        new: New rows in the same form, without the target.
        clean: The new rows as a clean frame, which must get the same predictions.
        task: The task that is inferred.
        unused: Columns that are set aside.
        notes: Texts of which each is in some note.
        settings: Further arguments of `run_study`.
    """

    data: Any
    new: Any
    clean: pd.DataFrame
    task: str
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def draw(seed: int, rows: int = ROWS + NEW) -> tuple[np.random.Generator, pd.DataFrame]:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 2)), columns=["a", "b"])
    return random, frame.assign(kind=random.choice(["red", "green", "blue"], rows))


def write(folder: Path, frame: pd.DataFrame, **options: Any) -> tuple[Path, Path]:
    """Write a CSV file of the table and one of the new rows without the target `y`."""
    old, new = folder / "table.csv", folder / "new.csv"
    frame[:ROWS].to_csv(old, index=False, **options)
    frame[ROWS:].drop(columns="y").to_csv(new, index=False, **options)
    return old, new


def german(values: pd.Series) -> pd.Series:
    return values.map(lambda value: f"{value:,.2f}".translate(str.maketrans(",.", ".,")))


def german_prices(folder: Path) -> Messy:
    _, frame = draw(0)
    clean = frame.assign(area=(1500 + 400 * frame["a"]).round(2))
    messy = clean.assign(area=german(clean["area"]), y=german(30_000 + 20 * clean["area"] + 2000 * frame["b"]))
    old, new = write(folder, messy, sep=";")
    return Messy(old, new, clean[ROWS:], "regression")


def dollars_and_percent(folder: Path) -> Messy:
    _, frame = draw(1)
    clean = frame.assign(rate=(10 + 3 * frame["a"]).round(1), profit=(1000 * frame["b"]).round())
    messy = clean.assign(
        rate=clean["rate"].map("{:.1f}%".format),
        profit=clean["profit"].map(lambda value: f"({-value:,.0f})" if value < 0 else f"{value:,.0f}"),
        y=(20_000 * np.exp(0.3 * frame["a"])).map("${:,.0f}".format),
    )
    return Messy(*write(folder, messy), clean[ROWS:], "regression")


def codes_and_identifiers(folder: Path) -> Messy:
    random, frame = draw(2)
    messy = frame.assign(
        customer_id=random.permutation(90_000)[: len(frame)], y=np.where(frame["a"] > 0.3, "007", "012")
    )
    messy.insert(0, "Unnamed: 0", range(len(messy)))
    return Messy(*write(folder, messy), frame[ROWS:], "binary", ("Unnamed: 0", "customer_id"))


def sorted_classes(folder: Path) -> Messy:
    random, frame = draw(3)
    labels = np.array(["low", "middle", "top"])[np.digitize(frame["a"] + 0.5 * random.normal(size=len(frame)), [-1, 1])]
    old = frame[:ROWS].assign(y=labels[:ROWS]).sort_values("y", ignore_index=True)
    messy = pd.concat([old, frame[ROWS:]], ignore_index=True)
    messy["rownames"] = range(1, len(messy) + 1)
    return Messy(*write(folder, messy), frame[ROWS:], "multiclass", ("rownames",))


def small_counts(folder: Path) -> Messy:
    random, frame = draw(4)
    clean = frame.assign(mentor=random.integers(0, 9, len(frame)))
    y = random.negative_binomial(1, 1 / (1 + np.exp(0.5 + 0.5 * frame["a"])))
    return Messy(*write(folder, clean.assign(y=y)), clean[ROWS:], "counts")


def visits_over_time(folder: Path) -> Messy:
    _, frame = draw(5)
    days = pd.Timestamp("2024-01-01 13:30") + pd.to_timedelta(np.arange(len(frame)) // 2, unit="D")
    clean = frame.assign(visit=days)
    messy = clean.assign(visit=days.strftime("%m/%d/%Y %I:%M %p"), y=frame["a"] + frame["b"] ** 2)
    return Messy(*write(folder, messy), clean[ROWS:], "regression", settings={"time_column": "visit"})


def weights_and_gaps(folder: Path) -> Messy:
    random, frame = draw(6)
    clean = frame.assign(size=random.normal(size=len(frame)).round(2))
    clean.loc[random.random(len(frame)) < 0.2, "size"] = np.nan
    messy = clean.assign(w=random.choice([0, 1, 3], len(frame)), y=2 * frame["a"] + frame["b"])
    messy["size"] = messy["size"].map(lambda value: "." if np.isnan(value) else f"{value:.2f}")
    return Messy(*write(folder, messy), clean[ROWS:], "regression", settings={"weight": "w"})


def wide_genes(folder: Path) -> Messy:
    random = np.random.default_rng(7)
    frame = pd.DataFrame(random.normal(size=(ROWS // 2 + NEW, 60)), columns=[f"gene {number}" for number in range(60)])
    frame["y"] = np.where(frame["gene 3"] - frame["gene 4"] > 0, "case", "control")
    old, new = folder / "table.parquet", folder / "new.parquet"
    frame[:-NEW].to_parquet(old)
    frame[-NEW:].drop(columns="y").to_parquet(new)
    return Messy(old, new, frame[-NEW:], "binary")


def polars_with_none(folder: Path) -> Messy:
    random, frame = draw(8)
    clean = frame.assign(fence=random.choice(["None", "wood", "wire"], len(frame)), new=random.random(len(frame)) < 0.5)
    y = frame["a"] + 2.0 * (clean["fence"] == "None") + 0.1 * random.normal(size=len(frame))
    return Messy(
        polars.DataFrame(clean.assign(y=y)[:ROWS].to_dict("list")), polars.DataFrame(clean[ROWS:].to_dict("list")),
        clean[ROWS:], "regression",
    )  # fmt: skip


def copies(folder: Path) -> Messy:
    random, frame = draw(9)
    old = pd.concat([frame[: ROWS // 2]] * 2)
    frame = pd.concat([old, frame[ROWS:]], ignore_index=True)
    return Messy(
        *write(folder, frame.assign(y=frame["a"] + random.normal(size=len(frame)))), frame[ROWS:], "regression",
        notes=("same features",),
    )  # fmt: skip


TABLES: list[Callable[[Path], Messy]] = [
    german_prices, dollars_and_percent, codes_and_identifiers, sorted_classes, small_counts, visits_over_time,
    weights_and_gaps, wide_genes, polars_with_none, copies,
]  # fmt: skip


@pytest.mark.parametrize("make", TABLES, ids=lambda make: make.__name__)
def test_a_study_of_a_messy_table_is_true_and_predicts(make, tmp_path) -> None:
    table = make(tmp_path)
    study = run_study(table.data, "y", **FAST, **table.settings)

    data = study.description["data"]
    assert data["task"] == table.task
    assert [column["name"] for column in data["columns"] if column["kind"] == "set aside"] == [*table.unused]
    for text in table.notes:
        assert any(text in note for note in data["notes"])
    Claims(study).check_answer()

    study.save(tmp_path / "study")
    predicted = Study.load(tmp_path / "study").predict(table.new)
    expected = study.predict(table.clean)
    pd.testing.assert_frame_equal(predicted.reset_index(drop=True), expected.reset_index(drop=True), rtol=1e-4)
    assert len(predicted) == NEW
    assert predicted.notna().all(axis=None)
