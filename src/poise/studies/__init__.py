"""From a table to a report: does a penalty help on these data, which, how strong, and what survives it?"""

from poise.studies.answer import answer
from poise.studies.candidates import DEFAULTS, KINDS
from poise.studies.columns import Column
from poise.studies.result import Candidate, Settings, Study
from poise.studies.run import study
from poise.studies.sources import DataError, load
from poise.studies.storage import Run, check_folder, load_run, save
from poise.studies.tables import Table, read

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
    "save",
    "study",
]
