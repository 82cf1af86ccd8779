"""The commands `poise` has: thin, without mathematics.

Keras chooses its backend when it is first imported. The commands run on JAX unless KERAS_BACKEND says otherwise, and
import what they need when they run.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

app = typer.Typer(
    help="Penalties in the optimizer, and what they do to a network.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
BAD_INPUT, INTERRUPTED = 2, 130


def main() -> None:
    """The console script `poise`."""
    if "KERAS_BACKEND" not in os.environ:
        os.environ["KERAS_BACKEND"] = "jax"
        if "keras" in sys.modules:  # imported with the package, before this choice: begin again with it made
            os.execv(sys.executable, [sys.executable, "-c", "from poise.cli import main; main()", *sys.argv[1:]])
    app(prog_name="poise")


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


@app.command()
def study(
    data: Annotated[str, typer.Argument(metavar="DATA", help="diabetes, breast_cancer, digits, wine, or a CSV file.")],
    target: Annotated[
        str | None, typer.Option(help="The column to predict.", metavar="COLUMN", show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="regression, binary or multiclass; inferred if not given.", show_default=False),
    ] = None,
    penalty: Annotated[
        list[str] | None,
        typer.Option(
            help="l2, l1, elasticnet or group, alone or with a strength; repeatable. Without a penalty is always "
            "trained too.  [default: l2, l1]",
            metavar="NAME[=STRENGTH]",
            show_default=False,
        ),
    ] = None,
    hidden: Annotated[str, typer.Option(help="Units of the hidden layers; none is a linear model.")] = "64",
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Adam's rate at the start; it falls to 0.")] = 0.005,
    validation: Annotated[float, typer.Option(help="Share of rows put aside for validation.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Decides split, initial weights and batches.")] = 0,
    drop: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; repeatable.", metavar="COLUMN", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write.  [default: runs/NAME]", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a run that is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the report's path alone.")] = False,
) -> None:
    """Does a penalty help on a table? Trains one network without and with penalties and writes a report.

    \b
    Examples:
      poise study diabetes
      poise study sales.csv --target revenue
      poise study sales.csv --target revenue --penalty l2=0.1 --penalty l1=0.02 --hidden 64,32
    """
    with _plain_errors():
        from poise import studies

        folder = out or Path("runs") / Path(data).stem
        studies.check_folder(folder, overwrite=force)
        with _progress(quiet) as progress:
            result = studies.study(
                data,
                target,
                task=task,
                recipes=penalty or studies.DEFAULT_RECIPES,
                hidden=_units(hidden),
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                validation=validation,
                seed=seed,
                drop=drop or (),
                progress=progress,
            )
        path = result.save(folder, overwrite=force)
        if not quiet:
            Console().print(result, *map(Text, studies.answer(result)), sep="\n")
            typer.echo("Report: ", nl=False)
        typer.echo(str(path))


def _units(text: str) -> tuple[int, ...]:
    try:
        return () if text == "none" else tuple(int(units) for units in text.split(","))
    except ValueError:
        from poise.studies import DataError

        raise DataError(f"--hidden {text!r} is not a list of numbers. Write it like 64,32, or none.") from None


@contextmanager
def _progress(quiet: bool) -> Iterator:
    """A line for each recipe on the terminal's error stream; None when it shall be quiet."""
    if quiet:
        yield None
        return
    console, name = Console(stderr=True), TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        lines = {}

        def advance(recipe: str, done: int, epochs: int) -> None:
            if recipe not in lines:
                lines[recipe] = bars.add_task(recipe, total=epochs)
            bars.update(lines[recipe], completed=done)

        yield advance


@contextmanager
def _plain_errors() -> Iterator[None]:
    """One sentence instead of a traceback, for what a user can mend."""
    try:
        yield
    except KeyboardInterrupt:
        _complain("Stopped before the end; nothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        _complain(str(error))
        raise typer.Exit(BAD_INPUT) from None
    except ValueError as error:
        from poise.studies import DataError

        if not isinstance(error, DataError):
            raise
        _complain(str(error))
        raise typer.Exit(BAD_INPUT) from None


def _complain(sentence: str) -> None:
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)
