"""Every example selects the backend before it imports Keras, so that it runs as pasted after `pip install poise`."""

import pytest
from code_blocks import DOCS, ROOT, Block, named_scripts

SELECT = 'import os\n\nos.environ.setdefault("KERAS_BACKEND", "jax")'
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SCRIPTS = {
    name: script
    for name, script in named_scripts(*PAGES).items()
    if 'os.environ["KERAS_BACKEND"]' not in script[0].code  # an example of one backend
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_example_selects_the_backend_first(script: list[Block]) -> None:
    assert script[0].code.startswith(SELECT)
