"""`poise study`: what it prints and writes, one sentence for invalid input, and how to continue."""

import inspect
import json
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from poise.cli.errors import OPTIONS, BadInputError
from poise.cli.screen import progress_bar
from poise.cli.unfinished import UnfinishedStudy
from poise.files import CheckpointDamagedError, CheckpointError
from poise.study import run as studies
from poise.study import tracking
from poise.study.candidates.penalties import DEFAULT_PENALTIES

from .commands import FAST, poise, refused

FILES = {"report.html", "study.json", "table.parquet", "model.keras", "preprocessing.skops"}
# A shell that runs the tests in the background passes an ignored SIGINT on.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom poise_command import main; main()"
)
UNFINISHED = Path("runs/.wine.unfinished")


def no_training(*_, **__):
    pytest.fail("it trained")


# ---------------------------------------------------------------- output


def test_it_prints_the_task_first_then_table_answer_notes_and_the_report(finished):
    text = " ".join(finished.result.stdout.split())

    assert text.startswith(
        "sales: regression of 'price' from 2 columns (1 set aside); 48 training rows, 12 test rows. The task was "
        "inferred from the target (numbers); poise study --task changes it. "
    )
    positions = [
        text.index(part)
        for part in (
            "held-out",
            "No penalty",
            "L2 *",
            "Boosted trees",
            "On the test rows: RMSE",
            *finished.study.answer,
            "Note: ",
            "Report: ",
        )
    ]
    assert positions == sorted(positions)
    assert finished.result.stdout.endswith(f"Report: {finished.folder / 'report.html'}\n")
    assert finished.result.stderr == ""


