"""`poise shrink`: what it prints and writes, and one sentence with exit code 2 for input that can be corrected."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from . import commands
from .commands import poise, printed

QUICK = ("--epochs-per-stage", 2, "--fine-tuning-epochs", 1, "--batch-size", 64)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained classifier, its rows as arrays and as a table, and a model that is not compiled."""
    place = tmp_path_factory.mktemp("place")
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(32, activation="relu", name="hidden"), layers.Dense(2)])
    model.save(place / "raw.keras")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=20, verbose=0)
    model.save(place / "net.keras")
    np.savez(place / "train.npz", x=x, y=y)
    np.savez(place / "test.npz", x=x[:64], y=y[:64])
    np.savez(place / "x.npz", x=x)
    pd.DataFrame(x, columns=list("abcd")).assign(label=y).to_csv(place / "train.csv", index=False)
    return place


@pytest.fixture(autouse=True)
def files(place):
    """The files, in an empty folder in which the command runs."""
    for path in place.iterdir():
        Path(path.name).write_bytes(path.read_bytes())


def refused(*arguments) -> str:
    """The one sentence on the error stream of a command that writes nothing."""
    before = {path: path.read_bytes() for path in Path.cwd().iterdir()}
    sentence = commands.refused("shrink", *arguments)
    assert {path: path.read_bytes() for path in Path.cwd().iterdir()} == before
    return sentence


def test_it_writes_the_smaller_model_and_prints_how_it_compares():
    arguments = ("--parameters", 0.6, "--validation", "test.npz", "--report", "net.html", *QUICK)
    said = printed("shrink", "net.keras", "train.npz", *arguments)

    assert said.startswith("The smaller network has 2.")
    assert "hidden 32 16" in said
    assert "fine-tuned *" in said
    assert "Batches of 256:" in said
    assert said.endswith("Model: net-small.keras Report: net.html")
    small = keras.saving.load_model("net-small.keras")
    assert small.layers[0].units == 16
    assert "net.keras: a smaller network" in Path("net.html").read_text(encoding="utf-8")


def test_a_table_and_json():
    arguments = ("--target", "label", "--max-accuracy-drop", 0.2, "--json", "--out", "new/small.keras", *QUICK)
    record = json.loads(poise("shrink", "net.keras", "train.csv", *arguments).stdout)

    assert record["format"] == "poise shrink"
    assert record["budget"] == "validation accuracy at most 0.2 lower"
    assert record["out"] == str(Path("new/small.keras"))
    (chosen,) = [stage for stage in record["stages"] if stage["chosen"]]
    assert chosen["accuracy"] >= record["stages"][0]["accuracy"] - 0.2
    assert record["layers"][0]["after"] == keras.saving.load_model("new/small.keras").layers[0].units
    assert [row["batch size"] for row in record["latency"]] == [1, 256]


def test_what_can_be_corrected_is_one_sentence():
    options = "--flops, --parameters, --max-accuracy-drop, --max-loss-increase"
    assert refused("net.keras", "train.npz") == f"Pass one of {options}, such as --flops 0.25, got none."
    assert refused("net.keras", "train.npz", "--flops", 0.5, "--parameters", 0.5).endswith(
        "got --flops and --parameters."
    )
    assert refused("net.keras", "train.npz", "--flops", 2).startswith("--flops must be between 0 and 1")
    assert refused("net.keras", "train.npz", "--flops", 0.01).startswith("--flops 0.01 cannot be reached: 0.25 of")
    assert refused("net.keras", "train.npz", "--flops", 0.01).endswith(
        "with --multiple 8. Pass a larger share or a smaller multiple."
    )
    assert refused("net.keras", "train.csv", "--flops", 0.5) == (
        "'train.csv' is a table. Pass --target with the column that the model predicts."
    )
    assert refused("net.keras", "train.csv", "--flops", 0.5, "--target", "e") == (
        "'train.csv' has no column 'e'. Its columns are a, b, c, d, label."
    )
    assert refused("net.keras", "train.npz", "--flops", 0.5, "--target", "e") == (
        "--target names a column of a table, and 'train.npz' holds arrays. Name the targets 'y'."
    )
    assert refused("net.keras", "x.npz", "--flops", 0.5) == (
        "'x.npz' holds no targets, only x. Write them with np.savez(file, x=x, y=y)."
    )
    assert refused("raw.keras", "train.npz", "--flops", 0.5) == (
        "'raw.keras' holds a model that is not compiled. Call model.compile(optimizer, loss, "
        'metrics=["accuracy"]) before you save it.'
    )
    Path("net-small.keras").write_text("mine")
    assert refused("net.keras", "train.npz", "--flops", 0.5) == (
        "net-small.keras already exists. Pass --force to overwrite it."
    )
    assert refused("net.keras", "train.npz", "--flops", 0.5, "--out", "a.keras", "--report", "net.pdf") == (
        "--report must be a file that ends in .html, got 'net.pdf'."
    )
