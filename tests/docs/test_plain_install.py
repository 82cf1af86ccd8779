"""After a plain `pip install poise`, without TensorFlow and with no KERAS_BACKEND set, the examples run as pasted.

Collected where TensorFlow is not installed, as in the environment of `make test-lowest`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_as_pasted import PASTED

NAMES = [name for name in PASTED if name.startswith(("README", "compaction", "updates", "path", "penalties"))]


@pytest.mark.parametrize("name", NAMES)
def test_example_runs_as_pasted(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    subprocess.run([sys.executable, "-c", PASTED[name]], check=True, env=environment, cwd=tmp_path, timeout=300)


def test_command_names_a_backend_that_is_not_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "poise_command", "study", "diabetes"]
    ended = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert 'pip install "poise[tensorflow]"' in ended.stderr
