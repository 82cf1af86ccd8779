"""Held-out losses of single rows: what the networks of the folds predict for the rows that they did not train on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from poise.path.result import RegularizationPath
from poise.path.tables import replica_table
from poise.study.columns.folds import Folds
from poise.study.scores import MOST_UNITS, merge_units
from poise.study.tables import Table
from poise.study.tasks.base import Task

MOST_NUMBERS = 50_000
"""Approximate number of predictions kept per configuration. Larger tables use a random sample of the rows."""
TIME_BLOCKS = 50
"""With a column of time, rows are resampled in this many consecutive blocks."""


@dataclass(frozen=True, eq=False)
class HeldOutLosses:
    """Held-out losses of the configurations of a candidate: its strengths, stages and training lengths.

    Args:
        losses: (units, configurations), the weighted sums of the losses over the rows of a unit.
        score_terms: The same of the terms that the score averages (see `RowScores`).
    """

    losses: np.ndarray
    score_terms: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """The held-out rows of a study, and the units in which they are resampled.

    Args:
        task: The task.
        folds: The encoded rows.
        rows: For each fold the positions of its held-out rows in the stacked rows.
        units: For each of these rows, fold by fold, the number of its unit.
        weight: (units,) the sums of the weights of their rows.
        most_rows: The number of held-out rows of a fold that are predicted, at most.
    """

    task: Task
    folds: Folds
    rows: list[np.ndarray]
    units: np.ndarray
    weight: np.ndarray
    most_rows: int

    def take_rows(self, predictions: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return, of predictions for all held-out rows of each fold, those for the rows here."""
        folds = [replica for replica in self.folds.replicas if replica.fold >= 0]
        taken = []
        for fold, positions, outputs in zip(folds, self.rows, predictions, strict=True):
            order = np.argsort(fold.held)
            taken.append(outputs[order[np.searchsorted(fold.held, positions, sorter=order)]])
        return taken

    def sum_over_units(self, predictions: Sequence[np.ndarray]) -> HeldOutLosses:
        """Return the losses of predictions, for each fold (..., rows, outputs), the leading axes flattened."""
        losses, terms = [], []
        for positions, outputs in zip(self.rows, predictions, strict=True):
            weight = self.folds.weight_of(positions)
            scores = self.task.score_rows(self.folds.y[positions], outputs, weight)
            losses.append(np.reshape(scores.losses * weight, (-1, len(positions))))
            terms.append(np.reshape(scores.score_terms * weight, (-1, len(positions))))
        return HeldOutLosses(*(self._sum(np.concatenate(parts, axis=1)) for parts in (losses, terms)))

    def _sum(self, rows: np.ndarray) -> np.ndarray:
        """Return (units, configurations) of (configurations, rows)."""
        count = len(self.weight)
        return np.stack([np.bincount(self.units, row, minlength=count) for row in rows], axis=1)


def count_predicted_rows(folds: Folds, outputs: int) -> int:
    """Return how many held-out rows of a fold are predicted at every checkpoint, at most."""
    sizes = sorted(len(replica.held) for replica in folds.replicas if replica.fold >= 0)
    left = MOST_NUMBERS // outputs
    for number, size in enumerate(sizes):
        share = left // (len(sizes) - number)
        if size > share:  # as are all folds that follow
            return max(share, 1)
        left -= size
    return sizes[-1]


def find_held_out_rows(table: Table, training: np.ndarray, folds: Folds, outputs: int) -> HeldOutRows:
    """Return the held-out rows that are predicted.

    Args:
        table: The table.
        training: Positions of the training rows in the table.
        folds: The training rows, encoded.
        outputs: The number of outputs of the network.
    """
    count = count_predicted_rows(folds, outputs)
    rows = [replica.predicted_rows(count) for replica in folds.replicas if replica.fold >= 0]
    units = _number_units(table, training)[np.concatenate(rows) % len(training)]
    units = np.unique(units, return_inverse=True)[1]
    weights = folds.weight_of(np.concatenate(rows))
    return HeldOutRows(table.task, folds, rows, units, np.bincount(units, weights), count)