def test_it_writes_the_study_and_nothing_else(finished):
    assert {path.name for path in finished.folder.parent.iterdir()} == {"sales.csv", "run"}
    assert {path.name for path in finished.folder.iterdir()} == FILES
    assert (finished.folder / "report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_options_reach_the_study(calls):
    result = poise(
        "study", "sales.csv", "--target", "price", "--task", "counts", "--penalty", "l1,group", "--penalty", "mcp",
        "--choose", "l1", "--model", "nets:wide", "--hidden-layer-sizes", "64,32", "--groups", "g", "--time", "t",
        "--time-to-event", "m", "--event", "d", "--weight", "w", "--offset", "o", "--exposure", "e", "--class-weight", "a=b=2", "--class-weight", "c=3",
        "--tweedie-power", 1.2, "--quantiles", "0.2,0.8", "--drop", "a", "--drop", "b, c", "--keep", "id", "--type", "zip=text", "--type", "a=b=date", "--cv", 3, "--strengths", 5, "--n-init", 2, "--max-iter", 7,
        "--learning-rate", 0.5, "--test", 0.3, "--seed", 9, "--delimiter", ";", "--decimal", ",", "--text-encoding",
        "cp1252", "--sheet", "Jan", "--skip-rows", 2, "--comment", "#", "--missing", "-999", "--missing", "k. A.",
        "--sparse", "--encoding", "piecewise", "--selection", "stable", "--max-false", 0.5, "--executor", "in_process", "--quiet",
    )  # fmt: skip

    assert result.stdout == f"{Path('runs/sales/report.html')}\n"
    assert result.stderr == ""
    (arguments,) = calls
    assert callable(arguments.pop("progress"))
    assert arguments.pop("checkpoint").parent == Path("runs/.sales.unfinished")
    assert arguments == {
        "data": "sales.csv", "target": ["price"], "task": "counts", "penalties": ("l1", "group", "mcp"), "choose": "l1",
        "model": "nets:wide", "hidden_layer_sizes": (64, 32), "groups": "g", "time_column": "t", "weight": "w",
        "time_to_event": "m", "event": "d", "offset": "o", "exposure": "e", "class_weight": {"a=b": 2.0, "c": 3.0}, "tweedie_power": 1.2, "quantiles": (0.2, 0.8),
        "drop": ("a", "b, c"), "keep": ("id",), "types": {"zip": "text", "a=b": "date"}, "sheet": "Jan", "skip_rows": 2, "comment": "#",
        "cv": 3, "strengths": 5, "n_init": 2, "max_iter": 7, "learning_rate": 0.5, "test": 0.3,
        "seed": 9, "delimiter": ";", "decimal": ",", "text_encoding": "cp1252", "missing": ("-999", "k. A."),
        "sparse": True, "encoding": "piecewise", "selection": "stable", "max_false": 0.5, "executor": "in_process",
    }  # fmt: skip


def test_messages_can_name_the_option_of_every_argument():
    plain = {"data", "target", "model", "drop", "keep", "groups", "weight", "missing", "checkpoint", "progress"}

    assert {*inspect.signature(studies.run_study).parameters} - plain == {*OPTIONS}


def test_the_defaults_are_those_of_run_study(calls):
    poise("study", "diabetes", "--hidden-layer-sizes", "none")

    defaults = studies.run_study.__kwdefaults__ or {}
    assert calls[0]["penalties"] == DEFAULT_PENALTIES
    assert calls[0]["hidden_layer_sizes"] == ()
    assert {name: calls[0][name] for name in defaults if name in calls[0]} == defaults


def test_an_empty_text_turns_the_usual_missing_values_off(calls):
    poise("study", "wine", "--missing", "")

    assert calls[0]["missing"] == ()


@pytest.mark.parametrize(
    ("data", "folder"), [("data/sales.csv", "runs/sales"), ("wine", "runs/wine"), ("-", "runs/stdin")]
)
def test_the_folder_is_named_after_the_data(data, folder, calls):
    assert Path(poise("study", data, "-q").stdout.strip()) == Path(folder, "report.html")


def test_json_prints_only_the_content_of_study_json(calls):
    result = poise("study", "wine", "--json")

    assert result.stdout == Path("runs/wine/study.json").read_text(encoding="utf-8")
    assert json.loads(result.stdout)["format"] == "poise study"


def test_a_study_is_overwritten_only_with_force(calls):
    poise("study", "wine")
    report = Path("runs/wine/report.html")
    report.write_text("precious")

    assert refused("study", "wine") == "runs/wine already exists. Pass --force to overwrite it."
    assert report.read_text() == "precious"
    assert poise("study", "wine", "--force", "-q").exit_code == 0
    assert report.read_text() == "<!doctype html>"
    assert len(calls) == 2


# ---------------------------------------------------------------- invalid input


def test_a_title_above_the_names_is_refused_with_the_option_that_skips_it():
    Path("sales.csv").write_text("Report of sales\n\nx,y\n" + "1,2\n" * 30)

    assert refused("study", "sales.csv", "--target", "y") == (
        "Line 1 of 'sales.csv' contains only 'Report of sales', but the table has 2 columns. If the names are in line 3 "
        "('x', 'y'), use --skip-rows 2."
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.csv"], "'none.csv'"),
        (["wine", "--target", "color_intensit"], "'color_intensity'"),
        (
            ["wine", "--task", "ranking"],
            "--task must be one of regression, binary, multiclass, counts, gamma, tweedie, quantile, multioutput, survival, got",
        ),
        (["wine", "--penalty", "l3"], "Unknown penalty 'l3'. Use one of l2, l1, group, adaptive"),
        (["wine", "--choose", "l3"], "--choose must be one of adaptive, dropout, group, l1, l2, none, got 'l3'."),
        (
            ["wine", "--hidden-layer-sizes", "many"],
            "--hidden-layer-sizes must be whole numbers such as 64,32, or the word none for a linear model, got 'many'.",
        ),
        (["wine", "--hidden-layer-sizes", "0"], "--hidden-layer-sizes must be positive whole numbers"),
        (["wine", "--model", "nowhere:net"], "nowhere"),
        (["wine", "--type", "alcohol"], "--type must be COLUMN=TYPE, such as zip=categorical, got 'alcohol'."),
        (["wine", "--type", "alcohol=int"], "The type of column 'alcohol' must be one of categorical, numeric, date,"),
        (["wine", "--skip-rows", "2"], "--skip-rows does not apply to a built-in table. Remove this argument."),
        (["wine", "--cv", "1"], "--cv must be at least 2, got 1."),
        (["wine", "--max-iter", "0"], "--max-iter must be at least 1, got 0."),
        (["wine", "--max-false", "0"], "--max-false must be a positive number, such as 1.0, got 0.0."),
        (["wine", "--learning-rate", "-1"], "--learning-rate must be positive and finite, such as 0.01, got -1.0."),
        (
            ["wine", "--sparse", "--penalty", "l2"],
            "--sparse needs a penalty that selects columns, got l2. Add the penalty 'adaptive' or 'group'.",
        ),
        (["wine", "--executor", "dask"], "--executor must be one of 'auto', 'in_process', 'subprocess', 'ray'"),
        (
            ["wine", "--address", "10.0.0.1:6379"],
            "--address works only with --executor ray, got --executor auto. Pass --executor ray, or",
        ),
    ],
)
def test_invalid_input_is_one_sentence_and_leaves_nothing(arguments, sentence, tmp_path):
    assert sentence in refused("study", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "run_study", no_training)
    Path("file").write_text("")
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    assert refused("study", "wine", "--out", "file/runs") == (
        "'file/runs' cannot be written: Not a directory. Choose another path."
    )
    assert refused("study", "wine", "--out", "file") == (
        "'file' is a file; a study is saved as a folder. Use another name. Change --out."
    )
    assert r"caf\udce9' cannot be written: its name" in refused("study", "wine", "--out", name)


