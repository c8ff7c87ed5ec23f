"""Give the model of a round a name: what is written, and where it comes from."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from fedloom.engine.finished import Finished, load_finished
from fedloom.engine.personal import personal_of_run, take_home
from fedloom.errors import RunError
from fedloom.export.peft import export_peft
from fedloom.report.summary import summarise
from fedloom.store.registry import Origin, Registry, Version, check_name
from fedloom.store.run_directory import RunDirectory


def promote(path: Path, name: str, *, round: int | None = None, client: str | None = None) -> Version:
    """Promote the model after a round (the last one by default) of a run, to the next version of a name.

    client: whose model, of a method that gives each client its own.
    Raises: RunError as of `Registry.promote`, for a round that is not committed, or a client that has no model.
    """
    check_name(name)
    directory = RunDirectory.open(path)
    finished = load_finished(path, round=round)
    finished.adapter(client)  # there is such a model
    registry = Registry(path.resolve().parent)
    return registry.promote(name, _origin(directory, finished, client), partial(_write, path, finished, client))


def _write(run: Path, finished: Finished, client: str | None, to: Path) -> None:
    """What `fedloom export` writes."""
    if to.exists():
        raise RunError("there is something here already", where=to)
    if finished.method.personal and client is not None:
        model = personal_of_run(run, finished, client)
        if model.mixes:
            take_home(model, to, merge=False)
            return
    export_peft(to, finished.adapter(client), finished.state.head, finished.base)


def _origin(directory: RunDirectory, finished: Finished, client: str | None) -> Origin:
    records = directory.journal.records()
    round, facts = finished.state.round, directory.facts
    scores = {entry.number: entry.scores for entry in summarise(finished.experiment, records).rounds}.get(round)
    pooled = None if scores is None else scores.pooled
    metrics = {
        "pooled": None if pooled is None else asdict(pooled),
        "clients": {} if scores is None else {name: asdict(each) for name, each in scores.clients.items()},
    }
    personal = finished.method.personal
    return Origin(
        run=directory.path.resolve().name,
        round=round,
        digest=finished.own(client).digest() if personal else finished.adapter().digest(),
        checkpoint=directory.committed()[round],
        configuration=records[0]["experiment_digest"],
        base=finished.experiment.model.id,
        base_digest=facts["base_digest"],
        client=client,
        rows=facts.get("rows") or {},
        metrics=metrics,
    )
