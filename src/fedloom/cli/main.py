"""The command `fedloom`: one file per subcommand, one place where errors become exit code 2."""

from __future__ import annotations

import io
import sys

import typer

from fedloom.cli import (
    audit,
    audit_privacy,
    check,
    compare,
    continue_run,
    control,
    dashboard,
    demo,
    diff,
    evaluate,
    explain,
    export,
    init,
    inspect,
    join,
    methods,
    plan,
    privacy,
    probe,
    promote,
    provision,
    report,
    resume,
    rollback,
    run,
    serve,
    status,
    track,
    versions,
)
from fedloom.errors import EXIT_CODE, FedLoomError

app = typer.Typer(
    name="fedloom",
    help="Fine-tune one language model across sites that cannot share their data and whose machines are unequal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    demo,
    init,
    inspect,
    check,
    run,
    resume,
    continue_run,
    evaluate,
    compare,
    report,
    export,
    explain,
    control,
    dashboard,
    rollback,
    diff,
    promote,
    versions,
    track,
    methods,
    plan,
    privacy,
    audit,
    audit_privacy,
    probe,
    provision,
    serve,
    join,
    status,
):
    app.command(name=command.NAME)(command.command)
for command in (provision, serve, join, status):
    app.command(name=command.NAME, rich_help_panel="Across machines")(command.command)


def main() -> None:
    """Run the command line. Errors that the user can act on: the message on stderr and exit code 2, no traceback."""
    _print_anything()
    try:
        app()
    except FedLoomError as error:
        print(f"fedloom: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        print("fedloom: interrupted; committed rounds are kept: fedloom resume RUN goes on", file=sys.stderr)
        sys.exit(130)


def _print_anything() -> None:
    """A character that the terminal cannot show becomes a question mark, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
