"""What stays the same during a run, for all who take part in its loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fedloom.aggregation.method import Method
from fedloom.aggregation.registry import method as method_named
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.aggregation.world import World
from fedloom.engine.base import Engine, Federation
from fedloom.engine.events import Event, Journaled, Observer, silent
from fedloom.engine.planner import Planner, from_text
from fedloom.engine.promises import require_promise
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.spec.secure_rules import drawn_of
from fedloom.store.in_force import in_force
from fedloom.store.planned import FACT
from fedloom.store.run_directory import RunDirectory

ALL_STAGES = frozenset({"base", "round", "final"})


@dataclass(frozen=True)
class Loop:
    """Everything that stays the same during a run.

    stages: which evaluations are made ("base" before round 1, "round" after each, "final" with generation).
    last_round: where the run ends, at most experiment.training.rounds.
    underway: client -> the earlier round that it still works on, whose answer is taken when it comes.
    planner: of a run that was planned.
    holds: client -> which pieces of the global delta it said it has, as of `messages.holding`.
    """

    experiment: Experiment
    method: Method
    world: World
    federation: Federation
    directory: RunDirectory
    engine: Engine
    observe: Observer
    stages: frozenset[str]
    last_round: int
    holds: dict[str, str] = field(default_factory=dict)
    planner: Planner | None = None
    underway: dict[str, int] = field(default_factory=dict)

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(self.world.slots)

    @property
    def in_pieces(self) -> bool:
        """Whether clients form their trunks themselves, of pieces of the global delta."""
        return not self.method.personal and self.method.rest(self.world.settings)

    def records(self) -> list[Any]:
        """What the journal says, without what was rolled back."""
        return in_force(self.directory.journal.records())

    def journal(self, kind: str, **fields: Any) -> None:
        """Write one record and tell the observer."""
        self.directory.journal.append(kind, **fields)
        self.observe(Journaled(kind, fields))


def loop_of(
    experiment: Experiment,
    directory: RunDirectory,
    engine: Engine,
    observe: Callable[[Event], None] = silent,
    *,
    stages: frozenset[str] = ALL_STAGES,
    last_round: int | None = None,
) -> Loop:
    """Gather the facts of a run. Raises: FedLoomError for whatever makes round 1 impossible."""
    federation = engine.describe()
    require_promise(experiment, federation.rows)
    return Loop(
        experiment=experiment,
        method=method_named(experiment.method.name),
        world=world_of(experiment, federation.modules),
        federation=federation,
        directory=directory,
        engine=engine,
        observe=observe,
        stages=stages,
        last_round=last_round or experiment.training.rounds,
        holds=confirmations(directory.journal.records()),
        planner=None if FACT not in directory.facts else from_text(directory.facts[FACT]),
    )


def confirmations(records: Iterable[Any]) -> dict[str, str]:
    """client -> what it said last that it has; also in rounds that were rolled back, as its disk does not know."""
    return {record["client"]: record["holds"] for record in records if record.get("holds")}


def server_optimizer(loop: Loop) -> ServerOptimizer:
    """The one that the user names, or else the one that goes with the method for as many clients as a round has: the
    mean is over those, and makes its fraction of what each learned."""
    own = loop.method.server(drawn_of(loop.experiment, len(loop.clients)))
    return loop.experiment.server.optimizer_value(own)
