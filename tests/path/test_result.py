"""What is read from a path: its table, the choice of a strength, models, and folders, all from lanes made by hand."""

import json
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import poise
from poise.layer_state import state_of
from poise.path.result import RegularizationPath

from .by_hand import HIDDEN, model_of, path_of

NAMES = ("age", "<b>sex</b>", "income & rent", "déjà 🙂")


def count_traces(path) -> int:
    return len(path.plot().data)


def test_val_loss_is_the_mean_over_folds_of_the_mean_over_seeds() -> None:
    held = np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 5.0], [5.0, 7.0]], [[0.0, 1.0], [2.0, 2.0]]])

    table = path_of(held, strengths=(0.1, 1.0), n_init=2).table

    # Folds at the first strength: 2, 5, 1, so the mean is 8/3 and the variance 13/3; at the second 3, 6, 1.5.
    np.testing.assert_allclose(table["val_loss"], [8 / 3, 3.5])
    np.testing.assert_allclose(table["val_se"], [np.sqrt(13 / 9), np.sqrt(5.25 / 3)])


def test_the_table_takes_all_else_from_the_lane_of_the_model() -> None:
    path = path_of(n_init=2)
    lanes = path.lanes.table

    own = lanes[(lanes["fold"] == -1) & (lanes["seed"] == 0)].reset_index()
    columns = ["strength", "penalty", "zeros", "units", "residual", "settled"]
    pd.testing.assert_frame_equal(path.table[columns], own[columns])
    assert (path.table["seconds"] == 0.5 * len(path.lanes.table) / len(path.strengths)).all()
    np.testing.assert_array_equal(path.table["relative_residual"], own["residual"] / own["gradient"])
    np.testing.assert_array_equal(path.table["features"], [4, 3, 2])
    np.testing.assert_array_equal(path.table["zero_share"], own["zeros"] / (4 * HIDDEN + HIDDEN))
    training = lanes[lanes["fold"] >= 0].groupby(["strength", "fold"])["loss"].mean().groupby("strength")
    np.testing.assert_allclose(path.table["loss"], training.mean())
    np.testing.assert_allclose(path.table["loss_se"], training.sem())


def test_the_relative_residual_of_a_lane_without_forces_is_zero() -> None:
    path = path_of()
    lanes = path.lanes.table
    lanes["residual"] = np.where(lanes["strength"] > 0.01, lanes["residual"], 0.0)
    lanes["gradient"] = 0.0

    np.testing.assert_array_equal(path.table["relative_residual"], [0.0, np.inf, np.inf])


def test_the_table_is_a_copy() -> None:
    path = path_of()
    table, strengths = path.table, path.strengths
    table["val_loss"] = 0.0
    strengths[0] = 7.0

    assert (path.table["val_loss"] > 0).all()
    assert path.strengths[0] == 0.01


HELD = np.array([[4.0, 2.0, 2.0, 2.5, 9.0], [5.0, 3.0, 3.0, 3.5, 9.0], [6.0, 4.0, 4.0, 4.5, 9.0]])[:, None]
GRID = (0.0, 0.01, 0.1, 1.0, 10.0)


def test_best_is_the_largest_of_equal_minima_and_one_se_the_largest_within() -> None:
    path = path_of(HELD, strengths=GRID)

    assert path.best_strength == 0.1
    assert path.one_se_strength == 1.0  # 3.5 ≤ 3 + 1/√3
    np.testing.assert_allclose(path.best_between, np.sqrt(0.01 * 0.1))
    assert path.at(max_features=4) == 0.1
    assert path.at(max_features=1) == 1.0
    assert path.at(max_features=0) == 10.0


@pytest.mark.parametrize("lane", [(1, 0, 2), (-1, 0, 2)], ids=["of a fold", "of all rows"])
def test_a_strength_at_which_a_lane_diverged_is_never_chosen(lane) -> None:
    path = path_of(HELD, strengths=GRID, diverged=[lane])

    assert path.best_strength == 0.01
    assert path.table["diverged"].tolist() == [0, 0, 1, 0, 0]
    assert np.isnan(path.table["val_loss"][2]) == (lane[0] >= 0)


def test_a_path_of_lanes_that_all_diverged_can_be_read_but_not_chosen_from() -> None:
    path = path_of(diverged=[(0, 0, at) for at in range(3)])

    assert path.table["diverged"].tolist() == [1, 1, 1]
    assert repr(path).count("diverged") == 3
    assert "best" not in repr(path)
    for choose in (
        lambda: path.best_strength,
        lambda: path.best_between,
        lambda: path.one_se_strength,
        lambda: path.at(max_features=9),
    ):
        with pytest.raises(ValueError, match="At each of the 3 strengths, at least one training diverged"):
            choose()


