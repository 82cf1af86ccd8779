"""Estimators for scikit-learn: dense networks whose strength of the penalty is chosen by a path over folds.

Every fold is standardized by the rows that train in it, as in a study, so that no row that is held out has touched what
it is judged by.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from poise.path.data.arrays import Data
from poise.path.data.folds import split
from poise.path.fit import check_stages, checked_rules, checked_strengths, solved_by
from poise.path.training import Replica, Training
from poise.study.candidates.candidates import best_stage, kind_of, probabilities, row_of, rules_of, started
from poise.study.columns.encoding import LARGEST, constants_to_zero, standardized
from poise.study.result import Settings

FLOATS = ["float64", "float32"]
BATCH = 1024
"""Rows that are predicted at once, the last batch filled up: what is said of a row does not depend on the others."""


class _PathEstimator(BaseEstimator):
    """What the two estimators share: all but the meaning of y and of the network's outputs."""

    def __init__(
        self,
        penalty="l2",
        *,
        hidden_layer_sizes=(64,),
        model=None,
        strengths=13,
        cv=4,
        adaptive=None,
        selection="best",
        max_iter=800,
        learning_rate=0.01,
        n_init=1,
        standardize=True,
        random_state=0,
    ):
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

    def _fit(self, X, y, task, classes, weight, groups):
        """Trains, chooses, and sets what is learnt.

        Args:
            X: (rows, features), checked.
            y: (rows,) numbers, or numbers of classes.
            task, classes: as for `started`.
            weight: (rows,) of `_checked_weight`; None for none.
            groups: (rows,) or None.
        """
        settings = self._settings()
        replicas = split(len(X), y, self.cv, self.n_init, groups, sample_weight=weight, are_classes=classes > 0)
        data, replicas = self._stacked(X, y, task, weight, replicas)
        every = replicas[-1].train
        with _seeded(self.random_state):
            start = started(
                task, X.shape[1], classes, data.y[every], None if weight is None else data.sample_weight[every],
                settings.hidden_layer_sizes, settings.learning_rate, self.model,
            )  # fmt: skip
            rules, adaptive = self._rules(start, X.shape[1])
            path = solved_by(
                "auto", start, rules, data, replicas,
                strengths=checked_strengths(self.strengths),
                adaptive=adaptive,
                relax=False,
                training=Training(epochs=0, settle=settings.max_iter),
                checkpoint=None,
                report=lambda share: None,
            )  # fmt: skip
            self.path_ = best_stage(path) if self.selection == "best" else path
            self.strength_ = self.path_.best_strength if self.selection == "best" else self.path_.one_se_strength
            self.model_ = self.path_.model(self.strength_)
        self.n_iter_ = int(row_of(self.path_, self.strength_)["settled"])
        self.feature_mask_ = None
        if self.path_.lanes.features is not None:
            self.feature_mask_ = np.isin(np.arange(X.shape[1]), self.path_.features(self.strength_))
        return self

    def _settings(self) -> Settings:
        if self.selection not in ("best", "one_se"):
            raise ValueError(f"selection={self.selection!r} is not one of 'best', 'one_se'.")
        if isinstance(self.cv, tuple):
            raise ValueError("cv is a tuple. Give a number, a scikit-learn splitter, or a list of pairs.")
        if not isinstance(self.hidden_layer_sizes, (list, tuple)):
            raise TypeError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r}: give the units of every layer, such as (64,) or ()."
            )
        return Settings(
            hidden_layer_sizes=tuple(self.hidden_layer_sizes),
            n_init=self.n_init,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
        )

    def _rules(self, start, features: int):
        """The rules, and how many adaptive stages."""
        if isinstance(self.penalty, str):
            rules, own = rules_of(self.penalty, start, [*map(str, range(features))]), kind_of(self.penalty).adaptive
        else:
            rules, own = checked_rules(start, self.penalty), 0
        adaptive = own if self.adaptive is None else self.adaptive
        check_stages(adaptive)
        return rules, adaptive

    def _stacked(self, X, y, task, weight, replicas: list[Replica]) -> tuple[Data, list[Replica]]:
        """The rows as every fold sees them, block by block, and the replicas in them; the last block is that of all."""
        blocks = len(replicas) // self.n_init
        xs, ys, weights = [], [], []
        for replica in replicas[:blocks]:
            own = None if weight is None else weight[replica.train]
            self.scaler_ = None
            if self.standardize:
                self.scaler_ = StandardScaler().fit(X[replica.train], sample_weight=own)
                constants_to_zero(self.scaler_)
            values = y
            if task == "regression":
                values, self.center_, self.scale_ = standardized(y, replica.train, own)
            xs.append(self._inputs(X))
            ys.append(values)
            if weight is not None:
                weights.append(_of_mean_one(weight, replica))
        targets = np.concatenate(ys)
        targets = targets.astype("int32") if task == "multiclass" else targets.astype("float32")[:, None]
        names = getattr(self, "feature_names_in_", None)
        starts = [len(X) * (number % blocks) for number in range(len(replicas))]
        moved = [
            replace(one, train=one.train + at, held=one.held + at) for one, at in zip(replicas, starts, strict=True)
        ]
        given = np.concatenate(weights) if weights else None
        names = None if names is None else tuple(names)
        return Data(np.concatenate(xs), targets, given, blocks * len(X), names), moved

    def _inputs(self, X) -> np.ndarray:
        """What the network takes."""
        x = X if self.scaler_ is None else self.scaler_.transform(X)
        return np.clip(x, -LARGEST, LARGEST).astype("float32")

    def _outputs(self, X) -> np.ndarray:
        """(rows, outputs) of the network."""
        check_is_fitted(self)
        x = self._inputs(validate_data(self, X, dtype=FLOATS, reset=False))
        filled = np.zeros((-(-len(x) // BATCH) * BATCH, x.shape[1]), "float32")
        filled[: len(x)] = x
        parts = [self.model_(part, training=False) for part in np.split(filled, len(filled) // BATCH)]
        return np.concatenate([*map(keras.ops.convert_to_numpy, parts)])[: len(x)].astype("float64")


class PathRegressor(RegressorMixin, _PathEstimator):
    """A network for regression with a penalty, as a scikit-learn estimator: a path over folds chooses the strength.

    It minimizes the mean squared error of one output plus the penalty, by full-batch steps of Adam, once a strength in
    every fold and once on all rows. As with glmnet, and other than with scikit-learn's linear models, features are
    standardized first, in every fold by the rows that train in it: one strength for columns of different units means
    little. The target always is.

    Args:
        penalty: "l2", "l1", "group", "adaptive", "elasticnet", "sparse_group", "mcp" or "scad", as in `poise.run_study`;
            or a poise penalty, a `poise.Rule`, or a list of those, with numbers as strengths, of which the path keeps
            the ratios. Of "group", "adaptive" and "sparse_group" every feature is a group of its own.
        hidden_layer_sizes: units of the hidden layers, which are dense with ReLU; () is a linear model.
        model: one's own network instead: a function of the numbers of inputs and of outputs that returns a built Keras
            model. If it is compiled, its optimizer is used. For several classes its outputs are logits, for two the
            one logit of the second.
        strengths: how many, for a grid that is found, or the strengths themselves.
        cv: a number, a scikit-learn splitter, or a list of pairs (train, held) of positions or masks.
        adaptive: how many adaptive stages, as for `poise.fit_path`; None for two of "adaptive" and none of the others.
        selection: "best", the strength, and of adaptive stages the one, with the lowest held-out loss; or "one_se", of the
            last stage the largest strength within one standard error of its lowest: fewer features.
        max_iter: full-batch steps (on 4,096 rows in turn where more than 8,192 train), at most.
        learning_rate: Adam's at the start; it falls to 0.
        n_init: draws of initial weights by which a strength is judged; the model is of the first.
        standardize: whether features are standardized; False where they are on one scale already.
        random_state: decides the initial weights, as scikit-learn's; the folds of a number are always the same.

    Attributes:
        path_: the `poise.RegularizationPath`, of adaptive stages the one that was chosen.
        strength_: the chosen strength, one of `path_`.
        model_: its network of all rows, a plain Keras model of standardized features and target.
        scaler_: the `StandardScaler` of the features, under which what is constant becomes 0; None for none.
        center_, scale_: those of the target: a prediction is the network's output · scale + center.
        feature_mask_: (features,) does the network read the feature?; None where that cannot be told.
        n_iter_: full-batch steps that the network took.
        n_features_in_, feature_names_in_: as scikit-learn's.

    References:
        Friedman, Hastie and Tibshirani 2010, "Regularization paths for generalized linear models via coordinate
        descent" (standardizing, and the choice of a strength).

    Example:
        >>> import numpy as np, poise
        >>> X = np.random.default_rng(0).normal(size=(80, 4))
        >>> regressor = poise.PathRegressor("group", hidden_layer_sizes=(), strengths=[0.01, 0.1], cv=2)
        >>> regressor.fit(X, 3.0 * X[:, 1] + 5.0).feature_mask_.tolist()
        [False, True, False, False]
        >>> regressor.predict([[0.0, 1.0, 0.0, 0.0]]).round(1).tolist()
        [8.0]
    """

    def fit(self, X, y, sample_weight=None, groups=None) -> "PathRegressor":
        """Trains the path and takes the network of the chosen strength.

        Args:
            X: (rows, features) numbers, or a DataFrame of them.
            y: (rows,) numbers.
            sample_weight: (rows,) ≥ 0; the strength is that beside the weighted mean of the losses.
            groups: (rows,) for the folds: rows of one group stay together.

        Raises:
            TypeError, ValueError: for data or a parameter that cannot be used.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=True, ensure_min_samples=2)
        return self._fit(X, np.asarray(y, "float64"), "regression", 0, _checked_weight(sample_weight, X), groups)

    def predict(self, X) -> np.ndarray:
        """(rows,) in the units of y."""
        return self._outputs(X)[:, 0] * self.scale_ + self.center_


class PathClassifier(ClassifierMixin, _PathEstimator):
    """A network for classes with a penalty, as a scikit-learn estimator: a path over folds chooses the strength.

    It minimizes the cross-entropy plus the penalty, and is `PathRegressor` otherwise.

    Args:
        penalty, hidden_layer_sizes, model, strengths, cv, adaptive, selection, max_iter, learning_rate, n_init, standardize,
            random_state: as for `PathRegressor`; folds of a number hold out the classes in equal shares.

    Attributes:
        classes_: the classes, sorted.
        path_, strength_, model_, scaler_, feature_mask_, n_iter_, n_features_in_, feature_names_in_: as those of
            `PathRegressor`. The network's outputs are logits: that of the second class where there are two, else one a
            class.

    Example:
        >>> import numpy as np, poise
        >>> X = np.random.default_rng(0).normal(size=(80, 2))
        >>> y = np.where(X[:, 0] > 0, "right", "left")
        >>> classifier = poise.PathClassifier(hidden_layer_sizes=(), strengths=[0.001, 0.01], cv=2).fit(X, y)
        >>> classifier.predict([[2.0, 0.0], [-2.0, 0.0]]).tolist()
        ['right', 'left']
    """

    def fit(self, X, y, sample_weight=None, groups=None) -> "PathClassifier":
        """Trains the path and takes the network of the chosen strength.

        Args:
            X: (rows, features) numbers, or a DataFrame of them.
            y: (rows,) classes, of which two or more have rows that count.
            sample_weight, groups: as for `PathRegressor.fit`.

        Raises:
            TypeError, ValueError: for data or a parameter that cannot be used.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        weight = _checked_weight(sample_weight, X)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(np.unique(numbers if weight is None else numbers[weight > 0])) < 2:
            raise ValueError("All rows of y that count are of one class. Give rows of two classes at least.")
        task = "binary" if len(self.classes_) == 2 else "multiclass"
        return self._fit(X, numbers, task, len(self.classes_), weight, groups)

    def predict(self, X) -> np.ndarray:
        """(rows,) the most probable classes."""
        numbers = self.predict_proba(X).argmax(axis=1)
        return self.classes_[numbers]

    def predict_proba(self, X) -> np.ndarray:
        """(rows, classes) in the order of `classes_`."""
        return probabilities(self._outputs(X))

    def decision_function(self, X) -> np.ndarray:
        """(rows,) logits of the second class where there are two, else (rows, classes)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if len(self.classes_) == 2 else outputs


def _checked_weight(given, X) -> np.ndarray | None:
    if given is None:
        return None
    weight = column_or_1d(check_array(given, ensure_2d=False, dtype="float64", input_name="sample_weight"))
    check_consistent_length(X, weight)
    if (weight < 0).any() or not weight.any():
        raise ValueError("sample_weight is negative, or zero for all rows. Give weights ≥ 0; 0 leaves a row out.")
    return weight


def _of_mean_one(weight: np.ndarray, replica: Replica) -> np.ndarray:
    """(rows,) float32, of the mean 1 over the rows that train and over those held out: losses are weighted means."""
    found = weight.copy()
    for rows in filter(len, (replica.train, replica.held)):
        found[rows] /= weight[rows].mean()
    return found.astype("float32")


@contextmanager
def _seeded(random_state) -> Iterator[None]:
    """Initial weights by `random_state`. Keras seeds them by Python's generator, which is left as it was."""
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    before, state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(state)
