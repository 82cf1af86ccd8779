"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="Character between the fields of a CSV file, or tab. Detected by default.",
        show_default=False,
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar="MARK",
        help="Decimal mark of numbers in text: a point or a comma. Detected by default.",
        show_default=False,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Encoding of a CSV file, such as utf-8 or cp1252. Detected by default.", show_default=False
    ),
]
Import = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Module that registers custom layers, found in this folder or on PYTHONPATH. Repeatable.",
        metavar="MODULE",
        show_default=False,
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Keep compiled programs in the user's cache folder, or in POISE_CACHE_DIR, for the next command.",
    ),
]
StudyFolder = Annotated[
    Path, typer.Argument(metavar="STUDY", help="Folder that poise study wrote.", show_default=False)
]
FOLDER_HINT = "Give a folder that poise study wrote."
