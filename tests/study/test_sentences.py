"""The sentences of a study say what the numbers show and no more; its script gives the same network again."""

import io
import re
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import poise
from poise.study.report.comparison import compare_candidates
from poise.study.report.description import describe
from poise.study.report.numbers import format_number, list_names
from poise.study.report.script import write_rule, write_script
from poise.study.report.sentences import write_answer
from poise.study.run import run_study
from poise.study.scores import Estimate
from poise.study.storage import write_study
from poise.study.tables import read

SMALL: dict[str, Any] = {"max_iter": 80, "strengths": 4, "cv": 2, "hidden_layer_sizes": (8,)}


@pytest.fixture
def diabetes(diabetes_study) -> Any:
    """Without the adaptive candidate: the group lasso selects columns."""
    return replace(diabetes_study, candidates=diabetes_study.candidates[:3])


def altered(findings, name: str = "l2", **changes) -> Any:
    """The findings with other numbers of one candidate, which is chosen, to read their sentences."""
    candidates = tuple(replace(each, **changes) if each.name == name else each for each in findings.candidates)
    watched = findings.watched | {name: findings.watched["none"]}
    return replace(findings, candidates=candidates, chosen=name, watched=watched)


def with_gain(findings, value, low, high, val_loss=0.1, **more) -> Any:
    return altered(findings, gain=Estimate(value, low, high), val_loss=val_loss, **more)


def short(number: float) -> str:
    return format_number(number, 2)


def test_a_gain_that_is_certain_helps(diabetes) -> None:
    findings = with_gain(diabetes, 0.2, 0.1, 0.3, test_loss=Estimate(0.5, 0.4, 0.6), score=Estimate(0.51, 0.4, 0.6))

    assert write_answer(findings)[0] == (
        f"A penalty helps here. On the test rows the loss is {short(findings.baseline.test_loss.value)} without a "
        "penalty and 0.5 with L2. The gain is 0.2. Its 95% confidence interval is 0.1 to 0.3. The R² on the test rows "
        "is 0.51. The 95% confidence interval is 0.4 to 0.6."
    )


def test_a_gain_whose_interval_contains_zero_is_not_claimed(diabetes) -> None:
    findings = with_gain(diabetes, 0.2, -0.1, 0.3)

    sentence = write_answer(findings)[0]

    assert sentence.startswith("It is not certain that a penalty helps here. On the test rows the loss is ")
    assert "The gain is 0.2, but its 95% confidence interval contains zero. The interval is −0.1 to 0.3." in sentence
    assert sentence.endswith(f"In cross-validation the loss falls from {short(findings.baseline.val_loss)} to 0.1.")


def test_a_gain_without_an_interval_is_not_claimed(diabetes) -> None:
    nan = float("nan")

    sentence = write_answer(with_gain(diabetes, 0.2, nan, nan))[0]

    assert sentence.startswith("It is not certain that a penalty helps here.")
    assert "There are too few test rows for an interval." in sentence


@pytest.mark.parametrize(("value", "low", "high"), [(-0.2, -0.3, -0.1), (-0.01, -0.2, 0.1), (0.0, -0.1, 0.1)])
def test_no_gain_does_not_help(diabetes, value, low, high) -> None:
    sentence = write_answer(with_gain(diabetes, value, low, high))[0]

    assert sentence.startswith("A penalty does not help here. On the test rows the loss is ")


def test_no_lower_held_out_loss_does_not_help(diabetes) -> None:
    findings = with_gain(diabetes, 0.2, 0.1, 0.3, val_loss=diabetes.baseline.val_loss + 1.0)

    assert write_answer(findings)[0] == (
        f"A penalty does not help here. In cross-validation the loss is {short(findings.baseline.val_loss)} without a "
        f"penalty and {short(findings.best.val_loss)} with L2. On the test rows, however, L2 lowers the loss."
    )


