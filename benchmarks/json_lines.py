"""Results of a long benchmark in a file, one line of JSON each, so that the same command resumes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read(file: Path | None) -> list[dict[str, Any]]:
    """Return the results in a file; none if there is no file yet."""
    lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
    return [json.loads(line) for line in lines]


def append(file: Path | None, results: Iterable[Mapping[str, Any]]) -> None:
    """Add results to a file, if one is wanted."""
    if file:
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(result) + "\n" for result in results)
