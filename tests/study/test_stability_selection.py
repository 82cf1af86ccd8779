"""Stability selection: the bound against distributions searched by brute force, the halves, and a study that uses it."""

from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from poise.path.lanes.trainer import LaneTrainer
from poise.study import stability_selection
from poise.study.error_bound import bound_false_columns, largest_tail, most_per_half
from poise.study.errors import DataError
from poise.study.result import Study
from poise.study.run import run_study
from poise.study.stability_selection import first_columns

SMALL: dict[str, Any] = {"penalties": ["group"], "hidden_layer_sizes": (), "strengths": 5, "cv": 2, "max_iter": 60}


def searched_tail(mean: float, count: int, size: int, r: float) -> float:
    """The largest tail that a search over r-concave distributions finds: those of f for which f^r is convex."""
    random, best = np.random.default_rng(0), 0.0
    for last in range(count, size + 1):
        values = np.arange(last + 1.0)

        def distribution(t: np.ndarray, last: int = last) -> np.ndarray:
            slopes = t[0] + np.cumsum([0.0, *np.exp(np.clip(t[1:last], -30, 30))])
            convex = np.concatenate([[0.0], np.cumsum(slopes)])
            f = (convex - convex.min() + np.exp(np.clip(t[last], -30, 30))) ** (1 / r)
            return f / f.sum()

        def cost(t: np.ndarray, values: np.ndarray = values) -> float:
            f = distribution(t)
            return -f[count:].sum() + 1e3 * max(0.0, float(f @ values) - mean * size) ** 2

        for _ in range(10):
            options = {"maxiter": 3000, "maxfev": 3000, "xatol": 1e-9, "fatol": 1e-12}
            found = minimize(cost, 2 * random.normal(size=last + 1), method="Nelder-Mead", options=options)
            f = distribution(found.x)
            if f @ values <= mean * size * 1.001:
                best = max(best, float(f[count:].sum()))
    return best


@pytest.mark.parametrize(
    ("mean", "count", "size", "r"), [(0.1, 4, 5, -0.5), (0.05, 3, 5, -0.5), (0.15, 4, 5, -0.25), (0.1, 3, 5, -0.25)]
)
def test_the_largest_tail_is_that_of_a_search(mean, count, size, r) -> None:
    assert largest_tail(mean, count, size, r) == pytest.approx(searched_tail(mean, count, size, r), rel=2e-3)


@pytest.mark.parametrize("r", [-0.5, -0.25])
def test_no_random_distribution_exceeds_the_largest_tail(r) -> None:
    random, size, highest = np.random.default_rng(1), 50, 0.0
    for _ in range(300):
        last = int(random.integers(10, size + 1))
        slopes = np.sort(random.normal(size=last) * random.choice([0.1, 1.0, 10.0]) + random.choice([0.0, 1.0, 5.0]))
        convex = np.concatenate([[0.0], np.cumsum(slopes)])
        f = (convex - convex.min() + random.exponential() * random.choice([0.01, 1.0])) ** (1 / r)
        f /= f.sum()
        mean, count = float(f @ np.arange(last + 1)) / size, int(random.integers(1, size + 1))
        tail, largest = float(f[count:].sum()), largest_tail(mean, count, size, r)
        assert tail <= largest * (1 + 1e-6) + 1e-12
        highest = max(highest, tail / largest if largest > 1e-6 else 0.0)
    assert highest > 0.5


def test_the_bound_is_sharper_than_that_of_meinshausen_and_buehlmann() -> None:
    for columns in (10, 50, 500):
        for per_half in range(1, columns // 4, 3):
            classic = per_half**2 / ((2 * 0.9 - 1) * columns)
            assert 0.0 < bound_false_columns(per_half, columns, 0.9, 25) < classic


def test_the_most_columns_per_half_just_meet_the_bound() -> None:
    for columns in (10, 50, 500):
        most = most_per_half(1.0, columns, 0.9, 25)
        assert bound_false_columns(most, columns, 0.9, 25) <= 1.0 < bound_false_columns(most + 1, columns, 0.9, 25)
    assert most_per_half(1e-9, 50, 0.9, 25) == 0


def test_the_first_columns_are_those_read_at_the_largest_strengths() -> None:
    is_read = np.array(
        [
            [[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]],  # the third comes first, then the first
            [[1, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]],  # one that is dropped again counts
            [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]],  # more than are allowed, from the start
        ],
        bool,
    )

    assert first_columns(is_read, 2).tolist() == [[True, False, True], [True, True, False], [False, False, False]]
    assert first_columns(is_read, 1).tolist() == [[False, False, True], [True, False, False], [False, False, False]]


