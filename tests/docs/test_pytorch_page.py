"""The guides to PyTorch, with and without Keras, and the README: their scripts run and print what the pages show."""

import contextlib
import io

import pytest
from code_blocks import DOCS, ROOT, Block, named_scripts

GUIDES = [DOCS / "how-to" / f"{name}.md" for name in ("pytorch", "pytorch-backend")]
SCRIPTS = {
    name: script
    for name, script in named_scripts(ROOT / "README.md", *GUIDES).items()
    if "import torch" in script[0].code
}


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # Lightning with this PyTorch
@pytest.mark.backends("torch")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_script_prints_what_the_page_shows(script: list[Block]) -> None:
    (block,) = script
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(compile("\n" * block.line + block.code, "page", "exec"), {"__name__": "page"})

    assert block.difference(output.getvalue()) is None
