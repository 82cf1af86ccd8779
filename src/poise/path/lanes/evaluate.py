"""Losses, penalties and residuals of lanes, with dropout off."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poise.optimizer.targets import measure, values
from poise.path.lanes.compile_ahead import CompileAhead
from poise.path.lanes.losses import loss_of, times
from poise.path.lanes.problem import Factors, LaneProblem, LaneState
from poise.path.lanes.sources import DataSource
from poise.path.lanes.state import place_state
from poise.path.lanes.step import loss_and_gradient, loss_scale, row_weights
from poise.path.training import Replica

LOSSES = ("loss", "held_loss")


@functools.partial(jax.jit, static_argnums=0)
def evaluate_rows(problem: LaneProblem, trained: list[Any], fixed: list[Any], data: Any, masks: Any) -> Any:
    """Return both losses on some rows and the gradient of the first, in a form that can be summed over batches.

    Args:
        problem: problem of the lanes.
        trained, fixed: as in `LaneState`.
        data: (x, y, sample_weight) of the rows.
        masks: by the name of a loss (how often each row counts, (replicas, rows); how many rows count in all).
    """
    x, y, sample_weight = data
    weights = {name: mask * loss_scale(problem, mask.shape[1], count) for name, (mask, count) in masks.items()}

    def evaluate(trained: list[Any], fixed: list[Any], weights: Any) -> Any:
        (loss, (predictions, _)), gradient = loss_and_gradient(
            problem, trained, fixed, x, y, times(weights["loss"], sample_weight), False
        )
        with problem.scope(trained, fixed):
            held_weights = times(weights["held_loss"], sample_weight)
            held_loss = loss_of(problem.model, x, y, predictions, held_weights, False)
        return {"loss": loss, "held_loss": held_loss}, gradient

    return jax.vmap(jax.vmap(evaluate, in_axes=(0, 0, None)))(trained, fixed, weights)


@functools.partial(jax.jit, static_argnums=0)
def evaluate_penalties(
    problem: LaneProblem, trained: list[Any], gradients: list[Any], strengths: Any, factors: Factors
) -> Any:
    """Return the sums of `poise.optimizer.targets.measure`, (replicas, strengths, targets, 4), and the penalty."""

    def evaluate(trained: list[Any], gradients: list[Any], strengths: Any, factors: Factors) -> Any:
        targets = [target.with_factors(factors) for target in problem.optimizer.targets]
        if not targets:
            return jnp.zeros((0, 4)), jnp.zeros(())
        weights = {target.index: target.gather(trained.__getitem__) for target in targets}
        rows = [measure(t, weights[t.index], t.gather(gradients.__getitem__), strengths) for t in targets]
        return jnp.stack(rows), sum(values(targets, weights, strengths))

    return jax.vmap(jax.vmap(evaluate), in_axes=(0, 0, None, 0))(trained, gradients, strengths, factors)


@functools.partial(jax.jit, static_argnums=0)
def evaluate_held_rows(
    problem: LaneProblem, trained: list[Any], fixed: list[Any], data: Any, rows: jax.Array, counted: jax.Array
) -> jax.Array:
    """Return the prediction losses on `rows`, (replicas, strengths).

    Args:
        problem, trained, fixed: as for `evaluate_rows`.
        data: (x, y, sample_weight) of all rows.
        rows, counted: (replicas, rows) positions, and whether they count.
    """

    def evaluate(trained: list[Any], fixed: list[Any], x: Any, y: Any, weights: Any) -> Any:
        with problem.scope(trained, fixed):
            return loss_of(problem.model, x, y, problem.model(x, training=False), weights, False)

    x, y, sample_weight = jax.tree.map(lambda a: a[rows], data)
    over_strengths = jax.vmap(evaluate, in_axes=(0, 0, None, None, None))
    return jax.vmap(over_strengths)(trained, fixed, x, y, times(row_weights(problem, counted), sample_weight))


def measure_lanes(
    compiler: CompileAhead,
    problem: LaneProblem,
    source: DataSource,
    state: LaneState,
    replicas: Sequence[Replica],
    strengths: np.ndarray,
    factors: Factors,
) -> dict[str, np.ndarray]:
    """Return by name (replicas, strengths): both losses, the penalty, norms of gradient and residual, and `diverged`.

    Args:
        compiler: runs the compiled functions.
        problem: problem of the lanes.
        source: rows of all replicas.
        state: state of the lanes.
        replicas: training rows and held-out rows.
        strengths: (strengths, rules).
        factors: factors of the penalties.
    """
    counts = {
        "loss": np.array([len(replica.train) for replica in replicas]),
        "held_loss": np.array([len(replica.held) for replica in replicas]),
    }
    # One replica at a time: their activations would not fit the cache together, and one program does for any number.
    arrays = jax.tree.map(np.asarray, (state.trained, state.fixed, factors))
    single = [place_state(jax.tree.map(lambda a, n=n: a[n : n + 1], arrays)) for n in range(len(replicas))]
    sums: list[Any] = [None] * len(replicas)
    for rows, masks in source.blocks(replicas):
        for number, (trained, fixed, _) in enumerate(single):
            if not any(mask[number].any() for mask in masks.values()):
                continue
            mask_of = {name: (mask[number : number + 1], counts[name][number]) for name, mask in masks.items()}
            part = compiler.call(evaluate_rows, problem, trained, fixed, rows, mask_of)
            sums[number] = part if sums[number] is None else jax.tree.map(jnp.add, sums[number], part)
    strengths = np.asarray(strengths, "float32")
    by_replica = [
        (losses, *compiler.call(evaluate_penalties, problem, trained, gradients, strengths, own_factors))
        for (trained, _, own_factors), (losses, gradients) in zip(single, sums, strict=True)
    ]
    losses, squares, penalty = jax.tree.map(lambda *parts: np.concatenate(parts), *by_replica)
    squares = np.asarray(squares, "float64")
    measures = {
        **{name: np.asarray(losses[name], "float64") for name in LOSSES},
        "penalty": np.asarray(penalty, "float64"),
        "gradient": np.sqrt(squares[..., 0].sum(-1)),
        "residual": np.sqrt(squares[..., 3].sum(-1)),
    }
    measures["held_loss"][[len(replica.held) == 0 for replica in replicas]] = np.nan
    shape = measures["loss"].shape
    is_finite = np.logical_and.reduce(
        [np.isfinite(np.asarray(w, "float32")).reshape(*shape, -1).all(-1) for w in arrays[0]]
    )
    measures["diverged"] = ~(is_finite & np.isfinite(measures["loss"]))
    return measures


def measure_held_losses(
    compiler: CompileAhead, problem: LaneProblem, source: DataSource, state: LaneState, replicas: Sequence[Replica]
) -> np.ndarray:
    """Return the prediction losses on the held-out rows, (replicas, strengths)."""
    rows = source.held_rows(replicas)
    if rows is not None:
        return np.asarray(evaluate_held_rows(problem, state.trained, state.fixed, *rows), "float64")
    strengths = np.zeros((state.trained[0].shape[1], len(problem.optimizer.rules)))
    return measure_lanes(compiler, problem, source, state, replicas, strengths, {})["held_loss"]
