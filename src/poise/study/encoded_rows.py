"""The test rows as networks take them, and the scores of networks on them."""

from dataclasses import dataclass, replace

import keras
import numpy as np
import pandas as pd

from poise.study.columns.folds import Folds
from poise.study.predictions import predict_outputs
from poise.study.scores import RowScores, Scorer
from poise.study.tables import Table
from poise.study.weights import relative_weights


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """Rows that no network was trained on, and that no setting was chosen by.

    Args:
        features: Their columns, in the form of `Table.features`.
        x: (rows, inputs) the same, encoded.
        scorer: Their targets and weights, with what scores predictions of them.
    """

    features: pd.DataFrame
    x: np.ndarray
    scorer: Scorer

    def score(self, model: keras.Model) -> RowScores:
        """Return the losses of a network that takes encoded rows."""
        return self.scorer.score_rows(predict_outputs(model, self.x))

    def take(self, positions: np.ndarray) -> "EncodedRows":
        """Return some of the rows."""
        weight, groups = (
            None if values is None else values[positions] for values in (self.scorer.weight, self.scorer.groups)
        )
        scorer = replace(self.scorer, y=self.scorer.y[positions], weight=weight, groups=groups)
        return EncodedRows(self.features.iloc[positions], self.x[positions], scorer)


def encode_test_rows(table: Table, testing: np.ndarray, folds: Folds, seed: int) -> EncodedRows:
    """Encode the test rows by what all training rows show.

    Args:
        table: The table.
        testing: Positions of the test rows in it.
        folds: The training rows, encoded.
        seed: The seed of the bootstrap.
    """
    features = table.features.iloc[testing]
    values = table.class_numbers[testing] if table.classes else table.network_target.to_numpy("float64")[testing]
    if table.task.standardizes:
        values = (values - folds.center) / folds.scale
    units = None if table.units is None else table.units[testing]
    scorer = Scorer(table.task, table.task.encode(values), relative_weights(table.loss_weight, testing), units, seed)
    return EncodedRows(features, folds.encoder.transform(features), scorer)
