"""Every example sets the backend before it imports Keras, where an import sorter leaves it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```python\n(.*?)```", re.S)
SET = 'os.environ.setdefault("KERAS_BACKEND", "jax")'
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    f"{page.name} {number}": code for page in PAGES for number, code in enumerate(FENCE.findall(page.read_text()))
}
PASTED = {name: code for name, code in BLOCKS.items() if "import poise" in code and "os.environ[" not in code}
"""The examples that stand alone, without those that are about a backend."""


@pytest.mark.parametrize("code", PASTED.values(), ids=PASTED)
def test_example_names_the_backend_before_it_imports_keras(code: str) -> None:
    if re.search(r"^(import|from) keras", code, re.M):
        assert code.startswith(f"import os\n\n{SET}")
