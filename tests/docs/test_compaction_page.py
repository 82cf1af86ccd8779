"""The page on compaction shows what its code prints."""

import re
from pathlib import Path

from test_guide import difference, draw

PAGE = Path(__file__).parents[2] / "docs" / "compaction.md"


def test_its_examples_print_what_is_shown():
    text = PAGE.read_text(encoding="utf-8")

    _, printed = draw.run(PAGE)

    assert len(printed) == 3
    for output, shown in printed:
        marked = re.search(r"<!-- tolerance: ([\d.]+) -->\n$", text[: shown.start()])
        assert difference(shown[2], output, float(marked[1]) if marked else 0.0) is None
