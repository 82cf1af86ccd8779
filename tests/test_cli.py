"""The command line: what it prints, where it writes, and one sentence with exit code 2 for bad input."""

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import poise_command
from poise import study as studies
from poise.cli import app as cli
from poise.cli.screen import BadInputError, progress_bar
from poise.cli.unfinished import Unfinished
from poise.study import storage, tracking

FAST = ["--penalty", "l2", "--max-iter", "50", "--strengths", "3", "--cv", "2", "--hidden-layer-sizes", "4"]
FILES = {"report.html", "study.json", "table.parquet", "model.keras", "preprocessing.skops"}
# A shell that runs the tests in the background hands on an ignored SIGINT.
HEEDING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom poise_command import main; main()"
)


def poise(*arguments: str, **given):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), **given)


def refused(*arguments: str, **given) -> str:
    """What is said on the error stream when the input is bad."""
    result = poise(*arguments, **given)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a table in it, and a study of that table."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    size = rng.normal(size=60)
    frame = pd.DataFrame({
        "size": size.round(3), "color": np.array(["red", "green", "blue"])[np.arange(60) % 3],
        "order_id": np.arange(60), "price": (3 * size + rng.normal(size=60)).round(3),
    })  # fmt: skip
    frame.to_csv(place / "sales.csv", index=False)
    return place


@pytest.fixture(scope="module")
def finished(place):
    """What the command said, and the study that it saved in place/run."""
    kept, run_study = [], studies.run_study

    def keeping(*arguments, **given):
        kept.append(run_study(*arguments, **given))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run_study", keeping)
        result = poise("study", place / "sales.csv", "--target", "price", *FAST, "--out", place / "run")
    assert result.exit_code == 0, result.output
    return result, kept[0]


@pytest.fixture
def asked(finished, monkeypatch):
    """What studies are asked for; each is done at once."""
    calls = []

    def study(data, target, **given):
        calls.append({"data": data, "target": target, **given})
        return finished[1]

    monkeypatch.setattr(studies, "run_study", study)
    monkeypatch.setattr("poise.study.storage.page", lambda study: "<!doctype html>")
    return calls


# ---------------------------------------------------------------- study


def test_a_study_prints_task_table_answer_notes_and_where_the_report_is(finished, place):
    result, study = finished
    said = " ".join(result.stdout.split())

    assert said.startswith("Task: regression, 'price' from 2 columns (1 set aside); 48 rows train, 12 test.")
    for candidate in study.candidates:
        assert candidate.title in said
    for sentence in studies.answer(study):
        assert sentence in said
    for note in study.table.notes:
        assert f"Note: {' '.join(note.split())}" in said
    assert result.stdout.endswith(f"Report: {place / 'run' / 'report.html'}\n")
    assert result.stderr == ""


