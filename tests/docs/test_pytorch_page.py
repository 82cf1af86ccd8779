"""The guide to the PyTorch backend: its scripts run and print what the page shows."""

import contextlib
import io

import pytest
from code_blocks import DOCS, Block, named_scripts

SCRIPTS = named_scripts(DOCS / "how-to" / "pytorch-backend.md")


@pytest.mark.backends("torch")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_script_prints_what_the_page_shows(script: list[Block]) -> None:
    (block,) = script
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(compile("\n" * block.line + block.code, "page", "exec"), {"__name__": "page"})

    assert block.difference(output.getvalue()) is None
