"""The clients' own models, as far as they are on this machine."""

from __future__ import annotations

from fedloom.aggregation.world import Start
from fedloom.engine.keeping import own_model
from fedloom.engine.loop import Loop
from fedloom.errors import RunError
from fedloom.rounds.state import RunState

AT_ITS_SITE = "what the client keeps is at its site, and never leaves it. Run there: fedloom export KIT"


def models_here(loop: Loop, state: RunState) -> dict[str, Start]:
    """client -> its own model, of those that took part; the journal says, once, whose cannot be made here, and why."""
    if not loop.method.personal:
        return {}
    found: dict[str, Start] = {}
    for client in (client for client in loop.clients if client in state.last_rounds):
        try:
            found[client] = own_of(loop, state, client)
        except RunError as error:
            away = not (loop.directory.clients / client).is_dir()
            _leave_out(loop, client, AT_ITS_SITE if away else str(error))
    return found


def _leave_out(loop: Loop, client: str, reason: str) -> None:
    what = f"model of {client}"
    if not any(record["kind"] == "left_out" and record["what"] == what for record in loop.records()):
        loop.journal("left_out", what=what, reason=reason)


def own_of(loop: Loop, state: RunState, client: str) -> Start:
    """The model of one client, as `own_model`."""
    return own_model(loop.method, loop.world, state, client, loop.directory.clients)
