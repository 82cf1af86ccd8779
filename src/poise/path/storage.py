"""A path as a folder: JSON, a CSV file of the lanes, and NumPy arrays. No pickle, nothing half-written.

path.json     rules, training, architecture of the model, and checksums of all files
lanes.csv     one row per lane, every number exact
arrays.npz    sizes, features, weights, and the state of the model's layers
stage-1/ …    the adaptive stages before it, in the same form
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from poise.files import checksum, clear_leftovers, replace_folder
from poise.layer_state import State
from poise.path.declared_sizes import check_arrays
from poise.path.model_config import explain_failure
from poise.path.training import Lanes
from poise.rules.rule import Rule

FORMAT = "poise path"
VERSION = 2
RECORD, TABLE, ARRAYS = "path.json", "lanes.csv", "arrays.npz"


def write_path(
    folder: str | os.PathLike[str], parts: Mapping[str, tuple[Mapping, Lanes, State]], overwrite: bool
) -> None:
    """Write a path, whole or not at all.

    Args:
        folder: where to; its parents are created.
        parts: by the name of a folder inside it the content of its path.json, its lanes, and the state of its model;
            "" is the path itself.
        overwrite: whether to replace a path that is saved there.

    Raises:
        FileExistsError: If the folder holds something that may not be replaced.
        OSError: If it cannot be written.
    """
    target = Path(folder).resolve()
    clear_leftovers(target)
    _check_place(target, overwrite)
    with replace_folder(target) as new:
        for name, (record, lanes, state) in parts.items():
            others = [] if name else [other for other in parts if other]
            _write_part(new / name, {**record, "parts": others}, lanes, state)


def read_path(folder: str | os.PathLike[str]) -> dict[str, tuple[dict, Lanes, State]]:
    """Return the parts that `write_path` wrote.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is not a saved path, is of a newer version, or is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}. path.save(folder) creates one.")
    names = ["", *_read_record(folder)["parts"]]
    return {name: _read_part(folder / name) for name in names}


def serialize_rules(rules: Sequence[Rule]) -> list[dict]:
    """Return the configurations of rules.

    Raises:
        ValueError: If Keras could not rebuild one.
    """
    configs = []
    for rule in rules:
        configs.append(keras.saving.serialize_keras_object(rule))
        try:
            keras.saving.deserialize_keras_object(configs[-1], safe_mode=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Rule {rule.name!r} cannot be saved, because Keras could not find its function again. Select by a "
                "glob or a role, or register the function with keras.saving.register_keras_serializable."
            ) from error
    return configs


def deserialize_rules(configs: Sequence[dict], safe_mode: bool) -> tuple[Rule, ...]:
    """Return the rules of `serialize_rules`.

    Raises:
        ValueError: If Keras cannot rebuild one.
    """
    with explain_failure("A rule of the path"):
        return tuple(keras.saving.deserialize_keras_object(config, safe_mode=safe_mode) for config in configs)


def _read_part(folder: Path) -> tuple[dict, Lanes, State]:
    record = _read_record(folder)
    try:
        for name, expected in record["files"].items():
            if checksum(folder / name) != expected:
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
            f"The path saved in {str(folder)!r} is damaged: {reason}. Use a copy of it, or run poise.fit_path again."
        ) from error
    return record, Lanes(table, sizes, features, weights), state


def _check_place(target: Path, overwrite: bool) -> None:
    """Check that the place is free, or holds nothing but a saved path that may be replaced.

    Raises:
        FileExistsError: If not.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    name = str(target)
    if not target.is_dir():
        raise FileExistsError(f"{name!r} is a file, and a path is saved as a folder. Use another name.")
    try:
        record = _read_record(target)
    except ValueError:
        raise FileExistsError(f"{name!r} already exists and is not a saved path. Use another folder.") from None
    if not overwrite:
        raise FileExistsError(f"{name!r} already exists. Pass overwrite=True to replace it, or use another folder.")
    foreign = sorted({file.name for file in target.iterdir()} - {RECORD, TABLE, ARRAYS, *record["parts"]})
    if foreign:
        raise FileExistsError(
            f"{name!r} holds a path and also {foreign[0]!r}, which would be deleted. Move it, or use another folder."
        )


def _read_record(folder: Path) -> dict:
    """Return the content of path.json.

    Raises:
        ValueError: If there is none, or it has another format or version.
    """
    try:
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        version = written["version"] if written["format"] == FORMAT else None
        is_whole = version != VERSION or _digest(json.dumps(written["content"])) == written["checksum"]
    except (OSError, ValueError, KeyError, TypeError):
        written, version, is_whole = {}, None, False
    if not isinstance(version, int) or not is_whole:
        raise ValueError(f"{str(folder)!r} is not a path saved by poise, or its {RECORD} is damaged.")
    if version < VERSION:
        raise ValueError(
            f"The path in {str(folder)!r} has the format version {version}, which this version of poise cannot read. "
            "Run poise.fit_path again."
        )
    if version > VERSION:
        raise ValueError(
            f"The path in {str(folder)!r} has the format version {version}, but this version of poise reads versions "
            f"up to {VERSION}. Update poise."
        )
    return written["content"]


def _write_part(folder: Path, record: Mapping, lanes: Lanes, state: State) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The shortest text of a double gives back the double; the record holds the types of the columns.
    widened: Any = {
        name: {"f": "float64", "b": "int64"}.get(dtype.kind, dtype) for name, dtype in lanes.table.dtypes.items()
    }
    lanes.table.astype(widened).to_csv(folder / TABLE, index=False, na_rep="nan", lineterminator="\n")
    arrays: dict[str, Any] = {f"size {number}": sizes for number, sizes in enumerate(lanes.sizes.values())}
    arrays |= {f"weight {number}": _storable(weight) for number, weight in enumerate(lanes.weights)}
    if lanes.features is not None:
        arrays["features"] = lanes.features
    state_arrays: list[np.ndarray] = []

    def keep(array: np.ndarray) -> dict:
        state_arrays.append(_storable(np.asarray(array)))
        return {"array": len(state_arrays) - 1, "dtype": str(np.asarray(array).dtype)}

    state_record = state.to_record(keep)
    arrays |= {f"state {number}": array for number, array in enumerate(state_arrays)}
    np.savez(folder / ARRAYS, **arrays)
    content = {
        **record,
        "keras": keras.__version__,
        "sizes": list(lanes.sizes),
        "state": state_record,
        "weights": [str(weight.dtype) for weight in lanes.weights],
        "columns": {name: str(dtype) for name, dtype in lanes.table.dtypes.items()},
        "files": {name: checksum(folder / name) for name in (TABLE, ARRAYS)},
    }
    head = {"format": FORMAT, "version": VERSION, "checksum": _digest(json.dumps(content))}
    text = json.dumps({**head, "content": content}, indent=1)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def _storable(array: np.ndarray) -> np.ndarray:
    """Return an array of a type that NumPy's files have: float32 for bfloat16, whose values it holds exactly."""
    return array.astype("float32") if array.dtype.kind == "V" else array


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