def test_it_writes_a_run_and_nothing_else(finished, place):
    assert {one.name for one in place.iterdir()} == {"sales.csv", "run"}
    assert {one.name for one in (place / "run").iterdir()} == FILES
    assert (place / "run" / "report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_options_reach_the_study(asked, tmp_path):
    result = poise(
        "study", "sales.csv", "--target", "price", "--task", "counts", "--penalty", "l1,group", "--penalty", "mcp",
        "--choose", "l1", "--model", "nets:wide", "--hidden-layer-sizes", "64,32", "--groups", "g", "--time", "t", "--weight", "w",
        "--drop", "a", "--drop", "b, c", "--cv", 3, "--strengths", 5, "--n-init", 2, "--max-iter", 7,
        "--learning-rate", 0.5, "--test", 0.3, "--seed", 9, "--delimiter", ";", "--decimal", ",", "--encoding",
        "cp1252", "--quiet",
    )  # fmt: skip

    assert result.stdout == f"{Path('runs/sales/report.html')}\n"
    assert result.stderr == ""
    given = asked[0]
    assert callable(given.pop("progress"))
    assert given.pop("checkpoint").parent == Path("runs/.sales.unfinished")
    assert given == {
        "data": "sales.csv", "target": "price", "task": "counts", "penalties": ("l1", "group", "mcp"), "choose": "l1",
        "model": "nets:wide", "hidden_layer_sizes": (64, 32), "groups": "g", "time_column": "t", "weight": "w",
        "drop": ("a", "b, c"), "cv": 3, "strengths": 5, "n_init": 2, "max_iter": 7, "learning_rate": 0.5, "test": 0.3,
        "seed": 9, "delimiter": ";", "decimal": ",", "encoding": "cp1252", "executor": "auto",
    }  # fmt: skip


def test_what_is_not_given_is_what_a_study_takes(asked):
    poise("study", "diabetes", "--hidden-layer-sizes", "none")

    assert asked[0]["penalties"] == studies.DEFAULTS
    assert asked[0]["hidden_layer_sizes"] == ()
    assert asked[0]["target"] is asked[0]["task"] is asked[0]["model"] is asked[0]["choose"] is None


@pytest.mark.parametrize(
    ("data", "folder"), [("data/sales.csv", "runs/sales"), ("wine", "runs/wine"), ("-", "runs/stdin")]
)
def test_the_folder_has_the_name_of_the_data(data, folder, asked):
    assert Path(poise("study", data, "-q").stdout.strip()) == Path(folder, "report.html")


def test_json_is_all_that_is_printed(asked, tmp_path):
    result = poise("study", "wine", "--json")

    assert result.stdout == (tmp_path / "runs/wine/study.json").read_text(encoding="utf-8")
    assert json.loads(result.stdout)["format"] == "poise study"


def test_a_run_is_not_overwritten_unless_asked(asked, tmp_path):
    poise("study", "wine")
    (tmp_path / "runs/wine/report.html").write_text("precious")

    assert refused("study", "wine") == (
        "The folder 'runs/wine' already holds a run, and nothing is overwritten unasked. Use --force "
        "(overwrite=True), or another folder."
    )
    assert (tmp_path / "runs/wine/report.html").read_text() == "precious"
    assert poise("study", "wine", "--force", "-q").exit_code == 0
    assert (tmp_path / "runs/wine/report.html").read_text() == "<!doctype html>"
    assert len(asked) == 2


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(studies, "study", lambda *_, **__: pytest.fail("it trained"))

    assert refused("study", "wine", "--out", "file/runs") == (
        "The folder 'file/runs' cannot be written: Not a directory. Choose another with --out."
    )
    assert "is a file, and a run is a folder" in refused("study", "wine", "--out", "file")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.csv"], "There is no file 'none.csv'"),
        (["wine", "--target", "color_intensity"], "Nearest: 'color_intensity'"),
        (["wine", "--task", "ranking"], "'ranking' is unknown"),
        (["wine", "--penalty", "l3"], "Penalty 'l3' is unknown. Use one of l2, l1, group, adaptive"),
        (["wine", "--choose", "l3"], "choose is 'l3' and must be one of"),
        (
            ["wine", "--hidden-layer-sizes", "many"],
            "--hidden-layer-sizes 'many' is not a list of numbers. Write it like 64,32, or none.",
        ),
        (["wine", "--hidden-layer-sizes", "0"], "hidden is (0,) and must hold one unit a layer at least"),
        (["wine", "--model", "nowhere:net"], "The model nowhere:net cannot be imported"),
        (["wine", "--model", "net"], "Write it as MODULE:FUNCTION"),
        (["wine", "--max-iter", "0"], "steps is 0 and must be at least 1."),
        (["wine", "--strengths", "1"], "strengths is 1 and must be at least 3."),
        (["wine", "--learning-rate", "-1"], "learning_rate is -1.0 and must be positive and finite"),
        (["wine", "--test", "2"], "test is 2.0 and must lie between 0 and 1"),
        (["wine", "--seed", "-1"], "seed is -1 and must lie between 0 and 2**32 - 1."),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, tmp_path):
    assert sentence in refused("study", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_does_not_exist_exits_with_2():
    assert poise("study", "wine", "--penalities", "l1").exit_code == 2


def test_a_network_of_ones_own_is_found_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "poise_own_nets.py").write_text("def net(inputs, outputs):\n    return 'no model'\n")

    assert "The model's function returned str" in refused("study", "wine", "--model", "poise_own_nets:net")


