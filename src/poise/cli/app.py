"""The command `poise` and its subcommands. It imports nothing but Typer, so that `--help` answers at once."""

from typing import Annotated

import typer

from poise._version import __version__
from poise.cli.compact_command import compact
from poise.cli.compare_command import compare
from poise.cli.errors import EXIT_CODES
from poise.cli.predict_command import predict
from poise.cli.show_command import show
from poise.cli.shrink_command import shrink
from poise.cli.study_command import study

SUMMARY = "Find out whether a regularization penalty helps a neural network, and use its zeros."

app = typer.Typer(
    help=SUMMARY,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (study, predict, show, compare, shrink, compact):
    app.command(epilog=EXIT_CODES)(command)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"poise {__version__}")
        raise typer.Exit


@app.callback(help=SUMMARY)
def poise(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Do nothing: `--version` is handled before."""