def held_out_losses(rows: HeldOutRows, stages: Sequence[RegularizationPath]) -> HeldOutLosses:
    """Return the held-out losses of all configurations of a candidate, averaged over its initial weights.

    Args:
        rows: The held-out rows.
        stages: The path of the candidate and the stages before it.

    Raises:
        ValueError: If no configuration has finite losses.
    """
    parts = [_losses_of_stage(rows, stage) for stage in stages]
    losses, terms = (
        np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("losses", "score_terms")
    )
    if not losses.shape[1]:
        raise ValueError(
            "The held-out loss is not finite at any strength. Scale the inputs, or lower the learning rate."
        )
    return HeldOutLosses(losses, terms)


def join_losses(parts: Sequence[HeldOutLosses | None]) -> HeldOutLosses | None:
    """Return the losses of all configurations of several candidates; `None` if one of them has none."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    losses = np.concatenate([part.losses for part in known], axis=1)
    return HeldOutLosses(losses, np.concatenate([part.score_terms for part in known], axis=1))


def release_predictions(stages: Iterable[RegularizationPath]) -> None:
    """Release the predictions of held-out rows, of which the losses are known: they take most of a path's memory."""
    for stage in stages:
        stage.lanes.history.pop("predictions", None)


def _losses_of_stage(rows: HeldOutRows, stage: RegularizationPath) -> HeldOutLosses:
    lanes, replicas = stage.lanes, replica_table(stage.lanes)
    lengths = lanes.history["length"]
    settled = lanes.table["settled"].to_numpy().reshape(lengths.shape[:2])
    takes_last = not all(rule.penalty.smooth for rule in stage.rules)
    predictions = []
    for number in np.flatnonzero(replicas["fold"] >= 0):
        outputs = lanes.history["predictions"][number]
        if takes_last:
            outputs = outputs[np.arange(len(outputs)), _last_checkpoint(lengths[number], settled[number])][:, None]
        outputs = outputs.reshape(-1, *outputs.shape[2:])
        predictions.append(outputs[:, : len(rows.rows[replicas["fold"][number]])])
    # The others are checkpoints that training did not reach, in some fold.
    is_known = np.logical_and.reduce([np.isfinite(outputs).all(axis=(1, 2)) for outputs in predictions])
    folds, seeds = len(rows.rows), replicas["seed"].nunique()
    by_seed = [
        rows.sum_over_units([outputs[is_known] for outputs in predictions[seed * folds : (seed + 1) * folds]])
        for seed in range(seeds)
    ]
    losses = np.mean([each.losses for each in by_seed], axis=0)
    terms = np.mean([each.score_terms for each in by_seed], axis=0)
    is_finite = np.isfinite(losses).all(axis=0)  # such as the Poisson loss of a prediction below 0
    return HeldOutLosses(losses[:, is_finite], terms[:, is_finite])


def _last_checkpoint(lengths: np.ndarray, settled: np.ndarray) -> np.ndarray:
    """Return (strengths,) the first checkpoint at which a lane had its final weights."""
    is_reached = lengths >= settled[:, None]
    last = np.where(np.isfinite(lengths), np.nan_to_num(lengths), -1.0).argmax(axis=1)
    return np.where(is_reached.any(axis=1), np.where(is_reached, lengths, np.inf).argmin(axis=1), last)


def _number_units(table: Table, training: np.ndarray) -> np.ndarray:
    """Return for each training row the number of the unit with which it is resampled."""
    count = len(training)
    if table.time is not None and table.groups is None:
        order = np.argsort(np.argsort(table.time.iloc[training].to_numpy(), kind="stable"), kind="stable")
        units = order * min(TIME_BLOCKS, count) // count
    elif table.units is not None:
        units = np.unique(table.units[training], return_inverse=True)[1]
    else:
        units = np.arange(count)
    if units.max() >= MOST_UNITS:
        units = merge_units(int(units.max()) + 1, seed=0)[units]
    return units