def test_given_rows_are_a_single_fold_without_a_standard_error() -> None:
    path = path_of([[[3.0, 1.0, 2.0]]], cv=1, given_rows=True)

    assert path.best_strength == 0.1
    assert path.table[["val_se", "loss_se"]].isna().all(axis=None)
    assert len(path.weights(0.1)) == 8
    with pytest.raises(ValueError, match="needs at least two folds"):
        _ = path.one_se_strength
    assert "best" in repr(path)
    assert "one_se" not in repr(path)


def test_at_refuses_values_that_are_not_numbers_or_too_few() -> None:
    path = path_of()
    with pytest.raises(ValueError, match="No strength has at most 1 inputs; the smallest number is 2"):
        path.at(max_features=1)
    no_numbers: list[Any] = [True, 1.5, "2"]
    for wrong in no_numbers:
        with pytest.raises(TypeError, match="max_features must be an int >= 0"):
            path.at(max_features=wrong)


def test_features_are_positions_and_stability_counts_all_lanes() -> None:
    path = path_of(n_init=2, names=NAMES)
    read = path.lanes.features
    assert read is not None

    assert read.shape == (8, 3, 4)
    np.testing.assert_array_equal(path.features(0.1), np.flatnonzero(read[3, 1]))
    assert path.stability.index.tolist() == list(NAMES)
    assert path.stability.columns.tolist() == [0.01, 0.1, 1.0]
    np.testing.assert_allclose(path.stability.to_numpy(), read.mean(axis=0).T)


def test_stability_leaves_out_what_diverged() -> None:
    path = path_of(cv=2, diverged=[(0, 0, 1), *((fold, 0, 2) for fold in (0, 1, -1))])

    assert path.lanes.features is not None
    np.testing.assert_allclose(path.stability[0.1], path.lanes.features[1:, 1].mean(axis=0))
    assert path.stability[1.0].isna().all()
    assert path.stability.index.tolist() == [0, 1, 2, 3]


def test_what_inputs_are_read_is_not_guessed() -> None:
    path = path_of(knows_features=False)

    assert path.table["features"].isna().all()
    for ask in (lambda: path.features(0.1), lambda: path.stability, lambda: path.at(max_features=2)):
        with pytest.raises(ValueError, match="poise cannot determine which input features this model uses"):
            ask()


def test_every_input_needs_a_name() -> None:
    with pytest.raises(ValueError, match="names has 2 names, and the model has 4 inputs"):
        path_of(names=["a", "b"])


def test_model_is_a_plain_one_with_the_weights_of_its_strength(tmp_path) -> None:
    path = path_of(n_init=2)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")

    for strength in path.strengths:
        for seed in (0, 1):
            model = path.model(strength, seed=seed)
            at = path.strengths.tolist().index(strength)
            for weight, kept in zip(model.get_weights(), path.lanes.weights, strict=True):
                np.testing.assert_array_equal(weight, kept[seed, at])
        np.testing.assert_allclose(path.predict(strength, x), path.model(strength).predict(x, verbose=0), rtol=1e-6)
    model = path.model(path.strengths[-1], seed=1)
    assert not model.compiled
    model.save(tmp_path / "plain.keras")
    assert "poise" not in json.dumps(keras.saving.serialize_keras_object(model))


def test_training_a_model_leaves_the_path_as_it_was() -> None:
    path = path_of()
    before = path.predict(0.1, np.ones((1, 4)))

    path.weights(0.1)[0][:] = 0.0
    model = path.model(0.1)
    model.set_weights([np.zeros(weight.shape) for weight in model.weights])

    np.testing.assert_array_equal(path.predict(0.1, np.ones((1, 4))), before)


def test_seeds_that_were_not_trained_are_refused() -> None:
    with pytest.raises(ValueError, match="seed must be one of 0, 1, got 2"):
        path_of(n_init=2).model(0.1, seed=2)


@pytest.mark.parametrize("strength", [0.1, np.float32(0.1), 0.1 * (1 + 5e-7)])
def test_a_strength_is_found_despite_its_rounding(strength) -> None:
    path = path_of()
    np.testing.assert_array_equal(path.weights(strength)[0], path.weights(0.1)[0])


