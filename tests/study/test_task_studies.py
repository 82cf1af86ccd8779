"""Studies of positive numbers, of rates with an exposure, and of weighted classes: what they predict, and what they say."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_pinball_loss, mean_tweedie_deviance

import poise
from poise import Study, run_study
from poise.study.errors import DataError
from poise.study.report.page import render_page
from poise.study.report.sections.coefficients import CoefficientsSection
from poise.study.splits import split_test_rows

FAST: dict[str, Any] = {"penalties": ["l2"], "cv": 2, "strengths": 3, "max_iter": 300, "hidden_layer_sizes": ()}
POWERS: dict[str, Any] = {"counts": 1.0, "tweedie": 1.3, "gamma": 2.0}


def make_claims(rows: int = 240) -> pd.DataFrame:
    """Return policies with an exposure, and their claims in number, total and size."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 2)), columns=["age", "power"])
    frame["years"] = random.uniform(0.2, 5.0, rows)
    mean = np.exp(0.8 * frame["age"] - 0.4 * frame["power"] + 0.5) * frame["years"]
    counts = random.poisson(mean)
    frame["counts"] = counts
    frame["tweedie"] = [random.gamma(2.0, 0.5, size=count).sum() for count in counts]
    frame["gamma"] = random.gamma(3.0, mean / 3.0)
    return frame


def take(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    return frame[["age", "power", "years", target]]


@pytest.fixture(scope="module")
def claims() -> pd.DataFrame:
    return make_claims()


@pytest.fixture(scope="module", params=POWERS)
def study(request, claims) -> Study:
    frame, task = take(claims, request.param), request.param
    return run_study(frame, task, task=task, exposure="years", tweedie_power=1.3, choose="l2", **FAST)


# ---------------------------------------------------------------- exposure


def test_predictions_are_proportional_to_the_exposure(study, claims) -> None:
    target = study.description["data"]["target"]
    new = claims[["age", "power", "years"]].assign(years=lambda frame: 2.0 * frame["years"])

    doubled, predicted = study.predict(new), study.predict(claims)

    np.testing.assert_allclose(doubled[target], 2.0 * predicted[target], rtol=1e-9)
    assert predicted[target].mean() == pytest.approx(claims[target].mean(), rel=0.2)
    assert list(study.predict(new.head(0)).columns) == [target]


def test_scores_are_those_of_the_target_in_its_own_units(study, claims) -> None:
    data, findings = study.description["data"], study.findings
    target, power = data["target"], POWERS[data["task"]]
    _, testing = split_test_rows(findings.table, 0.2, 0)
    rows = claims.iloc[testing]

    predicted = study.predict(rows)[target]

    deviance = mean_tweedie_deviance(rows[target], predicted, power=power)
    rate = np.average(rows[target] / rows["years"], weights=rows["years"] ** (2.0 - power))
    null = mean_tweedie_deviance(rows[target], rate * rows["years"], power=power)
    assert study.metrics["deviance"] == pytest.approx(deviance, rel=1e-4)
    assert findings.saved.score.value == pytest.approx(1.0 - deviance / null, rel=1e-3)
    np.testing.assert_allclose(findings.predicted.actual, rows[target], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(findings.predicted.predictions, predicted, rtol=1e-5)


def test_coefficients_are_per_unit_of_the_exposure(study, claims) -> None:
    context = CoefficientsSection().context(study.findings)
    assert context is not None
    target, rows = study.description["data"]["target"], dict(context["rows"])

    at_mean = claims[["age", "power"]].iloc[split_test_rows(study.findings.table, 0.2, 0)[0]]
    at_mean = at_mean.mean().to_frame().T.assign(years=1.0)
    assert np.log(study.predict(at_mean)[target][0]) == pytest.approx(float(context["intercept"][0]), abs=1e-4)
    assert rows["age"][0] > 0.3 > -0.1 > rows["power"][0]


def test_a_saved_study_predicts_the_same_and_reports_the_exposure(study, claims, tmp_path) -> None:
    folder = tmp_path / "study"
    study.save(folder)

    loaded = Study.load(folder)

    pd.testing.assert_frame_equal(loaded.predict(claims), study.predict(claims))
    with pytest.raises(DataError, match="has no column 'years'"):
        loaded.predict(claims[["age", "power"]])
    with pytest.raises(DataError, match="The exposure column 'years' must contain positive numbers, got 0"):
        loaded.predict(claims.assign(years=0.0))
    page = render_page(study.findings, "runs/claims")
    assert (
        "the logarithm of years, added to the logarithm of the mean; predictions of new rows need this column" in page
    )
    assert "per unit of years" in page


def test_new_exposures_are_read_with_the_decimal_mark_of_the_study(claims) -> None:
    """Three digits after the only mark may be decimals or thousands; the features of the study show which."""
    frame = take(claims, "counts").assign(years=(1000.0 * claims["years"]).round())
    texts = frame.assign(
        age=[f"{age:.2f}".replace(".", ",") for age in frame["age"]],
        years=[f"{days // 1000:.0f}.{days % 1000:03.0f}" for days in frame["years"]],
    )

    study = run_study(texts, "counts", task="counts", exposure="years", **FAST)

    numbers = frame.assign(age=frame["age"].round(2)).head(3)
    assert study.description["data"]["decimal"] == ","
    np.testing.assert_allclose(study.predict(texts.head(3)), study.predict(numbers), rtol=1e-9)


def test_an_offset_is_the_logarithm_of_an_exposure(claims) -> None:
    frame = take(claims, "counts")
    logs = frame.assign(years=np.log(frame["years"]))

    first = run_study(frame, "counts", task="counts", exposure="years", **FAST)
    second = run_study(logs, "counts", task="counts", offset="years", **FAST)

    np.testing.assert_allclose(first.predict(frame), second.predict(logs), rtol=1e-4)


def test_an_offset_of_a_regression_is_added_to_the_prediction(claims) -> None:
    random = np.random.default_rng(0)
    frame = claims[["age", "power"]].assign(base=random.normal(size=len(claims)) * 10)
    frame["y"] = frame["age"] + frame["base"] + 0.1 * random.normal(size=len(claims))

    study = run_study(frame, "y", task="regression", offset="base", **FAST)

    assert study.metrics["RMSE"] < 0.2
    np.testing.assert_allclose(study.predict(frame)["y"], frame["y"], atol=0.6)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"task": "gamma", "exposure": "years"}, {"y": 0.0}, "The task gamma needs positive numbers, and target 'y' holds 0"),
        ({"task": "tweedie"}, {"y": -1.5}, r"The task tweedie needs numbers >= 0, and target 'y' holds -1\.5"),
        ({"task": "regression", "exposure": "years"}, {}, "exposure needs one of the tasks counts, gamma, tweedie, got reg"),
        ({"exposure": "years"}, {}, r"got regression, which was inferred from the target \(numbers\)"),
        ({"task": "gamma", "exposure": "years"}, {"years": -1.0}, "'years' must contain positive numbers, got -1"),
        ({"task": "gamma", "exposure": "years"}, {"years": np.nan}, "The exposure column 'years' has no value in 1 of 240"),
        ({"task": "gamma", "exposure": "name"}, {}, "The exposure column 'name' must contain positive numbers"),
        ({"task": "gamma", "offset": "years"}, {"years": 365.0}, "holds 365, and an offset must lie between -"),
        ({"task": "gamma", "offset": "years", "exposure": "years"}, {}, "cannot be both the offset column and the exposure column"),
        ({"task": "tweedie", "tweedie_power": 2.5}, {}, r"tweedie_power must lie between 1 and 2 \(exclusive\), such as 1.5, got 2.5"),
        ({"task": "gamma", "class_weight": "balanced"}, {}, "class_weight needs a target with classes, got the task gamma"),
        ({"task": "gamma", "class_weight": "even"}, {}, "class_weight must be 'balanced' or a dict from classes to weights"),
    ],
    ids=[
        "gamma", "tweedie", "task", "inferred", "negative", "missing", "text", "large", "roles", "power", "numbers", "word"
    ],
)  # fmt: skip
def test_columns_and_settings_that_cannot_be_used_are_refused(settings, changes, message, claims) -> None:
    frame = claims[["age", "years", "gamma"]].rename(columns={"gamma": "y"})
    frame["name"] = ["a", "b", "c", "d"] * 60
    for column, value in changes.items():
        frame.loc[3, column] = value

    with pytest.raises(DataError, match=message):
        run_study(frame, "y", **settings, **FAST)


