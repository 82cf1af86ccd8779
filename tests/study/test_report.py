"""The report: its numbers are those of the study, its text is escaped, and it stays light."""

import html
import json
import re
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from oracles.hostile import CLASSES, KIND, NAMES, TARGET

from poise.path.plots import plain_label as neutral
from poise.study.report.key_numbers import list_key_numbers
from poise.study.report.numbers import format_number
from poise.study.report.page import embed_json, read_plotly, render_page
from poise.study.report.script import write_script
from poise.study.report.sections.convergence import draw_forces
from poise.study.report.sections.selection import column_sizes, draw_columns, tabulate_columns
from poise.study.report.sections.strengths import draw_paths
from poise.study.report.sections.training import draw_losses
from poise.study.report.sections.weights import draw_weights
from poise.study.report.sentences import write_answer, write_headline
from poise.study.run import run_study


@pytest.fixture
def diabetes(diabetes_study) -> Any:
    return diabetes_study


def own_part(result) -> str:
    """The page without Plotly."""
    return render_page(result).replace(read_plotly(), "")


def text_of(own: str) -> str:
    """What a reader sees: the page without scripts, styles and tags."""
    own = re.sub(r"<(script|style)\b.*?</\1>", "", own, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", own)).split())


def test_the_report_holds_answer_tables_pictures_settings_and_code(diabetes) -> None:
    own = own_part(diabetes)
    text = text_of(own)

    headline = write_headline(diabetes)
    for paragraph in (headline, *(paragraph.removeprefix(headline).strip() for paragraph in write_answer(diabetes))):
        assert paragraph in text
    for number in list_key_numbers(diabetes):
        assert " ".join([number.label, number.value, *number.details]) in text
    for each in diabetes.candidates:
        loss = each.test_loss
        assert f"{format_number(loss.value)} {format_number(loss.low)} to {format_number(loss.high)}" in text
    for name, watched in diabetes.watched.items():
        for row in watched.balance.itertuples():
            layer = row.variable.split("/")[-2]
            assert (
                f"{diabetes[name].title} {layer} {format_number(row.prediction)} {format_number(row.penalty)}" in text
            )
    for word in ("353 training rows in 2 folds, and 89 test rows", "10 inputs, 16 ReLU units, 4 ReLU units, 1 output"):
        assert word in text
    assert f"keras {keras.__version__}" in text
    assert html.escape(write_script(diabetes)[:60], quote=False) in own
    assert set(re.findall(r'id="(\w+)-data"', own)) == {
        "paths",
        "columns",
        "curves",
        "accuracy",
        "losses",
        "forces",
        "weights",
    }


def test_the_report_asks_for_nothing_outside(diabetes) -> None:
    own = own_part(diabetes)

    assert not re.search(r"(src|@import|url)\s*[=(]|https?:", own)
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)', own))
    assert "default-src 'none'" in own


def test_every_link_has_its_place_and_no_place_is_named_twice(diabetes, alone) -> None:
    for result in (diabetes, alone):
        own = own_part(result)
        places = re.findall(r' id="([^"]+)"', own)
        assert len(places) == len(set(places))
        named = re.findall(r'(?:href="#|aria-labelledby=")([^"]+)', own)
        assert set(named) <= set(places)


def test_hostile_names_are_text_everywhere(hostile) -> None:
    own = own_part(hostile)
    text = text_of(own)

    for name in [*NAMES, KIND, TARGET, *CLASSES]:
        assert " ".join(name.split()) in text
    assert "alert(1)</script>" not in own
    assert "<script>alert" not in own
    assert "<img" not in own
    assert "<u>" not in own
    plots = len(re.findall(r'id="(\w+)-data"', own))
    assert own.count("<script") == own.count("</script>") == plots + 2


def test_neutral_text_is_shown_letter_by_letter() -> None:
    assert neutral("<b>a</b> & \n b") == "&lt;b&gt;a&lt;/b&gt; &amp; b"


def test_embedded_json_cannot_end_its_script() -> None:
    text = json.dumps({"name": "</script><!-- & \u2028"}, ensure_ascii=False)

    assert not set("<>&\u2028") & set(embed_json(text))
    assert json.loads(embed_json(text)) == json.loads(text)


def test_no_rows_of_the_data_are_in_the_page(diabetes) -> None:
    own = own_part(diabetes)

    values = diabetes.table.features["bmi"].astype(str).unique()
    assert sum(value in own for value in values if len(value) > 8) == 0


