"""The compiled programs of this process, shared by every path and study whose lanes run the same computation."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax


class Keyed(Protocol):
    """Constants of a program; equal keys mean that the programs are the same."""

    @property
    def key(self) -> Hashable: ...


LARGEST_COUNT = 128
"""Programs that are kept. Each takes about a hundred memory maps, of which Linux allows a process 65,530."""


class Programs:
    """Compile functions once, and call what was compiled.

    A program belongs to a function, to the key of its first argument (the problem or the network of the lanes) and to
    the shapes and types of the others. The least recently used ones are released. Tracing takes place in
    the thread of the caller, one function at a time, because layers and optimizers are not thread-safe;
    XLA's compilation, which takes most of the time, needs no Python and runs in threads. Any thread may call `call`.
    """

    def __init__(self, largest_count: int = LARGEST_COUNT) -> None:
        self._largest_count = largest_count
        self._compiler = ThreadPoolExecutor(2, "compiler")
        self._futures: OrderedDict[Hashable, Future] = OrderedDict()
        self._lock = threading.RLock()

    def compile(self, function: Callable, problem: Keyed, *arguments: Any, donate: tuple[int, ...] = ()) -> Future:
        """Start to compile a function, unless there is a program for it.

        Args:
            function: A function of JAX arrays, without side effects.
            problem: Its first argument, a constant of the program.
            arguments: Its other arguments, or arrays of their shapes and types.
            donate: Positions, among `arguments`, of those whose memory the program may reuse. Default: `()`.
        """
        key = _key(function, problem, arguments)
        with self._lock:
            if key not in self._futures:
                # A new function per program: JAX keeps traces, and with them the problem, as long as their function.
                traced = jax.jit(functools.partial(function, problem), donate_argnums=donate)
                self._futures[key] = self._compiler.submit(traced.lower(*arguments).compile)
            self._futures.move_to_end(key)
            while len(self._futures) > self._largest_count:
                self._futures.popitem(last=False)
            return self._futures[key]

    def call(self, function: Callable, problem: Keyed, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
        """Call a function; wait for its compilation if there is no program yet."""
        return self.compile(function, problem, *arguments, donate=donate).result()(*arguments)

    def clear(self) -> None:
        """Release all programs."""
        with self._lock:
            self._futures.clear()

    def __len__(self) -> int:
        return len(self._futures)


PROGRAMS = Programs()
"""The programs of this process."""


def _key(function: Callable, problem: Keyed, arguments: tuple) -> Hashable:
    leaves, structure = jax.tree.flatten(arguments)
    return function, problem.key, structure, tuple(map(_kind_of, leaves))


def _kind_of(leaf: Any) -> Hashable:
    """Return what a program depends on: shape, dtype and, with several devices, where the argument lies."""
    if not hasattr(leaf, "dtype"):
        return type(leaf)
    return leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype), getattr(leaf, "sharding", None)
