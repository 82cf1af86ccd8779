"""Estimators for scikit-learn: dense networks whose penalty strength is chosen by cross-validation along a path."""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from poise.study.path_estimator import FLOATS, PathEstimator, check_weight
from poise.study.tasks.classes import Binary, Multiclass, predict_probabilities
from poise.study.tasks.regression import Regression


class PathRegressor(RegressorMixin, PathEstimator):
    """Fit a penalized network for regression, and choose its strength by cross-validation, as a scikit-learn estimator.

    It minimizes the mean squared error plus the penalty with full-batch steps of Adam. At each strength it trains once
    per fold and once on all rows. Features are standardized first, because one strength is not meaningful for features
    in different units; each fold uses the mean and standard deviation of its own training rows. glmnet does this too;
    scikit-learn's linear models do not. The target is always standardized.

    Args:
        penalty: `"l2"`, `"l1"`, `"group"`, `"adaptive"`, `"elasticnet"`, `"sparse_group"`, `"mcp"` or `"scad"`, as in
            `poise.run_study`; or a poise penalty, a `poise.Rule`, or a list of those with numbers as strengths, whose
            ratios the path keeps. In `"group"`, `"adaptive"` and `"sparse_group"` each feature is one group. Default:
            `"l2"`.
        hidden_layer_sizes: The units of each hidden layer, which are dense with ReLU; `()` is a linear model. Default:
            `(64,)`.
        model: A custom network: a function that takes the number of inputs and the number of outputs and returns a
            built Keras model. If it is compiled, its optimizer is used. For classification, the model must return
            logits: one logit (of the second class) for two classes, else one per class. Default: `None`.
        strengths: The number of strengths of an automatic grid, or the strengths. Default: 13.
        cv: The number of folds, a scikit-learn splitter, or a list of pairs (training, held-out) of positions or masks.
            Default: 4.
        adaptive: The number of adaptive stages, as for `poise.fit_path`. Default: `None`, which is 2 for `"adaptive"`
            and 0 otherwise.
        selection: `"best"` takes the strength (and adaptive stage) with the lowest held-out loss; `"one_se"` takes, in
            the last stage, the largest strength whose held-out loss is within one standard error of the lowest: fewer
            features. `"stable"` is stricter still: it uses the smallest strength, at or above `selection_strength` of
            the last stage, at which every feature that the network reads is also read in at least 80% of the training
            runs. Default: `"best"`.
        max_iter: The maximum number of full-batch steps per training (with more than 8,192 rows, each step uses the
            next 4,096 rows). Default: 800.
        early_stopping: Whether each strength is trained only as long as its held-out loss falls, as in
            `poise.Training`. Default: `True`.
        learning_rate: Adam's learning rate at the start; it decays to 0. Default: 0.01.
        n_init: The number of random initializations that are trained at each strength to evaluate it; `model_` is the
            network trained from the first one. Default: 1.
        standardize: Whether to standardize features. Default: `True`.
        encoding: `"standard"`; `"piecewise"`, which adds the pieces of a `poise.PiecewiseLinearEncoder` to the
            features, by a skip connection past the hidden layers (without these, the network is an additive model); or
            `"auto"`, which trains both and keeps the one with the lower held-out loss. A custom model takes all inputs:
            the features, then the pieces. Default: `"standard"`.
        random_state: The seed of the initial weights, as in scikit-learn. A number of folds always gives the same
            folds. Default: 0.

    Attributes:
        path_: The `poise.RegularizationPath`; with adaptive stages, the path of the selected stage.
        strength_: The chosen strength.
        encoding_: The encoding that is used, `"standard"` or `"piecewise"`.
        model_: The network trained on all rows, a plain Keras model. It takes standardized features (see `scaler_`),
            followed by their standardized pieces if there are any, and predicts the standardized target.
        encoder_: Encodes features as the inputs of `model_` (see `poise.study.columns.array_encoder.ArrayEncoder`).
        scaler_: The `StandardScaler` of the features, which turns constants into 0; or `None`.
        center_: The mean of the target: a prediction is the network's output · `scale_` + `center_`.
        scale_: The standard deviation of the target.
        feature_mask_: (features,) whether the network reads each feature; `None` if that cannot be determined.
        selection_path_: The path that selects features: that of the last adaptive stage.
        support_: (features,) whether each feature is selected: whether the network of `selection_path_` at its
            `selection_strength` (with `selection="stable"`, at `strength_`) reads it. The network that predicts best
            often reads more. `None` if that cannot be determined.
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
        return self._fit(X, np.asarray(y, "float64"), Regression(), 0, check_weight(sample_weight, X), groups)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target.

        Args:
            X: (rows, features).

        Returns:
            (rows,) in the units of y.
        """
        return self._outputs(X)[:, 0] * self.scale_ + self.center_


class PathClassifier(ClassifierMixin, PathEstimator):
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
        early_stopping: See `PathRegressor`.
        learning_rate: See `PathRegressor`.
        n_init: See `PathRegressor`.
        standardize: See `PathRegressor`.
        encoding: See `PathRegressor`.
        random_state: See `PathRegressor`.

    Attributes:
        classes_: The classes, sorted.
        path_, selection_path_, strength_, encoding_, encoder_: See `PathRegressor`.
        model_, scaler_, feature_mask_, support_, n_iter_: See `PathRegressor`. The outputs of the network are logits:
            one logit (of the second class) for two classes, else one per class.
        n_features_in_, feature_names_in_: See `PathRegressor`.

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
        weight = check_weight(sample_weight, X)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(np.unique(numbers if weight is None else numbers[weight > 0])) < 2:
            counted = "" if weight is None else " among the rows with a positive sample_weight"
            raise ValueError(f"y must have at least two classes{counted}, got 1. Add rows of another class.")
        task = Binary() if len(self.classes_) == 2 else Multiclass()
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
