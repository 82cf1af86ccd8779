"""Find the `PenalizedOptimizer` of a model."""

from typing import Any

from poise.optimizer.penalized import PenalizedOptimizer


def get_penalized_optimizer(model: Any) -> PenalizedOptimizer:
    """Return the `PenalizedOptimizer` that a model was compiled with, also inside a `LossScaleOptimizer`.

    Args:
        model: A compiled `keras.Model`.

    Returns:
        The `poise.PenalizedOptimizer`.

    Raises:
        ValueError: If the model is not compiled with one.

    Examples:
        >>> import poise, keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(poise.PenalizedOptimizer("adam", poise.L2(0.01)), loss="mse")
        >>> poise.get_penalized_optimizer(model) is model.optimizer
        True
    """
    optimizer = find_penalized_optimizer(model)
    if optimizer is None:
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} is not compiled with poise.PenalizedOptimizer. Compile it "
            "with optimizer=poise.PenalizedOptimizer('adam', poise.L2(0.01)), or another rule."
        )
    return optimizer


def find_penalized_optimizer(model: Any) -> PenalizedOptimizer | None:
    """Return the `PenalizedOptimizer` that a model was compiled with, or None."""
    return unwrap_optimizer(getattr(model, "optimizer", None))


def unwrap_optimizer(optimizer: Any) -> PenalizedOptimizer | None:
    """Return the `PenalizedOptimizer` in an optimizer and the optimizers inside it, or None."""
    while optimizer is not None and not isinstance(optimizer, PenalizedOptimizer):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer
