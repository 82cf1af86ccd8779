"""The two forces on the weights, which are the prediction gradient and the penalty gradient (poise.forces).

At a stationary point of prediction + penalty they cancel, and the residual, the distance of −∇prediction from the
subdifferential of the penalty, is zero.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from poise.diagnostics.fit_data import read_fit_data
from poise.diagnostics.gradients import prediction_gradient
from poise.optimizer.builder import targets_of
from poise.optimizer.lookup import find_penalized_optimizer, get_penalized_optimizer, unwrap_optimizer
from poise.optimizer.penalized import PenalizedOptimizer
from poise.optimizer.targets import Target, measure, values
from poise.rules.members import path_of

BALANCED_WITHIN = 0.05
"""Forces whose norms differ by less than this share are balanced."""


def forces(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    *,
    class_weight: dict[int, float] | None = None,
    optimizer: Any = None,
) -> pd.DataFrame:
    """Measure the two forces on every penalized variable: the prediction gradient and the penalty gradient.

    Without data, the forces are root mean squares over the training steps that
    `PenalizedOptimizer(observe_every=N)` recorded since the last reset, each on its own batch.

    With data, the prediction gradient is the gradient of `model.compute_loss` on one batch of all rows, at the current
    weights and in inference mode (dropout off, moving statistics in normalization). It includes the compiled losses
    with their reductions, `loss_weights`, masks, `add_loss` and a custom `compute_loss`, but not a custom `train_step`.
    A loss with `reduction=None` is summed. No weight, metric, random state or optimizer is changed. If the optimizer is
    not built yet, `poise.Anchored` penalties without a start use the current weights.

    Args:
        model: `keras.Model` that is compiled with `poise.PenalizedOptimizer`, or any built model with `optimizer`.
        x: Arrays or structures of arrays as in `model.fit`; or an iterable of batches `x`, `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`, which is read to its end into memory. Default: None, which reads recorded forces.
        y: Arrays or structures of arrays of targets, if `x` has arrays. Default: None.
        sample_weight: Arrays or structures of arrays of weights, if `x` has arrays. Default: None.
        batch_size: Int >= 1, number of rows per forward pass. It does not change the result if the prediction of a row
            does not depend on other rows, as in `model.predict`. Losses that are not a function of the predictions
            (`add_loss`, a custom `compute_loss`) are computed on all rows at once, with a warning if `batch_size` was
            passed. Default: None, which uses 256.
        class_weight: Dictionary of class indices and weights, as in `model.fit`. Default: None.
        optimizer: `poise.PenalizedOptimizer` whose rules are used, for models with several optimizers and for custom
            training loops. Its variables must be variables of the model. Default: None (the model's optimizer).

    Returns:
        A DataFrame with one row per penalized variable and these columns:

        | column | meaning |
        |---|---|
        | `variable` | path of the variable; the name of the rule if a joint penalty acts on several variables |
        | `rule` | names of its rules |
        | `prediction` | norm of the prediction gradient |
        | `penalty` | norm of the penalty gradient |
        | `ratio` | `penalty / prediction` |
        | `cosine` | cosine between the two gradients, -1 where they cancel |
        | `winner` | "prediction" or "penalty", the larger force, or "balanced" if they differ by at most 5% |
        | `residual` | norm of the residual, 0 at a stationary point of prediction + penalty |
        | `relative_residual` | `residual / prediction` |
        | `zeros` | share of exact zeros in the current weights |
        | `weight_norm` | norm of the current weights |

        A quotient by zero is NaN.

    Raises:
        ValueError: If the model is not compiled with `PenalizedOptimizer` and `optimizer` is None; if the model has no
            loss or the data have no rows; if the optimizer belongs to another model; or, without data, if nothing was
            recorded.
        TypeError: If an argument has the wrong type.

    Examples:
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
                "No forces were recorded. Compile with poise.PenalizedOptimizer(..., observe_every=10) and train, or "
                "pass data: poise.forces(model, x, y)."
            )
        return _table(penalties, sums / samples)
    if x is None:
        return _table(penalties, np.zeros((0, 4)))
    data = read_fit_data(x, y, sample_weight, batch_size, class_weight)
    numbers = [number for target in penalties.targets for number in target.members]
    variables = [penalties.variables[number] for number in numbers]
    _check_belong(variables, model)
    by_variable, why_at_once = prediction_gradient(model, variables, data) if variables else ([], "")
    if why_at_once and batch_size is not None:
        warnings.warn(
            f"batch_size={batch_size} is not used: {why_at_once}. All {data.rows} rows went through the model at once.",
            stacklevel=2,
        )
    gradients = {number: gradient.astype("float32") for number, gradient in zip(numbers, by_variable, strict=True)}
    rows = [
        ops.convert_to_numpy(measure(target, w, target.gather(gradients.__getitem__), penalties.strengths))
        for target, w in zip(penalties.targets, penalties.weights().values(), strict=True)
    ]
    return _table(penalties, np.array(rows).reshape(-1, 4))


