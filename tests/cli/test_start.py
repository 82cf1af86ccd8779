"""How the command starts: what it imports, its backend, its streams, and the modules that a folder may replace."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import poise as package
import poise_command
from poise.study.errors import DataError
from poise.study.sources import load

from .commands import poise, sign

COMMANDS = ("study", "predict", "show", "compare", "compact")
COMMAND = "from poise_command import main; main()"
HEEDING = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{COMMAND}"

# ---------------------------------------------------------------- help and version


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments):
    code = f"""
import sys
sys.argv = ["poise", *{arguments!r}]
from poise_command import main
try:
    main()
finally:
    print([name for name in ("keras", "numpy", "pandas", "rich", "sklearn") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def _imported(*arguments):
    """The modules that the console script has imported when it ends, in order."""
    code = f"import sys\ntry:\n    {COMMAND}\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr.split()


@pytest.mark.parametrize("command", ["show", "compare"])
def test_printing_a_study_needs_only_its_description(command, finished):
    imported = _imported(command, finished.folder, *[finished.folder][: command == "compare"])

    heavy = {"jax", "keras", "pandas", "plotly", "pyarrow", "scipy", "sklearn", "skops", "tensorflow", "torch"}
    assert heavy.intersection(imported) == set()


def test_predicting_imports_no_optional_packages(finished):
    imported = _imported("predict", finished.folder, finished.data)

    optional = {"IPython", "matplotlib", "openpyxl", "plotly", "pytest", "ray", "tensorflow", "torch"}
    assert optional.intersection(imported) == set()
    # skops searches all modules that are imported for each function of NumPy and SciPy.
    assert imported.index("skops.io._trusted_types") < imported.index("jax") < imported.index("keras")


def test_a_module_may_import_optional_packages(finished, tmp_path):
    (tmp_path / "my_layers.py").write_text("import gc, pytest\nassert gc.isenabled()\n")

    imported = _imported("predict", finished.folder, finished.data, "--import", "my_layers")

    assert {"my_layers", "pytest"} <= {*imported}


def test_help_answers_at_once():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", COMMAND, "--version"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)

    assert min(seconds) < 1.5


def _help(monkeypatch, width, *arguments):
    """What the console script prints; `CliRunner` prints help for 80 columns, whatever COLUMNS is."""
    monkeypatch.setenv("COLUMNS", width)
    code, output, errors = _streams(monkeypatch, *arguments)
    assert (code, errors) == (0, b"")
    return output.decode()


@pytest.mark.parametrize("width", ["60", "80"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_exit_codes(command, width, monkeypatch):
    text = _help(monkeypatch, width, command, "--help")

    assert f"  poise {command} " in text
    examples = text.split("Examples:")[1].split("Arguments:")[0]
    assert max(map(len, examples.splitlines())) <= 80
    assert max(map(len, text.replace(examples, "").splitlines())) <= int(width)
    assert "Exit codes: 0 success, 1 internal error, 2 invalid input, 130 interrupted." in " ".join(text.split())


@pytest.mark.parametrize("width", ["60", "80"])
def test_the_list_of_commands_is_not_cut_off(width, monkeypatch):
    text = _help(monkeypatch, width, "--help")

    assert "..." not in text.split("Commands:")[1]
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert "--install-completion" in text


def test_the_version_is_that_of_the_package():
    assert poise("--version").stdout == f"poise {package.__version__}\n"


def test_an_unknown_option_exits_with_2():
    assert poise("study", "wine", "--penalities", "l1").exit_code == 2


# ---------------------------------------------------------------- backend and interruption


@pytest.mark.parametrize(("chosen", "backend"), [(None, "jax"), ("tensorflow", "tensorflow")])
def test_it_runs_on_jax_unless_the_environment_names_a_backend(chosen, backend):
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"KERAS_BACKEND": chosen} if chosen else {}
    Path("nets.py").write_text("import keras\ndef net(*_):\n    print(keras.backend.backend())\n")
    command = [sys.executable, "-c", COMMAND, "study", "wine", "--model", "nets:net"]

    result = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert (result.stdout, result.returncode) == (f"{backend}\n", 2), result.stderr


@pytest.mark.parametrize(("backend", "is_silenced"), [("jax", True), ("torch", True), ("tensorflow", False)])
def test_tensorflow_does_not_log_unless_it_is_the_backend(backend, is_silenced, monkeypatch):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    monkeypatch.setattr(os, "environ", environment | {"KERAS_BACKEND": backend})

    _streams(monkeypatch, "--version")

    silent = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    assert (silent.items() <= os.environ.items()) == is_silenced


PAUSE = """import sys, time

class Pausing:
    def find_spec(self, name, *_):
        if name == "{module}":
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Pausing())
"""


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        ("keras", -signal.SIGINT, ""),
        ("poise.study", 130, "Stopped. Nothing was finished, and nothing is kept.\n"),
    ],
)
def test_ctrl_c_during_imports_shows_no_traceback(module, code, message):
    command = [sys.executable, "-c", PAUSE.format(module=module) + HEEDING, "study", "wine"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (code, message)


# ---------------------------------------------------------------- modules in the working directory


SHADOW = "import pathlib\npathlib.Path(__file__ + '.ran').touch()\n"


def test_files_in_the_working_directory_are_not_run(finished, tmp_path):
    for name in ("json", "numpy", "jax_plugins", "psutil", "keras_hub"):
        (tmp_path / f"{name}.py").write_text(SHADOW)
    command = [sys.executable, "-c", COMMAND, "predict", str(finished.folder), str(finished.data)]
    source = str(Path(poise_command.__file__).parent)

    result = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": f"{os.pathsep}{source}"})

    assert result.returncode == 0, result.stderr
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

    monkeypatch.setattr(sys, "path", [here(entry) for entry in before])
    monkeypatch.setenv("PYTHONPATH", here(named))

    poise_command.leave_out_working_directory()

    assert sys.path == [here(entry) for entry in after]


def test_an_import_prefers_installed_modules(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    for name in ("colorsys", "poise_in_this_folder"):
        (tmp_path / f"{name}.py").write_text(SHADOW)
        monkeypatch.delitem(sys.modules, name, raising=False)
    command = ["predict", finished.folder, finished.data, "--import", "colorsys", "--import", "poise_in_this_folder"]

    assert poise(*command).exit_code == 0
    assert [path.name for path in tmp_path.glob("*.ran")] == ["poise_in_this_folder.py.ran"]
    assert sys.path[-1] == str(tmp_path)


# ---------------------------------------------------------------- streams


def _streams(monkeypatch, *arguments, encoding="utf-8", stdout=None):
    """The exit code of the console script, and the bytes that it writes to its two streams."""
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
def test_a_console_without_a_character_shows_another(encoding, minus, squared, finished, monkeypatch):
    shutil.copytree(finished.folder, "run")
    sign("run", answer=["−1 ≥ −2 …", "日"])

    code, output, errors = _streams(monkeypatch, "show", "run", encoding=encoding)

    text = output.decode(encoding)
    assert (code, errors) == (0, b"")
    assert f"{minus}1 " in text
    assert squared in text
    assert ("日" if encoding == "utf-8" else r"\u65e5") in text


def test_predictions_are_utf8_whatever_the_console(finished, monkeypatch):
    shutil.copytree(finished.folder, "run")
    content = json.loads(Path("run/study.json").read_text("utf-8"))
    sign("run", data=content["data"] | {"target": "Preis−€"})

    code, output, _ = _streams(monkeypatch, "predict", "run", finished.data, encoding="ascii")

    assert code == 0
    assert output.decode("utf-8").startswith("Preis−€\n")


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_closed_standard_input_is_one_sentence(is_closed, monkeypatch):
    stream = open(os.devnull) if is_closed else None  # noqa: SIM115
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stdin", stream)

    with pytest.raises(DataError, match=r"^Standard input is closed and cannot be read\. Give the path"):
        load("-")


def test_a_file_does_not_become_an_output_that_is_closed():
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
def test_a_full_output_is_one_sentence(command, finished, monkeypatch):
    data = [finished.data] if command == "predict" else []

    code, _, errors = _streams(monkeypatch, command, finished.folder, *data, stdout=_Full())

    assert code == 2
    assert errors == (
        b"The output cannot be written: No space left on device. Free some disk space and run the same command again.\n"
    )
