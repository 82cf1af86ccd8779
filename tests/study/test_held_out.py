"""Held-out losses by row are those that the lanes report."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poise.path.training import Replica
from poise.study import held_out
from poise.study.run import run_study
from poise.study.scores import RowScores
from poise.study.tasks.regression import Regression

FAST: dict[str, Any] = {"max_iter": 60, "strengths": 4, "cv": 3, "hidden_layer_sizes": (8,), "penalties": ["l2", "l1"]}


def frame(rows: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 3))
    return pd.DataFrame(x, columns=[*"abc"]).assign(
        y=x @ [1.0, 0.5, 0.0] + random.normal(size=rows),
        w=random.uniform(0.5, 2.0, rows),
        group=np.arange(rows) // 3,
        day=np.arange(rows),
        kind=np.where(x[:, 0] + random.normal(size=rows) > 0, "yes", "no"),
    )


@pytest.mark.parametrize("target", ["y", "kind"])
def test_the_chosen_configuration_has_the_reported_loss(target) -> None:
    data = frame().drop(columns=["w", "group", "day", "kind" if target == "y" else "y"])

    findings: Any = run_study(data, target, **FAST).findings

    for name in ("none", "l2", "l1"):
        candidate = findings[name]
        losses = candidate.held_out.losses.mean(axis=0)
        # Folds of equal size: the mean over the rows is the mean over the folds.
        if name == "l1":  # the networks at the end of training, one per strength
            position = [*candidate.path.strengths].index(candidate.strength)
            assert losses.shape == candidate.path.strengths.shape
            assert losses[position] == pytest.approx(candidate.val_loss, rel=1e-5)
        else:
            # One per strength and checkpoint. The path takes a shorter training if it is about as good as the best.
            assert np.abs(losses - candidate.val_loss).min() < 1e-5 * candidate.val_loss
            assert losses.min() <= candidate.val_loss * (1.0 + 1e-5)
    assert findings["full_training"].held_out is None
    terms = findings["l2"].held_out.score_terms
    assert set(np.unique(terms)) == {0.0, 1.0} if target == "kind" else (terms >= 0).all()


def test_weights_count() -> None:
    findings: Any = run_study(frame().drop(columns=["group", "day", "kind"]), "y", weight="w", **FAST).findings

    candidate = findings["l1"]
    training = findings.rows["training"]
    assert candidate.held_out.losses.shape[0] == training
    means = [reference.held_out.losses.sum() for reference in findings.references]
    assert means[0] / training == pytest.approx(findings.references[0].val_loss, rel=0.05)  # the mean weight is 1


@pytest.mark.parametrize(("role", "units"), [({"groups": "group"}, 24), ({"time_column": "day"}, None)])
def test_groups_and_blocks_of_time_are_units(role, units) -> None:
    kept = {"group", "day"} & {*role.values()}
    data = frame().drop(columns=["w", "kind", *({"group", "day"} - kept)])

    findings: Any = run_study(data, "y", **role, **FAST).findings

    count = len(findings["l2"].held_out.losses)
    if units is not None:
        assert count == units
    else:  # the first quarter of the rows is never held out
        assert count < min(held_out.TIME_BLOCKS, findings.rows["training"])


def test_of_many_rows_some_are_predicted(monkeypatch) -> None:
    monkeypatch.setattr(held_out, "MOST_NUMBERS", 30)

    findings: Any = run_study(frame().drop(columns=["w", "group", "day", "kind"]), "y", **FAST).findings

    assert len(findings["l2"].held_out.losses) == 30
    assert len(findings.references[0].held_out.losses) == 30


def folds_of(*sizes: int) -> Any:
    every = np.arange(sum(sizes))
    held = np.split(every, np.cumsum(sizes)[:-1])
    replicas = [Replica(fold, 0, np.setdiff1d(every, rows), rows) for fold, rows in enumerate(held)]
    return SimpleNamespace(replicas=[*replicas, Replica(-1, 0, every, every[:0])])


@pytest.mark.parametrize(
    ("sizes", "outputs", "most"),
    [((10, 20, 30), 1, 30), ((10, 20, 40), 1, 30), ((10, 50, 50), 1, 25), ((30, 30, 30), 2, 10), ((9, 9), 100, 1)],
)
def test_folds_share_the_predictions_that_fit(sizes, outputs, most, monkeypatch) -> None:
    monkeypatch.setattr(held_out, "MOST_NUMBERS", 60)

    assert held_out.count_predicted_rows(folds_of(*sizes), outputs) == most


def test_predictions_are_released_once_their_losses_are_known() -> None:
    findings: Any = run_study(frame().drop(columns=["w", "group", "day", "kind"]), "y", **FAST).findings

    assert all("predictions" not in candidate.path.lanes.history for candidate in findings.candidates)


def test_losses_that_are_not_finite_are_left_out(monkeypatch) -> None:
    score_rows = Regression.score_rows

    def score(task: Regression, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray) -> RowScores:
        scores = score_rows(task, y, outputs, weight)
        if outputs.ndim == 3:  # a network without a penalty, or with one, and all its configurations
            scores.losses[0, 0] = np.nan
        return scores

    data = frame().drop(columns=["w", "group", "day", "kind"])
    counts = count_configurations(data)
    monkeypatch.setattr(Regression, "score_rows", score)

    assert count_configurations(data) == {name: count - 1 for name, count in counts.items()}


def count_configurations(data: pd.DataFrame) -> dict[str, int]:
    findings: Any = run_study(data, "y", **FAST).findings
    losses = {name: findings[name].held_out.losses for name in ("none", "l2", "l1")}
    assert all(np.isfinite(each).all() for each in losses.values())
    return {name: each.shape[1] for name, each in losses.items()}


def test_initial_weights_are_averaged() -> None:
    findings: Any = run_study(frame().drop(columns=["w", "group", "day", "kind"]), "y", n_init=2, **FAST).findings

    candidate = findings["l2"]
    losses = candidate.held_out.losses.mean(axis=0)
    assert np.abs(losses - candidate.val_loss).min() < 1e-5 * candidate.val_loss
