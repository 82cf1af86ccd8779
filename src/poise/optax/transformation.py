"""An optax optimizer with penalties, as an optax transformation."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from poise.optax.inner import Inner
from poise.optax.metrics import metric_of
from poise.optax.parameters import Parameters
from poise.optax.step import PenalizedState, PenalizedStep, find_targets, strengths_at
from poise.optimizer.builder import choose_metric
from poise.optimizer.inner import UPDATES
from poise.optimizer.targets import values
from poise.rules.rule import as_rules


def penalized(
    optimizer: Callable[..., Any], rules: Any, update: str = "auto", **hyperparameters: Any
) -> optax.GradientTransformationExtraArgs:
    """Return an optax optimizer with penalties on the parameters.

    Pass it the gradients of the prediction loss, without the penalty, and the parameters:
    `tx.update(gradients, state, params)`. In `optax.chain` it must be the last transformation. Gradients can
    be clipped before it, but clipping that is still active at the end of training shifts the solution.

    An optax step is an update u that `optax.apply_updates` adds: p + u. Weights that the penalty sets to zero are
    exactly zero, because their update is −p. The sum rounds every other weight to the precision of p, so the bounds of
    `Box` and the equal weights of `TotalVariation` and `Slope` are met only up to this rounding error.

    Args:
        optimizer: The optax function that makes the inner optimizer, such as `optax.adam`, not the transformation that
            it returns, because poise cannot read the step size from that.
        rules: A penalty, a `poise.Rule`, or a list of those. A path consists of the keys of an array in the tree of
            parameters, joined by "/", such as `"Dense_0/kernel"` or `"layers/0/weight"`. A predicate receives an object
            with `path`, `shape` and `dtype`. A bare penalty acts on kernels and embeddings.
        update: How the penalties act, as in `poise.PenalizedOptimizer`:

            - `"auto"` (default): Smooth penalties are coupled, the others proximal.
            - `"coupled"`: The gradient of the penalty is added to the prediction gradient.
            - `"decoupled"`: The penalty takes a separate step with the learning rate.
            - `"proximal"`: The prox of the penalty follows the inner step, with the step sizes of that step.

        **hyperparameters: The arguments of the optax function, such as `learning_rate=0.01`. The learning rate may be a
            schedule.

    Returns:
        An optax transformation with a `PenalizedState`. It works inside `jax.jit`, `jax.vmap` and `jax.lax.scan`, and
        inside `optax.masked` and `optax.MultiSteps`.

    Raises:
        TypeError: If the optimizer is not a function or does not take the hyperparameters, or a rule is not a rule.
        ValueError: If the update is unknown, or the inner optimizer has no usable step for it. `init` and `update` of
            the transformation raise it if a rule does not fit the parameters.

    References:
        Yun, Lozano and Yang 2021, "Adaptive proximal gradient methods for structured neural networks".

    Examples:
        >>> import jax.numpy as jnp, optax, poise.optax
        >>> tx = poise.optax.penalized(optax.sgd, poise.L1(1.0), learning_rate=0.25)
        >>> params = {"kernel": jnp.array([[1.0], [0.125]])}
        >>> gradients = {"kernel": jnp.zeros((2, 1))}
        >>> updates, state = tx.update(gradients, tx.init(params), params)
        >>> print(optax.apply_updates(params, updates)["kernel"].ravel())
        [0.75 0.  ]
    """
    if update not in UPDATES:
        raise ValueError(f"update must be one of {', '.join(map(repr, UPDATES))}, got {update!r}.")
    named, inner = as_rules(rules), Inner.of(optimizer, hyperparameters)
    metric = choose_metric(inner, named, update, metric_of)
    if metric is not None or update == "decoupled":
        inner.rate(0)  # raises an error if there is none
    step = PenalizedStep(named, update, inner, metric, inner.transformation())
    return optax.GradientTransformationExtraArgs(step.first_state, step.take)


def penalty_values(rules: Any, params: Any, state: PenalizedState | None = None) -> dict[str, jax.Array]:
    """Return the value of every rule, strength · R, at the given parameters.

    Args:
        rules: The rules, as in `penalized`.
        params: The parameters.
        state: The state with the current strengths. Default: None (the strengths in `rules`).

    Returns:
        A dictionary that maps the name of each rule to a scalar.
    """
    named, parameters = as_rules(rules), Parameters.of(params)
    strengths = strengths_at(named, 0) if state is None else state.strengths
    starts = {} if state is None else state.starts
    targets = find_targets(named, parameters, lambda leaf: starts.get(leaf.path))
    weights = {target.index: target.gather(parameters.values.__getitem__) for target in targets}
    totals = values(targets, weights, [strengths[str(rule.name)] for rule in named])
    return {str(rule.name): total for rule, total in zip(named, totals, strict=True)}