def test_a_requested_penalty_is_named(diabetes) -> None:
    findings = replace(diabetes, settings=replace(diabetes.settings, choose="group"))

    verdicts = [
        write_answer(altered(findings, "group", gain=Estimate(value, low, 0.3), val_loss=loss))[0]
        for value, low, loss in [(0.2, 0.1, 0.1), (0.2, -0.1, 0.1), (-0.1, -0.2, 0.1), (0.1, 0.05, 9.0)]
    ]

    assert verdicts[0].startswith("The group lasso, chosen by request, helps here.")
    assert verdicts[1].startswith("It is not certain that the group lasso, chosen by request, helps here.")
    assert verdicts[2].startswith("The group lasso, chosen by request, does not help here.")
    assert verdicts[3].startswith("The group lasso, chosen by request, does not help here. In cross-validation")


def test_a_study_without_any_penalty(alone, diabetes) -> None:
    verdict, selection, certainty = write_answer(alone)

    assert verdict.startswith("Only a network without a penalty was trained. Its accuracy on the test rows is ")
    assert selection == "All 13 columns are used, because no penalty in this study can drop a column."
    assert certainty.startswith("Without a penalty there is no strength to choose. The held-out loss is ")
    chosen = replace(diabetes, chosen="none", settings=replace(diabetes.settings, choose="none"))
    assert write_answer(chosen)[0].startswith(
        "As requested, the network without a penalty was chosen. Its R² on the test rows is "
    )


def test_no_sentence_has_more_than_two_numbers(diabetes_study, alone, hostile) -> None:
    for findings in (diabetes_study, alone, with_gain(diabetes_study, 0.2, 0.1, 0.3)):
        for sentence in re.split(r"(?<=\.) (?=[A-Z])", " ".join(write_answer(findings))):
            numbers = re.findall(r"(?<![\w“])−?\d[\d.,]*", sentence.replace("95%", "").replace(" and 3 more", ""))
            assert len(numbers) <= 2, sentence


def selecting(findings, selected, shares) -> Any:
    stability = pd.Series(shares, index=[f"c{number}" for number in range(len(shares))])
    return altered(findings, "group", selected=tuple(selected), stability=stability)


def test_selected_columns_are_counted_and_named_with_their_stability(diabetes) -> None:
    shares = [1.0] * 7 + [0.75, 0.5, 0.25]

    assert write_answer(selecting(diabetes, [f"c{number}" for number in range(8)], shares))[1] == (
        "The group lasso selects 8 of 10 columns: “c0”, “c1”, “c2”, “c3”, “c4” and 3 more. Columns are selected at the largest "
        "strength whose held-out loss is within one standard error of the lowest. Every selected column is selected in "
        "at least 75% of the 3 training runs. No other column is selected in more than 50% of them."
    )


@pytest.mark.parametrize(
    ("selected", "shares", "beginning", "end"),
    [
        ([], [0.5, 0.0], "The group lasso selects no column.", "No column is selected in more than 50% of the 3 training runs."),
        ([], [0.0, 0.0], "The group lasso selects no column.", "No training run selects any column."),
        (["c0", "c1"], [1.0, 0.5], "The group lasso selects all 2 columns.", "Every selected column is selected in at least 50% of the 3 training runs."),
        (["c0"], [1.0, 0.0], "The group lasso selects 1 of 2 columns: “c0”.", "Each selected column is selected in all of the 3 training runs. No other column is selected in any of them."),
    ],
)  # fmt: skip
def test_extremes_of_selection(diabetes, selected, shares, beginning, end) -> None:
    sentence = write_answer(selecting(diabetes, selected, shares))[1]

    assert sentence.startswith(beginning)
    assert sentence.endswith(end)


def test_after_adaptive_stages_columns_are_selected_where_the_loss_is_lowest(diabetes_study) -> None:
    assert len(diabetes_study["adaptive"].stages) > 1

    sentence = write_answer(diabetes_study)[1]

    assert sentence.startswith("The adaptive group lasso selects ")
    assert "Columns are selected at the strength with the lowest held-out loss." in sentence


