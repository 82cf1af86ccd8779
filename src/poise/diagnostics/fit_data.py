"""The data of `poise.forces`: x, y and sample_weight as in `model.fit`, read into NumPy arrays."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from poise.validation import validate_count

BATCH_SIZE = 256


@dataclass(frozen=True)
class FitData:
    """Rows of data.

    Attributes:
        x: List of structures of arrays; more than one if batches differ in the shape of a row.
        y: Targets of all rows, or None.
        sample_weight: Weights of all rows, or None.
        batch_size: Largest number of rows of a part.
    """

    x: list[Any]
    y: Any
    sample_weight: Any
    batch_size: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(map(count_rows, self.x))

    @property
    def parts(self) -> list[tuple[Any, int]]:
        """Parts of x, and the number of rows at the end of each part that no part before has.

        A last part that would be short repeats rows of the part before it, so that all parts have the same shape and
        one program is compiled.
        """
        return [
            (_slice_rows(x, max(0, stop - self.batch_size), stop), stop - start)
            for x in self.x
            for start in range(0, count_rows(x), self.batch_size)
            for stop in [min(start + self.batch_size, count_rows(x))]
        ]

    def whole_x(self) -> Any:
        """Return x of all rows in one structure.

        Raises:
            ValueError: If batches differ in the shape of a row.
        """
        return _concatenate(self.x, "x")


def read_fit_data(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    class_weight: dict[int, float] | None = None,
) -> FitData:
    """Read the data that `model.fit` accepts.

    Args:
        x: Arrays or a structure of arrays, or an iterable of batches x, (x,), (x, y) or (x, y, sample_weight): a
            tf.data.Dataset, a DataLoader, a PyDataset, a generator or a list of tuples.
        y: Array or structure of arrays, if x is one. Default: None.
        sample_weight: Array or structure of arrays, if x is one. Default: None.
        batch_size: Largest number of rows of a part. Default: None, which uses 256, or the size of the batches if they
            differ in the shape of a row.
        class_weight: Dictionary of class numbers and weights. Default: None.

    Raises:
        TypeError: If x is neither arrays nor an iterable of batches, or batch_size is not an int.
        ValueError: If the data do not fit together, or have no rows.
    """
    if batch_size is not None:
        validate_count("batch_size", batch_size, 1)
    if y is not None or sample_weight is not None or _is_structure_of_arrays(x):
        batches = [(x, y, sample_weight)]
        if not all(leaf is None or hasattr(leaf, "shape") for leaf in tree.flatten(batches[0])):
            raise TypeError(
                f"x, y and sample_weight must be arrays or structures of arrays, got x of type {type(x).__name__}. "
                "To pass batches (x, y) or (x, y, sample_weight), pass the iterable as x and leave out y and "
                "sample_weight."
            )
    else:
        batches = [_unpack(batch) for batch in _iterate(x)]
    batches = [tree.map_structure(_to_array, batch) for batch in batches]
    batches = [_add_class_weights(*batch, class_weight) for batch in batches if count_rows(batch[0])]
    if not batches:
        raise ValueError("The data have no rows, so there is no gradient to measure.")
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


def count_rows(structure: Any) -> int:
    """Return the length of the first axis."""
    return next((len(leaf) for leaf in tree.flatten(structure) if leaf is not None), 0)


def _is_structure_of_arrays(x: Any) -> bool:
    """Whether x holds arrays, as `model.fit` reads it. A list of tuples, lists or dictionaries holds batches."""
    if hasattr(x, "shape") or isinstance(x, Mapping):
        return True
    return isinstance(x, (list, tuple)) and bool(x) and all(hasattr(item, "shape") for item in x)


def _iterate(x: Any) -> Iterable[Any]:
    if isinstance(x, keras.utils.PyDataset):
        if x.num_batches is None:
            raise ValueError("The PyDataset has no end, because its num_batches is None. Pass batches as a list.")
        return [x[number] for number in range(x.num_batches)]
    cardinality: Any = getattr(x, "cardinality", None)
    if callable(cardinality) and int(np.asarray(cardinality())) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError("The dataset repeats without end. Pass a limited number of batches, such as dataset.take(10).")
    try:
        return iter(x)
    except TypeError:
        raise TypeError(f"x must be arrays or an iterable of batches, got {type(x).__name__}.") from None


def _unpack(batch: Any) -> tuple[Any, Any, Any]:
    if not isinstance(batch, (tuple, list)):
        return batch, None, None
    if not 1 <= len(batch) <= 3:
        raise ValueError(f"A batch must be x, (x,), (x, y) or (x, y, sample_weight), got {len(batch)} elements.")
    x, y, sample_weight = (*batch, None, None)[:3]
    return x, y, sample_weight


def _to_array(leaf: Any) -> np.ndarray | None:
    """Return a NumPy array, with floats in Keras' floatx, as `model.fit` casts them."""
    if leaf is None:
        return None
    if hasattr(leaf, "toarray"):  # sparse matrices of SciPy
        leaf = leaf.toarray()
    array = ops.convert_to_numpy(leaf) if ops.is_tensor(leaf) else np.asarray(leaf)
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(keras.config.floatx()) if is_float else array


def _add_class_weights(
    x: Any, y: Any, sample_weight: Any, class_weight: dict[int, float] | None
) -> tuple[Any, Any, Any]:
    """Return a batch with the weights of its classes as sample weights."""
    if class_weight is None:
        return x, y, sample_weight
    if sample_weight is not None:
        raise ValueError("class_weight and sample_weight cannot be combined. Pass their product as sample_weight.")
    if y is None or tree.is_nested(y):
        raise ValueError("class_weight needs one array of targets y, as in model.fit.")
    labels = y
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(axis=-1)
    labels = np.round(labels).astype("int32")
    if labels.ndim > 1:
        raise ValueError(
            f"class_weight needs one class per row, got y of the shape {y.shape}. Pass sample_weight of that shape."
        )
    weights = [class_weight.get(int(label), 1.0) for label in labels]
    return x, y, np.array(weights, dtype=keras.config.floatx())


def _check_rows(x: Any, y: Any, sample_weight: Any) -> None:
    lengths = {
        name: sorted({len(leaf) for leaf in tree.flatten(structure) if leaf is not None})
        for name, structure in (("x", x), ("y", y), ("sample_weight", sample_weight))
        if structure is not None
    }
    if len({length for each in lengths.values() for length in each}) > 1:
        counts = ", ".join(f"{name} has {', '.join(map(str, each))}" for name, each in lengths.items() if each)
        raise ValueError(f"x, y and sample_weight must have the same number of rows: {counts}.")


def _row_shapes(structure: Any) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(None if leaf is None else leaf.shape[1:] for leaf in tree.flatten(structure))


def _slice_rows(structure: Any, start: int, stop: int) -> Any:
    return tree.map_structure(lambda leaf: None if leaf is None else leaf[start:stop], structure)


def _concatenate(structures: list[Any], name: str) -> Any:
    first, *others = structures
    if not others:
        return first
    for other in others:
        tree.assert_same_structure(first, other)
    if len({_row_shapes(structure) for structure in structures}) > 1:
        shapes = sorted({str(shape) for structure in structures for shape in _row_shapes(structure)})
        raise ValueError(
            f"The batches differ in the shape of a row of {name} ({' and '.join(shapes[:2])}), so the loss of all rows "
            "cannot be computed at once. Pad them to one shape, or pass one batch."
        )
    return tree.map_structure(lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *structures)
