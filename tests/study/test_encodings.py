"""How columns of numbers enter a study: standardized, or with piecewise-linear encodings and a skip connection."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import poise
from poise.study.candidates import encodings
from poise.study.candidates.dropout import add_dropout
from poise.study.candidates.encodings import PIECEWISE, STANDARD
from poise.study.candidates.network import build_network, build_start
from poise.study.columns.encoding import Encoder
from poise.study.errors import DataError
from poise.study.report.sections.coefficients import CoefficientsSection
from poise.study.report.sections.effects import EffectsSection
from poise.study.tables import read
from poise.study.tasks.table import make_task

FAST: dict[str, Any] = {"strengths": 5, "cv": 3, "max_iter": 300}


def ring(rows=500, columns=8, seed=0) -> pd.DataFrame:
    """Two classes: whether a point in the first two columns lies on a ring."""
    x = np.random.default_rng(seed).random((rows, columns))
    is_on_ring = np.abs(np.hypot(x[:, 0] - 0.5, x[:, 1] - 0.5) - 0.35) <= 0.1151
    return pd.DataFrame(x, columns=[f"x{number}" for number in range(columns)]).assign(
        y=np.where(is_on_ring, "on", "off")
    )


def mixed_table(rows=160) -> pd.DataFrame:
    """Numbers with gaps and few values, a category, and a date."""
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "size": random.gamma(1.0, 10.0, rows),
            "rooms": random.integers(1, 4, rows),
            "is_new": random.integers(0, 2, rows),
            "color": random.choice(["red", "green", "blue"], rows),
            "sold": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, rows), unit="D"),
        }
    )
    frame["price"] = np.log1p(frame["size"]) + (frame["color"] == "red") + 0.1 * random.normal(size=rows)
    frame.loc[random.random(rows) < 0.1, "size"] = np.nan
    return frame


@pytest.fixture(scope="module")
def additive() -> Any:
    return poise.run_study(ring(), "y", penalties=["adaptive"], hidden_layer_sizes=(), **FAST)


# ---------------------------------------------------------------- encoder


def test_pieces_follow_the_other_inputs_and_belong_to_their_columns() -> None:
    table = read(mixed_table(), "price")
    standard, piecewise = (Encoder(table.columns, name).fit(table.features) for name in (STANDARD, PIECEWISE))

    count = len(standard.inputs)
    assert piecewise.inputs[:count] == standard.inputs
    assert set(piecewise.owners[count:]) == {"size", "rooms"}  # is_new has two values, and the others are no numbers
    assert [name for name in piecewise.inputs if name.startswith("rooms")] == [
        "rooms",
        "rooms piece 1",
        "rooms piece 2",
    ]
    assert piecewise.other_inputs.tolist() == [*range(count)]
    x = piecewise.transform(table.features)
    np.testing.assert_array_equal(x[:, :count], standard.transform(table.features))


def test_pieces_are_those_of_the_encoder_standardized() -> None:
    frame = mixed_table().dropna()
    table = read(frame, "price")
    encoder = Encoder(table.columns, PIECEWISE).fit(table.features)

    by_hand = poise.PiecewiseLinearEncoder().fit_transform(frame[["size"]].to_numpy())
    places = [place for place, key in enumerate(encoder.keys) if key.column == "size" and key.is_piece]

    ours = encoder.transform(table.features)[:, places]
    np.testing.assert_allclose(ours, StandardScaler().fit_transform(by_hand), rtol=1e-4, atol=1e-5)


def test_weighted_pieces_are_those_of_repeated_rows() -> None:
    table = read(mixed_table(), "price")
    times = np.random.default_rng(0).integers(1, 4, len(table.features))
    repeated = table.features.loc[table.features.index.repeat(times)]

    weighted = Encoder(table.columns, PIECEWISE).fit(table.features, times.astype(float))
    longer = Encoder(table.columns, PIECEWISE).fit(repeated)

    np.testing.assert_allclose(weighted.transform(table.features), longer.transform(table.features), atol=1e-5)


# ---------------------------------------------------------------- network


@pytest.mark.parametrize(("task", "outputs"), [("regression", 1), ("multiclass", 3), ("counts", 1)])
def test_the_network_is_the_sum_of_hidden_layers_and_a_skip_connection(task, outputs) -> None:
    keras.utils.set_random_seed(0)
    network = build_network(6, outputs, (4, 3), make_task(task), np.array([0, 2]))
    curves = network.get_layer("curves").kernel
    curves.assign(np.random.default_rng(0).normal(size=curves.shape))
    x = np.random.default_rng(1).normal(size=(5, 6)).astype("float32")

    h = x[:, [0, 2]]
    for name in ("hidden_1", "hidden_2"):
        kernel, bias = map(np.asarray, network.get_layer(name).weights)
        h = np.maximum(h @ kernel + bias, 0.0)
    kernel, bias = map(np.asarray, network.get_layer("output").weights)
    expected = h @ kernel + bias + x @ np.asarray(curves)

    outputs_of = np.asarray(network(x))
    np.testing.assert_allclose(outputs_of, np.exp(expected) if task == "counts" else expected, rtol=2e-5, atol=1e-5)


def test_dropout_enters_after_the_hidden_layers() -> None:
    start = build_start(
        make_task("regression"), 6, 0, np.zeros((4, 1)), None, (4, 3), 0.01, hidden_inputs=np.array([0, 2])
    )  # fmt: skip
    copy = add_dropout(start, 0)
    x = np.random.default_rng(1).normal(size=(5, 6)).astype("float32")

    names = [layer.name for layer in copy.layers]
    assert [names[names.index(f"dropout_{number}") - 1] for number in (1, 2)] == ["hidden_1", "hidden_2"]
    np.testing.assert_allclose(np.asarray(copy(x)), np.asarray(start(x)), rtol=1e-6)


# ---------------------------------------------------------------- studies


def test_an_additive_model_has_a_curve_for_each_selected_column_and_no_others(additive) -> None:
    assert additive.selected_columns == ("x0", "x1")
    selection = (
        additive.findings["selection"] if "selection" in additive.results.index else additive.findings["adaptive"]
    )
    x = additive.findings["adaptive"].encoder.transform(ring().drop(columns="y"))
    owners = np.asarray(additive.encoder.owners)
    read = {owner for owner in owners if np.any(selection.model.get_weights()[0][owners == owner])}
    assert read == {"x0", "x1"}
    outputs = selection.model.predict(x, verbose=0)[:, 0]
    alone = []
    for column in ("x0", "x1"):
        only = np.where(owners == column, x, 0.0)
        alone.append(selection.model.predict(only, verbose=0)[:, 0] - selection.model.get_weights()[1])
    np.testing.assert_allclose(outputs - selection.model.get_weights()[1], sum(alone), atol=1e-4)
    assert {"x0", "x1"} <= {*additive.findings.effects}


def test_the_report_of_an_additive_model_draws_curves_instead_of_coefficients(additive) -> None:
    assert CoefficientsSection().context(additive.findings) is None
    effects = EffectsSection().context(additive.findings)
    assert effects is not None


def test_without_pieces_the_ring_is_not_found() -> None:
    """The standard encoding without hidden layers is a linear model, which cannot see a ring."""
    study = poise.run_study(ring(), "y", penalties=["adaptive"], hidden_layer_sizes=(), encoding="standard", **FAST)
    assert not {"x0", "x1"} <= {*(study.selected_columns or ())}
    assert not any("piece" in name for name in study.encoder.inputs)


def test_auto_keeps_the_encoding_with_the_lower_held_out_loss() -> None:
    settings: dict[str, Any] = {"penalties": ["l2", "group"], "hidden_layer_sizes": (8,), "strengths": 3, "cv": 2}
    studies = {
        name: poise.run_study(ring(200), "y", encoding=name, max_iter=40, **settings).findings
        for name in ("auto", "standard", "piecewise")
    }
    losses = {name: studies[name]["group"].val_loss for name in ("standard", "piecewise")}
    lower = min(losses, key=lambda name: losses[name])
    auto = studies["auto"]

    assert auto["group"].encoder.encoding == lower
    assert auto["group"].val_loss == losses[lower]
    assert {auto[name].encoder.encoding for name in ("full_training", "l2")} == {"standard"}
    assert auto["none"].val_loss == min(studies[name]["none"].val_loss for name in losses)
    for candidate in ("none", "group"):
        held_out: dict[str, Any] = {name: studies[name][candidate].held_out for name in studies}
        counts = {name: each.losses.shape[1] for name, each in held_out.items()}
        assert counts["auto"] == counts["standard"] + counts["piecewise"]


@pytest.mark.parametrize("encoding", ["standard", "piecewise"])
def test_an_encoding_can_be_requested(encoding) -> None:
    study = poise.run_study(
        ring(200), "y", penalties=["l2", "group", "dropout"], encoding=encoding, strengths=3, cv=2, max_iter=20
    )
    assert set(study.results["encoding"]) == {encoding}
    assert study.description["settings"]["encoding"] == encoding


def test_a_table_without_pieces_has_the_standard_encoding() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.integers(0, 2, 90), "b": random.choice(["x", "y", "z"], 90)})
    study = poise.run_study(
        frame.assign(y=frame["a"] + random.normal(size=90)), "y", penalties=["group"], strengths=3, cv=2, max_iter=20
    )
    assert set(study.results["encoding"]) == {"standard"}


def test_auto_tries_no_pieces_in_a_very_wide_table(monkeypatch) -> None:
    monkeypatch.setattr(encodings, "MOST_COLUMNS", 7)
    study = poise.run_study(ring(100), "y", penalties=["group"], hidden_layer_sizes=(), strengths=3, cv=2, max_iter=20)
    assert set(study.results["encoding"]) == {"standard"}


@pytest.mark.parametrize("sparse", [False, True])
def test_a_saved_study_predicts_the_same(sparse, tmp_path) -> None:
    frame = mixed_table()
    study = poise.run_study(
        frame, "price", penalties=["adaptive"], choose="adaptive", sparse=sparse, encoding="piecewise",
        hidden_layer_sizes=(6,), strengths=3, cv=2, max_iter=60,
    )  # fmt: skip
    study.save(tmp_path / "study")
    again = poise.Study.load(tmp_path / "study")

    needed = frame[[*study.needed_columns]]
    pd.testing.assert_frame_equal(again.predict(needed), study.predict(frame))
    outputs = study.findings.saved.model.predict(study.encoder.transform(frame), verbose=0)[:, 0]
    by_network = outputs * study.findings.scale + study.findings.center
    np.testing.assert_allclose(study.predict(frame)["price"], by_network, rtol=1e-4)
    plain = keras.models.load_model(tmp_path / "study" / "model.keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)


def test_hidden_layers_read_some_columns_of_a_wide_table_in_every_fold() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(300, 90))
    frame = pd.DataFrame(x, columns=[f"x{number}" for number in range(90)])
    frame["y"] = x[:, 20] * x[:, 70] + 0.1 * random.normal(size=300)
    settings: dict[str, Any] = {"hidden_layer_sizes": (4,), "strengths": 3, "cv": 2, "max_iter": 10}
    group = poise.run_study(frame, "y", penalties=["group"], **settings).findings["group"]
    sizes = next(size for name, size in group.path.lanes.sizes.items() if name.endswith("hidden_1/kernel"))
    assert 64 <= sizes.shape[2] < 90
    assert ((sizes[:, 0] > 0).sum(axis=1) <= 64).all()
    assert (sizes[:, 0] > 0).sum(axis=1).min() >= 50


def test_the_stable_selection_is_stricter() -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=(90, 12))
    frame = pd.DataFrame(x, columns=[f"x{number}" for number in range(12)])
    frame["y"] = x[:, 0] + 0.5 * x[:, 1] + 1.5 * random.normal(size=90)
    settings: dict[str, Any] = {"hidden_layer_sizes": (), "strengths": 9, "cv": 4, "max_iter": 200}
    default, stable = (
        poise.run_study(frame, "y", penalties=["adaptive"], selection=rule, **settings).findings["adaptive"]
        for rule in ("default", "stable")
    )
    assert stable.stability is not None
    assert stable.selection_strength >= default.selection_strength
    assert all(stable.stability[column] >= 0.8 for column in stable.selected or ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"encoding": "utf-8"},
            "encoding must be one of 'auto', 'standard', 'piecewise', got 'utf-8'. To read a CSV file in this text "
            "encoding, use text_encoding='utf-8'.",
        ),
        ({"encoding": "pieces"}, "encoding must be one of 'auto', 'standard', 'piecewise', got 'pieces'."),
        ({"selection": "strict"}, "selection must be 'default' or 'stable', got 'strict'."),
    ],
)
def test_a_wrong_setting_is_refused(settings, message) -> None:
    with pytest.raises(DataError) as error:
        poise.run_study("wine", **settings)
    assert str(error.value) == message


# ---------------------------------------------------------------- estimators


def test_an_estimator_without_hidden_layers_is_ridge_on_the_inputs() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3))
    y = np.sin(2 * x[:, 0]) + x[:, 1]
    result = poise.PathRegressor(
        "l2", hidden_layer_sizes=(), encoding="piecewise", strengths=[0.05], cv=2, max_iter=3000, learning_rate=0.05,
        early_stopping=False,
    ).fit(x, y)  # fmt: skip

    scaled = [StandardScaler().fit_transform(part) for part in (x, poise.PiecewiseLinearEncoder().fit_transform(x))]
    inputs = np.concatenate(scaled, axis=1)
    target = (y - y.mean()) / y.std()
    ridge = Ridge(alpha=0.05 * len(y)).fit(inputs, target)
    np.testing.assert_allclose(result.predict(x), ridge.predict(inputs) * y.std() + y.mean(), atol=2e-3)


def test_auto_keeps_the_encoding_with_the_lower_loss() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-2.0, 2.0, (150, 3))
    settings: dict[str, Any] = {"hidden_layer_sizes": (), "strengths": [0.001, 0.01], "cv": 3}
    for y, expected in ((x[:, 0], "standard"), (np.abs(x[:, 0]), "piecewise")):
        y = y + 0.3 * random.normal(size=150)
        fits = {name: poise.PathRegressor(encoding=name, **settings).fit(x, y) for name in ("standard", "piecewise")}
        auto = poise.PathRegressor(encoding="auto", **settings).fit(x, y)
        losses = {name: fit.path_.table["val_loss"].min() for name, fit in fits.items()}
        assert auto.encoding_ == min(losses, key=lambda name: losses[name]) == expected
        np.testing.assert_array_equal(auto.predict(x), fits[expected].predict(x))


def test_weights_are_repeated_rows_with_pieces() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 2))
    y = np.abs(x[:, 0]) + 0.1 * random.normal(size=40)
    times = random.integers(1, 3, 40)
    rows = np.arange(40)
    copies = np.repeat(rows, times)
    half = rows < 20
    pairs = [(rows[half], rows[~half])]
    longer_pairs = [(np.flatnonzero(half[copies]), np.flatnonzero(~half[copies]))]
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (8,),
        "encoding": "piecewise",
        "strengths": [0.01],
        "max_iter": 80,
    }

    weighted = poise.PathRegressor(cv=pairs, **settings).fit(x, y, sample_weight=times)
    longer = poise.PathRegressor(cv=longer_pairs, **settings).fit(x[copies], y[copies])

    np.testing.assert_allclose(weighted.predict(x), longer.predict(x), rtol=1e-3, atol=1e-3)


def test_the_support_is_what_the_last_stage_selects() -> None:
    frame = ring(300)
    x, y = frame.drop(columns="y"), frame["y"]
    fitted = poise.PathClassifier(
        "adaptive", hidden_layer_sizes=(8,), encoding="piecewise", strengths=5, cv=2, max_iter=200
    ).fit(x, y)
    path, owners = fitted.selection_path_, fitted.encoder_.owners
    assert np.asarray(fitted.support_).nonzero()[0].tolist() == sorted(
        {*owners[path.features(path.selection_strength)].tolist()}
    )
    assert {0, 1} <= {*np.asarray(fitted.support_).nonzero()[0].tolist()}
