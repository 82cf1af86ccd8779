"""TensorBoard and MLflow show the results of the study, and problems are reported before any training."""

import os
import sys
from dataclasses import replace
from typing import Any, Never

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from poise.study import storage
from poise.study.description_file import FILES
from poise.study.errors import DataError
from poise.study.report.description import describe
from poise.study.report.sentences import write_answer
from poise.study.result import Study
from poise.study.storage import write_study
from poise.study.tracking import check_mlflow, check_tensorboard, to_mlflow, to_tensorboard

# MLflow's tables, by SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- TensorBoard


def read(folder) -> Any:
    """What TensorBoard reads: by tag [(step, value)]."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    tags = events.Tags()["tensors"]
    return {tag: [(each.step, make_ndarray(each.tensor_proto)) for each in events.Tensors(tag)] for tag in tags}


def as_study(findings) -> Any:
    return Study(describe(findings), findings.compact_model, findings.encoder, findings=findings)


@pytest.fixture(scope="module")
def written(diabetes_study, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("events")
    to_tensorboard(as_study(diabetes_study), folder)
    return folder


def test_tensorboard_shows_losses_and_forces_over_the_steps(diabetes_study, written) -> None:
    assert {each.name for each in written.iterdir()} == {"none", "l2"}
    result = {}
    for name, seen in diabetes_study.watched.items():
        result = read(written / name)
        for column, values in seen.history.items():
            steps, shown = zip(*result[f"losses/{column}"], strict=True)
            assert steps == tuple(seen.history.index)
            np.testing.assert_allclose(shown, values, rtol=1e-6)
        layers = seen.forces["variable"].unique()
        assert len(layers) == 3
        for variable in layers:
            rows = seen.forces[seen.forces["variable"] == variable]
            for column in ("prediction", "penalty", "residual"):
                steps, shown = zip(*result[f"forces/{column}/{variable}"], strict=True)
                assert steps == tuple(rows["step"])
                np.testing.assert_allclose(shown, rows[column], rtol=1e-6)
    assert {"losses/loss", "losses/val_loss", "losses/penalty", "losses/total_loss"} <= set(result)
    assert not any(np.isnan(value).any() for values in result.values() for _, value in values)


def test_tensorboard_shows_the_weights_before_and_after(diabetes_study, written) -> None:
    seen = diabetes_study.watched["l2"]

    (first, before), (last, after) = read(written / "l2")["weights"]

    assert (first, last) == (0, seen.history.index[-1])
    for bars, weights in ((before, seen.before), (after, seen.after)):
        counts, _ = np.histogram(weights, [*bars[:, 0], bars[-1, 1]])
        np.testing.assert_array_equal(bars[:, 2], counts)
        assert bars[:, 2].sum() == len(weights)


def test_it_needs_no_tensorflow(diabetes_study, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)

    to_tensorboard(as_study(diabetes_study), tmp_path / "logs")

    assert len([*(tmp_path / "logs").rglob("*tfevents*")]) == 2


def test_events_are_replaced_only_on_request(diabetes_study, tmp_path) -> None:
    study = as_study(diabetes_study)
    to_tensorboard(study, "logs")
    (tmp_path / "logs" / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="'logs' already exists. Pass overwrite=True"):
        to_tensorboard(study, "logs")
    unpenalized = replace(diabetes_study, watched={"none": diabetes_study.watched["none"]})
    to_tensorboard(as_study(unpenalized), "logs", overwrite=True)

    assert [each.parent.name for each in (tmp_path / "logs").rglob("*tfevents*")] == ["none"]
    assert (tmp_path / "logs" / "notes.txt").read_text() == "mine"


def test_what_would_stop_tensorboard_is_found_out_before(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"'file.none' cannot be written: Not a directory. Choose another path."):
        check_tensorboard("file")
    check_tensorboard("logs")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]

    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(DataError, match=r'TensorBoard is not installed. Run `pip install "poise\[tensorboard\]"`.'):
        check_tensorboard("logs")


# ---------------------------------------------------------------- MLflow


@pytest.fixture(scope="module")
def run(diabetes_study, tmp_path_factory) -> Any:
    """A saved study."""
    folder = tmp_path_factory.mktemp("runs") / "diabetes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "render_page", lambda study, folder: "<!doctype html>")
        write_study(diabetes_study, folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> str:
    """The default server of MLflow: a file whose tables take seconds to create."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert check_mlflow() == "sqlite:///mlflow.db"
    assert (folder / "mlflow.db").is_file()
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def client(uri) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def test_mlflow_gets_settings_scores_answer_and_the_folder(diabetes_study, run, server) -> None:
    result = client(server).get_run(to_mlflow(run, uri=server))

    study, logged = diabetes_study, result.data
    assert result.info.run_name == "diabetes"
    assert result.info.status == "FINISHED"
    assert client(server).get_experiment(result.info.experiment_id).name == "poise"
    expected = {
        "data": "diabetes",
        "task": "regression",
        "chosen": "l2",
        "hidden_layer_sizes": "16, 4",
        "cv": "2",
        "max_iter": "60",
    }
    assert expected.items() <= logged.params.items()
    assert float(logged.params["strength"]) == study.best.strength
    assert "choose" not in logged.params
    for each in study.candidates:
        for name, value in {
            "test_loss": each.test_loss.value, "test_loss_low": each.test_loss.low, "score": each.score.value,
            "val_loss": each.val_loss, "loss": each.loss, "gain_high": each.gain.high, "zeros": each.row["zeros"],
        }.items():  # fmt: skip
            if np.isnan(value):
                assert f"{each.name}/{name}" not in logged.metrics
            else:
                assert logged.metrics[f"{each.name}/{name}"] == pytest.approx(value, rel=1e-9)
    assert logged.metrics["test_loss"] == logged.metrics["l2/test_loss"]
    assert all(sentence in logged.tags["mlflow.note.content"] for sentence in write_answer(study))
    held = client(server).list_artifacts(result.info.run_id)
    assert {each.path for each in held} == set(FILES)
    assert {each.path: each.file_size for each in held}["model.keras"] == os.path.getsize(run / "model.keras")


def test_the_server_and_the_experiment_come_from_the_environment(run, server, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")

    first, second = to_mlflow(run), to_mlflow(run, experiment="other")

    names = [
        client(server).get_experiment(client(server).get_run(each).info.experiment_id).name for each in (first, second)
    ]
    assert names == ["mine", "other"]


def test_a_run_that_could_not_be_logged_has_failed(run, server, monkeypatch) -> None:
    from mlflow import MlflowClient

    def full(*_) -> Never:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MlflowClient, "log_artifacts", full)

    with pytest.raises(DataError, match="cannot be used: .*No space left on device"):
        to_mlflow(run, uri=server, experiment="full")
    experiment = client(server).get_experiment_by_name("full")
    assert experiment is not None
    number = experiment.experiment_id
    assert [each.info.status for each in client(server).search_runs([number])] == ["FAILED"]


def test_a_server_that_does_not_answer_is_found_out_before_and_soon(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with pytest.raises(DataError) as caught:
        check_mlflow("http://me:secret@127.0.0.1:9")

    assert str(caught.value).startswith("MLflow at http://127.0.0.1:9 cannot be used: ")
    assert "). Set MLFLOW_TRACKING_URI to a running server" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_without_mlflow_the_error_names_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)

    with pytest.raises(DataError, match=r'MLflow is not installed. Run `pip install "poise\[mlflow\]"`.'):
        check_mlflow()
