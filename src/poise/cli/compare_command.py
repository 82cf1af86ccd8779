"""`poise compare`: print saved studies next to each other."""

from pathlib import Path
from typing import Annotated

import typer

from poise.cli.errors import BadInputError, plain_errors
from poise.cli.options import FOLDER_HINT


def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="STUDY", help="Two or more folders that poise study wrote.", show_default=False),
    ],
) -> None:
    """Print saved studies next to each other.

    Warns if their losses are not comparable.

    \b
    Examples:
      poise compare runs/sales runs/sales-without-date
    """
    with plain_errors({"folder": FOLDER_HINT}):
        from poise.cli.screen import complain, console
        from poise.cli.study_output import find_differences, print_comparison
        from poise.study.description_file import read_description

        if len(folders) < 2:
            raise BadInputError("compare needs two or more studies, got 1. Use poise show to print one study.")
        names, studies = [str(folder) for folder in folders], [read_description(folder) for folder in folders]
        print_comparison(names, studies, console())
        for sentence in find_differences(names, studies):
            complain(f"Warning: {sentence}", style="yellow")