def test_columns_that_cannot_be_determined_are_not_claimed(diabetes) -> None:
    candidates = tuple(replace(each, selected=None, stability=None) for each in diabetes.candidates)

    sentence = write_answer(replace(diabetes, candidates=candidates))[1]

    assert sentence == (
        "All 10 columns are inputs of the network; poise cannot determine which of them the network actually uses."
    )


def test_the_ends_of_the_grid_are_warned_of(diabetes) -> None:
    grid = diabetes["l2"].stage.strengths

    low, inside, high = (write_answer(altered(diabetes, strength=float(grid[at])))[2] for at in (0, 1, -1))

    assert f"is {short(grid[0])}, the weakest of the grid; a weaker one might predict better." in low
    assert f"is {short(grid[1])}, which is inside the grid." in inside
    assert f"is {short(grid[-1])}, the strongest of the grid; a stronger one might predict better." in high


def test_convergence_is_reported(diabetes) -> None:
    each = diabetes["l2"]
    sentences = []
    whole = each.path.training.settle
    for residual, steps in ((0.0005, whole), (0.02, whole), (0.4, whole), (float("nan"), whole), (0.4, whole - 1)):
        lanes = each.path.lanes.table.assign(residual=residual, gradient=1.0, settled=steps)
        stage = replace(each.path, lanes=replace(each.path.lanes, table=lanes))
        sentences.append(write_answer(altered(diabetes, path=stage, stage=stage))[2])

    assert sentences[0].endswith(
        "(mean and standard error over the folds). Training converged (relative residual 0.0005)."
    )
    assert sentences[1].endswith("Training nearly converged (relative residual 0.02).")
    assert "Training did not converge (relative residual 0.4). More steps may help." in sentences[2]
    assert sentences[3].endswith("It is unknown whether training converged.")
    stopped = f"Training stopped after {whole - 1} steps, because the held-out loss no longer fell."
    assert sentences[4].endswith(stopped)


def test_an_unknown_error_is_not_invented(diabetes) -> None:
    sentence = write_answer(altered(diabetes, val_loss=0.123, val_error=float("nan")))[2]

    assert "The held-out loss is 0.12. " in sentence


def test_names_are_one_line_short_and_few() -> None:
    assert list_names(["a\nb", "x" * 50]) == f"“a b” and “{'x' * 39}…”"
    assert list_names(["a", "b", "c"], most=2) == "“a”, “b” and 1 more"


def test_numbers_are_short() -> None:
    numbers = (0.0, -0.5, 123456.0, 0.00012345, float("nan"), -0.0)
    assert [format_number(n) for n in numbers] == ["0", "−0.5", "123,456", "0.000123", "?", "0"]


def test_the_comparison_has_one_row_per_candidate(diabetes) -> None:
    headings, rows = compare_candidates(describe(diabetes))

    assert headings == ["", "strength", "held-out loss", "test loss", "R²", "gain", "columns", "zeros"]
    assert [row[0] for row in rows] == ["No penalty", "L2 *", "Group lasso"]
    for candidate, row in zip(diabetes.candidates, rows, strict=True):
        loss = candidate.test_loss
        assert row[3] == f"{format_number(loss.value)} [{format_number(loss.low)}, {format_number(loss.high)}]"
        assert row[6] == str(len(candidate.selected))
    assert rows[0][5] == ""


# ---------------------------------------------------------------- the script


def linear(inputs: int, outputs: int) -> keras.Model:
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(5), keras.layers.Dense(outputs)])
    model.compile(keras.optimizers.SGD(0.05), loss="mse")
    return model


def counts() -> pd.DataFrame:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(100, 2)), columns=["a 'b' \"c\"", "d"])
    return frame.assign(y=random.poisson(np.exp(0.5 + 0.5 * frame["d"])), w=random.uniform(0.5, 2.0, 100))


