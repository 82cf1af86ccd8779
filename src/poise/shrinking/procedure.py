"""The procedure that makes a trained network smaller step by step (poise.shrink)."""

import math
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise.compaction import compact, compare_models, dead_units
from poise.shrinking.budget import Budget, read_budget
from poise.shrinking.costs import FLOPS, PARAMETERS, Costs
from poise.shrinking.data import read_rows
from poise.shrinking.importance import measure_gradients, norm_gradients, rate_units
from poise.shrinking.latency import measure_latency
from poise.shrinking.removal import remove_units
from poise.shrinking.result import ShrinkResult
from poise.shrinking.selection import choose_units
from poise.shrinking.training import Trainer, find_accuracy
from poise.shrinking.unit_sets import RemovableUnits
from poise.validation import validate_count, validate_number

STEP = 0.6
"""The share of the cost that a stage leaves."""
SMALLEST_REDUCTION = 0.9
"""The search for the smallest good network ends with stages that would leave more than this share of the cost."""
ATTEMPTS = 20
"""How often a choice of units is repeated because the estimated cost of a layer was too low."""


def shrink(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    flops: float | None = None,
    parameters: float | None = None,
    max_accuracy_drop: float | None = None,
    max_loss_increase: float | None = None,
    sample_weight: Any = None,
    validation_data: Any = None,
    batch_size: int = 32,
    epochs_per_stage: int = 10,
    fine_tuning_epochs: int = 20,
    learning_rate: float | None = None,
    multiple: int = 8,
    seed: int = 0,
    verbose: int = 0,
) -> ShrinkResult:
    """Make a trained network smaller while it keeps its accuracy.

    The network loses units (features of Dense layers, filters, attention heads, units of recurrent layers) in several
    stages. A stage estimates how much the loss depends on each unit, and chooses the units whose importance is lowest
    for their cost. Then it trains the network under a group penalty of only these units, which grows until they are
    zero, so that the other units learn to replace them. It removes them with `poise.compact`, and trains the smaller
    network without a penalty. With a budget of `flops` or `parameters`, the last network is then fine-tuned. With the
    other budgets, a network that misses the budget is fine-tuned and scored again, and the smallest network that meets
    the budget is returned.

    Penalties of a `poise.PenalizedOptimizer` with which the model is compiled are not applied; Keras regularizers are.
    The validation rows choose the network for the budgets `max_accuracy_drop` and `max_loss_increase`, so its accuracy
    on them is slightly optimistic: measure it on other rows.

    Args:
        model: Trained and compiled functional or sequential `keras.Model`. It is not changed.
        x: Training rows as in `model.fit`: arrays or structures of arrays; or a dataset that yields `(x, y)` or `(x, y,
            sample_weight)` batches and can be iterated more than once.
        y: Targets, if `x` holds arrays. Default: None.
        flops: Budget: largest share of the FLOPs per sample, between 0 and 1. Pass one of the four budgets.
        parameters: Budget: largest share of the parameters, between 0 and 1.
        max_accuracy_drop: Budget: largest drop in validation accuracy, such as 0.005. The network becomes as small
            as this allows. The model needs an accuracy among its metrics.
        max_loss_increase: Budget: largest relative increase of the validation loss, such as 0.05 for 5%.
        sample_weight: Weights of the rows, if `x` holds arrays. Default: None.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset, on which networks are scored. `model` should
            not have been trained on these rows. Default: None, which takes a random 20% of the rows in `x`.
        batch_size: Rows per step, if `x` holds arrays. Default: 32.
        epochs_per_stage: Epochs of each stage. The first half trains under the penalty, and the second half without it.
            Default: 10.
        fine_tuning_epochs: Epochs of each fine-tuning. Default: 20.
        learning_rate: Float > 0, learning rate at the start of each training, which falls to 0 along a cosine.
            Default: None, which takes the rate of the model's optimizer.
        multiple: Each layer keeps a multiple of this number of units, or all of its units. Widths that are multiples of
            8 are fast on most hardware. It does not apply to the heads of attention layers. Default: 8.
        seed: Seed of the choice of validation rows, and of the order of rows. Default: 0.
        verbose: Verbosity of the trainings, as in `fit`. Default: 0.

    Returns:
        A `poise.ShrinkResult`. Its `model` is a plain Keras model, compiled like the original one, and its
        tables show accuracy against FLOPs, the units of each layer with the reason why units cannot be removed, and the
        time of a prediction.

    Raises:
        TypeError: If the model has no graph of layers, or an argument has the wrong type.
        ValueError: If the model is not compiled, has no unit that can be removed, or cannot reach the budget; if an
            argument is out of its range; or if the data do not fit together.

    References:
        Wang et al. 2021, "Neural pruning via growing regularization" (penalty of the units that are removed); Molchanov
        et al. 2019, "Importance estimation for neural network pruning" (importance).

    Examples:
        >>> import poise, keras, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
        >>> y = x[:, 0] * x[:, 1]
        >>> layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((8,)), *layers])
        >>> model.compile("adam", "mse")
        >>> history = model.fit(x, y, epochs=5, verbose=0)
        >>> result = poise.shrink(model, x, y, parameters=0.6, epochs_per_stage=2, fine_tuning_epochs=2)
        >>> result.model.layers[0].units
        32
    """
    budget = read_budget(flops, parameters, max_accuracy_drop, max_loss_increase)
    validate_count("multiple", multiple, 1)
    validate_count("batch_size", batch_size, 1)
    validate_count("epochs_per_stage", epochs_per_stage, 0)
    validate_count("fine_tuning_epochs", fine_tuning_epochs, 0)
    if learning_rate is not None:
        learning_rate = validate_number("learning_rate", learning_rate, inclusive=False)
    training, validation = read_rows(x, y, sample_weight, validation_data, batch_size, seed)
    trainer = Trainer(model, training, validation, learning_rate, verbose)
    shrinker = Shrinker(trainer, budget, multiple, epochs_per_stage, fine_tuning_epochs)
    return shrinker.run(model)