def test_a_target_of_positive_numbers_is_not_inferred_to_be_gamma(claims) -> None:
    study = run_study(take(claims, "gamma"), "gamma", **FAST)

    assert study.description["data"]["task"] == "regression"


# ---------------------------------------------------------------- class weights


@pytest.fixture(scope="module")
def classes() -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(300, 2)), columns=["a", "b"])
    frame["y"] = np.where(frame["a"] + random.normal(size=300) > 1.5, "yes", "no")
    return frame


@pytest.mark.parametrize("class_weight", ["balanced", {"yes": 3.0}], ids=["balanced", "dict"])
def test_the_accuracy_is_weighted_by_class_and_the_metrics_are_not(class_weight, classes) -> None:
    study = run_study(classes, "y", class_weight=class_weight, **FAST)
    training, testing = split_test_rows(study.findings.table, 0.2, 0)
    rows = classes.iloc[testing]

    predicted = study.predict(rows)

    counts = classes["y"].iloc[training].value_counts()
    weights = 1.0 / counts if class_weight == "balanced" else pd.Series({"no": 1.0, "yes": 3.0})
    accuracy = accuracy_score(rows["y"], predicted["y"], sample_weight=rows["y"].map(weights))
    assert study.findings.saved.score.value == pytest.approx(accuracy, abs=1e-6)
    assert study.results.loc["none", "score_name"] == "class-weighted accuracy"
    probability = predicted[["probability of no", "probability of yes"]]
    assert study.metrics["log loss"] == pytest.approx(log_loss(rows["y"], probability), rel=1e-5)
    assert study.metrics["majority rate"] == pytest.approx((rows["y"] == "no").mean())
    assert "The most frequent class has" not in " ".join(study.description["answer"])


