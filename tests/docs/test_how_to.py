"""The home page, the tutorial, the how-to guides and their explanations: every block runs and prints what the page shows.

The guides that are about another backend have tests of their own.
"""

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from code_blocks import DOCS, ROOT, Block, blocks_of, named_scripts

OF_OTHER_BACKENDS = ["custom-training-loops.md", "pytorch.md", "pytorch-backend.md"]
GUIDES = sorted((DOCS / "how-to").glob("*.md"))
PAGES = [
    DOCS / "index.md",
    DOCS / "quickstart.md",
    *GUIDES,
    *(DOCS / "explanation" / f"{name}.md" for name in ("path", "compaction", "study")),
]
SCRIPTS = {
    name: script
    for name, script in named_scripts(*(page for page in PAGES if page.name not in OF_OTHER_BACKENDS)).items()
    if 'os.environ["KERAS_BACKEND"]' not in script[0].code
}


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    if "ray" in sys.modules:  # a guide starts Ray, which would stay until the process ends
        sys.modules["ray"].shutdown()


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_blocks_print_what_the_page_shows(script: list[Block]) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}

    for block in script:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * block.line + block.code, "page", "exec"), namespace)
        assert block.difference(output.getvalue()) is None


def test_the_export_on_another_backend_prints_what_the_page_shows(tmp_path: Path) -> None:
    [script] = [block for block in blocks_of(DOCS / "how-to" / "make-a-network-smaller.md") if "onnx" in block.code]
    keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)]).save(tmp_path / "small.keras")

    run = subprocess.run(
        [sys.executable, "-c", script.code], check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )

    assert run.stdout == script.shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_home_page_links_every_page() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = [page for pattern in ("*.md", "*.ipynb") for page in DOCS.rglob(pattern) if page != DOCS / "index.md"]

    assert [page.name for page in pages if f"({page.relative_to(DOCS)})" not in text] == []


def test_every_guide_states_its_goal_in_the_first_sentence() -> None:
    first_lines = [guide.read_text(encoding="utf-8").split("\n\n")[1] for guide in GUIDES]

    assert len(GUIDES) == 13
    assert all(line.startswith("This guide shows how to ") for line in first_lines)


def test_files_in_the_examples_folder_that_the_pages_name_exist() -> None:
    names = {name for page in PAGES for name in re.findall(r"`((?:examples|benchmarks)/\w+\.py)`", page.read_text())}

    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
