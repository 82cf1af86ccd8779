"""The files of a saved study, and its description. Reading it imports neither Keras nor scikit-learn."""

import json
import os
from pathlib import Path

from poise.path.declared_sizes import LARGEST_JSON
from poise.study.errors import DataError
from poise.study.report.schema import FORMAT, VERSION, checksum_of, find_violation

REPORT, RECORD, TABLE, MODEL, PREPROCESSING = (
    "report.html", "study.json", "table.parquet", "model.keras", "preprocessing.skops",
)  # fmt: skip
FILES = (REPORT, RECORD, TABLE, MODEL, PREPROCESSING)
NEEDED = (MODEL, PREPROCESSING)


def read_description(folder: str | os.PathLike[str]) -> dict:
    """Return the content of study.json.

    Raises:
        DataError: If there is no study, or it is of another version, or damaged.
    """
    folder = Path(folder)
    record = folder / RECORD
    if not folder.is_dir():
        raise DataError(f"The folder {str(folder)!r} does not exist.", "folder")
    if not record.is_file():
        raise DataError(f"The folder {str(folder)!r} holds no saved study: {RECORD} is missing.", "folder")
    try:
        if record.stat().st_size > LARGEST_JSON:
            raise damaged(folder, f"{RECORD} is larger than any that poise writes")
        content = json.loads(record.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except DataError:
        raise
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "it is not JSON in UTF-8"
        raise damaged(folder, f"{RECORD} cannot be read, {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"The folder {str(folder)!r} holds no saved study: {RECORD} has another format.", "folder")
    version = content.get("version")
    if isinstance(version, int) and version != VERSION:
        remedy = "Update poise" if version > VERSION else "Run the study again"
        raise DataError(
            f"The study in {str(folder)!r} has format version {version}, but this version of poise reads {VERSION}. "
            f"{remedy}."
        )
    violation = find_violation(content)
    if violation:
        raise damaged(folder, f"in {RECORD}, {violation}")
    if content["checksum"] != checksum_of(content):
        raise damaged(folder, f"{RECORD} has changed since it was saved")
    names = [candidate["candidate"] for candidate in content["candidates"]]
    networks = names if content["selection"] is None else [*names, content["selection"]["candidate"]]
    for key, known in {"chosen": names, "selector": [None, *names], "saved": networks}.items():
        if content[key] not in known:
            raise damaged(folder, f"in {RECORD}, {key} is {content[key]!r}, which is not a candidate")
    return content


def damaged(folder: Path, reason: str) -> DataError:
    """Return the error of a study that is damaged."""
    return DataError(f"The study in {str(folder)!r} is damaged: {reason}. Use a copy of it, or run the study again.")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")
