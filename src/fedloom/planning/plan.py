"""The plan: what every client trains, and what that costs. A value, and as JSON `plan.json`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedloom.errors import PlanError
from fedloom.planning.files import read, written
from fedloom.planning.problem import Client, Problem, covered
from fedloom.planning.search import GAP, Best
from fedloom.planning.solve import solved
from fedloom.planning.uniform import UniformChoice, best_uniform
from fedloom.planning.values import Choice

FORMAT = 1
Format = Annotated[int, Field(ge=FORMAT, le=FORMAT)]
Bits = Literal[32, 16, 8, 4]
MOST = 2**53  # a count beyond it is no number to compute with
Count = Annotated[int, Field(ge=1, le=MOST)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class Value(BaseModel):
    """Frozen; no unknown field, no value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Allowed(Value):
    """A client's limits of a round; None for no limit."""

    memory_bytes: Amount | None
    seconds: Amount | None
    up_bytes: Amount | None
    down_bytes: Amount | None


class ClientPlan(Value):
    """What one client trains, how, and what it is expected to cost in a round.

    ranks: (module, rank), in the order of the model.  accumulation: passes of `batch` examples in an optimizer step.
    covered: share of all importance.
    """

    client: Name
    ranks: Annotated[tuple[tuple[Name, Count], ...], Field(min_length=1)]
    bits: Bits
    batch: Count
    accumulation: Count
    memory_bytes: Amount
    seconds: Amount
    up_bytes: Amount
    down_bytes: Amount
    covered: Share
    allowed: Allowed

    @model_validator(mode="after")
    def _one_rank_for_a_module(self) -> ClientPlan:
        if len(dict(self.ranks)) < len(self.ranks):
            raise ValueError("ranks: a module has two ranks")
        return self

    @property
    def choice(self) -> Choice:
        return Choice(self.ranks, self.bits, self.batch, self.accumulation)


class Uniform(Value):
    """The best configuration that is the same for all clients and fits each; see `uniform`."""

    rank: Count
    bits: Bits
    batch: Count
    covered: Share
    round_seconds: Amount


class Plan(Value):
    """clients: in the order of the problem.  covered: share of all importance, mean over the data.
    worth, bound: of the objective; no plan is worth more than bound.  uniform: None where no uniform one fits.
    """

    format: Format
    clients: Annotated[tuple[ClientPlan, ...], Field(min_length=1)]
    covered: Share
    worth: Annotated[float, Field(allow_inf_nan=False)]
    bound: Annotated[float, Field(allow_inf_nan=False)]
    uniform: Uniform | None

    @model_validator(mode="after")
    def _one_plan_for_each_client(self) -> Plan:
        names = [one.client for one in self.clients]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"clients: {twice[0]!r} has two plans")
        return self

    @property
    def gap(self) -> float:
        """How much more the best plan could be worth at most, as a share of this one's worth."""
        return max(0.0, self.bound - self.worth) / max(abs(self.worth), 1e-300)

    @property
    def straggler(self) -> ClientPlan:
        """The client for which a round waits; of equals the first."""
        return max(self.clients, key=lambda one: one.seconds)

    @property
    def round_seconds(self) -> float:
        return self.straggler.seconds

    @property
    def total_bytes(self) -> float:
        """Of all messages of a round, up and down."""
        return sum(one.up_bytes + one.down_bytes for one in self.clients)

    def of(self, client: str) -> ClientPlan:
        """Raises: PlanError for a client that is not planned for."""
        found = next((one for one in self.clients if one.client == client), None)
        if found is None:
            raise PlanError("the plan does not have this client", where=f"client {client!r}")
        return found

    @property
    def gain(self) -> tuple[float, float] | None:
        """Importance covered and seconds of a round, each divided by the best uniform one's; None without one."""
        if self.uniform is None:
            return None
        return self.covered / self.uniform.covered, self.round_seconds / self.uniform.round_seconds


def planned(problem: Problem, gap: float = GAP) -> Plan:
    """The best plan, and what it is compared with. Raises: as `solve.solved`."""
    found, weights = solved(problem, gap), problem.weights()
    best = dict(found.best)
    clients = tuple(_client_plan(problem, client, best[client.name]) for client in problem.clients)
    shared = sum(weights[one.client] * one.covered for one in clients)
    uniform = best_uniform(problem)
    return Plan(
        format=FORMAT,
        clients=clients,
        covered=min(1.0, shared),
        worth=found.worth,
        bound=found.bound,
        uniform=None if uniform is None else _uniform(uniform),
    )


def to_json(plan: Plan) -> str:
    """Canonical: sorted keys, no spaces."""
    return written(plan)


def from_json(text: str, where: object = "plan.json") -> Plan:
    """Raises: PlanError naming the field that is missing, unknown or cannot be."""
    return read(Plan, text, where=where, do="Make the plan again: the file was changed, or is of another version")


def _client_plan(problem: Problem, client: Client, best: Best) -> ClientPlan:
    choice, cost = best.choice, best.cost
    limits = [None if limit == float("inf") else limit for limit in client.allowed()]
    return ClientPlan(
        client=client.name,
        ranks=choice.ranks,
        bits=cast(Bits, choice.bits),
        batch=choice.batch,
        accumulation=choice.accumulation,
        memory_bytes=cost.memory_bytes,
        seconds=cost.seconds,
        up_bytes=cost.up_bytes,
        down_bytes=cost.down_bytes,
        covered=min(1.0, covered(problem, choice)),
        allowed=Allowed(memory_bytes=limits[0], seconds=limits[1], up_bytes=limits[2], down_bytes=limits[3]),
    )


def _uniform(found: UniformChoice) -> Uniform:
    choice = found.choice
    return Uniform(
        rank=found.rank,
        bits=cast(Bits, choice.bits),
        batch=choice.batch,
        covered=min(1.0, found.covered),
        round_seconds=found.round_seconds,
    )
