"""A whole run on this machine: begin or resume, drive the rounds, train the baselines, leave report and adapter."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.engine.drive import Loop, drive, journal_evaluation, loop_of, round_seconds
from fedloom.engine.events import Observer, RunBegins, Stage, silent
from fedloom.engine.keeping import own_model
from fedloom.engine.local import LocalEngine
from fedloom.engine.sites import Sites, lasting_facts, load_sites, refuse_changed
from fedloom.errors import RunError
from fedloom.export.peft import export_peft
from fedloom.report.summary import RunSummary
from fedloom.report.write import write_report
from fedloom.rounds.messages import Contribution
from fedloom.rounds.roster import roster
from fedloom.rounds.state import RunState
from fedloom.spec.experiment import Experiment, ServerTable
from fedloom.spec.load import check, dump
from fedloom.store.in_force import in_force
from fedloom.store.names import refuse_existing
from fedloom.store.run_directory import RunDirectory

RUNS = "runs"
ALONE = "alone"


@dataclass(frozen=True)
class Result:
    """What a finished run leaves.

    own: client -> its own delta, of a method whose clients keep something; empty where all share one model.
    """

    directory: Path
    state: RunState
    summary: RunSummary
    own: Mapping[str, Adapter] = field(default_factory=dict)

    @property
    def adapter(self) -> Adapter:
        """The global delta (trunk + shared) as one adapter. Raises: RunError where each client has its own."""
        if self.own:
            raise RunError(
                f"{self.summary.method} leaves no global model: each client has its own",
                where=self.directory,
                expected=f"one of {', '.join(self.own)}",
                do="Take result.own[client]",
            )
        return self.state.learned.delta()

    @property
    def digest(self) -> str:
        """As of `digest_of`."""
        return digest_of(self.state, self.own)


def digest_of(state: RunState, own: Mapping[str, Adapter]) -> str:
    """Of the global delta; where each client has its own model, of that delta and of all of theirs, by name."""
    shared = state.learned.delta().digest()
    if not own:
        return shared
    lines = [shared, *(f"{client} {adapter.digest()}" for client, adapter in sorted(own.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def run(
    experiment: Experiment, *, root: str | Path = RUNS, observe: Observer = silent, sites: Sites | None = None
) -> Result:
    """Run an experiment from its beginning in root/<name>.

    Raises: RunError if that directory exists; DataError, ModelError, ConfigError before anything is written.
    """
    check(experiment)
    path = Path(root) / experiment.name
    refuse_existing(path)
    sites = sites or load_sites(experiment, observe)
    with RunDirectory.create(path, dump(experiment), lasting_facts(sites)) as directory:
        return _carry_on(experiment, directory, sites, observe)


def resume(path: str | Path, *, observe: Observer = silent, sites: Sites | None = None) -> Result:
    """Go on with a run from its last committed round; a finished run only gets its report and adapter again.

    Raises: RunError, JournalDamagedError, CheckpointDamagedError naming the last intact round.
    """
    with RunDirectory.open(Path(path), to_write=True) as directory:
        experiment = directory.experiment()
        latest = directory.latest()
        sites = sites or load_sites(experiment, observe)
        refuse_changed(sites, directory.facts, where=path)
        if _records(directory, "run_started") and not _records(directory, "run_finished"):
            directory.journal.append("resumed", round=latest)
        return _carry_on(experiment, directory, sites, observe)


def _carry_on(experiment: Experiment, directory: RunDirectory, sites: Sites, observe: Observer) -> Result:
    began = time.monotonic()
    loop = _loop(experiment, directory, sites, observe)
    if not _records(directory, "run_started"):
        _journal_start(loop)
    observe(_begins(loop))
    question = experiment.evaluation.question
    if question and not _answered(directory, "base"):
        _journal_answer(loop, sites, Start(Adapter()), "base", question)
    state = drive(loop)
    if experiment.evaluation.baselines:
        _train_alone(loop, sites, state.round)
    if question and not _answered(directory, "final"):
        _ask_tuned(loop, sites, state, question)
    return _finish(loop, sites, state, began)


def _loop(experiment: Experiment, directory: RunDirectory, sites: Sites, observe: Observer, **limits: Any) -> Loop:
    tokens = experiment.evaluation.max_new_tokens
    engine = LocalEngine(sites, observe, max_new_tokens=tokens, store=directory.clients)
    return loop_of(experiment, directory, engine, observe, **limits)


def _begins(loop: Loop) -> RunBegins:
    experiment = loop.experiment
    rounds_left = loop.last_round - loop.directory.latest()
    done = {record["client"] for record in _records(loop.directory, "evaluation") if record["stage"] == ALONE}
    alone = len(loop.clients) - len(done) if experiment.evaluation.baselines else 0
    rounds = rounds_left * len(roster(experiment, loop.last_round)) + loop.last_round * alone
    return RunBegins(
        name=experiment.name,
        directory=str(loop.directory.path),
        rounds=loop.last_round,
        steps=rounds * experiment.training.local_steps,
    )


def _journal_start(loop: Loop) -> None:
    facts, experiment = loop.federation, loop.experiment
    clients = {
        name: {
            "rank": max(slot.rank for slot in slots.values()),
            "scaling": next(iter(slots.values())).scaling,
            "train_rows": facts.rows[name].train,
            "held_out_rows": facts.rows[name].held_out,
            "dropped_rows": facts.rows[name].dropped,
        }
        for name, slots in loop.world.slots.items()
    }
    loop.journal(
        "run_started",
        name=experiment.name,
        method=experiment.method.name,
        personal=loop.method.personal,
        base=facts.base,
        base_digest=facts.base_digest,
        task=experiment.model.task,
        dtype=facts.dtype,
        labels=list(facts.labels),
        clients=clients,
        modules=len(facts.modules),
        targets=facts.targets_rule,
        versions=dict(facts.versions),
        threads=torch.get_num_threads(),
    )


def _train_alone(loop: Loop, sites: Sites, rounds: int) -> None:
    """Train every client alone with the same rows, steps and seeds; each is a run of its own under alone/."""
    done = {record["client"] for record in _records(loop.directory, "evaluation") if record["stage"] == ALONE}
    for client in loop.clients:
        if client in done:
            continue
        loop.observe(Stage(f"training {client} alone"))
        measured = _alone(loop, sites, client, rounds)
        journal_evaluation(loop, ALONE, measured)


def _alone(loop: Loop, sites: Sites, client: str, rounds: int) -> Contribution:
    experiment = alone_experiment(loop.experiment, client)
    path = loop.directory.path / ALONE / client
    existing = path.exists()
    facts = lasting_facts(sites)
    with (
        RunDirectory.open(path, to_write=True)
        if existing
        else RunDirectory.create(path, dump(experiment), facts) as directory
    ):
        drive(_loop(experiment, directory, sites, loop.observe, stages=frozenset({"final"}), last_round=rounds))
    last = [record for record in _records(directory, "evaluation") if record["client"] == client][-1]
    metrics = {name: value for name, value in last.fields.items() if isinstance(value, int | float)}
    metrics.pop("round")
    return Contribution(round=rounds, client=client, examples=0, metrics=metrics)


def alone_experiment(experiment: Experiment, client: str) -> Experiment:
    """The same experiment with one participant: factor-wise averaging of one client gives that client."""
    return experiment.model_copy(
        update={
            "name": client,
            "method": experiment.method.model_validate({"name": "fedit"}),
            "server": ServerTable(),
            "training": experiment.training.model_copy(update={"proximal": 0.0}),
            "rounds": experiment.rounds.model_copy(
                update={"clients": (client,), "min_clients": 1, "participation": 1.0}
            ),
            "evaluation": experiment.evaluation.model_copy(update={"baselines": False, "question": None}),
        }
    )


def _ask_tuned(loop: Loop, sites: Sites, state: RunState, question: str) -> None:
    """Ask the global model; where each client has its own, that of the first in the file that took part, by name."""
    if not loop.method.personal:
        _journal_answer(loop, sites, Start(Adapter(), trunk=state.learned.delta()), "final", question)
        return
    client = next(client.name for client in loop.experiment.active if client.name in state.last_rounds)
    _journal_answer(loop, sites, _own(loop, state, client), "final", question, client=client)


def _own(loop: Loop, state: RunState, client: str) -> Start:
    return own_model(loop.method, loop.world, state, client, loop.directory.clients)


def _journal_answer(loop: Loop, sites: Sites, start: Start, stage: str, question: str, **whose: str) -> None:
    model = "base" if stage == "base" else f"tuned model{''.join(f' of {client}' for client in whose.values())}"
    loop.observe(Stage(f"asking the question of the {model}"))
    text = sites.ask(start, question, loop.experiment.evaluation.max_new_tokens)
    loop.journal("answer", stage=stage, question=question, text=text, **whose)


def _answered(directory: RunDirectory, stage: str) -> bool:
    return any(record["stage"] == stage for record in _records(directory, "answer"))


def _finish(loop: Loop, sites: Sites, state: RunState, began: float) -> Result:
    """Write the PEFT adapter (of each client, where it has its own) and the report, and close the journal (again, if a
    resume found it closed)."""
    loop.observe(Stage("writing the adapter and the report"))
    took_part = [client for client in loop.clients if client in state.last_rounds] if loop.method.personal else []
    own = {client: _own(loop, state, client).delta() for client in took_part}
    for place, adapter in _adapters(loop.directory, state, own):
        export_peft(place, adapter, state.head, sites.base)
    if not _records(loop.directory, "run_finished"):
        loop.journal(
            "run_finished",
            rounds=state.round,
            digest=digest_of(state, own),
            seconds=round_seconds(began),
            peak_memory_bytes=peak_memory_bytes(),
            adapter="adapter/CLIENT" if own else "adapter",
        )
    return Result(loop.directory.path, state, write_report(loop.directory), own)


def _adapters(directory: RunDirectory, state: RunState, own: Mapping[str, Adapter]) -> list[tuple[Path, Adapter]]:
    """Where each adapter of the run is written."""
    if own:
        return [(directory.adapter / client, adapter) for client, adapter in own.items()]
    return [(directory.adapter, state.learned.delta())]


def _records(directory: RunDirectory, kind: str) -> list[Any]:
    return [record for record in in_force(directory.journal.records()) if record["kind"] == kind]


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
