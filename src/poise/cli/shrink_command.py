"""`poise shrink`: make a trained Keras model smaller while it keeps its accuracy."""

import json
from pathlib import Path
from typing import Annotated

import typer

from poise.cli.errors import plain_errors
from poise.cli.keras_import import import_keras
from poise.cli.options import Import


def shrink(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Compiled model that model.save wrote: MODEL.keras.", show_default=False),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Training rows: .npz (x, or one array per input, and y), or .csv, .tsv or .parquet with --target.",
            show_default=False,
        ),
    ],
    flops: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Budget: largest share of the FLOPs, such as 0.25.", show_default=False),
    ] = None,
    parameters: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Budget: largest share of the parameters.", show_default=False),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            metavar="DROP",
            help="Budget: largest drop in validation accuracy, such as 0.005. The model becomes as small as this "
            "allows.",
            show_default=False,
        ),
    ] = None,
    max_loss_increase: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Budget: largest relative increase of the validation loss, such as 0.05.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of a table that the model predicts.", show_default=False),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Validation rows, on which the model was not trained. By default, 20% of the training rows.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write.  [default: MODEL-small.keras]", metavar="FILE", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a report: FILE.html.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Rows per training step.")] = 32,
    epochs_per_stage: Annotated[
        int,
        typer.Option(metavar="N", help="Epochs of each stage: half of them before units are removed, and half after."),
    ] = 10,
    fine_tuning_epochs: Annotated[int, typer.Option(metavar="N", help="Epochs of each fine-tuning.")] = 20,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Learning rate at the start of each training. By default that of the model's optimizer.",
            show_default=False,
        ),
    ] = None,
    multiple: Annotated[
        int, typer.Option(metavar="N", help="Each layer keeps a multiple of N units, or all of its units.")
    ] = 8,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the trainings and of the choice of validation rows.")
    ] = 0,
    imports: Import = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the new file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the results, as JSON.")] = False,
) -> None:
    """Make a trained Keras model smaller.

    Keeps the accuracy of the model where it can. Removes units in stages: a growing penalty moves the least important
    units to zero while the others learn to replace them. Pass one budget. Prints accuracy against size, and writes a
    plain Keras model.

    \b
    Examples:
      poise shrink model.keras train.npz --flops 0.25
      poise shrink model.keras train.npz --max-accuracy-drop 0.005 --validation test.npz
      poise shrink model.keras train.csv --target price --parameters 0.5
    """
    small = out or model.parent / f"{model.stem}-small.keras"
    with plain_errors():
        import_keras()
        from poise.cli.custom_modules import import_modules
        from poise.cli.model_compaction import check_output, write_model
        from poise.cli.model_shrinking import as_record, check_report, describe_result, shrink_file, write_report
        from poise.cli.screen import console, say, say_data

        check_output(small, overwrite=force)
        check_report(report, overwrite=force)
        import_modules(imports)
        result = shrink_file(
            model,
            data,
            validation,
            target,
            budget={
                "flops": flops,
                "parameters": parameters,
                "max_accuracy_drop": max_accuracy_drop,
                "max_loss_increase": max_loss_increase,
            },
            batch_size=batch_size,
            epochs_per_stage=epochs_per_stage,
            fine_tuning_epochs=fine_tuning_epochs,
            learning_rate=learning_rate,
            multiple=multiple,
            seed=seed,
        )
        write_model(result.model, small)
        if report is not None:
            write_report(result, model, report)
        if as_json:
            say_data(json.dumps(as_record(result, model, small), indent=2, allow_nan=False) + "\n")
        elif quiet:
            say(small)
        else:
            console().print(*describe_result(result), sep="\n")
            say(f"Model: {small}")
            if report is not None:
                say(f"Report: {report}")
