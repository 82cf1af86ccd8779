"""The tutorial and the how-to guides: every block runs, and prints what the page shows.

The scripts of `how-to/custom-training-loops.md` have a test of their own, since each needs another backend.
"""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from code_blocks import ROOT, Block, blocks_of, named_scripts
from test_guide import difference

DOCS = ROOT / "docs"
OTHER_BACKENDS = ["custom-training-loops.md", "pytorch-backend.md"]
PAGES = [
    DOCS / "index.md",
    DOCS / "quickstart.md",
    *sorted(page for page in (DOCS / "how-to").glob("*.md") if page.name not in OTHER_BACKENDS),
    *(DOCS / "explanation" / f"{name}.md" for name in ("path", "compaction", "study")),
]
SCRIPTS = named_scripts(*PAGES)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_blocks_run_and_print_what_the_page_shows(
    script: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}

    for block in script:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * block.line + block.code, "page", "exec"), namespace)
        assert difference(block.shown, output.getvalue(), block.tolerance) is None


def test_every_page_is_run() -> None:
    assert {name.split()[0] for name in SCRIPTS} == {str(page.relative_to(ROOT)) for page in PAGES if any(blocks_of(page))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []
