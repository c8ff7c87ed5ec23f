"""The state of a run to and from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedloom.rounds.state import RunState
from fedloom.store.run_directory import RunDirectory

_LAST_ROUNDS = "last_rounds"


def save_state(directory: RunDirectory, state: RunState, metrics: Mapping[str, Any]) -> str:
    """Commit the state of its round and return the digest. Raises: RunError, as `RunDirectory.save_round`."""
    more = {**metrics, _LAST_ROUNDS: dict(state.last_rounds)}
    return directory.save_round(state.round, state.learned, state.head, more)


def load_state(directory: RunDirectory, round: int) -> RunState:
    """The state after a committed round. Raises: CheckpointDamagedError, as `RunDirectory.load_round`."""
    learned, head, table = directory.load_round(round)
    # Runs of before there were personal methods have none, and need none.
    return RunState(learned, head, table["metrics"].get(_LAST_ROUNDS, {}))
