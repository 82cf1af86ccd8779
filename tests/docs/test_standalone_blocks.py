"""Pages whose code blocks are independent scripts: every block runs and prints what the page shows."""

import contextlib
import io
from pathlib import Path

import pytest
from test_guide import difference, draw

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["explanation/updates.md", "explanation/penalties.md", "faq.md"]


def _scripts() -> dict[str, tuple[str, str]]:
    """Return by page and number the code of a block and the text that the page shows below it."""
    scripts = {}
    for page in PAGES:
        blocks = draw.blocks(DOCS / page)
        for number, (block, following) in enumerate(zip(blocks, [*blocks[1:], None], strict=True)):
            if block[1] == "python":
                shown = following[2] if following is not None and following[1] == "text" else ""
                scripts[f"{page} {number}"] = block[2], shown
    return scripts


SCRIPTS = _scripts()


@pytest.mark.parametrize(("code", "shown"), SCRIPTS.values(), ids=SCRIPTS)
def test_block_prints_what_the_page_shows(code: str, shown: str) -> None:
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(compile(code, "page", "exec"), {"__name__": "page"})

    assert difference(shown, output.getvalue(), 0.0) is None
