"""A run whose clients are reached through Flower: create or go on, gather the clients, carry on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from fedloom.aggregation.world import Start
from fedloom.engine.base import Engine
from fedloom.engine.events import Observer, Stage
from fedloom.engine.flower.exchange import FlowerEngine
from fedloom.engine.flower.gathering import Gathered, Gathering
from fedloom.engine.flower.pins import Pin
from fedloom.engine.kept_plan import KeptPlan, write_plan
from fedloom.engine.lineage import refuse_first_round
from fedloom.engine.planner import to_text
from fedloom.engine.promises import require_promise
from fedloom.engine.whole_run import Result, carry_on, records_of
from fedloom.errors import NotAtHandError
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import dump
from fedloom.store.names import refuse_existing
from fedloom.store.planned import FACT
from fedloom.store.run_directory import RunDirectory


@dataclass(frozen=True)
class Patience:
    """Seconds: for clients to come before round 1, for any answer before it, for the answers of a round."""

    come: float = 120.0
    describe: float = 600.0
    deadline: float = 3600.0


@dataclass
class FlowerHost:
    """The side of a run on Flower. The base model is at hand only where the training extra is installed.

    kept: the plan that the experiment of a new run follows, if it follows one.
    """

    grid: Grid
    experiment: Experiment
    observe: Observer
    patience: Patience = Patience()
    pins: Mapping[str, Pin] = field(default_factory=dict)
    gathered: Gathered = field(default_factory=Gathered)
    refused: list[tuple[str, str]] = field(default_factory=list)
    directory: RunDirectory | None = None
    kept: KeptPlan | None = None
    _home: Any = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Base, class names and rows of those who were there when the run began."""
        described = self.gathered.descriptions
        return {
            "base_digest": described[min(described)].base_digest,
            "labels": list(self.gathered.labels),
            "rows": {client: described[client].rows_digest for client in sorted(described)},
            **({} if self.kept is None else {FACT: to_text(self.kept.planner)}),
        }

    def gathering(self, experiment: Experiment) -> Gathering:
        return Gathering(self.grid, experiment, self._refuse, self.pins, self.patience.describe, self.refused)

    def gather(self, facts: Mapping[str, Any]) -> None:
        """Wait for the clients. facts: of a run that goes on; empty for a new one. Raises: RunError."""
        self.observe(Stage("waiting for the clients"))
        self.gathered.facts = facts
        minimum = self.experiment.rounds.min_clients
        self.gathering(self.experiment).begin(self.gathered, seconds=self.patience.come, minimum=minimum)
        self.gathered.facts = facts or self.facts

    def engine(self, experiment: Experiment, _: RunDirectory) -> Engine:
        return FlowerEngine(self.gathering(experiment), self.gathered, self.patience.deadline, self.observe)

    def ask(self, start: Start, question: str) -> str:
        return self._take_home().ask(start, question)

    def export(self, place: Path, model: Start, head: Mapping[str, Tensor]) -> None:
        self._take_home().export(place, model, head)

    def _refuse(self, who: str, reason: str) -> None:
        if (who, reason) not in self.refused:
            self.refused.append((who, reason))
            self.observe(Stage(f"{who}: {reason}"))
            if self.directory is not None:
                self._journal_refusal(who, reason)

    def begin(self, directory: RunDirectory) -> None:
        """From now on refusals go to the journal, and those of before do too."""
        self.directory = directory
        for who, reason in self.refused:
            self._journal_refusal(who, reason)

    def _journal_refusal(self, who: str, reason: str) -> None:
        assert self.directory is not None
        self.directory.journal.append("client_refused", client=who, reason=reason)

    def _take_home(self) -> Any:
        """The base on this machine. Raises: NotAtHandError where a server has no training stack, or no such model."""
        try:
            from fedloom.engine.take_home import base_at_hand
        except ImportError as error:
            raise NotAtHandError(
                "the base model is not at hand",
                where="this server",
                found=str(error),
                do="On a machine with fedloom[train]: fedloom export RUN --to DIRECTORY",
            ) from error
        self._home = self._home or base_at_hand(self.experiment, self.gathered.facts)
        return self._home


def run_with(host: FlowerHost, root: Path) -> Result:
    """A new run in root/<name>. Raises: RunError if it exists, or too few clients come."""
    path = root / host.experiment.name
    refuse_first_round(host.experiment)
    refuse_existing(path)
    host.gather({})
    require_promise(host.experiment, host.gathered.rows)
    with RunDirectory.create(path, dump(host.experiment), host.facts) as directory:
        if host.kept is not None:
            write_plan(directory.plan, host.kept.plan)
        return _carry_on(host, directory)


def resume_with(host: FlowerHost, path: Path) -> Result:
    """Go on with a run from its last committed round. Raises: as `run_with`, and for a damaged directory."""
    with RunDirectory.open(path, to_write=True) as directory:
        directory.check_same(host.experiment)
        host.gather(directory.facts)
        if records_of(directory, "run_started") and not records_of(directory, "run_finished"):
            directory.journal.append("resumed", round=directory.latest())
        return _carry_on(host, directory)


def _carry_on(host: FlowerHost, directory: RunDirectory) -> Result:
    host.begin(directory)
    return carry_on(host.experiment, directory, host, host.observe)
