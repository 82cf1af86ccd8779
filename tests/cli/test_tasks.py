"""Tasks with options in `poise study`, and what `poise predict` needs then."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .commands import FAST, poise, printed, refused

LINEAR = [*FAST[:-1], "none", "--penalty", "l2"]


@pytest.fixture
def claims(tmp_path, monkeypatch) -> pd.DataFrame:
    """Claims in a file in the current folder."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"age": random.normal(size=80), "years": random.uniform(0.5, 3.0, 80)})
    frame["size"] = random.gamma(3.0, np.exp(frame["age"]) * frame["years"])
    frame["late"] = np.where(frame["age"] + random.normal(size=80) > 1.0, "yes", "no")
    frame.to_csv("claims.csv", index=False)
    return frame


def test_an_exposure_is_needed_again_by_predict(claims):
    command = ["study", "claims.csv", "--target", "size", "--task", "tweedie", "--tweedie-power", "1.8", *LINEAR]

    text = printed(*command, "--exposure", "years")

    assert text.startswith("claims: tweedie of 'size' with exposure 'years' from 2 columns")
    assert "explained deviance" in text
    study = json.loads(Path("runs/claims/study.json").read_text())
    assert (study["data"]["exposure"], study["settings"]["tweedie_power"]) == ("years", 1.8)
    predicted = pd.read_csv(StringIO(poise("predict", "runs/claims", "claims.csv").stdout))
    assert np.corrcoef(np.log(predicted["size"] / claims["years"]), claims["age"])[0, 1] > 0.5
    claims.drop(columns="years").to_csv("new.csv", index=False)
    assert "new.csv has no column 'years'" in refused("predict", "runs/claims", "new.csv")


def test_one_column_per_quantile(claims):
    command = ["study", "claims.csv", "--target", "size", "--task", "quantile", "--quantiles", "0.25,0.75", *LINEAR]

    text = printed(*command)

    assert text.startswith("claims: quantile of 'size' from 3 columns")
    assert "25% to 75% coverage" in text
    predicted = pd.read_csv(StringIO(poise("predict", "runs/claims", "claims.csv").stdout))
    assert list(predicted.columns) == ["quantile 0.25 of size", "quantile 0.75 of size"]
    assert (np.diff(predicted, axis=1) > 0).all()


def test_weights_of_classes(claims):
    text = printed("study", "claims.csv", "--target", "late", "--class-weight", "yes=3", *LINEAR)

    assert "class-weighted accuracy" in text
    assert json.loads(Path("runs/claims/study.json").read_text())["settings"]["class_weight"] == {"yes": 3.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--task", "gamma", "--tweedie-power", "1"],
            "--tweedie-power must lie between 1 and 2 (exclusive), such as 1.5, got 1.0.",
        ),
        (
            ["--task", "regression", "--exposure", "years"],
            "--exposure needs one of the tasks counts, gamma, tweedie, got",
        ),
        (["--task", "quantile", "--quantiles", "0.9,0.1"], "--quantiles must be ascending numbers between 0 and 1"),
        (["--quantiles", "all"], "--quantiles must be numbers such as 0.1,0.5,0.9, got 'all'."),
        (
            ["--class-weight", "yes"],
            "--class-weight must be the word balanced, or CLASS=WEIGHT such as yes=5, got 'yes'.",
        ),
        (
            ["--class-weight", "=3"],
            "--class-weight must be the word balanced, or CLASS=WEIGHT such as yes=5, got '=3'.",
        ),
        (
            ["--class-weight", "yes=3", "--task", "gamma"],
            "--class-weight needs a target with classes, got the task gamma",
        ),
    ],
    ids=["power", "exposure", "order", "text", "word", "no class", "numbers"],
)
def test_options_that_do_not_fit_are_one_sentence(options, message, claims):
    assert refused("study", "claims.csv", "--target", "size", *options, *LINEAR).startswith(message)
