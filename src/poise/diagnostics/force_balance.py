"""Reading the two forces on the weights, the prediction gradient and the penalty gradient, and their balance.

At a stationary point of prediction + penalty the two cancel and the residual, the distance of −∇prediction from the
subdifferential of the penalty, is zero.
"""

import warnings
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
from keras import ops

from poise.diagnostics.fit_data import read_fit_data
from poise.diagnostics.gradients import prediction_gradient
from poise.optimizer.builder import targets_of
from poise.optimizer.penalized import PenalizedOptimizer, get_penalized_optimizer
from poise.optimizer.targets import Target, measure, values
from poise.rules.members import path_of

EVEN = 0.05
"""Forces whose norms differ by less than this share count as balanced."""


def forces(
    model, x=None, y=None, sample_weight=None, batch_size=None, *, class_weight=None, optimizer=None
) -> pd.DataFrame:
    """Compute the two forces on every penalized variable.

    Without data: root mean squares over the training steps that `PenalizedOptimizer(observe_every=N)` recorded since the last reset,
    each on its own batch.

    With data: the prediction gradient is the gradient of `model.compute_loss` on one batch that holds all given rows,
    at the current weights and in inference mode (dropout off, moving statistics in normalization). So it follows the
    compiled losses with their reductions, `loss_weights`, masks, `add_loss`, and an overridden `compute_loss`, but not
    an overridden `train_step`. A loss that is not reduced (`reduction=None`) is summed. Nothing is changed: no weight,
    metric, random state or optimizer. An optimizer that is not built is not built here; a `poise.Anchored` penalty
    without a start then counts from the current weights.

    Args:
        model: a model compiled with `poise.PenalizedOptimizer`, or any built model with `optimizer`.
        x, y, sample_weight: arrays (or structures of arrays) as in `model.fit`; or only x, an iterable of batches x,
            (x,), (x, y) or (x, y, sample_weight), which is read to its end and held in memory.
        batch_size: how many rows go through the model at once, by default 256. It does not change the result, if the
            prediction of a row does not depend on the other rows, as in `model.predict`. Losses that are not a
            function of the predictions (`add_loss`, an overridden `compute_loss`) are computed on all rows at once,
            with a warning if `batch_size` was passed.
        class_weight: a dictionary of class indices and weights, as in `model.fit`.
        optimizer: the `poise.PenalizedOptimizer` whose rules are meant, by default that of the model. For models with several
            optimizers and for custom training loops. Its variables must be variables of the model.

    Returns:
        A DataFrame, one row per penalized variable: `variable` (its path; the rule's name where a joint penalty acts on
        several together), `rule` (the names of its rules),
        `prediction` and `penalty` (the norms of the two gradients), `ratio` (penalty / prediction), `cosine` between
        them, `winner` ("prediction", "penalty", or "balanced" within 5%), `residual` (its norm), `relative_residual`
        (residual / prediction), `zeros` (the share of exact zeros) and `weight_norm`. The last two are the current
        ones.

    Raises:
        ValueError: if the model is not compiled with `PenalizedOptimizer` and no optimizer is passed; if the model has no loss,
            or the data have no rows; if the optimizer belongs to another model; or, without data, if nothing was
            recorded.
        TypeError: if an argument has the wrong type.

    Example:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("sgd", poise.L2(0.01)), loss="mse")
        >>> poise.forces(model, np.ones((4, 2)), np.ones(4))["rule"].tolist()
        ['kernels']
    """
    check_built(model)
    penalized = penalized_of(model, optimizer)
    sync(model)
    penalties = Penalties.of(penalized, model)
    if x is None and penalties.targets:
        record = penalized.force_record() if penalized.built else None
        sums, samples = (np.zeros((0, 4)), 0) if record is None else (record.total, record.samples)
        if not samples:
            raise ValueError(
                "No forces were recorded. Compile with poise.PenalizedOptimizer(..., observe_every=10) and train, or give the data: "
                "poise.forces(model, x, y)."
            )
        return _table(penalties, sums / samples)
    if x is None:
        return _table(penalties, np.zeros((0, 4)))
    data = read_fit_data(x, y, sample_weight, batch_size, class_weight)
    numbers = [number for target in penalties.targets for number in target.members]
    variables = [penalties.variables[number] for number in numbers]
    _check_belong(variables, model)
    found, why_at_once = prediction_gradient(model, variables, data) if variables else ([], "")
    if why_at_once and batch_size is not None:
        warnings.warn(
            f"batch_size={batch_size} is not used: {why_at_once}. All {data.rows} rows went through the model at once.",
            stacklevel=2,
        )
    gradients = {number: gradient.astype("float32") for number, gradient in zip(numbers, found, strict=True)}
    rows = [
        ops.convert_to_numpy(measure(target, w, target.gathered(gradients.__getitem__), penalties.strengths))
        for target, w in zip(penalties.targets, penalties.weights().values(), strict=True)
    ]
    return _table(penalties, np.array(rows).reshape(-1, 4))