# ---------------------------------------------------------------- TensorBoard and MLflow


def test_a_run_is_handed_on_to_tensorboard_and_mlflow(asked, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(tracking, "check_mlflow", lambda: "http://here")
    monkeypatch.setattr(tracking, "to_mlflow", lambda folder: logged.append(folder) or "run-1")

    result = poise("study", "wine", "--tensorboard", "logs", "--mlflow")
    quiet = poise("study", "wine", "--tensorboard", "other", "--mlflow", "--force", "--quiet")

    lines = result.stdout.splitlines()[-3:]
    assert lines == [
        f"Report: {Path('runs/wine/report.html')}", "TensorBoard: tensorboard --logdir logs",
        "MLflow: run run-1 at http://here",
    ]  # fmt: skip
    assert quiet.stdout == f"{Path('runs/wine/report.html')}\n"
    assert logged == [Path("runs/wine"), Path("runs/wine")]
    assert {one.name for one in (tmp_path / "logs").iterdir()} == {"none", "l2"}
    assert {one.name for one in (tmp_path / "other").iterdir()} == {"none", "l2"}


def test_what_would_stop_tensorboard_or_mlflow_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "study", lambda *_, **__: pytest.fail("it trained"))
    (tmp_path / "logs" / "l2").mkdir(parents=True)
    (tmp_path / "logs" / "l2" / "events.out.tfevents.1.mine").write_bytes(b"")

    assert "already holds events of TensorBoard" in refused("study", "wine", "--tensorboard", "logs")
    for package, option in (("tensorboard.summary.writer.record_writer", "--tensorboard=x"), ("mlflow", "--mlflow")):
        monkeypatch.setitem(sys.modules, package, None)
        assert 'is not installed. Use `pip install "poise[' in refused("study", "wine", option)
    assert [one.name for one in tmp_path.iterdir()] == ["logs"]


# ---------------------------------------------------------------- stopping and going on


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(finished, place, tmp_path):
    command = [sys.executable, "-c", HEEDING, "study", str(place / "sales.csv"), "--target", "price", *FAST]
    command += ["--out", "runs/sales", "--json"]
    unfinished = Path("runs/.sales.unfinished")

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while not any(unfinished.rglob("*.npz")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "nothing was finished"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)

    assert process.returncode == 130, said
    assert printed == ""
    assert said.endswith(
        f"Stopped. What is finished is kept in '{_kept(unfinished)}'; the same command continues from there.\n"
    )
    assert [one.name for one in (tmp_path / "runs").iterdir()] == [".sales.unfinished"]

    again = subprocess.run(command, check=True, capture_output=True, text=True)

    assert [one.name for one in (tmp_path / "runs").iterdir()] == ["sales"]
    assert _numbers(json.loads(again.stdout)) == _numbers(json.loads((place / "run/study.json").read_text("utf-8")))


def _kept(unfinished):
    """The folder of the only study in a folder of unfinished ones."""
    (own,) = unfinished.iterdir()
    return own


def test_a_ctrl_c_that_python_drops_is_heeded_with_the_next_advance(monkeypatch):
    class Callback:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", dropped := Mock())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with progress_bar(quiet=True) as advance:
            Callback()
            assert dropped.called
            with pytest.raises(KeyboardInterrupt):
                advance(0.5, "training")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def _numbers(found):
    candidates = [{name: value for name, value in one.items() if name != "seconds"} for one in found["candidates"]]
    return candidates, found["answer"], found["chosen"], found["rows"], found["data"]["digest"]


def _failing(error, writes):
    """A study that stops in the middle, with something finished or nothing."""

    def study(*_, checkpoint, **__):
        (checkpoint / "none").mkdir()
        if writes:
            (checkpoint / "none" / "chunk-0.npz").write_bytes(b"")
        raise error

    return study


def test_stopping_before_anything_is_finished_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "study", _failing(KeyboardInterrupt(), writes=False))
    result = poise("study", "wine")

    assert result.exit_code == 130
    assert result.stderr == "Stopped before anything was finished; nothing is kept.\n"
    assert not list(tmp_path.rglob(".wine.unfinished"))


