"""Rows that do not fit into memory: batches that pass by, the same ones at every pass."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

from poise.path.training import Replica

AGAIN = "Give a keras.utils.PyDataset, a tf.data.Dataset, or an object whose __iter__ starts a new pass each time."

CHANGED = (
    ", so that rows would change their folds. Do not shuffle or augment between passes, as tf.data's shuffle does "
    "without reshuffle_each_iteration=False."
)


class Stream:
    """Batches (x, y) or (x, y, sample_weight) as NumPy structures, in the same order at every pass.

    Making one takes a pass: it counts the rows, checks them and takes their digest.

    Args:
        source: a `keras.utils.PyDataset`, or an iterable that can be passed through again and again.

    Attributes:
        rows, batches: how many there are.
        largest: the rows of the largest batch.
        digest: of all rows, for checkpoints.

    Raises:
        TypeError: if the source can be passed through only once, or gives something else than batches.
        ValueError: if it has no rows, or values that are not finite.
    """

    def __init__(self, source):
        if isinstance(source, Iterator):
            raise TypeError(f"x is a {type(source).__name__}, which can be passed through only once. {AGAIN}")
        self._source = source
        self._sums: list[int] = []
        self._is_known = False
        self.rows, self.largest, self.batches = 0, 0, 0
        found = hashlib.sha256()
        for number, (_, batch) in enumerate(self.passes()):
            leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
            for leaf in leaves:
                _check(leaf, number)
                found.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
            self._sums.append(_checksum(batch))
            self.rows += len(leaves[0])
            self.largest = max(self.largest, len(leaves[0]))
            self.batches += 1
        if not self.rows:
            raise ValueError(f"x gives no batches. {AGAIN}")
        self.digest = found.hexdigest()
        self._is_known = True

    def passes(self):
        """One pass: the number of its first row and (x, y, sample_weight or None) of every batch.

        Raises:
            ValueError: if it gives other rows than the first pass did: a row would then change its fold.
        """
        first = number = 0
        for number, batch in enumerate(self._batches(), 1):
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise TypeError("x gives something else than batches (x, y) or (x, y, sample_weight).")
            x, y, weights = (*batch, None)[:3]
            batch = tuple(keras.tree.map_structure(_array, part) for part in (x, y, weights))
            if self._is_known and (number > self.batches or _checksum(batch) != self._sums[number - 1]):
                raise ValueError(f"Batch {number - 1} of x has other rows than at the pass before{CHANGED}")
            yield first, batch
            first += len(keras.tree.flatten(batch)[0])
        if self._is_known and number < self.batches:
            raise ValueError(f"x gives {number} batches, and gave {self.batches} at the pass before{CHANGED}")

    def _batches(self):
        if isinstance(self._source, keras.utils.PyDataset):
            for number in range(self._source.num_batches or 0):
                yield self._source[number]
        else:
            yield from self._source


class Relayed(Stream):
    """A stream that is in another process.

    Args:
        ask: gives the batch of a number; 0 starts a new pass, and the numbers of a pass follow each other.
        rows, batches, largest, digest: as the stream itself tells.
    """

    def __init__(self, ask: Callable[[int], tuple], rows: int, batches: int, largest: int, digest: str):
        self._ask = ask
        self.rows, self.batches, self.largest, self.digest = rows, batches, largest, digest

    def passes(self):
        first = 0
        for number in range(self.batches):
            batch = self._ask(number)
            yield first, batch
            first += len(keras.tree.flatten(batch)[0])


def is_stream(x) -> bool:
    """Whether x gives batches by itself, and is no array, table or structure of arrays."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    is_structure = isinstance(x, (list, tuple, dict, str, bytes)) or hasattr(x, "shape") or hasattr(x, "columns")
    return isinstance(x, Iterable) and not is_structure and not hasattr(x, "__array__")


def split_by_hash(rows: int, cv, n_init: int) -> list[Replica]:
    """Folds by a hash of the row's number, so that a row is in the same fold at every pass.

    Raises:
        ValueError: if the folds are no number, or one of them has no row.
    """
    if isinstance(cv, bool) or not isinstance(cv, (int, np.integer)) or cv < 2:
        raise ValueError(f"cv={cv!r}: with batches that pass by the folds are a number ≥ 2.")
    fold = _hashed(np.arange(rows)) % cv
    parts = [(k, np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(cv)]
    for k, _, held in parts:
        if not len(held):
            raise ValueError(f"Fold {k} of {cv} holds out none of the {rows} rows. Use fewer folds.")
    parts.append((-1, np.arange(rows), np.arange(0)))
    return [Replica(k, seed, train, held) for seed in range(n_init) for k, train, held in parts]


def _hashed(numbers):
    """A hash of whole numbers that looks random: the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    z = numbers.astype("uint64") + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _array(part):
    if part is None:
        return None
    found = keras.ops.convert_to_numpy(part) if keras.ops.is_tensor(part) else np.asarray(part)
    return found.astype(keras.config.floatx()) if found.dtype.kind == "f" else found


def _checksum(batch) -> int:
    found = 0
    for leaf in keras.tree.flatten(batch):
        if leaf is not None:
            found = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), found)
    return found


def _check(leaf, number):
    if leaf.dtype.kind not in "fiub":
        raise TypeError(f"Batch {number} of x has dtype {leaf.dtype}, and a network reads numbers. Encode it first.")
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        raise ValueError(f"Batch {number} of x has values that are NaN or infinite. Fill them in, or leave them out.")
