"""Begin a run where a finished one ended, with other rows: same base, state, and what stays at its clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from fedloom.aggregation.registry import method as method_named
from fedloom.engine.base import ClientRows
from fedloom.engine.checkpoints import save_state
from fedloom.engine.continued import continued_experiment, files_by_client
from fedloom.engine.events import Observer, silent
from fedloom.engine.finished import committed_state
from fedloom.engine.lineage import Parent
from fedloom.engine.promises import require_budget, require_noise, require_promise, spent_on_sums
from fedloom.engine.run import carry_on_here
from fedloom.engine.sites import Sites, lasting_facts, load_sites, refuse_other_base
from fedloom.engine.whole_run import Result, records_of
from fedloom.errors import RunError
from fedloom.privacy.ledger import spent
from fedloom.report.values import SumRelease
from fedloom.rounds.standing import EXCLUDED, excluded_clients
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import dump
from fedloom.store.client_store import copy_kept
from fedloom.store.in_force import COMMITTED
from fedloom.store.ledger import Ledger
from fedloom.store.lineage import CONTINUED_AS
from fedloom.store.names import refuse_existing
from fedloom.store.run_directory import RunDirectory


@dataclass(frozen=True)
class Begun:
    """What a continued run begins with. state: of `parent.round`."""

    before: RunDirectory
    parent: Parent
    state: RunState
    experiment: Experiment
    sites: Sites


def continue_run(
    path: str | Path,
    data: str | Path,
    *,
    rounds: int | None = None,
    name: str | None = None,
    round: int | None = None,
    epsilon: float | None = None,
    observe: Observer = silent,
) -> Result:
    """Go on from a finished run's last (or `round`'s) state with the rows of a folder, in a run directory beside it.

    data: one file per client, CLIENT.jsonl (or .csv, .parquet, ..).  rounds: how many more; None: as many as before.
    name: of the new run.  epsilon: the budget over all rounds of both runs, where the old one's is used up.
    Raises: RunError if the run is not finished, has no such round, or its privacy ledger went on elsewhere; DataError
        for a folder without such files; ConfigError for what the settings do not allow; WrongBaseError.
    """
    with RunDirectory.open(Path(path), to_write=True) as before:
        begun = _begun(before, Path(data), rounds, name, round, epsilon, observe)
        place = before.path.parent / begun.experiment.name
        facts = {**lasting_facts(begun.sites), **begun.parent.fact()}
        directory = RunDirectory.create(place, dump(begun.experiment), facts, fill=partial(_fill, begun))
        before.journal.append(CONTINUED_AS, run=place.name, round=begun.parent.round)
    with directory:
        return carry_on_here(begun.experiment, directory, begun.sites, observe)


def _begun(
    before: RunDirectory,
    data: Path,
    rounds: int | None,
    name: str | None,
    round: int | None,
    epsilon: float | None,
    observe: Observer,
) -> Begun:
    experiment = before.experiment()
    _require_continuable(before, experiment)
    state = committed_state(before, round)
    parent = Parent(
        before.path.name,
        str(before.path.absolute()),
        state.round,
        before.committed()[state.round],
        state.learned.delta().digest(),
        before.journal.records()[-1].digest,
    )
    name = _free_name(before.path) if name is None else name
    changed = continued_experiment(
        experiment,
        files_by_client(data, experiment),
        parent=parent,
        labels=tuple(before.facts["labels"]),
        replans=records_of(before, "replanned"),
        rounds=rounds or experiment.training.rounds - experiment.first_round + 1,
        name=name,
        epsilon=epsilon,
    )
    refuse_existing(before.path.parent / name)
    sites = load_sites(changed, observe)
    refuse_other_base(sites.base.digest, before.facts["base_digest"], where=before.path)
    _refuse_larger_ranks(experiment, changed, sites, before.path)
    rows = sites.federation().rows
    require_promise(changed, rows)
    require_noise(changed, rows)
    _require_budget(before, changed, rows)
    return Begun(before, parent, state, changed, sites)


def _require_budget(before: RunDirectory, changed: Experiment, rows: Mapping[str, ClientRows]) -> None:
    """Before a new run takes the ledgers over: it could neither go on nor give them back."""
    ledgers = {client: spent(Ledger(before.clients / client).entries()) for client in rows}
    sums = spent_on_sums(before.journal.records())
    require_budget(changed, rows, ledgers, sums, changed.training.rounds - changed.first_round + 1)


def _refuse_larger_ranks(experiment: Experiment, changed: Experiment, sites: Sites, where: Path) -> None:
    """Raises: RunError for a client that joins with a larger rank than any had, where the state has no room for it."""
    was, now = (world_of(each, sites.base.modules) for each in (experiment, changed))
    if method_named(changed.method.name).replans:
        return
    for client in sorted(now.slots.keys() - was.slots.keys()):
        for module, slot in now.slots[client].items():
            largest = was.max_rank(module) if any(module in slots for slots in was.slots.values()) else 0
            if slot.rank > largest:
                raise RunError(
                    f"the state of {changed.method.name} has no room for the rank of client {client!r}",
                    where=f"{where}, module {module!r}",
                    expected=f"at most {largest}, the largest rank of the run before",
                    found=slot.rank,
                    do="Leave its file out, or begin a run with it",
                )


def _require_continuable(before: RunDirectory, experiment: Experiment) -> None:
    if not records_of(before, "run_finished"):
        do = f"fedloom resume {before.path}, then continue"
        raise RunError("the run is not finished", where=before.path, do=do)
    went_on = [record for record in before.journal.records() if record["kind"] == CONTINUED_AS]
    if went_on and experiment.privacy.unit != "none":
        raise RunError(
            "the privacy ledger of this run went on in another: a second one would not count what that spends",
            where=before.path,
            expected="the run that nothing has continued yet",
            found=f"continued as {went_on[-1]['run']}",
            do=f"Continue {before.path.parent / went_on[-1]['run']}",
        )


def _free_name(path: Path) -> str:
    """pilot-2, pilot-3, .. beside pilot."""
    number = 2
    while (path.parent / f"{path.name}-{number}").exists():
        number += 1
    return f"{path.name}-{number}"


def _fill(begun: Begun, directory: RunDirectory) -> None:
    """All that the new run takes over, before its directory is there."""
    digest = save_state(directory, begun.state, {"clients": []})
    directory.journal.append(
        COMMITTED, round=begun.state.round, digest=digest, contributions=0, seconds=0.0, details={}
    )
    for kind, taken in _taken_over(begun.before.journal.records()):
        directory.journal.append(kind, **{"round": begun.state.round, **taken})
    if begun.before.clients.is_dir():
        for client in sorted(each for each in begun.before.clients.iterdir() if not each.name.startswith(".")):
            copy_kept(client, directory.clients / client.name, begun.state.last_rounds.get(client.name, 0))


def _taken_over(records: Iterable[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(kind, fields) of what holds on: who is shut out, and what the server released under noise."""
    records = list(records)
    shut_out = excluded_clients(records).items()
    lines = [(EXCLUDED, {"client": client, "by": "run before", "reason": reason}) for client, reason in shut_out]
    names = [each.name for each in fields(SumRelease)]
    sums = [record for record in records if record["kind"] == SumRelease.KIND]
    return lines + [(SumRelease.KIND, {name: record[name] for name in names}) for record in sums]
