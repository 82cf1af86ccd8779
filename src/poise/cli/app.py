"""The commands `poise` has: thin, without mathematics. They import what they need when they run."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from poise.cli.screen import (
    EXIT_CODES,
    BadInputError,
    complain,
    console,
    plain_errors,
    progress_bar,
    say,
    say_data,
)
from poise.cli.unfinished import Unfinished
from poise.escaping import visible

app = typer.Typer(
    help="Penalties in the optimizer, and what they do to a network.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Delimiter = Annotated[
    str | None, typer.Option(help="Between the fields of CSV, or tab; found if not given.", show_default=False)
]
Decimal = Annotated[
    str | None, typer.Option(help="Decimal mark of CSV: . or a comma; found if not given.", show_default=False)
]
Encoding = Annotated[
    str | None, typer.Option(help="Of CSV, such as utf-8 or cp1252; found if not given.", show_default=False)
]
Import = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="A module that registers layers of one's own; repeatable.",
        metavar="MODULE",
        show_default=False,
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a study.", show_default=False)]


def _print_version(wanted: bool) -> None:
    if wanted:
        from poise import __version__

        typer.echo(f"poise {__version__}")
        raise typer.Exit


@app.callback()
def poise(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Penalties in the optimizer, and what they do to a network."""


@app.command(epilog=EXIT_CODES)
def study(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A CSV, TSV, Parquet, Excel or NPZ file; - for CSV on standard input; or diabetes, breast_cancer, "
            "digits, wine.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="The column to predict; needed but for what has its own.", metavar="COLUMN", show_default=False
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="regression, binary, multiclass or counts; inferred if not given.", show_default=False),
    ] = None,
    penalty: Annotated[
        list[str] | None,
        typer.Option(
            help="l2, l1, group, adaptive, elasticnet, sparse_group, mcp or scad; repeatable, or a list with commas. "
            "Without a penalty is always trained too.  [default: l2,l1,group,adaptive]",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    choose: Annotated[
        str | None,
        typer.Option(help="The penalty to take, whatever the losses say.", metavar="NAME", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="One's own network: a function of the numbers of inputs and outputs that returns a Keras model.",
            metavar="MODULE:FUNCTION",
            show_default=False,
        ),
    ] = None,
    hidden_layer_sizes: Annotated[str, typer.Option(help="Units of the hidden layers; none is a linear model.")] = "64",
    groups: Annotated[
        str | None,
        typer.Option(help="A column whose rows of one value stay together.", metavar="COLUMN", show_default=False),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="A column by which nothing trains on the future.", metavar="COLUMN", show_default=False),
    ] = None,
    weight: Annotated[
        str | None, typer.Option(help="A column of sample weights.", metavar="COLUMN", show_default=False)
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; repeatable.", metavar="COLUMN", show_default=False)
    ] = None,
    cv: Annotated[int, typer.Option(help="Folds by which the strengths are judged.")] = 4,
    strengths: Annotated[int, typer.Option(help="Strengths a penalty.")] = 13,
    n_init: Annotated[int, typer.Option(help="Draws of initial weights.")] = 1,
    max_iter: Annotated[int, typer.Option(help="Full-batch steps a network.")] = 800,
    learning_rate: Annotated[float, typer.Option(help="Adam's rate at the start; it falls to 0.")] = 0.01,
    test: Annotated[float, typer.Option(help="Share of rows put aside for the last scores.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides test rows, folds and initial weights.")] = 0,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
    executor: Annotated[
        str, typer.Option(help="auto, local, process (a process of its own) or ray (the machines of a Ray cluster).")
    ] = "auto",
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster; this machine alone if not given, nor RAY_ADDRESS.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write.  [default: runs/NAME]", metavar="DIR", show_default=False)
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Write the training of the chosen network for TensorBoard.", metavar="DIR", show_default=False
        ),
    ] = None,
    mlflow: Annotated[
        bool,
        typer.Option("--mlflow", help="Log the run to MLflow: at MLFLOW_TRACKING_URI, or in mlflow.db in this folder."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a run that is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the report's path alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print study.json alone.")] = False,
) -> None:
    """Does a penalty help on a table, which, how strong, and what survives it?

    Trains the network without and with penalties over a path of strengths and folds, and writes a folder: a report,
    the network, and what predictions need. Ctrl-C keeps what is finished; the same command goes on from there.

    \b
    Examples:
      poise study diabetes
      poise study sales.csv --target revenue
      poise study sales.csv --target revenue --penalty l1,group --hidden-layer-sizes 64,32 --drop "order number"
      poise study visits.parquet --target visits --task counts --groups patient --out runs/visits
      poise study sales.csv --target revenue --tensorboard logs --mlflow
      poise study sales.csv --target revenue --executor ray --address ray://head:10001
      cat sales.csv | poise study - --target revenue --json
    """
    asked = {
        "task": task, "penalties": _names(penalty), "choose": choose, "model": model, "groups": groups,
        "time_column": time, "weight": weight, "drop": tuple(drop or ()), "cv": cv, "strengths": strengths,
        "n_init": n_init, "max_iter": max_iter, "learning_rate": learning_rate, "test": test, "seed": seed,
        "delimiter": delimiter, "decimal": decimal, "encoding": encoding,
    }  # fmt: skip
    folder = out or Path("runs") / ("stdin" if data == "-" else Path(data).stem)
    unfinished = Unfinished(folder, data, target, {**asked, "hidden_layer_sizes": hidden_layer_sizes})
    with plain_errors(unfinished.farewell):
        from poise import study as studies
        from poise.cli.modules import look_here
        from poise.study import tracking
        from poise.study.storage import RECORD

        asked["hidden_layer_sizes"] = _units(hidden_layer_sizes)
        asked["penalties"] = asked["penalties"] or studies.DEFAULTS
        studies.check_folder(folder, overwrite=force)
        if tensorboard is not None:
            tracking.check_tensorboard(tensorboard, overwrite=force)
        server = tracking.check_mlflow() if mlflow else None
        if model is not None:
            look_here()
        where = _executor(executor, address)
        with unfinished.claimed(), unfinished.continued():
            with progress_bar(quiet) as progress:
                found = studies.run_study(
                    data, target, **asked, executor=where, checkpoint=unfinished.folder, progress=progress
                )
            report = studies.save(found, folder, overwrite=force)
            unfinished.discard()
        if as_json:
            say_data((folder / RECORD).read_text(encoding="utf-8"))
        elif quiet:
            say(report)
        else:
            _print_run(folder)
            say(f"Report: {report}")
        for line in _tracked(found, folder, tensorboard, server, force):
            if not (as_json or quiet):
                say(line)


@app.command(epilog=EXIT_CODES)
def predict(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="New rows: a file as for study, or - for CSV on standard input.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A .csv or .parquet file to write instead of CSV on standard output.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    imports: Import = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
) -> None:
    """Predicts new rows with the network of a run: one row a row, in the same order.

    \b
    Examples:
      poise predict runs/sales new.csv
      poise predict runs/sales new.csv --out predictions.parquet
      poise predict runs/sales new.csv --import my_layers
    """
    with plain_errors():
        from poise import study as studies
        from poise.cli.modules import import_modules
        from poise.study.storage import check_output, write_predictions

        if out is not None:
            check_output(out, overwrite=force)
        import_modules(imports)
        loaded = studies.load_run(run)
        name, _, frame = studies.load(data, delimiter=delimiter, decimal=decimal, encoding=encoding)
        predictions = loaded.predict(frame, name)
        if out is None:
            say_data(predictions.to_csv(index=False, lineterminator="\n"))
        else:
            write_predictions(predictions, out)


@app.command(epilog=EXIT_CODES)
def show(run: RunFolder) -> None:
    """Prints the answer and the table of a run again.

    \b
    Example:
      poise show runs/diabetes
    """
    with plain_errors():
        _print_run(run)
        say(f"Report: {run / 'report.html'}")


@app.command(epilog=EXIT_CODES)
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of studies.", show_default=False)],
) -> None:
    """Prints runs beside each other, and warns where their losses do not compare.

    \b
    Example:
      poise compare runs/sales runs/sales-without-date
    """
    with plain_errors():
        from poise.study.report.console import compared_table, differences
        from poise.study.storage import read_description

        if len(runs) < 2:
            raise BadInputError("One run has nothing to compare with. Give two or more, or use poise show.")
        names, found = [str(run) for run in runs], [read_description(run) for run in runs]
        console().print(compared_table(names, found))
        for sentence in differences(names, found):
            complain(f"Warning: {sentence}", style="yellow")


