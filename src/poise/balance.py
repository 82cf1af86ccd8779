"""Reading the two forces on the weights, the prediction gradient and the penalty gradient, and their balance.

At a stationary point of prediction + penalty the two cancel and the residual, the distance of −∇prediction from the
subdifferential of the penalty, is zero.
"""

import keras
import numpy as np
import pandas as pd
from keras import ops

from poise.gradients import mean_gradients
from poise.optimizer import Penalized, find_penalized
from poise.targets import measure, values

EVEN = 0.05
"""Forces whose norms differ by less than this share count as balanced."""


def forces(model, x=None, y=None, sample_weight=None, batch_size=256) -> pd.DataFrame:
    """The two forces on every penalised variable.

    Without data: root mean squares over the training steps that `Penalized(observe=N)` recorded since the last reset,
    each on its own batch. With data: exact, at the current weights, over all given rows, with dropout off.

    Args:
        model: a model compiled with `poise.Penalized`.
        x, y, sample_weight: arrays (or nested structures of arrays) as for `model.fit`; or x alone, an iterable of
            batches (x, y) or (x, y, sample_weight).
        batch_size: how many rows go through the model at once; it does not change the result.

    Returns:
        A DataFrame, one row a penalised variable: `variable` (its path; the rule's name where a joint penalty acts on
        several together), `rule` (the names of its rules),
        `prediction` and `penalty` (the norms of the two gradients), `ratio` (penalty / prediction), `cosine` between
        them, `winner` ("prediction", "penalty", or "balanced" within 5%), `residual` (its norm), `relative_residual`
        (residual / prediction), `zeros` (the share of exact zeros) and `weight_norm`. The last two are those of now.

    Raises:
        ValueError: if the model is not compiled with `Penalized`, or, without data, nothing was recorded.

    Example:
        >>> import poise, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(poise.Penalized("sgd", poise.L2(0.01)), loss="mse")
        >>> poise.forces(model, np.ones((4, 2)), np.ones(4))["rule"].tolist()
        ['weights']
    """
    optimizer = built_optimizer(model)
    if x is None:
        sums, samples = optimizer.recorded_forces()
        if not samples:
            raise ValueError(
                "No forces were recorded. Compile with poise.Penalized(..., observe=10) and train, or give the data: "
                "poise.forces(model, x, y)."
            )
        return _table(optimizer, sums / samples)
    numbers = [number for target in optimizer.targets for number in target.members]
    variables = [variable for target in optimizer.targets for variable in optimizer.variables_of(target)]
    found = mean_gradients(model, variables, _batches(x, y, sample_weight, batch_size)) if variables else []
    gradients = {number: gradient.astype("float32") for number, gradient in zip(numbers, found, strict=True)}
    strengths = optimizer.current_strengths()
    rows = [
        ops.convert_to_numpy(measure(target, w, target.gathered(gradients.__getitem__), strengths))
        for target, w in zip(optimizer.targets, current_weights(optimizer).values(), strict=True)
    ]
    return _table(optimizer, np.array(rows).reshape(-1, 4))


def current_values(optimizer: Penalized) -> dict[str, float]:
    """What each rule's penalty is worth at the current weights, by the rule's name."""
    totals = values(optimizer.targets, current_weights(optimizer), optimizer.current_strengths())
    return {rule.name: float(ops.convert_to_numpy(total)) for rule, total in zip(optimizer.rules, totals, strict=True)}


def current_weights(optimizer: Penalized) -> dict:
    """By the index of a target what its penalties act on."""
    found = {}
    for target in optimizer.targets:
        of = dict(zip(target.members, map(ops.convert_to_tensor, optimizer.variables_of(target)), strict=True))
        found[target.index] = target.gathered(of.__getitem__)
    return found


def built_optimizer(model) -> Penalized:
    """The model's `Penalized`, built for its variables.

    Raises:
        ValueError: if the model has none, or is itself not built.
    """
    optimizer = find_penalized(model)
    check_built(model)
    if not optimizer.built:
        optimizer.build(model.trainable_variables, model.non_trainable_variables)
    return optimizer


def check_built(model):
    """Raises ValueError if the model has no variables yet."""
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built yet and has no variables. Give it a keras.Input, call it on data, "
            "or call model.build(input_shape)."
        )


def _table(optimizer, squares):
    rules = [rule.name for rule in optimizer.rules]
    weights = current_weights(optimizer)
    rows = []
    for target, (prediction, penalty, inner, residual) in zip(optimizer.targets, squares, strict=True):
        w = ops.convert_to_numpy(weights[target.index]).astype("float64")
        prediction, penalty, residual = np.sqrt([prediction, penalty, residual])
        rows.append(
            {
                "variable": target.path,
                "rule": ", ".join(rules[number] for number, _ in target.penalties),
                "prediction": prediction,
                "penalty": penalty,
                "ratio": _over(penalty, prediction),
                "cosine": _over(inner, prediction * penalty),
                "winner": _winner(prediction, penalty),
                "residual": residual,
                "relative_residual": _over(residual, prediction),
                "zeros": float(np.mean(w == 0)),
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


def _batches(x, y, sample_weight, batch_size):
    if y is None:
        for batch in x:
            yield (*batch, None)[:3] if isinstance(batch, (tuple, list)) else (batch, None, None)
        return
    rows = len(keras.tree.flatten(x)[0])
    for start in range(0, rows, batch_size):
        part = slice(start, start + batch_size)
        yield keras.tree.map_structure(lambda a: None if a is None else a[part], (x, y, sample_weight))  # noqa: B023