@dataclass(frozen=True)
class Penalties:
    """The penalties of an optimizer on variables, built or not.

    Attributes:
        rules: Names of the rules.
        targets: Penalized variables, or groups of variables under a joint penalty.
        variables: Variables, by the numbers that the targets use.
        strengths: Current strength of every rule.
    """

    rules: list[str]
    targets: list[Target]
    variables: list[Any]
    strengths: list[Any]

    @classmethod
    def of(cls, optimizer: PenalizedOptimizer, model: Any) -> "Penalties":
        """Return the penalties of a built optimizer, or those that it would have if it were built for the model now.

        Raises:
            ValueError: If the rules do not fit the model.
        """
        if optimizer.built:
            return cls.of_built(optimizer)
        variables = model.trainable_variables
        plan = optimizer.plan(variables, model)
        names = [str(rule.name) for rule in optimizer.rules]
        targets = targets_of(optimizer.rules, plan, variables, ops.convert_to_numpy)
        return cls(names, targets, variables, [optimizer.strength[name] for name in names])

    @classmethod
    def of_built(cls, optimizer: PenalizedOptimizer) -> "Penalties":
        """Return the penalties of a built optimizer."""
        names = [str(rule.name) for rule in optimizer.rules]
        variables = {
            number: variable
            for target in optimizer.targets
            for number, variable in zip(target.members, optimizer.variables_of(target), strict=True)
        }
        in_order = [variables.get(number) for number in range(max(variables, default=-1) + 1)]
        return cls(names, list(optimizer.targets), in_order, optimizer.current_strengths())

    def weights(self) -> dict[int, Any]:
        """Return, by the index of a target, the tensor that its penalties act on."""
        return {
            target.index: target.gather(lambda number: ops.convert_to_tensor(self.variables[number]))
            for target in self.targets
        }


def current_values(optimizer: PenalizedOptimizer, model: Any) -> dict[str, float]:
    """Return the value of the penalty of every rule at the current weights, by the name of the rule."""
    penalties = Penalties.of(optimizer, model)
    totals = values(penalties.targets, penalties.weights(), penalties.strengths)
    return {name: float(ops.convert_to_numpy(total)) for name, total in zip(penalties.rules, totals, strict=True)}


def current_weights(optimizer: PenalizedOptimizer) -> dict[int, Any]:
    """Return, by the index of a target of a built optimizer, the tensor that its penalties act on."""
    return Penalties.of_built(optimizer).weights()


def penalized_of(model: Any, optimizer: Any = None) -> PenalizedOptimizer:
    """Return the `PenalizedOptimizer` in `optimizer`, or the model's optimizer if `optimizer` is None.

    Raises:
        TypeError: If `optimizer` is not a `PenalizedOptimizer`.
        ValueError: If `optimizer` is None and the model has no `PenalizedOptimizer`, or several.
    """
    if optimizer is not None:
        penalized = unwrap_optimizer(optimizer)
        if penalized is None:
            raise TypeError(
                "optimizer must be a poise.PenalizedOptimizer, or a LossScaleOptimizer around one, got "
                f"{type(optimizer).__name__}."
            )
        return penalized
    names = [name for name, value in getattr(model, "__dict__", {}).items() if isinstance(value, PenalizedOptimizer)]
    if find_penalized_optimizer(model) is None and names:
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} is not compiled with poise.PenalizedOptimizer, but has "
            f"{', '.join(f'model.{name}' for name in names)}. Pass one of them, such as optimizer=model.{names[0]}."
        )
    return get_penalized_optimizer(model)


