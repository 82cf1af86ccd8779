"""The page "What poise guarantees": every test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "guarantees.md").read_text()


def test_tests_named_in_the_table_exist() -> None:
    files = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    named = re.findall(r"`(test_\w+)`", PAGE)

    assert len(files) > 10
    source = "".join((ROOT / file).read_text() for file in files)
    assert [name for name in named if f"def {name}(" not in source] == []
