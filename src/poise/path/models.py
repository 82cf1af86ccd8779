"""What a model must be to be trained in lanes, and what lanes take from it."""

import random

import keras
import numpy as np

from poise.diagnostics.force_balance import check_built
from poise.optimizer.penalized import get_penalized_optimizer
from poise.rules.layers import learn
from poise.rules.members import path_of
from poise.rules.plan import resolve


def check_model(model):
    """Raises ValueError if the model cannot be trained in lanes, with the reason."""
    if not getattr(model, "compiled", False):
        raise ValueError("The model is not compiled. Call model.compile(optimizer, loss) before poise.path.")
    check_built(model)
    name = type(model).__name__
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            f"{name} has a train_step of its own, which lanes would not run: they take the gradient of the compiled "
            "loss. Put what it does into compute_loss or the layers, or train it with fit."
        )
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Lanes do not scale the loss, which float16 needs. Use the policy 'mixed_bfloat16' or 'float32'."
        )
    if inner_optimizer(model).use_ema or getattr(model.optimizer, "use_ema", False):
        raise ValueError("An average of weights (use_ema=True) has no exact zeros. Compile the model without it.")
    carried = [path_of(v) for v in model.trainable_variables if getattr(v, "regularizer", None) is not None]
    if carried:
        raise ValueError(
            f"{carried[0]!r} carries a Keras regularizer, which would be part of the prediction loss of every lane. "
            "Move it into a rule with poise.adopt_regularizers(model)."
        )


def resolved_rules(model, rules) -> dict:
    """What rules resolve to on the model (`Plan.config`); those of its optimizer as the optimizer resolves them.

    Raises:
        ValueError: if the rules do not fit the model.
    """
    try:
        own = get_penalized_optimizer(model)
    except ValueError:
        own = None
    variables, weights = model.trainable_variables, model.weights
    if own is not None and all(any(rule is other for other in own.rules) for rule in rules):
        return own.plan(variables, model).config
    learn([model])
    return resolve(rules, variables, weights).config


def compiled_update(model) -> str:
    """Return the update of the `PenalizedOptimizer` that the model was compiled with, "auto" if there is none."""
    try:
        return get_penalized_optimizer(model).update
    except ValueError:
        return "auto"


def inner_optimizer(model):
    """The optimizer that takes the steps: the compiled one, or the one inside a `PenalizedOptimizer`."""
    try:
        return get_penalized_optimizer(model).inner_optimizer
    except ValueError:
        return model.optimizer


def drawn(model, seed: int) -> list:
    """The trained variables of the model for the seed 0, and of a new draw of its initial weights for another.

    Raises:
        ValueError: if the model cannot be drawn anew.
    """
    if seed == 0:
        return model.trainable_variables
    before = random.getstate()
    random.seed(seed)
    try:
        clone = keras.models.clone_model(model)
    except Exception as error:
        raise ValueError(f"seeds > 1 draws new initial weights, and the model cannot be cloned: {error}") from error
    finally:
        random.setstate(before)
    trained = {id(variable) for variable in model.trainable_variables}
    shapes, others = ([tuple(v.shape) for v in one.variables] for one in (model, clone))
    if shapes != others:
        raise ValueError(
            f"seeds > 1 draws new initial weights, and a clone of the model has variables of the shapes {others} where "
            f"the model has {shapes}. A layer of it does not restore itself from its get_config."
        )
    # By position: a clone does not know which variables were frozen one by one.
    return [theirs for ours, theirs in zip(model.variables, clone.variables, strict=True) if id(ours) in trained]


def first_rate(optimizer) -> float:
    """The learning rate, where it is scheduled that of the first step."""
    rate = optimizer._learning_rate
    return float(keras.ops.convert_to_numpy(rate(0) if callable(rate) else rate))


def outputs_of(model) -> int:
    """How many numbers the layers give for one row; 0 where the layers are not a graph."""
    shapes = [tensor.shape[1:] for layer in model.layers for tensor in keras.tree.flatten(getattr(layer, "output", []))]
    return sum(int(np.prod([size or 1 for size in shape])) for shape in shapes)
