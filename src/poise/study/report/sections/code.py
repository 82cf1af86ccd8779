"""A script that trains the saved network again."""

from functools import partial
from typing import Any

from poise.study.findings import Findings
from poise.study.report.script import write_script
from poise.study.report.sections.base import Section


class CodeSection(Section):
    """The script."""

    name, title, link = "code", "Train the saved network in your own code", "Code"
    is_detail = True

    def context(self, study: Findings) -> dict[str, Any]:
        return {"saved": study.saved, "write_script": partial(write_script, study)}
