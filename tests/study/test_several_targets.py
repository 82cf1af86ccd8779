"""Studies of several targets, which one network predicts together, against scikit-learn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler

from poise import Study, run_study
from poise.study.candidates.references import TREES
from poise.study.columns.folds import encode_folds, standardize
from poise.study.errors import DataError
from poise.study.report.page import render_page
from poise.study.report.sections.coefficients import CoefficientsSection
from poise.study.splits import split_folds, split_test_rows
from poise.study.tables import read
from poise.study.tasks.base import ALPHAS

ROWS = 160
TARGETS = ["heating", "cooling"]
FAST: dict[str, Any] = {"penalties": ["l2"], "cv": 2, "strengths": 3, "max_iter": 200, "hidden_layer_sizes": ()}


def make_frame() -> pd.DataFrame:
    """Return rows with two targets in different units, and weights."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(ROWS, 3)), columns=["area", "height", "glass"])
    frame["heating"] = 500.0 + 100.0 * frame["area"] + 30.0 * random.normal(size=ROWS)
    frame["cooling"] = 0.02 * frame["height"] - 0.01 * frame["area"] + 0.01 * random.normal(size=ROWS)
    frame["w"] = random.uniform(0.5, 2.0, ROWS)
    return frame


FRAME = make_frame()


@pytest.fixture(scope="module")
def study() -> Study:
    return run_study(FRAME, TARGETS, choose="l2", weight="w", **FAST)


def test_several_targets_are_one_task(study) -> None:
    data = study.description["data"]

    assert (data["task"], data["target"], data["targets"]) == ("multioutput", "heating, cooling", TARGETS)
    assert str(study).startswith("Study of 'The table' (multioutput of 'heating', 'cooling')")
    assert list(study.predict(FRAME).columns) == TARGETS
    assert study.model.output_shape == (None, 2)


def test_scores_are_those_of_scikit_learn(study) -> None:
    training, testing = split_test_rows(study.findings.table, 0.2, 0)
    rows, predicted = FRAME.iloc[testing], study.predict(FRAME.iloc[testing])
    scale, weight = study.findings.scale, rows["w"]

    center = np.average(FRAME[TARGETS].iloc[training], axis=0, weights=FRAME["w"].iloc[training])
    np.testing.assert_allclose(study.findings.center, center, rtol=1e-9)
    pooled = r2_score(rows[TARGETS] / scale, predicted / scale, sample_weight=weight, multioutput="variance_weighted")
    loss = mean_squared_error(rows[TARGETS] / scale, predicted / scale, sample_weight=weight)
    assert study.findings.saved.score.value == pytest.approx(pooled, rel=1e-5)
    assert study.findings.saved.test_loss.value == pytest.approx(loss, rel=1e-4)
    assert study.metrics == pytest.approx(
        {
            f"{name} of {target}": measure(rows[target], predicted[target], sample_weight=weight)
            for target in TARGETS
            for name, measure in (("R²", r2_score), ("RMSE", root_mean_squared_error), ("MAE", mean_absolute_error))
        },
        rel=1e-4,
    )


def test_references_are_fitted_to_all_targets(study) -> None:
    """Their held-out losses are those of the means, of ridge regression, and of boosted trees of each target."""
    table = read(FRAME, TARGETS, weight="w")
    training, _ = split_test_rows(table, 0.2, 0)
    rows = encode_folds(table, training, split_folds(table, training, 2, 0))
    assert rows.weight is not None
    losses = {"mean": [], "linear": [], "boosted_trees": []}
    for replica in rows.replicas[:-1]:
        x, y, weight = (part[replica.train].astype("float64") for part in (rows.x, rows.y, rows.weight))
        held = rows.x[replica.held].astype("float64")
        trees: Any = HistGradientBoostingRegressor(max_iter=TREES, random_state=0)
        outputs = {
            "mean": [np.zeros((len(held), 2))],
            "linear": [Ridge(alpha * weight.sum()).fit(x, y, weight).predict(held) for alpha in ALPHAS],
            "boosted_trees": [np.column_stack([trees.fit(x, each, weight).predict(held) for each in y.T])],
        }
        for name, options in outputs.items():
            errors = [np.square(rows.y[replica.held] - output).mean(axis=1) for output in options]
            losses[name].append([np.average(each, weights=rows.weight[replica.held]) for each in errors])
    expected = {name: np.mean(each, axis=0).min() for name, each in losses.items()}
    assert study.references["val_loss"].to_dict() == pytest.approx(expected, rel=1e-5)
    assert study.references["title"]["mean"] == "Means"


