"""The FAQ and the explanation of updates and penalties: every block runs and prints what the page shows."""

import contextlib
import io

import pytest
from code_blocks import DOCS, Block, named_scripts

PAGES = [DOCS / "explanation" / "updates.md", DOCS / "explanation" / "penalties.md", DOCS / "faq.md"]
SCRIPTS = named_scripts(*PAGES)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_block_prints_what_the_page_shows(script: list[Block]) -> None:
    [block] = script
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(compile(block.code, "page", "exec"), {"__name__": "page"})

    assert block.difference(output.getvalue()) is None
