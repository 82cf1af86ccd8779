"""A path as a folder: JSON, a CSV file of the lanes, and NumPy arrays. No pickle, nothing half-written.

path.json     rules, training, architecture of the model, and checksums of all files
lanes.csv     one row a lane, every number exact
arrays.npz    sizes, features, weights, and the state of the model's layers
stage-1/ …    the adaptive stages before it, laid out alike
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from poise.files import clear_leftovers, replace_folder
from poise.layer_state import State
from poise.path.declared_sizes import check_arrays
from poise.path.executors.array_store import Parcel
from poise.path.training import Lanes

FORMAT = "poise path"
VERSION = 2
RECORD, TABLE, ARRAYS = "path.json", "lanes.csv", "arrays.npz"
"""The file in the temporary folder of a save that its process holds locked; it says what is saved."""


def write(folder: str | os.PathLike[str], parts: Mapping[str, tuple[Mapping, Lanes, State]], overwrite: bool) -> None:
    """Writes a path, first beside the folder, which then takes its place as a whole.

    Args:
        folder: where to; its parents are made.
        parts: by the name of a folder inside it what goes into its path.json, its lanes, and the state of its model; ""
            is the path itself.
        overwrite: whether a path that is saved there already may be replaced.

    Raises:
        FileExistsError: the folder holds something that may not be replaced.
        OSError: it cannot be written.
    """
    target = Path(folder).resolve()
    clear_leftovers(target)
    _check_place(target, overwrite)
    with replace_folder(target) as new:
        for name, (record, lanes, state) in parts.items():
            others = [] if name else [other for other in parts if other]
            _write_part(new / name, {**record, "parts": others}, lanes, state)


def read(folder: str | os.PathLike[str]) -> dict[str, tuple[dict, Lanes, State]]:
    """The parts that `write` put into a folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no saved path, one of a newer poise, or a damaged one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}. path.save(folder) makes one.")
    names = ["", *_record_of(folder)["parts"]]
    return {name: _read_part(folder / name) for name in names}


def _read_part(folder):
    record = _record_of(folder)
    try:
        for name, checksum in record["files"].items():
            if _checksum(folder / name) != checksum:
                raise ValueError(f"{name} is not what was saved")
        numbers = np.loadtxt(folder / TABLE, delimiter=",", skiprows=1, ndmin=2)
        table = pd.DataFrame(numbers, columns=list(record["columns"])).astype(record["columns"])
        check_arrays(folder / ARRAYS)
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            sizes = {name: arrays[f"size {number}"] for number, name in enumerate(record["sizes"])}
            features = arrays.get("features")
            weights = [arrays[f"weight {number}"].astype(dtype) for number, dtype in enumerate(record["weights"])]
            state = State.from_record(
                record["state"], lambda leaf: arrays[f"state {leaf['array']}"].astype(leaf["dtype"], copy=False)
            )
    except (OSError, ValueError) as error:
        reason = f"{error.strerror}, {error.filename}" if isinstance(error, OSError) else error
        raise ValueError(
            f"The path saved in {str(folder)!r} is damaged: {reason}. Take a copy of it, or run poise.path again."
        ) from error
    return record, Lanes(table, sizes, features, weights), state


def _check_place(target, overwrite):
    """Raises FileExistsError unless the place is free, or holds nothing but a saved path that may be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    name = str(target)
    if not target.is_dir():
        raise FileExistsError(f"{name!r} is a file, and a path is saved as a folder. Give another name.")
    try:
        record = _record_of(target)
    except ValueError:
        raise FileExistsError(
            f"The folder {name!r} holds something that is no saved path, and it is left alone. Give another folder."
        ) from None
    if not overwrite:
        raise FileExistsError(f"The folder {name!r} already holds a path. Use overwrite=True, or another folder.")
    strange = sorted({one.name for one in target.iterdir()} - {RECORD, TABLE, ARRAYS, *record["parts"]})
    if strange:
        raise FileExistsError(
            f"The folder {name!r} holds a path and also {strange[0]!r}, which would be lost. Move that away, or give "
            "another folder."
        )


def _record_of(folder):
    """The content of path.json.

    Raises:
        ValueError: if there is none, or it is none of this format and version.
    """
    try:
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        version = written["version"] if written["format"] == FORMAT else None
        is_whole = version != VERSION or _digest(json.dumps(written["content"])) == written["checksum"]
    except (OSError, ValueError, KeyError, TypeError):
        version, is_whole = None, False
    if not isinstance(version, int) or not is_whole:
        raise ValueError(f"The folder {str(folder)!r} holds no path that poise saved, or its {RECORD} is damaged.")
    if version < VERSION:
        raise ValueError(
            f"The path in {str(folder)!r} has the format {version}, without the state of layers such as Normalization. "
            "Run poise.path again."
        )
    if version > VERSION:
        raise ValueError(
            f"The path in {str(folder)!r} has the format {version}, and this poise reads up to {VERSION}. Update poise."
        )
    return written["content"]


def _write_part(folder, record, lanes, state):
    folder.mkdir(parents=True, exist_ok=True)
    # The shortest text of a double gives back the double; which types the columns had is in the record.
    widened = {
        name: {"f": "float64", "b": "int64"}.get(dtype.kind, dtype) for name, dtype in lanes.table.dtypes.items()
    }
    lanes.table.astype(widened).to_csv(folder / TABLE, index=False, na_rep="nan", lineterminator="\n")
    arrays = {f"size {number}": sizes for number, sizes in enumerate(lanes.sizes.values())}
    arrays |= {f"weight {number}": _storable(weight) for number, weight in enumerate(lanes.weights)}
    if lanes.features is not None:
        arrays["features"] = lanes.features
    parcel = Parcel()
    beside = state.to_record(parcel.keep)
    arrays |= {f"state {number}": array for number, array in enumerate(parcel.arrays)}
    np.savez(folder / ARRAYS, **arrays)
    content = {
        **record,
        "keras": keras.__version__,
        "sizes": list(lanes.sizes),
        "state": beside,
        "weights": [str(weight.dtype) for weight in lanes.weights],
        "columns": {name: str(dtype) for name, dtype in lanes.table.dtypes.items()},
        "files": {name: _checksum(folder / name) for name in (TABLE, ARRAYS)},
    }
    head = {"format": FORMAT, "version": VERSION, "checksum": _digest(json.dumps(content))}
    text = json.dumps({**head, "content": content}, indent=1)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def _storable(weight):
    """NumPy's own files know no bfloat16; float32 holds it exactly."""
    return weight.astype("float32") if weight.dtype.kind == "V" else weight


def _checksum(file):
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
