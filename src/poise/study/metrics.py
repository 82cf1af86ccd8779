"""Further scores of the saved network on the test rows, in the terms that users of each task know."""

import numpy as np
from sklearn import metrics

from poise.study.predictions import predict_probabilities
from poise.study.scores import score_rows


def measure_predictions(
    task: str, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None, scale: float
) -> dict[str, float]:
    """Return further scores by name.

    Args:
        task: `"regression"`, `"binary"`, `"multiclass"` or `"counts"`.
        y: (rows, 1), or (rows,) class numbers.
        outputs: (rows, outputs) of the network.
        weight: (rows,) sample weights, or `None`.
        scale: What the target was divided by.

    Returns:
        Regression: `RMSE` and `MAE`, in units of the target. Counts: `RMSE`, `MAE` and `deviance`. Classes: `majority
        rate` (the share of the most frequent class, and so the accuracy of always predicting it), `log loss`, and `AUC`
        (with more than two classes, the mean over one class against the others; NaN if a class has no test rows).
    """
    values = np.asarray(y).reshape(-1)
    if task == "regression":
        predicted = outputs[:, 0]
        return {
            "RMSE": scale * float(metrics.root_mean_squared_error(values, predicted, sample_weight=weight)),
            "MAE": scale * float(metrics.mean_absolute_error(values, predicted, sample_weight=weight)),
        }
    if task == "counts":
        deviance = np.average(score_rows(task, y, outputs).score_terms, weights=weight)
        return {
            "RMSE": float(metrics.root_mean_squared_error(values, outputs[:, 0], sample_weight=weight)),
            "MAE": float(metrics.mean_absolute_error(values, outputs[:, 0], sample_weight=weight)),
            "deviance": float(deviance),
        }
    probabilities = predict_probabilities(outputs)
    classes = np.arange(probabilities.shape[1])
    rates = np.bincount(values.astype(int), weight, len(classes))
    scores = {
        "majority rate": float(rates.max() / rates.sum()),
        "log loss": float(metrics.log_loss(values, probabilities, labels=classes, sample_weight=weight)),
        "AUC": float("nan"),
    }
    if (rates > 0).all():
        of_class = probabilities[:, 1] if len(classes) == 2 else probabilities
        scores["AUC"] = float(
            metrics.roc_auc_score(values, of_class, sample_weight=weight, multi_class="ovr", labels=classes)
        )
    return scores
