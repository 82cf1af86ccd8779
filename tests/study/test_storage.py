"""The folder of a study: its content, that it is written completely or not at all, and its predictions."""

import contextlib
import errno
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

import jsonschema
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
from scipy.special import expit, softmax

from poise.files import take_lock
from poise.study import predictions, storage
from poise.study.columns.encoding import Encoder
from poise.study.description_file import FILES, read_description
from poise.study.errors import DataError
from poise.study.report.description import paths_table
from poise.study.report.schema import find_violation, schema
from poise.study.report.script import write_script
from poise.study.result import Study
from poise.study.run import run_study
from poise.study.storage import check_folder, write_study
from poise.study.tables import read

PAGE = "<!doctype html><title>ü</title>"


def rows(count=60) -> Any:
    """A table of numbers with gaps, a category and dates."""
    rng = np.random.default_rng(0)
    age = rng.normal(40, 10, count)
    frame = pd.DataFrame({
        "age": np.where(np.arange(count) % 9 == 4, np.nan, age),
        "color": np.array(["red", "green", "blue"])[np.arange(count) % 3],
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(count) * 11, unit="D"),
        "price": 1000 + 20 * age + rng.normal(0, 50, count),
    })  # fmt: skip
    return frame.astype({"color": object})


@pytest.fixture(scope="module")
def done() -> Any:
    return run_study(
        rows(), "price", penalties=["l2"], hidden_layer_sizes=(4,), cv=2, strengths=3, max_iter=20
    ).findings


@pytest.fixture(autouse=True)
def a_light_page(monkeypatch) -> None:
    """The report has its own tests."""
    monkeypatch.setattr(storage, "render_page", lambda study, folder: PAGE)


@pytest.fixture
def folder(done, tmp_path) -> Any:
    write_study(done, tmp_path / "run")
    return tmp_path / "run"


def test_a_saved_study_is_five_files(done, tmp_path) -> None:
    report = write_study(done, tmp_path / "runs" / "run")

    assert report == tmp_path / "runs" / "run" / "report.html"
    assert report.read_text(encoding="utf-8") == PAGE
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["run"]
    assert {each.name for each in report.parent.iterdir()} == set(FILES)


def test_study_json_matches_its_schema(folder) -> None:
    result = json.loads((folder / "study.json").read_text(encoding="utf-8"))

    jsonschema.Draft202012Validator.check_schema(schema())
    assert find_violation(result) == ""


