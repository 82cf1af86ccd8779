"""The sentences of a study say what the numbers show and no more; its script gives the same network again."""

import io
import re
import sys
from collections.abc import Mapping
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
from poise.study.report.sentences import write_answer, write_headline
from poise.study.run import run_study
from poise.study.scores import Estimate
from poise.study.storage import write_study
from poise.study.tables import read
from poise.study.tasks.table import make_task
from poise.study.verdict import Comparison, Verdict

SMALL: dict[str, Any] = {"max_iter": 80, "strengths": 4, "cv": 2, "hidden_layer_sizes": (8,)}


@pytest.fixture
def diabetes(diabetes_study) -> Any:
    """Without the adaptive candidate: the group lasso selects columns."""
    return replace(diabetes_study, candidates=diabetes_study.candidates[:4], selection=None)


def altered(findings, name: str = "l2", **changes) -> Any:
    """The findings with other numbers of one candidate, which is chosen, to read their sentences."""
    candidates = tuple(replace(each, **changes) if each.name == name else each for each in findings.candidates)
    watched = findings.watched | {name: findings.watched["none"]}
    return replace(findings, candidates=candidates, chosen=name, watched=watched)


def judged(findings, over_baseline, references: Mapping[str, Any] | None = None, **changes) -> Any:
    """The findings with L2 chosen, and other gains over the baseline and the reference models."""
    over = {
        "mean": (0.5, 0.4, 0.6),
        "linear": (0.0, -0.1, 0.1),
        "boosted_trees": (0.0, -0.1, 0.1),
        **(references or {}),
    }
    compared = {name: Comparison(Estimate(*ends), Estimate(*ends)) for name, ends in over.items()}
    verdict = Verdict(
        changes.get("name", "l2"), Comparison(Estimate(*over_baseline), Estimate(*over_baseline)), compared
    )
    return replace(altered(findings, **changes), verdict=verdict)


def short(number: float) -> str:
    return format_number(number, 2)


def test_a_gain_that_is_certain_helps(diabetes) -> None:
    losses: dict[str, Any] = {"test_loss": Estimate(0.5, 0.4, 0.6), "gain": Estimate(0.1, -0.1, 0.3)}
    findings = judged(diabetes, (0.2, 0.1, 0.3), score=Estimate(0.51, 0.4, 0.6), **losses)

    assert write_answer(findings)[0] == (
        "A penalty helps here: with L2, the held-out R² is 0.2 higher than with early stopping alone. The 95% "
        "confidence interval of the difference is 0.1 to 0.3. The test rows are consistent with this: the loss is "
        f"{short(findings.baseline.test_loss.value)} without a penalty and 0.5 with it. The R² on the test rows is 0.51. "
        "The 95% confidence interval is 0.4 to 0.6. A linear model and boosted trees predict neither clearly better nor clearly worse."
    )


@pytest.mark.parametrize(
    ("gain", "headline", "change"),
    [
        ((0.2, -0.1, 0.3), "A penalty makes no clear difference here", "0.2 higher"),
        ((-0.02, -0.1, 0.3), "A penalty makes no clear difference here", "0.02 lower"),
        ((-0.2, -0.3, -0.1), "A penalty hurts here", "0.2 lower"),
        ((0.2, 0.1, 0.3), "A penalty helps here", "0.2 higher"),
    ],
)
def test_the_interval_decides_the_outcome(diabetes, gain, headline, change) -> None:
    sentence = write_answer(judged(diabetes, gain))[0]

    assert sentence.startswith(f"{headline}: with L2, the held-out R² is {change} than with early stopping alone.")
    assert (", which contains zero." in sentence) == (gain[1] < 0 < gain[2])


def test_a_penalty_that_hurts_is_not_chosen(diabetes) -> None:
    findings = replace(judged(diabetes, (-0.2, -0.3, -0.1)), chosen="none")

    sentence = write_answer(findings)[0]

    assert sentence.startswith(
        "A penalty hurts here: with L2, the held-out R² is 0.2 lower than with early stopping alone."
    )
    assert "The network without a penalty was chosen instead. Its R² on the test rows is" in sentence


def of_classes(findings, loss: tuple[float, float, float], accuracy: tuple[float, float, float]) -> str:
    """The first paragraph of a study of two classes with these gains over the baseline."""
    predicted = replace(findings.predicted, predictions=np.full((len(findings.predicted.actual), 2), 0.5))
    classes = replace(
        findings, table=replace(findings.table, classes=["a", "b"], task=make_task("binary")), predicted=predicted
    )  # fmt: skip
    study = judged(classes, loss)
    over = Comparison(Estimate(*loss), Estimate(*accuracy))
    return write_answer(replace(study, verdict=replace(study.verdict, over_baseline=over)))[0]