@app.command(epilog=EXIT_CODES)
def compact(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A file that model.save wrote: MODEL.keras.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write.  [default: MODEL-compact.keras]", metavar="FILE", show_default=False),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Rows on which both models predict, to compare their outputs: .npy, .npz (an array an input), .csv or "
            ".parquet (a column a feature).",
            metavar="DATA",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Weights of at most this size count as zero.")] = 0.0,
    multiple: Annotated[
        int, typer.Option(help="Keep so many dead units that every layer makes a multiple of this.", min=1)
    ] = 1,
    drop_inputs: Annotated[
        bool,
        typer.Option("--drop-inputs", help="Remove features of the inputs that nobody reads, and say which stay."),
    ] = False,
    imports: Import = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the path of the new file alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON, alone.")] = False,
) -> None:
    """Makes a model smaller whose weights have zeros: the units that are dead go, and the outputs stay.

    Prints what died and why, and what that saves, and writes a plain Keras model.

    \b
    Examples:
      poise compact model.keras
      poise compact model.keras --check rows.npy --out small.keras
      poise compact model.keras --drop-inputs --check rows.csv --json
    """
    small = out or model.parent / f"{model.stem}-compact.keras"
    with plain_errors():
        from poise.cli import compact as compaction
        from poise.cli import printed
        from poise.cli.modules import import_modules

        compaction.check_output(small, overwrite=force)
        import_modules(imports)
        done = compaction.compacted(model, check, tolerance=tolerance, drop_inputs=drop_inputs, multiple=multiple)
        compaction.write(done.smaller, small)
        if as_json:
            say_data(json.dumps(printed.record(done, small), indent=2, allow_nan=False) + "\n")
        elif quiet:
            say(small)
        else:
            console().print(*printed.told(done), sep="\n")
            say(f"Model: {small}")


