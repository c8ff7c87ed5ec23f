"""A whole run on any engine: drive the rounds, train the baselines, ask the question, leave report and adapter."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.engine.base import ClientRows, Engine
from fedloom.engine.drive import drive, journal_evaluation, round_seconds
from fedloom.engine.events import Observer, RunBegins, Stage
from fedloom.engine.loop import Loop, loop_of, server_optimizer
from fedloom.engine.models_here import models_here, own_of
from fedloom.engine.tracking import tracked
from fedloom.errors import NotAtHandError, RunError
from fedloom.report.summary import RunSummary
from fedloom.report.write import write_report
from fedloom.rounds.messages import Contribution
from fedloom.rounds.roster import roster
from fedloom.rounds.state import RunState
from fedloom.spec.alone import alone_experiment
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import dump
from fedloom.store.audit.alone import ALONE, HEAD, numbers_of
from fedloom.store.exported import adapter_files, file_digests
from fedloom.store.in_force import in_force
from fedloom.store.run_directory import RunDirectory

ABSENT = ClientRows(0, 0, 0)  # of a client that had not come when the run began


@dataclass(frozen=True)
class Result:
    """What a finished run leaves.

    models: client -> its own model, of a method whose clients have one; empty where all share one.
    """

    directory: Path
    state: RunState
    summary: RunSummary
    models: Mapping[str, Start] = field(default_factory=dict)

    @property
    def own(self) -> dict[str, Adapter]:
        """client -> the delta of its own model; of one that mixes two branches, with equal shares of them."""
        return {client: start.delta() for client, start in self.models.items()}

    @property
    def adapter(self) -> Adapter:
        """The global delta (trunk + shared) as one adapter. Raises: RunError where each client has its own."""
        if self.models:
            raise RunError(
                f"{self.summary.method} leaves no global model: each client has its own",
                where=self.directory,
                expected=f"one of {', '.join(self.models)}",
                do="Take result.own[client]",
            )
        return self.state.learned.delta()

    @property
    def digest(self) -> str:
        """As of `digest_of`."""
        return digest_of(self.state, self.models)


def digest_of(state: RunState, models: Mapping[str, Start]) -> str:
    """Of the global delta; where each client has its own model, of that delta and of all of theirs, by name."""
    shared = state.learned.delta().digest()
    if not models:
        return shared
    lines = [shared, *(f"{client} {start.digest()}" for client, start in sorted(models.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Host(Protocol):
    """The side of a run that has to do with its engine, and with the base model where it is at hand."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What stays the same during the run, as of `RunDirectory.create`."""
        ...

    def engine(self, experiment: Experiment, directory: RunDirectory, /) -> Engine:
        """What exchanges messages for a run in this directory."""
        ...

    def ask(self, start: Start, question: str) -> str:
        """The answer of one model. Raises: RunError where there is no base model at hand."""
        ...

    def export(self, place: Path, model: Start, head: Mapping[str, Tensor]) -> None:
        """Write a PEFT directory, or of a model that mixes two adapters what `write_personal` writes.

        Raises: RunError where there is no base model at hand.
        """
        ...


def carry_on(experiment: Experiment, directory: RunDirectory, host: Host, observe: Observer) -> Result:
    """Everything that is still to be done of a run whose directory is open to write; a finished one only gets its
    report and adapter again."""
    began, observe = time.monotonic(), tracked(experiment, directory, observe)
    loop = loop_of(experiment, directory, host.engine(experiment, directory), observe)
    if not records_of(directory, "run_started"):
        _journal_start(loop)
    observe(_begins(loop))
    question = experiment.evaluation.question
    if question and not _answered(directory, "base"):
        _journal_answer(loop, host, Start(Adapter()), "base", question)
    state = drive(loop)
    if experiment.evaluation.baselines:
        _train_alone(loop, host, state.round)
    if question and not _answered(directory, "final"):
        _ask_tuned(loop, host, state, question)
    return _finish(loop, host, state, began)


def _begins(loop: Loop) -> RunBegins:
    experiment = loop.experiment
    rounds_left = loop.last_round - loop.directory.latest()
    done = {record["client"] for record in records_of(loop.directory, "evaluation") if record["stage"] == ALONE}
    alone = len(loop.clients) - len(done) if experiment.evaluation.baselines else 0
    rounds = rounds_left * len(roster(experiment, loop.last_round)) + loop.last_round * alone
    return RunBegins(
        name=experiment.name,
        directory=str(loop.directory.path),
        rounds=loop.last_round,
        steps=rounds * experiment.training.local_steps,
    )


