"""The reference: every public name and every command has an entry, and the tables come from the command itself."""

import importlib.util
import re
from pathlib import Path

import typer

import poise
from poise.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"

spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
assert spec is not None
assert spec.loader is not None
hooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hooks)


def test_every_public_name_has_one_entry() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))

    entries = re.findall(r"^::: poise\.(\w+)$", pages, re.MULTILINE)

    assert sorted(entries) == sorted(poise.__all__)


def test_every_command_has_a_section_with_its_options() -> None:
    page = (REFERENCE / "command.md").read_text(encoding="utf-8")
    commands = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

    assert sorted(re.findall(r"^## poise (\w+)$", page, re.MULTILINE)) == sorted(commands)
    assert sorted(re.findall(r"<!-- options: (\w+) -->", page)) == sorted(commands)


def test_tables_of_a_command_show_arguments_options_and_defaults() -> None:
    tables = hooks.on_page_markdown("<!-- options: study -->")

    assert "| `DATA` |" in tables
    assert "| `--target` |" in tables
    assert re.search(r"\| `--cv` \| .+ \| `4` \|", tables)


def test_notebooks_load_plotly_from_the_site() -> None:
    page = type("Page", (), {"url": "gallery/path/", "file": type("File", (), {"src_uri": "gallery/path.ipynb"})})
    html = '<head></head><script src="https://cdn.plot.ly/plotly-3.min.js" defer></script><script>draw()</script>'

    output = hooks.on_post_page(html, page)

    assert output == '<head><script src="../../assets/plotly.min.js"></script></head><script>draw()</script>'