def test_the_gain_of_classes_is_that_of_their_accuracy(diabetes) -> None:
    sentence = of_classes(diabetes, (0.2, 0.1, 0.3), (0.02, 0.01, 0.03))

    assert sentence.startswith(
        "A penalty helps here: with L2, the held-out accuracy is 0.02 higher than with early stopping alone. The 95% "
        "confidence interval of the difference is 0.01 to 0.03. The held-out loss, on which the verdict is based, is 0.2 lower. The test"
    )


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ((-0.02, -0.04, 0.01), "The held-out accuracy is 0.02 lower, which may be chance."),
        ((0.0, -0.04, 0.04), "The held-out accuracy is the same."),
        ((-0.03, -0.04, -0.02), "The held-out accuracy is 0.03 lower, which is more than chance explains."),
    ],
)
def test_an_accuracy_that_disagrees_with_the_loss_is_not_the_headline(diabetes, accuracy, expected) -> None:
    sentence = of_classes(diabetes, (0.2, 0.1, 0.3), accuracy)

    assert sentence.startswith(
        "A penalty helps here: with L2, the held-out loss is 0.2 lower than with early stopping alone. The 95% confidence "
        f"interval of the difference is −0.3 to −0.1. {expected}"
    )


def test_no_gain_at_all_is_said_in_words(diabetes) -> None:
    sentence = of_classes(diabetes, (0.0, -0.1, 0.1), (0.0, -0.01, 0.01))

    assert "the held-out accuracy is the same as with early stopping alone." in sentence
    assert "The held-out loss, on which the verdict is based, is the same." in sentence


def test_the_headline_is_the_first_sentence_of_the_answer(diabetes) -> None:
    for gain, mean in [((0.2, 0.1, 0.3), (0.5, 0.4, 0.6)), ((0.2, -0.1, 0.3), (0.01, -0.1, 0.1))]:
        findings = judged(diabetes, gain, {"mean": mean})

        assert write_answer(findings)[0].startswith(write_headline(findings) + " ")
        assert describe(findings)["headline"] == write_headline(findings)


@pytest.mark.parametrize(
    ("test_gain", "expected"),
    [
        ((0.25, 0.1, 0.4), "The test rows are consistent with this: "),
        ((-0.2, -0.3, -0.1), "The test rows disagree: "),
        ((0.2, float("nan"), float("nan")), "There are too few test rows for a confidence interval."),
    ],
)
def test_the_test_rows_are_an_independent_check(diabetes, test_gain, expected) -> None:
    sentence = write_answer(judged(diabetes, (0.2, 0.1, 0.3), gain=Estimate(*test_gain)))[0]

    assert expected in sentence


def test_no_better_than_the_mean_is_said_first(diabetes) -> None:
    sentence = write_answer(judged(diabetes, (0.2, 0.1, 0.3), {"mean": (0.01, -0.1, 0.1)}))[0]

    assert sentence.startswith(
        "It is not certain that the network predicts better than the mean. A penalty helps here: with L2, "
    )


def test_reference_models_that_win_are_named(diabetes) -> None:
    def references(**over: Any) -> str:
        return write_answer(judged(diabetes, (0.2, 0.1, 0.3), over))[0]

    better, worse = (-0.2, -0.3, -0.1), (0.2, 0.1, 0.3)
    assert references(boosted_trees=better).endswith(
        "Boosted trees predict better here than the network with L2. A linear model predicts neither clearly better nor clearly worse."
    )
    assert references(linear=better, boosted_trees=better).endswith(
        "A linear model and boosted trees predict better here than the network with L2."
    )
    assert references(linear=worse).endswith(
        "A linear model predicts worse than the network with L2. Boosted trees predict neither clearly better nor clearly worse."
    )


def test_nothing_is_claimed_about_a_reference_model_without_finite_losses(diabetes) -> None:
    unknown, worse = (np.nan, np.nan, np.nan), (0.2, 0.1, 0.3)

    sentence = write_answer(judged(diabetes, (0.2, 0.1, 0.3), {"linear": unknown, "boosted_trees": worse}))[0]

    assert sentence.endswith("Boosted trees predict worse than the network with L2.")
    assert "linear model" not in sentence


