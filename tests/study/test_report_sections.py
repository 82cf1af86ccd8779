"""What the sections of the report show about columns, coefficients and predictions, and the code that they give."""

import io
import re
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LinearRegression
from sklearn.metrics import auc, confusion_matrix, roc_auc_score

from poise.study.importance import PartialDependence
from poise.study.predicted_rows import PredictedRows
from poise.study.report.class_plots import bin_probabilities, choose_classes, draw_class_curves
from poise.study.report.description import describe
from poise.study.report.key_numbers import list_key_numbers
from poise.study.report.number_plots import draw_number_predictions
from poise.study.report.numbers import format_number, round_values
from poise.study.report.page import render_page
from poise.study.report.script import write_loading_script
from poise.study.report.sections.coefficients import CoefficientsSection
from poise.study.report.sections.effects import EffectsSection, choose_columns, draw_effects, place_values
from poise.study.report.sections.predictions import PredictionsSection
from poise.study.run import run_study
from poise.study.storage import write_study

SMALL: dict[str, Any] = {"max_iter": 40, "strengths": 3, "cv": 2}


def context_of(section: Any, findings: Any) -> dict[str, Any]:
    context = section.context(findings)
    assert context is not None
    return context


def probabilities(rows: int, classes: int, weight: bool = False) -> PredictedRows:
    """Predictions that are right about as often as they say."""
    random = np.random.default_rng(0)
    predicted = random.dirichlet(np.ones(classes), rows)
    actual = (random.random(rows)[:, None] > predicted.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return PredictedRows(actual, predicted, random.uniform(0.5, 2.0, rows) if weight else None)


# ---------------------------------------------------------------- predictions


def test_predictions_are_in_units_of_the_target(diabetes_study) -> None:
    predicted, table = diabetes_study.predicted, diabetes_study.table

    errors = predicted.actual - predicted.predictions
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(diabetes_study.metrics["RMSE"])
    assert np.abs(errors).mean() == pytest.approx(diabetes_study.metrics["MAE"])
    assert set(predicted.actual.round(3)) <= set(table.target.round(3))


def test_every_test_row_is_a_point_and_many_rows_are_sampled() -> None:
    random = np.random.default_rng(0)
    actual = random.normal(size=3000)
    rows = PredictedRows(actual, actual + random.normal(size=3000), None)

    figure: Any
    sample: Any
    figure, count = draw_number_predictions(
        replace(rows, actual=actual[:50], predictions=rows.predictions[:50]), 2000, 0
    )
    sample, drawn = draw_number_predictions(rows, 2000, 0)

    assert (count, drawn) == (50, 2000)
    traces: Any = [trace for trace in figure.data if trace.mode == "markers"]
    np.testing.assert_allclose(traces[0].x, actual[:50], atol=1e-3)
    np.testing.assert_allclose(traces[1].y, actual[:50] - rows.predictions[:50], atol=1e-3)
    sampled: Any = next(trace for trace in sample.data if trace.mode == "markers")
    assert len(sampled.x) == len(set(zip(sampled.x, sampled.y, strict=True))) == 2000


def test_a_sample_is_called_a_sample(diabetes_study) -> None:
    predicted = diabetes_study.predicted
    many = replace(
        diabetes_study, rows={**diabetes_study.rows, "test": 2500},
        predicted=replace(predicted, actual=np.resize(predicted.actual, 2500), predictions=np.resize(predicted.predictions, 2500)),
    )  # fmt: skip

    assert "A random sample of 2,000 test rows." in render_page(many)
    assert "A random sample" not in render_page(diabetes_study)


def test_the_roc_curve_has_the_area_of_scikit_learn() -> None:
    for rows in (probabilities(300, 2), probabilities(300, 2, weight=True), probabilities(300, 3)):
        figure: Any
        figure, legend = draw_class_curves(rows, [*"abc"][: rows.predictions.shape[1]])

        numbers = choose_classes(rows)
        curves: Any = [trace for trace in figure.data if str(trace.meta).startswith("line")]
        assert len(curves) == len(numbers) == len(legend) - 1
        for curve, number in zip(curves, numbers, strict=True):
            expected = roc_auc_score(rows.actual == number, rows.predictions[:, number], sample_weight=rows.weight)
            assert auc(curve.x, curve.y) == pytest.approx(expected, abs=2e-3)


def test_classes_without_test_rows_have_no_roc_curve() -> None:
    rows = probabilities(40, 3)

    assert choose_classes(replace(rows, actual=np.array([0, 1] * 20))) == [0, 1]
    one_class = PredictedRows(np.zeros(9, int), np.full((9, 2), 0.5), None)
    assert choose_classes(one_class) == []
    assert len(draw_class_curves(one_class, ["no", "yes"])[1]) == 1  # only the dashed line
    assert len(choose_classes(probabilities(400, 9))) == 6


def test_the_calibration_is_that_of_scikit_learn() -> None:
    rows = probabilities(200, 2)

    bins = [*bin_probabilities(rows)]

    shares, means = calibration_curve(rows.actual, rows.predictions[:, 1], n_bins=10, strategy="quantile")
    np.testing.assert_allclose([each.share for each in bins], shares)
    np.testing.assert_allclose([each.probability for each in bins], means)
    for each in bins:
        interval = binomtest(round(each.share * each.rows), each.rows).proportion_ci(method="wilson")
        assert (each.low, each.high) == pytest.approx((interval.low, interval.high))


def test_the_calibration_of_several_classes_is_that_of_the_predicted_one() -> None:
    rows = probabilities(300, 3)

    bins = [*bin_probabilities(rows)]

    assert np.average([each.share for each in bins]) == pytest.approx(
        (rows.predictions.argmax(axis=1) == rows.actual).mean()
    )
    assert sum(each.rows for each in bins) == 300
    assert len([*bin_probabilities(probabilities(20, 3))]) == 1


def test_the_confusion_matrix_is_that_of_scikit_learn(alone) -> None:
    predicted = alone.predicted
    expected = confusion_matrix(predicted.actual, predicted.predictions.argmax(axis=1), labels=range(3))

    context = context_of(PredictionsSection(), alone)

    np.testing.assert_array_equal(predicted.count_confusions(), expected)
    assert describe(alone)["confusion_matrix"] == expected.tolist()
    assert [[count for count, _, _ in cells] for _, cells in context["matrix"]] == expected.tolist()
    assert context["correct"] == np.trace(expected)
    assert all(is_correct == (row == at) for row, (_, cells) in enumerate(context["matrix"]) for at, (_, _, is_correct) in enumerate(cells))  # fmt: skip


def test_many_classes_have_a_confusion_matrix_of_the_most_frequent_ones(alone) -> None:
    classes = [f"class {number}" for number in range(30)]
    many = replace(alone, table=replace(alone.table, classes=classes), predicted=probabilities(600, 30))

    context = context_of(PredictionsSection(), many)

    counts = np.bincount(many.predicted.actual, minlength=30)
    assert len(context["labels"]) == 20
    assert context["left_out"] == 10
    listed = [classes.index(label) for label in context["labels"]]
    assert counts[listed].min() >= max(counts[[number for number in range(30) if number not in listed]])


# ---------------------------------------------------------------- columns


def test_the_curves_are_drawn_in_units_of_the_target(diabetes_study) -> None:
    names = choose_columns(diabetes_study)

    figure: Any = draw_effects(diabetes_study, names)

    assert (
        names == diabetes_study.importance["importance"].sort_values(ascending=False, kind="stable").index[:8].tolist()
    )
    assert [note.text for note in figure.layout.annotations] == names
    for trace, name in zip(figure.data, names, strict=True):
        curve = diabetes_study.effects[name]
        expected = curve.predictions * diabetes_study.scale + diabetes_study.center
        np.testing.assert_allclose(trace.y, expected, rtol=1e-3)


def test_categories_and_dates_have_their_own_axes(diabetes_study) -> None:
    days = pd.Series(pd.date_range("2024-01-01", periods=3))
    labels = pd.Series(["<b>red</b>", "a long name", "c", "d", "e", "f"])
    effects = {
        "age": PartialDependence(days, np.array([0.0, 1.0, 2.0]), "", True),
        "sex": PartialDependence(labels, np.arange(6.0), "", False),
        "bmi": PartialDependence(days, np.zeros(3), "", True),
    }
    study = replace(diabetes_study, effects=effects)
    names = choose_columns(study)

    figure: Any = draw_effects(study, names)

    assert sorted(names) == ["age", "sex"]
    dates = figure.data[names.index("age")]
    assert [*dates.x] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    axis = figure.layout["xaxis" if names[0] == "sex" else "xaxis2"]
    assert [*axis.ticktext] == ["&lt;b&gt;red&lt;/…", "a long n…", "c", "d", "e"]


def test_without_any_effect_there_is_no_section(diabetes_study) -> None:
    assert EffectsSection().context(replace(diabetes_study, effects={})) is None


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_the_coefficients_are_those_of_the_linear_model(task) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(200, 3)) * [1, 10, 1], columns=["a", "b", "noise"])
    signal = 3 * frame["a"] - 0.5 * frame["b"]
    frame["y"] = 100 + signal if task == "regression" else np.array([*"uvw"])[np.digitize(signal, [-2, 2])]
    study = run_study(
        frame, "y", task=task, penalties=["l2"], hidden_layer_sizes=(), choose="none", **{**SMALL, "max_iter": 800}
    )

    context = context_of(CoefficientsSection(), study.findings)

    rows = dict(context["rows"])
    if task == "multiclass":
        assert [name for name, _ in context["columns"]] == ["u", "v", "w"]
        # Higher values of a make u less likely and w more likely; b acts the other way round, and more.
        assert rows["a"][0] < rows["a"][1] < rows["a"][2]
        assert rows["b"][0] > rows["b"][1] > rows["b"][2]
        assert [name for name, _ in context["rows"]][:2] == ["b", "a"]
        return
    x = (frame[["a", "b", "noise"]] - frame[["a", "b", "noise"]].mean()) / frame[["a", "b", "noise"]].std(ddof=0)
    expected = LinearRegression().fit(x, frame["y"])
    for name, coefficient in zip(x.columns, expected.coef_, strict=True):
        assert rows[name][0] == pytest.approx(coefficient, abs=0.5)
    assert context["intercept"][0] == pytest.approx(expected.intercept_, abs=1.0)
    assert [name for name, _ in context["rows"]][:2] == ["b", "a"]


