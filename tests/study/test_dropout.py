"""Dropout as a candidate of a study."""

import io
import json
from contextlib import redirect_stdout
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import poise
from poise.study.candidates.dropout import LEFT_OUT_NOTE, add_dropout, dropout_rates
from poise.study.candidates.network import build_network
from poise.study.candidates.penalties import DEFAULT_PENALTIES
from poise.study.errors import DataError
from poise.study.report.script import write_script
from poise.study.result import Study
from poise.study.run import run_study
from poise.study.tasks.table import make_task
from poise.study.verdict import choose_candidate

SMALL: dict[str, Any] = {"max_iter": 60, "strengths": 8, "cv": 2, "hidden_layer_sizes": (16, 4)}


@pytest.fixture(scope="module")
def study() -> Study:
    return run_study("diabetes", penalties=["l2", "dropout"], choose="dropout", **SMALL)


def tiny_model(inputs: int, outputs: int) -> keras.Model:
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(outputs)])


# ---------------------------------------------------------------- the network and its rates


def test_rates_are_evenly_spaced() -> None:
    assert dropout_rates(13).tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert dropout_rates(4).tolist() == [0.1, 0.7]
    assert dropout_rates(1).tolist() == [0.1]


def test_the_network_starts_from_the_same_weights_with_dropout_after_each_hidden_layer() -> None:
    network = build_network(3, 2, (5, 4), make_task("multiclass"))
    network.compile(keras.optimizers.Adam(0.02), make_task("multiclass").make_loss())

    model = add_dropout(network, seed=2**32 - 1)

    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Dense", "LaneDropout", "Dense", "LaneDropout", "Dense"]
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(model(x), network(x))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)
    assert len({model.layers[1].seed, model.layers[3].seed}) == 2


# ---------------------------------------------------------------- the study


def test_the_rate_with_the_lowest_held_out_loss_is_chosen(study) -> None:
    candidate = study["dropout"]
    table = candidate.path.table
    assert table["strength"].tolist() == [0.1, 0.3, 0.5, 0.7]
    assert candidate.strength == table["strength"][table["val_loss"].idxmin()]
    assert study.chosen == "dropout"
    assert study.results.loc["dropout", "penalty"] == 0.0


def test_dropout_competes_with_the_penalties() -> None:
    result = run_study("diabetes", penalties=["l2", "dropout"], **SMALL)
    losses = result.results["val_loss"]
    assert [*result.results.index] == ["none", "full_training", "l2", "dropout"]
    findings: Any = result.findings
    candidates = [findings["l2"], findings["dropout"]]
    choice = choose_candidate([candidate.held_out for candidate in candidates])
    assert result.description["verdict"]["judged"] == candidates[choice].name
    assert len({losses["dropout"], losses["l2"], losses["none"]}) == 3
    assert result.selected_columns is None  # neither of the two selects columns


