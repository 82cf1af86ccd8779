"""The training and the validation rows of `poise.shrink`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

VALIDATION_SHARE = 0.2
LARGEST_BATCH = 2048
"""Validation rows that are scored in one batch."""


class FullBatches(keras.utils.PyDataset):
    """Batches of one size in a new random order in every epoch, without an incomplete last batch.

    An incomplete batch would double the time of compilation on JAX, for each of the many networks.

    Args:
        structure: `(x, y)` or `(x, y, sample_weight)`, arrays or structures of arrays.
        batch_size: Largest number of rows of a batch.
        seed: Seed of the order.
    """

    def __init__(self, structure: tuple[Any, ...], batch_size: int, seed: int) -> None:
        super().__init__()
        self._structure = structure
        self._rows = len(tree.flatten(structure)[0])
        self._batch_size = min(batch_size, self._rows)
        self._random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return self._rows // self._batch_size

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return tree.map_structure(lambda leaf: leaf[rows], self._structure)

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(self._rows)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as `fit` and `evaluate` take them.

    Attributes:
        arguments: `x`, and for arrays also `y`, `sample_weight` and `batch_size`.
        batches: The number of batches of an epoch.
    """

    arguments: dict[str, Any]
    batches: int


def read_rows(
    x: Any, y: Any, sample_weight: Any, validation_data: Any, batch_size: int, seed: int
) -> tuple[Rows, Rows]:
    """Return training and validation rows.

    Without `validation_data`, a random 20% of the rows are validation rows.

    Raises:
        TypeError: If x is neither arrays nor an iterable of batches that can be iterated more than once.
        ValueError: If the data do not fit together, or batches come without validation data.
    """
    if not _are_arrays(x):
        if y is not None or sample_weight is not None:
            raise ValueError("y and sample_weight must be None if x is a dataset, which yields (x, y) batches.")
        if validation_data is None:
            raise ValueError("validation_data is needed if x is a dataset. Pass another dataset, or a tuple (x, y).")
        return _read_dataset(x), _read_validation(validation_data, batch_size)
    if y is None:
        raise ValueError("y is None. Pass the targets of the rows in x.")
    structure = (x, y) if sample_weight is None else (x, y, sample_weight)
    counts = sorted({len(leaf) for leaf in tree.flatten(structure)})
    if len(counts) > 1:
        raise ValueError(f"x, y and sample_weight must have the same number of rows, got {counts}.")
    structure = tree.map_structure(_to_array, structure)
    if validation_data is not None:
        return _read_dataset(FullBatches(structure, batch_size, seed)), _read_validation(validation_data, batch_size)
    order = np.random.default_rng(seed).permutation(counts[0])
    size = round(VALIDATION_SHARE * counts[0])
    if not 0 < size < counts[0]:
        raise ValueError(f"x has {counts[0]} rows, too few to set 20% of them aside. Pass validation_data.")
    training = tree.map_structure(lambda leaf: leaf[order[size:]], structure)
    validation = tree.map_structure(lambda leaf: leaf[order[:size]], structure)
    return _read_dataset(FullBatches(training, batch_size, seed)), _arrays(validation, batch_size)


def _to_array(leaf: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)


def _are_arrays(x: Any) -> bool:
    leaves = tree.flatten(x)
    return bool(leaves) and all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)


def _read_validation(data: Any, batch_size: int) -> Rows:
    if isinstance(data, (tuple, list)) and len(data) in (2, 3) and _are_arrays(data[0]):
        return _arrays(tuple(data), batch_size)
    return _read_dataset(data, "validation_data")


def _arrays(structure: tuple[Any, ...], batch_size: int) -> Rows:
    rows = len(tree.flatten(structure)[0])
    arguments = dict(zip(("x", "y", "sample_weight"), structure, strict=False))
    size = rows if rows <= LARGEST_BATCH else batch_size
    return Rows({**arguments, "batch_size": size}, -(-rows // size))


def _read_dataset(data: Any, name: str = "x") -> Rows:
    if isinstance(data, Iterator) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise TypeError(
            f"{name} must be arrays or a dataset that can be iterated more than once, got {type(data).__name__}. Pass "
            "a tf.data.Dataset, a keras.utils.PyDataset or a torch DataLoader."
        )
    try:
        batches = len(data)  # type: ignore[arg-type]
    except TypeError:  # of a dataset whose length is infinite or not known
        cardinality: Any = getattr(data, "cardinality", None)
        if callable(cardinality) and int(np.asarray(cardinality())) == -1:  # tf.data.INFINITE_CARDINALITY
            raise ValueError("The dataset repeats without end. Remove repeat(), or limit it with take().") from None
        batches = sum(1 for _ in data)
    if not batches:
        raise ValueError("The dataset has no batches.")
    return Rows({"x": data}, batches)
