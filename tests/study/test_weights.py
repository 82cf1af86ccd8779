"""Weights count by their ratios, and rows of weight 0 do not exist."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from poise.study.columns.encoding import Encoder
from poise.study.columns.folds import encode_folds
from poise.study.columns.weighting import fit_scaler, weighted_median
from poise.study.run import run_study
from poise.study.tables import read
from poise.study.weights import relative_weights

FAST: dict[str, Any] = {"penalties": ["l2"], "strengths": 3, "cv": 2, "max_iter": 2, "hidden_layer_sizes": (4,)}
PAIRS = [(np.arange(40, 80), np.arange(40)), (np.arange(40), np.arange(40, 80))]


def frame(rows: int = 80) -> pd.DataFrame:
    random = np.random.default_rng(0)
    made = pd.DataFrame(
        {
            "size": random.normal(5.0, 3.0, rows),
            "age": np.where(random.random(rows) < 0.3, np.nan, random.normal(size=rows)),
            "color": random.choice(["red", "green", "blue"], rows),
            "when": pd.date_range("2024-01-01", periods=rows, freq="70h"),
        }
    )
    return made.assign(y=made["size"] + random.normal(size=rows), w=random.integers(1, 4, rows).astype("float64"))


def with_weightless_rows() -> pd.DataFrame:
    """`frame` with twenty rows that would change everything, and have weight 0."""
    spoiled = frame(20).assign(size=1e6, age=1e6, color="violet", when=pd.Timestamp("1999-12-31 23:00"), y=-1e6, w=0.0)
    spoiled.loc[3, "y"] = np.nan
    return pd.concat([spoiled, frame()]).sample(frac=1.0, random_state=0)


def kept_rows() -> pd.DataFrame:
    mixed = with_weightless_rows()
    return mixed[mixed["w"] > 0]


def results(table: pd.DataFrame, **keywords) -> pd.DataFrame:
    return run_study(table, "y", **FAST, **keywords).results.drop(columns="seconds")


def test_rows_of_weight_0_are_left_out_and_noted() -> None:
    table: Any
    expected: Any
    table, expected = read(with_weightless_rows(), "y", weight="w"), read(kept_rows(), "y", weight="w")

    assert table.notes == ("20 of 100 rows have weight 0 in 'w' and are left out.", *expected.notes)
    assert table.columns == expected.columns
    pd.testing.assert_frame_equal(table.features, expected.features)
    assert list(np.asarray(table.weight)) == list(np.asarray(expected.weight))
    pd.testing.assert_series_equal(table.target, expected.target)


def test_rows_of_weight_0_change_no_bit_of_a_study() -> None:
    pd.testing.assert_frame_equal(
        results(with_weightless_rows(), weight="w"), results(kept_rows(), weight="w"), check_exact=True
    )


@pytest.mark.parametrize("constant", [1.0, 1e-6, 1e3, 1 / 3, 1e300])
def test_a_constant_weight_changes_no_bit(constant) -> None:
    plain = frame().drop(columns="w")

    pd.testing.assert_frame_equal(results(plain), results(plain.assign(w=constant), weight="w"), check_exact=True)


@pytest.mark.parametrize("unit", [1e-6, 1000.0, 1e300])
def test_the_unit_of_weights_does_not_count(unit) -> None:
    tables = [read(frame().assign(w=lambda rows, u=u: rows["w"] * u), "y", weight="w") for u in (1.0, unit)]

    one, other = (encode_folds(table, np.arange(80), PAIRS) for table in tables)

    np.testing.assert_allclose(one.x, other.x, rtol=1e-6)
    np.testing.assert_allclose(one.y, other.y, rtol=1e-6)
    assert one.weight is not None
    assert other.weight is not None
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-6)
    assert one.weight[160:].mean() == pytest.approx(1.0, rel=1e-6)


def test_a_row_of_weight_3_is_three_rows_for_an_encoder() -> None:
    weighted = frame()
    table = read(weighted, "y", drop=["w"])
    repeated = table.features.loc[np.repeat(np.arange(80), weighted["w"].astype(int))]

    encoder = Encoder(table.columns).fit(table.features, weighted["w"].to_numpy())
    expected = Encoder(table.columns).fit(repeated)

    assert encoder.inputs == expected.inputs
    np.testing.assert_allclose(
        encoder.transform(table.features), expected.transform(table.features), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("values", [[5.0], [1.0, 2.0], [3.0, np.nan, 1.0, 2.0], [4.0, 1.0, 1.0, 7.0, 7.0, 2.0]])
@pytest.mark.parametrize("unit", [1.0, 0.1, 1 / 3])
def test_a_weighted_median_is_that_of_repeated_values(values, unit) -> None:
    for seed in range(20):
        times = np.random.default_rng(seed).integers(1, 5, len(values))

        assert weighted_median(np.array(values), times * unit) == np.nanmedian(np.repeat(values, times))


def test_a_weighted_scaler_is_that_of_repeated_rows() -> None:
    random = np.random.default_rng(0)
    values = np.column_stack([random.normal(5.0, 2.0, 50), np.full(50, 2024.1), random.normal(size=50) * 1e-9])
    times = random.integers(0, 4, 50)
    scaler: Any = StandardScaler()
    expected: Any = StandardScaler().fit(np.repeat(values, times, axis=0))

    fit_scaler(scaler, values, times * 0.3)

    np.testing.assert_allclose(scaler.mean_, expected.mean_)
    np.testing.assert_allclose(scaler.scale_, expected.scale_)


def test_equal_weights_are_no_weights() -> None:
    rows = np.arange(5)

    assert relative_weights(None, rows) is None
    assert relative_weights(pd.Series([0.1] * 5 + [7.0]), rows) is None
    shares = relative_weights(pd.Series([1e300, 3e300, 5.0]), np.arange(2))
    assert shares is not None
    np.testing.assert_allclose(shares, [0.5, 1.5])


def test_noise_in_rows_of_weight_0() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(360, 3))
    made = pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=x[:, 0] + 0.3 * random.normal(size=360), w=1.0)
    made.loc[::3, ["a", "b", "c"]] *= 1e5
    made.loc[::3, "w"] = 0.0

    study = run_study(made, "y", weight="w", penalties=["l2"], strengths=3, cv=2, max_iter=200)

    assert study.findings["l2"].score.value > 0.85
