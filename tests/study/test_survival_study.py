"""A study of survival, from the columns of times and events to predictions, against scikit-survival and definitions."""

import io
import random
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from oracles.survival import draw_survival, negative_partial_log_likelihood
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

import poise
from poise.study.candidates.encodings import EncodedNetworks
from poise.study.candidates.linear_path import fit_linear_path
from poise.study.candidates.network import build_start
from poise.study.candidates.references import REFERENCES, fit_reference
from poise.study.columns.encoding import STANDARD
from poise.study.columns.folds import encode_folds
from poise.study.errors import DataError
from poise.study.held_out import find_held_out_rows
from poise.study.report.page import render_page
from poise.study.report.script import write_script
from poise.study.report.survival_plots import draw_survival_curves
from poise.study.run import run_study
from poise.study.settings import NO_PENALTY
from poise.study.splits import split_folds, split_test_rows
from poise.study.tables import read
from poise.study.tasks.survival import Survival

ROWS = 240


def make_frame() -> pd.DataFrame:
    x, y, _ = draw_survival(ROWS, 4, seed=1)
    frame = pd.DataFrame(x.round(4), columns=["a", "b", "c", "d"])
    return frame.assign(months=y[:, 0].round(4), died=y[:, 1] == 1)


FRAME = make_frame()
TIMES: dict[str, Any] = {"time_to_event": "months", "event": "died"}


@pytest.fixture(scope="module")
def study() -> Any:
    options: Any = {"penalties": ["adaptive"], "encoding": "standard", "hidden_layer_sizes": (8,)}
    return run_study(FRAME, **TIMES, **options, strengths=4, cv=2, max_iter=100)


def test_score_and_loss_are_those_of_the_predicted_test_rows(study) -> None:
    actual, predicted = study.findings.predicted.actual, study.findings.predicted.predictions
    saved = study.results.loc[study.description["saved"]]

    expected = concordance_index_censored(actual[:, 1] == 1, actual[:, 0], predicted)[0]
    assert saved["score"] == pytest.approx(expected, rel=1e-9)
    assert saved["score_low"] < expected < saved["score_high"]
    loss = negative_partial_log_likelihood(actual, predicted, np.ones(len(actual)), "breslow") / len(actual)
    assert saved["test_loss"] == pytest.approx(loss, rel=1e-6)
    assert study.metrics["events"] == actual[:, 1].sum()
    assert study.references["score"]["mean"] == 0.5
    assert [*study.references.index] == ["mean", "linear"]
    assert study.comparisons.loc["mean", "outcome"] == "helps"


def test_test_rows_and_folds_have_equal_shares_of_events() -> None:
    table = read(FRAME, "months", task="survival", event="died")
    training, testing = split_test_rows(table, 0.25, 0)
    events = 1.0 - np.signbit(table.target.to_numpy())
    assert abs(events[training].mean() - events[testing].mean()) < 1 / len(testing)
    for train, held in split_folds(table, training, 3, 0):
        assert abs(events[training][train].mean() - events[training][held].mean()) < 2 / len(held)


def test_references_have_the_losses_of_the_definition(study) -> None:
    """The constant model, and the best lasso of scikit-survival on the rows of each fold."""
    table = study.findings.table
    training, _ = split_test_rows(table, 0.2, 0)
    rows = encode_folds(table, training, split_folds(table, training, 2, 0))
    constant, lasso = [], []
    for replica in rows.replicas[:-1]:
        both = np.concatenate([replica.train, replica.held])

        def held_out(w: np.ndarray, parts: Any = (both, replica.train), count: int = len(replica.held)) -> float:
            losses = [
                negative_partial_log_likelihood(rows.y[part], rows.x[part] @ w, np.ones(len(part)), "breslow")
                for part in parts
            ]
            return (losses[0] - losses[1]) / count

        y = Surv.from_arrays(rows.y[replica.train, 1] == 1, rows.y[replica.train, 0])
        # One by one, because a path of scikit-survival may stop early.
        lassos = [
            CoxnetSurvivalAnalysis(l1_ratio=1.0, alphas=[alpha], fit_baseline_model=False)
            for alpha in np.geomspace(0.1, 1e-3, 30)
        ]
        lasso.append([held_out(each.fit(rows.x[replica.train], y).coef_[:, 0]) for each in lassos])
        constant.append(held_out(np.zeros(rows.x.shape[1])))
    fit = fit_reference(REFERENCES[0], table.task, rows, rows.x[:3], 0)
    np.testing.assert_allclose(fit.fold_losses, constant, rtol=1e-6)
    assert study.references["val_loss"]["mean"] == pytest.approx(np.mean(constant), rel=1e-6)
    assert study.references["val_loss"]["linear"] == pytest.approx(np.mean(lasso, axis=0).min(), rel=2e-3)


def test_reference_of_weighted_rows_has_the_loss_of_the_definition() -> None:
    """The loss of all rows minus that of the training rows, both with their weights, as the lanes of a path have it."""
    frame = FRAME.assign(weight=np.random.default_rng(0).uniform(0.2, 3.0, ROWS))
    table = read(frame, "months", task="survival", event="died", weight="weight")
    training, _ = split_test_rows(table, 0.2, 0)
    rows = encode_folds(table, training, split_folds(table, training, 2, 0))
    assert rows.weight is not None
    constant = []
    for replica in rows.replicas[:-1]:
        parts = (np.concatenate([replica.train, replica.held]), replica.train)
        losses = [
            negative_partial_log_likelihood(
                rows.y[part], np.zeros(len(part)), rows.weight[part].astype("float64"), "breslow"
            )
            for part in parts
        ]
        constant.append((losses[0] - losses[1]) / len(replica.held))
    fit = fit_reference(REFERENCES[0], table.task, rows, rows.x[:3], 0)
    np.testing.assert_allclose(fit.fold_losses, constant, rtol=1e-6)