@pytest.mark.parametrize(
    ("strength", "near"),
    [(0.05, "0.01 and 0.1"), (0.1 * (1 + 3e-6), "0.1 and 1"), (0.001, "0.01 and 0.1"), (5.0, "0.1 and 1"), (0, "0.01")],
)
def test_a_strength_that_is_not_on_the_grid_is_refused_with_its_neighbors(strength, near) -> None:
    for read in (RegularizationPath.weights, RegularizationPath.model, RegularizationPath.features):
        with pytest.raises(ValueError, match=f"The strength .* is not on the grid; the nearest are {near}"):
            read(path_of(), strength)


def test_the_strength_zero_is_on_a_grid_that_has_it() -> None:
    path = path_of(strengths=(0.0, 1.0), cv=2)

    assert path.features(0).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="nearest are 0 and 1"):
        path.features(1e-12)


def test_values_that_are_not_strengths_are_refused() -> None:
    path = path_of()
    no_strengths: list[Any] = ["best", None, True]
    for wrong in no_strengths:
        with pytest.raises(TypeError, match="strength must be one of path.strengths"):
            path.model(wrong)
    with pytest.raises(ValueError, match="nan"):
        path.model(float("nan"))


def test_a_path_prints_as_a_short_table_with_its_marks() -> None:
    strengths = np.geomspace(1e-3, 1.0, 100)
    held = 1.0 + (np.arange(100) - 51.0) ** 2 / 1e4 + np.array([0.0, 0.02, 0.04])[:, None]
    path = path_of(held[:, None], strengths=strengths, inputs=120)

    lines = repr(path).splitlines()
    assert lines[0] == (
        "RegularizationPath of GroupLasso on first/kernel, L2 on head/kernel: 100 strengths × 3 folds × 1 seed, 1.5 s"
    )
    assert lines[1].split() == ["strength", "val_loss", "features", "zeros"]
    assert len(lines) == 2 + 12
    (best,) = [line for line in lines if "best" in line]
    assert best.split() == [
        "best",
        f"{path.best_strength:.4g}",
        "1.020",
        "±",
        "0.012",
        "69",
        f"{path.table.zero_share[51]:.1%}",
    ]
    assert sum("one_se" in line for line in lines) == 1


def test_a_path_in_a_notebook_shows_hostile_names_as_text() -> None:
    rule = poise.Rule("first/kernel", poise.L1(), name="<script>alert(1)</script>")

    page = path_of(rules=(rule,))._repr_html_()

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<tr") == 1 + 3


def adaptive() -> Any:
    """A path with two stages before it and a relaxed one, as `poise.fit_path` makes them."""
    first = path_of()
    second = path_of(HELD, strengths=GRID, stages=(first,))
    return path_of(
        HELD + 1.0,
        strengths=GRID,
        names=NAMES,
        n_init=2 - 1,
        stages=(first, second),
        relaxed=path_of(HELD, strengths=GRID),
    )


def test_a_path_shows_its_adaptive_stages() -> None:
    assert "× 1 seed, after 2 adaptive stages, 1.5 s" in repr(adaptive())
    assert "after 1 adaptive stage, " in repr(adaptive().stages[1])


def assert_same(a, b) -> None:
    pd.testing.assert_frame_equal(a.table, b.table, check_exact=True)
    pd.testing.assert_frame_equal(a.lanes.table, b.lanes.table, check_exact=True)
    assert a.lanes.sizes.keys() == b.lanes.sizes.keys()
    every = [*a.lanes.sizes.values(), *a.lanes.weights], [*b.lanes.sizes.values(), *b.lanes.weights]
    for each, other in zip(*every, strict=True):
        assert each.dtype == other.dtype
        np.testing.assert_array_equal(each, other)
    np.testing.assert_array_equal(a.lanes.features, b.lanes.features)
    assert (a.training, a.seconds, a.names) == (b.training, b.seconds, b.names)
    assert repr(a) == repr(b)
    assert [rule.get_config() for rule in a.rules] == [rule.get_config() for rule in b.rules]


def test_a_saved_path_comes_back_bit_for_bit(tmp_path) -> None:
    path = adaptive()
    # Numbers that decimal fractions of few digits do not hold.
    path.lanes.table["penalty"] = np.random.default_rng(2).random(len(path.lanes.table)) * 1e-300
    path.lanes.table["gradient"] = np.float32(0.1) + path.lanes.table["gradient"].astype("float32")
    path.lanes.table.loc[3, "residual"] = np.inf
    x = np.random.default_rng(1).normal(size=(7, 4)).astype("float32")

    path.save(tmp_path / "a" / "path")
    loaded = RegularizationPath.load(tmp_path / "a" / "path")

    assert_same(loaded, path)
    assert [len(stage.stages) for stage in loaded.stages] == [0, 1]
    for each, other in zip([*loaded.stages, loaded.relaxed], [*path.stages, path.relaxed], strict=True):
        assert_same(each, other)
    for strength in GRID:
        np.testing.assert_array_equal(loaded.predict(strength, x), path.predict(strength, x))
    assert loaded.one_se_strength == path.one_se_strength
    assert count_traces(loaded) == count_traces(path)


