"""`poise predict`: predict new rows with the network of a saved study."""

from pathlib import Path
from typing import Annotated

import typer

from poise.cli.errors import plain_errors
from poise.cli.keras_import import import_keras
from poise.cli.options import (
    FOLDER_HINT,
    Cache,
    Comment,
    Decimal,
    Delimiter,
    Import,
    Sheet,
    SkipRows,
    StudyFolder,
    TextEncoding,
)

HINTS = {"folder": FOLDER_HINT, "imports": "Pass --import MODULE to import a module.", "out": "Change --out."}


def predict(
    folder: StudyFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="New rows: a file as for poise study, or - for CSV on standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write a .csv or .parquet file instead of CSV on standard output.", metavar="FILE", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    imports: Import = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    text_encoding: TextEncoding = None,
    sheet: Sheet = None,
    skip_rows: SkipRows = None,
    comment: Comment = None,
    cache: Cache = True,
) -> None:
    """Predict new rows with a saved study.

    Writes one row of predictions per row, in the same order. --sheet, --skip-rows and --comment are as in the study
    unless they are given.

    \b
    Examples:
      poise predict runs/sales new.csv
      poise predict runs/sales new.csv --out predictions.parquet
      poise predict runs/sales new.csv --import my_layers
    """
    with plain_errors(HINTS):
        import_keras(needs_skops=True, caches_programs=cache)
        from poise.cli.custom_modules import import_modules
        from poise.cli.screen import say_data
        from poise.study.prediction_files import check_output, write_predictions
        from poise.study.result import Study

        if out is not None:
            check_output(out, overwrite=force)
        import_modules(imports)
        predictions = Study.load(folder).predict(
            data, delimiter=delimiter, decimal=decimal, text_encoding=text_encoding, sheet=sheet, skip_rows=skip_rows,
            comment=comment,
        )  # fmt: skip
        if out is None:
            say_data(predictions.to_csv(index=False, lineterminator="\n"))
        else:
            write_predictions(predictions, out)
