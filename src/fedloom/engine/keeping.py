"""The client half of what stays at a client: where it goes on from, and what it puts away before it answers."""

from __future__ import annotations

from pathlib import Path

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.method import Method
from fedloom.aggregation.world import Start, World
from fedloom.errors import RunError
from fedloom.rounds.assign import evaluation_assignment
from fedloom.rounds.contribute import going_on, kept_part
from fedloom.rounds.messages import Assignment
from fedloom.rounds.state import RunState
from fedloom.store.client_store import ClientStore


def store_of(root: Path | None, assignment: Assignment) -> ClientStore | None:
    """The client's own place below `root`, if it has something to keep there. Raises: RunError if there is no root."""
    if not assignment.is_personal:
        return None
    if root is None:
        raise RunError(
            "there is no place for what stays at the client",
            where=f"client {assignment.client!r}",
            expected="a directory for the clients of this engine",
            found="none",
        )
    return ClientStore(root / assignment.client)


def begun(assignment: Assignment, store: ClientStore | None) -> Assignment:
    """The assignment with what this client kept after the last round that counted. Later files are removed first.

    Raises: RunError, CheckpointDamagedError where that is lost: to begin anew in silence would be another run.
    """
    if store is None:
        return assignment
    if assignment.kind == "train":
        store.forget_after(assignment.kept_round)
    return going_on(assignment, store.load(assignment.kept_round)) if assignment.kept_round else assignment


def put_away(assignment: Assignment, trained: Adapter, store: ClientStore | None) -> None:
    """Keep what stays here, durably, before anything is sent. Raises: RunError if that fails or is not finite."""
    if store is not None:
        store.save(assignment.round, kept_part(assignment, trained))


def own_model(method: Method, world: World, state: RunState, client: str, root: Path) -> Start:
    """The model of one client of a personal method, as it would be measured: for what a user takes home.

    Raises: RunError if the client contributed to no round, so that it has none, or lost what it kept.
    """
    if not state.last_rounds.get(client):
        raise RunError(
            f"client {client!r} has no model of its own yet",
            expected=f"a client that contributed: {', '.join(sorted(state.last_rounds)) or 'nobody did'}",
            found="no contribution that counted",
        )
    assignment = evaluation_assignment(method, world, state, client, seed=0)
    return begun(assignment, store_of(root, assignment)).start