def test_a_folder_holds_neither_pickles_nor_leftovers(tmp_path) -> None:
    adaptive().save(tmp_path / "path")

    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*"))
    three = ["arrays.npz", "lanes.csv", "path.json"]
    folders = ["", "relaxed/", "stage-1/", "stage-2/"]
    expected = ["path", *(f"path/{folder}"[:-1] for folder in folders[1:])]
    assert files == sorted(expected + [f"path/{folder}{file}" for folder in folders for file in three])
    with np.load(tmp_path / "path" / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind != "O" for name in arrays)
    assert "PenalizedOptimizer" not in (tmp_path / "path" / "path.json").read_text()


def test_half_precision_weights_come_back_as_they_were(tmp_path) -> None:
    path = path_of()
    path.lanes.weights[0] = path.lanes.weights[0].astype("float16")
    path.lanes.weights[1] = path.lanes.weights[1].astype("bfloat16")

    path.save(tmp_path / "path")

    for each, other in zip(RegularizationPath.load(tmp_path / "path").lanes.weights, path.lanes.weights, strict=True):
        assert each.dtype == other.dtype
        np.testing.assert_array_equal(each.astype("float32"), other.astype("float32"))


def test_nothing_is_overwritten_unasked(tmp_path) -> None:
    first, second = path_of(), path_of(HELD, strengths=GRID)
    folder = tmp_path / "path"
    folder.mkdir()  # an empty folder is free
    first.save(folder)

    with pytest.raises(FileExistsError, match="already exists. Pass overwrite=True"):
        second.save(folder)
    assert_same(RegularizationPath.load(folder), first)

    second.save(folder, overwrite=True)
    assert_same(RegularizationPath.load(folder), second)
    assert [file.name for file in tmp_path.iterdir()] == ["path"]


