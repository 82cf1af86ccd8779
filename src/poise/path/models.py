"""What a model must be so that lanes can train it, and what lanes take from it."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from poise._keras_internals import learning_rate_or_schedule
from poise.diagnostics.force_balance import check_built
from poise.optimizer.lookup import find_penalized_optimizer
from poise.optimizer.penalized import PenalizedOptimizer
from poise.rules.layers import register_layers
from poise.rules.members import path_of
from poise.rules.plan import resolve
from poise.rules.rule import Rule
from poise.survival.loss import CoxPartialLikelihood


def check_model(model: Any) -> None:
    """Check that lanes can train the model.

    Raises:
        ValueError: If they cannot, with the reason.
    """
    if not getattr(model, "compiled", False):
        raise ValueError("The model is not compiled. Call model.compile(optimizer, loss) before poise.fit_path.")
    check_built(model)
    name = type(model).__name__
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            f"{name} has a custom train_step, which poise.fit_path would not run: it trains with the gradient of the "
            "compiled loss. Move the computation into compute_loss or into layers, or train the model with fit."
        )
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "poise.fit_path does not scale the loss, which float16 needs. Use the dtype policy 'mixed_bfloat16' or "
            "'float32'."
        )
    if inner_optimizer(model).use_ema or getattr(model.optimizer, "use_ema", False):
        raise ValueError("An average of weights (use_ema=True) has no exact zeros. Compile the model without it.")
    regularized = [path_of(v) for v in model.trainable_variables if getattr(v, "regularizer", None) is not None]
    if regularized:
        raise ValueError(
            f"{regularized[0]!r} has a Keras regularizer, which would be part of the prediction loss of every lane. "
            "Turn it into a rule with poise.adopt_regularizers(model)."
        )


def is_whole_batch(model: Any) -> bool:
    """Return whether a loss of the model compares the rows of a batch, and says so: `loss.whole_batch` is True."""
    return any(getattr(loss, "whole_batch", False) for loss in _list_losses(model))


def is_cox(model: Any) -> bool:
    """Return whether a loss of the model is the Cox partial likelihood, in whatever form it was compiled."""
    return any(isinstance(loss, CoxPartialLikelihood) for loss in _list_losses(model))


def _list_losses(model: Any) -> list[Any]:
    return [keras.losses.get(loss) for loss in keras.tree.flatten(model.loss) if loss is not None]


def resolve_rules(model: Any, rules: Sequence[Rule]) -> dict:
    """Return what rules resolve to on the model (`Plan.config`); its optimizer's rules stay as that one resolved them.

    Raises:
        ValueError: If the rules do not fit the model.
    """
    compiled = find_penalized_optimizer(model)
    variables, weights = model.trainable_variables, model.weights
    if compiled is not None and all(any(rule is other for other in compiled.rules) for rule in rules):
        return compiled.plan(variables, model).config
    register_layers([model])
    return resolve(rules, variables, weights).config


def compiled_update(model: Any) -> str:
    """Return the update of the `PenalizedOptimizer` that the model was compiled with, "auto" if there is none."""
    compiled = find_penalized_optimizer(model)
    return "auto" if compiled is None else compiled.update


def inner_optimizer(model: Any) -> Any:
    """Return the optimizer that takes the steps: the compiled one, or the one inside a `PenalizedOptimizer`."""
    compiled = find_penalized_optimizer(model)
    return model.optimizer if compiled is None else compiled.inner_optimizer


def build_optimizer(
    model: Any, rules: Sequence[Rule], update: str, resolved: dict, learning_rate: Any = None
) -> PenalizedOptimizer:
    """Return a new penalized optimizer like the compiled one, built for the model.

    Args:
        model: compiled model, which keeps its optimizer.
        rules: rules of the path.
        update: how the penalties act.
        resolved: what the rules resolve to (`Plan.config`).
        learning_rate: another learning rate, without accumulation of gradients; None: the compiled settings.

    Raises:
        ValueError: If the update does not work with the optimizer.
    """
    inner = inner_optimizer(model)
    config = inner.get_config()
    if learning_rate is not None:
        config.update(learning_rate=learning_rate, gradient_accumulation_steps=None)
    optimizer = PenalizedOptimizer(type(inner).from_config(config), list(rules), update)
    optimizer.restore_plan(resolved).build(model.trainable_variables, model)
    return optimizer


def draw_variables(model: Any, seed: int) -> list[Any]:
    """Return the trained variables of the model for the seed 0, and of new initial weights for another seed.

    Raises:
        ValueError: If new weights cannot be drawn.
    """
    if seed == 0:
        return model.trainable_variables
    try:
        with seed_initial_weights(seed):
            clone = keras.models.clone_model(model)
    except Exception as error:
        raise ValueError(f"n_init > 1 draws new initial weights, and the model cannot be cloned: {error}") from error
    trained = {id(variable) for variable in model.trainable_variables}
    shapes, cloned_shapes = ([tuple(v.shape) for v in network.variables] for network in (model, clone))
    if shapes != cloned_shapes:
        raise ValueError(
            f"n_init > 1 draws new initial weights, and a clone of the model has variables of the shapes "
            f"{cloned_shapes} instead of {shapes}. Give every layer a get_config from which it is restored."
        )
    # By position: a clone does not know which variables were frozen one by one.
    pairs = zip(model.variables, clone.variables, strict=True)
    return [cloned for original, cloned in pairs if id(original) in trained]


@contextlib.contextmanager
def seed_initial_weights(seed: int) -> Iterator[None]:
    """Seed Python and NumPy, so that initializers draw the same weights as after `keras.utils.set_random_seed`.

    Keras takes the seeds of its initializers from Python's generator. `set_random_seed` would also import TensorFlow,
    which takes seconds. Both generators are restored on exit.
    """
    before, state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(state)


def first_learning_rate(optimizer: Any) -> float:
    """Return the learning rate; if it is scheduled, the rate of the first step."""
    rate = learning_rate_or_schedule(optimizer)
    return float(keras.ops.convert_to_numpy(rate(0) if callable(rate) else rate))


def count_outputs(model: Any) -> int:
    """Return how many numbers the layers compute for one row; 0 if the layers are not a graph."""
    shapes = [tensor.shape[1:] for layer in model.layers for tensor in keras.tree.flatten(getattr(layer, "output", []))]
    return sum(int(np.prod([size or 1 for size in shape])) for shape in shapes)
