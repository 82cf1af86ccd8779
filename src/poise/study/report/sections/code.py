"""A script that trains the saved network again."""

from typing import Any

from poise.study.findings import Findings
from poise.study.report.script import write_script
from poise.study.report.sections.base import Section


class CodeSection(Section):
    """The script."""

    name, title, link = "code", "Train the saved network in your own code", "Code"

    def context(self, study: Findings) -> dict[str, Any]:
        return {"saved": study.saved, "script": write_script(study)}
