"""Blocks of the README and the documentation, as pasted on a machine where only `pip install poise` was done."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHOICE = re.compile(
    r"""os\.environ(\.setdefault\('KERAS_BACKEND', |\['KERAS_BACKEND'\] = )'(jax|tensorflow|torch)'\)?"""
)


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


IMPORTING = [
    (page.name, code) for page in PAGES for code in blocks(page) if re.search(r"^(import|from) keras", code, re.M)
]


@pytest.mark.parametrize(("page", "code"), IMPORTING, ids=[f"{page}-{n}" for n, (page, _) in enumerate(IMPORTING)])
def test_a_block_chooses_the_backend_before_it_imports_keras_also_once_sorted(page, code):
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "I,E402", "--fix", "--quiet", "-"]
    by_sorter = subprocess.run(ruff, input=code, capture_output=True, text=True)

    assert by_sorter.returncode == 0, by_sorter.stdout
    for text in (code, by_sorter.stdout):
        first, second, third = map(ast.unparse, ast.parse(text).body[:3])
        assert first == "import os"
        assert CHOICE.fullmatch(second)
        assert third.startswith("import")
