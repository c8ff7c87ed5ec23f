"""fedloom control: pause, continue or stop a run in progress; shut a client out, or let it in again."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Annotated

import typer

from fedloom.cli.console import Run, console
from fedloom.store.requests import Request

NAME = "control"


class Action(StrEnum):
    """What this command asks for."""

    PAUSE = "pause"
    CONTINUE = "continue"
    STOP = "stop"
    EXCLUDE = "exclude"
    READMIT = "readmit"


def command(
    run: Run,
    action: Annotated[Action, typer.Argument(help="pause, continue, stop; exclude CLIENT, readmit CLIENT")],
    client: Annotated[str | None, typer.Argument(help="Of exclude and readmit", metavar="[CLIENT]")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the journal; needed to exclude")] = None,
) -> None:
    """Ask something of a run; one in progress does it before the next round begins."""
    from fedloom.engine.control import ask

    if client is not None and action not in (Action.EXCLUDE, Action.READMIT):
        raise typer.BadParameter(f"{action} is not about a client", param_hint="CLIENT")
    request = Request(new_id(), action.value, client=client, reason=reason)
    console.print(_said(action.value, client, ask(run, request)), soft_wrap=True)


def new_id() -> str:
    """Of one call of a command."""
    return f"cli-{secrets.token_hex(8)}"


def _said(action: str, client: str | None, done: bool) -> str:
    what = action if client is None else f"{action} {client}"
    if done:
        return f"Done: {what}; the run's journal has it"
    return f"Asked: {what}; the run does it when the round that it is in is committed"