def test_a_fault_of_poise_keeps_its_traceback_and_what_is_finished(monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "study", _failing(ValueError("shapes differ"), writes=True))
    result = poise("study", "wine")

    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)
    assert list((tmp_path / "runs/.wine.unfinished").rglob("*.npz"))


def test_what_is_finished_is_kept_when_the_disk_is_full(finished, asked, monkeypatch, tmp_path):
    def study(*_, checkpoint, **__):
        (checkpoint / "chunk-0.npz").write_bytes(b"")
        return finished[1]

    def full(study):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(studies, "run_study", study)
    with monkeypatch.context() as patch:
        patch.setattr("poise.study.storage.page", full)
        said = refused("study", "wine")

    assert said == (
        "The folder 'runs/wine' cannot be written: No space left on device. Free some space, or choose another with "
        f"--out. What is finished is kept in '{_kept(Path('runs/.wine.unfinished'))}': the same command continues from "
        "there."
    )
    assert [one.name for one in (tmp_path / "runs").iterdir()] == [".wine.unfinished"]
    assert poise("study", "wine", "-q").exit_code == 0
    assert [one.name for one in (tmp_path / "runs").iterdir()] == ["wine"]


def test_other_settings_and_other_data_begin_anew(asked, tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    for steps in (50, 60, 50):
        poise("study", "a.csv", "--max-iter", steps, "--force")
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    poise("study", "a.csv", "--max-iter", 50, "--force")

    first, other, again, changed = (one["checkpoint"] for one in asked)
    assert first == again
    assert len({first, other, changed}) == 3


PAUSED = """import sys, time

class Pausing:
    def find_spec(self, name, *_):
        if name == "{module}":
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Pausing())
"""


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("keras", -signal.SIGINT, ""),
        ("poise.study", 130, "Stopped before anything was finished; nothing is kept.\n"),
    ],
)
def test_ctrl_c_during_imports_shows_no_traceback(module, code, said):
    command = [sys.executable, "-c", PAUSED.format(module=module) + HEEDING, "study", "wine"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)

    assert (process.returncode, told) == (code, said)


def test_studies_that_share_a_folder_keep_their_own_work(finished, asked, monkeypatch):
    """One is stopped with something finished; another, of other options, finishes first."""
    with monkeypatch.context() as patch:
        patch.setattr(studies, "study", _failing(KeyboardInterrupt(), writes=True))
        assert poise("study", "wine", "--max-iter", 7).exit_code == 130
    kept = _kept(Path("runs/.wine.unfinished"))

    assert poise("study", "wine", "--max-iter", 8, "-q").exit_code == 0

    assert _kept(Path("runs/.wine.unfinished")) == kept
    assert (kept / "none" / "chunk-0.npz").exists()
    assert poise("study", "wine", "--max-iter", 7, "--force", "-q").exit_code == 0
    assert asked[-1]["checkpoint"] == kept
    assert [one.name for one in Path("runs").iterdir()] == ["wine"]


def test_a_study_is_not_run_twice_at_once():
    with Unfinished(Path("runs/wine"), "wine", None, {"max_iter": 7}).claimed():
        with pytest.raises(BadInputError, match="^The same study is running already, and keeps what is finished in "):
            Unfinished(Path("runs/wine"), "wine", None, {"max_iter": 7}).claimed().__enter__()
        with Unfinished(Path("runs/wine"), "wine", None, {"max_iter": 8}).claimed():
            assert len([*Path("runs/.wine.unfinished").iterdir()]) == 2
    assert [*Path().iterdir()] == []


