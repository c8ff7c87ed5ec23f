"""The state of a run to and from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedloom.rounds.chain import Chain
from fedloom.rounds.state import RunState
from fedloom.store.run_directory import RunDirectory

_LAST_ROUNDS, _CHAIN = "last_rounds", "chain"


def save_state(directory: RunDirectory, state: RunState, metrics: Mapping[str, Any]) -> str:
    """Commit the state of its round and return the digest. Raises: RunError, as `RunDirectory.save_round`."""
    more = {**metrics, _LAST_ROUNDS: dict(state.last_rounds), _CHAIN: state.chain.as_table()}
    return directory.save_round(state.round, state.learned, state.head, more)


def load_state(directory: RunDirectory, round: int) -> RunState:
    """The state after a committed round. Raises: CheckpointDamagedError, as `RunDirectory.load_round`."""
    learned, head, table = directory.load_round(round)
    # Older runs have none of them, and need none: a chain that is unknown begins with the whole delta.
    metrics = table["metrics"]
    return RunState(learned, head, metrics.get(_LAST_ROUNDS, {}), Chain.from_table(metrics.get(_CHAIN)))