def table_of(rows=300, seed=0) -> pd.DataFrame:
    """Three of 12 columns matter."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 12))
    y = 2 * x[:, 0] - 1.5 * x[:, 1] + x[:, 2] + random.normal(size=rows)
    return pd.DataFrame(x, columns=[f"x{j}" for j in range(12)]).assign(y=y)


@pytest.fixture(scope="module")
def study() -> Study:
    return run_study(table_of(), "y", max_false=1.0, **SMALL)


def test_a_study_selects_the_columns_that_matter(study) -> None:
    found = study.stability_selection

    assert found is not None
    assert found.index[found["selected"]].tolist() == ["x0", "x1", "x2"]
    assert found["share"].iloc[:3].tolist() == [1.0, 1.0, 1.0]
    assert found["share"].iloc[3:].max() < 0.9
    content = study.description["stability_selection"]
    assert content["per_half"] == most_per_half(1.0, 12, 0.9, 25)
    assert content["expected_false"] == pytest.approx(bound_false_columns(content["per_half"], 12, 0.9, 25))
    assert found["share"].sum() <= content["per_half"]


def test_the_answer_and_the_saved_study_say_so(study, tmp_path) -> None:
    assert "halves of the training rows selects 3 of 12 columns: “x0”, “x1” and “x2”." in study.answer[1]
    assert "The expected number of false columns among them is at most 0." in study.answer[1]

    study.save(tmp_path / "study")

    loaded: Any = Study.load(tmp_path / "study")
    pd.testing.assert_frame_equal(loaded.stability_selection, study.stability_selection)
    assert "random halves of the training rows" in (tmp_path / "study" / "report.html").read_text()


def test_nothing_is_selected_from_noise() -> None:
    frame = table_of().assign(y=np.random.default_rng(5).normal(size=300))

    found = run_study(frame, "y", max_false=0.1, **SMALL)

    assert found.description["stability_selection"]["selected"] == []
    assert "halves of the training rows selects no column." in found.answer[1]


def test_pieces_and_hidden_layers_can_be_used() -> None:
    frame = table_of()
    frame["y"] = 3 * np.abs(frame["x0"]) + frame["x1"] ** 2 + np.random.default_rng(5).normal(size=300)
    settings = {**SMALL, "penalties": ["adaptive"], "hidden_layer_sizes": (4,), "encoding": "piecewise"}

    found = run_study(frame, "y", max_false=0.1, **settings).stability_selection

    assert found is not None
    assert found.index[found["selected"]].tolist() == ["x0", "x1"]


def test_finished_halves_are_kept(tmp_path, monkeypatch) -> None:
    settings = {**SMALL, "max_iter": 5}
    first = run_study(table_of(), "y", max_false=1.0, checkpoint=tmp_path, **settings)
    monkeypatch.setattr(LaneTrainer, "run", None)  # nothing is left to train

    again = run_study(table_of(), "y", max_false=1.0, checkpoint=tmp_path, **settings)

    assert any((tmp_path / "halves").iterdir())
    pd.testing.assert_frame_equal(
        cast("pd.DataFrame", again.stability_selection), cast("pd.DataFrame", first.stability_selection)
    )


def test_halves_that_are_too_large_are_refused_before_anything_is_trained(monkeypatch) -> None:
    monkeypatch.setattr(stability_selection, "MOST_BYTES", 100_000)
    monkeypatch.setattr(LaneTrainer, "run", None)

    with pytest.raises(
        DataError, match=r"^max_false needs 0\.0 GiB of memory for the halves of 240 rows with 12 inputs"
    ):
        run_study(table_of(), "y", max_false=1.0, encoding="standard", **SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_false": 0.0}, r"max_false must be a positive number, such as 1.0, got 0\.0"),
        ({"max_false": "one"}, "max_false must be a positive number, such as 1.0, got 'one'"),
        ({"max_false": 1e-6}, "max_false=1e-06 is too small for 12 columns"),
        ({"penalties": ["l2"]}, "max_false needs a penalty that drops columns, got l2"),
        ({"time_column": "x11"}, "max_false cannot be combined with the time column 'x11'"),
    ],
)
def test_bad_requests_are_refused(changes, message) -> None:
    with pytest.raises(DataError, match=message):
        run_study(table_of(), "y", **{**SMALL, "max_false": 1.0, **changes})
