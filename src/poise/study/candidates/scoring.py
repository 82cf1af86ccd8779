"""Score the networks of a study and the reference models, on held-out rows and on test rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from poise.path.result import RegularizationPath
from poise.study.candidates.choice import best_stage, read_columns, row_at, stable_strength
from poise.study.candidates.encodings import EncodedNetwork
from poise.study.candidates.linear_path import fit_linear_path
from poise.study.candidates.references import REFERENCES, fit_reference
from poise.study.candidates.training import WITHOUT_PENALTY, title_of
from poise.study.errors import DataError
from poise.study.findings import Candidate, Reference
from poise.study.held_out import HeldOutRows, held_out_losses, join_losses
from poise.study.scores import Estimate, RowScores
from poise.study.settings import FULL_TRAINING, SELECTION, STABLE_SELECTION, Settings
from poise.study.tables import Table

UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


def make_candidate(
    name: str,
    path: RegularizationPath,
    network: EncodedNetwork,
    baseline: RowScores | None,
    held_rows: HeldOutRows,
    selection: str,
) -> Candidate:
    """Return a candidate with the network that predicts best.

    Args:
        name: Its name.
        path: Its path.
        network: The network of the path, with its rows.
        baseline: The losses of the baseline on the test rows; `None` for the baseline itself.
        held_rows: The held-out rows.
        selection: How columns are selected, as in `Settings`.

    Raises:
        DataError: If training diverged at every strength.
    """
    try:
        stage = best_stage(path)
        losses = None if name == FULL_TRAINING else held_out_losses(held_rows, [*path.stages, path])
    except ValueError as error:
        raise DataError(f"{title_of(name)}: {error}") from None
    if name in WITHOUT_PENALTY:
        selects = path.best_strength
    elif selection == STABLE_SELECTION:
        selects = stable_strength(path, network.rows.encoder.owners)
    else:
        selects = path.selection_strength
    candidate = _score_network(name, title_of(name), path, stage, stage.best_strength, selects, network, baseline)
    return replace(candidate, held_out=losses)


def choose_encoding(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the lowest held-out loss of those that differ by their encoding.

    Its held-out losses are those of all of them, so that the verdict includes the price of this choice.
    """
    best = min(candidates, key=lambda candidate: candidate.val_loss)
    return replace(best, held_out=join_losses([candidate.held_out for candidate in candidates]))


def make_selection(selector: Candidate, network: EncodedNetwork, baseline: RowScores) -> Candidate | None:
    """Return the network of the selected columns, unless it is the one that predicts."""
    title, path, selects = f"{selector.title}, selected columns", selector.path, selector.selection_strength
    if selector.stage is path and selector.strength == selects:
        return None
    return _score_network(SELECTION, title, path, path, selects, selects, network, baseline)


def _score_network(
    name: str,
    title: str,
    path: RegularizationPath,
    stage: RegularizationPath,
    strength: float,
    selection_strength: float,
    network: EncodedNetwork,
    baseline: RowScores | None,
) -> Candidate:
    """Return the network of a strength of a stage, with its scores."""
    row, scorer, encoder = row_at(stage, strength), network.test_rows.scorer, network.rows.encoder
    selected, stability = _select_columns(path, selection_strength, encoder.owners)
    model = stage.model(strength)
    scores = network.test_rows.score(model)
    return Candidate(
        name, title, path, stage, strength, encoder, _select_columns(stage, strength, encoder.owners)[0],
        selection_strength, selected, stability, float(row["val_loss"]), float(row["val_se"]), model, scores,
        scorer.loss(scores), scorer.score(scores), UNKNOWN if baseline is None else scorer.gain(scores, baseline), None,
    )  # fmt: skip


def score_references(
    table: Table, network: EncodedNetwork, held_rows: HeldOutRows, baseline: RowScores, settings: Settings
) -> tuple[Reference, ...]:  # fmt: skip
    """Fit the reference models, and score them on the same rows as the networks, with numbers standardized."""
    rows, test_rows = network.rows, network.test_rows
    references, scorer = [], test_rows.scorer
    for model in REFERENCES:
        if not model.makers(table.task, rows.x.shape[1]):
            if model.fits_path:
                references.append(fit_linear_path(table.task, network, held_rows, baseline, settings))
            continue
        fit = fit_reference(model, table.task, rows, test_rows.x, len(table.classes))
        scores = scorer.score_rows(fit.test_outputs)
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
    is_read = read_columns(path, owners)
    if is_read is None:
        return None, None
    at = path.strengths[int(np.argmin(np.abs(path.strengths - strength)))]
    nearest = is_read.index.get_level_values("strength").to_numpy()
    lanes = is_read[np.isclose(nearest, at, rtol=1e-6, atol=0.0)]
    selected = set(np.asarray(owners)[path.features(strength)])
    return tuple(column for column in is_read.columns if column in selected), lanes.mean(axis=0)