def test_study_json_holds_what_was_found(done, folder) -> None:
    result = read_description(folder)

    assert result["data"] | {"digest": ""} == {
        "name": done.table.name, "source": done.table.source, "target": "price", "targets": ["price"],
        "task": "regression", "task_title": "regression", "classes": [], "task_reason": "numbers",
        "columns": [
            {**vars(column), "ignored_texts": list(column.ignored_texts)} for column in done.table.columns
        ],
        "event": None, "groups": None, "time": None, "weight": None, "offset": None, "exposure": None, "decimal": ".",
        "notes": list(done.table.notes), "digest": "",
    }  # fmt: skip
    assert {"training": 48, "test": 12}.items() <= result["rows"].items()
    assert result["settings"]["penalties"] == ["l2"]
    assert result["settings"]["hidden_layer_sizes"] == [4]
    for each in result["candidates"]:
        row = done.results.loc[each["candidate"]]
        assert [each[name] for name in row.index] == [None if value != value else value for value in row]
    assert result["candidates"][0]["gain"] is None
    assert result["candidates"][1]["selected"] == ["age", "color", "since"]
    assert result["candidates"][1]["stability"] == {"age": 1.0, "color": 1.0, "since": 1.0}
    assert (result["chosen"], result["selector"], len(result["answer"])) == ("l2", None, 3)
    assert (result["center"], result["scale"]) == (done.center, done.scale)
    assert result["inputs"] == list(done.encoder.inputs)
    assert result["versions"]["keras"] == keras.__version__


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda result: result.pop("candidates"), "'candidates' is a required property"),
        (lambda result: result["candidates"][1].pop("strength"), "candidates[1]: 'strength' is a required property"),
        (
            lambda result: result["candidates"][1].update(strength=None),
            "candidates[1].strength: None is not of type 'number'",
        ),
        (lambda result: result.update(candidates=[]), "candidates: [] should be non-empty"),
        (
            lambda result: result["data"].update(task="ranking"),
            "data.task: 'ranking' is not one of ['regression', 'binary'",
        ),
        (lambda result: result["rows"].update(test=0), "rows.test: 0 is less than the minimum of 1"),
        (lambda result: result["rows"].update(test=True), "rows.test: True is not of type 'integer'"),
        (lambda result: result.update(another=1), "Additional properties are not allowed ('another' was unexpected)"),
        (lambda result: result["files"].update(model=3), "files.model: 3 is not of type 'string'"),
        (
            lambda result: result.update(version=99),
            "has format version 99, but this version of poise reads 6. Update poise.",
        ),
        (
            lambda result: result.update(version=1),
            "has format version 1, but this version of poise reads 6. Run the study again.",
        ),
        (lambda result: result.update(format="poise path"), "holds no saved study: study.json has another format"),
    ],
)
def test_a_study_json_that_violates_the_schema_is_refused(damage, said, folder) -> None:
    result = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    damage(result)
    (folder / "study.json").write_text(json.dumps(result))

    with pytest.raises(DataError) as caught:
        Study.load(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_table_is_that_of_all_paths(done, folder) -> None:
    table = pd.read_parquet(folder / "table.parquet")

    for each in done.candidates:
        own = table[table["candidate"] == each.name]
        pd.testing.assert_frame_equal(own[each.path.table.columns].reset_index(drop=True), each.path.table)
        assert own["strength"][own["predicts"]].tolist() == [each.strength]
        assert own["strength"][own["selects"]].tolist() == [each.selection_strength]
    assert table["stage"].eq(1).all()


def test_adaptive_stages_follow_each_other_in_the_table(diabetes_study) -> None:
    each = diabetes_study["adaptive"]

    table = paths_table(diabetes_study)

    rows = table[table["candidate"] == "adaptive"]
    assert rows["stage"].tolist() == [number for number, stage in enumerate(each.stages, 1) for _ in stage.strengths]
    [predicting] = rows["stage"][rows["predicts"]]
    [selecting] = rows["stage"][rows["selects"]]
    assert each.stages[predicting - 1] is each.stage
    assert selecting == len(each.stages) == 3


# ---------------------------------------------------------------- predictions


def test_a_saved_run_predicts_as_its_network_does(done, folder) -> None:
    frame = rows()

    predicted = Study.load(folder).predict(frame)

    outputs = done.best.model.predict(done.encoder.transform(done.table.features), verbose=0)[:, 0]
    assert list(predicted.columns) == ["price"]
    np.testing.assert_allclose(predicted["price"], outputs.astype("float64") * done.scale + done.center, rtol=1e-6)


def test_how_a_file_was_read_is_kept_and_holds_for_new_rows(tmp_path) -> None:
    codes = np.array(["007", "7", "010"])[np.arange(60) % 3]
    size = np.random.default_rng(0).normal(size=60)
    lines = [
        f"{code},{x:.3f},{3 * x + len(code):.3f},{n}# row {n}"
        for n, (code, x) in enumerate(zip(codes, size, strict=True))
    ]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join(["Report of sales", "", "code,size,price,day", *lines]))
    options: dict[str, Any] = {"skip_rows": 2, "comment": "#", "types": {"code": "text", "day": "drop"}}

    study = run_study(path, "price", **options, penalties=[], cv=2, max_iter=2, hidden_layer_sizes=(2,))
    study.save(tmp_path / "run")

    loaded = Study.load(tmp_path / "run")
    assert options.items() <= loaded.description["settings"].items()
    assert loaded.description["inputs"] == ["size", "code=007", "code=010", "code=7"]
    predicted = loaded.predict(path)
    frame = pd.DataFrame({"code": codes, "size": size.round(3)})
    pd.testing.assert_frame_equal(predicted, loaded.predict(frame))
    frame.to_csv(tmp_path / "new.csv", index=False)
    pd.testing.assert_frame_equal(predicted, loaded.predict(tmp_path / "new.csv", skip_rows=0))
    written = "types={'code': 'text', 'day': 'drop'}, skip_rows=2, comment=\"#\")"
    assert written in write_script(study.findings)


def test_tables_of_other_libraries_are_predicted_too(folder) -> None:
    study, frame = Study.load(folder), rows()

    pd.testing.assert_frame_equal(study.predict(pa.Table.from_pandas(frame)), study.predict(frame))


