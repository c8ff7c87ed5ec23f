"""What may be asked of a run as it stands, and how another process asks it."""

from __future__ import annotations

from pathlib import Path

from fedloom.aggregation.registry import method
from fedloom.errors import RunError
from fedloom.rounds.budgets import LIMITS
from fedloom.rounds.standing import excluded_clients
from fedloom.rounds.world import active_clients
from fedloom.store import requests
from fedloom.store.durable import in_use
from fedloom.store.lineage import first_state
from fedloom.store.planned import planned_clients
from fedloom.store.requests import (
    CHANGE_BUDGET,
    EXCLUDE,
    IN_PROGRESS,
    READMIT,
    ROLLBACK,
    Request,
    asked_before,
    journaled,
)
from fedloom.store.run_directory import RunDirectory


def submit(path: Path, request: Request) -> None:
    """Ask something of a run that another process drives; it is taken before the next round begins.

    Raises: RunError, and nothing is written, for a run that is none, an action, client or round that is not there, an
        id that was used, a `seen` that is not the last committed round any more, or a run that is not in progress
        where the action needs one.
    """
    directory = RunDirectory.open(path)
    check(directory, request)
    if request.action in IN_PROGRESS and not in_use(path / "run.lock"):
        raise not_in_progress(path, request.action)
    requests.put(path, request)


def not_in_progress(path: Path, action: str) -> RunError:
    """What to say where nobody drives the run."""
    return RunError(
        f"the run is not in progress, there is nothing to {action}", where=path, do=f"fedloom resume {path} goes on"
    )


def check(directory: RunDirectory, request: Request) -> None:
    """Raises: RunError where a request is not to be taken, as of `submit`."""
    if journaled(directory.journal.records(), request.id) is not None:
        raise asked_before(directory.path, request.id)
    check_page(directory, request)
    check_possible(directory, request)


def check_page(directory: RunDirectory, request: Request) -> None:
    """Raises: RunError if rounds were committed or rolled back since the asker looked."""
    latest = max(directory.committed(), default=0)
    if request.seen is not None and request.seen != latest:
        raise RunError(
            "the run has gone on since you looked at it",
            where=directory.path,
            expected=f"round {latest}, the last one that is committed",
            found=f"round {request.seen}",
            do="Look again, then decide",
        )


def check_possible(directory: RunDirectory, request: Request) -> None:
    """Raises: RunError for a client or round that is not there, or that it makes no sense for."""
    if request.action == ROLLBACK:
        _check_round(directory, request.to)
    elif request.action in (EXCLUDE, READMIT):
        _check_client(directory, request)
    elif request.action == CHANGE_BUDGET:
        _check_budget(directory, request)


def _check_budget(directory: RunDirectory, request: Request) -> None:
    experiment, where = directory.experiment(), directory.path
    planned, name = planned_clients(directory.facts), experiment.method.name
    if not request.limits:
        expected = f"at least one of {', '.join(LIMITS)}"
        raise RunError("no limit of the budget is named", where=where, expected=expected, found="none")
    if not planned:
        do = 'Only runs in whose configuration a client had rank = "auto" are planned anew'
        raise RunError("the run was not planned, and cannot be planned anew", where=where, do=do)
    if not (experiment.planning.replan and method(name).replans):
        why = f"the method {name}, whose state has clients' ranks" if experiment.planning.replan else "replan = false"
        raise RunError("the run is not planned anew between rounds", where=where, found=why)
    if request.client not in planned:
        what, found = "no such client with a planned rank", repr(request.client)
        raise RunError(what, where=where, expected=f"one of {', '.join(planned)}", found=found)
    if max(directory.committed(), default=0) >= experiment.training.rounds:
        raise RunError("all rounds are done, no budget matters any more", where=where)


def _check_round(directory: RunDirectory, to: int | None) -> None:
    known = directory.committed()
    latest, first = max(known, default=0), first_state(directory.facts)
    if to is None or not first <= to < latest:
        expected = (
            f"a round from {first} (the beginning) to {latest - 1}"
            if latest > first
            else "a run with a committed round"
        )
        raise RunError(
            "there is no such round to go back to",
            where=directory.path,
            expected=expected,
            found=f"round {to}, while round {latest} is the last one that is committed",
        )
    if to > 0:
        directory.load_round(to)


def _check_client(directory: RunDirectory, request: Request) -> None:
    experiment, where = directory.experiment(), directory.path
    names = [client.name for client in active_clients(experiment)]
    out = excluded_clients(directory.journal.records())
    if request.client not in names:
        raise RunError("no such client", where=where, expected=f"one of {', '.join(names)}", found=repr(request.client))
    if request.action == READMIT and request.client not in out:
        raise RunError(f"client {request.client!r} is not shut out", where=where, found=f"excluded: {sorted(out)}")
    if request.action == READMIT:
        return
    if not (request.reason or "").strip():
        raise RunError("a client is not shut out without a reason", where=where, do="Say why, with --reason")
    if request.client in out:
        found = f"excluded because: {out[request.client]}"
        raise RunError(f"client {request.client!r} is shut out already", where=where, found=found)
    left, needed = len(set(names) - set(out)) - 1, max(1, experiment.rounds.min_clients)
    if left < needed:
        raise RunError(
            "too few clients would be left", where=where, expected=f"at least {needed} (rounds.min_clients)", found=left
        )
