"""Everything that a study finds: the candidates with their paths, and the training of the chosen network.

Reports and the saved folder are made from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise.compaction import compact
from poise.path.result import RegularizationPath
from poise.study.candidates.choice import row_at
from poise.study.candidates.penalties import DROPOUT, get_penalty, selects_columns
from poise.study.columns.encoding import Encoder
from poise.study.held_out import HeldOutLosses
from poise.study.importance import PartialDependence
from poise.study.predicted_rows import PredictedRows
from poise.study.scores import Estimate, RowScores
from poise.study.settings import FULL_TRAINING, NO_PENALTY, Settings
from poise.study.stability_selection import StabilitySelection
from poise.study.tables import Table
from poise.study.verdict import Verdict
from poise.study.watching import WatchedTraining


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network with a penalty or dropout, or without, and the results of its path.

    Args:
        name: `"none"`, `"full_training"`, the name of the penalty, `"dropout"`, or `"selection"`.
        title: The name in tables and sentences.
        path: The regularization path; after adaptive stages the last one, and without a penalty the path of strength 0.
            The strengths of dropout are its rates.
        stage: The stage that predicts: of the path and its stages the one with the lowest held-out loss.
        strength: The strength that predicts: the one in `stage` with the lowest held-out loss.
        encoder: The encoder of the features, fitted on all training rows.
        columns: The columns that the network of `strength` reads; `None` if they cannot be determined.
        selection_strength: The strength of `path` that selects columns.
        selected: The columns that the network of `selection_strength` reads; `None` if they cannot be determined.
        stability: For each column the share of training runs at `selection_strength` (folds, all rows, initial
            weights) that select it; or `None`.
        val_loss: The held-out loss at `strength`.
        val_error: Its standard error over the folds.
        model: The network trained on all training rows at `strength`; it takes encoded rows.
        row_scores: The losses of the test rows.
        test_loss: The loss on the test rows.
        score: R², accuracy or the explained deviance on the test rows.
        gain: How much lower the test loss is than that of the baseline, on the same rows; NaN for `"none"`.
        held_out: The held-out losses of all its configurations; `None` for networks that are never chosen by them.
    """

    name: str
    title: str
    path: RegularizationPath
    stage: RegularizationPath
    strength: float
    encoder: Encoder
    columns: tuple[str, ...] | None
    selection_strength: float
    selected: tuple[str, ...] | None
    stability: pd.Series | None
    val_loss: float
    val_error: float
    model: keras.Model
    row_scores: RowScores
    test_loss: Estimate
    score: Estimate
    gain: Estimate
    held_out: HeldOutLosses | None

    @property
    def stages(self) -> list[RegularizationPath]:
        """The stages of the path in order, the last one included."""
        return [*self.path.stages, self.path]

    @property
    def loss(self) -> float:
        """The prediction loss of `model` on all training rows."""
        lanes = self.stage.lanes.table
        lanes = lanes[(lanes["fold"] < 0) & (lanes["seed"] == 0)]
        return float(lanes["loss"].iloc[int((lanes["strength"] - self.strength).abs().argmin())])

    @property
    def row(self) -> pd.Series:
        """The row of the stage's table at `strength`."""
        return row_at(self.stage, self.strength)


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference model, and the scores of its predictions.

    Args:
        name, title: As in `ReferenceFit`.
        val_loss: The held-out loss of its best setting, averaged over the folds.
        val_error: Its standard error over the folds.
        test_loss: The loss on the test rows.
        score: The score on the test rows.
        gain: How much lower the test loss is than that of the baseline, on the same rows.
        held_out: The held-out losses by unit.
    """

    name: str
    title: str
    val_loss: float
    val_error: float
    test_loss: Estimate
    score: Estimate
    gain: Estimate
    held_out: HeldOutLosses


@dataclass(frozen=True, eq=False)
class Findings:
    """The results of a study in full.

    Args:
        table: The data.
        settings: The settings.
        candidates: First the baseline, then the network without a penalty that takes all steps, then each penalty and
            dropout in the order requested.
        chosen: The name of the chosen candidate: the first penalty that is not significantly worse than the one with
            the lowest held-out loss (paired over rows, one-sided, 5%); the baseline if that penalty hurts; or the one
            requested.
        selection: The network of the columns that are selected, as a candidate of its own: that of `selector` at its
            selection strength. `None` if the network of `selector` that predicts is the same, or without a selector.
        importance: For each column its `importance`, `error` and `direction` in the network that is saved (see
            `poise.study.importance`).
        effects: For each column that is measured the partial dependence of the same network.
        predicted: The test rows with the predictions of the same network.
        center: What was subtracted from the target; 0 if the task does not standardize. (targets,) for several targets.
        scale: What it was divided by; 1 if the task does not standardize. (targets,) for several targets.
        rows: The numbers of `"training"` and `"test"` rows.
        watched: The training of the chosen candidate and of the baseline, by name.
        references: The reference models.
        verdict: The comparison of the choice with the baseline and the reference models.
        metrics: Further scores of the saved network on the test rows, by name (see `Task.measure`).
        estimates: What predictions need besides the network (see `Task.estimate`).
        stability_selection: The columns that most halves of the training rows select; `None` if not requested.
        seconds: How long the study took.
    """

    table: Table
    settings: Settings
    candidates: tuple[Candidate, ...]
    chosen: str
    selection: Candidate | None
    importance: pd.DataFrame
    effects: Mapping[str, PartialDependence]
    predicted: PredictedRows
    center: float | np.ndarray
    scale: float | np.ndarray
    rows: Mapping[str, int]
    watched: Mapping[str, WatchedTraining]
    references: tuple[Reference, ...]
    verdict: Verdict
    metrics: Mapping[str, float]
    estimates: Mapping[str, Any]
    stability_selection: StabilitySelection | None
    seconds: float

    def __getitem__(self, name: str) -> Candidate:
        return {network.name: network for network in self.networks}[name]

    @property
    def baseline(self) -> Candidate:
        """The network without a penalty, with early stopping."""
        return self.candidates[0]

    @property
    def penalized(self) -> list[Candidate]:
        """The candidates with a penalty or dropout."""
        return [candidate for candidate in self.candidates if is_regularized(candidate)]

    @property
    def best(self) -> Candidate:
        """The chosen candidate."""
        return self[self.chosen]

    @property
    def networks(self) -> list[Candidate]:
        """The candidates, with the network of the selected columns below the one that selects them."""
        selector, selection = self.selector, self.selection
        selected = {} if selector is None or selection is None else {selector.name: selection}
        pairs = ((candidate, selected.get(candidate.name)) for candidate in self.candidates)
        return [network for pair in pairs for network in pair if network is not None]

    @property
    def saved(self) -> Candidate:
        """The network that is saved: the chosen one, or, if the study is sparse, that of the selected columns."""
        return choose_saved(self.best, self.candidates, self.selection, self.settings)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the network that is saved."""
        return self.saved.encoder

    @property
    def watched_candidates(self) -> list[Candidate]:
        """The candidates whose training was watched."""
        return [candidate for candidate in self.candidates if candidate.name in self.watched]

    @property
    def compact_model(self) -> keras.Model:
        """The saved network without its dead units, and, if the study is sparse, without the inputs it does not read.

        The network itself if its layers have no graph that poise can follow.
        """
        return self._compacted[0]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs of `compact_model`, of those that the encoder returns."""
        return tuple(self.encoder.inputs[at] for at in self._compacted[1])

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """The columns that predictions need: all in use, or, if the study is sparse, those that the network reads."""
        names = tuple(column.name for column in self.encoder.columns)
        read = self.saved.columns
        return names if read is None or not self.settings.sparse else tuple(name for name in names if name in read)

    @cached_property
    def _compacted(self) -> tuple[keras.Model, np.ndarray]:
        """The model to save, and the positions of its inputs."""
        model, every = self.saved.model, np.arange(len(self.encoder.inputs))
        try:
            return compact(model, drop_inputs=True) if self.settings.sparse else (compact(model), every)
        except TypeError:
            return model, every

    @property
    def selector(self) -> Candidate | None:
        """The candidate that selects columns; `None` if none does."""
        return choose_selector(self.candidates)

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per network: strength, losses, score and gain with their intervals, and the columns that it reads."""
        score = self.table.task.score_name
        rows = {}
        for candidate in self.networks:
            at_strength = candidate.row
            rows[candidate.name] = {
                "title": candidate.title,
                "encoding": candidate.encoder.encoding,
                "strength": candidate.strength,
                "loss": candidate.loss,
                "val_loss": candidate.val_loss,
                "val_error": candidate.val_error,
                **flatten_estimate("test_loss", candidate.test_loss),
                **flatten_estimate("gain", candidate.gain),
                "score_name": score,
                **flatten_estimate("score", candidate.score),
                "penalty": at_strength["penalty"],
                "zeros": int(at_strength["zeros"]),
                "zero_share": at_strength["zero_share"],
                "columns": np.nan if candidate.columns is None else len(candidate.columns),
                "relative_residual": at_strength["relative_residual"],
                "seconds": candidate.path.seconds,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("candidate")


def choose_selector(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate that selects columns: the last that drops columns, else the last that makes zeros."""
    selecting = [c for c in candidates if has_penalty(c) and c.selected is not None and selects_columns(c.name)]
    able = [c for c in selecting if get_penalty(c.name).drops_columns] or selecting
    adaptive = [c for c in able if get_penalty(c.name).adaptive]
    return (adaptive or able or [None])[-1]


def choose_saved(
    best: Candidate, candidates: Sequence[Candidate], selection: Candidate | None, settings: Settings
) -> Candidate:
    """Return the network to save: the chosen one, or, if the study is sparse, that of the selected columns."""
    return (selection or choose_selector(candidates) or best) if settings.sparse else best


def is_regularized(candidate: Candidate) -> bool:
    """Return whether a candidate has a penalty or dropout, and so competes with the baseline."""
    return candidate.name not in (NO_PENALTY, FULL_TRAINING)


def has_penalty(candidate: Candidate) -> bool:
    """Return whether a candidate has a penalty."""
    return is_regularized(candidate) and candidate.name != DROPOUT


def flatten_estimate(name: str, estimate: Estimate) -> dict[str, float]:
    """Return an estimate as `name`, `name_low` and `name_high`."""
    return {name if key == "value" else f"{name}_{key}": value for key, value in asdict(estimate).items()}