CASES: dict[str, Any] = {
    "binary": {"data": "breast_cancer", "penalties": ["l1"], "drop": ["mean radius"]},
    "multiclass": {"data": "wine", "penalties": ["sparse_group"]},
    "weighted counts": {"data": counts(), "target": "y", "task": "counts", "weight": "w", "penalties": ["elasticnet"]},
    "own model": {"data": "diabetes", "penalties": ["group"], "model": "own_networks:linear"},
}


def test_the_script_reads_a_file_as_it_was_read(alone, tmp_path) -> None:
    file, options = tmp_path / "odd.csv", {"delimiter": "|", "decimal": ",", "encoding": "utf-16"}
    counts().to_csv(file, index=False, sep="|", decimal=",", encoding="utf-16")
    findings = replace(alone, table=read(file, "d", **options), settings=replace(alone.settings, **options))

    assert 'delimiter="|", decimal=",", encoding="utf-16")' in write_script(findings)
    for missing, written in [(("-999", "k. A."), '["-999", "k. A."]'), ((), "[]")]:
        listed = replace(findings, settings=replace(findings.settings, missing=missing))
        assert f'encoding="utf-16", missing={written})' in write_script(listed)


@pytest.mark.parametrize("case", ["regression", "no penalty", *CASES])
def test_the_script_trains_the_same_network(case, diabetes_study, alone, tmp_path, monkeypatch) -> None:
    module = ModuleType("own_networks")
    module.__dict__["linear"] = linear
    monkeypatch.setitem(sys.modules, "own_networks", module)
    monkeypatch.chdir(tmp_path)
    trained = {"regression": altered(diabetes_study, "adaptive"), "no penalty": alone}
    findings = trained[case] if case in trained else run_study(**{**SMALL, **CASES[case]}).findings
    write_study(findings, f"runs/{findings.table.name}")
    scope: dict[str, Any] = {"frame": CASES.get(case, {}).get("data")}

    with redirect_stdout(io.StringIO()) as printed:
        exec(write_script(findings), scope)

    best = findings.best
    theirs, ours = (model.predict(scope["x"], verbose=0) for model in (scope["model"], best.model))
    np.testing.assert_allclose(theirs, ours, atol=0.02 * np.ptp(ours))
    lanes = best.stage.lanes.table
    lane = lanes[lanes["fold"] < 0].iloc[int(np.argmin(np.abs(best.stage.strengths - best.strength)))]
    assert scope["loss"] == pytest.approx(lane["loss"], rel=0.02)
    assert f"Prediction loss on the training rows: {scope['loss']:.6g}" in printed.getvalue()


def test_strengths_and_factors_are_exact_in_the_script(diabetes_study) -> None:
    findings = altered(diabetes_study, "adaptive")
    best = findings.best

    lines = write_script(findings)

    start = lines.index("rules = [")
    scope: dict[str, Any] = {"poise": poise}
    exec(lines[start : lines.index("\n]\n", start) + 3], scope)
    written, expected = scope["rules"], best.stage.rules_at(best.strength)
    assert [rule.penalty.get_config() for rule in written] == [rule.penalty.get_config() for rule in expected]
    assert [(rule.select, rule.exclude, rule.name) for rule in written] == [
        (rule.select, rule.exclude, rule.name) for rule in expected
    ]


def test_infinite_factors_and_long_lists_are_exact_in_the_script(diabetes_study) -> None:
    best = diabetes_study["adaptive"]
    rule = best.stage.rules_at(best.strength)[0]
    factors = [float("inf") if number % 3 else 0.1 * number for number in range(200)]
    config = {**rule.penalty.get_config(), "groups": [[number, number + 200] for number in range(200)], "factors": factors}  # fmt: skip
    long = replace(rule, penalty=type(rule.penalty).from_config(config))

    written = write_rule(long, None)

    scope: dict[str, Any] = {"poise": poise}
    exec(f"rules = [\n{written}\n]", scope)
    assert max(map(len, written.splitlines())) <= 120
    assert scope["rules"][0].penalty.get_config() == config