def test_a_custom_network_is_found_in_the_working_directory(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("poise_custom_nets.py").write_text("def net(inputs, outputs):\n    return 'no model'\n")

    assert "got str for" in refused("study", "wine", "--model", "poise_custom_nets:net")


# ---------------------------------------------------------------- TensorBoard and MLflow


def test_a_study_is_sent_to_tensorboard_and_mlflow(calls, monkeypatch):
    logged = []
    monkeypatch.setattr(tracking, "check_mlflow", lambda: "http://here")
    monkeypatch.setattr(tracking, "to_mlflow", lambda folder: logged.append(folder) or "run-1")

    result = poise("study", "wine", "--tensorboard", "logs", "--mlflow")
    quiet = poise("study", "wine", "--tensorboard", "other", "--mlflow", "--force", "--quiet")

    assert result.stdout.splitlines()[-3:] == [
        f"Report: {Path('runs/wine/report.html')}", "TensorBoard: tensorboard --logdir logs",
        "MLflow: run run-1 at http://here",
    ]  # fmt: skip
    assert quiet.stdout == f"{Path('runs/wine/report.html')}\n"
    assert logged == [Path("runs/wine"), Path("runs/wine")]
    for folder in ("logs", "other"):
        assert {path.name for path in Path(folder).iterdir()} == {"none", "l2"}


def test_problems_of_tensorboard_and_mlflow_are_reported_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "run_study", no_training)
    (tmp_path / "logs" / "l2").mkdir(parents=True)
    (tmp_path / "logs" / "l2" / "events.out.tfevents.1.mine").write_bytes(b"")

    sentence = refused("study", "wine", "--tensorboard", "logs")
    assert sentence == "logs already exists. Pass --force to overwrite it."
    for package, option in (("tensorboard.summary.writer.record_writer", "--tensorboard=x"), ("mlflow", "--mlflow")):
        monkeypatch.setitem(sys.modules, package, None)
        assert 'is not installed. Run `pip install "poise[' in refused("study", "wine", option)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


# ---------------------------------------------------------------- stop and continue


STOP_AFTER_A_CHUNK = """
import os, signal
replace = os.replace
def stop_after(source, target):
    replace(source, target)
    if os.path.basename(target).startswith("chunk-"):
        os.kill(os.getpid(), signal.SIGINT)
os.replace = stop_after
"""


def test_ctrl_c_keeps_finished_work_and_the_same_command_continues(finished):
    command = [sys.executable, "-c", COMMAND, "study", str(finished.data), "--target", "price", *FAST]
    command += ["--out", "runs/wine", "--json"]

    interrupted = [sys.executable, "-c", STOP_AFTER_A_CHUNK + COMMAND, *command[3:]]

    process = subprocess.run(interrupted, capture_output=True, text=True, timeout=240)

    output, errors = process.stdout, process.stderr
    assert process.returncode == 130, errors
    assert output == ""
    assert errors.endswith(f"Stopped. Finished work is kept in '{_kept()}'; the same command continues from it.\n")
    assert [path.name for path in Path("runs").iterdir()] == [".wine.unfinished"]

    again = subprocess.run(command, check=True, capture_output=True, text=True)

    assert [path.name for path in Path("runs").iterdir()] == ["wine"]
    first = (finished.folder / "study.json").read_text("utf-8")
    assert _numbers(json.loads(again.stdout)) == _numbers(json.loads(first))


def _kept() -> Path:
    """The only folder of unfinished work."""
    (folder,) = UNFINISHED.iterdir()
    return folder


def _numbers(study):
    candidates = [
        {name: value for name, value in candidate.items() if name != "seconds"} for candidate in study["candidates"]
    ]
    return candidates, study["answer"], study["chosen"], study["rows"], study["data"]["digest"]


def test_a_ctrl_c_that_python_drops_stops_the_next_update(monkeypatch):
    class Callback:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", dropped := Mock())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with progress_bar(quiet=True) as update:
            Callback()
            assert dropped.called
            with pytest.raises(KeyboardInterrupt):
                update(0.5, "training")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def _failing(error, writes):
    """A study that stops in the middle, with some work finished or none."""

    def run_study(*_, checkpoint, **__):
        (checkpoint / "none").mkdir()
        if writes:
            (checkpoint / "none" / "chunk-0.npz").write_bytes(b"")
        raise error

    return run_study


