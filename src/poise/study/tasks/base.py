"""What a task is: the kind of target, the loss of the network, the score, and what predictions look like.

To add a task, write one subclass of `Task` in a file of this folder, and list it in `poise.study.tasks.table.TASKS`.
Nothing else compares names of tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from poise.study.scores import RowScores, StatisticOfSums

if TYPE_CHECKING:
    import keras

    from poise.study.targets import Target

ALPHAS = tuple(10.0**exponent for exponent in np.arange(-4.0, 4.5, 1.0))
"""Strengths of the linear reference models, for a penalty of alpha times half the squared weights, per row."""
MOST_STEPS = 300
"""Iterations of a linear reference model."""

Maker = Callable[[float], Any]
"""Takes the total weight of the training rows and returns an estimator of scikit-learn."""


@dataclass(frozen=True)
class Task(ABC):
    """A task.

    Arrays of targets, `y`, are in the form that the network takes: what `encode` returns, standardized if the task
    standardizes. Arrays of outputs are (..., rows, outputs) of the network, or of a reference model in the same form.

    Attributes:
        name: Its name, which users write.
        score: The name of the score. A higher score is better.
        loss_title: The name of the loss in the report.
        loss_code: The loss as Python, for scripts.
        loss_unit: What the report adds about the unit of the loss. Default: `""`.
        activation: The activation of the last layer. Default: `None`, for a linear one.
        has_classes: Whether the target has classes; otherwise it has numbers. Default: `False`.
        standardizes: Whether numbers are standardized by the training rows. Default: `False`.
        is_share: Whether the score is 1 minus the ratio of two sums of `RowScores.score_terms`, those of the network
            and of the constant model, times 1 minus `constant_score`. Otherwise it is the mean of these terms. Default:
            `True`.
        activation_code: The activation as Python, for scripts. Default: `""`, for a linear one.
        coefficient_meaning: What a coefficient of the linear model is; `""` if coefficients have no simple meaning.
        constant_title: The name of the constant reference model. Default: `"Mean"`.
        constant_name: What sentences call it. Default: `"the mean"`.
        constant_score: The score of the constant model, if the score is a share. Default: 0.
        constant_note: What the report says about the loss of the constant model. Default: `""`.
        residual_note: What a reader of a plot of residuals must know. Default: `""`.
        compares_rows: Whether the loss compares rows with each other. Every training step then has all rows, and the
            held-out loss is the loss of all rows minus that of the training rows. Default: `False`.
        takes_offset: Whether a column can be added to the linear predictor. Default: `False`.
        takes_exposure: Whether the task accepts an exposure, a column whose logarithm is added. Default: `False`.
        largest_offset: The largest absolute value of an offset. Default: no limit.
        view: The name of the section of the report that shows predictions (see
            `poise.study.report.sections.predictions.VIEWS`). Default: `"numbers"`.
    """

    name: ClassVar[str]
    score: ClassVar[str]
    loss_title: ClassVar[str]
    loss_code: ClassVar[str]
    coefficient_meaning: ClassVar[str]
    loss_unit: ClassVar[str] = ""
    activation: ClassVar[str | None] = None
    has_classes: ClassVar[bool] = False
    standardizes: ClassVar[bool] = False
    is_share: ClassVar[bool] = True
    activation_code: ClassVar[str] = ""
    constant_title: ClassVar[str] = "Mean"
    constant_name: ClassVar[str] = "the mean"
    constant_score: ClassVar[float] = 0.0
    compares_rows: ClassVar[bool] = False
    constant_note: ClassVar[str] = ""
    residual_note: ClassVar[str] = ""
    takes_offset: ClassVar[bool] = False
    takes_exposure: ClassVar[bool] = False
    largest_offset: ClassVar[float] = float("inf")
    view: ClassVar[str] = "numbers"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return the task with its options, which are among the settings of a study.

        The base class has no options.
        """
        return cls()

    @property
    def title(self) -> str:
        """The task with its options, in words."""
        return self.name

    def script_options(self) -> dict[str, Any]:
        """Return the options of the task, as arguments of `poise.study.tables.read`."""
        return {}

    @property
    def score_name(self) -> str:
        """The name of the score with the options of the task."""
        return self.score

    # ------------------------------------------------------------ the target

    @abstractmethod
    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        """Return (rows,) float64 numbers or text labels, and the classes in the order of the outputs.

        Raises:
            DataError: If the target does not fit the task.
        """

    def find_problem(self, values: np.ndarray) -> str:
        """Return why a network cannot be trained on targets that `check_target` returned, or `""`."""
        return ""

    def list_targets(self, values: np.ndarray) -> Sequence[np.ndarray]:
        """Return the targets to check for leaks, each (rows,): a column that determines one of them is reported."""
        return [values]

    def find_strata(self, values: np.ndarray) -> np.ndarray | None:
        """Return (rows,) labels whose shares are equal in all parts of a split, or `None`."""
        return values if self.has_classes else None

    def allows_classes(self, count: int) -> bool:
        """Return whether a target may have this number of classes; 0 if it has none."""
        return count == 0

    @abstractmethod
    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the targets as the network takes them.

        Args:
            values: (rows,) numbers, standardized if the task standardizes; or class numbers.
        """

    # ------------------------------------------------------------ offsets

    def center_offset(self, offset: np.ndarray, weight: np.ndarray | None) -> float:
        """Return the constant that is subtracted from the offset and included in `scale`. Default: 0.

        Args:
            offset: (rows,) what is added to the linear predictor.
            weight: (rows,) sample weights, or `None`.
        """
        return 0.0

    def remove_offset(self, values: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Return the targets of a network whose linear predictor has no offset (see `offset_weight`).

        Args:
            values: (rows,) the target in its own units.
            offset: (rows,) what is added to the linear predictor.
        """
        return values - offset

    def offset_weight(self, offset: np.ndarray) -> np.ndarray:
        """Return (rows,) the weights with which the loss of these targets is that of the target, up to a constant."""
        return np.ones(len(offset))

    def add_offset(self, predictions: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Return (rows,) predictions in the units of the target, from those of a network without the offset."""
        return predictions + offset

    # ------------------------------------------------------------ the network

    def count_outputs(self, classes: int) -> int:
        """Return the number of outputs of the network."""
        return 1

    def make_activation(self) -> "str | Callable | None":
        """Return the activation of the last layer."""
        return self.activation

    @abstractmethod
    def make_loss(self) -> "keras.losses.Loss":
        """Return the prediction loss."""

    def initial_bias(self, y: np.ndarray, outputs: int, weight: np.ndarray | None = None) -> np.ndarray:
        """Return (outputs,) the bias of the output layer with which the network starts at the constant model.

        Args:
            y: The targets of the training rows.
            outputs: The number of outputs.
            weight: (rows,) sample weights. Default: `None`.
        """
        return np.zeros(outputs)

    def unstandardize(
        self, kernel: np.ndarray, bias: np.ndarray, center: float | np.ndarray, scale: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the coefficients and intercepts of a linear model for the target in its own units.

        Args:
            kernel: (inputs, outputs).
            bias: (outputs,).
            center, scale: See `Folds`.
        """
        return kernel * scale, bias * scale + center

    # ------------------------------------------------------------ losses and scores

    @abstractmethod
    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        """Return (..., rows) the prediction loss of each row, whose weighted mean is the loss of the network.

        Args:
            y: The targets.
            outputs: (..., rows, outputs).
            weight: (rows,) positive weights with mean 1, on which the loss of a row depends if the loss compares rows.
                Default: `None`.
        """

    def score_rows(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> RowScores:
        """Return the loss of each row and its term of the score. Default: the term is the loss.

        The arguments are those of `row_losses`.
        """
        losses = self.row_losses(y, outputs, weight)
        return RowScores(losses, losses)

    @abstractmethod
    def score_of_sums(
        self, y: np.ndarray, terms: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], StatisticOfSums]:
        """Return columns (rows,), and the score as a function of the weighted sums of 1 and of each column.

        Args:
            y: The targets.
            terms: (rows,) `RowScores.score_terms`.
            weight: (rows,) the weights, or `None`. Only a constant model that is not a function of sums
                needs them.
        """

    @abstractmethod
    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Return further scores of predictions by name, in the terms that users of the task know.

        Args:
            actual, predictions, weight: As in `poise.study.predicted_rows.PredictedRows`.
        """

    # ------------------------------------------------------------ reference models

    @abstractmethod
    def constant_models(self) -> Sequence[Maker]:
        """Return the constant reference model."""

    @abstractmethod
    def linear_models(self) -> Sequence[Maker]:
        """Return linear reference models, one per setting to choose from."""

    @abstractmethod
    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        """Return boosted trees of scikit-learn with some options, one per setting to choose from."""

    @abstractmethod
    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        """Return (rows, outputs) predictions of a fitted reference model, in the form of the network's outputs."""

    # ------------------------------------------------------------ predictions

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return (..., rows, predictions) what users see: numbers, or the probability of every class."""
        return outputs

    def actual_values(self, y: np.ndarray) -> np.ndarray:
        """Return the targets of test rows as numbers, (rows,), or in the form that `measure` and the report take."""
        return np.asarray(y).reshape(-1).astype("float64")

    def estimate(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None) -> dict[str, Any]:
        """Return what predictions need besides the network, in values of JSON: an estimate by the training rows.

        Args:
            y: The targets of the training rows.
            outputs: The outputs of the saved network for them.
            weight: (rows,) sample weights, or `None`.
        """
        return {}

    def with_estimates(self, estimates: Mapping[str, Any]) -> Self:
        """Return the task with what `estimate` returned."""
        return self

    def name_prediction(self) -> str:
        """Return what partial dependence shows."""
        return "prediction"

    def explain(self, outputs: np.ndarray, classes: Sequence[str]) -> tuple[Sequence[str], np.ndarray]:
        """Return the names of the predictions that partial dependence shows, and (..., rows, names) these predictions.

        Args:
            outputs: (..., rows, outputs).
            classes: The classes.
        """
        return [""], outputs

    def tabulate(
        self, outputs: np.ndarray, target: str, classes: Sequence[str], center: Any, scale: Any
    ) -> dict[str, np.ndarray]:
        """Return the columns of a file of predictions.

        Args:
            outputs: (rows, outputs).
            target: The name of the target.
            classes: The classes.
            center, scale: A prediction in units of the target is output · scale + center. Numbers; lists of them for
                several targets.
        """
        return {target: outputs[:, 0] * scale + center}
