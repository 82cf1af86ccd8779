"""The README's code runs, each block on its own, and prints what stands below it."""

import importlib.util
import json
import re
from pathlib import Path

from plain_install import run

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
RUN = """
import contextlib, io, json

printed = []
for number, code in enumerate(json.loads(sys.argv[1])):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, f"README.md, block {number}", "exec"), {})
    printed.append(output.getvalue())
print(json.dumps(printed))
"""


def test_blocks_run_where_only_poise_is_installed_and_print_what_is_shown(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", TEXT, flags=re.S)
    assert len(blocks) >= 4

    done = run(RUN, tmp_path, json.dumps([code for code, _ in blocks]))

    assert done.returncode == 0, done.stderr
    for (_, shown), printed in zip(blocks, json.loads(done.stdout), strict=True):
        assert [line.rstrip() for line in printed.rstrip().splitlines()] == shown.rstrip().splitlines()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_every_file_that_the_documentation_names_exists():
    assert importlib.util.find_spec("poise.cli.app")
    for name in re.findall(r"`((?:examples|benchmarks|docs)/[\w./-]*)`", TEXT):
        assert (ROOT / name).exists(), name
