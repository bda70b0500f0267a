"""The `attrib` command: one file per subcommand."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from attrib.cli import app as web
from attrib.cli import compare, demo, evaluate, explain, export, fit, listing, seeds
from attrib.cli.ending import Commands, end
from attrib.cli.memory import keep_freed_memory
from attrib.errors import AttribError

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    help="Tells where a pretrained image classifier looked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("explain")(explain.run)
app.command("compare")(compare.run)
app.command("export")(export.run)
app.command("seeds")(seeds.run)
app.command("demo")(demo.run)
app.command("app")(web.run)
app.command("methods")(listing.methods)
app.command("models")(listing.models)
evaluate.app.command("faithfulness")(compare.faithfulness)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(fit.app, name="fit")


def _version(wanted: bool) -> bool:
    if wanted:
        import attrib

        typer.echo(f"attrib {attrib.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command.

    What attrib refuses and what cannot be read or written become one line on stderr and exit
    status 2, Ctrl-C becomes 130.
    """
    warnings.showwarning = _show_warning
    keep_freed_memory()
    try:
        app()
    except (AttribError, OSError) as error:
        end(error)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"attrib: warning: {message}", file=sys.stderr)
