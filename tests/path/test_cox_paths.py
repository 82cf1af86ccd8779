"""Cox models along a path: the coefficients of scikit-survival, and the loss of a whole batch in every fold."""

import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from oracles.survival import draw_survival, negative_partial_log_likelihood
from sklearn.model_selection import KFold, StratifiedKFold
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg

import poise
from poise.path.data import batches
from poise.path.lanes import sources
from poise.path.models import is_cox

STRENGTHS = [0.003, 0.01, 0.03, 0.1]
PRECISE = poise.Training(epochs=1, batch_size=None, settle=400, tolerance=1e-6)
x, y, weights = draw_survival(120, 6)
both = pytest.mark.parametrize("ties", ["breslow", "efron"])


def fit(
    penalty: poise.Penalty, ties: Any = "breslow", rows: Any = (x, y), training: Any = PRECISE, **arguments: Any
) -> Any:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.Adam(0.05), poise.CoxPartialLikelihood(ties))
    arguments = {"strengths": STRENGTHS, "cv": 3, "progress": False, **arguments}
    return poise.fit_path(model, rows[0], rows[1], penalty, training=training, **arguments)


def coefficients_of(path: Any, strength: float) -> np.ndarray:
    return path.weights(strength)[0][:, 0].astype("float64")


def solve(x: np.ndarray, y: np.ndarray, strengths: Sequence[float] = STRENGTHS, l1_ratio: float = 1.0) -> np.ndarray:
    """Return the coefficients of scikit-survival, (strengths, columns)."""
    alphas = sorted(strengths, reverse=True)
    solver = CoxnetSurvivalAnalysis(alphas=alphas, l1_ratio=l1_ratio, tol=1e-12, fit_baseline_model=False)
    return solver.fit(x, Surv.from_arrays(y[:, 1] == 1, y[:, 0])).coef_.T[::-1]


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("has_ties", [False, True], ids=["distinct", "tied"])
def test_coefficients_are_those_of_coxnet(l1_ratio: float, has_ties: bool) -> None:
    x, y, _ = draw_survival(120, 6, ties=has_ties)
    path = fit(poise.ElasticNet(l1=l1_ratio, l2=(1 - l1_ratio) / 2), rows=(x, y))
    for strength, expected in zip(STRENGTHS, solve(x, y, l1_ratio=l1_ratio), strict=True):
        np.testing.assert_allclose(coefficients_of(path, strength), expected, atol=1e-5)
        assert path.features(strength).tolist() == np.flatnonzero(expected).tolist()


def slopes_of(coefficients: np.ndarray, ties: str) -> np.ndarray:
    """Return the gradient of the weighted partial likelihood by its definition."""
    moves = 1e-5 * np.eye(6)
    up, down = (
        [negative_partial_log_likelihood(y, x @ (coefficients + sign * move), weights, ties) for move in moves]
        for sign in (1, -1)
    )
    return (np.array(up) - down) / (2e-5 * len(y))


@both
def test_weighted_lasso_satisfies_its_optimality_conditions(ties: str) -> None:
    path = fit(poise.L1(), ties, sample_weight=weights)
    for strength in STRENGTHS:
        w = coefficients_of(path, strength)
        slopes = slopes_of(w, ties)
        np.testing.assert_allclose(slopes[w != 0], -strength * np.sign(w[w != 0]), atol=2e-6)
        assert (np.abs(slopes[w == 0]) <= strength).all()


@both
def test_weighted_ridge_satisfies_its_optimality_conditions(ties: str) -> None:
    path = fit(poise.L2(), ties, sample_weight=weights)
    for strength in STRENGTHS:
        w = coefficients_of(path, strength)
        np.testing.assert_allclose(slopes_of(w, ties), -2 * strength * w, atol=2e-6)


@both
def test_strength_zero_is_the_cox_model_of_statsmodels(ties: str) -> None:
    path = fit(poise.L1(), ties, strengths=[0.0])
    expected = PHReg(y[:, 0], x, status=y[:, 1], ties=ties).fit().params
    np.testing.assert_allclose(coefficients_of(path, 0.0), expected, atol=1e-5)


def verweij(train: np.ndarray, held: np.ndarray, strength: float) -> float:
    """Return the partial likelihood of all rows minus that of the training rows, at the training rows' solution."""
    w = solve(x[train], y[train], [strength])[0]
    both = np.concatenate([train, held])
    losses = [
        negative_partial_log_likelihood(y[rows], x[rows] @ w, np.ones(len(rows)), "breslow") for rows in (both, train)
    ]
    return (losses[0] - losses[1]) / len(held)


def assert_held_losses(path: Any, folds: Sequence) -> None:
    table = path.lanes.table
    for fold, (train, held) in enumerate(folds):
        measured = table[table["fold"] == fold].set_index("strength")["held_loss"]
        expected = [verweij(train, held, strength) for strength in STRENGTHS]
        np.testing.assert_allclose(measured[STRENGTHS], expected, rtol=1e-5)


FOLDS = [np.split(np.random.default_rng(fold).permutation(120), [size]) for fold, size in enumerate((70, 80, 90))]
"""Pairs of training and held-out rows; the smaller training sets are padded."""


