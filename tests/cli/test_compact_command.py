"""`poise compact`: what it prints and writes, and one sentence with exit code 2 for what cannot be compacted."""

import json
import sys
import zipfile
from io import StringIO
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from compaction.zeroing import assert_same, outputs, randomized, silent, unread
from keras import layers
from rich.console import Console

from poise.cli import model_compaction
from poise.cli.compaction_output import describe_compaction

from . import commands
from .commands import poise, printed

COLUMNS = ["age", "sex", "bmi", "bp", "s1"]


def refused(*arguments, exit_code=2) -> str:
    """The one sentence on the error stream of a command that writes nothing."""
    before = _files()
    sentence = commands.refused("compact", *arguments, exit_code=exit_code)
    assert _files() == before
    return sentence


def _files():
    return {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model of which 2 of 4 and 1 of 3 hidden units are dead, and input 1 is read by nobody."""
    place = tmp_path_factory.mktemp("place")
    model = keras.Sequential(
        [
            keras.Input((5,), name="patients"),
            layers.Dense(4, activation="relu", name="first"),
            layers.Dense(3, activation="tanh", name="second"),
            layers.Dense(1, name="head"),
        ]
    )
    first, _, head = randomized(model).layers
    unread(first, [1])
    silent(first, [0, 2])
    unread(head, [1])
    model.save(place / "net.keras")
    return place


@pytest.fixture
def net(place):
    """The model, in an empty folder in which the command runs."""
    Path("net.keras").write_bytes((place / "net.keras").read_bytes())
    return Path("net.keras")


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(7, 5)).astype("float32")


def loaded(path):
    return keras.saving.load_model(path, compile=False)


def test_the_smaller_model_lies_beside_the_other_and_predicts_the_same(net, x):
    said = printed("compact", net)

    assert said.startswith("net.keras: 3 of 8 units are dead.")
    assert "first 4 2 2 constant" in said
    assert "second 3 1 1 not read" in said
    assert "head 1 0 all stay: an output of the model" in said
    assert "parameters 43 21 2.05" in said
    assert said.endswith("Model: net-compact.keras")
    small = loaded("net-compact.keras")
    assert [layer.units for layer in small.layers] == [2, 2, 1]
    assert_same(loaded(net), small, [x])


def test_quiet_prints_only_the_path(net):
    assert poise("compact", net, "--out", "new/small.keras", "-q").output == f"{Path('new/small.keras')}\n"
    assert [each.name for each in Path("new").iterdir()] == ["small.keras"]


def test_json_prints_only_the_results(net, x):
    np.save("x.npy", x)

    actual = json.loads(poise("compact", net, "--check", "x.npy", "--drop-inputs", "--json").stdout)

    assert actual["check"].pop("difference") < 1e-5
    assert actual["savings"]["parameters"] == {"before": 43, "after": 19, "ratio": pytest.approx(43 / 19)}
    assert actual["savings"]["second"] == {"before": 3, "after": 2, "ratio": 1.5}
    del actual["savings"]
    assert actual == {
        "format": "poise compact", "model": "net.keras", "out": "net-compact.keras", "tolerance": 0.0,
        "layers": [
            {"layer": "first", "units": 4, "dead": 2, "why": "2 constant"},
            {"layer": "second", "units": 3, "dead": 1, "why": "1 not read"},
            {"layer": "head", "units": 1, "dead": 0, "why": "all stay: an output of the model"},
        ],
        "inputs": [{"input": "patients", "features": 5, "kept": [0, 2, 3, 4], "columns": []}],
        "check": {"data": "x.npy", "rows": 7},
    }  # fmt: skip
    assert_same_of(net, x, x[:, [0, 2, 3, 4]])


def assert_same_of(net, x, cut):
    (before,), (after,) = outputs(loaded(net), [x]), outputs(loaded("net-compact.keras"), [cut])
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_unknown_values_are_null_in_json(net):
    series = keras.Sequential([keras.Input((None, 3)), layers.Dense(2), layers.GlobalAveragePooling1D()])
    randomized(series).save(net)

    result = poise("compact", net, "--json")

    flops = json.loads(result.stdout)["savings"]["FLOPs per sample"]
    assert flops == {"before": None, "after": None, "ratio": None}
    assert "FLOPs per sample unknown unknown unknown" in printed("compact", net, "--force")


def test_a_model_without_dead_units_is_said_to_have_none(net):
    randomized(keras.Sequential([keras.Input((3,)), layers.Dense(2)])).save(net)

    assert poise("compact", net).stdout.startswith("net.keras: 0 of 2 units are dead.")


def test_weights_within_the_tolerance_count_as_zero(net):
    assert poise("compact", net, "--tolerance", "100", "-q").exit_code == 0
    assert loaded("net-compact.keras").count_params() < 21
    assert refused(net, "--force", "--tolerance", "-1").startswith("tolerance must be a finite number >= 0, got -1.0")


# ---------------------------------------------------------------- rows to compare on


def _npy(x):
    np.save("rows.npy", x)
    return "rows.npy"


def _npz(x):
    np.savez("rows.npz", x=x, y=x[:, 0])
    return "rows.npz"


def _named(x):
    np.savez("rows.npz", patients=x, weights=x[:, 0])
    return "rows.npz"


def _csv(x):
    pd.DataFrame(x, columns=COLUMNS).to_csv("rows.csv", sep=";", decimal=",", index=False)
    return "rows.csv"


def _parquet(x):
    pd.DataFrame(x, columns=COLUMNS).to_parquet("rows.parquet")
    return "rows.parquet"


@pytest.mark.parametrize("written", [_npy, _npz, _named, _csv, _parquet])
def test_both_models_are_compared_on_rows(written, net, x):
    said = printed("compact", net, "--check", written(x))

    assert f"On 7 rows of {written(x)} the outputs " in said


def test_used_inputs_are_printed_by_their_columns(net, x):
    said = printed("compact", net, "--drop-inputs", "--check", _csv(x))

    assert "Inputs: 4 of 5 features are used; the new model takes only these: age, bmi, bp, s1." in said
    assert_same_of(net, x, x[:, [0, 2, 3, 4]])


def test_used_inputs_are_printed_by_their_positions(net):
    assert "takes only these: 0, 2-4." in printed("compact", net, "--drop-inputs")


def test_units_that_go_with_inputs_are_printed(net):
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(1, name="top")(layers.Add()([x, layers.Dense(4, name="side")(x)])))
    side, top = randomized(model).get_layer("side"), model.get_layer("top")
    unread(side, [0, 1])
    unread(top, [0, 1])
    model.save(net)

    assert poise("compact", net).stdout.startswith("net.keras: 0 of 5 units are dead.")
    assert poise("compact", net, "--drop-inputs", "--force").stdout.startswith("net.keras: 2 of 5 units are dead.")


def test_a_model_with_several_inputs_is_compared_on_an_array_each(net):
    words = keras.Input((4,), dtype="int32", name="words")
    numbers = keras.Input((3,), name="numbers")
    mean = layers.GlobalAveragePooling1D()(layers.Embedding(9, 2)(words))
    both = layers.Concatenate()([mean, layers.Dense(2, name="mixed")(numbers)])
    model = keras.Model(
        {"words": words, "numbers": numbers}, {"one": layers.Dense(1)(both), "two": layers.Dense(2)(both)}
    )
    unread(randomized(model).get_layer("mixed"), [2])
    model.save(net)
    w, n = np.arange(8).reshape(2, 4), np.ones((2, 3))
    np.savez("named.npz", words=w, numbers=n)
    np.savez("ordered.npz", n, w)
    np.savez("three.npz", n, w, n)
    np.savez("unequal.npz", numbers=n, words=w[:1])
    np.savez("fractions.npz", numbers=n, words=w + 0.5)

    said = printed("compact", net, "--check", "named.npz", "--drop-inputs")

    assert "Inputs of 'numbers': 2 of 3 features are used; the new model takes only these: 0-1." in said
    assert "Inputs of 'words': all 4 features are used." in said
    assert poise("compact", net, "--check", "ordered.npz", "--force").exit_code == 0
    assert refused(net, "--check", "three.npz", "--force") == (
        "'three.npz' holds 3 arrays (arr_0, arr_1, arr_2), and the model takes 'numbers' (any, 3), 'words' (any, 4). "
        "Give one array per input, named numbers, words or in this order."
    )
    assert "have 2, 1 rows" in refused(net, "--check", "unequal.npz", "--force")
    assert "The input 'words' takes whole numbers, got fractions in 'fractions.npz'." in refused(
        net, "--check", "fractions.npz", "--force"
    )
    assert "is a table, and the model takes 'numbers' (any, 3)" in refused(
        net, "--check", _csv(np.ones((1, 5))), "--force"
    )


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.ones((7, 6)), "The input 'patients' takes shape (any, 5), got (7, 6) in 'rows.npy'."),
        (np.ones(5), "The input 'patients' takes shape (any, 5), got (5) in 'rows.npy'."),
        (np.ones((0, 5)), "'rows.npy' holds no rows. Give at least one."),
        (np.full((2, 5), "a"), "The model takes numbers, got values of type <U1 in 'rows.npy'."),
        (np.array([{}], object), "cannot be read as arrays of numbers: it is damaged, or holds Python objects."),
    ],
)
def test_rows_that_do_not_fit_are_one_sentence(array, sentence, net):
    assert sentence in refused(net, "--check", _npy(array))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.csv", "a,b\n1,2\n", "The input 'patients' takes shape (any, 5), got (1, 2) in 'rows.csv'."),
        ("rows.csv", "a,b,c,d,e\n1,2,x,4,5\n", "Column 'c' of 'rows.csv' is not numeric."),
        ("rows.csv", "a,b,c,d,e\n1,2,,4,5\n", "Column 'c' of 'rows.csv' has missing values."),
        ("rows.csv", "", "'rows.csv' is empty."),
        ("rows.npy", "no array", "'rows.npy' cannot be read as arrays of numbers"),
        ("rows.npz", "PK no archive", "'rows.npz' cannot be read as arrays of numbers"),
        ("rows.json", "{}", "'rows.json' has an unsupported format. Give the path of an .npy, .npz, .csv"),
    ],
)
def test_files_that_hold_no_rows_are_one_sentence(name, content, sentence, net):
    Path(name).write_text(content)

    assert sentence in refused(net, "--check", name)


def test_rows_that_are_not_there_are_one_sentence(net):
    assert refused(net, "--check", "none.npy").startswith("The file 'none.npy' does not exist.")
    assert refused(net, "--check", ".").startswith("'.' is a folder.")


def test_outputs_that_differ_are_a_fault_and_nothing_is_written(net, x, monkeypatch):
    other = randomized(loaded(net), seed=1)
    monkeypatch.setattr(model_compaction, "compact", lambda *_, **__: other)

    said = refused(net, "--check", _npy(x), exit_code=1)

    assert said.startswith("Internal error: on 'rows.npy' the outputs of the smaller model differ by ")
    assert "more than 0.0001. Nothing was written." in said


def test_outputs_may_differ_where_a_tolerance_is_given(net, x, monkeypatch):
    other = randomized(loaded(net), seed=1)
    monkeypatch.setattr(model_compaction, "compact", lambda *_, **__: other)

    result = poise("compact", net, "--check", _npy(x), "--tolerance", "1e-3", "--json")

    assert json.loads(result.stdout)["check"]["difference"] > 1e-2


@pytest.mark.parametrize(
    ("before", "after", "apart"),
    [
        ([2.0, -4.0], [2.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], np.inf),
        ([np.nan, np.inf, 2.0], [np.nan, np.inf, 1.0], 0.5),
        ([1.0, 2.0], [np.nan, 2.0], np.inf),
    ],
)
def test_the_difference_is_relative_to_the_largest_output(before, after, apart):
    assert model_compaction._relative_difference(np.array(before), np.array(after)) == apart


# ---------------------------------------------------------------- files


def test_an_existing_file_is_not_overwritten_without_force(net):
    Path("net-compact.keras").write_text("precious")

    assert refused(net) == "net-compact.keras already exists. Pass --force to overwrite it."
    assert poise("compact", net, "--force", "-q").exit_code == 0
    assert loaded("net-compact.keras").count_params() == 21


def test_the_output_is_checked(net):
    Path("folder.keras").mkdir()

    assert refused(net, "--out", "small.h5") == "--out must end in .keras, got 'small.h5'."
    assert refused(net, "--out", "folder.keras").startswith("--out must be a file, and 'folder.keras' is a folder.")
    assert refused(net, "--out", "net.keras/a.keras").startswith("'net.keras/a.keras' cannot be written: ")


def test_a_full_disk_leaves_nothing_half_written(net, monkeypatch):
    def full(self, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    monkeypatch.setattr(model_compaction, "compare_models", lambda *_: pd.DataFrame())

    assert refused(net) == (
        "'net-compact.keras' cannot be written: No space left on device. Free some disk space or choose another path."
    )


class Halving(layers.Layer):
    def call(self, x):
        return x / 2


def halved(x):
    return x / 2


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (Halving(), "needs the custom layer or function 'Halving'. Pass --import with the module that"),
        (layers.Dense(2, activation=halved), "needs the custom layer or function 'halved'."),
        (layers.Lambda(lambda x: x / 2), "holds Python code (a Lambda layer), which is not run by default."),
    ],
)
def test_a_layer_that_is_not_known_is_one_sentence(layer, sentence, net):
    keras.Sequential([keras.Input((3,)), layer]).save(net)

    assert sentence in refused(net)


def test_a_module_that_registers_it_is_imported(net, monkeypatch):
    source = """import keras

@keras.saving.register_keras_serializable("poise_own_halves")
class Halved(keras.layers.Layer):
    def call(self, x):
        return x / 2
"""
    scope: dict = {}
    exec(source, scope)
    keras.Sequential([keras.Input((3,)), layers.Dense(2), scope["Halved"]()]).save(net)
    keras.saving.get_custom_objects().pop("poise_own_halves>Halved")
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("poise_own_halves.py").write_text(source)

    assert "custom layer or function 'Halved'." in refused(net)
    assert poise("compact", net, "--import", "poise_own_halves").exit_code == 0


def test_a_file_that_is_not_a_model_is_one_sentence(net):
    Path("text.keras").write_text("no model")
    Path("short.keras").write_bytes(net.read_bytes()[:2000])
    with zipfile.ZipFile("other.keras", "w") as archive:
        archive.writestr("notes.txt", "no model")

    for name in ("text.keras", "short.keras"):
        assert refused(name) == f"{name!r} is not a Keras model, or it is damaged. Give a file that model.save wrote."
    assert refused("other.keras").startswith("'other.keras' cannot be read as a Keras model: ")
    assert refused("none.keras").startswith("The file 'none.keras' does not exist.")
    assert refused(".").startswith("'.' is a folder.")


def test_names_of_layers_do_not_steer_the_terminal(net):
    steering = "a\x1b[2J\x9bb\u202e"
    with zipfile.ZipFile(net) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1]["config"]["name"] = steering
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(net, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)

    for option in ((), ("--json", "--force")):
        result = poise("compact", net, *option)
        assert result.exit_code == 0, result.output
        assert not {"\x1b", "\x9b", "\u202e"} & {*result.output}
    assert json.loads(result.stdout)["layers"][0]["layer"] == steering


def test_a_model_that_would_fill_the_memory_is_one_sentence(net):
    with zipfile.ZipFile(net) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1]["config"]["units"] = 10**9
    with zipfile.ZipFile(net, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)

    assert "its layers need at least 5,000,000,000 weights" in refused(net)


def test_rows_that_declare_more_than_the_file_holds_are_one_sentence(net):
    with open("rows.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 5)})
        file.write(bytes(80))

    assert refused(net, "--check", "rows.npy") == (
        "'rows.npy' cannot be read as arrays of numbers: it declares an array of shape (1000000000, 5), 40 GB, and holds "
        "80 bytes. Write it with np.save or np.savez."
    )


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_model_that_cannot_be_compacted_has_a_reason(net):
    keras.Sequential([layers.Dense(3)], name="open").save(net)

    assert refused(net).startswith("The model 'open' is not built and has no weights yet.")


def test_tables_fit_a_narrow_terminal(net):
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, name="a_layer_with_a_rather_long_name")(inputs)
    keras.Model(inputs, layers.LayerNormalization(name="another_long_name")(hidden)).save(net)
    output = StringIO()
    screen = Console(width=80, file=output)

    screen.print(*describe_compaction(model_compaction.compact_file(net)), sep="\n")

    said = output.getvalue()
    assert max(map(len, said.splitlines())) <= 80
    assert " a_layer_with_a_rather_long_name       4      0   all stay:" in said
    assert "'another_long_name'" in said
