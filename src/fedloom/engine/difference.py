"""What lies between two committed rounds of a run: of the global model, or of each client's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.changes import Change, changes, together
from fedloom.aggregation.registry import method as method_named
from fedloom.aggregation.world import World
from fedloom.engine.finished import committed_state
from fedloom.engine.keeping import own_model
from fedloom.engine.sites import base_of_run
from fedloom.errors import RunError
from fedloom.report.summary import summarise
from fedloom.report.values import Stage
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.store.run_directory import RunDirectory

GLOBAL = "global model"


@dataclass(frozen=True)
class Difference:
    """earlier, later: rounds.  models: GLOBAL, or client -> module -> how its delta changed.

    before, after: what was measured after each of the rounds.  absent: client -> why its model is not compared.
    score: the field of Scores that goes with the task.
    """

    earlier: int
    later: int
    models: Mapping[str, Mapping[str, Change]]
    before: Stage
    after: Stage
    absent: Mapping[str, str]
    score: str

    def as_table(self) -> dict[str, Any]:
        """The same as values of JSON."""
        models = {
            name: {
                "all": _as_table(together(modules.values())),
                "modules": {module: _as_table(change) for module, change in modules.items()},
            }
            for name, modules in self.models.items()
        }
        scores = {"before": _scores(self.before), "after": _scores(self.after)}
        rounds = {"earlier": self.earlier, "later": self.later}
        return {**rounds, "models": models, "scores": scores, "absent": dict(self.absent)}


def difference(path: Path, earlier: int, later: int) -> Difference:
    """Compare the models after two rounds.

    Raises: RunError for a round that is not committed, the same round twice, or where no model of a client is here.
    """
    directory = RunDirectory.open(path)
    if earlier == later:
        raise RunError("a round does not differ from itself", where=path, found=f"round {earlier} twice")
    experiment = directory.experiment()
    first, second = (committed_state(directory, round) for round in (earlier, later))
    absent: dict[str, str] = {}
    if method_named(experiment.method.name).personal:
        models, absent = _of_clients(directory, experiment, first, second)
    else:
        models = {GLOBAL: changes(first.learned.delta(), second.learned.delta())}
    summary = summarise(experiment, directory.journal.records())
    stages = {entry.number: entry.scores for entry in summary.rounds}
    before, after = (stages.get(round, Stage()) for round in (earlier, later))
    return Difference(earlier, later, models, before, after, absent, summary.score)


def _of_clients(
    directory: RunDirectory, experiment: Experiment, first: RunState, second: RunState
) -> tuple[dict[str, dict[str, Change]], dict[str, str]]:
    world = world_of(experiment, base_of_run(experiment, directory.facts, where=directory.path).modules)
    found: dict[str, dict[str, Change]] = {}
    absent: dict[str, str] = {}
    for client in world.slots:
        try:
            own = (_own(directory, experiment, world, state, client) for state in (first, second))
            found[client] = changes(*own)
        except RunError as error:
            absent[client] = str(error)
    if not found:
        raise RunError(
            "the clients' own models are not here, or none took part by then", where=directory.path, found=absent
        )
    return found, absent


def _own(directory: RunDirectory, experiment: Experiment, world: World, state: RunState, client: str) -> Adapter:
    return own_model(method_named(experiment.method.name), world, state, client, directory.clients).delta()


def _as_table(change: Change) -> dict[str, Any]:
    return {**asdict(change), "relative": change.relative}


def _scores(stage: Stage) -> dict[str, Any]:
    pooled = stage.pooled
    clients = {client: asdict(scores) for client, scores in stage.clients.items()}
    return {"clients": clients, "pooled": None if pooled is None else asdict(pooled)}