def test_class_weights_make_rare_classes_more_probable(classes) -> None:
    plain, weighted = (run_study(classes, "y", class_weight=each, **FAST) for each in (None, "balanced"))

    rates = [study.predict(classes)["probability of yes"].mean() for study in (plain, weighted)]

    assert rates[0] == pytest.approx((classes["y"] == "yes").mean(), abs=0.05)
    assert rates[1] > rates[0] + 0.15
    assert "The loss and the accuracy are weighted by class".lower() in render_page(weighted.findings, "runs/x").lower()


def test_classes_of_numbers_are_named_as_numbers(classes) -> None:
    frame = classes.assign(y=(classes["y"] == "yes").astype(int))

    study = run_study(frame, "y", class_weight={1: 3}, **FAST)

    assert study.description["settings"]["class_weight"] == {"1": 3}
    with pytest.raises(DataError, match="class_weight names '2', which is not a class. The classes are '0', '1'"):
        run_study(frame, "y", class_weight={2: 3}, **FAST)


# ---------------------------------------------------------------- quantiles


def make_crossing(inputs: int, outputs: int) -> keras.Model:
    """Return a linear network. Its second output is lower than the first one where the input is negative."""
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(outputs)])


def test_quantiles_of_a_custom_network_are_in_order_wherever_they_are_used() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.uniform(0.2, 2.0, 200) * np.where(np.arange(200) % 20, 1.0, -1.0)})
    frame["y"] = frame["a"] * random.uniform(-1.0, 1.0, 200)
    settings = {**FAST, "quantiles": (0.1, 0.9)}

    study = run_study(frame, "y", task="quantile", model=make_crossing, **settings)

    predicted = study.predict(frame).to_numpy()
    raw = keras.ops.convert_to_numpy(study.model(study.encoder.transform(frame[["a"]])))
    assert (np.diff(raw, axis=1) < 0).any()
    assert (np.diff(predicted, axis=1) >= 0).all()
    _, testing = split_test_rows(study.findings.table, 0.2, 0)
    np.testing.assert_allclose(study.findings.predicted.predictions, predicted[testing], rtol=1e-5)
    fitted = poise.PathRegressor(
        loss="quantile", quantile=(0.1, 0.9), model=make_crossing, strengths=[1e-6], cv=2, max_iter=300
    ).fit(frame[["a"]], frame["y"])
    assert (np.diff(fitted.predict(frame[["a"]]), axis=1) >= 0).all()


def test_a_study_of_quantiles_predicts_one_column_for_each(tmp_path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(300, 2)), columns=["a", "b"])
    frame["y"] = 100.0 + 10.0 * (frame["a"] + random.normal(size=300))
    settings = {**FAST, "hidden_layer_sizes": (8,), "penalties": ["group"], "quantiles": (0.1, 0.6)}

    study = run_study(frame, "y", task="quantile", **settings)

    predicted = study.predict(frame)
    assert list(predicted.columns) == ["quantile 0.1 of y", "quantile 0.6 of y"]
    assert (np.diff(predicted, axis=1) > 0).all()
    _, testing = split_test_rows(study.findings.table, 0.2, 0)
    actual, quantiles = frame["y"].to_numpy()[testing], predicted.to_numpy()[testing]
    losses = [mean_pinball_loss(actual, quantiles[:, number], alpha=q) for number, q in enumerate((0.1, 0.6))]
    assert study.metrics["pinball loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert study.metrics["10% quantile coverage"] == pytest.approx((actual <= quantiles[:, 0]).mean())
    inside = (actual >= quantiles[:, 0]) & (actual <= quantiles[:, 1])
    assert study.metrics["10% to 60% coverage"] == pytest.approx(inside.mean(), abs=1e-9)
    constants = np.quantile(actual, (0.1, 0.6))
    null = [
        mean_pinball_loss(actual, np.full(len(actual), c), alpha=q) for c, q in zip(constants, (0.1, 0.6), strict=True)
    ]
    assert study.findings.saved.score.value == pytest.approx(1.0 - np.sum(losses) / np.sum(null), rel=1e-3)
    assert study.references.loc["mean", "title"] == "Constant quantiles"
    study.save(tmp_path / "study")
    pd.testing.assert_frame_equal(Study.load(tmp_path / "study").predict(frame), predicted)
    page = render_page(study.findings, "runs/x")
    assert "the mean quantile 0.6 over test rows" in " ".join(page.split())
    assert "quantile 0.1, 0.6" in page
    assert "which loads after <code>import poise</code>" in page
    assert "standardized as" in page
    assert "predicting the mean has a loss" not in page
    assert "the share of actual values at or below a predicted quantile is equal to the quantile" in page
