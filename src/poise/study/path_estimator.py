"""What the two estimators for scikit-learn share: training along a path, and the network of the chosen strength.

Every fold is standardized by its own training rows, so that held-out rows have no influence on their own evaluation.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import keras
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
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
from poise.study.candidates.choice import best_stage, row_at
from poise.study.candidates.network import ModelFunction, build_start
from poise.study.candidates.penalties import DROPOUT, get_penalty, make_rules
from poise.study.columns.encoding import LARGEST
from poise.study.columns.folds import standardize
from poise.study.columns.number_column import set_constants_to_zero
from poise.study.columns.weighting import fit_scaler
from poise.study.predictions import predict_outputs
from poise.study.settings import Settings
from poise.study.weights import scale_to_mean_one

Penalties = str | Penalty | Rule | Sequence[Penalty | Rule]
FLOATS = ["float64", "float32"]


class PathEstimator(BaseEstimator):
    """Everything except the meaning of y and of the network's outputs, which the two estimators define."""

    def __init__(
        self,
        penalty: Penalties = "l2",
        *,
        hidden_layer_sizes: Sequence[int] = (64,),
        model: ModelFunction | None = None,
        strengths: int | Sequence[float] = 13,
        cv: Any = 4,
        adaptive: int | None = None,
        selection: str = "best",
        max_iter: int = 800,
        early_stopping: bool = True,
        learning_rate: float = 0.01,
        n_init: int = 1,
        standardize: bool = True,
        random_state: Any = 0,
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
        self.random_state = random_state

    def _fit(
        self, X: np.ndarray, y: np.ndarray, task: str, classes: int, weight: np.ndarray | None, groups: Any
    ) -> Self:
        """Train the path, choose the strength, and set the fitted attributes.

        Args:
            X: (rows, features), checked.
            y: (rows,) numbers, or class numbers.
            task, classes: See `build_start`.
            weight: (rows,) checked sample weights, or `None`.
            groups: (rows,) or `None`.
        """
        settings = self._settings()
        replicas = split_rows(len(X), y, self.cv, self.n_init, groups, sample_weight=weight, are_classes=classes > 0)
        data, replicas = self._stack(X, y, task, weight, replicas)
        every = replicas[-1].train
        with seed_initial_weights(int(check_random_state(self.random_state).randint(2**31 - 1))):
            start = build_start(
                task, X.shape[1], classes, data.y[every], None if weight is None else data.sample_weight[every],
                settings.hidden_layer_sizes, settings.learning_rate, self.model,
            )  # fmt: skip
            rules, adaptive = self._rules(start, X.shape[1])
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
            )  # fmt: skip
            self.path_ = best_stage(path) if self.selection == "best" else path
            self.strength_ = self.path_.best_strength if self.selection == "best" else self.path_.one_se_strength
            self.model_ = self.path_.model(self.strength_)
        self.n_iter_ = int(row_at(self.path_, self.strength_)["settled"])
        self.feature_mask_ = None
        if self.path_.lanes.features is not None:
            self.feature_mask_ = np.isin(np.arange(X.shape[1]), self.path_.features(self.strength_))
        return self

    def _settings(self) -> Settings:
        if self.selection not in ("best", "one_se"):
            raise ValueError(f"selection must be 'best' or 'one_se', got {self.selection!r}.")
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

    def _rules(self, start: keras.Model, features: int) -> tuple[list[Rule], int]:
        """Return the rules and the number of adaptive stages."""
        if self.penalty is None:
            raise ValueError("penalty must be a name such as 'l2', a penalty, a rule or a list of them, got None.")
        if self.penalty == DROPOUT:
            raise ValueError("penalty='dropout' is only for poise.run_study. Pass a penalty such as 'l2'.")
        if isinstance(self.penalty, str):
            rules = make_rules(self.penalty, start, [*map(str, range(features))])
            default = get_penalty(self.penalty).adaptive
        else:
            rules, default = check_rules(start, self.penalty), 0
        adaptive = default if self.adaptive is None else self.adaptive
        check_adaptive(adaptive)
        return rules, adaptive

    def _stack(
        self, X: np.ndarray, y: np.ndarray, task: str, weight: np.ndarray | None, replicas: list[Replica]
    ) -> tuple[Data, list[Replica]]:
        """Return the rows as each fold sees them, block by block, and the replicas; the last block has all rows."""
        blocks = len(replicas) // self.n_init
        xs, ys, weights = [], [], []
        for replica in replicas[:blocks]:
            fold_weight = None if weight is None else weight[replica.train]
            self.scaler_ = None
            if self.standardize:
                self.scaler_ = StandardScaler().fit(X[replica.train])
                if fold_weight is not None:
                    fit_scaler(self.scaler_, X[replica.train], fold_weight)
                set_constants_to_zero(self.scaler_)
            values = y
            if task == "regression":
                values, self.center_, self.scale_ = standardize(y, replica.train, fold_weight)
            xs.append(self._inputs(X))
            ys.append(values)
            if weight is not None:
                weights.append(scale_to_mean_one(weight, replica))
        targets = np.concatenate(ys)
        targets = targets.astype("int32") if task == "multiclass" else targets.astype("float32")[:, None]
        names = getattr(self, "feature_names_in_", None)
        starts = [len(X) * (number % blocks) for number in range(len(replicas))]
        moved = [
            replace(replica, train=replica.train + at, held=replica.held + at)
            for replica, at in zip(replicas, starts, strict=True)
        ]
        stacked_weight = np.concatenate(weights) if weights else None
        names = None if names is None else tuple(names)
        return Data(np.concatenate(xs), targets, stacked_weight, blocks * len(X), names), moved

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        """Return the network's inputs."""
        x = X if self.scaler_ is None else self.scaler_.transform(X)
        return np.clip(x, -LARGEST, LARGEST).astype("float32")

    def _outputs(self, X: Any) -> np.ndarray:
        """Return (rows, outputs) of the network."""
        check_is_fitted(self)
        x = self._inputs(np.asarray(validate_data(self, X, dtype=FLOATS, reset=False)))
        return predict_outputs(self.model_, x)


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
