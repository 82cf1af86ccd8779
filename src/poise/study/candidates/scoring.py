"""Score the networks of a study and the reference models, on held-out rows and on test rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from poise.path.result import RegularizationPath
from poise.study.candidates.choice import best_stage, row_at
from poise.study.candidates.references import REFERENCES, fit_reference
from poise.study.candidates.training import WITHOUT_PENALTY, title_of
from poise.study.columns.folds import Folds
from poise.study.encoded_rows import EncodedRows
from poise.study.errors import DataError
from poise.study.findings import Candidate, Reference
from poise.study.held_out import HeldOutRows, held_out_losses
from poise.study.scores import Estimate, RowScores, score_rows
from poise.study.settings import FULL_TRAINING, SELECTION
from poise.study.tables import Table

UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


def make_candidate(
    name: str,
    path: RegularizationPath,
    rows: Folds,
    test_rows: EncodedRows,
    baseline: RowScores | None,
    held_rows: HeldOutRows,
) -> Candidate:
    """Return a candidate with the network that predicts best.

    Args:
        name: Its name.
        path: Its path.
        rows: The training rows.
        test_rows: The test rows.
        baseline: The losses of the baseline on the test rows; `None` for the baseline itself.
        held_rows: The held-out rows.

    Raises:
        DataError: If training diverged at every strength.
    """
    try:
        stage = best_stage(path)
        losses = None if name == FULL_TRAINING else held_out_losses(held_rows, [*path.stages, path])
    except ValueError as error:
        raise DataError(f"{title_of(name)}: {error}") from None
    candidate = _score_network(name, title_of(name), path, stage, stage.best_strength, rows, test_rows, baseline)
    return replace(candidate, held_out=losses)


def make_selection(
    selector: Candidate | None, rows: Folds, test_rows: EncodedRows, baseline: RowScores
) -> Candidate | None:
    """Return the network of the selected columns, unless it is the one that predicts."""
    if selector is None or (selector.stage is selector.path and selector.strength == selector.selection_strength):
        return None
    title, path = f"{selector.title}, selected columns", selector.path
    return _score_network(SELECTION, title, path, path, selector.selection_strength, rows, test_rows, baseline)


def _score_network(
    name: str,
    title: str,
    path: RegularizationPath,
    stage: RegularizationPath,
    strength: float,
    rows: Folds,
    test_rows: EncodedRows,
    baseline: RowScores | None,
) -> Candidate:
    """Return the network of a strength of a stage, with its scores."""
    row, scorer, owners = row_at(stage, strength), test_rows.scorer, rows.encoder.owners
    selection_strength = path.best_strength if path.stages or name in WITHOUT_PENALTY else path.one_se_strength
    selected, stability = _select_columns(path, selection_strength, owners)
    model = stage.model(strength)
    scores = test_rows.score(model)
    return Candidate(
        name, title, path, stage, strength, _select_columns(stage, strength, owners)[0],
        selection_strength, selected, stability, float(row["val_loss"]), float(row["val_se"]), model, scores,
        scorer.loss(scores), scorer.score(scores), UNKNOWN if baseline is None else scorer.gain(scores, baseline), None,
    )  # fmt: skip


def score_references(
    table: Table, rows: Folds, test_rows: EncodedRows, held_rows: HeldOutRows, baseline: RowScores
) -> tuple[Reference, ...]:  # fmt: skip
    """Fit the reference models, and score them on the same rows as the networks."""
    references, scorer = [], test_rows.scorer
    for model in REFERENCES:
        fit = fit_reference(model, table.task, rows, test_rows.x, len(table.classes))
        scores = score_rows(scorer.task, scorer.y, fit.test_outputs)
        references.append(
            Reference(
                fit.name, fit.title, float(fit.fold_losses.mean()),
                float(fit.fold_losses.std(ddof=1) / np.sqrt(len(fit.fold_losses))),
                scorer.loss(scores), scorer.score(scores), scorer.gain(scores, baseline),
                held_rows.sum_over_units(held_rows.take_rows(fit.held_outputs)),
            )
        )  # fmt: skip
    return tuple(references)


def _select_columns(
    path: RegularizationPath, strength: float, owners: Sequence[str]
) -> tuple[tuple[str, ...] | None, pd.Series | None]:
    """The columns that the network of a strength reads, and for each column the share of its lanes that read it."""
    features = path.lanes.features
    if features is None:
        return None, None
    at = int(np.argmin(np.abs(path.strengths - strength)))
    is_read = pd.DataFrame(features[:, at].astype(bool).T, index=[*owners]).groupby(level=0, sort=False).any()
    selected = set(np.asarray(owners)[path.features(strength)])
    return tuple(column for column in is_read.index if column in selected), is_read.mean(axis=1)
