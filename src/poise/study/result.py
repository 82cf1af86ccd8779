"""What `poise.run_study` returns: the candidates beside each other, and what they came to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import keras
import numpy as np
import pandas as pd

from poise.compaction import compact
from poise.path.result import RegularizationPath
from poise.study.candidates.candidates import DEFAULTS, kind_of, row_of
from poise.study.columns.encoding import Encoder
from poise.study.scores import Estimate, Outcome, score_name
from poise.study.sources import DataError
from poise.study.tables import Table
from poise.study.watching import Watched

NONE = "none"


@dataclass(frozen=True)
class Settings:
    """How a study is done; what `poise.run_study` was asked for."""

    penalties: tuple[str, ...] = DEFAULTS
    choose: str | None = None
    hidden_layer_sizes: tuple[int, ...] = (64,)
    model: str | None = None
    cv: int = 4
    strengths: int = 13
    n_init: int = 1
    max_iter: int = 800
    learning_rate: float = 0.01
    test: float = 0.2
    seed: int = 0
    drop: tuple[str, ...] = ()
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None

    def __post_init__(self):
        known = {NONE, *self.penalties}
        limits = {
            "hidden_layer_sizes": (
                all(units >= 1 for units in self.hidden_layer_sizes),
                "hold one unit a layer at least, as (64, 32) or ()",
            ),
            "cv": (self.cv >= 2, "be at least 2"),
            "strengths": (self.strengths >= 3, "be at least 3"),
            "n_init": (self.n_init >= 1, "be at least 1"),
            "max_iter": (self.max_iter >= 1, "be at least 1"),
            "learning_rate": (0.0 < self.learning_rate < float("inf"), "be positive and finite, such as 0.01"),
            "test": (0.0 < self.test < 1.0, "lie between 0 and 1, such as 0.2"),
            "seed": (0 <= self.seed < 2**32, "lie between 0 and 2**32 - 1"),
            "choose": (self.choose is None or self.choose in known, f"be one of {', '.join(sorted(known))}"),
        }
        for name, (fine, demand) in limits.items():
            if not fine:
                raise DataError(f"{name} is {getattr(self, name)!r} and must {demand}.")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A penalty, or none, with what its path came to.

    Args:
        name: "none" or that of the penalty.
        title: as people read it.
        path: its path; after adaptive stages that of the last, and without a penalty the one at strength 0.
        stage: of the path and its stages the one whose held-out loss is lowest: the one that predicts.
        strength: of `stage`, with the lowest held-out loss.
        kept_at: the strength of `path` at which it is told what survives.
        kept: the columns that the network of `kept_at` reads; None where that cannot be told.
        stability: by column the share of the lanes of `kept_at` (folds, all rows, seeds) that read it; or None.
        val_loss, val_error: the held-out loss at `strength`, and its standard error over the folds.
        model: trained on all training rows at `strength`; it takes encoded rows.
        test_loss, score: on the test rows.
        gain: by how much the test loss is below that without a penalty, on the same rows; NaN for that one itself.
    """

    name: str
    title: str
    path: RegularizationPath
    stage: RegularizationPath
    strength: float
    kept_at: float
    kept: tuple[str, ...] | None
    stability: pd.Series | None
    val_loss: float
    val_error: float
    model: keras.Model
    outcome: Outcome
    test_loss: Estimate
    score: Estimate
    gain: Estimate

    @property
    def loss(self) -> float:
        """The prediction loss of `model` on all training rows."""
        lanes = self.stage.lanes.table
        lanes = lanes[(lanes["fold"] < 0) & (lanes["seed"] == 0)]
        return float(lanes["loss"].iloc[int((lanes["strength"] - self.strength).abs().argmin())])

    @property
    def row(self) -> pd.Series:
        """The strength's row of the table of its path."""
        return row_of(self.stage, self.strength)


@dataclass(frozen=True, eq=False)
class Study:
    """What `poise.run_study` returns.

    Args:
        table: the data.
        settings: what was asked for.
        candidates: without a penalty first, then each penalty in the order in which it was asked for.
        chosen: the name of the first penalized candidate that the folds do not show to be worse than that of the
            lowest held-out loss (paired t test, one-sided, 5%), or what was chosen by force.
        encoder: of the features, fitted on all training rows.
        center, scale: what the target was standardized by; (0, 1) but in regression.
        rows: how many rows train and how many test.
        watched: by name the chosen candidate and that without a penalty, as they train.
        seconds: how long it took.
    """

    table: Table
    settings: Settings
    candidates: tuple[Candidate, ...]
    chosen: str
    encoder: Encoder
    center: float
    scale: float
    rows: Mapping[str, int]
    watched: Mapping[str, Watched]
    seconds: float

    def __getitem__(self, name: str) -> Candidate:
        return {candidate.name: candidate for candidate in self.candidates}[name]

    @property
    def baseline(self) -> Candidate:
        return self.candidates[0]

    @property
    def best(self) -> Candidate:
        """The chosen candidate."""
        return self[self.chosen]

    @cached_property
    def smaller(self) -> keras.Model:
        """The network of the chosen candidate without its dead units: the same outputs from fewer parameters.

        The network itself where its layers have no graph that could be followed.
        """
        try:
            return compact(self.best.model)
        except TypeError:
            return self.best.model

    @property
    def selector(self) -> Candidate | None:
        """The candidate that tells what survives: the last that drops columns, else the last that makes zeros."""
        able = [c for c in self.candidates[1:] if c.kept is not None and kind_of(c.name).by_column]
        able = able or [c for c in self.candidates[1:] if c.kept is not None and c.name != "l2"]
        adaptive = [c for c in able if kind_of(c.name).adaptive]
        return (adaptive or able or [None])[-1]

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row a candidate: its strength, losses, score and gain with their intervals, and what is left of it."""
        score = score_name(self.table.task)
        rows = {}
        for one in self.candidates:
            own = one.row
            rows[one.name] = {
                "title": one.title,
                "strength": one.strength,
                "loss": one.loss,
                "val_loss": one.val_loss,
                "val_error": one.val_error,
                **_flat("test_loss", one.test_loss),
                **_flat("gain", one.gain),
                "score_name": score,
                **_flat("score", one.score),
                "penalty": own["penalty"],
                "zeros": int(own["zeros"]),
                "zero_share": own["zero_share"],
                "columns": np.nan if one.kept is None else len(one.kept),
                "relative_residual": own["relative_residual"],
                "seconds": one.path.seconds,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("candidate")


def _flat(name: str, estimate: Estimate) -> dict:
    return {name if key == "value" else f"{name}_{key}": value for key, value in asdict(estimate).items()}
