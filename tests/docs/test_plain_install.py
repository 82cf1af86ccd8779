"""After `pip install poise`, without TensorFlow and with no KERAS_BACKEND set, the examples run as pasted.

Collected where TensorFlow is not installed, as in the environment of `make test-lowest`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from code_blocks import DOCS, ROOT, scripts_of

SLOW = ["choose-the-strength.md", "which-columns-matter.md", "make-a-network-smaller.md"]
"""Guides to the four jobs of the README, whose examples do the same in less time."""
GUIDES = [page for page in sorted((DOCS / "how-to").glob("*.md")) if page.name not in SLOW]
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *GUIDES]
PAGES += [DOCS / "explanation" / f"{name}.md" for name in ("compaction", "updates", "penalties")]
NEEDS_MORE = ['os.environ["KERAS_BACKEND"]', 'executor="ray"', "import poise.optax", "import torch"]
"""Code of examples that need another backend or an extra."""
RUN = """
import json, sys

for number, code in enumerate(json.loads(sys.argv[1]), 1):
    exec(compile(code, f"example {number}", "exec"), {"__name__": "example"})
"""


def _examples(page: Path) -> list[str]:
    codes = ["\n".join(block.code for block in script) for script in scripts_of(page)]
    return [code for code in codes if not any(part in code for part in NEEDS_MORE)]


@pytest.mark.parametrize("page", [page for page in PAGES if _examples(page)], ids=lambda page: page.stem)
def test_examples_run_as_pasted(page: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    command = [sys.executable, "-c", RUN, json.dumps(_examples(page))]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=300)


def test_command_names_a_backend_that_is_not_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "poise_command", "study", "diabetes"]
    ended = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert 'pip install "poise[tensorflow]"' in ended.stderr
