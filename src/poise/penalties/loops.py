"""Repeat a step until it changes nothing, on every backend and in every kind of program.

JAX and TensorFlow compile a loop. PyTorch reads a flag after every step, and a program recorded from its operations has
a fixed number of steps: it returns whether it needed more.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from poise._keras_internals import can_be_read, is_traced_by_jax

FIXED_STEPS = 4
"""The number of steps inside `fixed_steps`."""

_unfinished: ContextVar[list[Any] | None] = ContextVar("unfinished", default=None)


@contextmanager
def fixed_steps() -> Iterator[list[Any]]:
    """Take `FIXED_STEPS` steps in each loop, for programs that cannot stop early.

    Yields:
        A list, to which each loop appends a tensor: whether it needs more steps.
    """
    unfinished: list[Any] = []
    token = _unfinished.set(unfinished)
    try:
        yield unfinished
    finally:
        _unfinished.reset(token)


def repeat(take_step: Callable[..., tuple], state: tuple, is_needed: Any, most: int) -> tuple:
    """Return the state after as many steps as are needed.

    Args:
        take_step: Takes the state, and returns the next state and a bool tensor: whether another step is needed.
        state: A tuple of tensors.
        is_needed: A bool tensor: whether a step is needed at all.
        most: The largest number of steps.
    """
    is_compiled = keras.backend.backend() == "tensorflow" and not can_be_read(is_needed)
    if is_compiled or is_traced_by_jax(is_needed):
        *after, _ = ops.while_loop(
            lambda *state_and_flag: state_and_flag[-1],
            lambda *state_and_flag: take_step(*state_and_flag[:-1]),
            (*state, is_needed),
            maximum_iterations=most,
        )
        return tuple(after)
    # Outside of a program, JAX would compile every loop again.
    can_stop, unfinished = can_be_read(is_needed), _unfinished.get()
    for _ in range(most if unfinished is None else min(most, FIXED_STEPS)):
        if can_stop and not bool(is_needed):
            break
        *after, is_needed = take_step(*state)
        state = tuple(after)
    if unfinished is not None:
        unfinished.append(is_needed)
    return state
