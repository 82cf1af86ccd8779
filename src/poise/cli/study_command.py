"""`poise study`: from a table to an answer, a network and a report."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.errors import BadInputError, plain_errors
from poise.cli.keras_import import import_keras
from poise.cli.option_values import split_class_weight, split_names, split_quantiles, split_types, split_units
from poise.cli.options import Cache, Comment, Decimal, Delimiter, Sheet, SkipRows, TextEncoding
from poise.cli.unfinished import UnfinishedStudy

if TYPE_CHECKING:
    from poise import RayCluster, Study

HINTS = {"folder": "Change --out.", "uri": "Or leave out --mlflow."}


def study(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="CSV, TSV, Parquet, Excel or NPZ file; - for CSV on standard input; or a built-in table: diabetes, "
            "breast_cancer, digits, wine.",
            show_default=False,
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to predict. Built-in tables have a default. Repeatable: one network then predicts several "
            "columns of numbers.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="regression, binary, multiclass, counts, gamma (positive numbers), tweedie (numbers >= 0, many of "
            "them zero), quantile, multioutput (several targets) or survival. By default, one of the first four is "
            "inferred from the target.",
            metavar="TASK",
            show_default=False,
        ),
    ] = None,
    time_to_event: Annotated[
        str | None,
        typer.Option(
            help="For the task survival, instead of --target: column of times, at which a row had its event or was "
            "censored.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option(
            help="For the task survival: column that is 1 or true for an event, and 0 or false for a censored row.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    penalty: Annotated[
        list[str] | None,
        typer.Option(
            help="Penalties to compare: l2, l1, group, adaptive, elasticnet, sparse_group, mcp, scad; and dropout. "
            "Repeatable, or separated by commas. A network without a penalty is always trained too.  "
            "[default: l2,l1,group,adaptive,dropout]",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            help="Choose this penalty, or dropout, regardless of the held-out losses. Pass none to choose no penalty.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Custom network: a function that takes the number of inputs and the number of outputs, and returns a "
            "built Keras model.",
            metavar="MODULE:FUNCTION",
            show_default=False,
        ),
    ] = None,
    hidden_layer_sizes: Annotated[
        str, typer.Option(help="Units of each hidden layer, such as 64,32; none for a linear model.", metavar="UNITS")
    ] = "64",
    groups: Annotated[
        str | None,
        typer.Option(
            help="Column of group labels. Rows with the same label are all test rows or all training rows, and stay in "
            "the same fold.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Column that orders the rows. Folds train on earlier rows only, and the test rows are the latest.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(
            help="Column of sample weights. Rows of weight 0 are left out.", metavar="COLUMN", show_default=False
        ),
    ] = None,
    offset: Annotated[
        str | None,
        typer.Option(
            help="Column to add to the linear predictor, such as the logarithm of an exposure. For the tasks "
            "regression, counts, gamma and tweedie. Predictions need it too.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    exposure: Annotated[
        str | None,
        typer.Option(
            help="Column of positive numbers to which the mean is proportional, such as the time at risk. For counts, "
            "gamma and tweedie. Predictions need it too.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    class_weight: Annotated[
        list[str] | None,
        typer.Option(
            help="Weight of a class in the loss and the accuracy, such as yes=5; other classes have weight 1. "
            "Repeatable. Or balanced, for weights that are inversely proportional to the number of training rows of a "
            "class.",
            metavar="CLASS=WEIGHT",
            show_default=False,
        ),
    ] = None,
    tweedie_power: Annotated[
        float,
        typer.Option(help="For the task tweedie: power of the variance function, between 1 and 2.", metavar="POWER"),
    ] = 1.5,
    quantiles: Annotated[
        str,
        typer.Option(help="For the task quantile: the quantiles to predict, ascending.", metavar="NUMBERS"),
    ] = "0.1,0.5,0.9",
    drop: Annotated[
        list[str] | None, typer.Option(help="Column to leave out. Repeatable.", metavar="COLUMN", show_default=False)
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to keep even if it looks like free text, an identifier, or a row number. Repeatable.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="How to read a column: categorical, numeric, date, text, or drop. Repeatable. Detected by default.",
            metavar="COLUMN=TYPE",
            show_default=False,
        ),
    ] = None,
    cv: Annotated[int, typer.Option(help="Number of cross-validation folds.", metavar="N")] = 4,
    strengths: Annotated[
        int, typer.Option(help="Number of strengths per penalty; half as many rates of dropout.", metavar="N")
    ] = 13,
    n_init: Annotated[int, typer.Option(help="Number of random initializations per fold.", metavar="N")] = 1,
    max_iter: Annotated[
        int,
        typer.Option(
            help="Full-batch training steps per network. With more than 8,192 rows, a step uses the next 4,096 rows.",
            metavar="N",
        ),
    ] = 800,
    learning_rate: Annotated[
        float, typer.Option(help="Adam's learning rate at the start; it decays to 0 along a cosine.", metavar="RATE")
    ] = 0.01,
    test: Annotated[
        float, typer.Option(help="Share of test rows, used only for the final scores.", metavar="SHARE")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of test rows, folds and initial weights.", metavar="N")] = 0,
    sparse: Annotated[
        bool,
        typer.Option(
            "--sparse",
            help="Save the network of the selected columns instead of the chosen one. Predictions then need only these "
            "columns.",
        ),
    ] = False,
    encoding: Annotated[
        str,
        typer.Option(
            help="How columns of numbers enter the networks: standard, piecewise (with a curve for each column), or "
            "auto (penalties that drop columns and the baseline try both, and the held-out loss chooses).",
            metavar="NAME",
        ),
    ] = "auto",
    selection: Annotated[
        str,
        typer.Option(
            help="How columns are selected: default, or stable (stricter: the strength is increased until at least 80% "
            "of the training runs keep each selected column).",
            metavar="NAME",
        ),
    ] = "default",
    max_false: Annotated[
        float | None,
        typer.Option(
            help="Also run stability selection, with the expected number of false columns at most N, such as 1.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    text_encoding: TextEncoding = None,
    sheet: Sheet = None,
    skip_rows: SkipRows = None,
    comment: Comment = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that stands for a missing value, such as -999, besides the usual ones such as NA. Repeatable. "
            'Pass only "" to turn the usual ones off.',
            metavar="TEXT",
            show_default=False,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="Where to train: auto, in_process, subprocess, or ray (a Ray cluster).",
            metavar="NAME",
        ),
    ] = "auto",
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster. By default RAY_ADDRESS, or else only this machine.",
            metavar="ADDRESS",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.  [default: runs/NAME]", metavar="DIR", show_default=False)
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Also write the training curves for TensorBoard to this folder.", metavar="DIR", show_default=False
        ),
    ] = None,
    mlflow: Annotated[
        bool,
        typer.Option("--mlflow", help="Also log the study to MLflow, at MLFLOW_TRACKING_URI or in ./mlflow.db."),
    ] = False,
    cache: Cache = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing study.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the report.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the content of study.json.")] = False,
) -> None:
    """Find out whether a penalty helps on a table.

    Trains the same network without a penalty and with each penalty, at many strengths, with cross-validation. Reports
    which penalty to use, how strong it should be, and which columns it selects. Writes a folder with a report, the
    chosen network, and everything that predictions need. Ctrl-C keeps finished work; the same command continues from
    it.

    \b
    Examples:
      poise study diabetes
      poise study sales.csv --target revenue
      poise study sales.csv --target revenue --penalty l1,group --drop order_id
      poise study sales.csv --target revenue --sparse
      poise study sales.csv --target revenue --hidden-layer-sizes 64,32
      poise study energy.csv --target heating --target cooling
      poise study visits.parquet --target visits --task counts --groups patient
      poise study patients.csv --task survival --time-to-event months --event died
      poise study claims.csv --target claims --task counts --exposure years
      poise study sales.xlsx --sheet 2024 --target revenue --type zip=categorical
      poise study sales.csv --target revenue --tensorboard logs --mlflow
      poise study sales.csv --target revenue --executor ray
      cat sales.csv | poise study - --target revenue --json
    """
    arguments = {
        "task": task, "time_to_event": time_to_event, "event": event,
        "penalties": split_names(penalty), "choose": choose, "model": model, "groups": groups,
        "time_column": time, "weight": weight, "offset": offset, "exposure": exposure, "class_weight": class_weight,
        "tweedie_power": tweedie_power, "quantiles": quantiles, "drop": tuple(drop or ()), "keep": tuple(keep or ()),
        "types": types, "cv": cv,
        "strengths": strengths,
        "n_init": n_init, "max_iter": max_iter, "learning_rate": learning_rate, "test": test, "seed": seed,
        "delimiter": delimiter, "decimal": decimal, "text_encoding": text_encoding, "sheet": sheet,
        "skip_rows": skip_rows, "comment": comment,
        "missing": None if missing is None else tuple(text for text in missing if text),
        "hidden_layer_sizes": hidden_layer_sizes, "sparse": sparse, "encoding": encoding, "selection": selection,
        "max_false": max_false,
    }  # fmt: skip
    folder = out or Path("runs") / ("stdin" if data == "-" else Path(data).stem)
    unfinished = UnfinishedStudy(folder, data, target, arguments)
    with plain_errors(HINTS, unfinished.farewell):
        import_keras(needs_skops=True, caches_programs=cache)
        from poise.cli.custom_modules import add_working_directory
        from poise.cli.screen import console, progress_bar, say, say_data
        from poise.cli.study_output import print_study
        from poise.study import run, tracking
        from poise.study.candidates.penalties import DEFAULT_PENALTIES
        from poise.study.description_file import RECORD
        from poise.study.storage import check_folder

        arguments["types"] = split_types(types)
        arguments["quantiles"] = split_quantiles(quantiles)
        arguments["class_weight"] = split_class_weight(class_weight)
        arguments["hidden_layer_sizes"] = split_units(hidden_layer_sizes)
        arguments["penalties"] = arguments["penalties"] or DEFAULT_PENALTIES
        check_folder(folder, overwrite=force)
        if tensorboard is not None:
            tracking.check_tensorboard(tensorboard, overwrite=force)
        server = tracking.check_mlflow() if mlflow else None
        if model is not None:
            add_working_directory()
        trainer = _make_executor(executor, address)
        with unfinished.claim(), unfinished.explain_how_to_continue():
            with progress_bar(quiet) as progress:
                result = run.run_study(
                    data, target or None, **arguments, executor=trainer, checkpoint=unfinished.folder, progress=progress
                )
            report = result.save(folder, overwrite=force)
            unfinished.discard()
        if as_json:
            say_data((folder / RECORD).read_text(encoding="utf-8"))
        elif quiet:
            say(report)
        else:
            print_study(result.description, console())
            say(f"Report: {report}")
        for line in _track(result, folder, tensorboard, server, force):
            if not (as_json or quiet):
                say(line)


def _make_executor(name: str, address: str | None) -> "str | RayCluster":
    """Return what --executor and --address describe, as `poise.run_study` takes it."""
    if address is not None and name != "ray":
        raise BadInputError(
            f"--address works only with --executor ray, got --executor {name}. Pass --executor ray, or remove "
            "--address."
        )
    if name != "ray":
        return name
    if importlib.util.find_spec("ray") is None:
        raise BadInputError('--executor ray needs Ray, which is not installed. Run `pip install "poise[ray]"`.')
    from poise import RayCluster

    return RayCluster(address)


def _track(result: "Study", folder: Path, tensorboard: Path | None, server: str | None, force: bool) -> Iterator[str]:
    """Send a saved study to TensorBoard and MLflow, and yield where to see it."""
    from poise.study.tracking import to_mlflow, to_tensorboard

    if tensorboard is not None:
        to_tensorboard(result, tensorboard, overwrite=force)
        yield f"TensorBoard: tensorboard --logdir {tensorboard}"
    if server is not None:
        yield f"MLflow: run {to_mlflow(folder)} at {server}"