def test_a_full_disk_while_it_trains_says_how_to_continue(monkeypatch):
    def study(*_, checkpoint, **__):
        (checkpoint / "chunk-0.npz").write_bytes(b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(studies, "run_study", study)

    said = refused("study", "wine")

    assert said == (
        "The output cannot be used: No space left on device. Free some space, and run the same command again. What is "
        f"finished is kept in '{_kept(Path('runs/.wine.unfinished'))}': the same command continues from there."
    )


def test_what_belongs_to_other_rows_is_told(monkeypatch):
    error = ValueError("The checkpoint 'x' was written for another path: data changed since.")
    monkeypatch.setattr(studies, "study", _failing(error, writes=True))

    said = refused("study", "-")

    assert said == (
        f"What an earlier call finished in '{_kept(Path('runs/.stdin.unfinished'))}' belongs to other data, or to "
        "another network. Delete that folder to start from scratch."
    )


# ---------------------------------------------------------------- predict


def test_predictions_are_csv_on_the_standard_output(finished, place):
    study = finished[1]

    result = poise("predict", place / "run", place / "sales.csv")

    predicted = pd.read_csv(StringIO(result.stdout))
    x = study.encoder.transform(study.table.features)
    outputs = study.best.model.predict(x, verbose=0).astype("float64")[:, 0]
    assert list(predicted.columns) == ["price"]
    np.testing.assert_allclose(predicted["price"], outputs * study.scale + study.center, rtol=1e-5)


@pytest.mark.parametrize("name", ["predictions.csv", "new/predictions.parquet"])
def test_predictions_go_into_a_file(name, finished, place, tmp_path):
    command = ["predict", place / "run", place / "sales.csv", "--out", name]
    printed = pd.read_csv(StringIO(poise(*command[:3]).stdout))

    assert poise(*command).output == ""
    written = pd.read_csv(name) if name.endswith("csv") else pd.read_parquet(name)
    np.testing.assert_allclose(written["price"], printed["price"])
    assert [one.name for one in Path(name).parent.iterdir()] == [Path(name).name]

    assert refused(*command) == f"The file {name!r} exists, and nothing is overwritten unasked. Use --force."
    assert poise(*command, "--force").exit_code == 0


LAYERS = """import keras

@keras.saving.register_keras_serializable("{name}")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""


def test_layers_of_ones_own_are_imported_for_predictions(finished, place, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    shutil.copytree(place / "run", "run")
    (tmp_path / "poise_own_layers.py").write_text(LAYERS.format(name="poise_own_layers"))
    scope: dict = {}
    exec(LAYERS.format(name="poise_own_layers"), scope)
    network = finished[1].smaller
    keras.Sequential([keras.Input(network.input_shape[1:]), network, scope["Twice"]()]).save("run/model.keras")
    _sign("run")
    keras.saving.get_custom_objects().pop("poise_own_layers>Twice")

    command = ["predict", "run", place / "sales.csv"]
    refusal = refused(*command)
    imported = poise(*command, "--import", "poise_own_layers")

    assert "cannot be rebuilt here" in refusal
    assert "(--import MODULE)" in refusal
    plain = pd.read_csv(StringIO(poise("predict", place / "run", place / "sales.csv").stdout))["price"]
    center = finished[1].center
    twice = pd.read_csv(StringIO(imported.stdout))["price"]
    np.testing.assert_allclose(twice - center, 2.0 * (plain - center), rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "ModuleNotFoundError: No module named 'poise_absent'"), ("x =", "SyntaxError: invalid syntax")],
)
def test_a_module_that_cannot_be_imported_is_one_sentence(content, reason, finished, place, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    if content is not None:
        (tmp_path / "poise_absent.py").write_text(content)

    said = refused("predict", place / "run", place / "sales.csv", "--import", "poise_absent")

    assert said.startswith(f"--import poise_absent fails: {reason}")


def _sign(run, **changed):
    """As if study.json had been written with the files that are there now, and with what is changed."""
    found = json.loads(Path(run, "study.json").read_text(encoding="utf-8")) | changed
    found["files"] = {name: hashlib.sha256(Path(run, name).read_bytes()).hexdigest() for name in found["files"]}
    found.pop("checksum")
    found["checksum"] = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    Path(run, "study.json").write_text(json.dumps(found), encoding="utf-8")


def test_new_rows_may_be_written_in_another_way(finished, place, tmp_path):
    frame = pd.read_csv(place / "sales.csv")
    expected = poise("predict", place / "run", place / "sales.csv").stdout
    shuffled = frame[["color", "size"]].assign(surplus="ß")
    shuffled.to_csv("new.txt", sep="|", decimal=",", index=False, encoding="cp1252")

    given = ["--delimiter", "|", "--decimal", ",", "--encoding", "cp1252"]

    assert poise("predict", place / "run", "new.txt", *given).stdout == expected
    assert poise("predict", place / "run", "-", input=frame.to_csv(index=False)).stdout == expected


def test_a_new_category_is_predicted(finished, place, tmp_path):
    Path("new.csv").write_text("size,color\n1.5,mauve\n,red\n")

    assert len(poise("predict", place / "run", "new.csv").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("color\nred\ngreen\n", "size"),
        ("size,color\nlarge,red\nsmall,green\n", "size"),
        ("", "new.csv"),
    ],
)
def test_new_rows_that_do_not_fit_are_one_sentence(content, said, finished, place):
    Path("new.csv").write_text(content)

    assert said in refused("predict", place / "run", "new.csv", "--out", "out.csv")
    assert not Path("out.csv").exists()


def test_the_output_and_the_run_are_checked(finished, place):
    data = place / "sales.csv"

    assert "End it in .csv or .parquet." in refused("predict", place / "run", data, "--out", "out.xlsx")
    assert "is a folder" in refused("predict", place / "run", data, "--out", _made("folder.csv"))
    assert refused("predict", "nowhere", data) == "There is no folder 'nowhere'. `poise study` makes one."
    assert "holds no run of poise" in refused("predict", ".", data)
    assert "There is no file" in refused("predict", place / "run", "none.csv")


def _made(name):
    Path(name).mkdir()
    return name


# ---------------------------------------------------------------- what a folder or a file may do


SHADOWING = "import pathlib\npathlib.Path(__file__ + '.ran').touch()\n"
COMMAND = "from poise_command import main; main()"


def test_files_in_the_working_directory_are_not_run(finished, place, tmp_path):
    for name in ("json", "numpy", "jax_plugins", "psutil", "keras_hub"):
        (tmp_path / f"{name}.py").write_text(SHADOWING)
    command = [sys.executable, "-c", COMMAND, "predict", str(place / "run"), str(place / "sales.csv")]
    source = str(Path(cli.__file__).parents[1])

    predicted = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": f"{os.pathsep}{source}"})

    assert predicted.returncode == 0, predicted.stderr
    assert list(tmp_path.glob("*.ran")) == []


@pytest.mark.parametrize(
    ("before", "named", "after"),
    [
        (["", "/lib"], "", ["/lib"]),
        (["HERE", "/lib"], "", ["/lib"]),
        (["", "HERE", "/a", "/lib"], ":/a", ["/a", "/lib"]),
        (["/bin", "/a", "HERE", "/lib"], "/a:", ["/bin", "/a", "/lib"]),
        (["/bin", "HERE", "/lib"], "HERE", ["/bin", "HERE", "/lib"]),
        (["/bin", "/lib", "/packages", "HERE"], "", ["/bin", "/lib", "/packages", "HERE"]),
    ],
)
def test_only_pythonpath_and_packages_put_the_working_directory_on_the_path(
    before, named, after, tmp_path, monkeypatch
):
    def here(text):
        return text.replace("HERE", str(tmp_path)).replace(":", os.pathsep)

    monkeypatch.setattr(sys, "path", [here(one) for one in before])
    monkeypatch.setenv("PYTHONPATH", here(named))

    poise_command.leave_out_working_directory()

    assert sys.path == [here(one) for one in after]


def test_an_import_finds_what_is_installed_first(finished, place, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    for name in ("colorsys", "poise_found_here"):
        (tmp_path / f"{name}.py").write_text(SHADOWING)
        monkeypatch.delitem(sys.modules, name, raising=False)
    command = ["predict", place / "run", place / "sales.csv", "--import", "colorsys", "--import", "poise_found_here"]

    assert poise(*command).exit_code == 0
    assert [one.name for one in tmp_path.glob("*.ran")] == ["poise_found_here.py.ran"]
    assert sys.path[-1] == str(tmp_path)


def _written(monkeypatch, *arguments, encoding="utf-8", stdout=None):
    """The exit code of the console script, and what it writes to its two streams, in bytes."""
    raw = [stdout or io.BytesIO(), io.BytesIO()]
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["poise", *map(str, arguments)])
    for name, stream in zip(("stdout", "stderr"), raw, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding, write_through=True))
    with pytest.raises(SystemExit) as ended:
        poise_command.main()
    return ended.value.code, *(stream.getvalue() for stream in raw)


@pytest.mark.parametrize(
    ("encoding", "minus", "squared"), [("ascii", "-", "R^2"), ("cp1252", "-", "R²"), ("utf-8", "−", "R²")]
)
def test_a_console_without_a_character_shows_another(encoding, minus, squared, finished, place, tmp_path, monkeypatch):
    shutil.copytree(place / "run", "run")
    _sign("run", answer=["−1 ≥ −2 …", "日"])

    code, said, complained = _written(monkeypatch, "show", "run", encoding=encoding)

    said = said.decode(encoding)
    assert (code, complained) == (0, b"")
    assert f"{minus}1 " in said
    assert squared in said
    assert ("日" if encoding == "utf-8" else r"\u65e5") in said


def test_predictions_are_utf8_whatever_the_console(finished, place, monkeypatch):
    shutil.copytree(place / "run", "run")
    found = json.loads(Path("run/study.json").read_text("utf-8"))
    _sign("run", data=found["data"] | {"target": "Preis−€"})

    code, said, _ = _written(monkeypatch, "predict", "run", place / "sales.csv", encoding="ascii")

    assert code == 0
    assert said.decode("utf-8").startswith("Preis−€\n")


@pytest.mark.parametrize("closed", [None, "closed"])
def test_a_closed_standard_input_is_one_sentence(closed, finished, place, monkeypatch):
    if closed:
        closed = open(os.devnull)  # noqa: SIM115
        closed.close()
    monkeypatch.setattr(sys, "stdin", closed)
    with pytest.raises(studies.DataError, match=r"^The standard input is closed and cannot be read\. Give the path"):
        studies.load("-")


def test_a_file_does_not_become_an_output_that_is_closed(tmp_path):
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(poise_command.__file__).parent)!r})
for number in range(3):
    os.close(number)
from poise_command import fill_closed_streams
fill_closed_streams()
sys.exit(os.open("file", os.O_CREAT | os.O_WRONLY) < 3)
"""
    assert subprocess.run([sys.executable, "-I", "-c", script]).returncode == 0


class _Full(io.BytesIO):
    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", ["show", "predict"])
def test_an_output_that_is_full_is_one_sentence(command, finished, place, monkeypatch):
    data = [place / "sales.csv"] if command == "predict" else []

    code, _, said = _written(monkeypatch, command, place / "run", *data, stdout=_Full())

    assert code == 2
    assert said == (
        b"The output cannot be used: No space left on device. Free some space, and run the same command again.\n"
    )


STEERING = "a\x1b[2J\x9b31m\u202eb\nc"


def test_names_do_not_steer_the_terminal(finished, place, tmp_path):
    shutil.copytree(place / "run", "run")
    found = json.loads(Path("run/study.json").read_text("utf-8"))
    found["data"] |= {"name": STEERING, "target": STEERING, "notes": [STEERING]}
    found["candidates"][0]["title"] = STEERING
    _sign("run", data=found["data"], candidates=found["candidates"], answer=[STEERING])
    Path(f"{STEERING}.csv").write_text("size\n1\n")

    shown = [poise("show", "run"), poise("compare", "run", "run"), poise("predict", "run", f"{STEERING}.csv")]
    shown += [poise("show", STEERING), poise("predict", "run", place / "sales.csv", "--import", STEERING)]

    assert [one.exit_code for one in shown] == [0, 0, 2, 2, 2]
    for one in shown:
        assert not {"\x1b", "\x9b", "\u202e"} & {*one.output}
    assert r"a\x1b[2J\x9b31m\u202eb\nc" in shown[0].output
    assert all(one.stderr.count("\n") == 1 for one in shown[2:])


def test_a_saved_run_holds_no_steering_characters(finished, asked):
    with pytest.MonkeyPatch.context() as patch:
        described = storage.describe
        patch.setattr(storage, "describe", lambda study: described(study) | {"answer": [STEERING]})
        printed = poise("study", "wine", "--json").stdout

    assert not {"\x1b", "\x9b", "\u202e"} & {*printed}
    assert json.loads(printed)["answer"] == [STEERING]


def test_names_that_are_not_utf8_are_refused_before_training(finished, place, monkeypatch):
    monkeypatch.setattr(studies, "study", lambda *_, **__: pytest.fail("it trained"))
    name = os.fsdecode(b"caf\xe9")

    for command in (["study", f"{name}.csv"], ["study", "wine", "--out", name]):
        said = refused(*command)
        assert r"caf\udce9' cannot be written: its name, or that of a folder around it, is not UTF-8." in said
    assert "is not UTF-8" in refused("predict", place / "run", place / "sales.csv", "--out", f"{name}.parquet")
    shutil.copy(place / "sales.csv", f"{name}.csv")
    assert poise("predict", place / "run", f"{name}.csv", "--out", f"{name}-out.csv").exit_code == 0


# ---------------------------------------------------------------- show and compare


def test_show_prints_the_run_again(finished, place):
    assert poise("show", place / "run").stdout == finished[0].stdout


def test_runs_stand_beside_each_other(finished, place, asked):
    study = finished[1]
    poise("study", "again")

    result = poise("compare", place / "run", "runs/again")

    said = " ".join(result.stdout.split())
    assert "rows 48 + 12 test 48 + 12 test" in said
    assert "chosen L2 L2" in said
    assert f"{study.best.score.value:.3g} [" in said.replace("−", "-")
    assert result.stderr == ""


def test_runs_that_do_not_compare_are_told(finished, place, asked):
    poise("study", "rows")
    poise("study", "data")
    _changed("runs/rows/study.json", "rows")
    _changed("runs/data/study.json", "data")

    said = poise("compare", place / "run", "runs/rows", "runs/data").stderr.splitlines()

    assert len(said) == 3
    assert said[0].endswith(
        "runs/rows are tested on different rows: a difference may be that of the rows. Use the same --test and --seed."
    )
    assert said[1].endswith("runs/data study different data: their losses do not compare.")


def _changed(file, part):
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    _sign(Path(file).parent, **{part: found[part] | {"digest": "another"}})


def test_comparing_needs_two_runs(finished, place):
    assert refused("compare", place / "run").startswith("One run has nothing to compare with.")
    assert "There is no folder 'nowhere'" in refused("compare", place / "run", "nowhere")


# ---------------------------------------------------------------- the command itself


@pytest.mark.parametrize("command", ["study", "predict", "show", "compare", "compact"])
def test_help_shows_examples_and_exit_codes(command):
    said = poise(command, "--help").stdout

    assert f"  poise {command} " in said
    assert "Exit codes: 0 done, 1 a fault of poise, 2 bad input, 130 interrupted." in " ".join(said.split())


def test_shells_can_complete():
    assert "--install-completion" in poise("--help").stdout


@pytest.mark.parametrize(("chosen", "found"), [(None, "jax"), ("tensorflow", "tensorflow")])
def test_it_runs_on_jax_unless_told_otherwise(chosen, found, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"KERAS_BACKEND": chosen} if chosen else {}
    (tmp_path / "told.py").write_text("import keras\ndef net(*_):\n    print(keras.backend.backend())\n")
    study = [sys.executable, "-c", "from poise_command import main; main()", "study", "wine", "--model", "told:net"]

    result = subprocess.run(study, env=environment, capture_output=True, text=True)

    assert result.stdout == f"{found}\n"
    assert result.returncode == 2


def test_the_version():
    assert poise("--version").stdout.startswith("poise ")


def test_alone_it_prints_help():
    said = poise().output
    assert all(command in said for command in ("study", "predict", "show", "compare", "compact"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "10.0.0.1:6379"], "Add --executor ray"),
        (["--executor", "dask"], "executor='dask' is not one of 'auto', 'local', 'process', 'ray'"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(tmp_path, options, said):
    assert said in refused("study", "wine", "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()
