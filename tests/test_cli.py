"""The command line: what it prints, where it writes, and one sentence with exit code 2 for bad input."""

import hashlib
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

from poise import cli, studies
from poise.studies import tracking
from poise.terminal.screen import progress_bar

FAST = ["--penalty", "l2", "--steps", "50", "--strengths", "3", "--folds", "2", "--hidden", "4"]
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
        "size": size.round(3), "colour": np.array(["red", "green", "blue"])[np.arange(60) % 3],
        "order_id": np.arange(60), "price": (3 * size + rng.normal(size=60)).round(3),
    })  # fmt: skip
    frame.to_csv(place / "sales.csv", index=False)
    return place


@pytest.fixture(scope="module")
def finished(place):
    """What the command said, and the study that it saved in place/run."""
    kept, study = [], studies.study

    def keeping(*arguments, **given):
        kept.append(study(*arguments, **given))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "study", keeping)
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

    monkeypatch.setattr(studies, "study", study)
    monkeypatch.setattr("poise.studies.storage.page", lambda study: "<!doctype html>")
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
        "--choose", "l1", "--model", "nets:wide", "--hidden", "64,32", "--groups", "g", "--time", "t", "--weight", "w",
        "--drop", "a", "--drop", "b, c", "--folds", 3, "--strengths", 5, "--seeds", 2, "--steps", 7,
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
        "model": "nets:wide", "hidden": (64, 32), "groups": "g", "time_column": "t", "weight": "w",
        "drop": ("a", "b, c"), "folds": 3, "strengths": 5, "seeds": 2, "steps": 7, "learning_rate": 0.5, "test": 0.3,
        "seed": 9, "delimiter": ";", "decimal": ",", "encoding": "cp1252", "engine": "auto",
    }  # fmt: skip


def test_what_is_not_given_is_what_a_study_takes(asked):
    poise("study", "diabetes", "--hidden", "none")

    assert asked[0]["penalties"] == studies.DEFAULTS
    assert asked[0]["hidden"] == ()
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
        (["wine", "--target", "colour_intensity"], "Nearest: 'color_intensity'"),
        (["wine", "--task", "ranking"], "'ranking' is unknown"),
        (["wine", "--penalty", "l3"], "Penalty 'l3' is unknown. Use one of l2, l1, group, adaptive"),
        (["wine", "--choose", "l3"], "choose is 'l3' and must be one of"),
        (["wine", "--hidden", "many"], "--hidden 'many' is not a list of numbers. Write it like 64,32, or none."),
        (["wine", "--hidden", "0"], "hidden is (0,) and must hold one unit a layer at least"),
        (["wine", "--model", "nowhere:net"], "The model nowhere:net cannot be imported"),
        (["wine", "--model", "net"], "Write it as MODULE:FUNCTION"),
        (["wine", "--steps", "0"], "steps is 0 and must be at least 1."),
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
        "Stopped. What is finished is kept in 'runs/.sales.unfinished'; the same command goes on from there.\n"
    )
    assert [one.name for one in (tmp_path / "runs").iterdir()] == [".sales.unfinished"]

    again = subprocess.run(command, check=True, capture_output=True, text=True)

    assert [one.name for one in (tmp_path / "runs").iterdir()] == ["sales"]
    assert _numbers(json.loads(again.stdout)) == _numbers(json.loads((place / "run/study.json").read_text("utf-8")))


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
        (checkpoint / "none").mkdir(parents=True)
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


def test_what_is_finished_is_kept_when_the_disk_is_full(asked, monkeypatch, tmp_path):
    def full(study):
        (tmp_path / "runs/.wine.unfinished").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("poise.studies.storage.page", full)

    assert refused("study", "wine") == (
        "The folder 'runs/wine' cannot be written: No space left on device. Choose another with --out."
    )
    assert [one.name for one in (tmp_path / "runs").iterdir()] == [".wine.unfinished"]


def test_other_settings_and_other_data_begin_anew(asked, tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    for steps in (50, 60, 50):
        poise("study", "a.csv", "--steps", steps, "--force")
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    poise("study", "a.csv", "--steps", 50, "--force")

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
        ("poise.studies", 130, "Stopped before anything was finished; nothing is kept.\n"),
    ],
)
def test_ctrl_c_during_imports_shows_no_traceback(module, code, said):
    command = [sys.executable, "-c", PAUSED.format(module=module) + HEEDING, "study", "wine"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)

    assert (process.returncode, told) == (code, said)


def test_what_belongs_to_other_rows_is_told(monkeypatch):
    error = ValueError("The checkpoint 'x' was written for another path: data changed since.")
    monkeypatch.setattr(studies, "study", _failing(error, writes=True))

    assert refused("study", "-") == (
        "What an earlier call finished in 'runs/.stdin.unfinished' belongs to other data, or to another network. "
        "Delete that folder to begin anew."
    )


# ---------------------------------------------------------------- predict


def test_predictions_are_csv_on_the_standard_output(finished, place):
    study = finished[1]

    result = poise("predict", place / "run", place / "sales.csv")

    predicted = pd.read_csv(StringIO(result.stdout))
    x = study.encoder.transform(study.table.features)
    outputs = study.best.model.predict(x, verbose=0).astype("float64")[:, 0]
    assert list(predicted.columns) == ["price"]
    np.testing.assert_allclose(predicted["price"], outputs * study.scale + study.centre, rtol=1e-5)


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
    centre = finished[1].centre
    twice = pd.read_csv(StringIO(imported.stdout))["price"]
    np.testing.assert_allclose(twice - centre, 2.0 * (plain - centre), rtol=1e-5)


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


def _sign(run):
    """As if study.json had been written with the files that are there now."""
    found = json.loads(Path(run, "study.json").read_text(encoding="utf-8"))
    found["files"] = {name: hashlib.sha256(Path(run, name).read_bytes()).hexdigest() for name in found["files"]}
    Path(run, "study.json").write_text(json.dumps(found), encoding="utf-8")


def test_new_rows_may_be_written_in_another_way(finished, place, tmp_path):
    frame = pd.read_csv(place / "sales.csv")
    expected = poise("predict", place / "run", place / "sales.csv").stdout
    shuffled = frame[["colour", "size"]].assign(surplus="ß")
    shuffled.to_csv("new.txt", sep="|", decimal=",", index=False, encoding="cp1252")

    given = ["--delimiter", "|", "--decimal", ",", "--encoding", "cp1252"]

    assert poise("predict", place / "run", "new.txt", *given).stdout == expected
    assert poise("predict", place / "run", "-", input=frame.to_csv(index=False)).stdout == expected


def test_a_new_category_is_predicted(finished, place, tmp_path):
    Path("new.csv").write_text("size,colour\n1.5,mauve\n,red\n")

    assert len(poise("predict", place / "run", "new.csv").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("colour\nred\ngreen\n", "size"),
        ("size,colour\nlarge,red\nsmall,green\n", "size"),
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
    found[part]["digest"] = "another"
    Path(file).write_text(json.dumps(found), encoding="utf-8")


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
        (["--address", "10.0.0.1:6379"], "Add --engine ray"),
        (["--engine", "dask"], "engine='dask' is not one of 'auto', 'local', 'process', 'ray'"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(tmp_path, options, said):
    assert said in refused("study", "wine", "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()