def test_held_out_loss_is_the_cross_validated_partial_likelihood() -> None:
    assert_held_losses(fit(poise.L1(), cv=FOLDS), FOLDS)


def test_folds_without_common_rows_are_evaluated_one_by_one() -> None:
    folds = [(first + np.arange(45), first + np.arange(45, 60)) for first in (0, 60)]
    assert_held_losses(fit(poise.L1(), cv=folds), folds)


def test_every_step_has_all_rows_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 40 rows were the most that go through a lane at once: quasi-Newton steps need a small table."""
    monkeypatch.setattr(batches, "WHOLE", 40)
    monkeypatch.setattr(batches, "PART", 20)
    monkeypatch.setattr(sources, "WHOLE", 40)
    steps = poise.Training.full_batch(1000, tolerance=1e-6, early_stopping=True)
    path = fit(poise.L1(), training=steps, cv=FOLDS)
    np.testing.assert_allclose([coefficients_of(path, strength) for strength in STRENGTHS], solve(x, y), atol=2e-3)
    assert_held_losses(fit(poise.L1(), training=poise.Training.full_batch(2000, tolerance=1e-6), cv=FOLDS), FOLDS)


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> tuple:
        return x[number::2].astype("float32"), y[number::2].astype("float32")


def test_default_training_is_full_batch() -> None:
    assert fit(poise.L1(), training=None, strengths=[0.1]).training == poise.Training.full_batch(update="auto")


SPLITTER = StratifiedKFold(4, shuffle=True, random_state=0)


@pytest.mark.parametrize("cv", [4, SPLITTER], ids=["int", "splitter"])
def test_folds_are_stratified_by_events(cv: Any) -> None:
    losses, expected = (
        fit(poise.L1(), strengths=[0.1], cv=folds).lanes.table["held_loss"]
        for folds in (cv, list(SPLITTER.split(x, y[:, 1])))
    )
    np.testing.assert_array_equal(losses, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"cv": KFold(2)},
        {"validation_data": (x[:20], y[:20])},
        {"cv": 2, "groups": np.repeat([0, 1], 20)},
    ],
    ids=["splitter", "validation rows", "groups"],
)
def test_folds_without_censored_training_rows_train(arguments: dict[str, Any]) -> None:
    censored = np.arange(40) < 6
    rows = x[:40], np.stack([y[:40, 0], ~censored], axis=1)
    if "validation_data" in arguments:
        rows = rows[0][6:], rows[1][6:]
    assert np.isfinite(fit(poise.L1(), rows=rows, strengths=[0.1], **arguments).lanes.table["held_loss"][0])


def test_times_that_are_close_are_not_ties() -> None:
    """Seconds since 1970: in float32, all of them would be equal."""
    late = y + np.array([1.7e9, 0.0])
    held = {"validation_data": (x[:20], late[:20])}
    for shifted, plain in (
        (fit(poise.L1(), rows=(x, late)), fit(poise.L1())),
        (
            fit(poise.L1(), rows=(x[20:], late[20:]), **held),
            fit(poise.L1(), rows=(x[20:], y[20:]), validation_data=(x[:20], y[:20])),
        ),
    ):
        np.testing.assert_array_equal(shifted.weights(0.01)[0], plain.weights(0.01)[0])
        np.testing.assert_array_equal(shifted.lanes.table["held_loss"], plain.lanes.table["held_loss"])


def test_folds_without_censored_rows_train() -> None:
    observed = np.stack([y[:, 0], np.ones(len(y))], axis=1)
    assert np.isfinite(fit(poise.L1(), rows=(x, observed), strengths=[0.1]).lanes.table["held_loss"][:3]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training": poise.Training()}, "training has batch_size=32. Pass poise.Training(batch_size=None)"),
        ({"rows": (x, y[:, ::-1])}, "must be 1 for an event and 0 for a censored row"),
        ({"rows": (x, y[:, :1])}, r"y must have shape (rows, 2), time and event, got (120, 1)."),
        ({"rows": (x, y * [1, 0])}, "All 120 rows are censored or have weight 0."),
        ({"sample_weight": 1 - y[:, 1]}, "All 120 rows are censored or have weight 0."),
        (
            {"cv": [(np.flatnonzero(y[:, 1] == 0), np.flatnonzero(y[:, 1]))]},
            "All training rows of fold 0 are censored or have weight 0.",
        ),
        ({"rows": (Batches(), None), "cv": 2}, "which a stream of batches does not allow"),
    ],
    ids=["mini-batches", "swapped columns", "one column", "no events", "no weights", "fold", "stream"],
)
def test_what_cannot_be_trained_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(poise.L1(), **arguments)


@pytest.mark.parametrize("in_list", [False, True], ids=["loss", "list of losses"])
def test_the_loss_is_found_in_any_form(in_list: bool) -> None:
    loss = poise.CoxPartialLikelihood()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", [loss] if in_list else loss)
    assert is_cox(model)
    model.compile("adam", "mse")
    assert not is_cox(model)
