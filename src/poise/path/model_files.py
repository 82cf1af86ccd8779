"""Load a saved model: not one that is larger than its file, and without drawing weights that the file replaces."""

import contextlib
import math
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from poise.path.declared_sizes import FLOOR, check_archive, check_expansion, format_bytes, memory
from poise.path.placeholders import skip_random_weights

SPARE_WEIGHTS = 16 << 20
"""Entries that the weights of a model may have in addition to the bytes of its file."""
ROWS = 128
"""Rows for which the outputs of every layer of a model have to fit the memory."""
LEGACY = (".h5", ".hdf5")
_ONE_AT_A_TIME = threading.Lock()
"""Held while `Layer.add_weight` is replaced."""


def load_model(file: str | os.PathLike[str], *, compile: bool = False, safe_mode: bool = True) -> Any:
    """Return the Keras model in a file, if its archive and its layers are not larger than the file.

    Args:
        file: What `model.save` wrote.
        compile: Whether to compile the model as it was when it was saved. Default: False.
        safe_mode: As for `keras.saving.load_model`.

    Raises:
        ValueError: If they are larger.
        Exception: Whatever Keras, zipfile, h5py and JSON raise for a file that is not a model.
    """
    path = Path(file)
    if path.suffix.lower() in LEGACY:
        held = path.stat().st_size
        _check_hdf5(path, held)
    else:
        held = check_archive(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(LEGACY):
                    with archive.open(member) as packed, tempfile.SpooledTemporaryFile(FLOOR) as content:
                        shutil.copyfileobj(packed, content)
                        content.seek(0)
                        _check_hdf5(content, member.file_size)
    with _ONE_AT_A_TIME, _weights_up_to(held + SPARE_WEIGHTS, held), skip_random_weights():
        model = keras.saving.load_model(path, compile=compile, safe_mode=safe_mode)
    for operation in getattr(model, "operations", model.layers):
        for output in keras.tree.flatten(getattr(operation, "output", ())):
            row = math.prod(length or 1 for length in output.shape[1:])
            if 4 * ROWS * row > memory():
                raise ValueError(
                    f"its layer {operation.name!r} returns {row:,} numbers per row, too many for the "
                    f"{format_bytes(memory())} of memory of this machine"
                )
    return model


def _check_hdf5(file: Any, size: int) -> None:
    import h5py

    declared = 0

    def add(name: str, item: Any) -> None:
        nonlocal declared
        if isinstance(item, h5py.Dataset):
            declared += math.prod(item.shape or ()) * item.dtype.itemsize

    with h5py.File(file, "r") as content:
        content.visititems(add)
    check_expansion(declared, size, expansion=4)


@contextlib.contextmanager
def _weights_up_to(entries: int, held: int) -> Iterator[None]:
    """Refuse layers that ask for more entries of weights than these, before they get any.

    Keras has no hook between a layer's configuration and its weights but the method by which all layers ask for them.
    """
    original = keras.layers.Layer.add_weight
    asked = 0

    def add_weight(layer: Any, shape: Any = None, *arguments: Any, **settings: Any) -> Any:
        nonlocal asked
        asked += math.prod(int(length) for length in np.atleast_1d(() if shape is None else shape))
        if asked > entries:
            raise ValueError(
                f"its layers need at least {asked:,} weights, but the file holds only {format_bytes(held)}; it is "
                "damaged or unsafe"
            )
        return original(layer, shape, *arguments, **settings)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = original
