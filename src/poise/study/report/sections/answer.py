"""The answer in sentences, and what to know about the data."""

from typing import Any

from poise.study.findings import Findings
from poise.study.report.sections.base import Section
from poise.study.report.sentences import write_answer


class AnswerSection(Section):
    """Verdict, selected columns and certainty, each in one paragraph."""

    name, title, link = "answer", "Answer", "Answer"

    def context(self, study: Findings) -> dict[str, Any]:
        return {"answer": write_answer(study), "notes": study.table.notes}