def test_files_that_are_not_paths_are_never_overwritten(tmp_path) -> None:
    path, folder = path_of(), tmp_path / "work"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="already exists and is not a saved path. Use another folder"):
        path.save(folder, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file, and a path is saved as a folder"):
        path.save(folder / "thesis.txt", overwrite=True)

    path.save(tmp_path / "path")
    (tmp_path / "path" / "notes.txt").write_text("hours")
    with pytest.raises(FileExistsError, match="holds a path and also 'notes.txt', which would be deleted"):
        path.save(tmp_path / "path", overwrite=True)
    assert (folder / "thesis.txt").read_text() == "years"
    assert (tmp_path / "path" / "notes.txt").read_text() == "hours"


@pytest.mark.parametrize("call", ["savez", "to_csv", "rename"])
def test_a_save_that_is_cut_short_leaves_what_was_there(tmp_path, monkeypatch, call) -> None:
    first, second = path_of(), path_of(HELD, strengths=GRID)
    first.save(tmp_path / "path")
    calls, owner = [], {"savez": np, "to_csv": pd.DataFrame, "rename": type(tmp_path)}[call]
    genuine = getattr(owner, call)

    def failing(*arguments, **named) -> Any:
        calls.append(arguments)
        # The first renaming puts the old folder aside, and the third puts it back.
        if call != "rename" or len(calls) == 2:
            raise KeyboardInterrupt
        return genuine(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, call, failing)
        with pytest.raises(KeyboardInterrupt):
            second.save(tmp_path / "path", overwrite=True)

    assert_same(RegularizationPath.load(tmp_path / "path"), first)
    assert [file.name for file in tmp_path.iterdir()] == ["path"]


def test_a_rule_that_could_not_be_found_again_is_not_saved(tmp_path) -> None:
    def chosen(variable) -> bool:
        return True

    path = path_of(rules=(poise.Rule(chosen, poise.L1()),))
    with pytest.raises(
        ValueError, match="Rule 'chosen' cannot be saved, because Keras could not find its function again"
    ):
        path.save(tmp_path / "path")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_missing_or_foreign_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        RegularizationPath.load(tmp_path / "nowhere")
    for content in (None, "{", "[]", '{"format": "other", "version": 1}', '{"format": "poise path", "version": "1"}'):
        if content is not None:
            (tmp_path / "path.json").write_text(content)
        with pytest.raises(ValueError, match="is not a path saved by poise"):
            RegularizationPath.load(tmp_path)


def test_a_newer_format_asks_for_a_newer_poise(tmp_path) -> None:
    (tmp_path / "path.json").write_text('{"format": "poise path", "version": 99, "records": []}')
    with pytest.raises(
        ValueError, match="has the format version 99, but this version of poise reads versions up to 2. Update poise"
    ):
        RegularizationPath.load(tmp_path)


def _shorten(file) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _edit(file) -> None:
    file.write_text(file.read_text().replace("0.1", "0.2").replace('"first"', '"frost"'))


@pytest.mark.parametrize("part", ["", "stage-1"])
@pytest.mark.parametrize("name", ["arrays.npz", "lanes.csv", "path.json"])
@pytest.mark.parametrize("harm", [_shorten, _edit, lambda file: file.unlink()], ids=["shorter", "edited", "missing"])
def test_damage_is_noticed(tmp_path, part, name, harm) -> None:
    if name == "arrays.npz" and harm is _edit:
        harm = lambda file: file.write_bytes(file.read_bytes()[:-100] + bytes(100))  # noqa: E731
    adaptive().save(tmp_path / "path")

    harm(tmp_path / "path" / part / name)

    with pytest.raises(ValueError, match=r"is damaged"):
        RegularizationPath.load(tmp_path / "path")


def test_a_missing_stage_is_noticed(tmp_path) -> None:
    adaptive().save(tmp_path / "path")
    for file in (tmp_path / "path" / "relaxed").iterdir():
        file.unlink()
    (tmp_path / "path" / "relaxed").rmdir()

    with pytest.raises(ValueError, match="relaxed.* is not a path saved by poise, or its path.json is damaged"):
        RegularizationPath.load(tmp_path / "path")


def with_layer(layer) -> Any:
    """A path of a model that ends in the given layer."""
    path, model = path_of(), model_of(4)
    ending = keras.Sequential([keras.Input((4,)), *model.layers, layer], name="net")
    architecture = keras.saving.serialize_keras_object(ending)
    return RegularizationPath(
        path.lanes, architecture, state_of(ending), path.rules, path.training, 0.0, resolved=path.resolved
    )


def test_python_code_in_a_model_is_run_only_if_it_is_trusted(tmp_path) -> None:
    doubled = keras.layers.Lambda(lambda x: 2.0 * x, output_shape=(1,))
    path = with_layer(doubled)
    x = np.ones((2, 4))
    np.testing.assert_allclose(path.predict(0.1, x), 2.0 * path_of().predict(0.1, x), rtol=1e-6)

    path.save(tmp_path / "path")

    with pytest.raises(ValueError, match="The model of the path cannot be rebuilt: .*safe_mode=False"):
        RegularizationPath.load(tmp_path / "path")
    np.testing.assert_array_equal(
        RegularizationPath.load(tmp_path / "path", safe_mode=False).predict(0.1, x), path.predict(0.1, x)
    )


class Own(keras.layers.Layer):
    def call(self, x) -> Any:
        return 3.0 * x


def test_a_layer_that_cannot_be_found_is_named_when_the_path_is_loaded(tmp_path) -> None:
    with keras.saving.custom_object_scope({"Own": Own}):
        path = with_layer(Own(name="own"))
        path.save(tmp_path / "path")
        assert RegularizationPath.load(tmp_path / "path").model(0.1).layers[-1].name == "own"

    with pytest.raises(ValueError, match="The model of the path cannot be rebuilt: Could not locate class 'Own'"):
        RegularizationPath.load(tmp_path / "path")


def test_a_model_that_does_not_restore_itself_is_refused() -> None:
    path = path_of()
    other = model_of(5)
    architecture = keras.saving.serialize_keras_object(other)
    with pytest.raises(ValueError, match="with weights of the shapes .*5, 3.* instead of .*4, 3"):
        RegularizationPath(
            path.lanes, architecture, state_of(other), path.rules, path.training, 0.0, resolved=path.resolved
        ).model(path.best_strength)


SCRIPT = """
import sys, numpy as np
from poise.path.result import RegularizationPath
path = RegularizationPath.load(sys.argv[1])
np.save(sys.argv[2], path.predict(path.best_strength, np.load(sys.argv[3])))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_path_saved_on_one_backend_loads_on_another(tmp_path, backend, monkeypatch) -> None:
    path, x = path_of(), np.random.default_rng(1).normal(size=(7, 4)).astype("float32")
    path.save(tmp_path / "path")
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setenv("KERAS_BACKEND", backend)

    files = [str(tmp_path / name) for name in ("path", "out.npy", "x.npy")]
    subprocess.run([sys.executable, "-c", SCRIPT, *files], check=True)

    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), path.predict(path.best_strength, x), rtol=1e-5, atol=1e-6)
