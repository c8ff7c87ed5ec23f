"""Between rounds: which clients may use something else than the rest of the run is planned with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedloom.engine.loop import Loop
from fedloom.engine.planner import Planner
from fedloom.engine.planning import room_of
from fedloom.planning.infeasible import amount
from fedloom.rounds.budgets import BUDGET, SITE, UNITS, Budget, budgets, is_amount
from fedloom.store.in_force import OPERATOR


@dataclass(frozen=True)
class Changed:
    """limits: client -> keys of its table that an operator set otherwise.  sites: client -> bytes that its site allows;
    None: any."""

    limits: Mapping[str, Budget] = field(default_factory=dict)
    sites: Mapping[str, float | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.limits or self.sites)

    def texts(self) -> list[str]:
        """Such as "the memory of site-b is limited to 3 GB"."""
        named = [(client, name, value) for client, budget in self.limits.items() for name, value in budget.items()]
        sites = [f"the memory of {client} {_said('memory', value)} at its site" for client, value in self.sites.items()]
        return [f"the {name} of {client} {_said(name, value)}" for client, name, value in named] + sites


def note_sites(loop: Loop, planner: Planner, round: int) -> None:
    """Write down what sites say of their memory, where it is not what they said before and makes a difference."""
    before = budgets(loop.directory.journal.records(), SITE)
    for client, limit in sorted(loop.engine.limits().items()):
        if "rank" not in planner.left.get(client, ()) or not (limit is None or is_amount(limit)):
            continue
        without = replace(planner.known[client], site_limit=None)
        has = room_of(loop.experiment, loop.experiment.client(client), without)
        was = before.get(client, {}).get("memory")
        if min(has, limit or has) != min(has, was or has):
            loop.journal(BUDGET, round=round, client=client, limits={"memory": limit}, by=SITE)


def changed_budgets(loop: Loop, planner: Planner) -> Changed:
    """What the journal says of budgets, as far as the loop goes by others."""
    records = loop.directory.journal.records()
    tables = {client.name: client for client in loop.experiment.clients}
    limits = {
        client: {name: value for name, value in budget.items() if getattr(tables[client], name) != value}
        for client, budget in budgets(records, OPERATOR).items()
        if client in tables
    }
    sites = {
        client: budget["memory"]
        for client, budget in budgets(records, SITE).items()
        if client in planner.known and planner.known[client].site_limit != budget["memory"]
    }
    return Changed({client: budget for client, budget in limits.items() if budget}, sites)


def _said(name: str, value: float | None) -> str:
    return "has no limit of its own any more" if value is None else f"is limited to {amount(UNITS[name], value)}"
