"""Programs compiled in a thread, while others run."""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax


class Ahead:
    """Compiles what will be called later.

    Tracing stays in the caller's thread, as layers and optimizers are not made for several; what takes most of the
    time, XLA's compilation, needs no Python. A program that could not be compiled ahead is compiled when it is called,
    and fails there.
    """

    def __init__(self):
        self._compiler = ThreadPoolExecutor(1, "compiler")
        self._begun: dict[tuple, Future] = {}

    def compile(self, program: Any, *arguments) -> None:
        """Begins to compile a function of `jax.jit` for such arguments, of which only shapes and types matter."""
        key = _key(program, arguments)
        if key not in self._begun:
            self._begun[key] = self._compiler.submit(program.lower(*jax.tree.map(_shaped, arguments)).compile)

    def call(self, program: Any, *arguments):
        """What the function returns; waits for its compilation if that was begun."""
        begun = self._begun.get(_key(program, arguments)) if self._begun else None
        if begun is not None:
            wait([begun])
        return program(*arguments)

    def close(self) -> None:
        """Compiles nothing more."""
        self._compiler.shutdown(wait=False, cancel_futures=True)


def _key(program, arguments):
    leaves, structure = jax.tree.flatten(arguments)
    return program, structure, tuple(map(_shaped, leaves))


def _shaped(a):
    return jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)) if hasattr(a, "dtype") else a