def test_order_and_further_columns_do_not_matter(folder) -> None:
    run, frame = Study.load(folder), rows()
    others = frame[["price", "since", "color", "age"]].assign(surplus="x").set_index(np.arange(60)[::-1])

    predicted = run.predict(others)

    np.testing.assert_array_equal(predicted["price"], run.predict(frame)["price"])
    assert predicted.index.tolist() == others.index.tolist()


def test_the_number_of_rows_does_not_matter(folder) -> None:
    run, frame = Study.load(folder), rows(1500)

    predicted = run.predict(frame)["price"]

    for part in (slice(0, 1), slice(3, 10), slice(1000, 1100), slice(40, 1500)):
        np.testing.assert_array_equal(run.predict(frame[part])["price"], predicted[part])


def test_a_new_category_is_predicted_and_a_gap_filled(folder) -> None:
    frame = rows().head(3).assign(color=np.array(["mauve", None, "red"], object), age=[np.nan, 1e9, 40.0])

    assert np.isfinite(Study.load(folder).predict(frame)["price"]).all()


def test_no_rows_give_no_predictions(folder) -> None:
    predicted = Study.load(folder).predict(rows().head(0))

    assert list(predicted.columns) == ["price"]
    assert len(predicted) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="age"), "'age'"),
        (lambda frame: frame.rename(columns={"age": "Age"}), "'Age'"),
        (lambda frame: frame.assign(age="old"), "'age'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_a_sentence(change, said, folder) -> None:
    change(rows()).to_csv(folder / "new.csv", index=False)
    with pytest.raises(DataError) as caught:
        Study.load(folder).predict(folder / "new.csv")

    assert said in str(caught.value)
    assert "new.csv" in str(caught.value)


def classifying(task, classes, outputs) -> Any:
    """A run with a network of random weights, and the outputs of that network for the rows."""
    table = read(rows(), "price")
    encoder = Encoder(table.columns).fit(table.features)
    activation = "exponential" if task == "counts" else None
    layer = keras.layers.Dense(outputs, activation, bias_initializer="glorot_normal")
    model = keras.Sequential([keras.Input((len(encoder.inputs),)), layer])
    columns = [vars(column) for column in table.columns]
    data = {"task": task, "classes": classes, "target": "kind", "targets": ["kind"], "columns": columns}
    needed = {"inputs": encoder.inputs, "needed_columns": [*table.features], "settings": {"missing": None}}
    study = Study({"data": data, "center": 0.0, "scale": 1.0, **needed}, model, encoder)
    return study, model.predict(encoder.transform(table.features), verbose=0).astype("float64")


def test_two_classes_are_predicted_with_probabilities() -> None:
    run, logits = classifying("binary", ["no", "yes"], 1)

    predicted = run.predict(rows())

    assert list(predicted.columns) == ["kind", "probability of no", "probability of yes"]
    np.testing.assert_allclose(predicted["probability of yes"], expit(logits[:, 0]), rtol=1e-6)
    np.testing.assert_allclose(predicted["probability of no"], 1 - expit(logits[:, 0]), rtol=1e-6)
    assert predicted["kind"].tolist() == np.where(logits[:, 0] > 0, "yes", "no").tolist()


def test_many_classes_are_predicted_with_probabilities() -> None:
    run, logits = classifying("multiclass", ["a", "b", "c"], 3)

    predicted = run.predict(rows())

    assert list(predicted.columns) == ["kind", *(f"probability of {label}" for label in "abc")]
    np.testing.assert_allclose(predicted.iloc[:, 1:], softmax(logits, axis=1), rtol=1e-6)
    assert predicted["kind"].tolist() == np.array(["a", "b", "c"])[logits.argmax(axis=1)].tolist()


def test_counts_are_predicted_by_their_mean() -> None:
    run, means = classifying("counts", [], 1)

    np.testing.assert_allclose(run.predict(rows())["kind"], means[:, 0], rtol=1e-6)


def test_the_network_loads_where_poise_is_missing(done, folder) -> None:
    x = done.encoder.transform(done.table.features)
    np.save(folder.parent / "x.npy", x)
    script = f"""
import sys
sys.modules["poise"] = None
import keras, numpy as np
model = keras.saving.load_model({str(folder / "model.keras")!r})
np.save("y.npy", model.predict(np.load("x.npy"), verbose=0))
"""

    subprocess.run([sys.executable, "-c", script], cwd=folder.parent, check=True, capture_output=True)

    expected = done.best.model.predict(x, verbose=0)
    np.testing.assert_allclose(np.load(folder.parent / "y.npy"), expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["model.keras", "preprocessing.skops", "study.json"])
def test_missing_or_damaged_files_are_named(name, folder) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"is damaged: .*{name}"):
        Study.load(folder)

    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        Study.load(folder)