def norm_of(candidate, column, strength) -> float:
    """The norm of all weights that read a column: rows of the first hidden kernel, and of the skip connection."""
    owners = np.array(candidate.encoder.owners)
    weights = candidate.path.weights(strength)
    own = [weights[0][owners[candidate.encoder.other_inputs] == column]]
    if candidate.encoder.encoding == "piecewise":
        own.append(next(w for w in weights if len(w) == len(owners))[owners == column])
    return float(np.sqrt(sum(np.square(part).sum() for part in own)))


def test_selected_columns_come_first_with_stability_and_size(diabetes) -> None:
    each = diabetes.selector

    table = tabulate_columns(diabetes)
    assert table is not None

    assert sorted(table.index) == sorted(diabetes.table.features.columns)
    assert set(table.index[table["selected"]]) == set(each.selected)
    assert table["selected"].tolist() == sorted(table["selected"], reverse=True)
    pd.testing.assert_series_equal(table["stability"].sort_index(), each.stability.sort_index(), check_names=False)
    for column, size in table["size"].items():
        assert size == pytest.approx(norm_of(each, column, each.selection_strength), rel=1e-5)


def test_a_column_of_several_inputs_has_one_size(hostile) -> None:
    each = hostile.selector

    sizes = column_sizes(each, each.encoder.owners)

    assert each.encoder.owners.count(KIND) > 1
    assert sizes.shape == (len(NAMES) + 1, len(each.path.strengths))
    first = float(sizes.columns[0])
    assert float(sizes.to_numpy()[[*sizes.index].index(KIND), 0]) == pytest.approx(norm_of(each, KIND, first), rel=1e-5)


def test_without_a_penalty_there_is_still_a_report(alone) -> None:
    own = own_part(alone)
    text = text_of(own)

    assert "No penalty was requested, so the network without a penalty was chosen" in text
    assert "Without a penalty there is only the prediction force, which is zero at convergence." in text
    assert set(re.findall(r'id="(\w+)-data"', own)) == {"curves", "accuracy", "losses", "forces", "weights"}


def test_above_8192_rows_neither_settings_nor_script_claim_full_batches(alone) -> None:
    many = replace(alone, rows={**alone.rows, "training": 10_000})
    steps = "full-batch steps (with more than 8,192 rows, each step uses the next 4,096 rows) of Adam"

    assert steps in text_of(own_part(many))
    assert steps not in text_of(own_part(alone))
    assert "batch = min(len(x), 4096)  # rows per step: all rows, or 4096 if there are more than 8192" in write_script(
        many
    )


def test_the_pictures_of_paths_show_every_candidate_with_its_marks(diabetes) -> None:
    picture: Any = draw_paths(diabetes)

    assert [note.text for note in picture.layout.annotations] == [
        f"{each.title}{', chosen' if each.name == diabetes.chosen else ''}" for each in diabetes.penalized
    ]
    for axis, each in zip(("x", "x2", "x3"), diabetes.penalized, strict=True):
        traces = {trace.name: trace for trace in picture.data if trace.xaxis == axis and trace.name}
        np.testing.assert_allclose(traces["held-out rows"].y, each.stage.table["val_loss"])
        np.testing.assert_allclose(traces["training rows"].y, each.stage.table["loss"])
        assert set(traces["no penalty"].y) == {diabetes.baseline.val_loss}
        assert traces["predicts"].x[0] == pytest.approx(each.strength)
        assert traces["predicts"].y[0] == pytest.approx(each.val_loss)
        assert traces["selects columns"].x[0] == pytest.approx(each.selection_strength)


def test_the_null_model_is_outside_the_axis_unless_it_is_marked(diabetes) -> None:
    group = diabetes["group"]
    *_, last, far = group.stage.strengths
    assert far == pytest.approx(100 * last)

    def end_of(each) -> Any:
        picture: Any = draw_paths(replace(diabetes, candidates=(*diabetes.candidates[:3], each)))
        assert any(far in line.x for line in picture.data if line.name == "held-out rows")
        return 10 ** picture.layout.xaxis2.range[1]

    assert last < end_of(group) < 10 * last
    assert far < end_of(replace(group, selection_strength=far))


def test_the_plot_of_columns_counts_the_selected_ones(diabetes) -> None:
    each = diabetes.selector

    picture: Any = draw_columns(diabetes, each)

    counted = next(trace for trace in picture.data if trace.meta == "zeros")
    at = int(np.argmin(np.abs(each.path.strengths - each.selection_strength)))
    assert counted.y[at] == len(each.selected)


