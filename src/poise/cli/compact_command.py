"""`poise compact`: remove the dead units of a saved Keras model."""

import json
from pathlib import Path
from typing import Annotated

import typer

from poise.cli.errors import plain_errors
from poise.cli.keras_import import import_keras
from poise.cli.options import Import


def compact(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="File that model.save wrote: MODEL.keras.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write.  [default: MODEL-compact.keras]", metavar="FILE", show_default=False),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Rows on which to compare the outputs of both models: .npy, .npz (one array per input), .csv or "
            ".parquet (one column per feature).",
            metavar="DATA",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="VALUE", help="Largest absolute value of a weight that counts as zero.")
    ] = 0.0,
    multiple: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Keep some dead units where needed, so that each layer has a multiple of N units, or all of its "
            "units.",
            min=1,
        ),
    ] = 1,
    drop_inputs: Annotated[
        bool,
        typer.Option(
            "--drop-inputs",
            help="Also remove input features that the model does not use, and list the features that are kept.",
        ),
    ] = False,
    imports: Import = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the new file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the results, as JSON.")] = False,
) -> None:
    """Remove the dead units of a Keras model.

    The outputs of the model stay the same. A unit is dead if zeros in the weights make its output constant or unused.
    Prints the dead units of each layer with the reason, and how much smaller the model is, and writes a plain Keras
    model.

    \b
    Examples:
      poise compact model.keras
      poise compact model.keras --check rows.npy --out small.keras
      poise compact model.keras --drop-inputs --check rows.csv --json
    """
    small = out or model.parent / f"{model.stem}-compact.keras"
    with plain_errors():
        import_keras()
        from poise.cli.compaction_output import as_record, describe_compaction
        from poise.cli.custom_modules import import_modules
        from poise.cli.model_compaction import check_output, compact_file, write_model
        from poise.cli.screen import console, say, say_data

        check_output(small, overwrite=force)
        import_modules(imports)
        result = compact_file(model, check, tolerance=tolerance, drop_inputs=drop_inputs, multiple=multiple)
        write_model(result.smaller, small)
        if as_json:
            say_data(json.dumps(as_record(result, small), indent=2, allow_nan=False) + "\n")
        elif quiet:
            say(small)
        else:
            console().print(*describe_compaction(result), sep="\n")
            say(f"Model: {small}")
