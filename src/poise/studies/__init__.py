"""From a table to a report: does a penalty help on these data?"""

from poise.studies.data import DataError, Split, Table, read, split
from poise.studies.report import answer, check_folder
from poise.studies.run import DEFAULT_RECIPES, Outcome, Recipe, Settings, Study, study

__all__ = [
    "DEFAULT_RECIPES",
    "DataError",
    "Outcome",
    "Recipe",
    "Settings",
    "Split",
    "Study",
    "Table",
    "answer",
    "check_folder",
    "read",
    "split",
    "study",
]