def test_the_plots_of_training_have_one_panel_per_candidate_and_layer(diabetes) -> None:
    figures: list[Any] = [draw(diabetes) for draw in (draw_losses, draw_forces, draw_weights)]
    losses, forces, weights = figures

    assert [len(picture.layout.annotations) for picture in (losses, forces, weights)] == [2, 6, 3]
    assert {trace.meta for trace in losses.data} == {"prediction", "penalty", "total"}
    lowest, highest = 10 ** np.array(forces.layout.yaxis.range)
    assert all(lowest < y < highest for trace in forces.data for y in trace.y if y == y)
    own = diabetes.watched[diabetes.chosen]
    bars = [trace for trace in weights.data if trace.xaxis == "x3"]
    assert sum(bars[0].y) + bars[1].y[0] == len(own.after)
    assert bars[1].y[0] == (own.after == 0).sum()


def caption(result, name: str) -> str:
    own = own_part(result)
    [found_caption] = re.findall(f'id="{name}" role.*?<figcaption>(.*?)</figcaption>', own, re.DOTALL)
    return text_of(found_caption)


def test_overfitting_is_called_so_only_where_it_is_seen(diabetes) -> None:
    watched = diabetes.watched["none"]
    steps = len(watched.history)
    said = []
    for course in (np.linspace(0.5, 0.9, steps), np.linspace(0.9, 0.5, steps)):
        other = replace(watched, history=watched.history.assign(val_loss=course))
        said.append(caption(replace(diabetes, watched=diabetes.watched | {"none": other}), "losses"))

    assert f"is lowest at step {watched.history.index[0]} and ends at 0.9" in said[0]
    assert "the network overfits" in said[0]
    assert "training ends before the held-out loss rises noticeably" in said[1]


def test_captions_name_every_candidate(diabetes) -> None:
    said = caption(diabetes, "paths")

    for each in diabetes.penalized:
        assert f"it is {format_number(each.val_loss, 2)} at strength {format_number(each.strength, 2)}." in said


def test_notes_follow_the_answer(diabetes) -> None:
    noted = replace(diabetes, table=replace(diabetes.table, notes=("Column 'x' looks like a leak.",)))

    assert "Notes on the data Column 'x' looks like a leak." in text_of(own_part(noted))
    assert "Notes on the data" not in text_of(own_part(diabetes))


def test_a_lane_that_diverged_leaves_a_gap_and_a_cross(diabetes) -> None:
    each = diabetes["l2"]
    table = each.path.lanes.table.copy()
    lost = (table["strength"] == table["strength"].max()) & (table["fold"] == 0)
    table.loc[lost, ["diverged", "held_loss"]] = [True, np.nan]
    path = replace(each.path, lanes=replace(each.path.lanes, table=table))
    changed = replace(each, path=path, stage=path)
    result = replace(diabetes, candidates=(*diabetes.candidates[:2], changed, *diabetes.candidates[3:]))

    picture: Any = draw_paths(result)

    crosses = [trace for trace in picture.data if trace.marker.symbol == "x"]
    assert [len(trace.x) for trace in crosses] == [1]
    assert np.isnan(next(trace for trace in picture.data if trace.name == "held-out rows").y[-1])
    assert "NaN" not in str(picture.to_json())


def test_many_columns_stay_light() -> None:
    random = np.random.default_rng(0)
    names = [f"column {number:05d}" for number in range(2500)]
    frame = pd.DataFrame(random.normal(size=(60, 2500)).astype("float32"), columns=names)
    frame["y"] = frame[names[0]] - frame[names[1]]
    result = run_study(
        frame, "y", penalties=["group"], hidden_layer_sizes=(2,), max_iter=20, strengths=3, cv=2, encoding="standard"
    ).findings

    own = own_part(result)

    text = text_of(own)
    assert "The first 200 columns are listed; 2,300 more are not shown." in text
    assert "the first 200 of 2,500" in text
    assert len(own) < 600_000


def test_further_scores_are_above_the_predictions(diabetes) -> None:
    scores = [f"{name} {format_number(value)}" for name, value in diabetes.metrics.items()]
    score = f"R² {format_number(diabetes.saved.score.value)}"

    assert f"on the 89 test rows: {score}, {scores[0]}, {scores[1]} (both in units of target)." in text_of(
        own_part(diabetes)
    )


def test_details_come_last(diabetes) -> None:
    names = re.findall(r'<section id="(\w+)"', own_part(diabetes))

    assert names == [
        "answer", "comparison", "selection", "effects", "predictions", "strengths", "saved", "convergence", "training",
        "histograms", "code", "settings",
    ]  # fmt: skip
    assert own_part(diabetes).count(">Details<") == 1


def test_the_report_is_small(diabetes) -> None:
    assert len(render_page(diabetes).encode()) < 2_000_000