def _names(given: Sequence[str] | None) -> tuple[str, ...]:
    """--penalty, repeated or as a list with commas."""
    parts = [name.strip() for text in given or () for name in text.split(",")]
    return tuple(name for name in parts if name)


def _units(text: str) -> tuple[int, ...]:
    try:
        return () if text == "none" else tuple(int(units) for units in text.split(","))
    except ValueError:
        raise BadInputError(
            f"--hidden-layer-sizes {text!r} is not a list of numbers. Write it like 64,32, or none."
        ) from None


def _executor(name: str, address: str | None):
    """What --executor and --address ask for, as `poise.run_study` takes it."""
    if address is not None and name != "ray":
        raise BadInputError("--address is that of a Ray cluster. Add --executor ray, or leave it out.")
    if name != "ray":
        return name
    if importlib.util.find_spec("ray") is None:
        raise BadInputError('--executor ray needs Ray, which is not installed. Use `pip install "poise[ray]"`.')
    from poise import RayCluster

    return RayCluster(address)


def _tracked(found, folder: Path, tensorboard: Path | None, server: str | None, force: bool) -> Iterator[str]:
    """Hands the run, which is saved, on to TensorBoard and MLflow, and tells where it is to be seen."""
    from poise.study.tracking import to_mlflow, to_tensorboard

    if tensorboard is not None:
        to_tensorboard(found, tensorboard, overwrite=force)
        yield f"TensorBoard: tensorboard --logdir {tensorboard}"
    if server is not None:
        yield f"MLflow: run {to_mlflow(folder)} at {server}"


def _print_run(folder: Path) -> None:
    from poise.study.report.console import candidates_table, task_line
    from poise.study.storage import read_description

    found, screen = read_description(folder), console()
    answer = [Text(visible(sentence)) for sentence in found["answer"]]
    screen.print(Text(visible(task_line(found))), candidates_table(found), *answer, sep="\n")
    for note in found["data"]["notes"]:
        screen.print(Text(visible(f"Note: {note}")))