def test_a_requested_penalty_is_named(diabetes) -> None:
    findings = replace(diabetes, settings=replace(diabetes.settings, choose="group"))

    verdicts = [
        write_answer(judged(findings, gain, name="group"))[0]
        for gain in [(0.2, 0.1, 0.3), (0.2, -0.1, 0.3), (-0.2, -0.3, -0.1)]
    ]

    assert verdicts[0].startswith(
        "The group lasso, chosen by request, helps here: with it, the held-out R² is 0.2 higher"
    )
    assert verdicts[1].startswith("The group lasso, chosen by request, makes no clear difference here: ")
    assert verdicts[2].startswith("The group lasso, chosen by request, hurts here: ")


def test_a_study_without_any_penalty(alone, diabetes) -> None:
    verdict, selection, certainty = write_answer(alone)

    assert verdict.startswith(
        "No penalty was requested, so the network without a penalty was chosen. Its accuracy on the test rows is "
    )
    assert selection == "All 13 columns are needed to predict, because no penalty in this study can drop a column."
    assert certainty.startswith("Without a penalty there is no strength to choose. The held-out loss is ")
    verdict = replace(diabetes.verdict, judged="none")
    chosen = replace(diabetes, chosen="none", verdict=verdict, settings=replace(diabetes.settings, choose="none"))
    assert write_answer(chosen)[0].startswith(
        "As requested, the network without a penalty was chosen. Its R² on the test rows is "
    )


def test_no_sentence_has_more_than_two_numbers(diabetes_study, alone, hostile) -> None:
    for findings in (diabetes_study, alone, judged(diabetes_study, (0.2, 0.1, 0.3))):
        for sentence in re.split(r"(?<=\.) (?=[A-Z])", " ".join(write_answer(findings))):
            numbers = re.findall(r"(?<![\w“])−?\d[\d.,]*", sentence.replace("95%", ""))
            numbers = [number for number in numbers if f" and {number} more" not in sentence]
            assert len(numbers) <= 2, sentence


def selecting(findings, selected, shares) -> Any:
    stability = pd.Series(shares, index=[f"c{number}" for number in range(len(shares))])
    return altered(findings, "group", selected=tuple(selected), stability=stability)


def test_selected_columns_are_counted_and_named_with_their_stability(diabetes) -> None:
    shares = [1.0] * 7 + [0.75, 0.5, 0.25]

    assert write_answer(selecting(diabetes, [f"c{number}" for number in range(8)], shares))[1] == (
        "The group lasso selects 8 of 10 columns: “c0”, “c1”, “c2”, “c3”, “c4” and 3 more. Columns are selected at the largest "
        "strength whose held-out loss is within one standard error of the lowest. The stability, the share "
        "of the 3 training runs that select a column, is at least 75% for each selected column. It is at most 50% for any "
        "other column. The saved network is that of the selected columns. It needs all 10 columns to predict."
    )


STABILITY = "The stability, the share of the 3 training runs that select a column, is "


@pytest.mark.parametrize(
    ("selected", "shares", "beginning", "part"),
    [
        ([], [0.5, 0.0], "The group lasso selects no column.", STABILITY + "at most 50%. The "),
        ([], [0.0, 0.0], "The group lasso selects no column.", "No training run selects any column. The "),
        (["c0", "c1"], [1.0, 0.5], "The group lasso selects all 2 columns.", STABILITY + "at least 50% for each selected column. The "),
        (["c0"], [1.0, 0.0], "The group lasso selects 1 of 2 columns: “c0”.", STABILITY + "100% for each selected column. No training run selects any other column. The "),
    ],
)  # fmt: skip
def test_extremes_of_selection(diabetes, selected, shares, beginning, part) -> None:
    sentence = write_answer(selecting(diabetes, selected, shares))[1]

    assert sentence.startswith(beginning)
    assert f"one standard error of the lowest. {part}" in sentence


@pytest.mark.parametrize(
    ("selected", "shares", "explained"),
    [
        (["c0", "c1"], [1.0, 0.4, 0.5], "“c1” is selected, but in only 40% of the training runs: it is an uncertain choice."),
        (["c0", "c1"], [0.4, 0.2, 0.0], "“c0” and “c1” are selected, but each in fewer than half of the training runs: they are uncertain choices."),
        (["c0"], [1.0, 0.8, 0.5], "“c1” is not selected, although 80% of the training runs select it: it may matter as well."),
        (["c0"], [1.0, 0.8, 1.0], "“c1” and “c2” are not selected, although more than half of the training runs select each of them: they may matter as well."),
        (["c0"], [0.5, 0.5, 0.0], ""),
    ],
)  # fmt: skip
def test_a_stability_that_seems_to_contradict_the_selection_is_explained(diabetes, selected, shares, explained) -> None:
    sentence = write_answer(selecting(diabetes, selected, shares))[1]

    assert explained in sentence
    assert (": it " in sentence or ": they " in sentence) == bool(explained)