@pytest.mark.parametrize("name", ["model.keras", "preprocessing.skops"])
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_file_is_refused_though_its_checksum_fits(name, content, folder) -> None:
    (folder / name).write_bytes(content)
    _sign(folder)

    with pytest.raises(DataError, match=rf"{name}") as caught:
        Study.load(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_or_study_is_reported(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Study.load(tmp_path / "none")
    with pytest.raises(DataError, match="holds no saved study: study.json is missing"):
        Study.load(tmp_path)


class Foreign:
    """Not on the list."""


@pytest.mark.parametrize("content", [Foreign(), {"a": Foreign()}, os.path.join])
def test_only_listed_types_are_built(content, folder) -> None:
    skops.io.dump(content, folder / "preprocessing.skops")
    _sign(folder)

    with pytest.raises(
        DataError,
        match="not loaded, because it needs types that poise does not trust: Untrusted types found.*or run the study again",
    ):
        Study.load(folder)


def test_another_trusted_object_is_not_an_encoder(folder) -> None:
    skops.io.dump([1, 2], folder / "preprocessing.skops")
    _sign(folder)

    with pytest.raises(DataError, match=r"preprocessing.skops holds list"):
        Study.load(folder)


def test_python_code_in_a_network_is_refused(folder) -> None:
    layer = keras.layers.Lambda(lambda x: x)
    keras.Sequential([keras.Input((10,)), layer, keras.layers.Dense(1)]).save(folder / "model.keras")
    _sign(folder)

    with pytest.raises(DataError, match="cannot be rebuilt: .* use safe_mode=False"):
        Study.load(folder)
    assert Study.load(folder, safe_mode=False).model.count_params() == 11


def network(inputs, outputs, **config) -> keras.Model:
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(outputs, **config)])


def two_inputs() -> keras.Model:
    inputs = [keras.Input((10,)), keras.Input((10,))]
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Add()(inputs)))


