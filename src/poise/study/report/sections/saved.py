"""What was saved, and how to use it."""

from functools import partial
from typing import Any

from poise.study.findings import Findings
from poise.study.report.script import write_loading_script
from poise.study.report.sections.base import Section


class SavedSection(Section):
    """The files of the study, and code that loads it and predicts."""

    name, title, link = "saved", "Use the saved network", "Use it"

    def context(self, study: Findings) -> dict[str, Any]:
        needed = study.needed_columns
        return {
            "saved": study.saved,
            "is_selection": study.saved.name == "selection",
            "trained": study.saved.model.count_params(),
            "kept": study.compact_model.count_params(),
            "needed": needed,
            "total": len(study.encoder.columns),
            "inputs": len(study.inputs),
            "needs_poise": study.settings.model is None and callable(study.table.task.make_activation()),
            "write_script": partial(write_loading_script, study),
        }