def test_linear_reference_is_the_same_whatever_was_drawn_before(study) -> None:
    table, settings = study.findings.table, study.findings.settings
    training, testing = split_test_rows(table, 0.2, 0)
    networks = EncodedNetworks(table, training, testing, split_folds(table, training, 2, 0), settings, None)
    network = networks.get(NO_PENALTY, STANDARD)
    held_rows = find_held_out_rows(table, training, network.rows, 1)
    losses = []
    for seed in (1, 2):
        random.seed(seed)
        fit = fit_linear_path(table.task, network, held_rows, study.findings.baseline.row_scores, settings)
        losses.append(fit.val_loss)
    assert losses == [study.references["val_loss"]["linear"]] * 2


def test_predictions_are_those_of_the_baseline_hazard_of_the_training_rows(study, tmp_path) -> None:
    table, saved = study.findings.table, study.findings.saved
    training, _ = split_test_rows(table, 0.2, 0)
    y = Survival().encode(table.target.to_numpy())[training]
    predicted = study.predict(FRAME)
    log_hazard = predicted["log hazard ratio"].to_numpy()
    times = np.quantile(y[y[:, 1] == 1, 0], [0.25, 0.5, 0.75], method="inverted_cdf")
    expected = poise.BaselineHazard.fit(y, log_hazard[training]).survival(times, log_hazard)
    assert saved.model.output_shape == (None, 1)
    assert [*predicted.columns[1:]] == [f"P(months > {time:.6g})" for time in times]
    np.testing.assert_allclose(predicted.iloc[:, 1:], expected, rtol=1e-5)
    study.save(tmp_path / "saved")
    pd.testing.assert_frame_equal(poise.Study.load(tmp_path / "saved").predict(FRAME), predicted)


def test_report_shows_the_kaplan_meier_curves_of_thirds(study) -> None:
    page = render_page(study.findings)
    assert "Kaplan–Meier curves of the test rows" in page
    figure: Any = draw_survival_curves(study.findings.predicted, "months")[0]
    predicted = study.findings.predicted
    lowest = np.argsort(predicted.predictions, kind="stable")[: -(-len(predicted.predictions) // 3)]
    curve: Any = kaplan_meier_estimator(predicted.actual[lowest, 1] == 1, predicted.actual[lowest, 0])
    steps = dict(zip(figure.data[0].x, figure.data[0].y, strict=True))
    shown = {float(f"{time:.4g}"): share for time, share in zip(*curve, strict=True) if float(f"{time:.4g}") in steps}
    assert len(shown) > len(curve[0]) / 2
    for time, share in shown.items():
        assert steps[time] == pytest.approx(share, abs=1e-4)
    assert len(figure.data) == 3


def test_script_of_the_report_trains_the_saved_network_again(study, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    study.save(tmp_path / "saved")
    output = io.StringIO()
    with redirect_stdout(output):
        exec(write_script(study.findings, "saved"), {"frame": FRAME})
    loss = float(output.getvalue().split("training rows: ")[1].split()[0])
    assert loss == pytest.approx(study.findings.saved.loss, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            {},
            {"event": None},
            "event is missing, and the task survival needs it. Pass the name of the column that says whether each row has an event.",
        ),
        ({}, {"task": "counts"}, "time_to_event works only with the task survival, got the task counts."),
        ({}, {"target": "a"}, "time_to_event replaces the target in the task survival, got the target 'a' as well."),
        ({"months": -FRAME["months"]}, {}, "The times until an event must be numbers >= 0, and 'months' holds -"),
        ({"died": 2}, {}, "The column of events 'died' must be 1 or true for an event"),
        ({"died": False}, {}, "No row has an event in 'died'."),
    ],
    ids=["no event", "other task", "target", "negative time", "codes", "censored"],
)
def test_wrong_columns_are_named(changes, arguments, message) -> None:
    with pytest.raises(DataError) as error:
        run_study(FRAME.assign(**changes), **{**TIMES, **arguments})
    assert message in str(error.value)


def test_rows_without_an_event_value_are_left_out_and_leaks_are_noted() -> None:
    died = FRAME["died"].map({True: "true", False: "false"}).where(FRAME.index > 4)
    table = read(FRAME.assign(died=died, days=30 * FRAME["months"]), "months", task="survival", event="died")
    assert len(table.target) == ROWS - 5
    assert any("5 rows have no value for 'died'" in note for note in table.notes)
    assert any("Column 'days' determines the target" in note for note in table.notes)
    np.testing.assert_array_equal(np.signbit(table.target), ~FRAME["died"][5:])


def test_network_of_the_task_has_the_partial_likelihood_as_its_loss() -> None:
    y = np.ones((4, 2), "float32")
    network = build_start(Survival(), 3, 0, y, None, (5,), 0.01)
    assert isinstance(network.loss, poise.CoxPartialLikelihood)


def test_folder_of_a_study_says_what_was_predicted(study, tmp_path) -> None:
    assert Path(study.save(tmp_path / "saved")).exists()
    assert study.description["data"]["event"] == "died"
    assert "survival of 'months'" in repr(study)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"event": "died"}, "event works only with the task survival. Choose the task survival, or omit event."),
        ({"task": "survival"}, "event is missing, and the task survival needs it"),
    ],
    ids=["event alone", "survival alone"],
)
def test_a_table_is_not_read_with_half_of_the_task(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(FRAME, "months", **arguments)
