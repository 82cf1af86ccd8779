"""Exact minimizers of a quadratic plus prices of the differences between neighbors in a chain.

`fit_chain` solves

    minimize over u   Σ_i (u_i − w_i)²/(2h_i) + Σ_i fall_i (u_i − u_{i+1})₊ + rise_i (u_{i+1} − u_i)₊.

With fall = rise this is the prox of the total variation (fused lasso), with rise = FAR and fall = 0 it is isotonic
regression.

For a level z, the set {u > z} is the largest set of entries with the lowest cost of a cut (Hochbaum 2001), and the cut
of a chain is a recursion of messages d_i = clip(d_{i−1} + (w_i − z)/h_i, −rise_i, fall_i) from both ends. Such maps
compose, so all messages follow in ⌈log₂ n⌉ doublings (on a CPU, those of long chains one by one). The chain begins as
one segment per line. In every round, each segment is split where the cut at its mean level splits it: the neighbors
across a split have a known order, so its price is linear, and the segments are separate problems. A segment that is not
split is constant at its mean level. The result has the precision of the numbers; the number of rounds is about the
logarithm of the number of segments.

References:
    Hochbaum 2001, "An efficient algorithm for image segmentation, Markov random fields and related problems".
    Johnson 2013, "A dynamic programming algorithm for the fused lasso and L0-segmentation".
"""

from typing import Any

from keras import ops

from poise._keras_internals import is_traced_for_cpu
from poise.penalties.loops import repeat
from poise.penalties.precision import machine_epsilon

FAR = 1e30
"""The price that stands for infinity."""
ROUNDING = 4.0
"""The rounding errors of a level, in units of the precision of the largest entry of its segment."""
LONG = 256
"""The length of the longest chain from which messages follow one by one on a CPU."""


def fit_chain(w: Any, h: Any, fall: Any, rise: Any, longest: int) -> Any:
    """Return the minimizer u.

    Args:
        w: (n,) the weights.
        h: (n,) their steps > 0, the largest about 1.
        fall: (n − 1,) the price of a fall by 1 from an entry to the next, ≥ 0. Prices of 0 separate independent chains.
        rise: (n − 1,) the price of a rise, ≥ 0.
        longest: The length of the longest of the independent chains.
    """
    count = w.shape[0]
    if count < 2:
        return w
    pull = 1.0 / h
    is_split = fall + rise == 0
    level_rounding = ROUNDING * machine_epsilon(w)

    def take_round(order: Any, _: Any) -> tuple[Any, Any, Any]:
        cut = ops.logical_or(order != 0, is_split)
        flow = ops.where(order > 0, fall, ops.where(order < 0, -rise, 0.0))  # pulls up the entry after a split
        segment = ops.concatenate([ops.zeros((1,), "int32"), ops.cumsum(ops.cast(cut, "int32"))])

        def mean(x: Any) -> Any:
            total = ops.segment_sum(ops.stack([x, pull], axis=1), segment, count)
            return ops.take(total[:, 0] / ops.where(total[:, 1] > 0, total[:, 1], 1.0), segment)

        center = mean(pull * w)
        level = center + mean(pull * (w - center) + _before(flow) - _after(flow))
        margin = level_rounding * ops.take(ops.segment_max(ops.abs(w), segment, count), segment)
        # What is above the level by more than rounding errors, and what is below it.
        gains = pull * (w - ops.stack([level + margin, level - margin]))
        low, high = ops.where(cut, flow, -rise), ops.where(cut, flow, fall)
        ahead, back = (gains[:, :-1], low, high), (gains[:, 1:], -high, -low)
        from_before, from_after = _messages(ahead, back, longest)
        gains = gains + _before(from_before) + _after(from_after)
        place = ops.cast(gains[0] > 0, w.dtype) - ops.cast(gains[1] < 0, w.dtype)
        new = ops.where(cut, order, ops.sign(place[:-1] - place[1:]))
        new = ops.where(ops.logical_and(new < 0, rise >= FAR), 0.0, new)
        new = ops.where(ops.logical_and(new > 0, fall >= FAR), 0.0, new)
        return new, level, ops.any(new != order)

    order = ops.zeros_like(fall)
    _, u = repeat(take_round, (order, w), ops.any(ops.isfinite(w)), count)
    return u


def _messages(ahead: tuple, back: tuple, longest: int) -> tuple[Any, Any]:
    """Return d_i = clip(d_{i−1} + gain_i, low_i, high_i) from both ends, from d = 0 before the first one.

    Each message needs the one before it. On accelerators, a loop of so many small steps is slow; a program of JAX on a
    CPU is faster one by one from 256 entries on, 20 times at 10,000.
    """
    shape = ahead[0].shape
    pairs = [
        (ops.broadcast_to(x, shape), ops.flip(ops.broadcast_to(y, shape), -1)) for x, y in zip(ahead, back, strict=True)
    ]
    shift, low, high = (ops.concatenate(pair) for pair in pairs)
    one_by_one = longest >= LONG and is_traced_for_cpu(shift)
    both = _pass_on(shift, low, high) if one_by_one else _compose(shift, low, high, min(longest, shape[-1]))
    return both[: shape[0]], ops.flip(both[shape[0] :], -1)


def _pass_on(shift: Any, low: Any, high: Any) -> Any:
    """Return the messages of each row, one after the other."""

    def send(message: Any, at: tuple) -> tuple[Any, Any]:
        message = _clip(message + at[0], at[1], at[2])
        return message, message

    columns = tuple(ops.transpose(x) for x in (shift, low, high))
    _, messages = ops.scan(send, ops.zeros_like(shift[:, 0]), columns)
    return ops.transpose(messages)


def _compose(shift: Any, low: Any, high: Any, longest: int) -> Any:
    """Return the messages of each row by doubling (Hillis and Steele 1986).

    The composition of two maps is clip(x + a₁ + a₂, clip(low₁ + a₂, low₂, high₂), clip(high₁ + a₂, low₂, high₂)).
    """
    distance = 1
    while distance < longest:
        before_low, before_high = (_delay(x, distance, end) for x, end in ((low, -FAR), (high, FAR)))
        before_low, before_high = _clip(before_low + shift, low, high), _clip(before_high + shift, low, high)
        shift, low, high = _delay(shift, distance, 0.0) + shift, before_low, before_high
        distance *= 2
    return _clip(shift, low, high)


def _delay(x: Any, distance: int, end: float) -> Any:
    """Return x_{i−distance} along the last axis, `end` before the first one."""
    return ops.concatenate([ops.full((*x.shape[:-1], distance), end, x.dtype), x[..., :-distance]], axis=-1)


def _clip(x: Any, low: Any, high: Any) -> Any:
    return ops.minimum(ops.maximum(x, low), high)


def _before(edges: Any) -> Any:
    """Per entry the number of the edge before it, 0 for the first entry."""
    return ops.concatenate([ops.zeros((*edges.shape[:-1], 1), edges.dtype), edges], axis=-1)


def _after(edges: Any) -> Any:
    """Per entry the number of the edge after it, 0 for the last entry."""
    return ops.concatenate([edges, ops.zeros((*edges.shape[:-1], 1), edges.dtype)], axis=-1)
