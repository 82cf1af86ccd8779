"""What a path keeps of a trained chunk."""

from collections.abc import Sequence

import keras
import numpy as np

from poise.compaction.inputs import read_inputs
from poise.optimizer.penalized import PenalizedOptimizer
from poise.path.lanes.problem import ChunkResult
from poise.path.sizes import count_live_units, group_sizes, is_empty
from poise.rules.layers import info_of


def summarize_chunk(
    model: keras.Model,
    optimizer: PenalizedOptimizer,
    chunk: ChunkResult,
    keeps_weights: Sequence[bool],
) -> dict[str, np.ndarray]:
    """Return by name what a path keeps of a chunk, each with the leading axes (replicas, strengths).

    Args:
        model: model of the lanes.
        optimizer: its penalized optimizer, built.
        chunk: the trained chunk.
        keeps_weights: per replica whether the path keeps its weights.

    Returns:
        `measure/NAME` for every measure, `size/NUMBER` for every target, `features`, and `weight/NUMBER` for every
        weight of the model, of the replicas whose weights are kept.
    """
    weights, targets = chunk.weights, optimizer.targets
    position = {id(weight): number for number, weight in enumerate(model.weights)}
    members_of = [[weights[position[id(v)]] for v in optimizer.variables_of(target)] for target in targets]
    arrays = {f"measure/{name}": value for name, value in chunk.measures.items()}
    zero = np.zeros(weights[0].shape[:2], int)
    penalized = [w for members in members_of for w in members]
    arrays["measure/zeros"] = sum(((w == 0).reshape(*zero.shape, -1).sum(-1) for w in penalized), zero)
    units, empty = zero, zero == 0
    for number, (target, members) in enumerate(zip(targets, members_of, strict=True)):
        size = arrays[f"size/{number}"] = group_sizes(target, members)
        outputs = info_of(optimizer.variables_of(target)[0]).sides.outputs
        units = units + count_live_units(target, members, size, outputs)
        if not all(penalty.smooth or penalty.is_constraint for _, penalty in target.penalties):
            empty = empty & is_empty(target, members, size)
    if all(penalty.smooth or penalty.is_constraint for target in targets for _, penalty in target.penalties):
        empty = zero > 0
    arrays |= {"measure/units": units, "measure/is_empty": empty}
    read = read_inputs(model, weights)
    if read is not None:
        arrays["features"] = read
    for number, w in enumerate(weights):
        arrays[f"weight/{number}"] = w[list(keeps_weights)]
    return arrays
