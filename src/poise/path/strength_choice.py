"""Which strength of a path to use: to predict, or to select features."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from poise.path import selection
from poise.path.training import Lanes
from poise.validation import validate_count

if TYPE_CHECKING:
    from poise.path.result import RegularizationPath


class StrengthChoice(ABC):
    """The strengths that `RegularizationPath` chooses by the mean validation losses over the folds."""

    lanes: Lanes
    stages: "tuple[RegularizationPath, ...]"

    @property
    def strengths(self) -> np.ndarray:
        return self._table["strength"].to_numpy(copy=True)

    @property
    def best_strength(self) -> float:
        """Strength with the lowest mean validation loss (the largest one if tied). Use it to predict.

        Raises:
            ValueError: If a lane diverged at every strength.
        """
        return self._strength(selection.minimum(self._judged))

    @property
    def best_between(self) -> float:
        """Interpolated best strength. No model was trained at it, unless it is on the grid; refit to use it.

        It is the minimum of a parabola in log strength through the lowest mean validation loss and its neighbors. At
        an end of the grid, it is the strength with the lowest mean.

        Raises:
            ValueError: If a lane diverged at every strength.
        """
        return selection.vertex(self.strengths, self._judged)

    @property
    def one_se_strength(self) -> float:
        """Strength of the one-standard-error rule (glmnet's `lambda.1se`).

        It is the largest strength whose mean validation loss is within one standard error of the lowest.

        Raises:
            ValueError: If there is a single fold, or a lane diverged at every strength.
        """
        return self._strength(selection.one_standard_error(self._judged, self._errors))

    @property
    def selection_strength(self) -> float:
        """Strength at which to select features.

        Without adaptive stages, it is `one_se_strength` (with a single fold, `best_strength`). After adaptive stages,
        it is the larger of `one_se_strength` and the largest strength that keeps 95% of the decrease in mean validation
        loss from the null model (if the null model is in the grid, as in a grid that `fit_path` finds). Adaptive stages
        hardly penalize useful features, which therefore stay selected over a wide range of strengths. At the low end of
        this range, useless features are selected as well.

        Raises:
            ValueError: If a lane diverged at every strength.
        """
        position = selection.minimum(self._judged)
        if np.isfinite(self._errors[position]):
            position = selection.one_standard_error(self._judged, self._errors)
        if self.stages and self._has_null_model:
            position = max(position, selection.most_of_gain(self._judged))
        return self._strength(position)

    def at(self, max_features: int) -> float:
        """Return the strength with the lowest mean validation loss among those with at most `max_features` inputs.

        Args:
            max_features: Largest number of inputs.

        Raises:
            TypeError: If `max_features` is not an int.
            ValueError: If every model reads more than `max_features` inputs, or it is unknown which inputs are read.
        """
        largest = validate_count("max_features", max_features, 0)
        self._known_features()
        return self._strength(selection.at_most(self._judged, self._table["features"].to_numpy(), largest))

    @cached_property
    @abstractmethod
    def _table(self) -> pd.DataFrame:
        """The table of the path, one row per strength."""

    @abstractmethod
    def _known_features(self) -> np.ndarray:
        """Return which lanes read which inputs, or raise a ValueError if this is unknown."""

    @cached_property
    def _judged(self) -> np.ndarray:
        """The mean validation losses, (strengths,), NaN where a lane diverged, also one of all rows."""
        return np.where(self._table["diverged"] > 0, np.nan, self._table["val_loss"])

    @property
    def _errors(self) -> np.ndarray:
        return self._table["val_se"].to_numpy()

    @cached_property
    def _marks(self) -> dict[str, int]:
        """By name the positions of `best` and `one_se`, if they are known."""
        if not np.isfinite(self._judged).any():
            return {}
        best = selection.minimum(self._judged)
        if not np.isfinite(self._errors[best]):
            return {"best": best}
        return {"best": best, "one_se": selection.one_standard_error(self._judged, self._errors)}

    def _strength(self, position: int) -> float:
        return float(self._table["strength"].iloc[position])

    @property
    def _has_null_model(self) -> bool:
        """Whether no penalized weight is left at the largest strength of the grid."""
        table = self.lanes.table
        return bool(table.loc[table["strength"] == table["strength"].max(), "is_empty"].all())
