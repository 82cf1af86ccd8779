"""Estimators for scikit-learn: dense networks whose penalty strength is chosen by cross-validation along a path.

Every fold is standardized by its own training rows, so that held-out rows have no influence on their own evaluation.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import keras
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from poise.path.arguments import check_adaptive, check_rules, check_strengths
from poise.path.data.arrays import Data
from poise.path.data.folds import split_rows
from poise.path.executors.registry import check_executor
from poise.path.solve import solve_path
from poise.path.training import Replica, Training
from poise.penalties import Penalty
from poise.rules.rule import Rule
from poise.study.candidates.choice import best_stage, row_at
from poise.study.candidates.network import ModelFunction, build_start
from poise.study.candidates.penalties import make_rules, penalty_named
from poise.study.columns.encoding import LARGEST
from poise.study.columns.folds import standardize
from poise.study.columns.number_column import set_constants_to_zero
from poise.study.predictions import predict_probabilities
from poise.study.settings import Settings

Penalties = str | Penalty | Rule | Sequence[Penalty | Rule]
FLOATS = ["float64", "float32"]
BATCH_SIZE = 1024
"""Rows that are predicted at once; the last batch is padded, so that no prediction depends on the other rows."""


class _PathEstimator(BaseEstimator):
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
        with _seed_initial_weights(self.random_state):
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
                training=Training(epochs=0, settle=settings.max_iter, update="proximal"),
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
        if isinstance(self.penalty, str):
            rules = make_rules(self.penalty, start, [*map(str, range(features))])
            default = penalty_named(self.penalty).adaptive
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
                self.scaler_ = StandardScaler().fit(X[replica.train], sample_weight=fold_weight)
                set_constants_to_zero(self.scaler_)
            values = y
            if task == "regression":
                values, self.center_, self.scale_ = standardize(y, replica.train, fold_weight)
            xs.append(self._inputs(X))
            ys.append(values)
            if weight is not None:
                weights.append(_scale_to_mean_one(weight, replica))
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
        padded = np.zeros((-(-len(x) // BATCH_SIZE) * BATCH_SIZE, x.shape[1]), "float32")
        padded[: len(x)] = x
        parts = [self.model_(part, training=False) for part in np.split(padded, len(padded) // BATCH_SIZE)]
        return np.concatenate([*map(keras.ops.convert_to_numpy, parts)])[: len(x)].astype("float64")


class PathRegressor(RegressorMixin, _PathEstimator):
    """Fit a penalized network for regression, and choose its strength by cross-validation, as a scikit-learn estimator.

    It minimizes the mean squared error plus the penalty, by full-batch steps of Adam, once per strength and fold and
    once on all rows. As in glmnet, and unlike scikit-learn's linear models, features are standardized first, in every
    fold by its training rows: one strength for columns in different units means little. The target is always
    standardized.

    Args:
        penalty: `"l2"`, `"l1"`, `"group"`, `"adaptive"`, `"elasticnet"`, `"sparse_group"`, `"mcp"` or `"scad"`, as in
            `poise.run_study`; or a poise penalty, a `poise.Rule`, or a list of those with numbers as strengths, whose
            ratios the path keeps. In `"group"`, `"adaptive"` and `"sparse_group"` each feature is one group. Default:
            `"l2"`.
        hidden_layer_sizes: The units of each hidden layer, which are dense with ReLU; `()` is a linear model. Default:
            `(64,)`.
        model: A custom network: a function of the numbers of inputs and outputs that returns a built Keras model. If it
            is compiled, its optimizer is used. Outputs are logits for classes: one of the second class, or one per
            class if there are more than two. Default: `None`.
        strengths: The number of strengths of an automatic grid, or the strengths. Default: 13.
        cv: The number of folds, a scikit-learn splitter, or a list of pairs (training, held-out) of positions or masks.
            Default: 4.
        adaptive: The number of adaptive stages, as for `poise.fit_path`. Default: `None`, which is 2 for `"adaptive"`
            and 0 otherwise.
        selection: `"best"` takes the strength (and adaptive stage) with the lowest held-out loss; `"one_se"` takes, in
            the last stage, the largest strength within one standard error of the lowest loss: fewer features. Default:
            `"best"`.
        max_iter: The most full-batch steps per training (with more than 8,192 rows, steps on 4,096 rows in turn).
            Default: 800.
        learning_rate: Adam's learning rate at the start; it decays to 0. Default: 0.01.
        n_init: The number of initial weights by which a strength is evaluated; the network has the first. Default: 1.
        standardize: Whether to standardize features. Default: `True`.
        random_state: The seed of the initial weights, as in scikit-learn. A number of folds always gives the same
            folds. Default: 0.

    Attributes:
        path_: The `poise.RegularizationPath`; of adaptive stages the chosen one.
        strength_: The chosen strength.
        model_: The network trained on all rows, a plain Keras model of standardized features and target.
        scaler_: The `StandardScaler` of the features, which turns constants into 0; or `None`.
        center_: The mean of the target: a prediction is the network's output · `scale_` + `center_`.
        scale_: The standard deviation of the target.
        feature_mask_: (features,) whether the network reads each feature; `None` if that cannot be determined.
        n_iter_: The number of full-batch steps of the network.
        n_features_in_, feature_names_in_: As in scikit-learn.

    References:
        Friedman, Hastie and Tibshirani 2010, "Regularization paths for generalized linear models via coordinate
        descent" (standardization and the choice of a strength).

    Examples:
        >>> import numpy as np, poise
        >>> X = np.random.default_rng(0).normal(size=(80, 4))
        >>> regressor = poise.PathRegressor("group", hidden_layer_sizes=(), strengths=[0.01, 0.1], cv=2)
        >>> regressor.fit(X, 3.0 * X[:, 1] + 5.0).feature_mask_.tolist()
        [False, True, False, False]
        >>> regressor.predict([[0.0, 1.0, 0.0, 0.0]]).round(1).tolist()
        [8.0]
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the path and keep the network of the chosen strength.

        Args:
            X: (rows, features) numbers, or a DataFrame of them.
            y: (rows,) numbers.
            sample_weight: (rows,) weights ≥ 0; the loss is their weighted mean. Default: `None`.
            groups: (rows,) rows of the same group stay together in the folds. Default: `None`.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: For data or a parameter that cannot be used.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=True, ensure_min_samples=2)
        return self._fit(X, np.asarray(y, "float64"), "regression", 0, _check_weight(sample_weight, X), groups)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target.

        Args:
            X: (rows, features).

        Returns:
            (rows,) in the units of y.
        """
        return self._outputs(X)[:, 0] * self.scale_ + self.center_


class PathClassifier(ClassifierMixin, _PathEstimator):
    """Fit a penalized network for classification, and choose its strength by cross-validation.

    It minimizes the cross-entropy plus the penalty; everything else is as in `PathRegressor`.

    Args:
        penalty: See `PathRegressor`.
        hidden_layer_sizes: See `PathRegressor`.
        model: See `PathRegressor`.
        strengths: See `PathRegressor`.
        cv: See `PathRegressor`; a number of folds is stratified by class.
        adaptive: See `PathRegressor`.
        selection: See `PathRegressor`.
        max_iter: See `PathRegressor`.
        learning_rate: See `PathRegressor`.
        n_init: See `PathRegressor`.
        standardize: See `PathRegressor`.
        random_state: See `PathRegressor`.

    Attributes:
        classes_: The classes, sorted.
        path_, strength_, model_, scaler_, feature_mask_, n_iter_, n_features_in_, feature_names_in_: See
            `PathRegressor`. The network's outputs are logits: that of the second class if there are two, else one per
            class.

    Examples:
        >>> import numpy as np, poise
        >>> X = np.random.default_rng(0).normal(size=(80, 2))
        >>> y = np.where(X[:, 0] > 0, "right", "left")
        >>> classifier = poise.PathClassifier(hidden_layer_sizes=(), strengths=[0.001, 0.01], cv=2).fit(X, y)
        >>> classifier.predict([[2.0, 0.0], [-2.0, 0.0]]).tolist()
        ['right', 'left']
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the path and keep the network of the chosen strength.

        Args:
            X: (rows, features) numbers, or a DataFrame of them.
            y: (rows,) classes; at least two must have rows of positive weight.
            sample_weight: See `PathRegressor.fit`.
            groups: See `PathRegressor.fit`.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: For data or a parameter that cannot be used.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        weight = _check_weight(sample_weight, X)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(np.unique(numbers if weight is None else numbers[weight > 0])) < 2:
            raise ValueError("y must have rows of positive weight in at least two classes, got one.")
        task = "binary" if len(self.classes_) == 2 else "multiclass"
        return self._fit(X, numbers, task, len(self.classes_), weight, groups)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each row.

        Args:
            X: (rows, features).

        Returns:
            (rows,) classes.
        """
        numbers = self.predict_proba(X).argmax(axis=1)
        return self.classes_[numbers]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities.

        Args:
            X: (rows, features).

        Returns:
            (rows, classes) in the order of `classes_`.
        """
        return predict_probabilities(self._outputs(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute the logits.

        Args:
            X: (rows, features).

        Returns:
            (rows,) logits of the second class if there are two classes, else (rows, classes).
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if len(self.classes_) == 2 else outputs


def _check_weight(weight: Any, X: np.ndarray) -> np.ndarray | None:
    if weight is None:
        return None
    weight = column_or_1d(check_array(weight, ensure_2d=False, dtype="float64", input_name="sample_weight"))
    check_consistent_length(X, weight)
    if (weight < 0).any() or not weight.any():
        raise ValueError("sample_weight must be ≥ 0 and not zero for every row; a weight of 0 leaves a row out.")
    return weight


def _scale_to_mean_one(weight: np.ndarray, replica: Replica) -> np.ndarray:
    """Return float32 weights with mean 1 over training rows and over held-out rows: losses are weighted means."""
    scaled = weight.copy()
    for rows in filter(len, (replica.train, replica.held)):
        scaled[rows] /= weight[rows].mean()
    return scaled.astype("float32")


@contextmanager
def _seed_initial_weights(random_state: Any) -> Iterator[None]:
    """Seed the initial weights. Keras draws them from Python's generator, whose state is restored."""
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    before, state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(state)
