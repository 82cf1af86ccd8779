"""Losses, penalties and residuals of lanes, with dropout off."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poise.optimizer.targets import measure, values
from poise.path.data.batches import settling_batch_size
from poise.path.lanes.losses import loss_of, times
from poise.path.lanes.parts import Part
from poise.path.lanes.problem import Factors, LaneNetwork, LaneProblem
from poise.path.lanes.programs import PROGRAMS
from poise.path.lanes.sources import DataSource
from poise.path.lanes.step import hold_zeros_of_lane, loss_and_gradient, loss_scale

LOSSES = ("loss", "held_loss")
Measures = dict[str, np.ndarray]


def evaluate_rows(
    network: LaneNetwork, trained: list[Any], fixed: list[Any], data: Any, rows: jax.Array, masks: Any, counts: Any
) -> Any:
    """Return both losses on some rows and the gradient of the first, in a form that can be summed over batches.

    If the loss compares the rows of a batch, the held-out loss is the loss of all rows minus that of the training rows,
    as sums, per held-out row: the cross-validated partial likelihood of Verweij and van Houwelingen 1993.

    Args:
        network: network of the lanes.
        trained, fixed: as in `LaneState`.
        data: (x, y, sample_weight).
        rows: (rows,) their positions in the data.
        masks: by the name of a loss how often each row counts, (replicas, rows).
        counts: by the name of a loss how many rows of a replica count in all, (replicas, 1).
    """
    x, y, sample_weight = jax.tree.map(lambda a: a[rows], data)
    weights = {name: mask * loss_scale(network, mask.shape[1], counts[name]) for name, mask in masks.items()}
    if network.is_whole_batch:
        scale = loss_scale(network, rows.shape[0], counts["held_loss"])
        weights |= {"all": scale * (masks["loss"] + masks["held_loss"]), "training": scale * masks["loss"]}

    def evaluate(trained: list[Any], fixed: list[Any], weights: Any) -> Any:
        (loss, (predictions, _)), gradient = loss_and_gradient(
            network, trained, fixed, x, y, times(weights["loss"], sample_weight), False
        )

        def loss_with(name: str) -> Any:
            with network.scope(trained, fixed):
                return loss_of(network.model, x, y, predictions, times(weights[name], sample_weight), False)

        is_whole = network.is_whole_batch
        held_loss = loss_with("all") - loss_with("training") if is_whole else loss_with("held_loss")
        return {"loss": loss, "held_loss": held_loss}, gradient

    return jax.vmap(jax.vmap(evaluate, in_axes=(0, 0, None)))(trained, fixed, weights)


def evaluate_penalties(
    problem: LaneProblem, trained: list[Any], gradients: list[Any], strengths: Any, factors: Factors
) -> Any:
    """Return the sums of `poise.optimizer.targets.measure`, (replicas, strengths, targets, 4), and the penalty.

    The gradient of weights that an adaptive stage holds at zero does not count.
    """

    def evaluate(trained: list[Any], gradients: list[Any], strengths: Any, factors: Factors) -> Any:
        targets = [target.with_factors(factors) for target in problem.optimizer.targets]
        if not targets:
            return jnp.zeros((0, 4)), jnp.zeros(())
        gradients = hold_zeros_of_lane(problem, gradients, factors)
        weights = {target.index: target.gather(trained.__getitem__) for target in targets}
        rows = [measure(t, weights[t.index], t.gather(gradients.__getitem__), strengths) for t in targets]
        return jnp.stack(rows), sum(values(targets, weights, strengths))

    return jax.vmap(jax.vmap(evaluate), in_axes=(0, 0, None, 0))(trained, gradients, strengths, factors)


def evaluate_held_rows(
    network: LaneNetwork, trained: list[Any], fixed: list[Any], data: Any, rows: jax.Array, counted: jax.Array
) -> jax.Array:
    """Return the prediction losses on `rows`, (replicas, strengths).

    Many rows are evaluated in blocks, whose intermediate values stay in a processor's cache.

    Args:
        network, trained, fixed: as for `evaluate_rows`.
        data: (x, y, sample_weight) of all rows.
        rows, counted: (replicas, rows) positions, and whether they count.
    """

    def evaluate(trained: list[Any], fixed: list[Any], x: Any, y: Any, weights: Any) -> Any:
        with network.scope(trained, fixed):
            return loss_of(network.model, x, y, network.model(x, training=False), weights, False)

    total = counted.sum(axis=1, keepdims=True)

    def evaluate_block(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        rows, counted = block
        x, y, sample_weight = jax.tree.map(lambda a: a[rows], data)
        weights = times(counted * loss_scale(network, rows.shape[1], total), sample_weight)
        return jax.vmap(jax.vmap(evaluate, in_axes=(0, 0, None, None, None)))(trained, fixed, x, y, weights)

    count = rows.shape[1]
    size = settling_batch_size(count)
    if size == count:
        return evaluate_block((rows, counted))

    def divide(a: jax.Array) -> jax.Array:
        filled = jnp.pad(a, ((0, 0), (0, -count % size)))
        return filled.reshape(len(a), -1, size).swapaxes(0, 1)

    return jax.lax.map(evaluate_block, (divide(rows), divide(counted))).sum(axis=0)


def measure_lanes(problem: LaneProblem, source: DataSource, part: Part, is_sample: bool = False) -> Measures:
    """Return by name (replicas, strengths, ...): losses, the penalty, norms of gradient and residual, and `diverged`.

    `squares` has the sums of `poise.optimizer.targets.measure` by target, (replicas, strengths, targets, 4).

    Args:
        problem: Problem of the lanes.
        source: Rows of all replicas.
        part: The lanes.
        is_sample: Whether to use only the first rows, as many as go through a lane at once. Default: False.
    """
    state, replicas = part.state, part.task.replicas
    blocks = source.blocks(replicas)
    blocks = [next(blocks)] if is_sample else blocks
    counts = {
        "loss": np.array([[len(replica.train)] for replica in replicas], "float32"),
        "held_loss": np.array([[len(replica.held)] for replica in replicas], "float32"),
    }
    sums: Any = None
    for data, rows, masks in blocks:
        if is_sample:
            counts = {name: np.maximum(mask.sum(axis=1, keepdims=True), 1.0) for name, mask in masks.items()}
        block = PROGRAMS.call(evaluate_rows, problem.network, state.trained, state.fixed, data, rows, masks, counts)
        sums = block if sums is None else jax.tree.map(np.add, sums, block)
    losses, gradients = sums
    strengths = np.asarray(part.task.strengths, "float32")
    squares, penalty = PROGRAMS.call(evaluate_penalties, problem, state.trained, gradients, strengths, part.factors)
    squares = np.asarray(squares, "float64")
    measures = {
        **{name: np.asarray(losses[name], "float64") for name in LOSSES},
        "penalty": np.asarray(penalty, "float64"),
        "gradient": np.sqrt(squares[..., 0].sum(-1)),
        "residual": np.sqrt(squares[..., 3].sum(-1)),
        "squares": squares,
    }
    measures["held_loss"][[len(replica.held) == 0 for replica in replicas]] = np.nan
    is_finite = np.logical_and.reduce(
        [np.isfinite(np.asarray(w, "float32")).reshape(*part.task.shape, -1).all(-1) for w in state.trained]
    )
    measures["diverged"] = ~(is_finite & np.isfinite(measures["loss"]))
    return measures


def compile_measures(problem: LaneProblem, source: DataSource, part: Part) -> None:
    """Start to compile what measures lanes like these. A stream is not read for it."""
    rows = source.held_rows(part.task)
    if rows is None:
        return
    state, counts = part.state, np.zeros((len(part.task.replicas), 1), "float32")
    if part.task.held_rows and source.steps_per_pass(part.task.replicas) > 1:
        PROGRAMS.compile(evaluate_held_rows, problem.network, state.trained, state.fixed, *rows)
    data, positions, masks = next(source.blocks(part.task.replicas))
    arguments = data, positions, masks, dict.fromkeys(masks, counts)
    PROGRAMS.compile(evaluate_rows, problem.network, state.trained, state.fixed, *arguments)
    strengths = np.asarray(part.task.strengths, "float32")
    PROGRAMS.compile(evaluate_penalties, problem, state.trained, state.trained, strengths, part.factors)


def measure_checkpoint(problem: LaneProblem, source: DataSource, part: Part) -> Measures:
    """Return what a checkpoint needs: the held-out losses, and all measures if that takes one batch.

    If not, the first replica has all measures on a sample of the rows.
    """
    rows = source.held_rows(part.task)
    if rows is None or source.steps_per_pass(part.task.replicas) == 1:
        return measure_lanes(problem, source, part)
    measures: Measures = {}
    if part.rows.start == 0:
        measures = measure_lanes(problem, source, part, is_sample=True)
    losses = PROGRAMS.call(evaluate_held_rows, problem.network, part.state.trained, part.state.fixed, *rows)
    return {**measures, "held_loss": np.asarray(losses, "float64")}
