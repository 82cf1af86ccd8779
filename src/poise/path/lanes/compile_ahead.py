"""Compile functions in a thread while others run."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class CompileAhead:
    """Compile functions before they are called.

    The functions are compiled by `jax.jit`; their first argument, the problem of the lanes, is static. Tracing stays in
    the thread of the caller, because layers and optimizers are not made for several threads. XLA's compilation, which
    takes most of the time, needs no Python. Any thread may call the compiled functions.
    """

    def __init__(self) -> None:
        self._compiler = ThreadPoolExecutor(1, "compiler")
        self._futures: dict[tuple, Future] = {}

    def compile(self, function: Any, problem: Any, *arguments: Any) -> None:
        """Start to compile a function for arguments of these shapes and types.

        With several devices the sharding, which only the arguments themselves show, matters too: the function is then
        compiled when it is called.
        """
        key = _key(function, problem, arguments)
        if key not in self._futures and len(jax.local_devices()) == 1:
            lowered = function.lower(problem, *jax.tree.map(_shape_of, arguments))
            self._futures[key] = self._compiler.submit(lowered.compile)

    def call(self, function: Any, problem: Any, *arguments: Any) -> Any:
        """Call a function; wait for its compilation if that was started."""
        future = self._futures.get(_key(function, problem, arguments))
        return function(problem, *arguments) if future is None else future.result()(*arguments)

    def close(self) -> None:
        """Stop compiling and release the compiled functions."""
        self._compiler.shutdown(wait=False, cancel_futures=True)
        self._futures.clear()


def _key(function: Any, problem: Any, arguments: tuple) -> tuple:
    leaves, structure = jax.tree.flatten(arguments)
    return function, problem, structure, tuple(map(_shape_of, leaves))


def _shape_of(leaf: Any) -> Any:
    if not hasattr(leaf, "dtype"):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))
