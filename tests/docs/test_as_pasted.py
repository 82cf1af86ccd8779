"""Every example selects the backend before it imports Keras, so that it runs as pasted after `pip install poise`."""

import pytest
from code_blocks import DOCS, ROOT, Block, named_scripts

CHOOSES = ('os.environ["KERAS_BACKEND"]', "import poise.optax", "import torch")
"""Code of examples of one backend, which they set or import a module for."""
SELECT = 'import os\n\nos.environ.setdefault("KERAS_BACKEND", "jax")'
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SCRIPTS = {
    name: script
    for name, script in named_scripts(*PAGES).items()
    if not any(text in script[0].code for text in CHOOSES)
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_example_selects_the_backend_first(script: list[Block]) -> None:
    assert script[0].code.startswith(SELECT)
