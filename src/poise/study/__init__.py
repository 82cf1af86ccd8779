"""From a table to a report: does a penalty help on these data, which, how strong, and what survives it?"""

from poise.study.candidates.candidates import DEFAULTS, KINDS
from poise.study.columns.columns import Column
from poise.study.report.sentences import answer
from poise.study.result import Candidate, Settings, Study
from poise.study.run import run_study
from poise.study.sources import DataError, load
from poise.study.storage import Run, check_folder, load_run, save
from poise.study.tables import Table, read

__all__ = [
    "DEFAULTS",
    "KINDS",
    "Candidate",
    "Column",
    "DataError",
    "Run",
    "Settings",
    "Study",
    "Table",
    "answer",
    "check_folder",
    "load",
    "load_run",
    "read",
    "run_study",
    "save",
]
