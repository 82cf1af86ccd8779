"""The importance and the direction of columns, compared with scikit-learn and with networks whose answer is known."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.inspection import permutation_importance

from poise.study import importance
from poise.study.columns.encoding import Encoder
from poise.study.encoded_rows import EncodedRows
from poise.study.importance import measure_importance
from poise.study.predictions import predict_outputs
from poise.study.scores import Scorer
from poise.study.tables import read
from poise.study.tasks.table import make_task


def planted(count=150) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(count, 4)), columns=["up", "down", "curved", "unread"])
    frame["gaps"] = np.where(random.random(count) < 0.3, np.nan, random.normal(size=count))
    frame["color"] = random.choice(["red", "green", "blue"], count)
    frame["y"] = 2 * frame["up"] - frame["down"] + np.abs(frame["curved"]) + 3.0 * (frame["color"] == "red")
    return frame.assign(y=lambda f: f["y"] + random.normal(size=count))


def encode(frame: pd.DataFrame, **roles: Any) -> tuple[EncodedRows, Encoder]:
    table = read(frame, "y")
    encoder = Encoder(table.columns).fit(table.features)
    y = table.target.to_numpy("float32")[:, None]
    scorer = Scorer(make_task("regression"), y, roles.get("weight"), roles.get("groups"), 0)
    return EncodedRows(table.features, encoder.transform(table.features), scorer), encoder


def known_network(encoder: Encoder, outputs: int = 1) -> keras.Model:
    """2 · up − down + |curved| + red − 0.5 · green + 0.5 · (gaps is missing); further outputs are smaller."""
    model = keras.Sequential(
        [keras.Input((len(encoder.inputs),)), keras.layers.Dense(9, "relu"), keras.layers.Dense(outputs)]
    )
    first, last = np.zeros((len(encoder.inputs), 9)), np.zeros((9, 1))
    effects = [
        ("up", 1, 2), ("up", -1, -2), ("down", 1, -1), ("down", -1, 1), ("curved", 1, 1), ("curved", -1, 1),
        ("color=red", 1, 1), ("color=green", 1, -0.5), ("gaps missing", 1, 0.5),
    ]  # fmt: skip
    for unit, (name, sign, effect) in enumerate(effects):
        first[encoder.inputs.index(name), unit], last[unit] = sign, effect
    model.set_weights([first, np.zeros(9), last * 0.5 ** np.arange(outputs), np.zeros(outputs)])
    return model


def measure(model: keras.Model, rows: EncodedRows, encoder: Encoder, **changes: Any) -> pd.DataFrame:
    return measure_both(model, rows, encoder, **changes)[0]


def measure_both(model: keras.Model, rows: EncodedRows, encoder: Encoder, **changes: Any) -> Any:
    settings = {"classes": (), "read": None, "selected": (), "seed": 0, **changes}
    return measure_importance(model, rows, encoder, **settings)


class Wrapped(RegressorMixin, BaseEstimator):
    """A network and its encoder as an estimator of scikit-learn."""

    def __init__(self, model: keras.Model, encoder: Encoder) -> None:
        self.model, self.encoder = model, encoder

    def fit(self, *_: Any) -> "Wrapped":
        return self

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return predict_outputs(self.model, self.encoder.transform(features))[:, 0]


def test_the_importance_is_that_of_scikit_learn() -> None:
    rows, encoder = encode(planted())
    model, repeats = known_network(encoder), 40

    ours = measure(model, rows, encoder, permutations=repeats)

    theirs: Any = permutation_importance(
        Wrapped(model, encoder), rows.features, rows.scorer.y[:, 0], scoring="neg_mean_squared_error",
        n_repeats=repeats, random_state=0,
    )  # fmt: skip
    assert ours.index.tolist() == rows.features.columns.tolist()
    difference = np.abs(ours["importance"] - theirs.importances_mean)
    assert (difference <= 4 * np.sqrt(2 / repeats) * theirs.importances_std + 1e-6).all()
    assert (ours.loc[["up", "down", "curved", "color"], "importance"] > 0.5).all()


def test_the_error_is_one_over_rows() -> None:
    """A larger sample of the same rows says so: the spread of its importances is the error."""
    frame = planted(4000)
    rows, encoder = encode(frame)
    model = known_network(encoder)
    parts = [rows.take(positions) for positions in np.arange(4000).reshape(40, 100)]

    tables = [measure(model, part, encoder, seed=seed) for seed, part in enumerate(parts)]

    for column in ("up", "color"):
        found = pd.DataFrame([table.loc[column, ["importance", "error"]] for table in tables]).astype("float64")
        assert found["error"].mean() == pytest.approx(found["importance"].std(), rel=0.3)


def test_rows_of_a_group_count_as_one_and_weights_as_repeated_rows() -> None:
    increase = np.random.default_rng(0).normal(size=30)
    rows, _ = encode(planted(30))
    twice, _ = encode(planted(30), weight=np.full(30, 2.0))
    doubled, _ = encode(pd.concat([planted(30)] * 2), groups=np.tile(np.arange(30), 2))

    expected = (increase.mean(), increase.std(ddof=1) / np.sqrt(30))

    for each, values in ((rows, increase), (twice, increase), (doubled, np.tile(increase, 2))):
        np.testing.assert_allclose(importance._mean_and_error(values, each), expected)


def test_rows_of_weight_zero_do_not_count() -> None:
    frame = planted(60)
    weight = np.repeat([1.0, 0.0], 30)
    rows, encoder = encode(frame, weight=weight)
    model = known_network(encoder)

    half = rows.take(np.arange(30))

    pd.testing.assert_frame_equal(measure(model, rows, encoder), measure(model, half, encoder))


def test_directions_of_a_known_network() -> None:
    rows, encoder = encode(planted())

    table = measure(known_network(encoder), rows, encoder)

    assert table["direction"].to_dict() == {
        "up": "up", "down": "down", "curved": "mixed", "unread": "flat", "gaps": "flat",
        "color": "highest at red, lowest at green",
    }  # fmt: skip
    # Missing values of gaps matter, and no value does.
    assert table["importance"]["gaps"] != 0.0
    assert not table.loc[["unread"], ["importance", "error"]].to_numpy().any()


def test_the_direction_of_classes() -> None:
    """The probability of the second of two classes; of several, of the class that changes most."""
    rows, encoder = encode(planted())
    two = EncodedRows(
        rows.features, rows.x, Scorer(make_task("binary"), (rows.scorer.y > 1).astype("float32"), None, None, 0)
    )
    codes = np.digitize(rows.scorer.y[:, 0], [-1.0, 1.0])
    three = EncodedRows(rows.features, rows.x, Scorer(make_task("multiclass"), codes, None, None, 0))
    model = known_network(encoder, 3)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * [0.0, 0.0, 1.0], bias])

    binary = measure(known_network(encoder), two, encoder, classes=("low", "high"))["direction"]
    several = measure(model, three, encoder, classes=("low", "mid", "high"))["direction"]

    assert binary[["up", "down", "color"]].tolist() == ["up", "down", "highest at red, lowest at green"]
    assert several[["up", "down", "color"]].tolist() == [
        "high: up", "high: down", "high: highest at red, lowest at green"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["up", "curved", "gaps", "color"])
def test_partial_dependence_is_the_mean_prediction_of_rows_with_one_value(name) -> None:
    rows, encoder = encode(planted())
    model = known_network(encoder)

    curve = measure_both(model, rows, encoder)[1][name]

    expected = [
        predict_outputs(model, encoder.transform(rows.features.assign(**{name: value}))).mean()
        for value in curve.values
    ]
    np.testing.assert_allclose(curve.predictions, expected, rtol=1e-5, atol=1e-6)
    assert curve.label == ""
    assert curve.is_ordered == (name != "color")


def test_columns_that_are_not_read_have_no_partial_dependence() -> None:
    rows, encoder = encode(planted())

    assert [*measure_both(known_network(encoder), rows, encoder, read=("up", "color"))[1]] == ["up", "color"]


def test_dates_have_a_direction() -> None:
    frame = planted().assign(when=lambda f: pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(f)) * 9, "D"))
    rows, encoder = encode(frame)
    model = keras.Sequential([keras.Input((len(encoder.inputs),)), keras.layers.Dense(1)])
    kernel = np.zeros((len(encoder.inputs), 1))
    kernel[[place for place, key in enumerate(encoder.keys) if key.column == "when" and "year" in key.part]] = -1.0
    model.set_weights([kernel, np.zeros(1)])

    assert measure(model, rows, encoder).loc["when", "direction"] == "down"


def test_columns_that_the_network_does_not_read_are_not_predicted(monkeypatch) -> None:
    rows, encoder = encode(planted())
    changed = []
    predict = importance._predict_with
    monkeypatch.setattr(
        importance, "_predict_with", lambda *args: changed.append(encoder.owners[args[2][0]]) or predict(*args)
    )

    table = measure(known_network(encoder), rows, encoder, read=("up", "color"))

    assert set(changed) == {"up", "color"}
    assert table.loc[["down", "curved"], "importance"].tolist() == [0.0, 0.0]


def test_of_many_columns_the_largest_and_the_selected_ones_are_measured() -> None:
    names = [f"c{number}" for number in range(130)]
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(40, 130)), columns=names).assign(y=random.normal(size=40))
    rows, encoder = encode(frame)
    model = keras.Sequential([keras.Input((130,)), keras.layers.Dense(1)])
    model.set_weights([np.linspace(2.0, 1.0, 130)[:, None], np.zeros(1)])

    table = measure(model, rows, encoder, selected=("c120",), permutations=2)

    measured = table.index[table["importance"].notna()]
    assert measured.tolist() == [*names[:100], "c120"]
    assert set(table.loc[measured, "direction"]) == {"up"}
    assert set(table["direction"].drop(measured)) == {""}


def test_many_rows_are_thinned_out(monkeypatch) -> None:
    rows, encoder = encode(planted())
    sizes = []
    monkeypatch.setattr(importance, "MOST_ROWS", 40)
    monkeypatch.setattr(importance, "CURVE_ROWS", 10)
    predict = importance._predict_with
    monkeypatch.setattr(importance, "_predict_with", lambda *args: sizes.append(len(args[1])) or predict(*args))

    measure(known_network(encoder), rows, encoder)

    assert set(sizes) == {40, 10}