def test_coefficients_predict_in_the_units_of_each_target(study) -> None:
    context = CoefficientsSection().context(study.findings)
    assert context is not None
    rows = dict(context["rows"])

    inputs = study.encoder.transform(FRAME[["area", "height", "glass"]])
    kernel = np.stack([rows[name] for name in study.encoder.inputs])
    np.testing.assert_allclose(inputs @ kernel + context["intercept"], study.predict(FRAME), rtol=1e-4, atol=1e-5)
    assert [name for name, _ in context["columns"]] == TARGETS


def test_a_saved_study_predicts_the_same_and_reports_each_target(study, tmp_path) -> None:
    study.save(tmp_path / "study")

    pd.testing.assert_frame_equal(Study.load(tmp_path / "study").predict(FRAME), study.predict(FRAME))
    page = render_page(study.findings, "runs/energy")
    assert "Scores of the saved network for each target." in page
    assert "target cooling" in page
    assert study.importance["direction"].str.startswith(("heating: ", "cooling: ", "flat")).all()
    assert "heating: (value − " in page


def test_standardized_targets_are_those_of_scikit_learn() -> None:
    values, train = FRAME[TARGETS].to_numpy(), np.arange(100)
    weight = FRAME["w"].to_numpy()[train]

    y, center, scale = standardize(values, train, weight)

    scaler: Any = StandardScaler().fit(values[train], sample_weight=weight)
    np.testing.assert_allclose(y, scaler.transform(values), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(center, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(scale, scaler.scale_, rtol=1e-12)


def test_rows_that_lack_a_target_are_left_out() -> None:
    frame = FRAME.copy()
    frame.loc[:4, "heating"] = np.nan
    frame.loc[3:9, "cooling"] = np.nan

    table = read(frame, TARGETS)

    assert table.target.to_numpy().tolist() == FRAME[TARGETS].iloc[10:].to_numpy().tolist()
    assert table.features["area"].tolist() == FRAME["area"].iloc[10:].tolist()
    assert "5 of 160 rows have no value for 'heating' and are left out." in table.notes
    assert "7 of 160 rows have no value for 'cooling' and are left out." in table.notes


def test_a_column_that_determines_one_target_is_reported() -> None:
    notes = read(FRAME.assign(leak=2.0 * FRAME["cooling"]), TARGETS).notes

    assert any(
        note.startswith("Column 'leak' determines one of the targets 'heating', 'cooling' alm") for note in notes
    )


def test_numbers_that_are_too_large_name_their_column() -> None:
    frame = FRAME.assign(cooling=np.where(np.arange(ROWS) == 3, 1e300, FRAME["cooling"]))

    with pytest.raises(DataError, match="The numbers in column 'cooling' are too large for float32"):
        run_study(frame, TARGETS, **FAST)


@pytest.mark.parametrize(
    ("frame", "target", "arguments", "message"),
    [
        (
            FRAME,
            TARGETS,
            {"task": "gamma"},
            "Several targets need the task multioutput, got the task gamma. Choose one",
        ),
        (FRAME, ["heating"], {"task": "multioutput"}, "The task multioutput needs several targets, got one. List more"),
        (FRAME, ["heating", "heating"], {}, "Column 'heating' is listed twice as a target. List it once."),
        (
            FRAME,
            ["heating", "w"],
            {"weight": "w"},
            "Column 'w' cannot be both the target column and the weight column.",
        ),
        (FRAME, ["heating", "colling"], {}, "has no column 'colling'"),
        (FRAME, TARGETS, {"offset": "w"}, "offset needs one of the tasks regression, .*, got multioutput"),
        (FRAME.assign(cooling=1.0), TARGETS, {}, "Target 'cooling' is constant"),
        (
            FRAME.assign(cooling=np.where(FRAME["cooling"] > 0, "hot", "cold")),
            TARGETS,
            {},
            "The task multioutput needs numbers, and target 'cooling' is text, such as 'cold', 'hot'",
        ),
        (FRAME, [], {}, "needs a target. Name the column to predict"),
    ],
    ids=["task", "one target", "twice", "two roles", "unknown", "offset", "constant", "text", "none"],
)
def test_targets_that_cannot_be_used_are_named(frame, target, arguments, message) -> None:
    with pytest.raises(DataError, match=message):
        run_study(frame, target, **arguments, **FAST)
