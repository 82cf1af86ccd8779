"""What the two estimators for scikit-learn share: training along a path, and the network of the chosen strength.

Every fold is standardized by its own training rows, so that held-out rows have no influence on their own evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import keras
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from poise.path.arguments import check_adaptive, check_rules, check_strengths
from poise.path.data.arrays import Data
from poise.path.data.folds import split_rows
from poise.path.executors.registry import check_executor
from poise.path.models import seed_initial_weights
from poise.path.solve import solve_path
from poise.path.training import Replica, Training
from poise.penalties import Penalty
from poise.rules.rule import Rule
from poise.study.candidates.choice import best_stage, row_at, stable_strength
from poise.study.candidates.network import ModelFunction, build_start
from poise.study.candidates.penalties import DROPOUT, get_penalty, make_rules
from poise.study.candidates.screening import choose_hidden_columns, hold_hidden_columns
from poise.study.columns.array_encoder import ArrayEncoder
from poise.study.columns.encoding import AUTO, PIECEWISE, STANDARD, check_encoding
from poise.study.columns.folds import standardize
from poise.study.predictions import predict_outputs
from poise.study.settings import Settings
from poise.study.tasks.base import Task
from poise.study.weights import scale_to_mean_one

Penalties = str | Penalty | Rule | Sequence[Penalty | Rule]
FLOATS = ["float64", "float32"]


class PathEstimator(BaseEstimator):
    """Everything except the meaning of y and of the network's outputs, which the two estimators define."""

    def __init__(
        self,
        penalty: Penalties,
        *,
        hidden_layer_sizes: Sequence[int],
        model: ModelFunction | None,
        strengths: int | Sequence[float],
        cv: Any,
        adaptive: int | None,
        selection: str,
        max_iter: int,
        early_stopping: bool,
        learning_rate: float,
        n_init: int,
        standardize: bool,
        encoding: str,
        random_state: Any,
    ) -> None:
        self.penalty = penalty
        self.hidden_layer_sizes = hidden_layer_sizes
        self.model = model
        self.strengths = strengths
        self.cv = cv
        self.adaptive = adaptive
        self.selection = selection
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.learning_rate = learning_rate
        self.n_init = n_init
        self.standardize = standardize
        self.encoding = encoding
        self.random_state = random_state

    def _fit(self, rows: "Rows", groups: Any) -> Self:
        """Train the path, choose the strength, and set the fitted attributes.

        Args:
            rows: The training rows.
            groups: (rows,) or `None`.
        """
        settings, X = self._settings(), rows.X
        replicas = split_rows(
            len(X), rows.y, self.cv, self.n_init, groups, sample_weight=rows.weight, are_classes=rows.classes > 0
        )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        fits = [
            self._fit_encoding(encoding, rows, replicas, settings, seed)
            for encoding in ((STANDARD, PIECEWISE) if self.encoding == AUTO else (self.encoding,))
        ]
        losses = [row_at(fit.path, fit.path.best_strength)["val_loss"] for fit in fits]
        best = fits[int(np.argmin(losses))]
        self.path_, self.selection_path_, self.encoder_ = best.path, best.last, best.encoder
        self.encoding_, self.scaler_ = best.encoder.encoding, best.encoder.scaler
        self.center_, self.scale_ = best.center, best.scale
        owners = [*map(str, best.encoder.owners)]
        selects = stable_strength(best.last, owners) if self.selection == "stable" else best.last.selection_strength
        if self.selection == "stable":
            self.strength_ = selects
        else:
            self.strength_ = self.path_.best_strength if self.selection == "best" else self.path_.one_se_strength
        with seed_initial_weights(seed):  # restores the generators
            self.model_ = self.path_.model(self.strength_)
        self.n_iter_ = int(row_at(self.path_, self.strength_)["settled"])
        self.feature_mask_ = self.support_ = None
        if self.path_.lanes.features is not None:
            read = self.encoder_.owners[self.path_.features(self.strength_)]
            self.feature_mask_ = np.isin(np.arange(X.shape[1]), read)
            selected = self.encoder_.owners[best.last.features(selects)]
            self.support_ = np.isin(np.arange(X.shape[1]), selected)
        return self

    def _fit_encoding(
        self,
        encoding: str,
        rows: "Rows",
        replicas: list[Replica],
        settings: Settings,
        seed: int,
    ) -> "_Fit":
        """Train the path with an encoding of the features, and return its stage that is used."""
        data, replicas, fitted = self._stack(rows, replicas, encoding)
        encoder, every = fitted.encoder, replicas[-1].train
        owners = [*map(str, encoder.owners)]
        hidden = None
        if encoding == PIECEWISE and settings.hidden_layer_sizes and self.model is None:
            is_screened = isinstance(self.penalty, str) and get_penalty(self.penalty).drops_columns
            blocks = replicas[: len(replicas) // self.n_init]
            hidden = choose_hidden_columns(
                data.x, data.y, data.sample_weight, blocks, owners, encoder.is_piece, rows.classes, is_screened
            )
        with seed_initial_weights(seed):
            start = build_start(
                rows.task, data.x.shape[1], rows.classes, data.y[every],
                None if rows.loss_weight is None else data.sample_weight[every],
                settings.hidden_layer_sizes, settings.learning_rate, self.model,
                None if hidden is None else hidden.inputs,
            )  # fmt: skip
            rules, adaptive = self._rules(start, owners)
            path = solve_path(
                start, rules, data, replicas,
                executor=check_executor("auto"),
                strengths=check_strengths(self.strengths),
                adaptive=adaptive,
                relax=False,
                training=Training.full_batch(
                    settings.max_iter, update="proximal", early_stopping=self.early_stopping
                ),
                checkpoint=None,
                report=lambda share: None,
                held_groups=None if hidden is None else hold_hidden_columns(start, rules, hidden, self.n_init),
            )  # fmt: skip
            return replace(fitted, last=path, path=best_stage(path) if self.selection == "best" else path)

    def _settings(self) -> Settings:
        if self.selection not in ("best", "one_se", "stable"):
            raise ValueError(f"selection must be 'best', 'one_se' or 'stable', got {self.selection!r}.")
        check_encoding(self.encoding)
        if isinstance(self.cv, tuple):
            raise ValueError("cv must be a number, a scikit-learn splitter or a list of pairs, got a tuple.")
        if not isinstance(self.hidden_layer_sizes, (list, tuple)):
            raise TypeError(f"hidden_layer_sizes must be a tuple such as (64,) or (), got {self.hidden_layer_sizes!r}.")
        return Settings(
            hidden_layer_sizes=tuple(self.hidden_layer_sizes),
            n_init=self.n_init,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
        )

    def _rules(self, start: keras.Model, owners: list[str]) -> tuple[list[Rule], int]:
        """Return the rules and the number of adaptive stages."""
        if self.penalty is None:
            raise ValueError("penalty must be a name such as 'l2', a penalty, a rule or a list of them, got None.")
        if self.penalty == DROPOUT:
            raise ValueError("penalty='dropout' is only for poise.run_study. Pass a penalty such as 'l2'.")
        if isinstance(self.penalty, str):
            rules = make_rules(self.penalty, start, owners)
            default = get_penalty(self.penalty).adaptive
        else:
            rules, default = check_rules(start, self.penalty), 0
        adaptive = default if self.adaptive is None else self.adaptive
        check_adaptive(adaptive)
        return rules, adaptive

    def _stack(
        self, rows: "Rows", replicas: list[Replica], encoding: str
    ) -> tuple[Data, list[Replica], "_Fit"]:  # fmt: skip
        """Return the rows as each fold sees them, block by block, the replicas, and what was fitted to all rows.

        The last block has all rows.
        """
        X, y, weight = rows.X, rows.y, rows.weight
        blocks = len(replicas) // self.n_init
        xs, ys, weights = [], [], []
        center: float | np.ndarray = 0.0
        scale: float | np.ndarray = 1.0
        encoder = ArrayEncoder(encoding, self.standardize).fit(X, weight)
        for replica in replicas[:blocks]:
            fold_weight = None if weight is None else weight[replica.train]
            of_fold = encoder
            if len(replica.held):
                of_fold = ArrayEncoder(encoding, self.standardize).fit(X[replica.train], fold_weight)
            values = y
            if rows.task.standardizes:
                values, center, scale = standardize(y, replica.train, fold_weight)
            xs.append(of_fold.transform(X, encoder))
            ys.append(values)
            if rows.loss_weight is not None:
                weights.append(scale_to_mean_one(rows.loss_weight, replica))
        targets = rows.task.encode(np.concatenate(ys))
        names = getattr(self, "feature_names_in_", None)
        starts = [len(X) * (number % blocks) for number in range(len(replicas))]
        moved = [
            replace(replica, train=replica.train + at, held=replica.held + at)
            for replica, at in zip(replicas, starts, strict=True)
        ]
        stacked_weight = np.concatenate(weights) if weights else None
        if names is not None:
            names = tuple(
                f"{names[owner]}{' piece' if is_piece else ''}"
                for owner, is_piece in zip(encoder.owners, encoder.is_piece, strict=True)
            )
        data = Data(np.concatenate(xs), targets, stacked_weight, blocks * len(X), names)
        return data, moved, _Fit(encoder, center, scale)

    def _outputs(self, X: Any) -> np.ndarray:
        """Return (rows, outputs) of the network."""
        check_is_fitted(self)
        x = self.encoder_.transform(np.asarray(validate_data(self, X, dtype=FLOATS, reset=False)))
        return predict_outputs(self.model_, x)


@dataclass(frozen=True, eq=False)
class Rows:
    """Training rows, checked.

    Args:
        X: (rows, features).
        y: (rows,) or (rows, outputs) numbers without their offset, or (rows,) class numbers.
        task: The task.
        classes: The number of classes; 0 if there are none.
        weight: (rows,) sample weights, or `None`.
        factor: (rows,) by which the weight in the loss is larger, for classes and offsets; or `None`.
    """

    X: np.ndarray
    y: np.ndarray
    task: Task
    classes: int
    weight: np.ndarray | None
    factor: np.ndarray | None = None

    @property
    def loss_weight(self) -> np.ndarray | None:
        """(rows,) the weights of the loss, or `None`."""
        if self.weight is None or self.factor is None:
            return self.factor if self.weight is None else self.weight
        return self.weight * self.factor


@dataclass(frozen=True, eq=False)
class _Fit:
    """What was fitted to all rows with one encoding.

    Args:
        encoder: The encoder of the features.
        center, scale: What standardizes the target; 0 and 1 if the task does not standardize.
        last: The path of the last adaptive stage. Default: `None`, before it is trained.
        path: The stage that is used. Default: `None`, before it is trained.
    """

    encoder: ArrayEncoder
    center: float | np.ndarray
    scale: float | np.ndarray
    last: Any = None
    path: Any = None


def check_weight(weight: Any, X: np.ndarray) -> np.ndarray | None:
    if weight is None:
        return None
    weight = column_or_1d(check_array(weight, ensure_2d=False, dtype="float64", input_name="sample_weight"))
    check_consistent_length(X, weight)
    if (weight < 0).any() or not weight.any():
        raise ValueError(
            f"sample_weight must be >= 0, and not zero in all rows, got values from {weight.min():g} to "
            f"{weight.max():g}. Use 0 to leave a row out."
        )
    return weight