def test_a_network_with_hidden_layers_has_no_coefficients(diabetes_study) -> None:
    assert CoefficientsSection().context(diabetes_study) is None


# ---------------------------------------------------------------- the card and the code


def test_the_card_has_the_gain_the_score_and_the_columns(diabetes_study) -> None:
    gain, score, columns = list_key_numbers(diabetes_study)

    over = diabetes_study.verdict.over_baseline.score_gain
    assert gain.value.lstrip("+") == format_number(over.value, 2)
    assert gain.label == "gain in held-out R² from L2, compared with early stopping alone"
    assert score.value == format_number(diabetes_study.saved.score.value)
    assert score.details[0].startswith("mean: ")
    assert columns.value == f"{len(diabetes_study.selector.selected)} of 10"
    assert columns.details == ("the saved network needs all 10 to predict",)


def test_the_card_without_a_penalty(alone) -> None:
    gain, _, columns = list_key_numbers(alone)

    assert gain.label == "gain in held-out accuracy over the class frequencies"
    assert columns == replace(columns, label="columns needed to predict", value="13", details=("no penalty is used",))


def test_the_code_of_the_report_loads_the_study_where_it_was_saved(alone, tmp_path) -> None:
    folder = tmp_path / "it's a folder"
    report = write_study(alone, folder).read_text(encoding="utf-8")

    script = write_loading_script(alone, str(folder))
    with redirect_stdout(io.StringIO()) as printed:
        exec(script, {})

    assert "Study of 'wine'" in printed.getvalue()
    assert "probability of class_2" in printed.getvalue()
    shown = re.search(r'<code id="loading">(.*?)</code>', report, re.DOTALL)
    assert shown is not None
    assert "folder" in shown[1]
    assert "runs/wine" not in report


