"""What a run is planned from, kept with the run: so that it can be planned anew when machines turn out otherwise."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter

from fedloom.engine.planning import Known, plan_for, problem_of, with_plan
from fedloom.errors import ConfigError, PlanError
from fedloom.planning.applied import client_keys
from fedloom.planning.cost import step_seconds, usage
from fedloom.planning.plan import Plan
from fedloom.planning.values import Architecture, Choice, Machine, Speed, Work
from fedloom.spec.experiment import Experiment

V = TypeVar("V", Machine, Speed)


@dataclass(frozen=True)
class Planner:
    """known: of every client that is planned for.  importance: None for all modules alike, by their size.
    left: client -> the keys of its table that were "auto"."""

    architecture: Architecture
    known: Mapping[str, Known]
    importance: Mapping[str, float] | None = None
    left: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def plan(self, experiment: Experiment) -> Plan:
        """Raises: PlanError, ConfigError as of `problem_of` and `plan_for`."""
        return plan_for(problem_of(experiment, self.architecture, self.known, self.importance))

    def without_a_plan(self, experiment: Experiment) -> dict[str, PlanError | ConfigError]:
        """client -> why nothing can be planned for it any more, of those for which that is so."""
        found: dict[str, PlanError | ConfigError] = {}
        for name in self.planned_for(experiment):
            try:
                self.plan(self.open_again(experiment, but=set(self.left) - {name}))
            except (PlanError, ConfigError) as error:
                found[name] = error
        return found

    def planned_for(self, experiment: Experiment) -> list[str]:
        """The clients that may take part and whose rank was left to the planner."""
        return [client.name for client in experiment.active if "rank" in self.left.get(client.name, ())]

    def applied(self, experiment: Experiment, plan: Plan) -> Experiment:
        return with_plan(experiment, plan, self.architecture)

    def keys(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """client -> what its table says then."""
        modules = [module.name for module in self.architecture.modules]
        return {one.client: client_keys(one, modules) for one in plan.clients}

    def expected_seconds(self, client: str, choice: Choice, work: Work) -> float:
        """Of the training of one round, without messages."""
        return work.steps * step_seconds(self.architecture, self.known[client].machine, work, choice)

    def expected_memory(self, client: str, choice: Choice, work: Work) -> float:
        """Peak bytes of its training."""
        return usage(self.architecture, self.known[client].machine, work, choice).memory_bytes

    def slower(self, factors: Mapping[str, float]) -> Planner:
        """With machines that take so many times longer. factors: client -> measured over expected seconds."""
        known = {
            client: replace(one, machine=_slower(one.machine, factors[client])) if client in factors else one
            for client, one in self.known.items()
        }
        return replace(self, known=known)

    def larger(self, factors: Mapping[str, float]) -> Planner:
        """With trainings that take so many times the memory. factors: client -> measured over expected bytes."""
        known = {
            client: replace(one, machine=_larger(one.machine, factors[client])) if client in factors else one
            for client, one in self.known.items()
        }
        return replace(self, known=known)

    def told(self, limits: Mapping[str, float | None]) -> Planner:
        """With what sites say that training may take. limits: client -> bytes, or None for no limit."""
        known = {
            client: replace(one, site_limit=limits[client]) if client in limits else one
            for client, one in self.known.items()
        }
        return replace(self, known=known)

    def open_again(self, experiment: Experiment, but: Collection[str] = ()) -> Experiment:
        """The experiment with everything left to the planner again, but the bits: those bases are loaded.

        but: clients of which nothing is.
        """

        def opened(client: Any) -> Any:
            if client.name in but:
                return client
            keys = [key for key in self.left.get(client.name, ()) if key != "bits"]
            update: dict[str, Any] = dict.fromkeys(keys, "auto")
            return client.model_copy(update={**update, "rank_pattern": {}} if "rank" in keys else update)

        return experiment.model_copy(update={"clients": tuple(map(opened, experiment.clients))})


def what_is_left(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """client -> its keys that are "auto"."""
    keys = ("rank", "batch_size", "bits")
    found = {client.name: tuple(key for key in keys if getattr(client, key) == "auto") for client in experiment.clients}
    return {name: left for name, left in found.items() if left}


def to_text(planner: Planner) -> str:
    return json.dumps(asdict(planner), sort_keys=True)


def from_text(text: str) -> Planner:
    return TypeAdapter(Planner).validate_python(_tuples(json.loads(text)))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _slower(machine: Machine, factor: float) -> Machine:
    """All its seconds times the factor, but for those that come once in a round."""
    speeds = tuple(_times(speed, factor) for speed in machine.speeds)
    return replace(_times(machine, factor), speeds=speeds, round_seconds=machine.round_seconds)


def _larger(machine: Machine, factor: float) -> Machine:
    return replace(machine, memory_factor=factor * machine.memory_factor)


def _times(values: V, factor: float) -> V:
    seconds = [one.name for one in fields(values) if one.name.endswith("_seconds")]
    return replace(values, **{name: factor * getattr(values, name) for name in seconds})
