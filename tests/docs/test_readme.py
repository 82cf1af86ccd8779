"""The README: its examples run where only poise is installed, and print what is shown."""

import importlib.util
import json
import re
from pathlib import Path

from code_blocks import ROOT, blocks_of
from plain_install import run

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
RUN = """
import contextlib, io, json

printed = []
for number, code in enumerate(json.loads(sys.argv[1])):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, f"README.md, block {number}", "exec"), {})
    printed.append(output.getvalue())
print(json.dumps(printed))
"""


def test_blocks_run_where_only_poise_is_installed_and_print_what_is_shown(tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(README) if "import torch" not in block.code]  # see test_pytorch_page.py
    assert len(blocks) >= 4

    done = run(RUN, tmp_path, json.dumps([block.code for block in blocks]))

    assert done.returncode == 0, done.stderr
    for block, printed in zip(blocks, json.loads(done.stdout), strict=True):
        assert block.difference(printed) is None


def test_links_lead_to_files_that_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target


def test_every_file_that_the_readme_names_exists() -> None:
    assert importlib.util.find_spec("poise.cli")
    for name in re.findall(r"`((?:examples|benchmarks|docs)/[\w./-]*)`", TEXT):
        assert (ROOT / name).exists(), name