def test_the_code_of_a_frame_expects_a_frame(alone) -> None:
    script = write_loading_script(replace(alone, table=replace(alone.table, source="")))

    assert "new_rows = frame" in script
    assert 'poise.Study.load("runs/wine")' in script


def test_the_code_repeats_what_reading_the_file_needs(alone) -> None:
    settings = replace(alone.settings, delimiter="|", text_encoding="cp1252")

    script = write_loading_script(replace(alone, settings=settings))

    assert 'study.predict(new_rows, delimiter="|", text_encoding="cp1252")' in script


# ---------------------------------------------------------------- rounding


def test_numbers_are_rounded_to_their_range_and_not_to_their_size() -> None:
    years = np.array([1999.1234, 1999.5678, 2001.3])
    np.testing.assert_allclose(round_values(years), years, atol=5e-4)
    assert round_values(years).tolist() != years.tolist()
    dates = np.array([20210104.0, 20210520.0, 20211231.0])
    np.testing.assert_allclose(round_values(dates), dates, atol=1.0)
    assert round_values(np.array([123456.0, 123456.0])).tolist() == [123500.0, 123500.0]
    assert round_values(np.zeros(2)).tolist() == [0.0, 0.0]


def test_times_within_a_day_have_places_of_their_own() -> None:
    times = pd.Series(pd.date_range("2024-01-01", periods=4, freq="6h"))
    assert place_values(times).tolist()[:2] == ["2024-01-01 00:00:00", "2024-01-01 06:00:00"]
    assert place_values(times.dt.normalize()).tolist() == ["2024-01-01"] * 4
