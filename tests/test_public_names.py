"""Every public name is documented by an example that runs, and every page of the documentation by code that runs."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import poise

DOCS = Path(__file__).parent.parent / "docs"
WITHOUT_EXAMPLE = {"DataError", "Penalty", "Role", "Summary", "Study"}  # shown by what raises, returns or derives from them


def _modules():
    found = pkgutil.walk_packages(poise.__path__, "poise.")
    return [name for _, name, _ in found if not name.startswith("poise.study") and name != "poise.cli.app"]


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_print_what_they_say(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.parametrize("name", sorted(set(poise.__all__) - WITHOUT_EXAMPLE))
def test_public_name_has_an_example(name):
    assert ">>>" in (inspect.getdoc(getattr(poise, name)) or "")


@pytest.mark.parametrize("name", sorted(set(poise.__all__)))
def test_public_name_has_a_docstring_that_is_its_own(name):
    documented = getattr(poise, name)
    assert documented.__doc__, name
    assert documented.__module__.startswith("poise.")


@pytest.mark.parametrize("page", ["penalties.md", "updates.md"])
def test_python_blocks_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