def build_penalized(model: Any, optimizer: Any = None) -> PenalizedOptimizer:
    """Return the result of `penalized_of`, built for the model's variables.

    Raises:
        TypeError: As `penalized_of` and `check_built`.
        ValueError: As `penalized_of` and `check_built`.
    """
    penalized = penalized_of(model, optimizer)
    check_built(model)
    if not penalized.built:
        penalized.build(model.trainable_variables, model)
    return penalized


def sync(model: Any) -> None:
    """Update the model's variables during an epoch on JAX, where `fit` keeps their values elsewhere."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def check_built(model: Any) -> None:
    """Raise ValueError if the model is not built, and TypeError if it is not a Keras model."""
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model must be a Keras model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built yet and has no variables. Start it with keras.Input, call it on "
            "data, or call model.build(input_shape)."
        )


def _check_belong(variables: list[Any], model: Any) -> None:
    known = {id(variable) for variable in model.variables}
    others = [path_of(variable) for variable in variables if id(variable) not in known]
    if others:
        raise ValueError(
            f"The optimizer penalizes {others[0]!r}, which is not a variable of the model {model.name!r}. Pass the "
            "model that holds it, or the optimizer of this model."
        )


def _table(penalties: Penalties, squares: np.ndarray) -> pd.DataFrame:
    """Build the table from (targets, 4) of ‖∇prediction‖², ‖∇penalty‖², their inner product and ‖residual‖²."""
    weights = penalties.weights()
    rows = [
        forces_row(target, penalties.rules, ops.convert_to_numpy(weights[target.index]), sums)
        for target, sums in zip(penalties.targets, squares, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def forces_row(target: Target, rules: Sequence[str], weights: np.ndarray, sums: np.ndarray) -> dict[str, Any]:
    """Return the row of `forces` for a target.

    Args:
        target: The target.
        rules: The names of all rules.
        weights: The weights that its penalties act on.
        sums: (4,) ‖∇prediction‖², ‖∇penalty‖², their inner product and ‖residual‖².
    """
    w = weights.astype("float64")
    names = {"variable": target.path, "rule": ", ".join(rules[number] for number, _ in target.penalties)}
    zeros = float(np.mean(w == 0)) if w.size else float("nan")
    return {**names, **compare_forces(sums), "zeros": zeros, "weight_norm": float(np.linalg.norm(w))}


def compare_forces(sums: np.ndarray) -> dict[str, Any]:
    """Return the columns of `forces` about two gradients.

    Args:
        sums: (4,) ‖∇prediction‖², ‖∇penalty‖², their inner product and ‖residual‖².
    """
    prediction, penalty, residual = np.sqrt(np.asarray(sums, "float64")[[0, 1, 3]])
    return {
        "prediction": prediction,
        "penalty": penalty,
        "ratio": _divide(penalty, prediction),
        "cosine": _divide(float(sums[2]), prediction * penalty),
        "winner": _winner(prediction, penalty),
        "residual": residual,
        "relative_residual": _divide(residual, prediction),
    }


COLUMNS = [
    *("variable", "rule", "prediction", "penalty", "ratio", "cosine", "winner"),
    *("residual", "relative_residual", "zeros", "weight_norm"),
]


def _divide(a: float, b: float) -> float:
    return float(a / b) if b else float("nan")


def _winner(prediction: float, penalty: float) -> str:
    if abs(prediction - penalty) <= BALANCED_WITHIN * max(prediction, penalty):
        return "balanced"
    return "prediction" if prediction > penalty else "penalty"
