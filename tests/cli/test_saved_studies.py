"""`poise predict`, `poise show` and `poise compare`: they read studies that `poise study` saved."""

import json
import os
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from poise.cli.study_output import candidates_table, print_comparison
from poise.study import storage

from .commands import CONTROLS, poise, printed, refused, sign

# ---------------------------------------------------------------- predict


def _predict(finished, *arguments):
    return ["predict", finished.folder, finished.data, *arguments]


def test_predictions_are_csv_on_the_standard_output(finished):
    result = poise(*_predict(finished))

    predictions = pd.read_csv(StringIO(result.stdout))
    findings = finished.study.findings
    outputs = finished.study.model.predict(findings.encoder.transform(findings.table.features), verbose=0)
    assert list(predictions.columns) == ["price"]
    expected = outputs.astype("float64")[:, 0] * findings.scale + findings.center
    np.testing.assert_allclose(predictions["price"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["predictions.csv", "new/predictions.parquet"])
def test_predictions_are_written_to_a_file(name, finished):
    command = _predict(finished, "--out", name)
    expected = pd.read_csv(StringIO(poise(*command[:3]).stdout))

    assert poise(*command).output == ""
    written = pd.read_csv(name) if name.endswith("csv") else pd.read_parquet(name)
    np.testing.assert_allclose(written["price"], expected["price"])
    assert [path.name for path in Path(name).parent.iterdir()] == [Path(name).name]

    assert refused(*command) == f"{name} already exists. Pass --force to overwrite it."
    assert poise(*command, "--force").exit_code == 0


LAYERS = """import keras

@keras.saving.register_keras_serializable("poise_custom_layers")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""


def test_custom_layers_are_imported(finished, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    shutil.copytree(finished.folder, "run")
    Path("poise_custom_layers.py").write_text(LAYERS)
    scope: dict = {}
    exec(LAYERS, scope)
    network = finished.study.model
    keras.Sequential([keras.Input(network.input_shape[1:]), network, scope["Twice"]()]).save("run/model.keras")
    sign("run")
    keras.saving.get_custom_objects().pop("poise_custom_layers>Twice")

    command = ["predict", "run", finished.data]
    sentence = refused(*command)
    imported = poise(*command, "--import", "poise_custom_layers")

    assert "'Twice' is unknown" in sentence
    assert sentence.endswith("Pass --import MODULE to import a module.")
    plain = pd.read_csv(StringIO(poise(*_predict(finished)).stdout))["price"]
    center = finished.study.findings.center
    twice = pd.read_csv(StringIO(imported.stdout))["price"]
    np.testing.assert_allclose(twice - center, 2.0 * (plain - center), rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "ModuleNotFoundError: No module named 'poise_absent'"), ("x =", "SyntaxError: invalid syntax")],
)
def test_a_module_that_cannot_be_imported_is_one_sentence(content, reason, finished, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    if content is not None:
        Path("poise_absent.py").write_text(content)

    sentence = refused(*_predict(finished, "--import", "poise_absent"))

    assert sentence.startswith(f"--import poise_absent failed: {reason}")


def test_new_rows_may_have_another_layout(finished):
    frame = pd.read_csv(finished.data)
    expected = poise(*_predict(finished)).stdout
    frame[["color", "size"]].assign(surplus="ß").to_csv("new.txt", sep="|", decimal=",", index=False, encoding="cp1252")

    layout = ["--delimiter", "|", "--decimal", ",", "--text-encoding", "cp1252"]

    assert poise("predict", finished.folder, "new.txt", *layout).stdout == expected
    assert poise("predict", finished.folder, "-", input=frame.to_csv(index=False)).stdout == expected


def test_new_categories_and_missing_values_are_predicted(finished):
    Path("new.csv").write_text("size,color\n1.5,mauve\n,red\n")

    assert len(poise("predict", finished.folder, "new.csv").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [("color\nred\ngreen\n", "size"), ("size,color\nlarge,red\nsmall,green\n", "size"), ("", "new.csv")],
)
def test_new_rows_that_do_not_fit_are_one_sentence(content, words, finished):
    Path("new.csv").write_text(content)

    assert words in refused("predict", finished.folder, "new.csv", "--out", "out.csv")
    assert not Path("out.csv").exists()


def test_output_and_study_are_checked(finished):
    Path("folder.csv").mkdir()
    not_utf8 = os.fsdecode(b"caf\xe9")

    assert refused(*_predict(finished, "--out", "out.xlsx")) == (
        "The output file must end in .csv or .parquet, got 'out.xlsx'. Change --out."
    )
    assert "is a folder" in refused(*_predict(finished, "--out", "folder.csv"))
    assert "is not UTF-8" in refused(*_predict(finished, "--out", f"{not_utf8}.parquet"))
    assert refused("predict", "nowhere", finished.data) == (
        "The folder 'nowhere' does not exist. Give a folder that poise study wrote."
    )
    assert "holds no saved study" in refused("predict", ".", finished.data)
    assert "'none.csv'" in refused("predict", finished.folder, "none.csv")
    shutil.copy(finished.data, f"{not_utf8}.csv")
    assert poise("predict", finished.folder, f"{not_utf8}.csv", "--out", f"{not_utf8}-out.csv").exit_code == 0


def test_predict_imports_nothing_that_trains_or_reports(finished):
    code = f"""
import sys
sys.argv = ["poise", "predict", {str(finished.folder)!r}, {str(finished.data)!r}]
from poise_command import main
try:
    main()
finally:
    names = ["plotly", "jinja2", "ray", "mlflow", "tensorboard", "poise.path.fit", "poise.study.run"]
    print([name for name in names if name in sys.modules], file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1] == "[]"


# ---------------------------------------------------------------- show and compare


def test_show_prints_what_study_printed(finished):
    assert poise("show", finished.folder).stdout == finished.result.stdout


def test_studies_are_printed_next_to_each_other(finished, calls):
    poise("study", "again")

    result = poise("compare", finished.folder, "runs/again")

    text = " ".join(result.stdout.split())
    assert "rows 48 + 12 test 48 + 12 test" in text
    assert "chosen L2 L2" in text
    assert f"{finished.study.best.score.value:.3g} [" in text.replace("−", "-")
    assert result.stderr == ""


def test_studies_that_are_not_comparable_are_named(finished, calls):
    for name, part in (("rows", "rows"), ("data", "data")):
        poise("study", name)
        content = json.loads(Path("runs", name, "study.json").read_text(encoding="utf-8"))
        sign(f"runs/{name}", **{part: content[part] | {"digest": "another"}})

    lines = poise("compare", finished.folder, "runs/rows", "runs/data").stderr.splitlines()

    assert len(lines) == 3
    assert lines[0].endswith(
        "runs/rows have different test rows, so a difference between their test losses may come from the rows. "
        "Run both studies with the same --test, --seed, --groups and --time."
    )
    assert lines[1].endswith("runs/data use different data; their losses are not comparable.")


def test_studies_with_different_losses_are_named(finished, calls):
    poise("study", "loss")
    content = json.loads(Path("runs", "loss", "study.json").read_text(encoding="utf-8"))
    sign("runs/loss", settings=content["settings"] | {"class_weight": "balanced"})

    assert poise("compare", finished.folder, "runs/loss").stderr.endswith(
        "runs/loss have different losses, which are not comparable. Run both studies with the same --class-weight, "
        "--tweedie-power and --quantiles.\n"
    )


def test_only_options_of_the_task_decide_the_loss(finished, calls):
    """The power of the Tweedie loss does not change a regression."""
    poise("study", "power")
    content = json.loads(Path("runs", "power", "study.json").read_text(encoding="utf-8"))
    sign("runs/power", settings=content["settings"] | {"tweedie_power": 1.8})
    assert poise("compare", finished.folder, "runs/power").stderr == ""

    for name, value in (("task_title", "tweedie with power 1.8"), ("weight", "w")):
        sign("runs/power", data=content["data"] | {name: value})
        assert "not comparable" in poise("compare", finished.folder, "runs/power").stderr


def test_compare_needs_two_studies(finished):
    assert refused("compare", finished.folder) == (
        "compare needs two or more studies, got 1. Use poise show to print one study."
    )
    assert "The folder 'nowhere' does not exist." in refused("compare", finished.folder, "nowhere")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_no_number_is_cut_off_on_any_terminal(width, finished):
    description = dict(finished.study.description)
    description["candidates"] = [
        each | {"title": "Sparse group lasso", "zeros": 123456} for each in description["candidates"]
    ]
    output = StringIO()
    screen = Console(width=width, file=output)

    screen.print(candidates_table(description, screen))
    print_comparison(["runs/a_study_with_a_long_name"] * 3, [description] * 3, screen)

    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for candidate in description["candidates"]:
        assert width == 40 or f"{candidate['val_loss']:.3g}" in text
        assert f"{candidate['score']:.3g}".replace("-", "−") in text
    assert text.count(f"{description['rows']['training']} + {description['rows']['test']} test") == 3
    assert ("zeros" in text) == (width >= 100)


def test_the_environment_sets_the_width(finished, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")

    assert max(map(len, poise("show", finished.folder).stdout.splitlines()[:-1])) <= 60


# ---------------------------------------------------------------- names from files


def test_names_do_not_control_the_terminal(finished):
    shutil.copytree(finished.folder, "run")
    content = json.loads(Path("run/study.json").read_text("utf-8"))
    content["data"] |= {"name": CONTROLS, "target": CONTROLS, "notes": [CONTROLS]}
    content["candidates"][0]["title"] = CONTROLS
    sign("run", data=content["data"], candidates=content["candidates"], answer=[CONTROLS])
    Path(f"{CONTROLS}.csv").write_text("size\n1\n")

    results = [poise("show", "run"), poise("compare", "run", "run"), poise("predict", "run", f"{CONTROLS}.csv")]
    results += [poise("show", CONTROLS), poise("predict", "run", finished.data, "--import", CONTROLS)]

    assert [result.exit_code for result in results] == [0, 0, 2, 2, 2]
    for result in results:
        assert not {"\x1b", "\x9b", "\u202e"} & {*result.output}
    assert r"a\x1b[2J\x9b31m\u202eb\nc" in results[0].output
    assert all(result.stderr.count("\n") == 1 for result in results[2:])


def test_json_holds_no_characters_that_control_a_terminal(calls, monkeypatch):
    describe = storage.describe
    monkeypatch.setattr(storage, "describe", lambda findings: describe(findings) | {"answer": [CONTROLS]})

    output = poise("study", "wine", "--json").stdout

    assert not {"\x1b", "\x9b", "\u202e"} & {*output}
    assert json.loads(output)["answer"] == [CONTROLS]
    assert printed("show", "runs/wine")
