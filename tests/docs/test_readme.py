"""The README's code runs, each block on its own, and prints what stands below it."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_blocks_run_and_print_what_is_shown(capsys):
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", TEXT, flags=re.S)
    assert len(blocks) >= 4

    for code, shown in blocks:
        exec(compile(code, "README.md", "exec"), {})
        printed = capsys.readouterr().out
        assert [line.rstrip() for line in printed.rstrip().splitlines()] == shown.rstrip().splitlines()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_every_file_that_the_documentation_names_exists():
    assert importlib.util.find_spec("poise.cli")
    for name in re.findall(r"`((?:examples|benchmarks|docs)/[\w./-]*)`", TEXT):
        assert (ROOT / name).exists(), name
