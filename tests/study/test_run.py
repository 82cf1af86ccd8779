"""The whole job on a table: no row is used too early, the numbers agree, and planted columns are selected."""

import doctest
import importlib
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from poise.study import run as studies
from poise.study.candidates.penalties import find_shared_path
from poise.study.errors import DataError
from poise.study.run import run_study
from poise.study.scores import Estimate
from poise.study.splits import split_test_rows
from poise.study.tasks.table import make_task
from poise.study.verdict import Comparison

FAST: dict[str, Any] = {"strengths": 4, "cv": 2, "max_iter": 60}
WORSE, SAME = Estimate(-0.2, -0.3, -0.1), Estimate(0.0, -0.1, 0.1)


def planted(rows=240, seed=0) -> pd.DataFrame:
    """y depends on `curved` and `color` only."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 12)), columns=["curved", *"abcdefghijk"])
    frame["color"] = random.choice(["red", "green", "blue"], rows)
    frame["y"] = frame["curved"] ** 2 + 2.0 * (frame["color"] == "red") + 0.5 * random.normal(size=rows)
    return frame


@pytest.fixture(scope="module")
def small() -> Any:
    return run_study("wine", penalties=["l2", "group", "l2"], **FAST).findings


def test_a_penalty_that_hurts_is_not_chosen_unless_it_is_requested(monkeypatch) -> None:
    def hurts(candidates, baselines, *arguments, **settings) -> list[Comparison]:
        first = candidates[0] is not baselines[0]
        return [Comparison(WORSE if first else SAME, WORSE if first else SAME), *[Comparison(SAME, SAME)] * 3]

    monkeypatch.setattr(studies, "compare", hurts)
    study = run_study("wine", penalties=["l2"], **FAST)
    requested = run_study("wine", penalties=["l2"], choose="l2", **FAST)

    assert (study.chosen, study.outcome, requested.chosen, requested.outcome) == ("none", "hurts", "l2", "hurts")
    assert "The network without a penalty was chosen instead." in study.answer[0]
    assert "hurts here" in requested.answer[0]
    assert "instead" not in requested.answer[0]


def test_every_penalty_is_a_candidate_after_the_unpenalized_network(small) -> None:
    assert [each.name for each in small.candidates] == ["none", "full_training", "l2", "group"]
    assert small.baseline.strength == 0.0
    assert set(small.watched) == {"none", small.chosen}
    assert small.rows == {"training": 142, "test": 36}


def test_group_is_the_first_stage_of_adaptive(diabetes_study) -> None:
    assert diabetes_study["group"].path is diabetes_study["adaptive"].stages[0]
    for names in (["group", "adaptive"], ["adaptive", "group"]):
        assert [find_shared_path(name, names) for name in names] == ["adaptive", "adaptive"]
    assert find_shared_path("group", ["group", "l2"]) == "group"


def test_the_results_are_those_of_the_networks(small) -> None:
    training, testing = split_test_rows(small.table, 0.2, 0)
    y = small.table.target.map({label: number for number, label in enumerate(small.table.classes)}).to_numpy()

    for each in small.candidates:
        row = small.results.loc[each.name]
        x = each.encoder.transform(small.table.features)
        trained = make_task("multiclass").row_losses(y[training], each.model.predict(x[training], verbose=0))
        tested = make_task("multiclass").row_losses(y[testing], each.model.predict(x[testing], verbose=0))
        assert row["loss"] == pytest.approx(trained.mean(), rel=1e-4)
        assert row["test_loss"] == pytest.approx(tested.mean(), rel=1e-4)
        assert row["zeros"] == sum((w == 0).sum() for w in each.model.get_weights() if w.ndim == 2)
    gains = small.results["test_loss"].iloc[0] - small.results["test_loss"].iloc[1:]
    np.testing.assert_allclose(small.results["gain"].iloc[1:], gains, rtol=1e-5)


def test_the_watched_training_ends_where_the_lane_of_its_fold_ended(small) -> None:
    each, seen = small.best, small.watched[small.chosen]
    lanes = each.stage.lanes.table
    [lane] = lanes[(lanes["fold"] == 0) & np.isclose(lanes["strength"], each.strength)].to_dict("records")

    last = seen.history.iloc[-1]

    if lane["settled"] == FAST["max_iter"]:
        assert last["val_loss"] == pytest.approx(lane["held_loss"], rel=0.02)
    np.testing.assert_allclose(last["total_loss"], last["loss"] + last["penalty"], rtol=1e-5)
    assert len(seen.before) == len(seen.after) == sum(w.size for w in each.model.get_weights() if w.ndim == 2)
    assert seen.balance["relative_residual"].notna().all()


def test_the_same_seed_gives_the_same_numbers_and_progress_grows() -> None:
    shares = []
    first = run_study("diabetes", penalties=["l1"], seed=5, progress=lambda share, what: shares.append(share), **FAST)
    again = run_study("diabetes", penalties=["l1"], seed=5, **FAST)

    results = first.results.drop(columns="seconds")
    pd.testing.assert_frame_equal(results, again.results.drop(columns="seconds"), check_exact=True)
    pd.testing.assert_frame_equal(
        first.findings.watched["l1"].history, again.findings.watched["l1"].history, check_exact=True
    )
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_the_columns_that_matter_are_selected() -> None:
    result = run_study(planted(300), "y", penalties=["adaptive"], cv=3, strengths=9, max_iter=400).findings

    each = result.best
    assert each.selected is not None
    assert each.stability is not None
    assert set(each.selected) == {"curved", "color"}
    assert each.stability[["curved", "color"]].min() == 1.0
    assert each.stability.drop(["curved", "color"]).max() <= 0.25
    assert result.selector is each
    assert each.gain.low > 0


def test_test_rows_change_only_the_final_scores() -> None:
    frame = planted()
    table = run_study(frame, "y", penalties=["l2"], **FAST)
    _, testing = split_test_rows(table.findings.table, 0.2, 0)
    changed = frame.copy()
    changed.loc[testing, "curved"] = 1000.0
    changed.loc[testing, "y"] = -7.0

    other = run_study(changed, "y", penalties=["l2"], **FAST)

    columns = ["strength", "val_loss", "loss", "penalty", "zeros"]
    pd.testing.assert_frame_equal(table.results[columns], other.results[columns], check_exact=True)
    assert other.results["test_loss"].iloc[1] != table.results["test_loss"].iloc[1]


@pytest.mark.parametrize("task", ["binary", "counts"])
def test_the_network_learns_every_task(task) -> None:
    frame = planted()
    made = {"binary": (frame["y"] > 1.5).astype(str), "counts": np.exp(frame["y"].clip(upper=3)).round()}
    frame["y"] = made[task]

    result = run_study(frame, "y", task=task, penalties=["l2"], cv=2, max_iter=300, strengths=4).findings

    assert result.table.task.name == task
    assert result.best.score.value > {"binary": 0.8, "counts": 0.5}[task]
    assert result.best.score.low < result.best.score.value < result.best.score.high


def test_groups_time_and_weights_are_used() -> None:
    frame = planted().assign(subject=lambda f: np.arange(len(f)) % 40, day=lambda f: np.arange(len(f)), w=1.0)
    frame.loc[::3, "w"] = 0.0

    grouped = run_study(frame, "y", groups="subject", weight="w", drop=["day"], penalties=["l2"], **FAST)
    timed = run_study(frame, "y", time_column="day", drop=["subject", "w"], penalties=["l2"], **FAST)

    assert set(grouped.findings.table.features) == set(planted()) - {"y"}
    assert np.isfinite(grouped.best.test_loss.value)
    assert np.isfinite(timed.best.val_loss)


def own_network(inputs, outputs) -> keras.Model:
    layers = [keras.layers.Dense(6, "tanh"), keras.layers.Dense(outputs)]
    model = keras.Sequential([keras.Input((inputs,)), *layers], name="mine")
    model.compile(keras.optimizers.Adam(0.02), "mse")
    return model


def test_a_custom_network() -> None:
    result = run_study("diabetes", model=own_network, penalties=["group"], **FAST).findings

    assert result.best.model.name == "mine"
    assert result.best.selected is not None
    assert result.settings.model == "own_network"


def test_a_requested_choice_and_no_penalty_at_all(alone) -> None:
    requested = run_study("diabetes", penalties=["l2"], choose="none", **FAST)

    assert requested.chosen == "none"
    assert alone.chosen == "none"
    assert [each.name for each in alone.candidates] == ["none", "full_training"]
    assert alone.selector is None


def test_initial_weights_count_for_stability() -> None:
    result = run_study("diabetes", penalties=["group"], n_init=2, **FAST)

    assert len(np.asarray(result.best.path.lanes.features)) == 2 * (2 + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalties": ["ridge"]}, "Unknown penalty 'ridge'"),
        ({"choose": "l1", "penalties": ["l2"]}, "choose must be one of l2, none, got 'l1'"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be positive whole numbers"),
        ({"cv": 1}, "cv must be at least 2, got 1"),
        ({"strengths": 1}, "strengths must be at least 3, got 1"),
        ({"max_iter": 0}, "max_iter must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"test": 1.0}, "test must lie between 0 and 1"),
        ({"seed": -1}, "seed must lie between 0"),
        ({"model": "nowhere:net"}, "The model 'nowhere:net' cannot be imported"),
        ({"model": "nothing"}, "it has no colon"),
        ({"model": lambda inputs, outputs: None}, "got NoneType for 10 inputs and 1 outputs"),
        (
            {"model": lambda inputs, outputs: own_network(inputs, 3)},
            r"must have shape \(None, 1\) for this task, got \(None, 3\). Make the last layer return 1 number per row",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, message) -> None:
    with pytest.raises(DataError, match=message):
        run_study("diabetes", **{**FAST, **arguments})


def test_it_continues_from_a_checkpoint(tmp_path) -> None:
    def stop(share, what) -> None:
        if what == "L1" and share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study("diabetes", penalties=["l2", "l1"], checkpoint=tmp_path, progress=stop, **FAST)
    kept = [*tmp_path.glob("l2 standard/chunk-*")]
    written = {file: file.stat().st_mtime_ns for file in kept}
    again = run_study("diabetes", penalties=["l2", "l1"], checkpoint=tmp_path, **FAST)
    whole = run_study("diabetes", penalties=["l2", "l1"], **FAST)

    assert kept
    assert written == {file: file.stat().st_mtime_ns for file in kept}
    first, second = (study.results.drop(columns="seconds") for study in (again, whole))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.parametrize(
    "module", ["run", "result", "tables", "sources", "errors", "columns.encoding", "columns.folds", "columns.reading"]
)
def test_the_examples_of_the_docstrings(module) -> None:
    result = doctest.testmod(importlib.import_module(f"poise.study.{module}"))

    assert result.failed == 0


# ---------------------------------------------------------------- names that are numbers


def test_columns_that_are_named_by_numbers() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 4))
    data = pd.DataFrame(np.c_[x, x[:, 0] + random.normal(size=90), np.arange(90) // 3])

    study = run_study(
        data, 4, drop=[1], groups=5, types={2: "categorical"}, penalties=["l2"], strengths=3, cv=2, max_iter=20
    )

    columns = {column.name: column.kind for column in study.findings.table.columns}
    assert columns == {"0": "number", "1": "set aside", "2": "category", "3": "number"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop": "age"}, r"drop must be a list of columns, got 'age'. Use \['age'\]."),
        ({"keep": 3}, r"keep must be a list of columns, got 3. Use \[3\]."),
        ({"types": ["age"]}, "types must be a dict from columns to types, got a list."),
        ({"target": 9}, "diabetes has no column '9'"),
    ],
)
def test_names_that_cannot_be(arguments, message) -> None:
    with pytest.raises(DataError, match=message):
        run_study("diabetes", **arguments)
