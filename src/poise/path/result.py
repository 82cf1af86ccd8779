"""The result of `poise.fit_path`: every strength of a grid, trained in every fold."""

import html
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from poise._keras_internals import without_tensorflow
from poise.layer_state import State
from poise.path import selection, storage
from poise.path.dropout import find_lane_dropouts, replace_lane_dropout
from poise.path.model_config import ModelBuilder
from poise.path.plots import plot_path
from poise.path.stage_rules import plain_rules, rules_with_factors
from poise.path.strength_choice import StrengthChoice
from poise.path.tables import (
    full_positions,
    headline,
    path_table,
    printed_table,
    replica_table,
    reweighting_position,
    stability_table,
)
from poise.path.training import Lanes, Training
from poise.rules.rule import Rule


@dataclass(frozen=True, eq=False, repr=False)
class RegularizationPath(StrengthChoice):
    """The solutions over a grid of strengths, with their held-out losses and their nonzero weights.

    `poise.fit_path` returns one. A lane is one training at one strength. At each strength, one lane per fold and
    initialization is trained without the held-out rows of its fold and estimates the validation loss; one lane per
    initialization is trained on all rows and provides the model. With `validation_data`, the same lane does both.

    Args:
        lanes: The trained lanes.
        architecture: Configuration of the model, without how it was compiled.
        state: State of its layers before training.
        rules: Rules that were used. A strength is that of the first rule; the strengths of the others are scaled in
            proportion.
        training: How the lanes were trained.
        seconds: How long it took.
        stages: The adaptive stages that came before this path, in order; each is a `RegularizationPath` whose own
            `stages` are the earlier ones. Default: ().
        names: Names of the inputs. Default: None (their positions).
        relaxed: The same strengths trained once more without the penalty on the nonzero weights. Default: None.
        resolved: What the rules resolved to (`Plan.config`).
        safe_mode: Whether to refuse Python code in the architecture, as in `keras.saving.load_model`. Default: False.

    Attributes:
        strengths: (strengths,) the grid, ascending.
        table: DataFrame with one row per strength. From the folds (the initializations of a fold averaged): `val_loss`
            and `loss`, the mean prediction losses on held-out and on training rows, and their standard errors `val_se`
            and `loss_se` (NaN with a single fold). From the lane of `model(strength)`: `penalty`, `zeros` and
            `zero_share` (exact zeros of the penalized weights), `units` (live columns of the penalized kernels, and
            live groups of a joint penalty), `features` (inputs that the model reads; NaN if unknown), `residual` and
            `relative_residual` (its share of the prediction gradient), `settled` (full-batch steps taken), `diverged`
            and `failed` (the number of lanes that diverged or, on a cluster, failed; a failed lane counts as diverged).
            A strength at which any lane diverged or failed is never chosen. `seconds` is the training time of its
            lanes. Lanes are trained together in chunks; each counts an equal share of the time of its chunk.

        held_groups: A dict from the path of a variable to a bool array (replicas, groups): the groups of its penalty
            that were held at zero in all stages.

    Raises:
        ValueError: If there is not one name per input.

    Examples:
        >>> import poise, keras, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(0.05), loss="mse")
        >>> training = poise.Training(epochs=5, settle=0)
        >>> given = {"strengths": [0.01, 0.1], "training": training, "progress": False}
        >>> path = poise.fit_path(model, x, x[:, 0], poise.L1(), **given)
        >>> path.table.shape, path.model(path.best_strength).count_params()
        ((2, 16), 4)
    """

    lanes: Lanes
    architecture: dict
    state: State
    rules: tuple[Rule, ...]
    training: Training
    seconds: float
    stages: tuple["RegularizationPath", ...] = ()
    names: tuple[str, ...] | None = None
    relaxed: "RegularizationPath | None" = None
    resolved: dict = field(kw_only=True)
    safe_mode: bool = field(default=False, kw_only=True)
    held_groups: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        inputs = None if self.lanes.features is None else self.lanes.features.shape[2]
        if self.names is not None and inputs is not None and len(self.names) != inputs:
            raise ValueError(f"names has {len(self.names)} names, and the model has {inputs} inputs.")

    @property
    def table(self) -> pd.DataFrame:
        return self._table.copy()

    @property
    def stability(self) -> pd.DataFrame:
        """The share of lanes that read an input: one row per input, one column per strength.

        Lanes of the folds and lanes trained on all rows are both counted, except lanes that diverged; NaN if all did.

        Raises:
            ValueError: If the inputs that are read are unknown.
        """
        features = self._known_features()
        return stability_table(self.lanes, features, range(features.shape[2]) if self.names is None else self.names)

    def features(self, strength: float) -> np.ndarray:
        """Return the positions of the inputs that the model of a strength reads, ascending.

        Args:
            strength: One of the grid.

        Raises:
            ValueError: If the strength is not on the grid, or the inputs that are read are unknown.
        """
        return np.flatnonzero(self._known_features()[full_positions(self.lanes)[0], self._position(strength)])

    def rules_at(self, strength: float, fold: int | None = None) -> list[Rule]:
        """Return the rules under which the lanes of a strength were trained, to train with them again.

        In an adaptive stage there is one rule per variable and penalty, with the stage's factors. Weights that the
        stage before has dropped, or that are held at zero, have infinite factors; in the lanes, they started at zero. A
        path over dropout rates has no rules.

        Args:
            strength: Any strength, also between two strengths of the grid.
            fold: Use the adaptive factors of this fold (with the first initialization). Default: None, which uses the
                factors of the model trained on all rows.

        Raises:
            ValueError: If two variables share a path in an adaptive stage.
        """
        if self._has_dropout_rates:
            return []
        if not self.stages and not self.held_groups:
            return plain_rules(self.rules, strength)
        before = self.stages[-1].lanes if self.stages else None
        replicas = replica_table(self.lanes)
        replica = full_positions(self.lanes)[0] if fold is None else replicas.index[replicas["fold"] == fold][0]
        rename = self._builder.rename_sizes
        return rules_with_factors(
            self.rules, strength, self._builder.model, self.resolved, self.training.update or "auto",
            rename(self.held_groups), None if before is None else rename(before.sizes),
            0 if before is None else reweighting_position(before, not self.stages[:-1]), replica,
        )  # fmt: skip

    def weights(self, strength: float, seed: int = 0) -> list[np.ndarray]:
        """Return the weights of a strength after training on all rows, in the order of `model.weights`.

        Args:
            strength: One of the grid.
            seed: Which draw of initial weights they come from. Default: 0, the model's own.

        Raises:
            ValueError: If the strength is not on the grid, or there is no such seed.
        """
        at = self._position(strength)
        seeds = replica_table(self.lanes)["seed"].iloc[full_positions(self.lanes)].tolist()
        if seed not in seeds:
            raise ValueError(f"seed must be one of {', '.join(map(str, seeds))}, got {seed!r}.")
        return [weight[seeds.index(seed), at].copy() for weight in self.lanes.weights]

    @without_tensorflow()
    def model(self, strength: float, seed: int = 0) -> keras.Model:
        """Return a new Keras model, not compiled, with the weights of a strength. It loads without poise.

        Args:
            strength: One of the grid.
            seed: Which draw of initial weights the model comes from. Default: 0, the model's own.

        Raises:
            ValueError: If the strength is not on the grid, there is no such seed, or the model cannot be rebuilt.
        """
        weights = self.weights(strength, seed)
        model = self._builder.build()
        model.set_weights(weights)
        return replace_lane_dropout(model)

    def predict(self, strength: float, x: Any, batch_size: int = 256) -> np.ndarray:
        """Return the predictions of the model of a strength.

        Args:
            strength: One of the grid.
            x: Inputs as for `keras.Model.predict`.
            batch_size: Rows in a batch. Default: 256.

        Raises:
            ValueError: If the strength is not on the grid, or the model cannot be rebuilt.
        """
        model = self._builder.model  # one model for all strengths, so that its prediction is compiled once
        model.set_weights(self.weights(strength))
        return model.predict(x, batch_size=batch_size, verbose=0)

    def plot(self) -> go.Figure:
        """Return a Plotly figure of the losses, the sizes of the weights, and the shares that are not zero.

        Its three panels show, over the strengths: the losses; the absolute values of the weights, or the norms of the
        groups if a penalty has groups; and the shares of features, units and weights that are not zero. Vertical lines
        mark `best` and `one_se`; the band is one standard error wide on each side of the validation loss.
        """
        first = full_positions(self.lanes)[0]
        grouped = self._builder.grouped or self.lanes.sizes
        sizes = {name: self.lanes.sizes[name][first] for name in grouped}
        title = f"strength of {type(self.rules[0].penalty).__name__} on {self.rules[0].name}"
        title += "; the other rules keep their ratio to it" if len(self.rules) > 1 else ""
        title = "rate of dropout" if self._has_dropout_rates else title
        return plot_path(self._table, sizes, self._builder.label, self._builder.totals, self._marks, title)

    @without_tensorflow()
    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Save the path as a folder of JSON, CSV and NumPy files, whole or not at all.

        Args:
            folder: Where to.
            overwrite: Whether to replace a path that is saved there; nothing else is ever replaced. Default: False.

        Raises:
            FileExistsError: If the folder holds something that may not be replaced.
            OSError: If it cannot be written.
            ValueError: If a rule selects by a function that is not registered.
        """
        parts = {"": self, **{f"stage-{number}": stage for number, stage in enumerate(self.stages, 1)}}
        if self.relaxed is not None:
            parts["relaxed"] = self.relaxed
        storage.write_path(
            folder, {name: (part._record(), part.lanes, part.state) for name, part in parts.items()}, overwrite
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], safe_mode: bool = True) -> "RegularizationPath":
        """Return the path that `save` wrote, on any backend.

        Args:
            folder: Folder that `save` wrote.
            safe_mode: Pass False to allow Python code in it (a `Lambda` layer), if you trust its source. Default: True.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it is not a saved path, is of a newer version, is damaged, or holds something that Keras
                cannot rebuild here.
        """
        parts = storage.read_path(folder)
        stages: tuple[RegularizationPath, ...] = ()
        for name in parts:
            if name.startswith("stage-"):
                stages += (cls._restore(parts[name], stages, None, safe_mode),)
        relaxed = cls._restore(parts["relaxed"], (), None, safe_mode) if "relaxed" in parts else None
        return cls._restore(parts[""], stages, relaxed, safe_mode)

    def __repr__(self) -> str:
        return f"{self._headline}\n{printed_table(self._table, self._marks).to_string(index=False)}"

    def _repr_html_(self) -> str:
        table = printed_table(self._table, self._marks).to_html(index=False, escape=True, border=0)
        return f"<p>{html.escape(self._headline)}</p>{table}"

    @cached_property
    def _table(self) -> pd.DataFrame:
        return path_table(self.lanes, self._builder.totals["weights"])

    @cached_property
    def _builder(self) -> ModelBuilder:
        return ModelBuilder(
            self.architecture, self.state, self.lanes, self.rules, self.resolved, self.names, self.safe_mode
        )

    def _position(self, strength: float) -> int:
        return selection.grid_position(self._table["strength"].to_numpy(), strength)

    def _known_features(self) -> np.ndarray:
        if self.lanes.features is None:
            raise ValueError(
                "poise cannot determine which input features this model uses, because an input goes through a layer "
                "such as an embedding or a reshape, or the model is not functional or sequential. Use "
                "path.weights(strength), which returns all weights."
            )
        return self.lanes.features.astype(bool)

    def _record(self) -> dict[str, Any]:
        """Return all but the lanes, for JSON."""
        return {
            "rules": storage.serialize_rules(self.rules),
            "resolved": self.resolved,
            "training": asdict(self.training),
            "seconds": self.seconds,
            "names": self.names,
            "architecture": self._builder.architecture,
        }

    @classmethod
    def _restore(
        cls,
        part: tuple[dict, Lanes, State],
        stages: tuple["RegularizationPath", ...],
        relaxed: "RegularizationPath | None",
        safe_mode: bool,
    ) -> "RegularizationPath":
        record, lanes, state = part
        rules = storage.deserialize_rules(record["rules"], safe_mode)
        names = None if record["names"] is None else tuple(record["names"])
        path = cls(
            lanes,
            record["architecture"],
            state,
            rules,
            Training(**record["training"]),
            record["seconds"],
            stages,
            names,
            relaxed,
            resolved=record["resolved"],
            safe_mode=safe_mode,
        )
        _ = path._builder.model  # raises if it cannot be rebuilt
        return path

    @property
    def _headline(self) -> str:
        penalties = ", ".join(f"{type(rule.penalty).__name__} on {rule.name}" for rule in self.rules)
        return headline(self.lanes, "dropout" if self._has_dropout_rates else penalties, len(self.stages), self.seconds)

    @property
    def _has_dropout_rates(self) -> bool:
        """Whether the grid is of dropout rates, and no penalty acted."""
        return bool(find_lane_dropouts(self._builder.model))