@dataclass(frozen=True)
class Penalties:
    """The penalties of an optimizer on variables, whether it is built or not.

    Attributes:
        rules: the names of the rules.
        targets: what is penalized.
        variables: the variables that the numbers in the targets stand for.
        strengths: the current strength of every rule.
    """

    rules: list[str]
    targets: list[Target]
    variables: list
    strengths: list

    @classmethod
    def of(cls, optimizer: PenalizedOptimizer, model) -> "Penalties":
        """Those of a built optimizer; else those that it would have if it were built for the model now.

        Raises:
            ValueError: if the rules do not fit the model.
        """
        if optimizer.built:
            return cls.of_built(optimizer)
        variables = model.trainable_variables
        plan = optimizer.plan(variables, model)
        names = [rule.name for rule in optimizer.rules]
        targets = targets_of(optimizer.rules, plan, variables, ops.convert_to_numpy)
        return cls(names, targets, variables, [optimizer.strength[name] for name in names])

    @classmethod
    def of_built(cls, optimizer: PenalizedOptimizer) -> "Penalties":
        names = [rule.name for rule in optimizer.rules]
        variables = {
            number: variable
            for target in optimizer.targets
            for number, variable in zip(target.members, optimizer.variables_of(target), strict=True)
        }
        in_order = [variables.get(number) for number in range(max(variables, default=-1) + 1)]
        return cls(names, list(optimizer.targets), in_order, optimizer.current_strengths())

    def weights(self) -> dict:
        """By the index of a target what its penalties act on."""
        return {
            target.index: target.gathered(lambda number: ops.convert_to_tensor(self.variables[number]))
            for target in self.targets
        }


def current_values(optimizer: PenalizedOptimizer, model) -> dict[str, float]:
    """What each rule's penalty is worth at the current weights, by the rule's name."""
    penalties = Penalties.of(optimizer, model)
    totals = values(penalties.targets, penalties.weights(), penalties.strengths)
    return {name: float(ops.convert_to_numpy(total)) for name, total in zip(penalties.rules, totals, strict=True)}


def current_weights(optimizer: PenalizedOptimizer) -> dict:
    """By the index of a target what its penalties act on."""
    return Penalties.of_built(optimizer).weights()


def penalized_of(model, optimizer=None) -> PenalizedOptimizer:
    """The `PenalizedOptimizer` that is passed, or else the model's.

    Raises:
        TypeError: if something else is passed.
        ValueError: if nothing is passed and the model has none, or several.
    """
    if optimizer is None:
        try:
            return get_penalized_optimizer(model)
        except ValueError as error:
            names = [name for name, value in vars(model).items() if isinstance(value, PenalizedOptimizer)]
            if not names:
                raise
            several = ", ".join(f"model.{name}" for name in names)
            raise ValueError(
                f"The model {getattr(model, 'name', model)!r} is not compiled with poise.PenalizedOptimizer, but has {several}. "
                f"Pass the one that is meant: optimizer=model.{names[0]}."
            ) from error
    inside = optimizer
    while inside is not None and not isinstance(inside, PenalizedOptimizer):
        inside = getattr(inside, "inner_optimizer", None)
    if inside is None:
        raise TypeError(
            f"optimizer must be a poise.PenalizedOptimizer, or a LossScaleOptimizer around one, got {type(optimizer).__name__}."
        )
    return inside


def build_penalized(model, optimizer=None) -> PenalizedOptimizer:
    """The `PenalizedOptimizer` that is passed, or else the model's, built for the model's variables.

    Raises:
        TypeError, ValueError: as `penalized_of` and `check_built` do.
    """
    penalized = penalized_of(model, optimizer)
    check_built(model)
    if not penalized.built:
        penalized.build(model.trainable_variables, model)
    return penalized


def sync(model):
    """On JAX gives the model's variables their values in the middle of an epoch, which `fit` holds elsewhere."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def check_built(model):
    """Raises ValueError if the model has no variables yet, TypeError if it is not one."""
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model must be a Keras model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built yet and has no variables. Give it a keras.Input, call it on data, "
            "or call model.build(input_shape)."
        )


def _check_belong(variables, model):
    known = {id(variable) for variable in model.variables}
    others = [path_of(variable) for variable in variables if id(variable) not in known]
    if others:
        raise ValueError(
            f"The optimizer penalizes {others[0]!r}, which is not a variable of the model {model.name!r}. Pass the "
            "model that holds it, or the optimizer of this model."
        )


def _table(penalties, squares):
    weights, rows = penalties.weights(), []
    for target, (prediction, penalty, inner, residual) in zip(penalties.targets, squares, strict=True):
        w = ops.convert_to_numpy(weights[target.index]).astype("float64")
        prediction, penalty, residual = np.sqrt([prediction, penalty, residual])
        rows.append(
            {
                "variable": target.path,
                "rule": ", ".join(penalties.rules[number] for number, _ in target.penalties),
                "prediction": prediction,
                "penalty": penalty,
                "ratio": _over(penalty, prediction),
                "cosine": _over(inner, prediction * penalty),
                "winner": _winner(prediction, penalty),
                "residual": residual,
                "relative_residual": _over(residual, prediction),
                "zeros": float(np.mean(w == 0)) if w.size else float("nan"),
                "weight_norm": float(np.linalg.norm(w)),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *("variable", "rule", "prediction", "penalty", "ratio", "cosine", "winner"),
    *("residual", "relative_residual", "zeros", "weight_norm"),
]


def _over(a, b):
    return float(a / b) if b else float("nan")


def _winner(prediction, penalty):
    if abs(prediction - penalty) <= EVEN * max(prediction, penalty):
        return "balanced"
    return "prediction" if prediction > penalty else "penalty"
