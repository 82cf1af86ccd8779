"""Run a command in this process."""

import hashlib
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from poise.cli.app import app

FAST = ["--penalty", "l2", "--max-iter", "50", "--strengths", "3", "--cv", "2", "--hidden-layer-sizes", "4"]
CONTROLS = "a\x1b[2J\x9b31m\u202eb\nc"
"""A text that would clear a terminal, color it, reverse its direction and start a line."""


def poise(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), **options)


def refused(*arguments: object, exit_code: int = 2, **options: Any) -> str:
    """The one sentence on the error stream of a command that fails."""
    result = poise(*arguments, **options)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def printed(*arguments: object, **options: Any) -> str:
    """What a command prints, on one line."""
    return " ".join(poise(*arguments, **options).stdout.split())


def sign(folder: str | Path, **changes: Any) -> None:
    """Write study.json again, with changes, and with checksums of the files that are there now."""
    record = Path(folder, "study.json")
    content = json.loads(record.read_text(encoding="utf-8")) | changes
    content["files"] = {name: hashlib.sha256(Path(folder, name).read_bytes()).hexdigest() for name in content["files"]}
    content.pop("checksum")
    content["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    record.write_text(json.dumps(content), encoding="utf-8")
