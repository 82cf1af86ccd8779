"""Arrays on their way to another process: kept apart from the JSON that names them. No pickle.

batch.npz     of data that pass by, the batch that was asked for last
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from poise.path.executors.nested_json import packed, unpacked

BATCH = "batch.npz"


def pack_batch(folder: str, batch: tuple) -> list:
    """Writes down the arrays of a batch (x, y, sample_weight or None), and tells its structure."""
    parcel = Parcel()
    structure = packed_rows(batch, parcel)
    parcel.write(Path(folder, BATCH))
    return structure


def unpack_batch(structure: list, folder: str) -> tuple:
    """The batch that `pack_batch` wrote down."""
    return unpacked_rows(structure, reader(Path(folder, BATCH)))


@dataclass
class Parcel:
    """What is found while objects are written down.

    Attributes:
        places: by Keras' name for it the (module, name in it) of every custom class and function.
        arrays: those that stay arrays.
        has_lambdas: whether there are Python lambdas, which Keras' safe mode forbids.
    """

    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    arrays: list[np.ndarray] = field(default_factory=list)
    has_lambdas: bool = False

    def keep(self, array) -> dict:
        array = np.asarray(array)
        is_known = array.dtype.kind != "V"  # NumPy's own files know no bfloat16; float32 holds it exactly
        self.arrays.append(array if is_known else array.astype("float32"))
        return {"array": len(self.arrays) - 1, "dtype": str(array.dtype)}

    def write(self, file: Path) -> None:
        stored: Any = {str(number): array for number, array in enumerate(self.arrays)}
        np.savez(file, **stored)


def reader(file: Path) -> Callable[[dict], np.ndarray]:
    """A function that gives the array of what `keep` told."""
    with np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    return lambda leaf: arrays[str(leaf["array"])].astype(leaf["dtype"], copy=False)


def packed_rows(parts, parcel) -> list:
    return [packed(part, parcel.keep) for part in parts]


def unpacked_rows(parts, read) -> tuple:
    return tuple(unpacked(part, read) for part in parts)
