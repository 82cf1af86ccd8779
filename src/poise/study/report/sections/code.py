"""A script that trains the chosen network again."""

from typing import Any

from poise.study.findings import Findings
from poise.study.report.script import write_script
from poise.study.report.sections.base import Section


class CodeSection(Section):
    """The script."""

    name, title, link = "code", "Train the chosen network in your own code", "Code"

    def context(self, study: Findings) -> dict[str, Any]:
        return {"best": study.best, "script": write_script(study)}
