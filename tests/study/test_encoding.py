"""Encoders and folds: the inputs by hand, and that no held-out row is ever looked at."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io

from poise.study.columns.base import Column
from poise.study.columns.encoding import Encoder
from poise.study.columns.folds import encode_folds
from poise.study.errors import DataError
from poise.study.loading import TRUSTED
from poise.study.tables import read

ROWS = 60
RANDOM = np.random.default_rng(0)


def columns(**kinds: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind.replace("_", " "), 0, "") for name, kind in kinds.items())


def objects(*values: str | None) -> pd.Series:
    return pd.Series(values, dtype=object)


def encode(kind: str, values, fitted_on=slice(None)) -> tuple[tuple[str, ...], np.ndarray]:
    """The inputs and the encoded values of a single column "it"."""
    features = pd.DataFrame({"it": values})
    encoder = Encoder(columns(it=kind)).fit(features.iloc[fitted_on])
    return encoder.inputs, encoder.transform(features)


def frame() -> pd.DataFrame:
    """Sixty rows with a number, one with gaps, a category, a date with a time, an identifier and a target."""
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "size": random.normal(5.0, 3.0, ROWS),
            "age": np.where(random.random(ROWS) < 0.3, np.nan, random.normal(size=ROWS)),
            "color": random.choice(["red", "green", "blue"], ROWS),
            "when": pd.date_range("2024-01-01", periods=ROWS, freq="70h"),
            "id": np.arange(ROWS),
            "price": random.normal(100.0, 20.0, ROWS),
            "weight": random.integers(1, 5, ROWS).astype(float),
        }
    )


PAIRS = [(np.delete(np.arange(50), np.arange(b, b + 10)), np.arange(b, b + 10)) for b in (0, 10, 40)]


# ---------------------------------------------------------------- the encoder


def test_a_table_by_hand() -> None:
    features = pd.DataFrame(
        {
            "age": [1.0, 3.0, np.nan, 8.0],
            "color": objects("red", None, "blue", "red"),
            "size": [2.0, 2.0, 4.0, 4.0],
            "when": pd.to_datetime(["2024-01-01", "2024-01-03", "NaT", "2026-01-01"]).astype("datetime64[ns]"),
        }
    )
    kinds = columns(age="number", color="category", name="set_aside", size="number", when="date")

    encoder = Encoder(kinds).fit(features)

    age, year = np.array([1.0, 3.0, 3.0, 8.0]), np.array([2024.0, 2024.0, 2024.0, 2026.0])
    day, weekday = np.array([1.0, 3.0, 1.0, 1.0]), np.array([0.0, 2.0, 2.0, 3.0])  # Monday, Wednesday, -, Thursday
    days, missing = np.array([0.0, 2.0, 2.0, 731.0]), np.array([0.0, 0.0, 1.0, 0.0])
    by_hand = {
        "age": (age - 3.75) / np.sqrt(6.6875),
        "size": np.array([-1.0, -1.0, 1.0, 1.0]),
        "age missing": (missing - 0.25) / np.sqrt(0.1875),
        "color=blue": [0.0, 0.0, 1.0, 0.0],
        "color=red": [1.0, 0.0, 0.0, 1.0],
        "color=(missing)": [0.0, 1.0, 0.0, 0.0],
        "when year": (year - 2024.5) / np.sqrt(0.75),
        "when month": np.zeros(4),
        "when day": (day - 1.5) / np.sqrt(0.75),
        "when weekday": (weekday - 1.75) / np.sqrt(1.1875),
        "when days": (days - days.mean()) / days.std(),
        "when missing": (missing - 0.25) / np.sqrt(0.1875),
    }
    assert encoder.inputs == tuple(by_hand)
    assert encoder.owners == ("age", "size", "age", *["color"] * 3, *["when"] * 6)
    x = encoder.transform(features)
    assert x.dtype == "float32"
    np.testing.assert_allclose(x, np.column_stack(list(by_hand.values())), atol=1e-6)


def test_fitted_columns_are_standardized() -> None:
    table = read(frame(), "price")
    encoder = Encoder(table.columns).fit(table.features)

    x = encoder.transform(table.features).astype("float64")

    scaled = [n for n, name in enumerate(encoder.inputs) if "=" not in name]
    varied = [n for n in scaled if encoder.inputs[n] != "when year"]  # all in 2024
    np.testing.assert_allclose(x[:, scaled].mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(x[:, varied].var(axis=0), 1.0, rtol=1e-5)


def test_hours_are_inputs_where_a_time_is_not_midnight() -> None:
    inputs, x = encode("date", pd.Series(pd.date_range("2024-01-01", periods=4, freq="6h").astype("datetime64[ns]")))

    assert inputs == ("it year", "it month", "it day", "it weekday", "it hour", "it days")
    np.testing.assert_allclose(x[:, 4], np.array([-9, -3, 3, 9]) / np.sqrt(45), rtol=1e-6)


def test_rare_and_new_categories_share_an_input() -> None:
    common = [f"c{n:02d}" for n in range(60) for _ in range(60 - n)]
    values = objects(*common, "never seen", None)

    inputs, x = encode("category", values, slice(0, len(common)))

    assert inputs == (*(f"it=c{n:02d}" for n in range(49)), "it=(other)")
    assert (x.sum(axis=1) == 1.0).all()
    np.testing.assert_array_equal(x[-2:, -1], [1.0, 1.0])
    assert x[: len(common), -1].sum() == sum(60 - n for n in range(49, 60))


def test_new_categories_among_few_are_not_an_input() -> None:
    inputs, x = encode("category", objects("red", "blue", "green", None), slice(0, 2))

    assert inputs == ("it=blue", "it=red")
    np.testing.assert_array_equal(x, [[0, 1], [1, 0], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    ("values", "fitted"),
    [
        ([2.0, 2.0, 2.0, 1e300], 3),
        ([0.1] * 3 + [0.2], 3),
        ([1e300, 1e300, 1e300, -1.0], 3),
        ([np.nan, np.nan, np.nan, 5.0], 3),
        ([1e15, 1e15, 1e15 + 0.125, 0.0], 3),
        ([1e-320, 0.0, 0.0, 1.0], 3),
    ],
)
def test_a_constant_is_zero_for_every_row(values, fitted) -> None:
    _, x = encode("number", values, slice(0, fitted))

    np.testing.assert_array_equal(x, np.zeros_like(x))


@pytest.mark.parametrize(
    ("values", "fitted"),
    [
        ([1e300, -1e300, 0.0, 1.0], 4),
        ([1e-300, 1e300, 5.0, 1e308], 4),
        ([0.0, 1.0, 2.0, 1e308], 3),
        ([0.0, 1e-30, 2e-30, -1e308], 3),
        ([1.0, 2.0, 3.0, np.nan], 3),
    ],
)
def test_every_number_becomes_finite(values, fitted) -> None:
    _, x = encode("number", values, slice(0, fitted))

    assert np.isfinite(x).all()
    assert x[:fitted].std() > 0


def test_numbers_far_outside_are_not_clipped() -> None:
    _, x = encode("number", [-1.0, 1.0, 1e6], slice(0, 2))

    assert x[2, 0] == 1e6


def test_small_units_are_standardized() -> None:
    _, x = encode("number", [1e-30, 3e-30])

    np.testing.assert_allclose(x[:, 0], [-1.0, 1.0], rtol=1e-6)


def test_no_two_inputs_have_the_same_name() -> None:
    features = pd.DataFrame(
        {
            "a": objects("b=c", "x", "(other)", None),
            "a=b": objects("c", "x", "(missing)", None),
            "n": [1.0, np.nan, 2.0, 3.0],
            "n missing": [1.0, 2.0, 3.0, 4.0],
        }
    )
    kinds = (*columns(a="category", n="number"), Column("a=b", "category", 0, ""), Column("n missing", "number", 0, ""))

    encoder = Encoder(kinds).fit(features)

    assert len(set(encoder.inputs)) == len(encoder.inputs) == len(encoder.keys)
    assert {"a=b=c", "a=b=c (2)", "n missing", "n missing (2)", "a=b=(missing)", "a=b=(missing) (2)"} <= set(
        encoder.inputs
    )


def test_the_order_of_the_columns_given_does_not_matter() -> None:
    table = read(frame(), "price")
    encoder = Encoder(table.columns).fit(table.features)

    x = encoder.transform(table.features[table.features.columns[::-1]].assign(extra=1))

    np.testing.assert_array_equal(x, encoder.transform(table.features))


def test_skops_saves_an_encoder() -> None:
    table = read(frame(), "price")
    encoder = Encoder(table.columns, "piecewise").fit(table.features)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of skops itself
        saved = skops.io.dumps(encoder)
        again = skops.io.loads(saved, trusted=skops.io.get_untrusted_types(data=saved))

    assert set(skops.io.get_untrusted_types(data=saved)) == set(TRUSTED)
    assert (again.inputs, again.owners) == (encoder.inputs, encoder.owners)
    np.testing.assert_array_equal(again.transform(table.features), encoder.transform(table.features))
    assert skops.io.get_untrusted_types(data=skops.io.dumps(encoder.transformer)) == [
        "numpy.dtype",
        "poise.study.columns.piecewise_encoder.PiecewiseLinearEncoder",
    ]


# ---------------------------------------------------------------- the folds


def block(folds, number: int) -> np.ndarray:
    size = len(folds.x) // len(folds.replicas)
    return folds.x[number * size : (number + 1) * size]


def test_replicas_point_into_their_blocks() -> None:
    folds = encode_folds(read(frame(), "price"), np.arange(5, 55), PAIRS)

    assert folds.x.shape == (4 * 50, len(folds.encoder.inputs))
    assert [(replica.fold, replica.seed) for replica in folds.replicas] == [(0, 0), (1, 0), (2, 0), (-1, 0)]
    for number, (train, held) in enumerate(PAIRS):
        np.testing.assert_array_equal(folds.replicas[number].train, number * 50 + train)
        np.testing.assert_array_equal(folds.replicas[number].held, number * 50 + held)
    np.testing.assert_array_equal(folds.replicas[-1].train, 150 + np.arange(50))
    assert len(folds.replicas[-1].held) == 0


def test_a_block_is_what_the_encoder_of_its_fold_sees() -> None:
    table, rows = read(frame(), "price"), np.arange(5, 55)

    folds = encode_folds(table, rows, PAIRS)

    for number, (train, _) in enumerate([*PAIRS, (np.arange(50), None)]):
        own = Encoder(table.columns).fit(table.features.iloc[rows[train]])
        assert own.inputs == folds.encoder.inputs
        np.testing.assert_array_equal(block(folds, number), own.transform(table.features.iloc[rows]))


def test_the_training_part_of_every_block_is_standardized() -> None:
    folds = encode_folds(read(frame(), "price"), np.arange(50), PAIRS)

    varied = [n for n, name in enumerate(folds.encoder.inputs) if "=" not in name and name != "when year"]
    for replica in folds.replicas:
        x, y = (part[replica.train].astype("float64") for part in (folds.x[:, varied], folds.y))
        np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-6)
        np.testing.assert_allclose(x.var(axis=0), 1.0, rtol=1e-5)
        np.testing.assert_allclose([y.mean(), y.var()], [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("fold", range(3))
def test_held_out_rows_never_change_what_trains(fold) -> None:
    rows, (train, held) = np.arange(50), PAIRS[fold]
    before, after = frame(), frame()
    after.loc[held, ["size", "age", "price"]] = [[1e6, np.nan, -1e6]] * len(held)
    after.loc[held, "color"] = "violet"
    after.loc[held, "when"] = pd.Timestamp("1999-12-31 23:00")

    folds = [encode_folds(read(each, "price"), rows, PAIRS) for each in (before, after)]

    item, two = ({key: block(each, fold)[train, n] for n, key in enumerate(each.encoder.keys)} for each in folds)
    for key in item.keys() & two.keys():
        np.testing.assert_array_equal(item[key], two[key], str(key))
    assert item.keys() <= two.keys()
    assert [key for key in two if key not in item] == [("color", "category", "violet")]
    assert not block(folds[1], fold)[:, folds[1].encoder.keys.index(("color", "category", "violet"))].any()
    replica = folds[0].replicas[fold]
    np.testing.assert_array_equal(folds[0].y[replica.train], folds[1].y[replica.train])


def test_rows_put_aside_are_never_looked_at() -> None:
    rows, spoiled = np.arange(10, 60), frame()
    spoiled.loc[:9, ["size", "age", "price", "weight"]] = [[1e300, np.nan, -1e300, 1e300]] * 10
    spoiled.loc[:9, "color"] = "violet"

    item, two = (encode_folds(read(each, "price", weight="weight"), rows, PAIRS) for each in (frame(), spoiled))

    assert item.encoder.inputs == two.encoder.inputs
    for name in ("x", "y", "weight", "center", "scale"):
        np.testing.assert_array_equal(getattr(item, name), getattr(two, name))


def test_what_only_held_out_rows_have_is_zero_in_their_block() -> None:
    rows = frame()
    rows["age"] = np.where(np.arange(ROWS) == 3, np.nan, rows["size"])
    rows.loc[3, "color"] = "violet"
    rows["when"] = pd.date_range("2024-01-01", periods=ROWS)
    rows.loc[3, "when"] = pd.Timestamp("2024-01-01 13:00")

    folds = encode_folds(read(rows, "price"), np.arange(50), PAIRS)

    for name in ("age missing", "color=violet", "when hour"):
        place = folds.encoder.inputs.index(name)
        assert not block(folds, 0)[:, place].any()
        assert block(folds, 1)[3, place] != 0.0


def test_a_category_that_is_rare_among_all_rows_joins_the_others() -> None:
    # z has a place of its own among the 50 of the rows that train, and none among the 61 of all rows.
    trained = [f"c{n:02d}" for n in range(49) for _ in range(3)] + ["z"] * 2
    held = [f"d{n}" for n in range(12) for _ in range(3)]
    size = len(trained) + len(held)
    table = read(
        pd.DataFrame({"town": trained + held, "n": RANDOM.normal(size=size), "y": RANDOM.normal(size=size)}), "y"
    )
    split = (np.arange(len(trained)), np.arange(len(trained), size))

    folds = encode_folds(table, np.arange(size), [split])

    other = folds.encoder.inputs.index("town=(other)")
    assert "town=z" not in folds.encoder.inputs
    z = block(folds, 0)[len(trained) - 1]
    assert z[other] == 1.0
    towns = [n for n, owner in enumerate(folds.encoder.owners) if owner == "town"]
    assert (block(folds, 0)[split[0]][:, towns].sum(axis=1) == 1.0).all()


def test_a_weighted_target() -> None:
    table = read(frame(), "price", weight="weight")
    folds = encode_folds(table, np.arange(50), PAIRS)

    assert folds.weight is not None
    price, weight = table.target.to_numpy()[:50], np.asarray(table.weight)[:50]
    center = (weight * price).sum() / weight.sum()
    scale = np.sqrt((weight * (price - center) ** 2).sum() / weight.sum())
    assert (folds.center, folds.scale) == pytest.approx((center, scale))
    assert folds.weight.dtype == "float32"
    np.testing.assert_allclose(folds.weight[150:], weight / weight.mean(), rtol=1e-6)
    np.testing.assert_allclose(folds.weight_of(np.arange(50)), weight / weight.mean(), rtol=1e-6)
    for number, (train, held) in enumerate(PAIRS):
        for rows in (train, held):
            np.testing.assert_allclose(folds.weight[50 * number + rows], weight[rows] / weight[rows].mean(), rtol=1e-6)
    np.testing.assert_allclose(folds.y[150:, 0], (price - center) / scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("price", "task", "dtype", "shape", "first"),
    [
        (["no", "yes", "yes"] * 20, None, "float32", (200, 1), [[0.0], [1.0], [1.0]]),
        (["c", "a", "b"] * 20, None, "int32", (200,), [2, 0, 1]),
        ([5, 0, 7] * 20, "counts", "float32", (200, 1), [[5.0], [0.0], [7.0]]),
    ],
)
def test_targets_that_are_not_standardized(price, task, dtype, shape, first) -> None:
    folds = encode_folds(read(frame().assign(price=price), "price", task=task), np.arange(50), PAIRS)

    assert (folds.y.dtype, folds.y.shape, folds.center, folds.scale) == (dtype, shape, 0.0, 1.0)
    assert folds.y[:3].tolist() == folds.y[150:153].tolist() == first
    assert folds.weight is None


@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_targets_in_any_unit(unit) -> None:
    price = frame()["price"]

    plain, other = (
        encode_folds(read(frame().assign(price=price * u), "price"), np.arange(50), PAIRS) for u in (1.0, unit)
    )

    np.testing.assert_allclose(plain.y, other.y, rtol=1e-5, atol=1e-6)
    assert other.scale == pytest.approx(plain.scale * unit)


def test_a_target_that_is_constant_where_it_trains() -> None:
    price = np.where(np.arange(ROWS) < 10, 0.1 * np.arange(ROWS), 0.1)

    folds = encode_folds(read(frame().assign(price=price), "price", task="regression"), np.arange(50), PAIRS)

    np.testing.assert_allclose(folds.y[folds.replicas[0].train], 0.0, atol=1e-6)
    assert np.isfinite(folds.y).all()


def test_counts_too_large_for_float32_are_refused() -> None:
    table = read(frame().assign(price=[1e300, 2.0, 3.0] * 20), "price", task="counts")

    with pytest.raises(
        DataError, match="The numbers in column 'price' are too large for float32. Use a larger unit, such as millions."
    ):
        encode_folds(table, np.arange(50), PAIRS)


def test_no_pairs_leave_the_block_of_all_rows() -> None:
    folds = encode_folds(read(frame(), "price"), np.arange(50), [])

    assert [replica.fold for replica in folds.replicas] == [-1]
    assert len(folds.x) == 50


def test_ten_thousand_columns() -> None:
    random = np.random.default_rng(0)
    wide = pd.DataFrame(random.normal(size=(30, 10_000))).assign(price=random.normal(size=30))
    wide.iloc[:3, :100] = np.nan

    folds = encode_folds(read(wide, "price"), np.arange(30), [(np.arange(20), np.arange(20, 30))])

    assert folds.x.shape == (60, 10_100)
    assert np.isfinite(folds.x).all()


def test_the_folds_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        encode_folds(read(frame(), "price"), np.arange(50), []).center = 1.0  # pyright: ignore[reportAttributeAccessIssue]
