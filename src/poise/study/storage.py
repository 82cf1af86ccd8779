"""Save a study as a folder, completely or not at all.

report.html          the report
study.json           data, settings and results, as templates/study.schema.json documents
table.parquet        every strength of every path
model.keras          the saved network (see `Findings.saved`) without its dead units, a plain Keras model
preprocessing.skops  what turns columns into the network's inputs

Nothing in it is a pickle: scikit-learn's parts are saved by skops, and only types listed in `poise.study.loading` are
built again.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import skops.io

from poise._keras_internals import without_tensorflow
from poise.files import (
    CannotWriteError,
    OutputExistsError,
    check_writable,
    checksum,
    clear_leftovers,
    replace_folder,
    write_bytes,
)
from poise.study.description_file import FILES, MODEL, NEEDED, PREPROCESSING, RECORD, REPORT, TABLE
from poise.study.errors import OccupiedError
from poise.study.findings import Findings
from poise.study.report.description import describe, paths_table
from poise.study.report.page import render_page
from poise.study.report.schema import checksum_of

TERMINAL_CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON leaves unescaped and that control a terminal."""


@without_tensorflow()
def write_study(findings: Findings, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the folder of a study; see `Study.save`."""
    with _new_folder(folder, overwrite) as new:
        _write_files(findings, new, os.fspath(folder))
    return Path(folder) / REPORT


def copy_study(source: Path, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Copy the folder of a saved study; see `Study.save`."""
    with _new_folder(folder, overwrite) as new:
        for name in FILES:
            shutil.copyfile(source / name, new / name)
    return Path(folder) / REPORT


def check_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check, before anything is trained, whether a study can be saved in `folder`; leaves no trace.

    Raises:
        FileExistsError: If the folder exists and must not be replaced.
        OSError: If it cannot be written.
    """
    try:
        clear_leftovers(Path(folder).resolve())
        _check_place(Path(folder), overwrite)
    except (OccupiedError, OutputExistsError):
        raise
    except OSError as error:
        raise CannotWriteError(folder, error) from error
    check_writable(folder)


@contextmanager
def _new_folder(folder: str | os.PathLike[str], overwrite: bool) -> Iterator[Path]:
    check_folder(folder, overwrite=overwrite)
    try:
        with replace_folder(Path(folder).resolve()) as new:
            yield new
    except OSError as error:
        raise CannotWriteError(folder, error) from error


def _write_files(findings: Findings, folder: Path, final: str) -> None:
    """Write the files; `final` is what the user calls the folder."""
    findings.compact_model.save(folder / MODEL)
    write_bytes(folder / PREPROCESSING, skops.io.dumps(findings.encoder))
    paths_table(findings).to_parquet(folder / TABLE, index=False)
    write_bytes(folder / REPORT, render_page(findings, final).encode("utf-8", "replace"))
    content = describe(findings) | {"files": {name: checksum(folder / name) for name in NEEDED}}
    content["checksum"] = checksum_of(content)
    # A lone surrogate, which UTF-8 does not have, becomes the escape that JSON reads as the same character, and so does
    # a character that controls a terminal on which the file is printed.
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = TERMINAL_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    write_bytes(folder / RECORD, text.encode("utf-8", "backslashreplace"))


def _check_place(target: Path, overwrite: bool) -> None:
    """Raise FileExistsError unless the place is free, or holds only a study that may be replaced."""
    name = str(target)
    if not target.is_dir():
        if target.exists():
            raise OccupiedError(f"{name!r} is a file; a study is saved as a folder. Use another name.", "folder")
        return
    inside = {path.name for path in target.iterdir()}
    if not inside:
        return
    if RECORD not in inside:
        raise OccupiedError(
            f"The folder {name!r} is not empty and holds no saved study. Use another folder.", "folder"
        )  # fmt: skip
    if not overwrite:
        raise OutputExistsError(target)
    foreign = sorted(inside - {*FILES})
    if foreign:
        raise OccupiedError(
            f"The folder {name!r} holds a study and also {foreign[0]!r}, which would be deleted. Move that file, or "
            "use another folder.",
            "folder",
        )
