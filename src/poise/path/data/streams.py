"""Rows that do not fit into memory: a stream of batches, the same ones in every pass."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from poise.path.training import Replica
from poise.validation import is_integer

AGAIN = "Pass a keras.utils.PyDataset, a tf.data.Dataset, or an object whose __iter__ starts a new pass each time."

CHANGED = (
    ", so rows would move to other folds. Every pass must yield the same rows in the same order: do not shuffle or "
    "augment differently in each pass (for tf.data, use shuffle(..., reshuffle_each_iteration=False))."
)


class Stream:
    """Batches (x, y) or (x, y, sample_weight) as NumPy structures, in the same order in every pass.

    Creating one takes a pass, which counts the rows, checks them and computes their digest.

    Args:
        source: a `keras.utils.PyDataset`, or an iterable that can be read repeatedly.

    Attributes:
        rows, batches: how many there are.
        largest: number of rows of the largest batch.
        digest: digest of all rows, for checkpoints.

    Raises:
        TypeError: If the source can be read only once, or yields anything but batches.
        ValueError: If it has no rows, or values that are not finite.
    """

    def __init__(self, source: Any):
        if isinstance(source, Iterator):
            raise TypeError(f"x is a {type(source).__name__}, which can be read only once. {AGAIN}")
        self._source = source
        self._sums: list[int] = []
        self._is_known = False
        self.rows, self.largest, self.batches = 0, 0, 0
        digest = hashlib.sha256()
        for number, (_, batch) in enumerate(self.passes()):
            leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
            for leaf in leaves:
                _check(leaf, number)
                digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
            self._sums.append(_checksum(batch))
            self.rows += len(leaves[0])
            self.largest = max(self.largest, len(leaves[0]))
            self.batches += 1
        if not self.rows:
            raise ValueError(f"x yields no batches. {AGAIN}")
        self.digest = digest.hexdigest()
        self._is_known = True

    @property
    def description(self) -> tuple[int, int, int, str]:
        """(rows, batches, largest, digest)."""
        return self.rows, self.batches, self.largest, self.digest

    def passes(self) -> Iterator[tuple[int, tuple]]:
        """Make one pass: yield the position of the first row and (x, y, sample_weight or None) of every batch.

        Raises:
            ValueError: If it yields other rows than the first pass, so that a row would change its fold.
        """
        first = number = 0
        for number, batch in enumerate(self._batches(), 1):
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise TypeError("x must yield batches (x, y) or (x, y, sample_weight).")
            x, y, weights = (*batch, None)[:3]
            batch = tuple(keras.tree.map_structure(_array, part) for part in (x, y, weights))
            if self._is_known and (number > self.batches or _checksum(batch) != self._sums[number - 1]):
                raise ValueError(f"Batch {number - 1} of x has other rows than in the previous pass{CHANGED}")
            yield first, batch
            first += len(keras.tree.flatten(batch)[0])
        if self._is_known and number < self.batches:
            raise ValueError(f"x yields {number} batches, and {self.batches} in the previous pass{CHANGED}")

    def _batches(self) -> Iterator[Any]:
        if isinstance(self._source, keras.utils.PyDataset):
            for number in range(self._source.num_batches or 0):
                yield self._source[number]
        else:
            yield from self._source


class RelayedStream(Stream):
    """A stream in another process.

    Args:
        ask_batch: returns the batch of a number; 0 starts a new pass, and the numbers of a pass follow each other.
        rows, batches, largest, digest: properties of the stream.
    """

    def __init__(self, ask_batch: Callable[[int], tuple], rows: int, batches: int, largest: int, digest: str):
        self._ask_batch = ask_batch
        self.rows, self.batches, self.largest, self.digest = rows, batches, largest, digest

    def passes(self) -> Iterator[tuple[int, tuple]]:
        first = 0
        for number in range(self.batches):
            batch = self._ask_batch(number)
            yield first, batch
            first += len(keras.tree.flatten(batch)[0])


def is_stream(x: Any) -> bool:
    """Return whether x yields batches, and is not an array, table or structure of arrays."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    is_structure = isinstance(x, (list, tuple, dict, str, bytes)) or hasattr(x, "shape") or hasattr(x, "columns")
    return isinstance(x, Iterable) and not is_structure and not hasattr(x, "__array__")


def split_by_hash(rows: int, cv: Any, n_init: int) -> list[Replica]:
    """Return replicas whose folds depend on a hash of the row's position, so that they are the same in every pass.

    Args:
        rows: number of rows.
        cv: number of folds, an int >= 2.
        n_init: number of random initializations.

    Raises:
        ValueError: If cv is not an int >= 2, or a fold has no row.
    """
    if not is_integer(cv) or cv < 2:
        raise ValueError(f"cv must be an int >= 2 if x is a stream of batches, got {cv!r}.")
    fold = _hash(np.arange(rows)) % cv
    parts = [(k, np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(cv)]
    for k, _, held in parts:
        if not len(held):
            raise ValueError(f"Fold {k} of {cv} holds out none of the {rows} rows. Pass a smaller cv.")
    parts.append((-1, np.arange(rows), np.arange(0)))
    return [Replica(k, seed, train, held) for seed in range(n_init) for k, train, held in parts]


def _hash(positions: np.ndarray) -> np.ndarray:
    """Return a hash of integers: the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    z = positions.astype("uint64") + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _array(part: Any) -> Any:
    if part is None:
        return None
    array = keras.ops.convert_to_numpy(part) if keras.ops.is_tensor(part) else np.asarray(part)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


def _checksum(batch: Any) -> int:
    checksum = 0
    for leaf in keras.tree.flatten(batch):
        if leaf is not None:
            checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
    return checksum


def _check(leaf: np.ndarray, number: int) -> None:
    if leaf.dtype.kind not in "fiub":
        raise TypeError(f"Batch {number} of x must be numeric, got dtype {leaf.dtype}. Encode it first.")
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        raise ValueError(f"Batch {number} of x has NaN or infinite values. Replace them, or drop the rows.")