def _journal_start(loop: Loop) -> None:
    facts, experiment, rows = loop.federation, loop.experiment, loop.federation.rows
    clients = {
        name: {
            "rank": max(slot.rank for slot in slots.values()),
            "scaling": next(iter(slots.values())).scaling,
            "modules": len(slots),
            "bits": experiment.bits_of(name),
            "train_rows": rows.get(name, ABSENT).train,
            "held_out_rows": rows.get(name, ABSENT).held_out,
            "dropped_rows": rows.get(name, ABSENT).dropped,
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
        server=asdict(server_optimizer(loop)),
        clients=clients,
        modules=len(facts.modules),
        targets=facts.targets_rule,
        versions=dict(facts.versions),
        threads=torch.get_num_threads(),
    )


def _train_alone(loop: Loop, host: Host, rounds: int) -> None:
    """Train every client alone with the same rows, steps and seeds; each is a run of its own under alone/."""
    done = {record["client"] for record in records_of(loop.directory, "evaluation") if record["stage"] == ALONE}
    for client in loop.clients:
        if client in done:
            continue
        loop.observe(Stage(f"training {client} alone"))
        measured, head = _alone(loop, host, client, rounds)
        journal_evaluation(loop, ALONE, measured, **{HEAD: head})


def _alone(loop: Loop, host: Host, client: str, rounds: int) -> tuple[Contribution, str]:
    """What it measured last, and the digest of the last line of its journal, which binds that."""
    experiment = alone_experiment(loop.experiment, client)
    path = loop.directory.path / ALONE / client
    existing = path.exists()
    with (
        RunDirectory.open(path, to_write=True)
        if existing
        else RunDirectory.create(path, dump(experiment), host.facts) as directory
    ):
        engine = host.engine(experiment, directory)
        drive(loop_of(experiment, directory, engine, loop.observe, stages=frozenset({"final"}), last_round=rounds))
    last = [record for record in records_of(directory, "evaluation") if record["client"] == client][-1]
    metrics = {name: float(value) if isinstance(value, str) else value for name, value in numbers_of(last).items()}
    head = directory.journal.records()[-1].digest
    return Contribution(round=rounds, client=client, examples=0, metrics=metrics), head


def _ask_tuned(loop: Loop, host: Host, state: RunState, question: str) -> None:
    """Ask the global model; where each client has its own, that of the first in the file that took part, by name."""
    if not loop.method.personal:
        _journal_answer(loop, host, Start(Adapter(), trunk=state.learned.delta()), "final", question)
        return
    took_part = [client.name for client in loop.experiment.active if client.name in state.last_rounds]
    client = next((name for name in took_part if (loop.directory.clients / name).is_dir()), None)
    if client is not None:
        _journal_answer(loop, host, own_of(loop, state, client), "final", question, client=client)


def _journal_answer(loop: Loop, host: Host, start: Start, stage: str, question: str, **whose: str) -> None:
    model = "base" if stage == "base" else f"tuned model{''.join(f' of {client}' for client in whose.values())}"
    loop.observe(Stage(f"asking the question of the {model}"))
    if (text := _if_at_hand(loop, "answer", partial(host.ask, start, question))) is not None:
        loop.journal("answer", stage=stage, question=question, text=text, **whose)


def _if_at_hand(loop: Loop, what: str, act: Callable[[], Any]) -> Any:
    """What needs the base model; where it is not at hand, the journal says what was left out and why."""
    try:
        return act()
    except NotAtHandError as error:
        loop.journal("left_out", what=what, reason=str(error))
        return None


def _answered(directory: RunDirectory, stage: str) -> bool:
    return any(record["stage"] == stage for record in records_of(directory, "answer"))


def _finish(loop: Loop, host: Host, state: RunState, began: float) -> Result:
    """Write the PEFT adapter (of each client, where it has its own) and the report, and close the journal (again, if a
    resume found it closed)."""
    loop.observe(Stage("writing the adapter and the report"))
    models = models_here(loop, state)
    for place, model in _places(loop, state, models):
        _if_at_hand(loop, "adapter", partial(host.export, place, model, state.head))
    files = file_digests(loop.directory.adapter)
    if not records_of(loop.directory, "run_finished"):
        loop.journal(
            "run_finished",
            rounds=state.round,
            digest=digest_of(state, models),
            seconds=round_seconds(began),
            peak_memory_bytes=peak_memory_bytes(),
            adapter="adapter/CLIENT" if loop.method.personal else "adapter",
            files=files,
        )
    elif files != adapter_files(loop.directory.journal.records()):
        loop.journal("adapter_rewritten", files=files)
    return Result(loop.directory.path, state, write_report(loop.directory), models)


def _places(loop: Loop, state: RunState, models: Mapping[str, Start]) -> list[tuple[Path, Start]]:
    """Where each model of the run is written."""
    if loop.method.personal:
        return [(loop.directory.adapter / client, start) for client, start in models.items()]
    return [(loop.directory.adapter, Start(Adapter(), trunk=state.learned.delta()))]


def records_of(directory: RunDirectory, kind: str) -> list[Any]:
    """The journal's records of one kind, without what was rolled back."""
    return [record for record in in_force(directory.journal.records()) if record["kind"] == kind]


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
