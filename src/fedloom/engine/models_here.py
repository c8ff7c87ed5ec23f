"""The clients' own models, as far as they are on this machine."""

from __future__ import annotations

from fedloom.aggregation.world import Start
from fedloom.engine.keeping import own_model
from fedloom.engine.loop import Loop
from fedloom.rounds.state import RunState


def models_here(loop: Loop, state: RunState) -> dict[str, Start]:
    """client -> its own model, of those that took part; the journal says whose is not on this machine."""
    if not loop.method.personal:
        return {}
    took_part = [client for client in loop.clients if client in state.last_rounds]
    away = [client for client in took_part if not (loop.directory.clients / client).is_dir()]
    for client in away:
        reason = "what the client keeps is at its site, and never leaves it. Run there: fedloom export KIT"
        loop.journal("left_out", what=f"model of {client}", reason=reason)
    return {client: own_of(loop, state, client) for client in took_part if client not in away}


def own_of(loop: Loop, state: RunState, client: str) -> Start:
    """The model of one client, as `own_model`."""
    return own_model(loop.method, loop.world, state, client, loop.directory.clients)