def test_the_saved_model_is_plain_and_predicts_the_same(study, tmp_path) -> None:
    study.save(tmp_path / "study")
    loaded = Study.load(tmp_path / "study")
    model = keras.saving.load_model(tmp_path / "study" / "model.keras", custom_objects={})

    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    rates = [layer.rate for layer in study.best.model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == pytest.approx([study.best.strength] * 2)
    frame = loaded.predict("diabetes")
    np.testing.assert_allclose(frame.to_numpy(), study.predict("diabetes").to_numpy(), rtol=1e-5)
    assert np.isfinite(frame.to_numpy()).all()


@pytest.mark.parametrize("sizes", [(16, 4), (8,)])
def test_the_script_trains_the_same_network(sizes, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = run_study("wine", penalties=["dropout"], choose="dropout", **{**SMALL, "hidden_layer_sizes": sizes})
    study.save("runs/wine")
    script, scope = write_script(study.findings), dict[str, Any]()

    with redirect_stdout(io.StringIO()):
        exec(script, scope)

    assert script.startswith(f"# wine: Dropout at rate {study.best.strength:.3g}\n")
    assert script.count(f"keras.layers.Dropout({study.best.strength}, seed=") == len(sizes)
    assert "LaneDropout" not in script
    assert "rules" not in script
    ours = study.best.model.predict(scope["x"], verbose=0)
    np.testing.assert_allclose(scope["model"].predict(scope["x"], verbose=0), ours, atol=1e-3 * np.ptp(ours))
    assert scope["loss"] == pytest.approx(study.best.loss, rel=1e-4)


def test_a_new_process_gives_the_same_bits(study) -> None:
    other = run_study("diabetes", penalties=["dropout"], choose="dropout", executor="subprocess", **SMALL)
    for ours, theirs in zip(study.best.path.lanes.weights, other.best.path.lanes.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_description_has_the_rate(study) -> None:
    content = json.loads(json.dumps(study.description))
    (candidate,) = (each for each in content["candidates"] if each["candidate"] == "dropout")
    assert (candidate["title"], candidate["strength"]) == ("Dropout", study.best.strength)
    assert content["settings"]["penalties"] == ["l2", "dropout"]
    assert content["verdict"]["outcome"] in ("helps", "hurts", "unclear")
    assert content["verdict"]["judged"] == "dropout"


def test_sentences_speak_of_a_rate_and_of_dropout(study) -> None:
    verdict, _, certainty = study.answer
    assert verdict.startswith("Dropout, chosen by request, ")
    assert " with early stopping alone." in verdict
    assert " without dropout and " in verdict
    assert certainty.startswith("The chosen rate of dropout is ")
    assert "converge" not in certainty
    assert f"Dropout at rate {study.best.strength:.2g}: R²" in repr(study)
    assert "Dropout *" in study._repr_html_()


def test_the_report_claims_nothing_about_a_penalty_of_dropout(study, tmp_path) -> None:
    page = study.save(tmp_path / "study").read_text(encoding="utf-8")
    assert "The strength of dropout is its rate." in page
    assert "the penalty adds" not in page
    assert "holds the saved network: dropout at rate " in " ".join(page.split())
    assert "It trains the network with dropout again" in page
    assert "Dropout (sets random hidden units to zero in training)" in page
    assert "It is computed without dropout" in page


def test_only_ratios_of_weights_count_and_every_initialization_has_its_own_lanes() -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(60, 3)), columns=["a", "b", "y"]).assign(w=random.uniform(1, 2, 60))
    settings = {**SMALL, "max_iter": 4, "n_init": 2, "penalties": ["dropout"], "weight": "w"}

    first = run_study(table, "y", **settings)
    scaled = run_study(table.assign(w=64 * table["w"]), "y", **settings)
    unweighted = run_study(table.drop(columns="w"), "y", **{**settings, "weight": None})

    pd.testing.assert_frame_equal(first.results.drop(columns="seconds"), scaled.results.drop(columns="seconds"))
    assert first.results["val_loss"]["dropout"] != unweighted.results["val_loss"]["dropout"]
    lanes = first["dropout"].path.lanes.table
    lanes = lanes[(lanes["strength"] == 0.1) & (lanes["fold"] >= 0)]
    assert lanes.groupby("fold")["held_loss"].nunique().tolist() == [2, 2]


def test_hidden_layers_may_be_an_array() -> None:
    study = run_study("wine", hidden_layer_sizes=np.array([3]), max_iter=2, strengths=3, cv=2)  # type: ignore[arg-type]
    assert study.description["settings"]["hidden_layer_sizes"] == [3]
    assert "dropout" in study.results.index


def test_a_report_of_dropout_only_has_nothing_that_selects_columns(tmp_path) -> None:
    study = run_study("diabetes", penalties=["dropout"], **{**SMALL, "max_iter": 4})
    page = study.save(tmp_path / "study").read_text(encoding="utf-8")
    sections = page[page.index("<main") : page.rindex("</main>")]
    assert "Dropout" in sections
    assert "iamond" not in sections


# ---------------------------------------------------------------- networks without dropout


@pytest.mark.parametrize(
    ("settings", "network"),
    [
        (
            {"model": tiny_model},
            "a custom model. Remove 'dropout' from the penalties, or add keras.layers.Dropout to the model.",
        ),
        (
            {"hidden_layer_sizes": ()},
            "a network without hidden layers. Remove 'dropout' from the penalties, or add hidden layers.",
        ),
    ],
)
def test_requested_dropout_needs_the_built_in_network(settings, network) -> None:
    message = f"Dropout needs the built-in network with hidden layers, got {network}"
    for requested in ({"penalties": ["l2", "dropout"]}, {"choose": "dropout"}):
        with pytest.raises(DataError) as error:
            run_study("wine", **{**SMALL, **settings, **requested})
        assert str(error.value) == message


def test_the_default_candidates_of_a_linear_model_lack_dropout() -> None:
    assert DEFAULT_PENALTIES[-1] == "dropout"
    settings = {**SMALL, "hidden_layer_sizes": (), "max_iter": 2, "strengths": 3}
    result = run_study("wine", **settings)
    assert result.description["settings"]["penalties"] == ["l2", "l1", "group", "adaptive"]
    assert LEFT_OUT_NOTE in result.description["data"]["notes"]
    assert LEFT_OUT_NOTE not in run_study("wine", **{**settings, "penalties": ["l2"]}).description["data"]["notes"]


def test_estimators_refuse_it() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match=r"penalty='dropout' is only for poise.run_study. Pass a penalty such as 'l2'"):
        poise.PathRegressor("dropout", max_iter=2, cv=2).fit(x, x[:, 0])
