"""`poise show`: print a saved study again."""

from poise.cli.errors import plain_errors
from poise.cli.options import FOLDER_HINT, StudyFolder


def show(folder: StudyFolder) -> None:
    """Print a saved study again.

    Prints the task, the comparison of the networks, and the answer, as poise study did.

    \b
    Examples:
      poise show runs/diabetes
    """
    with plain_errors({"folder": FOLDER_HINT}):
        from poise.cli.screen import console, say
        from poise.cli.study_output import print_study
        from poise.study.description_file import REPORT, read_description

        print_study(read_description(folder), console())
        say(f"Report: {folder / REPORT}")
