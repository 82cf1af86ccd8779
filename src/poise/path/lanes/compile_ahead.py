"""Programs compiled in a thread, while others run."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class Ahead:
    """Compiles what will be called later.

    Tracing stays in the caller's thread, as layers and optimizers are not made for several; what takes most of the
    time, XLA's compilation, needs no Python. What was compiled ahead can be called from any thread.
    """

    def __init__(self):
        self._compiler = ThreadPoolExecutor(1, "compiler")
        self._begun: dict[tuple, Future] = {}

    def compile(self, method: Any, owner: Any, *arguments) -> None:
        """Begins to compile a method under `jax.jit` for such arguments, of which only shapes and types matter.

        Several devices share what only the arguments themselves tell: then it is compiled when it is called.
        """
        key = _key(method, arguments)
        if key not in self._begun and len(jax.local_devices()) == 1:
            self._begun[key] = self._compiler.submit(method.lower(owner, *jax.tree.map(_shaped, arguments)).compile)

    def call(self, method: Any, owner: Any, *arguments):
        """What the method returns; waits for its compilation if that was begun, and else does it here."""
        begun = self._begun.get(_key(method, arguments))
        return method(owner, *arguments) if begun is None else begun.result()(*arguments)

    def close(self) -> None:
        """Compiles nothing more, and lets go of what was compiled."""
        self._compiler.shutdown(wait=False, cancel_futures=True)
        self._begun.clear()


def _key(method, arguments):
    leaves, structure = jax.tree.flatten(arguments)
    return method, structure, tuple(map(_shaped, leaves))


def _shaped(a):
    return jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)) if hasattr(a, "dtype") else a
