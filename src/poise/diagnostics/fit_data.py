"""The data that `poise.forces` is given: x, y and sample_weight as `model.fit` takes them, read into NumPy arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

BATCH_SIZE = 256


@dataclass(frozen=True)
class FitData:
    """Rows of data.

    Attributes:
        x: the inputs, a structure of arrays; several if they differ in the shape of a row.
        y: the targets of all rows, or None.
        sample_weight: the weights of all rows, or None.
        batch_size: how many rows a part has at most.
    """

    x: list
    y: Any
    sample_weight: Any
    batch_size: int

    @property
    def rows(self) -> int:
        return sum(map(count_rows, self.x))

    @property
    def parts(self) -> list[tuple[Any, int]]:
        """Parts of x, and how many of the last rows of each are new.

        A last part that would be short repeats rows of the part before, so that all parts have one shape, for which a
        program is compiled once.
        """
        return [
            (_rows(x, max(0, stop - self.batch_size), stop), stop - start)
            for x in self.x
            for start in range(0, count_rows(x), self.batch_size)
            for stop in [min(start + self.batch_size, count_rows(x))]
        ]

    def whole_x(self) -> Any:
        """x of all rows in one structure.

        Raises:
            ValueError: if they differ in the shape of a row.
        """
        return _concatenate(self.x, "x")


def read_fit_data(x, y=None, sample_weight=None, batch_size=None, class_weight=None) -> FitData:
    """Reads what `model.fit` accepts.

    Args:
        x: arrays (or a structure of arrays), or an iterable of batches x, (x,), (x, y) or (x, y, sample_weight): a
            tf.data.Dataset, a DataLoader, a PyDataset, a generator or a list of tuples.
        y, sample_weight: arrays or structures of arrays; only if x is one.
        batch_size: how many rows a part has at most; None for 256, or, for batches of different shapes, the batches.
        class_weight: a dictionary of class numbers and weights.

    Raises:
        TypeError, ValueError: for anything else, or if there are no rows.
    """
    if batch_size is not None and (isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1):
        raise ValueError(f"batch_size must be an int >= 1, got {batch_size!r}.")
    if y is not None or sample_weight is not None or _is_structure_of_arrays(x):
        batches = [(x, y, sample_weight)]
        if not all(leaf is None or hasattr(leaf, "shape") for leaf in tree.flatten(batches[0])):
            raise TypeError(
                f"x, y and sample_weight must be arrays or structures of arrays, got x of type {type(x).__name__}. "
                "Batches that hold targets or sample weights are passed as x, without y and sample_weight."
            )
    else:
        batches = [_unpack(batch) for batch in _iterate(x)]
    batches = [tree.map_structure(_to_array, batch) for batch in batches]
    batches = [_with_weights(*batch, class_weight) for batch in batches if count_rows(batch[0])]
    if not batches:
        raise ValueError("The data have no rows, so that there is no gradient to measure.")
    for batch in batches:
        _check_rows(*batch)
    xs = [x for x, _, _ in batches]
    if len({_row_shapes(each) for each in xs}) == 1:
        xs = [_concatenate(xs, "x")]
    return FitData(
        xs,
        _concatenate([y for _, y, _ in batches], "y"),
        _concatenate([weights for _, _, weights in batches], "sample_weight"),
        batch_size or (BATCH_SIZE if len(xs) == 1 else max(map(count_rows, xs))),
    )


def count_rows(structure) -> int:
    """The length of the first axis."""
    return next((len(leaf) for leaf in tree.flatten(structure) if leaf is not None), 0)


def _is_structure_of_arrays(x):
    """As `model.fit` reads it; a list of tuples, lists or dictionaries is one of batches."""
    if hasattr(x, "shape") or isinstance(x, Mapping):
        return True
    return isinstance(x, (list, tuple)) and bool(x) and all(hasattr(item, "shape") for item in x)


def _iterate(x):
    if isinstance(x, keras.utils.PyDataset):
        if x.num_batches is None:
            raise ValueError("The PyDataset has no number of batches (num_batches is None), so it has no end.")
        return [x[number] for number in range(x.num_batches)]
    cardinality: Any = getattr(x, "cardinality", None)
    if callable(cardinality) and int(np.asarray(cardinality())) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError("The dataset repeats without end. Pass a number of its batches: dataset.take(10).")
    try:
        return iter(x)
    except TypeError:
        raise TypeError(f"x must be arrays or an iterable of batches, got {type(x).__name__}.") from None


def _unpack(batch):
    if not isinstance(batch, (tuple, list)):
        return batch, None, None
    if not 1 <= len(batch) <= 3:
        raise ValueError(f"A batch must be x, (x,), (x, y) or (x, y, sample_weight), got {len(batch)} elements.")
    return (*batch, None, None)[:3]


def _to_array(leaf):
    """A NumPy array; floats in Keras' floatx, as `model.fit` casts them."""
    if leaf is None:
        return None
    if hasattr(leaf, "toarray"):  # SciPy's sparse matrices
        leaf = leaf.toarray()
    array = ops.convert_to_numpy(leaf) if ops.is_tensor(leaf) else np.asarray(leaf)
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(keras.config.floatx()) if is_float else array


def _with_weights(x, y, sample_weight, class_weight):
    if class_weight is None:
        return x, y, sample_weight
    if sample_weight is not None:
        raise ValueError("class_weight and sample_weight cannot be given together. Multiply them into sample_weight.")
    if y is None or tree.is_nested(y):
        raise ValueError("class_weight needs one array of targets y, as in model.fit.")
    labels = y
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(axis=-1)
    labels = np.round(labels).astype("int32")
    if labels.ndim > 1:
        raise ValueError(
            f"class_weight needs one class per row, and y has the shape {y.shape}. Use sample_weight of that shape."
        )
    weights = [class_weight.get(int(label), 1.0) for label in labels]
    return x, y, np.array(weights, dtype=keras.config.floatx())


def _check_rows(x, y, sample_weight):
    lengths = {
        name: sorted({len(leaf) for leaf in tree.flatten(given) if leaf is not None})
        for name, given in (("x", x), ("y", y), ("sample_weight", sample_weight))
        if given is not None
    }
    if len({length for each in lengths.values() for length in each}) > 1:
        found = ", ".join(f"{name} has {', '.join(map(str, each))}" for name, each in lengths.items() if each)
        raise ValueError(f"x, y and sample_weight must have the same number of rows: {found}.")


def _row_shapes(structure):
    return tuple(None if leaf is None else leaf.shape[1:] for leaf in tree.flatten(structure))


def _rows(structure, start, stop):
    return tree.map_structure(lambda leaf: None if leaf is None else leaf[start:stop], structure)


def _concatenate(structures, name):
    first, *others = structures
    if not others:
        return first
    for other in others:
        tree.assert_same_structure(first, other)
    if len({_row_shapes(structure) for structure in structures}) > 1:
        shapes = sorted({str(shape) for structure in structures for shape in _row_shapes(structure)})
        raise ValueError(
            f"The batches differ in the shape of a row of {name} ({' and '.join(shapes[:2])}), so that the loss of all "
            "rows cannot be computed at once. Pad them to one shape, or pass one batch."
        )
    return tree.map_structure(lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *structures)
