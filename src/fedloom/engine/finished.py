"""Use what a run has left: its state of any committed round, on its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.method import Method
from fedloom.aggregation.registry import method as method_named
from fedloom.aggregation.world import Start, World
from fedloom.engine.base import Reply
from fedloom.engine.checkpoints import load_state
from fedloom.engine.keeping import own_model
from fedloom.engine.local import LocalEngine
from fedloom.engine.sites import base_of_run, load_sites, refuse_changed
from fedloom.errors import RunError
from fedloom.report.values import whose_models
from fedloom.rounds.assign import evaluation_assignments
from fedloom.rounds.messages import Contribution, Dropout
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.store.run_directory import RunDirectory
from fedloom.training.base_model import BaseModel


@dataclass(frozen=True)
class Finished:
    """A committed state, the experiment it belongs to, its base, and where its clients keep what stays with them."""

    experiment: Experiment
    state: RunState
    base: BaseModel
    clients: Path

    @property
    def method(self) -> Method:
        return method_named(self.experiment.method.name)

    @property
    def world(self) -> World:
        return world_of(self.experiment, self.base.modules)

    def adapter(self, client: str | None = None) -> Adapter:
        """The delta to take home: the global one, or of a method whose clients keep something that of a client.

        Raises: RunError where there is no such model, saying which there are.
        """
        if self.method.personal:
            return self.own(client).delta()
        if client is not None:
            raise RunError(
                f"{self.method.name} gives all clients one model", found=f"client {client!r}", do="Name no client"
            )
        return self.state.learned.delta()

    def own(self, client: str | None) -> Start:
        """The model of one client, of a method whose clients keep something. Raises: RunError as `adapter`."""
        if client is None:
            raise RunError(
                f"{self.method.name} leaves no global model: each client has its own",
                expected=f"a client: {', '.join(sorted(self.state.last_rounds))}",
                found="none",
                do="Name one, as in: fedloom export RUN --client NAME --to DIRECTORY",
            )
        return own_model(self.method, self.world, self.state, client, self.clients)


def load_finished(path: str | Path, *, round: int | None = None) -> Finished:
    """Load one committed round (the last one by default) and the base it was trained on.

    Raises: RunError for a round that is not committed; WrongBaseError if the base has other weights than in the run.
    """
    directory = RunDirectory.open(Path(path))
    experiment = directory.experiment()
    state = committed_state(directory, round)
    base = base_of_run(experiment, directory.facts, where=directory.path)
    return Finished(experiment, state, base, directory.clients)


def committed_state(directory: RunDirectory, round: int | None) -> RunState:
    """The state after a committed round; None: the last one."""
    latest = directory.latest()
    wanted = latest if round is None else round
    if not 1 <= wanted <= latest:
        found = "none is committed yet" if latest == 0 else f"round {wanted}, while rounds 1 to {latest} are committed"
        raise RunError("there is no such round", where=directory.path, expected="a committed round", found=found)
    return load_state(directory, wanted)


@dataclass(frozen=True)
class Measured:
    """client -> what was scored on its held-out rows.

    note: whose models these are, where each client has its own, and who could not be measured, and why.
    """

    by_client: dict[str, Contribution]
    note: str | None


def evaluate_again(path: str | Path, *, round: int | None, rows: int | None, generate: int) -> Measured:
    """Score the state of a round on every client's held-out rows; nothing is written."""
    directory = RunDirectory.open(Path(path))
    experiment = directory.experiment()
    if rows is not None:
        evaluation = experiment.evaluation.model_copy(update={"max_rows": rows})
        experiment = experiment.model_copy(update={"evaluation": evaluation})
    evaluation = experiment.evaluation.model_copy(update={"generate_rows": generate})
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    state = committed_state(directory, round)
    sites = load_sites(experiment)
    refuse_changed(sites, directory.facts, where=directory.path)
    tokens, method = experiment.evaluation.max_new_tokens, method_named(experiment.method.name)
    engine = LocalEngine(sites, max_new_tokens=tokens, store=directory.clients)
    world = world_of(experiment, sites.base.modules)
    answers = list(
        engine.exchange(
            evaluation_assignments(experiment, method, world, state, sites.by_client, generate_rows=generate)
        )
    )
    replies = {answer.contribution.client: answer.contribution for answer in answers if isinstance(answer, Reply)}
    absent = [client for client in sites.by_client if client not in state.last_rounds]
    notes = [whose_models(method.name, absent)] if method.personal else []
    notes += [f"not measured: {gone.client}, as {gone.reason}" for gone in answers if isinstance(gone, Dropout)]
    return Measured(replies, "; ".join(notes) or None)
