"""fedloom control: pause, continue or stop a run in progress; shut a client out, let it in again, change its budget."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from fedloom.cli.console import Run, console
from fedloom.rounds.budgets import Budget
from fedloom.spec.quantities import Duration, Size
from fedloom.store.requests import Request

NAME = "control"
NONE = "none"  # of a limit: the client has none of its own any more


class Action(StrEnum):
    """What this command asks for."""

    PAUSE = "pause"
    CONTINUE = "continue"
    STOP = "stop"
    EXCLUDE = "exclude"
    READMIT = "readmit"
    BUDGET = "budget"


def _limit(what: str, example: str) -> Any:
    return typer.Option(help=f'Of budget: the most {what}, such as "{example}"; {NONE}: as in [planning]')


def command(
    run: Run,
    action: Annotated[Action, typer.Argument(help="pause, continue, stop; exclude, readmit, budget of a CLIENT")],
    client: Annotated[str | None, typer.Argument(help="Of exclude, readmit and budget", metavar="[CLIENT]")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the journal; needed to exclude")] = None,
    memory: Annotated[str | None, _limit("that it may use", "3 GB")] = None,
    deadline: Annotated[str | None, _limit("of a round", "5 min")] = None,
    upload: Annotated[str | None, _limit("that it sends in a round", "20 MB")] = None,
    download: Annotated[str | None, _limit("of the factors that it is sent in a round", "50 MB")] = None,
) -> None:
    """Ask something of a run; one in progress does it before the next round begins."""
    from fedloom.engine.control import ask

    if client is not None and action not in (Action.EXCLUDE, Action.READMIT, Action.BUDGET):
        raise typer.BadParameter(f"{action} is not about a client", param_hint="CLIENT")
    limits = _limits({"memory": memory, "deadline": deadline, "upload": upload, "download": download})
    if limits and action is not Action.BUDGET:
        raise typer.BadParameter(f"{action} changes no limit", param_hint=f"--{next(iter(limits))}")
    request = Request(new_id(), action.value, client=client, reason=reason, limits=limits or None)
    console.print(_said(action.value, client, ask(run, request)), soft_wrap=True)


def _limits(written: Mapping[str, str | None]) -> Budget:
    """Those that were given, in bytes and seconds; "none" is None."""
    return {
        name: None if text.lower() == NONE else _amount(name, text)
        for name, text in written.items()
        if text is not None
    }


def _amount(name: str, text: str) -> float:
    """Raises: typer.BadParameter for what is no size or duration."""
    try:
        return TypeAdapter[float](Duration if name == "deadline" else Size).validate_python(text)
    except ValidationError as error:
        expected = error.errors(include_url=False)[0]["msg"]
        raise typer.BadParameter(f"expected {expected}, or {NONE}; found {text!r}", param_hint=f"--{name}") from error


def new_id() -> str:
    """Of one call of a command."""
    return f"cli-{secrets.token_hex(8)}"


def _said(action: str, client: str | None, done: bool) -> str:
    what = action if client is None else f"{action} {client}"
    if done:
        return f"Done: {what}; the run's journal has it"
    return f"Asked: {what}; the run does it when the round that it is in is committed"
