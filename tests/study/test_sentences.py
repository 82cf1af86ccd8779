"""The sentences of a study say what the numbers show and no more; its script gives the same network again."""

import io
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import poise
from poise.study import run_study, save
from poise.study.report.sentences import answer, code, console_table, figure, names
from poise.study.scores import Estimate

SMALL = {"max_iter": 80, "strengths": 4, "cv": 2, "hidden_layer_sizes": (8,)}


@pytest.fixture
def diabetes(diabetes_study):
    """Without the adaptive candidate: what survives is told by the group lasso."""
    return replace(diabetes_study, candidates=diabetes_study.candidates[:3])


@pytest.fixture(scope="module")
def adaptive():
    """A column that decides, and two of noise."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(120, 3)), columns=["signal", "noise", "more noise"])
    frame["y"] = 2.0 * frame["signal"] + 0.1 * random.normal(size=120)
    return run_study(frame, "y", penalties=["adaptive"], **SMALL | {"max_iter": 200})


def altered(found, name: str = "l2", **changes):
    """A study as it would be with other numbers of one candidate, which is chosen, to read its sentences."""
    candidates = tuple(replace(one, **changes) if one.name == name else one for one in found.candidates)
    watched = found.watched | {name: found.watched["none"]}
    return replace(found, candidates=candidates, chosen=name, watched=watched)


def with_gain(found, value, low, high, val_loss=0.1, **more):
    return altered(found, gain=Estimate(value, low, high), val_loss=val_loss, **more)


def test_a_gain_that_is_certain_is_said(diabetes):
    found = with_gain(diabetes, 0.2, 0.1, 0.3, test_loss=Estimate(0.5, 0.4, 0.6), score=Estimate(0.51, 0.4, 0.6))

    sentence = answer(found)[0]

    assert sentence.startswith(
        "A penalty helps here: on the 89 test rows with L2 the loss is 0.5 (95% interval 0.4 to 0.6) and the R² 0.51 (0.4 to 0.6), "
    )
    base = found.baseline.test_loss
    assert f"without a penalty {figure(base.value)} ({figure(base.low)} to {figure(base.high)})" in sentence
    assert sentence.endswith("a paired gain of 0.2 (0.1 to 0.3).")


def test_a_gain_whose_interval_holds_zero_is_not_claimed(diabetes):
    found = with_gain(diabetes, 0.2, -0.1, 0.3)

    sentence = answer(found)[0]

    own, without = figure(found.best.val_loss), figure(found.baseline.val_loss)
    assert sentence.startswith("These 89 test rows do not show that a penalty helps: with L2 the loss is ")
    assert "a paired gain of 0.2 (−0.1 to 0.3), whose interval contains zero; in the folds" in sentence
    assert sentence.endswith(f"the held-out loss is {own} with it and {without} without.")


def test_a_gain_without_an_interval_is_not_claimed(diabetes):
    nan = float("nan")

    assert "for which so few rows tell no interval;" in answer(with_gain(diabetes, 0.2, nan, nan))[0]


@pytest.mark.parametrize(("value", "low", "high"), [(-0.2, -0.3, -0.1), (-0.01, -0.2, 0.1), (0.0, -0.1, 0.1)])
def test_no_gain_is_called_no_help(diabetes, value, low, high):
    assert answer(with_gain(diabetes, value, low, high))[0].startswith("A penalty does not help here: on the 89 test")


def test_no_lower_loss_on_held_out_rows_is_called_no_help(diabetes):
    found = with_gain(diabetes, 0.2, 0.1, 0.3, val_loss=diabetes.baseline.val_loss + 1.0)

    sentence = answer(found)[0]

    without, own = figure(found.baseline.val_loss), figure(found.best.val_loss)
    held = f"the held-out loss is {without} without one and {own} with L2; on the 89 test rows"
    assert sentence.startswith(f"A penalty does not help here: {held}")
    assert sentence.endswith(", so that the test rows say otherwise.")


def test_a_choice_by_force_is_called_so(diabetes):
    found = replace(diabetes, settings=replace(diabetes.settings, choose="group"))

    said = [
        answer(altered(found, "group", gain=Estimate(value, low, 0.3), val_loss=loss))[0]
        for value, low, loss in [(0.2, 0.1, 0.1), (0.2, -0.1, 0.1), (-0.1, -0.2, 0.1), (0.1, 0.05, 9.0)]
    ]

    assert said[0].startswith("The group lasso, taken as asked, helps here:")
    assert said[1].startswith("These 89 test rows do not show that the group lasso, taken as asked, helps:")
    assert said[2].startswith("The group lasso, taken as asked, does not help here:")
    assert said[3].startswith("The group lasso, taken as asked, does not help here: the held-out loss")


def test_without_any_penalty_it_says_so(alone, diabetes):
    verdict, survival, certainty = answer(alone)

    assert verdict.startswith("Only a network without a penalty was trained: on the 36 test rows its loss is ")
    assert survival == "Of the 13 columns none is dropped, since no penalty here can drop a column."
    assert certainty.startswith("Without a penalty there is no strength to choose; the held-out loss is ")
    chosen = replace(diabetes, chosen="none", settings=replace(diabetes.settings, choose="none"))
    assert answer(chosen)[0].startswith("No penalty was taken, as asked: on the 89 test rows its loss is ")


def survivors(found, kept, shares):
    stability = pd.Series(shares, index=[f"c{number}" for number in range(len(shares))])
    return altered(found, "group", kept=tuple(kept), stability=stability)


def test_survivors_are_counted_named_and_how_stable_they_are_is_told(diabetes):
    shares = [1.0] * 7 + [0.75, 0.5, 0.25]
    sentence = answer(survivors(diabetes, [f"c{number}" for number in range(8)], shares))[1]

    at = figure(diabetes["group"].kept_at)
    assert sentence == (
        f"Of 10 columns 8 survive the group lasso at strength {at}, the largest strength within one standard error of "
        "the lowest held-out loss: “c0”, “c1”, “c2”, “c3”, “c4” and 3 more; the least stable of them is kept in 75% of "
        "the 3 trainings, and the most stable of those dropped in 50%."
    )


@pytest.mark.parametrize(
    ("kept", "shares", "beginning", "end"),
    [
        ([], [0.5, 0.0], "Nothing survives: by the group lasso", "no column is kept in more than 50% of the 3 trainings."),
        ([], [0.0, 0.0], "Nothing survives: by the group lasso", "no column is needed to predict as well as can be, and so say all 3 trainings."),
        (["c0", "c1"], [1.0, 0.5], "No column is dropped: all 2 columns survive the group lasso", "kept in 50% of the 3 trainings."),
        (["c0"], [1.0, 0.0], "Of 2 columns 1 survives the group lasso", "“c0”; each of them is kept in all of the 3 trainings, and none of those dropped in any."),
    ],
)  # fmt: skip
def test_extremes_of_survival(diabetes, kept, shares, beginning, end):
    sentence = answer(survivors(diabetes, kept, shares))[1]

    assert sentence.startswith(beginning)
    assert sentence.endswith(end)


def test_after_adaptive_stages_survival_is_told_where_the_loss_is_lowest(adaptive):
    sentence = answer(adaptive)[1]

    assert adaptive["adaptive"].kept is not None
    assert "signal" in adaptive["adaptive"].kept
    if adaptive["adaptive"].path.stages:
        assert "the adaptive group lasso at strength" in sentence
        assert "where the held-out loss is lowest" in sentence


def test_columns_that_cannot_be_told_are_not_told(diabetes):
    candidates = tuple(replace(one, kept=None, stability=None) for one in diabetes.candidates)

    sentence = answer(replace(diabetes, candidates=candidates))[1]

    assert sentence == "Of the 10 columns none is dropped, since it cannot be told which columns this network reads."


def test_the_place_on_the_grid_is_told_and_its_ends_are_warned_of(diabetes):
    grid = diabetes["l2"].stage.strengths

    low, inside, high = (answer(altered(diabetes, strength=float(grid[at])))[2] for at in (0, 1, -1))

    ends = f"from {figure(grid[0])} to {figure(grid[-1])}"
    assert f"{figure(grid[0])}, is the weakest of the grid {ends}, so that a weaker one might predict better;" in low
    assert f"{figure(grid[1])}, lies inside the grid {ends}, number 2 of 4;" in inside
    assert f"{figure(grid[-1])}, is the strongest of the grid {ends}, so that a stronger one might" in high


def test_balance_and_its_lack_are_told(diabetes):
    one = diabetes["l2"]
    said = []
    for residual in (0.0005, 0.02, 0.4, float("nan")):
        table = one.stage.table.assign(relative_residual=residual)
        stage = SimpleNamespace(
            table=table, strengths=one.stage.strengths, lanes=one.stage.lanes, training=one.stage.training
        )
        said.append(answer(altered(diabetes, stage=stage))[2])

    assert "; the two forces are in balance (relative residual 0.0005), and" in said[0]
    assert "; the two forces are nearly in balance (relative residual 0.02), and" in said[1]
    assert "; the two forces are not in balance (relative residual 0.4: more steps lower it, but for rows on" in said[2]
    assert "; whether the two forces are in balance cannot be told, and" in said[3]
    assert said[0].endswith(", one standard error over 2 folds.")


def test_an_unknown_error_is_not_invented(diabetes):
    sentence = answer(altered(diabetes, val_loss=0.123, val_error=float("nan")))[2]

    assert sentence.endswith("and the held-out loss is 0.123.")


def test_names_are_one_line_short_and_few():
    assert names(["a\nb", "x" * 50]) == f"“a b” and “{'x' * 39}…”"
    assert names(["a", "b", "c"], most=2) == "“a”, “b” and 1 more"


def test_figures_are_short():
    assert [figure(n) for n in (0.0, -0.5, 123456.0, 0.00012345, float("nan"), -0.0)] == ["0", "−0.5", "123,456", "0.000123", "?", "0"]  # fmt: skip


def test_the_table_for_a_terminal_has_a_row_a_candidate(diabetes):
    console = Console(width=160, file=io.StringIO())

    console.print(console_table(diabetes))

    lines = console.file.getvalue().splitlines()
    assert lines[0].strip() == "diabetes: regression, 89 test rows"
    assert [word in lines[2] for word in ("strength", "held-out loss", "R²", "gain", "columns", "zeros")] == [True] * 6
    for one in diabetes.candidates:
        star = " *" if one.name == diabetes.chosen else ""
        line = next(line for line in lines if line.strip().startswith(one.title + star))
        assert figure(one.test_loss.value) in line
        assert ("*" in line) == (one.name == diabetes.chosen)


# ---------------------------------------------------------------- the script


def linear(inputs: int, outputs: int) -> keras.Model:
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(5), keras.layers.Dense(outputs)])
    model.compile(keras.optimizers.SGD(0.05), loss="mse")
    return model


def counts() -> pd.DataFrame:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(100, 2)), columns=["a 'b' \"c\"", "d"])
    return frame.assign(y=random.poisson(np.exp(0.5 + 0.5 * frame["d"])), w=random.uniform(0.5, 2.0, 100))


CASES = {
    "binary": {"data": "breast_cancer", "penalties": ["l1"], "drop": ["mean radius"]},
    "multiclass": {"data": "wine", "penalties": ["sparse_group"]},
    "weighted counts": {"data": counts(), "target": "y", "task": "counts", "weight": "w", "penalties": ["elasticnet"]},
    "own model": {"data": "diabetes", "penalties": ["group"], "model": "own_networks:linear"},
}


def test_the_script_reads_a_file_as_it_was_read(tmp_path):
    file = tmp_path / "odd.csv"
    counts().to_csv(file, index=False, sep="|", decimal=",", encoding="utf-16")

    found = run_study(file, "d", penalties=[], delimiter="|", decimal=",", encoding="utf-16", **SMALL)

    assert 'delimiter="|", decimal=",", encoding="utf-16")' in code(found)


@pytest.mark.parametrize("case", ["regression", "no penalty", *CASES])
def test_the_script_trains_the_same_network(case, diabetes_study, alone, tmp_path, monkeypatch):
    module = ModuleType("own_networks")
    module.linear = linear
    monkeypatch.setitem(sys.modules, "own_networks", module)
    monkeypatch.chdir(tmp_path)
    trained = {"regression": altered(diabetes_study, "adaptive"), "no penalty": alone}
    found = trained[case] if case in trained else run_study(**{**SMALL, **CASES[case]})
    save(found, f"runs/{found.table.name}")
    scope = {"frame": CASES.get(case, {}).get("data")}

    with redirect_stdout(io.StringIO()) as said:
        exec(code(found), scope)

    best = found.best
    theirs, ours = (model.predict(scope["x"], verbose=0) for model in (scope["model"], best.model))
    np.testing.assert_allclose(theirs, ours, atol=0.02 * np.ptp(ours))
    lanes = best.stage.lanes.table
    lane = lanes[lanes["fold"] < 0].iloc[int(np.argmin(np.abs(best.stage.strengths - best.strength)))]
    assert scope["loss"] == pytest.approx(lane["loss"], rel=0.02)
    assert f"prediction loss on the rows that train: {scope['loss']:.6g}" in said.getvalue()


def test_strengths_and_factors_stand_in_the_script_exactly(adaptive):
    found = replace(adaptive, chosen="adaptive")
    best = found.best

    lines = code(found)

    start = lines.index("rules = [")
    scope = {"poise": poise}
    exec(lines[start : lines.index("\n]\n", start) + 3], scope)
    told, meant = scope["rules"], best.stage.rules_at(best.strength)
    assert [rule.penalty.get_config() for rule in told] == [rule.penalty.get_config() for rule in meant]
    assert [(rule.select, rule.exclude, rule.name) for rule in told] == [
        (rule.select, rule.exclude, rule.name) for rule in meant
    ]


def test_infinite_factors_and_long_lists_are_read_back(adaptive):
    best = adaptive["adaptive"]
    rule = best.stage.rules_at(best.strength)[0]
    factors = [float("inf") if number % 3 else 0.1 * number for number in range(200)]
    config = {**rule.penalty.get_config(), "groups": [[number, number + 200] for number in range(200)], "factors": factors}  # fmt: skip
    long = replace(rule, penalty=type(rule.penalty).from_config(config))
    stage = SimpleNamespace(rules_at=lambda strength: [long])
    found = replace(adaptive, candidates=(adaptive.baseline, replace(best, stage=stage)), chosen="adaptive")

    lines = code(found)

    start = lines.index("rules = [")
    scope = {"poise": poise}
    exec(lines[start : lines.index("\n]\n", start) + 3], scope)
    assert max(map(len, lines.splitlines())) <= 120
    assert scope["rules"][0].penalty.get_config() == config
