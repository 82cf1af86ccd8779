"""The network of the selected columns: its own row and score, and saved with `sparse=True`."""

import io
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from poise.cli.study_output import candidates_table, print_comparison
from poise.study.candidates import training
from poise.study.columns.encoding import Encoder
from poise.study.errors import DataError
from poise.study.predictions import predict_outputs
from poise.study.report.comparison import compare_candidates
from poise.study.report.description import describe
from poise.study.report.page import render_page
from poise.study.report.script import write_script
from poise.study.report.sentences import write_answer
from poise.study.result import Study
from poise.study.run import run_study
from poise.study.splits import split_test_rows

TITLE = "Group lasso, selected columns"


def planted(count=240) -> pd.DataFrame:
    """y depends on a, on whether b is missing, and on color; the columns differ in kind."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(count, 6)), columns=[*"abcdef"])
    frame["b"] = frame["b"].mask(random.random(count) < 0.3)
    frame["color"] = random.choice(["red", "green", "blue"], count)
    frame["kind"] = random.choice(["x", "y"], count)
    frame["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, count), unit="D")
    effect = 2.0 * frame["a"] + 1.5 * frame["b"].isna() + 2.0 * (frame["color"] == "red")
    return frame.assign(y=effect + 1.5 * random.normal(size=count))


def train(**changes: Any) -> Study:
    settings = {"penalties": ["l2", "group"], "strengths": 16, "cv": 3, "max_iter": 150, "hidden_layer_sizes": (8,)}
    return run_study(planted(), "y", **{**settings, "sparse": True, **changes})


@pytest.fixture(scope="module")
def sparse(trained) -> Any:
    return trained("sparse", lambda: train().findings)


@pytest.fixture
def study(sparse) -> Study:
    return Study(describe(sparse), sparse.compact_model, sparse.encoder, findings=sparse)


def read_columns(model: keras.Model, encoder: Encoder) -> set[str]:
    """The columns with a weight in a kernel that reads inputs; the hidden units of these networks all matter."""
    owners = np.array(encoder.owners)
    parts = [(model.get_layer("hidden_1").get_weights()[0], owners)]
    if encoder.encoding == "piecewise":
        parts = [(parts[0][0], owners[encoder.other_inputs]), (model.get_layer("curves").get_weights()[0], owners)]
    return {owner for kernel, rows in parts for owner, row in zip(rows, kernel, strict=True) if row.any()}


def test_the_row_of_the_selection_has_the_numbers_of_its_own_network(sparse) -> None:
    selection, selector = sparse.selection, sparse["group"]
    row = sparse.results.loc["selection"]
    testing = split_test_rows(sparse.table, sparse.settings.test, sparse.settings.seed)[1]
    y = (sparse.table.target.to_numpy("float64")[testing] - sparse.center) / sparse.scale
    model = selector.path.model(selector.path.one_se_strength)

    outputs = predict_outputs(model, sparse.encoder.transform(sparse.table.features.iloc[testing]))[:, 0]

    loss = np.square(outputs - y).mean()
    assert selector.strength < selection.strength == selector.path.one_se_strength
    assert row["strength"] == selection.strength
    assert row["test_loss"] == pytest.approx(loss, rel=1e-4)
    assert row["score"] == pytest.approx(1 - loss / y.var(), rel=1e-4)
    assert row["gain"] == pytest.approx(sparse.results.loc["none", "test_loss"] - loss, rel=1e-3)
    table = selector.path.table.set_index("strength")
    np.testing.assert_allclose(
        row[["val_loss", "val_error"]].astype(float), table.loc[selection.strength, ["val_loss", "val_se"]]
    )
    assert row["zeros"] == sum((weight == 0).sum() for weight in model.get_weights() if weight.ndim == 2)
    assert row["columns"] == len(selector.selected) == len(read_columns(model, selector.encoder))


def test_the_columns_of_a_row_are_those_that_its_network_reads(sparse, diabetes_study) -> None:
    for findings in (sparse, diabetes_study):
        for network in findings.networks:
            assert set(network.columns) == read_columns(network.model, network.encoder)
            assert findings.results.loc[network.name, "columns"] == len(network.columns)
    assert len(sparse["group"].columns) > len(sparse["group"].selected)


def test_every_table_has_the_row_below_the_candidate_that_selects(sparse, study) -> None:
    titles = ["No penalty", "No penalty, all steps", "L2", "Group lasso", TITLE]

    assert list(sparse.results["title"]) == titles
    cells = [row[0] for row in compare_candidates(study.description)[1]]
    assert cells[:5] == [*titles[:4], f"{TITLE} *"]
    loaded = Study(study.description, study.model, study.encoder)
    pd.testing.assert_frame_equal(loaded.results, sparse.results, check_dtype=False)
    output = io.StringIO()
    screen = Console(width=200, file=output)
    screen.print(candidates_table(study.description, screen))
    assert f"{TITLE} *" in output.getvalue()
    print_comparison(["a run with a name as long as the title"], [study.description], screen)
    assert output.getvalue().count("Group lasso, selected") == 2
    page = render_page(sparse)
    assert f'<tr class="best"><th scope="row">{TITLE}</th>' in page
    assert repr(study).splitlines()[2].startswith(TITLE)


def test_without_another_network_there_is_no_row(diabetes_study, alone) -> None:
    same = replace(diabetes_study, candidates=diabetes_study.candidates[:4], selection=None)

    for findings in (same, alone):
        assert "selection" not in findings.results.index
        assert describe(findings)["selection"] is None


def test_a_sparse_study_needs_only_the_selected_columns(sparse, study, tmp_path) -> None:
    selected = sparse["group"].selected
    study.save(tmp_path / "run")
    loaded, frame = Study.load(tmp_path / "run"), planted().drop(columns="y")

    predicted = loaded.predict(frame[list(selected)])

    assert {"a", "color"} <= set(selected) < set(frame)
    assert loaded.needed_columns == study.needed_columns == selected
    assert set(loaded.description["inputs"]) == {
        name for name, owner in zip(sparse.encoder.inputs, sparse.encoder.owners, strict=True) if owner in selected
    }
    assert loaded.model.input_shape == (None, len(loaded.description["inputs"]))
    pd.testing.assert_frame_equal(loaded.predict(frame), predicted)
    outputs = predict_outputs(sparse.selection.model, sparse.encoder.transform(sparse.table.features))[:, 0]
    np.testing.assert_allclose(predicted["y"], outputs * sparse.scale + sparse.center, rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match="no column 'a'"):
        loaded.predict(frame.drop(columns="a"))


def test_the_answer_the_report_and_the_script_are_about_the_saved_network(sparse) -> None:
    count, score = len(sparse["group"].selected), f"{sparse.selection.score.value:.2g}"

    assert write_answer(sparse)[1].endswith(
        "As requested, the network of the selected columns is saved. "
        f"It needs only {count} of 9 columns to predict. Its R² on the test rows is {score}."
    )
    assert f"predictions need {count} of 9 columns: " in " ".join(render_page(sparse).split())
    assert write_script(sparse).startswith(f"# The table: {TITLE} at strength {sparse.selection.strength:.3g}")
    assert sparse.importance.index[sparse.importance["importance"] != 0].isin(sparse["group"].selected).all()


def test_the_importance_is_kept_with_the_study(sparse, study, tmp_path) -> None:
    study.save(tmp_path / "run")

    table = Study.load(tmp_path / "run").importance

    pd.testing.assert_frame_equal(table, study.importance)
    assert list(table) == ["importance", "error", "direction", "selected", "stability"]
    assert table["importance"].is_monotonic_decreasing
    assert set(table.index[table["selected"]]) == set(sparse["group"].selected)
    assert table.loc["a", "direction"] == "up"
    assert str(table.loc["color", "direction"]).startswith("highest at red")


def test_a_study_without_a_selection_has_importance_as_well(alone) -> None:
    table = Study(describe(alone), alone.compact_model, alone.encoder, findings=alone).importance

    assert len(table) == 13
    assert table["selected"].isna().all()
    assert (table["importance"].iloc[0]) > 0


def test_a_network_that_selects_nothing_needs_no_column(sparse) -> None:
    constant = keras.models.clone_model(sparse.selection.model)
    constant.set_weights([np.zeros_like(weight) for weight in constant.get_weights()])
    selection = replace(sparse.selection, model=constant, columns=())
    findings = replace(sparse, selection=selection)
    study = Study(describe(findings), findings.compact_model, findings.encoder, findings=findings)

    predicted = study.predict(pd.DataFrame({"unrelated": [1, 2]}))

    assert study.needed_columns == ()
    np.testing.assert_allclose(predicted["y"], sparse.center, rtol=1e-6)
    assert "It needs no column to predict." in study.answer[1]


class Squashed(keras.layers.Layer):
    """A layer that poise does not know."""

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(x)


def unknown(inputs: int, outputs: int) -> keras.Model:
    return keras.Sequential([keras.Input((inputs,)), Squashed(), keras.layers.Dense(outputs)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalties": ["l2"]}, "sparse needs a penalty that selects columns, got l2. Add the penalty 'adaptive' or"),
        ({"penalties": []}, "sparse needs a penalty that selects columns, got none."),
        ({"penalties": ["l1"], "model": unknown}, "sparse needs a network whose selected columns are known; poise"),
    ],
)
def test_a_sparse_study_that_cannot_select_is_refused_before_training(changes, message, monkeypatch) -> None:
    monkeypatch.setattr(training, "solve_path", lambda *_, **__: pytest.fail("it trained"))

    with pytest.raises(DataError, match=message) as caught:
        train(**changes)
    assert caught.value.argument == "sparse"
