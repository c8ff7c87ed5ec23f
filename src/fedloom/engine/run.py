"""A whole run on this machine: begin or resume, with all clients in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedloom.aggregation.world import Start
from fedloom.engine.base import Engine
from fedloom.engine.events import Observer, silent
from fedloom.engine.kept_plan import write_plan
from fedloom.engine.lineage import refuse_first_round
from fedloom.engine.local import LocalEngine
from fedloom.engine.old_holdout import journal_old_holdout, old_holdout
from fedloom.engine.planned import planner_here
from fedloom.engine.planner import to_text
from fedloom.engine.promises import require_noise, require_promise
from fedloom.engine.sites import Sites, lasting_facts, load_sites, refuse_changed
from fedloom.engine.whole_run import Result, carry_on, records_of
from fedloom.export.peft import export_peft
from fedloom.export.personal import write_personal
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import check, dump
from fedloom.store.names import refuse_existing
from fedloom.store.planned import FACT
from fedloom.store.run_directory import RunDirectory

RUNS = "runs"


@dataclass(frozen=True)
class LocalHost:
    """All clients in this process, and their base at hand. max_new_tokens: of the answer to a question."""

    sites: Sites
    observe: Observer
    max_new_tokens: int

    @property
    def facts(self) -> Mapping[str, Any]:
        return lasting_facts(self.sites)

    def engine(self, experiment: Experiment, directory: RunDirectory) -> Engine:
        tokens = experiment.evaluation.max_new_tokens
        return LocalEngine(self.sites, self.observe, max_new_tokens=tokens, store=directory.clients)

    def ask(self, start: Start, question: str) -> str:
        return self.sites.ask(start, question, self.max_new_tokens)

    def export(self, place: Path, model: Start, head: Mapping[str, Tensor]) -> None:
        if model.mixing is None or not model.rest:
            export_peft(place, model.delta(), head, self.sites.base)
        else:
            write_personal(place, self.sites.base, model, head)


def run(
    experiment: Experiment, *, root: str | Path = RUNS, observe: Observer = silent, sites: Sites | None = None
) -> Result:
    """Run an experiment from its beginning in root/<name>.

    Raises: RunError if that directory exists; DataError, ModelError, ConfigError before anything is written.
    """
    check(experiment)
    refuse_first_round(experiment)
    path = Path(root) / experiment.name
    refuse_existing(path)
    planner = None if experiment.is_planned else planner_here(experiment, observe)
    plan = planner and planner.plan(experiment)
    if planner and plan:
        experiment, sites = planner.applied(experiment, plan), None  # the plan may have chosen other bits
    sites = sites or load_sites(experiment, observe)
    rows = sites.federation().rows
    require_promise(experiment, rows)
    require_noise(experiment, rows)
    facts = {**lasting_facts(sites), **({FACT: to_text(planner)} if planner else {})}
    with RunDirectory.create(path, dump(experiment), facts) as directory:
        if plan:
            write_plan(directory.plan, plan)
        return carry_on(experiment, directory, host_of(experiment, sites, observe), observe)


def resume(path: str | Path, *, observe: Observer = silent, sites: Sites | None = None) -> Result:
    """Go on with a run from its last committed round; a finished run only gets its report and adapter again.

    Raises: RunError, JournalDamagedError, CheckpointDamagedError naming the last intact round.
    """
    with RunDirectory.open(Path(path), to_write=True) as directory:
        experiment = directory.experiment()
        latest = directory.latest()
        sites = sites or load_sites(experiment, observe)
        refuse_changed(sites, directory.facts, where=path)
        if records_of(directory, "run_started") and not records_of(directory, "run_finished"):
            directory.journal.append("resumed", round=latest)
        return carry_on_here(experiment, directory, sites, observe)


def carry_on_here(experiment: Experiment, directory: RunDirectory, sites: Sites, observe: Observer) -> Result:
    """`carry_on`; where the run continues another, the old hold-out is measured before its first round and after its
    last, too."""
    host, old = host_of(experiment, sites, observe), old_holdout(directory, sites, observe)
    journal_old_holdout(directory, experiment, old, experiment.first_round - 1, observe)
    result = carry_on(experiment, directory, host, observe)
    journal_old_holdout(directory, experiment, old, result.state.round, observe)
    return result


def host_of(experiment: Experiment, sites: Sites, observe: Observer) -> LocalHost:
    """The host of a run on this machine."""
    return LocalHost(sites, observe, experiment.evaluation.max_new_tokens)