@dataclass(eq=False)
class Shrinker:
    """Runs the stages.

    Args:
        trainer: Trains and scores models.
        budget: How small the network should become.
        multiple: Each layer keeps a multiple of this number of units, or all.
        epochs_per_stage: Epochs of a stage.
        fine_tuning_epochs: Epochs of each fine-tuning.
    """

    trainer: Trainer
    budget: Budget
    multiple: int
    epochs_per_stage: int
    fine_tuning_epochs: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, model: keras.Model) -> ShrinkResult:
        """Return the outcome for a model."""
        start = compact(model)  # a copy, without the units that are already dead
        units = RemovableUnits(start)
        if not units.is_removable.any():
            raise ValueError(f"No unit of the model {model.name!r} can be removed. poise.dead_units(model) shows why.")
        original = self.trainer.score(start)
        accuracy = find_accuracy(original)
        if self.budget.accuracy_drop is not None and accuracy is None:
            raise ValueError(
                f"max_accuracy_drop needs an accuracy, and the model has only {', '.join(original)}. Compile it with "
                'metrics=["accuracy"], or pass max_loss_increase.'
            )
        self._record("original", model, original, 0)
        if self.budget.share is None:
            smaller = self._search(start, original, accuracy)
        else:
            self._check_reachable(units, model)
            smaller = self._descend(start, model)
        optimizer = self.trainer.make_optimizer()
        self.trainer.compile(smaller, optimizer)
        optimizer.build(smaller.trainable_variables)  # otherwise Keras warns when it loads the saved model
        stages = pd.DataFrame(self.rows)
        stages["chosen"] = [row is self.rows[self._chosen] for row in self.rows]
        return ShrinkResult(
            smaller,
            stages,
            compare_models(model, smaller),
            _compare_layers(model, smaller),
            measure_latency(start, smaller),
            self.budget.description,
            accuracy or "loss",
        )

    def _descend(self, model: keras.Model, original: keras.Model) -> keras.Model:
        """Reduce the cost to its target in stages of equal ratios, and fine-tune."""
        assert self.budget.share is not None
        whole = _cost(original, self.budget.quantity)
        target = self.budget.share * whole
        ratio = target / _cost(model, self.budget.quantity)
        count = max(math.ceil(math.log(ratio) / math.log(STEP)), 1) if ratio < 1 else 0
        epochs = 0
        for number in range(1, count + 1):
            smaller = self._run_stage(model, target / ratio ** (1 - number / count), self.budget.quantity)
            if smaller is not None:
                model = smaller
                epochs += self.epochs_per_stage
                self._record(f"stage {number}", model, self.trainer.score(model), epochs)
        self.trainer.fine_tune(model, self.fine_tuning_epochs)
        self._record("fine-tuned", model, self.trainer.score(model), epochs + self.fine_tuning_epochs)
        self._chosen = len(self.rows) - 1
        return model

    def _search(self, model: keras.Model, original: dict[str, float], accuracy: str | None) -> keras.Model:
        """Reduce the cost while the scores allow it, in smaller and smaller stages."""
        best, step, epochs, number = model, STEP, 0, 0
        self._chosen = 0
        quantity = FLOPS if math.isfinite(_cost(model, FLOPS)) else PARAMETERS
        while step < SMALLEST_REDUCTION:
            copy = compact(best)  # a stage trains the model that it gets
            candidate = self._run_stage(copy, step * _cost(best, quantity), quantity)
            if candidate is None:
                break
            number += 1
            epochs += self.epochs_per_stage
            scores = self.trainer.score(candidate)
            self._record(f"stage {number}", candidate, scores, epochs)
            if not self.budget.allows(scores, original, accuracy):
                self.trainer.fine_tune(candidate, self.fine_tuning_epochs)
                epochs += self.fine_tuning_epochs
                scores = self.trainer.score(candidate)
                self._record(f"stage {number}, fine-tuned", candidate, scores, epochs)
            if self.budget.allows(scores, original, accuracy):
                best, self._chosen = candidate, len(self.rows) - 1
            else:
                step = math.sqrt(step)
        return best

    def _run_stage(self, model: keras.Model, target: float, quantity: str) -> keras.Model | None:
        """Remove units until the cost is at most a target, train, and return the smaller model; None without one."""
        units = RemovableUnits(model)
        gradients = measure_gradients(model, self.trainer)
        importance = rate_units(units, gradients)
        costs = Costs(units, quantity)
        estimate = target
        chosen = np.zeros(len(importance), bool)
        for _ in range(ATTEMPTS):
            chosen = choose_units(units, importance, costs, estimate, self.multiple)
            actual = _cost(units.remove(chosen), quantity)
            if actual <= target:
                break
            estimate *= 0.98 * target / actual
        else:
            chosen = choose_units(units, importance, costs, 0.0, self.multiple)
        if not chosen.any():
            return None
        penalized = self.epochs_per_stage - self.epochs_per_stage // 2
        smaller = remove_units(units, chosen, norm_gradients(units, gradients), self.trainer, penalized)
        self.trainer.fine_tune(smaller, self.epochs_per_stage // 2)
        return smaller

    def _check_reachable(self, units: RemovableUnits, original: keras.Model) -> None:
        """Raise ValueError if removing all removable units is not enough."""
        assert self.budget.share is not None
        everything = choose_units(
            units, np.zeros(len(units.is_removable)), Costs(units, self.budget.quantity), 0.0, self.multiple
        )
        least = _cost(units.remove(everything), self.budget.quantity) / _cost(original, self.budget.quantity)
        if math.isnan(least):
            raise ValueError(
                "The FLOPs of the model are not known, because an input has an axis of unknown length. Pass parameters "
                "instead of flops."
            )
        if least > self.budget.share:
            name = "flops" if self.budget.quantity == FLOPS else "parameters"
            raise ValueError(
                f"{name}={self.budget.share:g} cannot be reached: {least:.2g} of the {self.budget.quantity} remain if "
                f"every layer keeps its smallest width with multiple={self.multiple}. Pass a larger share or a smaller "
                "multiple."
            )

    def _record(self, stage: str, model: keras.Model, scores: dict[str, float], epochs: int) -> None:
        sizes = {FLOPS: _cost(model, FLOPS), PARAMETERS: _cost(model, PARAMETERS)}
        self.rows.append({"stage": stage, **sizes, "epochs": epochs, **scores})


def _cost(model: keras.Model, quantity: str) -> float:
    units = RemovableUnits(model)
    return Costs(units, quantity).total(np.ones(len(units.is_removable), bool))


def _compare_layers(before: keras.Model, after: keras.Model) -> pd.DataFrame:
    old, new = dead_units(before), dead_units(after)
    left = dict(zip(new["layer"], new["units"], strict=True))
    rows = [
        {"layer": layer, "before": units, "after": left.get(layer, 0), "why": why.removeprefix("all stay: ")
         if why.startswith("all stay: ") else ""}
        for layer, units, why in old[["layer", "units", "why"]].itertuples(index=False)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["layer", "before", "after", "why"])
