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
TextEncoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Encoding of a CSV file, such as utf-8 or cp1252. Detected by default.", show_default=False
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(metavar="SHEET", help="Sheet of an Excel file: its name, or its number, from 1.", show_default=False),
]
SkipRows = Annotated[
    int | None,
    typer.Option(metavar="N", help="Lines above the column names of a CSV or Excel file.", show_default=False),
]
Comment = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="Character that starts a comment in a CSV file; the rest of the line is ignored.",
        show_default=False,
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
