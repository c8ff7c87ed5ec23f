"""What a continued run forgets: the held-out rows of the run before, measured with the model before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedloom.aggregation.registry import method as method_named
from fedloom.engine.base import Reply
from fedloom.engine.checkpoints import load_state
from fedloom.engine.events import Observer, Stage
from fedloom.engine.lineage import parent_of
from fedloom.engine.local import LocalEngine
from fedloom.engine.sites import Site, Sites, site_of_run
from fedloom.errors import FedLoomError
from fedloom.report.forgetting import OLD_HOLDOUT
from fedloom.rounds.assign import evaluation_assignments
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.store.in_force import in_force
from fedloom.store.run_directory import RunDirectory


@dataclass(frozen=True)
class OldHoldout:
    """The old rows that are on this machine. lacking: client -> why its rows are not."""

    sites: Sites
    lacking: Mapping[str, str]


def old_holdout(directory: RunDirectory, sites: Sites, observe: Observer) -> OldHoldout | None:
    """Of the run that this one continues; None if it continues none. sites: of this run, for its base."""
    parent = parent_of(directory)
    if parent is None:
        return None
    observe(Stage(f"reading the held-out rows of {parent.run}"))
    found, lacking = dict[str, Site](), dict[str, str]()
    try:
        before = RunDirectory.open(Path(parent.path))
        experiment, facts = before.experiment(), before.facts
    except FedLoomError as error:
        return OldHoldout(replace(sites, by_client={}), {"all clients": str(error)})
    for client in facts["rows"]:
        try:
            found[client] = site_of_run(experiment, sites.base, facts, client, where=parent.path)
        except FedLoomError as error:
            lacking[client] = str(error)
    return OldHoldout(replace(sites, by_client=found), lacking)


def journal_old_holdout(
    directory: RunDirectory, experiment: Experiment, old: OldHoldout | None, round: int, observe: Observer
) -> bool:
    """Measure the state of a committed round on the old rows, each client once, and write that down; what is not here
    is written down as left out. Returns whether anything was written."""
    if old is None:
        return False
    records = in_force(directory.journal.records())
    done = {(each.get("client"), each.get("round")) for each in records if each.get("stage") == OLD_HOLDOUT}
    due = [client for client in old.sites.by_client if (client, round) not in done]
    told = {record.get("what") for record in records if record["kind"] == "left_out"}
    silent = {client: why for client, why in old.lacking.items() if _what(client) not in told}
    for client, why in silent.items():
        directory.journal.append("left_out", what=_what(client), reason=why)
    if due:
        observe(Stage(f"measuring the old hold-out after round {round}"))
        _measure(directory, experiment, old.sites, round, due)
    return bool(due or silent)


def _what(client: str) -> str:
    return f"old hold-out of {client}"


def _measure(directory: RunDirectory, experiment: Experiment, sites: Sites, round: int, clients: list[str]) -> None:
    method, world = method_named(experiment.method.name), world_of(experiment, sites.base.modules)
    state, rows = load_state(directory, round), experiment.evaluation.generate_rows
    engine = LocalEngine(sites, max_new_tokens=experiment.evaluation.max_new_tokens, store=directory.clients)
    asked = evaluation_assignments(experiment, method, world, state, clients, generate_rows=rows)
    for answer in engine.exchange(asked):
        if isinstance(answer, Reply):
            measured = answer.contribution
            facts = {"stage": OLD_HOLDOUT, "round": round, "client": measured.client}
            directory.journal.append("evaluation", **facts, **measured.metrics)
        else:
            reason = f"evaluation of the old hold-out: {answer.reason}"
            facts = {"stage": OLD_HOLDOUT, "round": round, "client": answer.client, "reason": reason}
            directory.journal.append("dropout", **facts)
