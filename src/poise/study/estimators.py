"""Estimators for scikit-learn: dense networks whose penalty strength is chosen by cross-validation along a path."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from poise.study.candidates.network import ModelFunction
from poise.study.class_weights import check_class_weight, weigh_classes
from poise.study.columns.encoding import STANDARD
from poise.study.estimator_arguments import LOG_LINKS, check_offset, check_values, make_regression_task
from poise.study.path_estimator import FLOATS, PathEstimator, Penalties, Rows, check_weight
from poise.study.tasks.classes import Binary, Multiclass, predict_probabilities


class PathRegressor(RegressorMixin, PathEstimator):
    """Fit a penalized network for regression, and choose its strength by cross-validation, as a scikit-learn estimator.

    It minimizes the loss plus the penalty with full-batch steps of Adam. At each strength it trains once
    per fold and once on all rows. Features are standardized first, because one strength is not meaningful for features
    in different units; each fold uses the mean and standard deviation of its own training rows. glmnet does this too;
    scikit-learn's linear models do not. With the squared error, the target is always standardized.

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
        loss: `"squared_error"`, or with a log link, so that predictions are positive: `"poisson"` and `"tweedie"` for
            y >= 0, and `"gamma"` for y > 0. These losses are half of the mean deviance, up to a constant, as in
            scikit-learn's `PoissonRegressor`, `TweedieRegressor` and `GammaRegressor`, whose `alpha` is twice the
            strength of `poise.L2`. Or `"quantile"`, the pinball loss. Default: `"squared_error"`.
        power: The power of the variance function of the Tweedie loss, between 1 (Poisson) and 2 (gamma). Default: 1.5.
        quantile: The quantile of the quantile loss, between 0 and 1; or several in ascending order, which one network
            predicts such that they do not cross. Default: 0.5.
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
            followed by their standardized pieces if there are any, and predicts the standardized target, or, with a
            log link, the mean (with an offset, a multiple of the mean at an offset of 0: see `scale_`).
        encoder_: Encodes features as the inputs of `model_` (see `poise.study.columns.array_encoder.ArrayEncoder`).
        scaler_: The `StandardScaler` of the features, which turns constants into 0; or `None`.
        center_: The mean of the target: a prediction is the network's output · `scale_` + `center_`. 0 with a log link.
            With several outputs, an array, as `scale_`.
        scale_: The standard deviation of the target. With a log link: 1, or with an offset the factor from outputs of
            the network to means at an offset of 0.
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

    def __init__(
        self,
        penalty: Penalties = "l2",
        *,
        loss: str = "squared_error",
        power: float = 1.5,
        quantile: float | Sequence[float] = 0.5,
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
        encoding: str = STANDARD,
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            penalty, hidden_layer_sizes=hidden_layer_sizes, model=model, strengths=strengths, cv=cv, adaptive=adaptive,
            selection=selection, max_iter=max_iter, early_stopping=early_stopping, learning_rate=learning_rate,
            n_init=n_init, standardize=standardize, encoding=encoding, random_state=random_state,
        )  # fmt: skip
        self.loss = loss
        self.power = power
        self.quantile = quantile

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None, offset: Any = None) -> Self:
        """Train the path and keep the network of the chosen strength.

        Args:
            X: (rows, features) numbers, or a DataFrame of them.
            y: (rows,) numbers; or (rows, outputs) for the squared error, which is then the mean over the standardized
                outputs.
            sample_weight: (rows,) weights ≥ 0; the loss is their weighted mean. Default: `None`.
            groups: (rows,) rows of the same group stay together in the folds. Default: `None`.
            offset: (rows,) what is added to the linear predictor, such as the logarithm of an exposure, as in glmnet.
                Default: `None`.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: For data or a parameter that cannot be used.
        """
        takes_several = self.loss == "squared_error"
        X, y = validate_data(
            self, X, y, dtype=FLOATS, y_numeric=True, ensure_min_samples=2, multi_output=takes_several
        )  # fmt: skip
        y, factor = np.asarray(y, "float64"), None
        task = make_regression_task(self.loss, self.power, self.quantile, 1 if y.ndim == 1 else y.shape[1])
        check_values(y, task, self.loss)
        weight, center = check_weight(sample_weight, X), 0.0
        if offset is not None:
            if y.ndim > 1:
                raise ValueError(
                    "offset needs y of shape (rows,), got several outputs. Omit offset, and subtract it from y instead."
                )
            if not task.takes_offset:
                raise ValueError(
                    f"offset cannot be combined with loss={self.loss!r}. Omit offset, and subtract it from y instead."
                )
            offset = check_offset(offset, X, task)
            center = task.center_offset(offset, weight)
            y, factor = task.remove_offset(y, offset - center), task.offset_weight(offset - center)
        self._task, self._has_offset = task, offset is not None
        self._is_single = y.ndim == 1 and (self.loss != "quantile" or np.ndim(self.quantile) == 0)
        self._fit(Rows(X, y, task, 0, weight, factor), groups)
        self.scale_ *= float(np.exp(-center))
        return self

    def predict(self, X: Any, offset: Any = None) -> np.ndarray:
        """Predict the target, or its mean.

        Args:
            X: (rows, features).
            offset: (rows,) the offset of these rows, if and only if `fit` had one. Default: `None`.

        Returns:
            (rows,) in the units of y; (rows, outputs) if y was; (rows, quantiles) if `quantile` is a sequence.

        Raises:
            ValueError: If there is an offset here and not in `fit`, or the reverse.
        """
        check_is_fitted(self)
        if self._has_offset and offset is None:
            raise ValueError("predict needs an offset, because the estimator was fitted with one. Pass offset.")
        if not self._has_offset and offset is not None:
            raise ValueError(
                "predict got an offset, but the estimator was fitted without one. Omit offset, or pass one to fit."
            )
        values = self._task.predict(self._outputs(X)) * self.scale_ + self.center_
        if self._is_single:
            values = values[:, 0]
        return values if offset is None else self._task.add_offset(values, check_offset(offset, values, self._task))

    def score(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None) -> float:
        """Compute R² of predictions, whatever the loss, as scikit-learn's `HistGradientBoostingRegressor` does.

        Of several outputs, it is the mean. Several quantiles have no R²; use `sklearn.metrics.d2_pinball_score` for
        each of them.

        Args:
            X: (rows, features).
            y: (rows,) numbers.
            sample_weight: (rows,) weights. Default: `None`.
            offset: As for `predict`. Default: `None`.

        Raises:
            ValueError: If `quantile` is a sequence, or as for `predict`.
        """
        predicted = self.predict(X, offset)
        if self.loss == "quantile" and not self._is_single:
            raise ValueError(
                f"score returns R², which is not defined for {predicted.shape[1]} quantiles. Use "
                "sklearn.metrics.d2_pinball_score for each quantile."
            )
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = self.loss == "squared_error"
        tags.target_tags.positive_only = isinstance(self.loss, str) and self.loss in LOG_LINKS
        return tags


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
        class_weight: The weights of the classes in the loss, as in scikit-learn: a dict from classes to weights, where
            other classes have weight 1; or `"balanced"`, for the number of rows divided by the number of classes and
            by the number of rows of the class. The held-out losses are weighted as well. Default: `None`.

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
        encoding: str = STANDARD,
        random_state: Any = 0,
        class_weight: str | Mapping[Any, float] | None = None,
    ) -> None:
        super().__init__(
            penalty, hidden_layer_sizes=hidden_layer_sizes, model=model, strengths=strengths, cv=cv, adaptive=adaptive,
            selection=selection, max_iter=max_iter, early_stopping=early_stopping, learning_rate=learning_rate,
            n_init=n_init, standardize=standardize, encoding=encoding, random_state=random_state,
        )  # fmt: skip
        self.class_weight = class_weight

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
        factor = None
        if self.class_weight is not None:
            check_class_weight(self.class_weight, self.classes_.tolist())
            factor = weigh_classes(self.class_weight, numbers, self.classes_.tolist(), weight)[numbers]
        return self._fit(Rows(X, numbers, task, len(self.classes_), weight, factor), groups)

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
