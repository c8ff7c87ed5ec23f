"""The client half of what stays at a client: where it goes on from, what it puts away, and then what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.method import Method
from fedloom.aggregation.world import Start, World
from fedloom.engine.events import Observer, Stage
from fedloom.errors import FedLoomError, RunError
from fedloom.rounds.assign import evaluation_assignment
from fedloom.rounds.contribute import going_on, kept_part
from fedloom.rounds.feedback import FORGOTTEN, NOTHING, Owed, from_tensors, offered, to_tensors
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.personal import on_its_own, own_weight
from fedloom.rounds.state import RunState
from fedloom.spec.experiment import Experiment
from fedloom.store.client_store import ClientStore
from fedloom.store.own_model import OwnModel, save_own_model

MODEL_NOT_KEPT = "model_not_kept"


def store_of(root: Path | None, assignment: Assignment) -> ClientStore | None:
    """The client's own place below `root`, if it has something to keep there. Raises: RunError if there is no root."""
    if not assignment.needs_store:
        return None
    if root is None:
        raise RunError(
            "there is no place for what stays at the client",
            where=f"client {assignment.client!r}",
            expected="a directory for the clients of this engine",
            found="none",
        )
    return ClientStore(root / assignment.client)


def begun(assignment: Assignment, store: ClientStore | None, run: str | None = None) -> Assignment:
    """The assignment with what this client kept after the last round that counted. Later files are removed first; a
    client that goes on from its own, or begins anew, sets them aside, where they are more than the last attempt at a
    round.

    run: its name, where one run after the other keeps its files in this place; None: the place is of one run.
    Raises: RunError, CheckpointDamagedError where that is lost: to begin anew in silence would be another run.
    """
    if store is None:
        return assignment
    if run is not None:
        _of_this_run(assignment, store, run)
    if assignment.kind == "train":
        _forget_after(assignment, store)
    there = assignment.kept_round and any(assignment.held.values())
    kept = store.load(assignment.kept_round) if there else {}
    begins = going_on(assignment, kept) if there else assignment
    return on_its_own(begins, kept) if assignment.resumes else begins


def _of_this_run(assignment: Assignment, store: ClientStore, run: str) -> None:
    """What another run left here is set aside where this one begins. Raises: RunError where this one's was."""
    if assignment.kind == "train" and not assignment.kept_round:
        store.begin(run)
    elif assignment.kept_round and store.run() not in (None, run):
        raise RunError(
            f"client {assignment.client!r} has begun another run here since",
            where=store.directory,
            expected=f"what it kept of run {run!r}",
            found=f"that of run {store.run()!r}",
            do="At this site: join with another --state for each run; or move what is there away, and put back what is "
            f"in those of the folders earlier-NNNN whose run.txt says {run}",
        )


def _forget_after(assignment: Assignment, store: ClientStore) -> None:
    """The server may have been lost, and know nothing of rounds that the client alone still has."""
    later = [round for round in store.rounds() if round > assignment.kept_round]
    if len(later) > 1 and (assignment.resumes or not assignment.kept_round):
        store.set_aside_after(assignment.kept_round)
    store.forget_after(assignment.kept_round)


def put_away(
    assignment: Assignment,
    trained: Adapter,
    store: ClientStore | None,
    owed: Owed = NOTHING,
    own: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Keep what stays here, durably, before anything is sent. own: as of `personal`, of a client that goes on from it.

    Raises: RunError if that fails, or what would be kept is not finite.
    """
    if store is not None:
        store.save(assignment.round, {**kept_part(assignment, trained, own), **to_tensors(owed)})


def leaving(
    assignment: Assignment,
    trained: Contribution,
    store: ClientStore | None,
    own: Mapping[str, Tensor] = MappingProxyType({}),
) -> Contribution:
    """What is sent of a round's training, after what stays was put away; what rounding leaves unsent stays too.

    own: mixers and optimizer's state of a client that goes on from them, as of `personal.own_tensors`.
    A client that lost what it owed goes on owing nothing, and says so in a metric: some rounding is lost, and no more.
    """
    owed, forgot = _owed(assignment, store)
    sent, left = offered(assignment, trained, owed)
    own = {**own, **assignment.choice, **own_weight(assignment, trained.examples)} if assignment.resumes else {}
    put_away(assignment, trained.adapter, store, left, own)
    return replace(sent, metrics={**sent.metrics, FORGOTTEN: 1.0}) if forgot else sent


def _owed(assignment: Assignment, store: ClientStore | None) -> tuple[Owed, bool]:
    """What the client owes as of the round that counted last, and whether that is lost."""
    if store is None or assignment.wire.up.is_exact or not assignment.kept_round:
        return NOTHING, False
    if assignment.kept_round not in store.rounds():
        return NOTHING, True
    return from_tensors(store.load(assignment.kept_round)), False


def keep_model(
    assignment: Assignment,
    store: ClientStore | None,
    experiment: Experiment,
    facts: Mapping[str, Any],
    observe: Observer,
) -> dict[str, float]:
    """Put the client's whole model away where it is about to be measured, so that its site can take it home: the server
    cannot. Only after a round that the client contributed to; before, it has none.

    assignment: loaded completely, with its trunk.  experiment, facts: as of `OwnModel`.
    One that cannot be written costs nothing of the run: the answer leaves all the same, with a metric that the run's
    journal has then, and the site's own output says why. The model of an earlier round stays.
    """
    if store is None or assignment.kind != "evaluate" or not assignment.kept_round:
        return {}
    model = OwnModel(assignment.client, assignment.round, assignment.start, assignment.head, facts, experiment)
    try:
        save_own_model(store.directory, model)
    except FedLoomError as error:
        observe(Stage(f"the model of {assignment.client} of round {assignment.round} is not kept: {error}"))
        return {MODEL_NOT_KEPT: 1.0}
    return {}


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
