"""How a command ends when it cannot go on: one line, and a status that says why."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from attrib.errors import AttribError

__all__ = ["Commands", "end"]

REFUSED = 2
"""What was asked for cannot be done."""
INTERRUPTED = 130
"""As a shell says it of a command that Ctrl-C ended."""


class Commands(TyperGroup):
    """The subcommands of `attrib`, which Ctrl-C ends without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(
                "attrib: stopped. Every file that is there is whole; what keeps its work in a "
                "folder goes on when the command is repeated",
                file=sys.stderr,
            )
            raise typer.Exit(INTERRUPTED) from None


def end(error: AttribError | OSError) -> NoReturn:
    """End the process with one line about what is wrong."""
    told = str(error)
    if error.__class__ is OSError and error.filename is None:  # files have names, pipes none
        told = f"cannot write the output: {error.strerror or error}"
    print(f"attrib: {told}", file=sys.stderr)
    sys.exit(REFUSED)
