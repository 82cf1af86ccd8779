"""Classification: two classes, or several, by the cross-entropy of their logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from poise.study.errors import DataError
from poise.study.scores import RowScores, StatisticOfSums
from poise.study.tasks.base import ALPHAS, MOST_STEPS, Maker, Task
from poise.study.tasks.checks import check_classes

if TYPE_CHECKING:
    import keras

    from poise.study.targets import Target

SMALLEST = 1e-12
"""The smallest probability that a reference model predicts."""


@dataclass(frozen=True)
class Classification(Task):
    """What tasks with classes share.

    Args:
        is_class_weighted: Whether the loss and the score weigh classes.
    """

    is_class_weighted: bool = False

    score = "accuracy"
    loss_title = "cross-entropy (log loss)"
    has_classes = True
    is_share = False
    constant_title = "Class frequencies"
    constant_name = "the class frequencies"
    view = "classes"

    @property
    def score_name(self) -> str:
        return f"class-weighted {self.score}" if self.is_class_weighted else self.score

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        return check_classes(target)

    def score_rows(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> RowScores:
        """Return the losses, and whether the class is correct."""
        chosen = outputs[..., 0] > 0 if outputs.shape[-1] == 1 else outputs.argmax(axis=-1)
        return RowScores(self.row_losses(y, outputs), (chosen == np.asarray(y).reshape(-1)).astype("float64"))

    def score_of_sums(
        self, y: np.ndarray, terms: np.ndarray, weight: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], StatisticOfSums]:
        return [terms], lambda w, correct: correct / w

    def measure(self, actual: np.ndarray, predictions: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Return `majority rate`, `log loss` and `AUC`.

        The majority rate is the share of the most frequent class, and so the accuracy of always predicting it. With
        more than two classes, AUC is the mean over one class against the others; NaN if a class has no rows.
        """
        from sklearn import metrics

        classes = np.arange(predictions.shape[1])
        rates = np.bincount(actual, weight, len(classes))
        scores = {
            "majority rate": float(rates.max() / rates.sum()),
            "log loss": float(metrics.log_loss(actual, predictions, labels=classes, sample_weight=weight)),
            "AUC": float("nan"),
        }
        if (rates > 0).all():
            of_class = predictions[:, 1] if len(classes) == 2 else predictions
            scores["AUC"] = float(
                metrics.roc_auc_score(actual, of_class, sample_weight=weight, multi_class="ovr", labels=classes)
            )
        return scores

    def constant_models(self) -> Sequence[Maker]:
        from sklearn.dummy import DummyClassifier

        return [lambda total: DummyClassifier(strategy="prior")]

    def linear_models(self) -> Sequence[Maker]:
        """Return linear models with L2. LogisticRegression minimizes a sum over rows."""
        from sklearn.linear_model import LogisticRegression

        def make(alpha: float) -> Maker:
            return lambda total: LogisticRegression(C=1.0 / (alpha * total), max_iter=MOST_STEPS)

        return [make(alpha) for alpha in ALPHAS]

    def boosted_trees(self, options: Mapping[str, Any]) -> Sequence[Maker]:
        from sklearn.ensemble import HistGradientBoostingClassifier

        return [lambda total: HistGradientBoostingClassifier(**options)]

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        """Return log probabilities, of a model that may not have seen every class."""
        probabilities = np.full((len(x), max(classes, 2)), SMALLEST)
        probabilities[:, np.asarray(model.classes_).astype(int)] = model.predict_proba(x)
        return np.log(np.clip(probabilities, SMALLEST, None))

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        return predict_probabilities(outputs)

    def explain(self, outputs: np.ndarray, classes: Sequence[str]) -> tuple[Sequence[str], np.ndarray]:
        """Return the probability of the second of two classes, or of each class."""
        labels = classes[1:] if len(classes) == 2 else classes
        return labels, self.predict(outputs)[..., -len(labels) :]

    def tabulate(
        self, outputs: np.ndarray, target: str, classes: Sequence[str], center: Any, scale: Any
    ) -> dict[str, np.ndarray]:
        """Return the most probable class, and the probability of each class."""
        probabilities, labels = self.predict(outputs), np.asarray(classes, object)
        columns = {f"probability of {label}": probabilities[:, number] for number, label in enumerate(labels)}
        return {target: labels[probabilities.argmax(axis=1)], **columns}


class Binary(Classification):
    """Two classes. The network returns the logit of the second."""

    name = "binary"
    loss_code = "keras.losses.BinaryCrossentropy(from_logits=True)"
    coefficient_meaning = "the change of the log odds of"

    def check_target(self, target: "Target") -> tuple[np.ndarray, tuple[str, ...]]:
        count = len(set(target.values.tolist()))
        if count != 2:
            raise DataError(
                f"A binary task needs two distinct values of {target.name!r}, got {count}. Choose the task multiclass "
                "or regression.",
                "task",
            )
        return super().check_target(target)

    def allows_classes(self, count: int) -> bool:
        return count == 2

    def encode(self, values: np.ndarray) -> np.ndarray:
        return values.astype("float32")[:, None]

    def make_loss(self) -> "keras.losses.Loss":
        import keras

        return keras.losses.BinaryCrossentropy(from_logits=True)

    def initial_bias(self, y: np.ndarray, outputs: int, weight: np.ndarray | None = None) -> np.ndarray:
        """Return the log odds of the second class."""
        smallest = 0.5 / len(y)  # half a row, for a class without rows
        share = min(max(float(np.average(y[:, 0], weights=weight)), smallest), 1.0 - smallest)
        return np.array([np.log(share / (1.0 - share))])

    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        y, outputs = np.asarray(y, "float64"), np.asarray(outputs, "float64")
        return np.logaddexp(0.0, outputs * (1.0 - 2.0 * y))[..., 0]

    def reference_outputs(self, model: Any, x: np.ndarray, classes: int) -> np.ndarray:
        logits = super().reference_outputs(model, x, classes)
        return logits[:, 1:] - logits[:, :1]


class Multiclass(Classification):
    """Several classes. The network takes class numbers and returns one logit per class."""

    name = "multiclass"
    loss_code = "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
    coefficient_meaning = "the change of the logit of a class"

    def allows_classes(self, count: int) -> bool:
        return count >= 2

    def encode(self, values: np.ndarray) -> np.ndarray:
        return values.astype("int32")

    def count_outputs(self, classes: int) -> int:
        return classes

    def make_loss(self) -> "keras.losses.Loss":
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def initial_bias(self, y: np.ndarray, outputs: int, weight: np.ndarray | None = None) -> np.ndarray:
        """Return the log frequencies of the classes."""
        counts = np.bincount(y, weight, minlength=outputs)
        return np.log(np.maximum(counts / counts.sum(), 0.5 / len(y)))

    def row_losses(self, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        y, outputs = np.asarray(y), np.asarray(outputs, "float64")
        return np.logaddexp.reduce(outputs, axis=-1) - outputs[..., np.arange(len(y)), y.astype(int)]


def predict_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return (rows, classes) probabilities of logits: a single one of the second class, or one per class."""
    logits = np.concatenate([np.zeros_like(outputs), outputs], axis=-1) if outputs.shape[-1] == 1 else outputs
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)