@pytest.mark.parametrize(
    ("model", "taken", "arguments"),
    [
        (lambda: network(9, 1), "(any, 9)", "(any, 1)"),
        (lambda: network(10, 2), "(any, 10)", "(any, 2)"),
        (lambda: keras.Sequential([keras.Input((10, 10)), keras.layers.Dense(1)]), "(any, 10, 10)", "(any, 10, 1)"),
        (two_inputs, "(any, 10), (any, 10)", "(any, 1)"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(model, taken, arguments, folder) -> None:
    model().save(folder / "model.keras")
    _sign(folder)

    with pytest.raises(DataError) as caught:
        Study.load(folder)
    assert (
        f"the network takes {taken} and returns {arguments}, and by study.json it takes (any, 10) and returns (any, 1)"
    ) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda result: result["data"].update(classes=["a", "b"]), "2 classes do not fit the task regression"),
        (lambda result: result["data"].update(task="multiclass"), "0 classes do not fit the task multiclass"),
        (
            lambda result: result["data"].update(task="binary", classes=["a", "a"]),
            "2 classes do not fit the task binary",
        ),
        (
            lambda result: result["data"].update(task="multiclass", classes=["a", "b", "c"]),
            "by study.json it takes (any, 10) and returns (any, 3)",
        ),
        (lambda result: result["inputs"].reverse(), "study.json and preprocessing.skops name different inputs"),
        (lambda result: result["inputs"].append("b"), "study.json and preprocessing.skops name different inputs"),
        (lambda result: result["inputs"].pop(), "by study.json it takes (any, 9) and returns (any, 1)"),
        (lambda result: result["needed_columns"].append("b"), "preprocessing.skops name different columns"),
        (lambda result: result.update(saved="l3"), "saved is 'l3', which is not a candidate"),
        (lambda result: result["data"]["columns"][0].update(name="b"), "preprocessing.skops name different columns"),
        (
            lambda result: result["data"]["columns"][0].update(kind="set aside"),
            "preprocessing.skops name different columns",
        ),
        (lambda result: result.update(chosen="l3"), "chosen is 'l3', which is not a candidate"),
        (lambda result: result.update(selector="l3"), "selector is 'l3', which is not a candidate"),
        (lambda result: result.update(scale=10**400), "scale: it violates 'maximum'"),
        (lambda result: result.update(center=float("inf")), "it is not JSON"),
    ],
)
def test_a_study_json_that_does_not_fit_the_network_is_refused(change, said, folder) -> None:
    result = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    change(result)
    _sign(folder, **result)

    with pytest.raises(DataError) as caught:
        Study.load(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_single_changed_number_in_study_json_is_found(folder) -> None:
    text = (folder / "study.json").read_text(encoding="utf-8")
    result = json.loads(text)
    (folder / "study.json").write_text(json.dumps(result))
    assert read_description(folder) == result

    (folder / "study.json").write_text(json.dumps(result | {"scale": result["scale"] + 1e-9}))
    with pytest.raises(DataError, match=r"is damaged: study\.json has changed since it was saved"):
        read_description(folder)


def test_a_network_that_cannot_predict_is_one_sentence(folder, monkeypatch) -> None:
    run = Study.load(folder)

    def predict(*_, **__) -> Never:
        raise RuntimeError("shapes differ\nin detail")

    monkeypatch.setattr(predictions, "predict_outputs", predict)
    with pytest.raises(DataError, match=r"cannot predict these rows: shapes differ\."):
        run.predict(rows())


def test_damage_anywhere_raises_nothing_else(folder) -> None:
    """Truncated and flipped files, some with checksums that fit."""
    rng = np.random.default_rng(0)
    whole = {name: (folder / name).read_bytes() for name in ("model.keras", "preprocessing.skops", "study.json")}
    description = whole["study.json"]
    for number in range(60):
        name = [*whole][number % 3]
        content = bytearray(whole[name])
        if number % 4:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        else:
            del content[rng.integers(len(content)) :]
        (folder / name).write_bytes(content)
        if name != "study.json" and number % 2:
            _sign(folder)
        with contextlib.suppress(DataError):  # a flipped bit may lie where nothing is
            Study.load(folder)
        (folder / name).write_bytes(whole[name])
        (folder / "study.json").write_bytes(description)


def _sign(folder, **changed) -> None:
    """As if study.json had been written with the files that are there now."""
    result = json.loads((folder / "study.json").read_text(encoding="utf-8")) | changed
    result["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in result["files"]}
    result.pop("checksum")
    result["checksum"] = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
    (folder / "study.json").write_text(json.dumps(result))


# ---------------------------------------------------------------- the place


def content_of(folder) -> Any:
    return {str(each.relative_to(folder)): each.is_file() and each.read_bytes() for each in folder.rglob("*")}


def test_checking_leaves_no_trace(tmp_path) -> None:
    check_folder(tmp_path / "a" / "b" / "c")

    assert content_of(tmp_path) == {}


def test_an_empty_folder_takes_a_study(done, tmp_path) -> None:
    (tmp_path / "run").mkdir()

    write_study(done, tmp_path / "run")

    assert {each.name for each in (tmp_path / "run").iterdir()} == set(FILES)


@pytest.mark.parametrize(
    "act", [lambda done, *place, **how: check_folder(*place, **how), write_study], ids=["check", "save"]
)
class TestWhatIsThere:
    def test_a_study_is_replaced_only_on_request(self, act, done, folder) -> None:
        before = content_of(folder)
        with pytest.raises(FileExistsError, match="already exists. Pass overwrite=True to replace it."):
            act(done, folder)
        assert content_of(folder) == before

        act(done, folder, overwrite=True)
        assert {each.name for each in folder.iterdir()} == set(FILES)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_something_else_is_not_touched(self, act, overwrite, done, tmp_path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("precious")

        with pytest.raises(FileExistsError, match="is not empty and holds no saved study"):
            act(done, tmp_path / "run", overwrite=overwrite)
        assert content_of(tmp_path / "run") == {"thesis.tex": b"precious"}

    def test_another_file_in_the_folder_is_not_touched(self, act, done, folder) -> None:
        (folder / "thesis.tex").write_text("precious")

        with pytest.raises(FileExistsError, match="holds a study and also 'thesis.tex', which would be deleted"):
            act(done, folder, overwrite=True)
        assert (folder / "thesis.tex").read_text() == "precious"

    def test_a_file_is_not_a_folder(self, act, done, tmp_path) -> None:
        (tmp_path / "file").write_text("")

        with pytest.raises(FileExistsError, match="is a file; a study is saved as a folder"):
            act(done, tmp_path / "file")
        with pytest.raises(OSError, match="cannot be written: Not a directory"):
            act(done, tmp_path / "file" / "run")

    def test_a_folder_without_permission_is_reported(self, act, done, tmp_path) -> None:
        tmp_path.chmod(0o500)
        with _nobody(), pytest.raises(OSError, match="cannot be written: Permission denied"):
            act(done, tmp_path / "run")
        tmp_path.chmod(0o700)
        assert content_of(tmp_path) == {}


@pytest.mark.parametrize("failing", ["render_page", "paths_table", "describe"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_all_as_it_was(failing, error, done, folder, monkeypatch) -> None:
    before = content_of(folder.parent)

    def fails(*_: Any) -> Never:
        raise error

    monkeypatch.setattr(storage, failing, fails)
    with pytest.raises(type(error)) as caught:
        write_study(done, folder, overwrite=True)

    assert content_of(folder.parent) == before
    if isinstance(error, OSError):
        assert str(caught.value) == (
            f"'{folder}' cannot be written: No space left on device. Free some disk space or choose another path."
        )


def test_a_swap_that_fails_brings_the_old_run_back(done, folder, monkeypatch) -> None:
    before, rename = content_of(folder.parent), Path.rename

    def once(self, target) -> Any:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(OSError, match="Input/output error"):
        write_study(done, folder, overwrite=True)
    monkeypatch.undo()

    assert content_of(folder.parent) == before


def _left(target, **inside) -> Any:
    """What a save that was killed left beside a target."""
    beside = target.with_name(f".{target.name}.saving-abc")
    beside.mkdir()
    (beside / "lock").write_text(target.name)
    for name, folder in inside.items():
        folder.rename(beside / name) if folder else (beside / name).mkdir()
    return beside


@pytest.mark.parametrize("act", [lambda done, folder: check_folder(folder), write_study], ids=["check", "save"])
def test_what_a_killed_save_left_is_cleared_by_the_next(act, done, tmp_path) -> None:
    beside = _left(tmp_path / "run", new=None)
    (beside / "new" / "model.keras").write_bytes(b"half")
    stranger = tmp_path / ".run.saving-mine"
    stranger.mkdir()

    act(done, tmp_path / "run")

    assert not beside.exists()
    assert stranger.exists()


def test_what_a_running_save_writes_is_not_touched(done, tmp_path) -> None:
    beside = _left(tmp_path / "run", new=None)
    other = _left(tmp_path / "run2", new=None)

    lock = take_lock(beside / "lock")
    assert lock is not None
    with lock:
        write_study(done, tmp_path / "run")
        assert (beside / "new").exists()
    assert (other / "new").exists()


def test_a_run_that_a_killed_save_had_moved_away_comes_back(done, folder) -> None:
    before = content_of(folder)
    beside = _left(folder, old=folder, new=None)

    with pytest.raises(FileExistsError, match="already exists"):
        check_folder(folder)

    assert not beside.exists()
    assert content_of(folder) == before


def test_a_killed_process_leaves_no_lock(tmp_path) -> None:
    locking = "import os, sys; from poise.files import take_lock; l = take_lock(sys.argv[1]); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", locking, str(tmp_path / "lock")])

    lock = take_lock(tmp_path / "lock")
    assert lock is not None
    with lock:
        assert take_lock(tmp_path / "lock") is None
    assert take_lock(tmp_path / "lock", create=False) is not None
    assert take_lock(tmp_path / "none", create=False) is None


@pytest.mark.parametrize("size", [4, 64, 200])
def test_a_full_disk_is_one_sentence_and_nothing_half_written(size, done, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(storage, "render_page", lambda study, folder: "x" * 300_000)

    sentence = r"^.* cannot be written: .*\. (Free some disk space or choose|Choose) another path\.$"
    with _little_room(tmp_path, size), pytest.raises(OSError, match=sentence):
        write_study(done, tmp_path / "run")

    assert content_of(tmp_path) == {}


@contextlib.contextmanager
def _little_room(folder, kilobytes) -> Iterator[Any]:
    """A small file system in the folder; where none can be mounted, no file can be larger."""
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") and not subprocess.run(["mount", *options], capture_output=True).returncode:
        try:
            yield
            assert content_of(folder) == {}
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def _nobody() -> Iterator[Any]:
    """As who owns nothing, where the tests are run by who may do anything."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)
