"""The command line: what it prints, where it writes, and one sentence with exit code 2 for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from poise import cli

ROOT = Path(__file__).parent.parent
FAST = ["--epochs", "2", "--hidden", "8"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def poise(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


def refused(*arguments: str) -> str:
    """What is said on the error stream when the input is bad."""
    result = poise(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.strip()


def test_a_study_prints_its_table_and_where_the_report_is(tmp_path):
    result = poise("study", "wine", *FAST)

    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("Report: runs/wine/report.html\n")
    assert "prediction loss, validation" in result.stdout
    assert "validation rows" in result.stdout
    assert sorted(file.name for file in (tmp_path / "runs/wine").iterdir()) == [
        "report.html", "study.json", "table.csv",
    ]  # fmt: skip


def test_penalties_and_settings_reach_the_study(tmp_path):
    result = poise("study", "wine", *FAST, "--penalty", "l2=0.5", "--penalty", "group", "--seed", "3", "--quiet")

    assert result.stdout == "runs/wine/report.html\n"
    assert result.stderr == ""
    content = json.loads((tmp_path / "runs/wine/study.json").read_text())
    assert [(recipe["name"], recipe["strength"]) for recipe in content["recipes"]][:2] == [("none", 0.0), ("l2", 0.5)]
    assert content["recipes"][2]["name"] == "group"
    assert content["settings"]["seed"] == 3
    assert content["settings"]["hidden"] == [8]


def test_a_linear_model_of_a_file_with_a_target(tmp_path):
    rows = "".join(f"{row},{row % 7},{3 * row + row % 5}\n" for row in range(60))
    (tmp_path / "sales.csv").write_text("size,age,price\n" + rows)

    result = poise("study", "sales.csv", "--target", "price", "--drop", "age", "--epochs", "1", "--hidden", "none",
                   "--out", "elsewhere", "-q")  # fmt: skip

    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "elsewhere/study.json").read_text())["settings"]["drop"] == ["age"]


def test_a_run_is_not_overwritten_unless_asked(tmp_path):
    (tmp_path / "runs/wine").mkdir(parents=True)
    (tmp_path / "runs/wine/report.html").write_text("precious")

    assert refused("study", "wine", *FAST) == (
        "The folder 'runs/wine' already holds something, and nothing is overwritten unasked. "
        "Use --force (overwrite=True), or another folder."
    )
    assert (tmp_path / "runs/wine/report.html").read_text() == "precious"
    assert poise("study", "wine", *FAST, "--force", "-q").exit_code == 0
    assert (tmp_path / "runs/wine/report.html").read_text().startswith("<!doctype html>")


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("poise.studies.study", lambda *_, **__: pytest.fail("it trained"))

    assert refused("study", "wine", "--out", "file/runs") == (
        "The folder 'file/runs' cannot be written: Not a directory. Choose another with --out."
    )
    assert "cannot be written" in refused("study", "wine", "--out", "file")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.csv"], "There is no file 'none.csv'."),
        (["wine", "--target", "colour_intensity"], "wine has no column 'colour_intensity'. Nearest: 'color_intensity'"),
        (["wine", "--task", "ranking"], "Task 'ranking' is unknown."),
        (
            ["wine", "--penalty", "l3"],
            "Penalty 'l3' is unknown. Use one of none, l2, l1, elasticnet, group, with a strength or not: l2=0.01.",
        ),
        (["wine", "--penalty", "l2=much"], "The strength in 'l2=much' is not a number. Write it like l2=0.01."),
        (["wine", "--penalty", "l2=-1"], "The strength in 'l2=-1' must be finite and not negative."),
        (["wine", "--penalty", "l1=nan"], "The strength in 'l1=nan' must be finite and not negative."),
        (["wine", "--hidden", "many"], "--hidden 'many' is not a list of numbers. Write it like 64,32, or none."),
        (["wine", "--hidden", "0"], "hidden is (0,) and must hold one unit a layer at least"),
        (["wine", "--epochs", "0"], "epochs is 0 and must be at least 1."),
        (["wine", "--learning-rate", "-1"], "learning_rate is -1.0 and must be positive and finite"),
        (["wine", "--validation", "2"], "The share of validation rows is 2.0; it must lie between 0 and 1"),
        (["wine", "--seed", "-1"], "seed is -1 and must lie between 0 and 2**32 - 1."),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, tmp_path):
    message = refused("study", *arguments)

    assert message.startswith(sentence)
    assert "\n" not in message
    assert not (tmp_path / "runs").exists()


def test_an_option_that_does_not_exist_exits_with_2():
    assert poise("study", "wine", "--penalities", "l1").exit_code == 2


def test_interrupting_exits_with_130(monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("poise.studies.study", interrupted)
    result = poise("study", "wine")

    assert result.exit_code == 130
    assert result.stderr == "Stopped before the end; nothing was written.\n"
    assert not (tmp_path / "runs").exists()


def test_a_fault_of_poise_keeps_its_traceback(monkeypatch):
    def faulty(*_, **__):
        raise ValueError("shapes differ")

    monkeypatch.setattr("poise.studies.study", faulty)
    result = poise("study", "wine")

    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)


def test_help_shows_examples():
    assert "poise study sales.csv --target revenue" in poise("study", "--help").stdout


@pytest.mark.parametrize(("chosen", "found"), [(None, "jax"), ("tensorflow", "tensorflow")])
def test_it_runs_on_jax_unless_told_otherwise(chosen, found, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"KERAS_BACKEND": chosen} if chosen else {}
    script = [sys.executable, "-c", "from poise.cli import main; main()"]

    study = ["study", "wine", "--penalty", "none", *FAST, "--quiet", "--out", str(tmp_path / "run")]
    subprocess.run([*script, *study], cwd=ROOT, env=environment, check=True, capture_output=True)

    assert found in json.loads((tmp_path / "run/study.json").read_text())["versions"]


def test_the_version():
    assert poise("--version").stdout.startswith("poise ")


def test_alone_it_prints_help():
    assert "study" in poise().output
