"""The verdict card: the verdict in one sentence, three numbers, the answer, and what to know about the data."""

from typing import Any

from poise.study.findings import Findings
from poise.study.report.key_numbers import list_key_numbers
from poise.study.report.sections.base import Section
from poise.study.report.sentences import write_answer, write_headline


class AnswerSection(Section):
    """The headline with its numbers; then verdict, selected columns and certainty, each in one paragraph."""

    name, title, link = "answer", "Verdict", "Verdict"

    def context(self, study: Findings) -> dict[str, Any]:
        headline, (verdict, *others) = write_headline(study), write_answer(study)
        paragraphs = [verdict.removeprefix(headline).strip(), *others]
        return {
            "headline": headline,
            "numbers": list_key_numbers(study),
            "paragraphs": [paragraph for paragraph in paragraphs if paragraph],
            "notes": study.table.notes,
        }
