"""The task that a target poses: counts are told apart from codes of classes, ratings, prices and years."""

from itertools import chain, repeat

import numpy as np
import pandas as pd
import pytest

from poise.study.errors import DataError
from poise.study.tables import read
from poise.study.task_inference import infer_task

ARTICLES = {
    0: 275, 1: 246, 2: 178, 3: 84, 4: 67, 5: 27, 6: 17, 7: 12, 8: 1, 9: 2, 10: 1, 11: 1, 12: 2, 16: 1, 19: 1,
}  # fmt: skip
"""The articles of 915 biochemists in the last three years of their PhD (Long 1990): rows by number."""


def spread(frequencies: dict[int, int]) -> np.ndarray:
    """Each value in as many rows as its frequency."""
    return np.array([*chain.from_iterable(repeat(value, rows) for value, rows in frequencies.items())], dtype="float64")


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


TARGETS = {
    "articles": (spread(ARTICLES), "counts"),
    "articles of few": (spread({value: -(-rows // 20) for value, rows in ARTICLES.items() if value < 7}), "counts"),
    "Poisson": (draw().poisson(2.0, 500), "counts"),
    "overdispersed": (draw().negative_binomial(1, 0.3, 500), "counts"),
    "many zeros": (draw().poisson(3.0, 500) * (draw(1).random(500) < 0.5), "counts"),
    "yes or no": (draw().integers(0, 2, 200), "binary"),
    "stars": (spread({1: 9, 2: 12, 3: 40, 4: 90, 5: 120}), "multiclass"),
    "stars, mostly low": (spread({1: 120, 2: 60, 3: 30, 4: 9, 5: 3}), "multiclass"),
    "codes of three classes": (spread({0: 200, 1: 50, 2: 3}), "multiclass"),
    "digits": (draw().integers(0, 10, 500), "multiclass"),
    "heart disease by grade": (spread({0: 164, 1: 55, 2: 36, 3: 35, 4: 13}), "multiclass"),
    "codes with a code for unknown": (spread({0: 80, 1: 60, 2: 50, 3: 40, 9: 4}), "multiclass"),
    "codes in any order": (spread({0: 20, 1: 90, 2: 3, 3: 60, 4: 70}), "multiclass"),
    "likelihood to recommend": (np.clip(draw().normal(7, 2, 300).round(), 0, 10), "multiclass"),
    "years": (draw().integers(1950, 2020, 300), "regression"),
    "prices": (draw().lognormal(5, 1, 300).round(), "regression"),
    "prices, some of them free": (draw().lognormal(5, 1, 300).round() * (draw(1).random(300) < 0.5), "regression"),
    "ages": (draw().integers(0, 90, 2000), "regression"),
    "halves": (draw().poisson(2.0, 500) / 2, "regression"),
    "differences": (draw().poisson(2.0, 500) - 1, "multiclass"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_numbers(case) -> None:
    values, task = TARGETS[case]

    assert infer_task(np.asarray(values, dtype="float64"), is_number=True)[0] == task


@pytest.mark.parametrize("seed", range(20))
def test_codes_of_equally_frequent_classes_are_no_counts(seed) -> None:
    for classes, rows in ((3, 60), (5, 60), (5, 1000), (10, 200)):
        values = draw(seed).integers(0, classes, rows).astype("float64")

        assert infer_task(values, is_number=True)[0] == "multiclass"


def test_the_table_says_what_was_inferred() -> None:
    frame = pd.DataFrame({"mentor": draw().normal(size=915), "articles": spread(ARTICLES)})

    inferred, requested = read(frame, "articles"), read(frame, "articles", task="regression")

    assert (inferred.task.name, inferred.task_reason) == ("counts", "whole numbers from 0 with a long tail")
    assert inferred.target.to_numpy().tolist() == frame["articles"].tolist()
    assert (requested.task.name, requested.task_reason) == ("regression", "")


@pytest.mark.parametrize(
    ("frequencies", "remedy"),
    [
        ({0: 30, 1: 20, 2: 9, 3: 1}, "Choose the task counts or regression, or merge or remove these classes."),
        ({-1: 30, 0: 20, 2: 9, 3: 1}, "Choose the task regression, or merge or remove these classes."),
    ],
)
def test_numbers_of_single_rows_can_be_another_task(frequencies, remedy) -> None:
    values = spread(frequencies)
    frame = pd.DataFrame({"x": draw().normal(size=len(values)), "y": values})

    with pytest.raises(DataError) as error:
        read(frame, "y")

    assert str(error.value) == (
        f"Target 'y' has classes with a single row: '3'. Each class needs at least two. {remedy}"
    )  # fmt: skip
