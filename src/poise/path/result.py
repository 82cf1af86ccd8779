"""What `poise.fit_path` returns: every strength of a grid, trained in every fold, and what to read from it."""

import glob
import html
import numbers
import os
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import keras
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from poise.layer_state import State
from poise.optimizer.penalized import PenalizedOptimizer
from poise.path import selection, storage
from poise.path.model_config import Blueprint, restoring
from poise.path.plots import path_picture
from poise.path.stages import adaptive_factors
from poise.path.tables import chosen_position, kept_of, path_table, printed_table, replicas_of, stability_table
from poise.path.training import Lanes, Training
from poise.rules.rule import Rule

NEAR = 1e-6
"""A strength is on the grid if it is as near to one there as this share of it."""


@dataclass(frozen=True, eq=False, repr=False)
class RegularizationPath:
    """The solutions over a grid of strengths, what they cost on rows held out, and what survives in them.

    `poise.fit_path` makes one. At every strength there is one lane a fold and a seed, by which the strength is judged, and
    one a seed that trains on all rows, which gives the model. With given validation rows one lane is both.

    Args:
        lanes: what all lanes left behind.
        architecture: the model as `keras.saving.serialize_keras_object` tells it.
        state: of its layers before training.
        rules: those that were used. A strength is that of the first; the others keep their ratio to it.
        training: how the lanes were trained.
        seconds: how long it took.
        stages: the adaptive stages before this one, each of which has those before it as its own.
        names: of the inputs; None for their positions.
        resolved: what the rules resolved to (`Plan.config`).
        relaxed: the same strengths trained once more without the penalty on what survived, or None.
        safe_mode: whether an architecture that holds Python code is refused, as for `keras.saving.load_model`.

    Attributes:
        strengths: (strengths,) the grid, ascending.
        table: a DataFrame, one row a strength. From the folds (the seeds of a fold averaged): `val_loss` and `loss`,
            the mean prediction losses on the rows held out and on those that trained, and their standard errors
            `val_se` and `loss_se` (NaN with a single fold). From the lane of `model(strength)`: `penalty`, `zeros` and
            `zero_share` (exact zeros of the penalized weights), `units` (live columns of the penalized kernels, and
            live groups of a joint penalty), `features` (inputs that are read; NaN where that cannot be told),
            `residual` and `relative_residual` (its share of the prediction gradient), `settled` (full-batch steps
            taken). `diverged` counts the lanes that did, and those that `failed` on a cluster; where one did, the
            strength is never chosen. `seconds` is what its lanes took, each an equal share of what its chunk took.

    Raises:
        ValueError: if there is not one name for every input.

    Example:
        >>> import poise, keras, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(0.05), loss="mse")
        >>> training = poise.Training(epochs=5, settle=0)
        >>> path = poise.fit_path(model, x, x[:, 0], poise.L1(), strengths=[0.01, 0.1], training=training, progress=False)
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

    def __post_init__(self):
        inputs = None if self.lanes.features is None else self.lanes.features.shape[2]
        if self.names is not None and inputs is not None and len(self.names) != inputs:
            raise ValueError(f"{len(self.names)} names for {inputs} inputs. Give one name for every input.")

    @property
    def strengths(self) -> np.ndarray:
        return self._table["strength"].to_numpy(copy=True)

    @property
    def table(self) -> pd.DataFrame:
        return self._table.copy()

    @property
    def best_strength(self) -> float:
        """The strength of the grid with the lowest mean validation loss, the largest of equals: for prediction.

        Raises:
            ValueError: if at every strength a lane diverged.
        """
        return self._strength(selection.minimum(self._judged))

    @property
    def best_between(self) -> float:
        """Where a parabola in log strength through the lowest mean and its neighbors is lowest: for a refit.

        No lane has been trained at this strength, unless it is one of the grid (`best` at an end of the grid).

        Raises:
            ValueError: if at every strength a lane diverged.
        """
        return selection.vertex(self.strengths, self._judged)

    @property
    def one_se_strength(self) -> float:
        """The largest strength whose mean is within one standard error of the lowest: for what survives.

        It is `lambda.1se` of glmnet.

        Raises:
            ValueError: if there is a single fold, or at every strength a lane diverged.
        """
        return self._strength(selection.one_standard_error(self._judged, self._errors))

    def at(self, max_features: int) -> float:
        """The strength with the lowest mean validation loss among those that read at most so many inputs.

        Raises:
            TypeError: if `max_features` is no whole number.
            ValueError: if no strength reads so few, or it cannot be told which inputs are read.
        """
        if isinstance(max_features, bool) or not isinstance(max_features, numbers.Integral):
            raise TypeError(f"max_features={max_features!r} is no number of inputs: give a whole number ≥ 0.")
        self._known_features()
        return self._strength(selection.at_most(self._judged, self._table["features"].to_numpy(), int(max_features)))

    @property
    def stability(self) -> pd.DataFrame:
        """The share of lanes that read an input, one row an input, one column a strength.

        All lanes count, those of the folds and those of all rows, save those that diverged; NaN where all did.

        Raises:
            ValueError: if it cannot be told which inputs are read.
        """
        features = self._known_features()
        return stability_table(self.lanes, features, range(features.shape[2]) if self.names is None else self.names)

    def features(self, strength: float) -> np.ndarray:
        """The positions of the inputs that the model of a strength still reads, ascending.

        Raises:
            ValueError: if the strength is not on the grid, or it cannot be told which inputs are read.
        """
        return np.flatnonzero(self._known_features()[kept_of(self.lanes)[0], self._position(strength)])

    def rules_at(self, strength: float, fold: int | None = None) -> list[Rule]:
        """The rules under which the lanes of a strength were trained, to train with them again.

        In an adaptive stage there is one rule for every variable and penalty, with the stage's factors.

        Args:
            strength: any, also between those of the grid.
            fold: whose factors, of the first seed; None for those of the model of all rows.
        """
        ratios = [rule.penalty.strength / self.rules[0].penalty.strength for rule in self.rules]
        if not self.stages:
            return [
                replace(rule, penalty=_changed(rule.penalty, strength=float(strength * ratio)))
                for rule, ratio in zip(self.rules, ratios, strict=True)
            ]
        optimizer = PenalizedOptimizer("sgd", [*self.rules], self.training.update or "auto").resolved_as(self.resolved)
        optimizer.build(self._blueprint.model.trainable_variables, self._blueprint.model)
        before = self.stages[-1].lanes
        factors = adaptive_factors(optimizer.targets, self._blueprint.by_own_paths(before.sizes), chosen_position(before))
        replicas = replicas_of(before)
        own = kept_of(before)[0] if fold is None else replicas.index[replicas["fold"] == fold][0]
        rules = []
        paths = [target.path for target in optimizer.targets]
        same = next((path for path in paths if paths.count(path) > 1), None)
        if same is not None:
            raise ValueError(
                f"{same!r} is the path of {paths.count(same)} variables, and no rule can give each its own factors. "
                "Give their layers different names."
            )
        for target in optimizer.targets:
            for number, penalty in target.penalties:
                given: dict = {"strength": float(strength * ratios[number])}
                if (target.index, number) in factors:
                    given["factors"] = factors[target.index, number][own, 0].tolist()
                changed = _changed(penalty, **given)
                alone = Rule(glob.escape(target.path), changed, name=f"{target.path} {number}")
                rules.append(replace(self.rules[number], penalty=changed) if target.is_joint else alone)
        return rules

    def weights(self, strength: float, seed: int = 0) -> list[np.ndarray]:
        """The weights of a strength after training on all rows, in the order of `model.weights`.

        Args:
            strength: one of the grid.
            seed: which draw of initial weights they come from; 0: the model's own.

        Raises:
            ValueError: if the strength is not on the grid, or there is no such seed.
        """
        at = self._position(strength)
        seeds = replicas_of(self.lanes)["seed"].iloc[kept_of(self.lanes)].tolist()
        if seed not in seeds:
            raise ValueError(f"seed={seed!r} was not trained: the seeds are {', '.join(map(str, seeds))}.")
        return [weight[seeds.index(seed), at].copy() for weight in self.lanes.weights]

    def model(self, strength: float, seed: int = 0) -> keras.Model:
        """A new Keras model, not compiled, with the weights of a strength; `poise` is not needed to load it.

        Args:
            strength, seed: as for `weights`.

        Raises:
            ValueError: if the strength is not on the grid, there is no such seed, or the model cannot be rebuilt.
        """
        weights = self.weights(strength, seed)
        model = self._blueprint.build()
        model.set_weights(weights)
        return model

    def predict(self, strength: float, x, batch_size: int = 256) -> np.ndarray:
        """What the model of a strength predicts for `x`, given as to `keras.Model.predict`.

        Raises:
            ValueError: if the strength is not on the grid, or the model cannot be rebuilt.
        """
        model = self._blueprint.model  # one model for all strengths, so that its prediction is compiled once
        model.set_weights(self.weights(strength))
        return model.predict(x, batch_size=batch_size, verbose=0)

    def plot(self) -> go.Figure:
        """Both losses over the strengths, the sizes of what a penalty acts on, and how much of the network survives.

        The marks are `best` and `one_se`, and the band is one standard error wide on both sides. Sizes are the norms
        of the groups where a penalty has groups, else those of the single weights.
        """
        first = kept_of(self.lanes)[0]
        grouped = self._blueprint.grouped or self.lanes.sizes
        sizes = {name: self.lanes.sizes[name][first] for name in grouped}
        title = f"strength of {type(self.rules[0].penalty).__name__} on {self.rules[0].name}"
        title += "; the other rules keep their ratio to it" if len(self.rules) > 1 else ""
        return path_picture(self._table, sizes, self._blueprint.label, self._blueprint.totals, self._marks, title)

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Saves the path as a folder of JSON, CSV and NumPy files, whole or not at all.

        Args:
            folder: where to.
            overwrite: whether a path that is saved there already may be replaced; nothing else ever is.

        Raises:
            FileExistsError: the folder holds something that may not be replaced.
            OSError: it cannot be written.
            ValueError: a rule selects by a function that could not be found again.
        """
        parts = {"": self, **{f"stage-{number}": stage for number, stage in enumerate(self.stages, 1)}}
        if self.relaxed is not None:
            parts["relaxed"] = self.relaxed
        storage.write_path(
            folder, {name: (part._record(), part.lanes, part.state) for name, part in parts.items()}, overwrite
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], safe_mode: bool = True) -> "RegularizationPath":
        """The path that `save` put into a folder, on any backend.

        Args:
            folder: where it is.
            safe_mode: False to allow Python code in it (a `Lambda` layer), if you trust its source.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it holds no saved path, one of a newer poise, a damaged one, or something that Keras cannot
                rebuild here.
        """
        parts = storage.read_path(folder)
        stages: tuple[RegularizationPath, ...] = ()
        for name in parts:
            if name.startswith("stage-"):
                stages += (cls._restored(parts[name], stages, None, safe_mode),)
        relaxed = cls._restored(parts["relaxed"], (), None, safe_mode) if "relaxed" in parts else None
        return cls._restored(parts[""], stages, relaxed, safe_mode)

    def __repr__(self):
        return f"{self._headline}\n{printed_table(self._table, self._marks).to_string(index=False)}"

    def _repr_html_(self) -> str:
        table = printed_table(self._table, self._marks).to_html(index=False, escape=True, border=0)
        return f"<p>{html.escape(self._headline)}</p>{table}"

    @cached_property
    def _table(self):
        return path_table(self.lanes, self._blueprint.totals["weights"])

    @cached_property
    def _blueprint(self):
        return Blueprint(
            self.architecture, self.state, self.lanes, self.rules, self.resolved, self.names, self.safe_mode
        )

    @cached_property
    def _judged(self):
        """The mean validation losses, (strengths,), NaN where a lane diverged, that of all rows included."""
        return np.where(self._table["diverged"] > 0, np.nan, self._table["val_loss"])

    @property
    def _errors(self):
        return self._table["val_se"].to_numpy()

    @cached_property
    def _marks(self):
        """By name the positions of `best` and `one_se`, as far as they can be told."""
        if not np.isfinite(self._judged).any():
            return {}
        best = selection.minimum(self._judged)
        if not np.isfinite(self._errors[best]):
            return {"best": best}
        return {"best": best, "one_se": selection.one_standard_error(self._judged, self._errors)}

    def _strength(self, position):
        return float(self._table["strength"].iloc[position])

    def _position(self, strength):
        """Where a strength is on the grid.

        Raises:
            TypeError: if it is no number.
            ValueError: if it is not on the grid.
        """
        if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
            raise TypeError(
                f"strength={strength!r} is no number: give one of path.strengths, such as path.best_strength."
            )
        grid = self._table["strength"].to_numpy()
        at = int(np.argmin(np.abs(grid - float(strength))))
        if not abs(grid[at] - strength) <= NEAR * grid[at]:
            first = int(np.clip(np.searchsorted(grid, float(strength)) - 1, 0, max(len(grid) - 2, 0)))
            near = " and ".join(f"{value:.7g}" for value in grid[first : first + 2])
            raise ValueError(
                f"No lane was trained at the strength {strength!r}; the nearest on the grid: {near}. Use one of "
                "path.strengths, or run poise.path with strengths=[...]."
            )
        return at

    def _known_features(self):
        if self.lanes.features is None:
            raise ValueError(
                "It cannot be told which inputs this model reads: an input reaches a layer that is not dense, "
                "convolutional or recurrent, or the model has no graph. path.weights(strength) has all weights."
            )
        return self.lanes.features.astype(bool)

    def _record(self):
        """All but the lanes, as JSON holds it."""
        return {
            "rules": [_serialized(rule) for rule in self.rules],
            "resolved": self.resolved,
            "training": asdict(self.training),
            "seconds": self.seconds,
            "names": self.names,
            "architecture": self._blueprint.architecture,
        }

    @classmethod
    def _restored(cls, part, stages, relaxed, safe_mode):
        record, lanes, state = part
        with restoring("A rule of the path"):
            rules = [keras.saving.deserialize_keras_object(rule, safe_mode=safe_mode) for rule in record["rules"]]
        names = None if record["names"] is None else tuple(record["names"])
        path = cls(
            lanes,
            record["architecture"],
            state,
            tuple(rules),
            Training(**record["training"]),
            record["seconds"],
            stages,
            names,
            relaxed,
            resolved=record["resolved"],
            safe_mode=safe_mode,
        )
        _ = path._blueprint.model  # what cannot be rebuilt is said here
        return path

    @property
    def _headline(self):
        replicas = replicas_of(self.lanes)
        folds = replicas["fold"][replicas["fold"] >= 0].nunique()
        counts = {"strength": len(self._table), "fold": folds, "seed": len(kept_of(self.lanes))}
        size = " × ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items())
        rules = ", ".join(f"{type(rule.penalty).__name__} on {rule.name}" for rule in self.rules)
        stages = f", after {len(self.stages)} adaptive stage{'s'[: len(self.stages) - 1]}" if self.stages else ""
        return f"RegularizationPath of {rules}: {size}{stages}, {self.seconds:.1f} s"


def _changed(penalty, **arguments):
    """The same penalty, called with other arguments."""
    return type(penalty).from_config({**penalty.get_config(), **arguments})


def _serialized(rule):
    config = keras.saving.serialize_keras_object(rule)
    try:
        keras.saving.deserialize_keras_object(config, safe_mode=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Rule {rule.name!r} cannot be saved, because it could not be found again on loading. Select by a glob or "
            "a role, or register its function with keras.saving.register_keras_serializable."
        ) from error
    return config