def test_the_answer_says_which_columns_the_saved_network_needs(diabetes, diabetes_study) -> None:
    def needs(findings) -> str:
        return write_answer(findings)[1].split("The saved network ")[1]

    r2 = short(diabetes["group"].score.value)
    unread = altered(diabetes, columns=tuple(diabetes.encoder.owners[:7]))

    assert needs(diabetes) == (
        f"needs all 10 columns to predict. For the network of the selected columns, the R² on the test rows is {r2}."
    )
    assert needs(unread).startswith("needs all 10 columns (although it reads only 7 of them) to predict.")
    assert needs(altered(diabetes, "group")) == "is that of the selected columns. It needs all 10 columns to predict."


def test_the_strength_that_selects_is_explained(diabetes_study, monkeypatch) -> None:
    each = diabetes_study["adaptive"]
    assert len(each.stages) > 1
    within_error, of_gain = each.path.one_se_strength, each.path.strengths[-2]
    monkeypatch.setattr(type(each.path), "selection_strength", property(lambda path: of_gain))

    for strength, expected in (
        (within_error, "the largest strength whose held-out loss is within one standard error of the lowest."),
        (
            of_gain,
            "the largest strength that keeps 95% of the decrease in held-out loss from a model without columns.",
        ),
        (
            each.path.strengths[-1],
            "the smallest strength at which at least 80% of the training runs keep each selected column.",
        ),
    ):
        sentence = write_answer(altered(diabetes_study, "adaptive", selection_strength=strength))[1]
        assert f"Columns are selected at {expected}" in sentence


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
    rows, references = rows[:4], rows[4:]

    assert headings == ["", "strength", "held-out loss", "test loss", "R²", "gain", "columns", "zeros"]
    assert [row[0] for row in rows] == ["No penalty", "No penalty, all steps", "L2 *", "Group lasso"]
    assert [row[0] for row in references] == ["Mean", "Linear model", "Boosted trees"]
    assert all(row[1] == row[6] == row[7] == "" and row[4] for row in references)
    for candidate, row in zip(diabetes.candidates, rows, strict=True):
        loss = candidate.test_loss
        assert row[3] == f"{format_number(loss.value)} [{format_number(loss.low)}, {format_number(loss.high)}]"
        assert row[6] == str(len(candidate.columns))
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


PIECEWISE: dict[str, Any] = {"encoding": "piecewise", "hidden_layer_sizes": (4,), "max_iter": 80}


def wide() -> pd.DataFrame:
    """More columns than hidden layers read."""
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 70))
    frame = pd.DataFrame(x, columns=[f"x{number}" for number in range(70)])
    return frame.assign(y=2 * x[:, 3] + x[:, 3] * x[:, 60] + 0.1 * random.normal(size=120))


CASES: dict[str, Any] = {
    "binary": {"data": "breast_cancer", "penalties": ["l1"], "drop": ["mean radius"], "class_weight": "balanced"},
    "multiclass": {"data": "wine", "penalties": ["sparse_group"]},
    "weighted counts": {"data": counts(), "target": "y", "task": "counts", "weight": "w", "penalties": ["elasticnet"]},
    "exposure": {
        "data": counts(),
        "target": "y",
        "task": "tweedie",
        "tweedie_power": 1.2,
        "exposure": "w",
        "penalties": ["l2"],
    },
    "quantiles": {"data": "diabetes", "penalties": ["group"], "task": "quantile", "quantiles": (0.2, 0.5, 0.8)},
    "own model": {"data": "diabetes", "penalties": ["group"], "model": "own_networks:linear"},
    "selected columns": {"data": "diabetes", "penalties": ["l2", "group"], "strengths": 6, "sparse": True},
    "screened columns": {"data": wide(), "target": "y", "penalties": ["adaptive"], "choose": "adaptive", **PIECEWISE},
}


def test_the_script_reads_a_file_as_it_was_read(alone, tmp_path) -> None:
    file = tmp_path / "odd.csv"
    options: dict[str, Any] = {"delimiter": "|", "decimal": ",", "text_encoding": "utf-16"}
    counts().to_csv(file, index=False, sep="|", decimal=",", encoding="utf-16")
    findings = replace(alone, table=read(file, "d", **options), settings=replace(alone.settings, **options))

    assert 'delimiter="|", text_encoding="utf-16", decimal=",")' in write_script(findings)
    for missing, written in [(("-999", "k. A."), '["-999", "k. A."]'), ((), "[]")]:
        listed = replace(findings, settings=replace(findings.settings, missing=missing))
        assert f'decimal=",", missing={written})' in write_script(listed)


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

    best = findings.saved
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