def test_an_interrupt_before_any_work_is_finished_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "run_study", _failing(KeyboardInterrupt(), writes=False))
    result = poise("study", "wine")

    assert result.exit_code == 130
    assert result.stderr == "Stopped. Nothing was finished, and nothing is kept.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_internal_error_keeps_its_traceback_and_finished_work(monkeypatch):
    monkeypatch.setattr(studies, "run_study", _failing(ValueError("shapes differ"), writes=True))
    result = poise("study", "wine")

    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)
    assert list(UNFINISHED.rglob("*.npz"))


def test_a_full_disk_while_saving_keeps_finished_work(finished, calls, monkeypatch):
    def run_study(*_, checkpoint, **__):
        (checkpoint / "chunk-0.npz").write_bytes(b"")
        return finished.study

    def fail(findings, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(studies, "run_study", run_study)
    with monkeypatch.context() as patch:
        patch.setattr("poise.study.storage.render_page", fail)
        sentence = refused("study", "wine")

    assert sentence == (
        "'runs/wine' cannot be written: No space left on device. Free some disk space or choose another path. Finished "
        f"work is kept in '{_kept()}'; the same command continues from it."
    )
    assert [path.name for path in Path("runs").iterdir()] == [".wine.unfinished"]
    assert poise("study", "wine", "-q").exit_code == 0
    assert [path.name for path in Path("runs").iterdir()] == ["wine"]


def test_a_full_disk_while_training_explains_how_to_continue(monkeypatch):
    monkeypatch.setattr(studies, "run_study", _failing(OSError(28, "No space left on device"), writes=True))

    assert refused("study", "wine") == (
        "The output cannot be written: No space left on device. Free some disk space and run the same command again. "
        f"Finished work is kept in '{_kept()}'; the same command continues from it."
    )


def test_other_options_and_other_data_start_from_scratch(calls):
    Path("a.csv").write_text("x\n1\n")
    for steps in (50, 60, 50):
        poise("study", "a.csv", "--max-iter", steps, "--force")
    Path("a.csv").write_text("x\n1\n2\n")
    poise("study", "a.csv", "--max-iter", 50, "--force")

    first, other, again, changed = (arguments["checkpoint"] for arguments in calls)
    assert first == again
    assert len({first, other, changed}) == 3


def test_studies_that_share_a_folder_keep_their_own_work(calls, monkeypatch):
    """One is stopped with some work finished; another one, with other options, finishes first."""
    with monkeypatch.context() as patch:
        patch.setattr(studies, "run_study", _failing(KeyboardInterrupt(), writes=True))
        assert poise("study", "wine", "--max-iter", 7).exit_code == 130
    kept = _kept()

    assert poise("study", "wine", "--max-iter", 8, "-q").exit_code == 0

    assert _kept() == kept
    assert (kept / "none" / "chunk-0.npz").exists()
    assert poise("study", "wine", "--max-iter", 7, "--force", "-q").exit_code == 0
    assert calls[-1]["checkpoint"] == kept
    assert [path.name for path in Path("runs").iterdir()] == ["wine"]


def test_a_file_that_a_killed_writer_left_is_not_finished_work():
    study = UnfinishedStudy(Path("runs/wine"), "wine", None, {"max_iter": 7})
    left = study.folder / "none" / ".chunk-1.npz.saving-a" / "chunk-1.npz"
    left.parent.mkdir(parents=True)
    left.touch()
    assert not study

    (study.folder / "none" / "chunk-1.npz").touch()
    assert study


def test_the_same_study_does_not_run_twice_at_once():
    with UnfinishedStudy(Path("runs/wine"), "wine", None, {"max_iter": 7}).claim():
        with pytest.raises(BadInputError, match="^The same study is already running, with unfinished work in "):
            UnfinishedStudy(Path("runs/wine"), "wine", None, {"max_iter": 7}).claim().__enter__()
        with UnfinishedStudy(Path("runs/wine"), "wine", None, {"max_iter": 8}).claim():
            assert len([*UNFINISHED.iterdir()]) == 2
    assert [*Path().iterdir()] == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [(CheckpointError, "belongs to other data, or to another network"), (CheckpointDamagedError, "is damaged")],
)
def test_unfinished_work_that_cannot_be_continued_is_refused(error, reason, monkeypatch):
    monkeypatch.setattr(studies, "run_study", _failing(error("the library's message"), writes=True))

    assert refused("study", "wine") == (
        f"Unfinished work in '{_kept()}' {reason}. Delete that folder to start from scratch."
    )
